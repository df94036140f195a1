package diglim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/modsig"
	"diglim/internal/rpmtest"

	"golang.org/x/sys/unix"
)

// fake is no kernel: an interface whose directory is not there, that notes what
// is written, and answers as told.
func fake(answers ...error) (*Interface, *[]string) {
	var log []string
	return &Interface{dir: "/missing", maxLabel: maxLabel(""), write: func(path string, data []byte) error {
		log = append(log, fmt.Sprintf("%s %d bytes %.24q", filepath.Base(path), len(data), data))
		if strings.HasSuffix(path, "label") || len(answers) == 0 {
			return nil
		}
		err := answers[0]
		answers = answers[1:]
		return err
	}}, &log
}

func compact(t *testing.T, n int) []byte {
	t.Helper()
	block := digestlist.Block{Type: digestlist.File, Algorithm: digest.SHA256}
	for i := range n {
		block.Digests = append(block.Digests, digest.Sum(digest.SHA256, binary.BigEndian.AppendUint32(nil, uint32(i))))
	}
	b, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{block})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rpmList() []byte {
	return rpmtest.Package{Name: "p", Algo: 8, Files: []rpmtest.File{
		rpmtest.Regular("/usr/bin/p", 0o755, "p"), rpmtest.Regular("/etc/p", 0o644, "c"), rpmtest.Regular("/etc/q", 0o644, "d")}}.Header()
}

const (
	compactPath = "/etc/digest_lists/0-file_list-compact-p"
	rpmPath     = "/etc/digest_lists/0-file_list-rpm-p-1.0-1.noarch"
)

func TestWhatIsWritten(t *testing.T) {
	for name, c := range map[string]struct {
		op       Op
		list     List
		buffered bool
		want     []string
		digests  int
	}{
		"compact by path": {Add, List{Path: compactPath, Format: digestlist.FormatCompact, Content: compact(t, 2)}, false,
			[]string{`digest_list_add 39 bytes "/etc/digest_lists/0-file"`}, 2},
		"compact by path, signed": {Del, List{Path: compactPath, Format: digestlist.FormatCompact, Content: modsig.Append(compact(t, 2), modsig.Signature{Type: modsig.PKCS7, Bytes: []byte("sig")})}, false,
			[]string{`digest_list_del 39 bytes "/etc/digest_lists/0-file"`}, 2},
		"compact by buffer, its trailer off": {Add, List{Path: compactPath, Format: digestlist.FormatCompact, Content: modsig.Append(compact(t, 2), modsig.Signature{Type: modsig.PKCS7, Bytes: []byte("sig")})}, true,
			[]string{`digest_list_label 22 bytes "0-file_list-compact-p\x00"`, `digest_list_add 80 bytes "\x01\x00\x01\x00\x00\x00\x04\x00\x02`}, 2},
		"rpm, what changes first": {Add, List{Path: rpmPath, Format: digestlist.FormatRPM, Content: rpmList()}, false,
			[]string{`digest_list_label 31 bytes "0-file_list-rpm-p-1.0-1.`, `digest_list_add 80 bytes "\x01\x00\x01\x00\x00\x00\x04\x00\x02`,
				`digest_list_label 31 bytes "0-file_list-rpm-p-1.0-1.`, `digest_list_add 48 bytes "\x01\x00\x01\x00\x01\x00\x04\x00\x01`}, 3},
		"too large for one upload": {Add, List{Path: compactPath, Format: digestlist.FormatCompact, Content: compact(t, 131_072)}, false,
			[]string{`digest_list_label 22 bytes`, `digest_list_add 4190192 bytes`, `digest_list_label 22 bytes`, `digest_list_add 4144 bytes`}, 131_072},
		"rpm without files": {Add, List{Path: rpmPath, Format: digestlist.FormatRPM, Content: rpmtest.Package{Name: "p"}.Header()}, false, nil, 0},
	} {
		i, log := fake()
		r, err := i.Apply(c.op, c.list, c.buffered)
		if err != nil || r.Digests != c.digests || r.Done != (len(c.want) > 0) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if !slices.EqualFunc(*log, c.want, strings.HasPrefix) {
			t.Errorf("%s: wrote %q, want %q", name, *log, c.want)
		}
	}
}

// What makes the original kernel oops never reaches it.
func TestNothingHarmfulIsWritten(t *testing.T) {
	good := compact(t, 2)
	trailer := func(size uint32) []byte {
		b := modsig.Append(bytes.Clone(good), modsig.Signature{Type: modsig.PKCS7})
		binary.BigEndian.PutUint32(b[len(b)-len(modsig.Marker)-4:], size)
		return b
	}
	long := "/etc/" + strings.Repeat("x", 178)
	for name, l := range map[string]List{
		"empty":                       {Path: compactPath, Format: digestlist.FormatCompact, Content: nil},
		"empty but for its signature": {Path: compactPath, Format: digestlist.FormatCompact, Content: modsig.Append(nil, modsig.Signature{Bytes: []byte("sig")})},
		"signature covers the list":   {Path: compactPath, Format: digestlist.FormatCompact, Content: trailer(uint32(len(good)))},
		"signature larger than all":   {Path: compactPath, Format: digestlist.FormatCompact, Content: trailer(uint32(len(good)) + 1)},
		"signature of 2^32-1":         {Path: compactPath, Format: digestlist.FormatCompact, Content: trailer(1<<32 - 1)},
		"damaged":                     {Path: compactPath, Format: digestlist.FormatCompact, Content: good[:40]},
		"long basename":               {Path: long, Format: digestlist.FormatCompact, Content: good},
		"long label":                  {Path: long, Format: digestlist.FormatRPM, Content: rpmList()},
		"space in the label":          {Path: "/etc/a b", Format: digestlist.FormatRPM, Content: rpmList()},
		"newline in the basename":     {Path: "/etc/a\nb", Format: digestlist.FormatCompact, Content: good},
		"newline in the path":         {Path: "/e\ntc/a", Format: digestlist.FormatCompact, Content: good},
		"relative path":               {Path: "a", Format: digestlist.FormatCompact, Content: good},
		"rpm list cut short":          {Path: rpmPath, Format: digestlist.FormatRPM, Content: rpmList()[:100]},
		"unknown format":              {Path: rpmPath, Format: "tar", Content: good},
	} {
		for _, op := range []Op{Add, Del} {
			i, log := fake()
			if _, err := i.Apply(op, l, false); err == nil || len(*log) > 0 {
				t.Errorf("%s: %v, wrote %q", name, err, *log)
			}
		}
	}
}

func TestAnswers(t *testing.T) {
	l := List{Path: compactPath, Format: digestlist.FormatCompact, Content: compact(t, 1)}
	for _, c := range []struct {
		op     Op
		answer error
		done   bool
		want   string // in the error; "" for none
	}{
		{Add, nil, true, ""},
		{Del, nil, true, ""},
		{Add, unix.EEXIST, false, ""},
		{Del, unix.ENOENT, false, ""},
		{Add, unix.ENOENT, false, "IMA gave the list no digest"},
		{Del, unix.EEXIST, false, "file exists"},
		{Del, unix.EPERM, false, "IMA measured or appraised the list when it was added"},
		{Add, unix.EPERM, false, "operation not permitted"},
		{Add, unix.ETXTBSY, false, "open for writing"},
		{Add, unix.EINVAL, false, "invalid argument"},
	} {
		i, _ := fake(c.answer)
		r, err := i.Apply(c.op, l, false)
		if r.Done != c.done || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s answered %v: %+v, %v", controlFile(c.op), c.answer, r, err)
		}
	}
	// An rpm list half of which was there is done.
	i, _ := fake(unix.EEXIST, nil)
	if r, err := i.Apply(Add, List{Path: rpmPath, Format: digestlist.FormatRPM, Content: rpmList()}, false); err != nil || !r.Done {
		t.Errorf("half there: %+v, %v", r, err)
	}
}

func TestMaxLabel(t *testing.T) {
	for cmdline, want := range map[string]int{
		"":                           177,
		"quiet ima_hash=sha512 ro":   113,
		"ima_hash=sha384":            145,
		"ima_hash=sha256":            177,
		"ima_hash=streebog512":       108,
		"x=ima_hash=sha512 ima_hash": 177,
	} {
		if got := maxLabel(cmdline); got != want {
			t.Errorf("%q: %d, want %d", cmdline, got, want)
		}
	}
}

func TestOpen(t *testing.T) {
	root := t.TempDir()
	if _, err := Open(root, ""); !errors.Is(err, ErrNotThere) {
		t.Errorf("Open without an interface: %v", err)
	}
	dir := filepath.Join(root, Dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"digest_list_add": "",
		"digests_count":   "Parser digests: 1\nFile digests: 104273\nMetadata digests: 0\nDigest list digests: 2430\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i, err := Open(root, "")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := i.Count(); err != nil || c != (Counts{1, 104273, 0, 2430}) {
		t.Errorf("Count = %+v, %v", c, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "digests_count"), []byte("Parser digests: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := i.Count(); err == nil {
		t.Errorf("Count of nonsense = %+v", c)
	}
}
