package diglim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/modsig"

	"golang.org/x/sys/unix"
)

var (
	abc  = digest.Sum(digest.SHA256, []byte("abc"))
	list = digest.Sum(digest.SHA256, []byte("list"))
)

func TestParseAnswer(t *testing.T) {
	one, two := Name{list, "0-file_list-compact-cat"}, Name{list, "any thing (actions: 0): at all"}
	text := one.String() + " (actions: 1): version: 1, algo: sha256, type: 0, modifiers: 1, count: 2, datalen: 64\n" +
		two.String() + " (actions: 0): version: 1, algo: sha256, type: 1, modifiers: 65535, count: 1, datalen: 32\n" +
		"sha256-" + abc.Hex() + "-x (actions: 3): type: 3, size: 84\n"
	want := Answer{
		Holders: []Holder{{one, digestlist.Parser, digestlist.Immutable, Measured}, {two, digestlist.File, 65535, 0}},
		List:    &Loaded{Name{abc, "x"}, 84, Measured | Appraised},
	}
	if got, err := ParseAnswer(abc, []byte(text)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseAnswer(abc, nil); err != nil || got.Holders != nil || got.List != nil {
		t.Errorf("no answer: %+v, %v", got, err)
	}
	for name, edit := range map[string][2]string{
		"another algorithm":       {"algo: sha256", "algo: sha512"},
		"another digest":          {abc.Hex(), list.Hex()},
		"type 3":                  {"type: 0", "type: 3"},
		"actions of many bits":    {"actions: 3", "actions: 256"},
		"modifiers of many bits":  {"65535", "65536"},
		"version":                 {"version: 1", "version: 2"},
		"more behind":             {"size: 84", "size: 84 bytes"},
		"more behind a holder":    {"datalen: 64", "datalen: 64, "},
		"number written oddly":    {"count: 2", "count: 02"},
		"no name":                 {one.String(), "sha256-00"},
		"name with odd algorithm": {one.String(), "sha257-" + list.Hex() + "-x"},
		"no actions":              {"(actions: 1)", "(action: 1)"},
	} {
		bad := strings.Replace(text, edit[0], edit[1], 1)
		if bad == text {
			t.Fatalf("%s: nothing to replace", name)
		}
		if got, err := ParseAnswer(abc, []byte(bad)); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	twice := strings.Repeat("sha256-"+abc.Hex()+"-x (actions: 3): type: 3, size: 84\n", 2)
	if _, err := ParseAnswer(abc, []byte(twice)); err == nil || !strings.Contains(err.Error(), "offset 106: ") {
		t.Errorf("two lists with one digest: %v", err)
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte("sha256-" + list.Hex() + "-a b (actions: 1): version: 1, algo: sha256, type: 2, modifiers: 1, count: 2, datalen: 64\n"))
	f.Add([]byte("sha256-" + abc.Hex() + "-x (actions: 3): type: 3, size: 84\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := ParseAnswer(abc, text)
		if err != nil {
			return
		}
		lines := len(a.Holders)
		if a.List != nil {
			lines++
		}
		if n := len(slices.Collect(bytes.Lines(text))); n != lines {
			t.Errorf("%d lines read as %d", n, lines)
		}
	})
}

// loadedDir is plain files with the names of loaded lists.
func loadedDir(t *testing.T, names ...Name) string {
	t.Helper()
	dir := t.TempDir()
	loaded := filepath.Join(dir, "digest_lists_loaded")
	if err := os.Mkdir(loaded, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		for _, suffix := range []string{"", ".ascii"} {
			if err := os.WriteFile(filepath.Join(loaded, n.String()+suffix), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// answers says of each list that it is loaded.
func answers(loaded ...Name) func(string, []byte) ([]byte, error) {
	return func(_ string, query []byte) ([]byte, error) {
		for _, n := range loaded {
			if strings.HasPrefix(n.String(), string(query)+"-") {
				return fmt.Appendf(nil, "%s (actions: 0): type: 3, size: 48\n", n), nil
			}
		}
		return nil, nil
	}
}

// What is there under this name or another is not written; a list that cannot
// be loaded because of what is left over is an error.
func TestApplyKnown(t *testing.T) {
	content := compact(t, 1)
	sum := digest.Sum(digest.SHA256, content)
	ours, other := Name{sum, filepath.Base(compactPath)}, Name{sum, "other"}
	signed := modsig.Append(bytes.Clone(content), modsig.Signature{Type: modsig.PKCS7, Bytes: []byte("sig")})
	whole := Name{digest.Sum(digest.SHA256, signed), filepath.Base(compactPath)}
	for name, c := range map[string]struct {
		op      Op
		content []byte
		files   []Name // in the directory of what is loaded
		loaded  []Name
		answer  error
		want    Result
		writes  int
		err     string
	}{
		"add, nothing there":            {Add, content, nil, nil, nil, Result{Digests: 1, Done: true}, 1, ""},
		"add, others there":             {Add, content, []Name{{list, "x"}}, []Name{{list, "x"}}, nil, Result{Digests: 1, Done: true}, 1, ""},
		"add, there":                    {Add, content, []Name{ours}, []Name{ours}, nil, Result{Digests: 1}, 0, ""},
		"add, there under another name": {Add, content, []Name{other}, []Name{other}, nil, Result{Digests: 1, Elsewhere: "other"}, 0, ""},
		"add, stale files":              {Add, content, []Name{ours}, nil, unix.EEXIST, Result{Digests: 1}, 1, "left from when it was deleted under another"},
		"add, signed, there":            {Add, signed, []Name{ours}, []Name{ours}, nil, Result{Digests: 1}, 0, ""},
		"add, signed, measured whole":   {Add, signed, []Name{whole}, []Name{whole}, nil, Result{Digests: 1}, 0, ""},
		"del":                           {Del, content, []Name{ours}, []Name{ours}, nil, Result{Digests: 1, Done: true}, 1, ""},
		"del, nothing there":            {Del, content, nil, nil, nil, Result{Digests: 1}, 0, ""},
		"del, others there":             {Del, content, []Name{{list, "x"}}, []Name{{list, "x"}}, nil, Result{Digests: 1}, 0, ""},
		"del, through an orphan":        {Del, content, []Name{ours, other}, []Name{other}, nil, Result{Digests: 1, Elsewhere: "other"}, 0, ""},
		"del, with an orphan":           {Del, content, []Name{ours, other}, []Name{ours}, nil, Result{Digests: 1, Done: true}, 1, ""},
	} {
		writes := 0
		i := &Interface{dir: loadedDir(t, c.files...), ask: answers(c.loaded...), maxLabel: maxLabel(""), write: func(string, []byte) error {
			writes++
			return c.answer
		}}
		got, err := i.Apply(c.op, List{Path: compactPath, Format: digestlist.FormatCompact, Content: c.content}, false)
		if got != c.want || writes != c.writes || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %+v, %v, %d writes; want %+v, %q, %d", name, got, err, writes, c.want, c.err, c.writes)
		}
	}
}

// The kernel is asked only about what seems to be there.
func TestApplyAsksLittle(t *testing.T) {
	asked := 0
	i := &Interface{dir: loadedDir(t, Name{list, "x"}), maxLabel: maxLabel(""), write: func(string, []byte) error { return nil }}
	a := List{Path: "/a", Format: digestlist.FormatCompact, Content: compact(t, 1)}
	b := List{Path: "/b", Format: digestlist.FormatCompact, Content: compact(t, 2)}
	i.ask = func(path string, query []byte) ([]byte, error) {
		asked++
		return answers(Name{digest.Sum(digest.SHA256, a.Content), "a"})(path, query)
	}
	for n, c := range []struct {
		op    Op
		list  List
		done  bool
		asked int // so far
	}{
		{Add, a, true, 0}, {Add, b, true, 0}, {Add, a, false, 1}, {Del, b, true, 1}, {Del, b, false, 1}, {Del, a, true, 1}, {Add, a, true, 1},
	} {
		r, err := i.Apply(c.op, c.list, false)
		if err != nil || r.Done != c.done || asked != c.asked {
			t.Errorf("step %d: %+v, %v, asked %d times", n, r, err, asked)
		}
	}
}

func TestStatus(t *testing.T) {
	a, b := digest.Sum(digest.SHA256, []byte("a")), digest.Sum(digest.SHA256, []byte("b"))
	files := []Name{{a, "first"}, {a, "second"}, {b, "gone.ascii"}, {list, "plain"}}
	dir := loadedDir(t, files...)
	if err := os.WriteFile(filepath.Join(dir, "digests_count"), []byte("Parser digests: 0\nFile digests: 2\nMetadata digests: 0\nDigest list digests: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := &Interface{securityfs: dir, dir: dir, ask: answers(files[1], files[3])}
	s, err := i.Status()
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(s.Lists))
	for i, l := range s.Lists {
		names[i] = l.Name.Label
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"plain", "second"}) {
		t.Errorf("lists %q", names)
	}
	slices.SortFunc(s.Orphans, func(a, b Orphan) int { return strings.Compare(a.Name.Label, b.Name.Label) })
	if !slices.Equal(s.Orphans, []Orphan{{files[0], "second"}, {files[2], ""}}) {
		t.Errorf("orphans %+v", s.Orphans)
	}
}

func TestCountAttempts(t *testing.T) {
	long := strings.Repeat("0100", 5000) // a list of 10,000 bytes
	log := "10 0c62 ima-sig sha256:c9db boot_aggregate \n" +
		"10 860d ima-buf sha256:fc66 add_file_0-file_list-compact-x " + long + "\n" +
		" 9 7d5c ima-buf sha256:6f72 add_buffer_one " + long + "\n" +
		"10 6fcd ima-buf sha256:6f72 del_buffer_one 01\n" +
		"10 6fcd ima-buf sha256:6f72 kernel_version 352e\n" +
		"10 6fcd ima-ng sha256:6f72 /tmp/add_file_x\n"
	got, err := countAttempts(strings.NewReader(log))
	if err != nil || got != (Attempts{Add: 2, Del: 1}) {
		t.Errorf("%+v, %v", got, err)
	}
}
