package deb

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	type want struct {
		number       int
		field, value string
		continues    bool
	}
	for _, c := range []struct {
		text string
		want []want
		err  string
	}{
		{"", []want{{1, "", "", false}}, ""},
		{"A: b", []want{{1, "a", "b", false}, {1, "", "", false}}, ""},
		{"A:b \r\n\tc\n  .\n", []want{{1, "a", "b", false}, {2, "a", "c", true}, {3, "a", ".", true}, {4, "", "", false}}, ""},
		{"A:\n\n\nB-C: d: e\n", []want{{1, "a", "", false}, {2, "", "", false}, {3, "", "", false}, {4, "b-c", "d: e", false}, {5, "", "", false}}, ""},
		{" a\n", nil, "line 1: continues no field"},
		{"A: b\n\n c\n", []want{{1, "a", "b", false}, {2, "", "", false}}, "line 3: continues no field"},
		{"A b\n", nil, `line 1: "A b" is not`},
		{": b\n", nil, "is not NAME"},
		{"-A: b\n", nil, "is not NAME"},
		{"# A: b\n", nil, "is not NAME"},
		{"A B: c\n", nil, "is not NAME"},
		{"A\x00: c\n", nil, "is not NAME"},
		{"\xff\xfe: c\n", nil, "is not NAME"},
		{"A: " + strings.Repeat("x", maxLine), nil, "line 1: more than"},
	} {
		var got []want
		var failed error
		for l, err := range lines(strings.NewReader(c.text)) {
			if failed = err; err == nil {
				got = append(got, want{l.number, l.field, l.value(), l.continues})
			}
		}
		if (failed == nil) != (c.err == "") || failed != nil && !strings.Contains(failed.Error(), c.err) {
			t.Errorf("%.40q: %v", c.text, failed)
		}
		if len(got) != len(c.want) {
			t.Errorf("%.40q: %+v", c.text, got)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%.40q: %+v", c.text, got)
			}
		}
	}
}

// An index with a line, or with packages, without end is refused before it
// takes much memory.
func TestIndexMemory(t *testing.T) {
	for name, c := range map[string]struct {
		index io.Reader
		limit uint64
		text  string
	}{
		"line":     {io.MultiReader(strings.NewReader("Package: "), endless("x")), 4 << 20, "line 1: more than"},
		"folded":   {io.MultiReader(strings.NewReader("Package: x\n"), io.LimitReader(endless(" x\n"), 9<<20)), 64 << 20, ""},
		"packages": {endless("Package: x\n\n"), 384 << 20, "more than 262144 packages"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := parsePackages(c.index)
		runtime.ReadMemStats(&after)
		if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > c.limit {
			t.Errorf("%s: %d bytes allocated", name, used)
		}
	}
}

// endless repeats a text for ever.
type endless string

func (e endless) Read(p []byte) (int, error) {
	n := copy(p, bytes.Repeat([]byte(e), max(1, min(len(p), 4096)/len(e))))
	return n, nil
}
