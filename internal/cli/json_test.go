package cli

import (
	"bytes"
	"encoding/json"
	"testing"
)

// The standard library reads what is written, and writes the same.
func TestWriteObject(t *testing.T) {
	o := Object{
		{"name", "a \"b\"\\\n\x01\x7f <größe>"},
		{"count", 104273}, {"big", uint64(1<<64 - 1)}, {"ok", true},
		{"none", []Object{}}, {"names", []string{"x", "y"}},
		{"nested", Object{{"list", []Object{{{"a", 1}}, {{"b", false}}}}, {"empty", Object{}}}},
	}
	var indented, line, again bytes.Buffer
	if err := WriteObject(&indented, o, true); err != nil {
		t.Fatal(err)
	}
	if err := WriteObject(&line, o, false); err != nil {
		t.Fatal(err)
	}
	if err := json.Indent(&again, line.Bytes(), "", "  "); err != nil || again.String() != indented.String() {
		t.Errorf("%v\n%s\n%s", err, again.String(), indented.String())
	}
	var got struct {
		Name   string
		Count  int
		Big    uint64
		Ok     bool
		None   []int
		Names  []string
		Nested struct{ List []map[string]any }
	}
	if err := json.Unmarshal(indented.Bytes(), &got); err != nil {
		t.Fatalf("%v\n%s", err, indented.String())
	}
	if got.Name != o[0].Value || got.Count != 104273 || got.Big != 1<<64-1 || !got.Ok || got.None == nil || len(got.Names) != 2 || len(got.Nested.List) != 2 {
		t.Errorf("%+v", got)
	}
	for _, s := range []string{"a\xffb", "\u2028", ""} {
		var back string
		if err := json.Unmarshal(appendString(nil, s), &back); err != nil || back != string([]rune(s)) {
			t.Errorf("%q: %q, %v", s, back, err)
		}
	}
}
