package ima

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/kernel/upload"
	"diglim/internal/modsig"

	"golang.org/x/sys/unix"
)

const (
	listName  = "0-file_list-compact-p"
	pcr11     = "quiet ima_digest_list_pcr=11 ro"
	bothLines = "measure func=DIGEST_LIST_CHECK pcr=11\nappraise func=DIGEST_LIST_CHECK appraise_type=imasig\n"
)

func block(typ digestlist.Type, m digestlist.Modifiers, names ...string) digestlist.Block {
	b := digestlist.Block{Type: typ, Modifiers: m, Algorithm: digest.SHA256}
	for _, n := range names {
		b.Digests = append(b.Digests, digest.Sum(digest.SHA256, []byte(n)))
	}
	return b
}

func compact(t *testing.T, d digestlist.Dialect, e digestlist.Endian, blocks ...digestlist.Block) []byte {
	t.Helper()
	b, err := digestlist.AppendCompact(nil, d, e, blocks)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signature is security.ima, or security.evm, as it looks.
func signature(typ byte) []byte {
	return append([]byte{typ, 2, 4, 0xeb, 0x10, 0xb4, 0x64, 0, 4}, "sig!"...)
}

// A setting is no kernel but plain files where one has its own, and a function
// that notes what is written.
type setting struct {
	*Interface
	list    upload.List
	written []string
	answer  error
}

func newSetting(t *testing.T, cmdline, policy, name string, content []byte, xattrs map[string][]byte) *setting {
	t.Helper()
	dir := t.TempDir()
	files := map[string][]byte{
		"ima/digest_list_data":            nil,
		"ima/digests_count":               []byte("7\n"),
		"ima/binary_runtime_measurements": nil,
		"ima/policy":                      []byte(policy),
		name:                              content,
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	i, err := Open(dir, cmdline)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &setting{Interface: i, list: upload.List{Path: filepath.Join(dir, name), Format: digestlist.FormatCompact, Content: content}}
	i.xattr = func(_, name string) ([]byte, error) { return xattrs[name], nil }
	i.write = func(path string, data []byte) error {
		s.written = append(s.written, filepath.Base(path)+" "+filepath.Base(string(data)))
		return s.answer
	}
	return s
}

// measured is an entry of IMA's log.
func measured(path string, content []byte) []byte {
	field := func(b []byte, data ...byte) []byte {
		return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
	}
	data := field(nil, digest.Sum(digest.SHA256, content).Append([]byte("sha256:\x00"))...)
	data = field(data, append([]byte(path), 0)...)
	b := binary.LittleEndian.AppendUint32(nil, 10)
	b = digest.Sum(digest.SHA1, data).Append(b)
	b = field(b, []byte("ima-ng")...)
	return field(b, data...)
}

func TestApply(t *testing.T) {
	content := compact(t, digestlist.OpenEuler, hostEndian(), block(digestlist.File, digestlist.Immutable, "a", "b"))
	signed := map[string][]byte{"security.ima": signature(3)}
	for _, cmdline := range []string{pcr11, "ima_digest_list_pcr=+11 ima_appraise_digest_list=digest", "ima_appraise_digest_list=digest-nometadata"} {
		s := newSetting(t, cmdline, bothLines, listName, content, signed)
		if r, err := s.Apply(upload.Add, s.list, false); err != nil || r != (upload.Result{Digests: 2, Done: true}) {
			t.Errorf("%s: add: %+v, %v", cmdline, r, err)
		}
		if r, err := s.Apply(upload.Del, s.list, false); err != nil || !r.Done {
			t.Errorf("%s: del: %+v, %v", cmdline, r, err)
		}
		if want := []string{"digest_list_data " + listName, "digest_list_data_del " + listName}; !slices.Equal(s.written, want) {
			t.Errorf("%s: wrote %q, want %q", cmdline, s.written, want)
		}
		s.answer = unix.EACCES
		if _, err := s.Apply(upload.Add, s.list, false); !errors.Is(err, unix.EACCES) || errors.Is(err, ErrOff) != !s.appraise {
			t.Errorf("%s: answered EACCES: %v", cmdline, err)
		}
	}
	// What is said to be too much for the kernel's memory can only go.
	s := newSetting(t, pcr11+" ima_digest_db_size=87", bothLines, listName, content, signed)
	if r, err := s.Apply(upload.Add, s.list, false); err == nil || !strings.Contains(err.Error(), "2 digests take 88 bytes at least") || len(s.written) > 0 {
		t.Errorf("no room: %+v, %v, %q", r, err, s.written)
	}
	if r, err := s.Apply(upload.Del, s.list, false); err != nil || !r.Done {
		t.Errorf("no room: del: %+v, %v", r, err)
	}
	// With nothing loaded there is nothing to delete.
	s = newSetting(t, pcr11, bothLines, listName, content, signed)
	if err := os.WriteFile(filepath.Join(s.dir, countFile), []byte("0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Apply(upload.Del, s.list, false); err != nil || r.Done || len(s.written) > 0 {
		t.Errorf("del of nothing: %+v, %v, %q", r, err, s.written)
	}
}

// Everything that the kernel would punish is refused, and nothing written.
func TestRefusals(t *testing.T) {
	type args struct {
		cmdline, policy, name string
		content               []byte
		ima, evm              []byte
		buffered              bool
		format                digestlist.Format
	}
	host := hostEndian()
	other := digestlist.LittleEndian + digestlist.BigEndian - host
	files := block(digestlist.File, digestlist.Immutable, "a", "b")
	parsers := block(digestlist.Parser, digestlist.Immutable, "a")
	metadata := block(digestlist.Metadata, 0, "a")
	good := compact(t, digestlist.OpenEuler, host, files)
	both := pcr11 + " ima_appraise_digest_list=digest"
	for name, c := range map[string]struct {
		edit func(a *args)
		want string
	}{
		"v3 files": {func(a *args) { a.content = compact(t, digestlist.V3, digestlist.LittleEndian, files) }, "type parser in a list of type file by its name: a list of dialect v3?"},
		"v3 parsers": {func(a *args) {
			a.content, a.name = compact(t, digestlist.V3, digestlist.LittleEndian, parsers), "0-parser_list-compact-p"
		}, "type key in a list of type parser"},
		"v3 metadata": {func(a *args) {
			a.content, a.name = compact(t, digestlist.V3, digestlist.LittleEndian, metadata), "0-metadata_list-compact-p"
		}, "no digests of type metadata"},
		"v3 metadata and files": {func(a *args) {
			a.content, a.name = compact(t, digestlist.V3, digestlist.LittleEndian, metadata, files), "0-metadata_list-compact-p"
		}, "type parser in a list of type metadata"},
		"parsers among files":      {func(a *args) { a.content = compact(t, digestlist.OpenEuler, host, files, parsers) }, "block 1: digests of type parser"},
		"a name that says nothing": {func(a *args) { a.name = "list" }, "the name has to say"},
		"other byte order":         {func(a *args) { a.content = compact(t, digestlist.OpenEuler, other, files) }, "byte order"},
		"modifiers":                {func(a *args) { a.content = compact(t, digestlist.OpenEuler, host, block(digestlist.File, 3, "a")) }, "modifiers 0x3"},
		"appended signature": {func(a *args) {
			a.content = modsig.Append(bytes.Clone(good), modsig.Signature{Type: modsig.PKCS7, Bytes: []byte("s")})
		}, "appended signature"},
		"cut":                 {func(a *args) { a.content = good[:60] }, "ends early"},
		"version":             {func(a *args) { a.content = bytes.Clone(good); a.content[0] = 2 }, "version 2"},
		"empty":               {func(a *args) { a.content = nil }, "empty list"},
		"empty block":         {func(a *args) { a.content = make([]byte, 16); a.content[0] = 1 }, "of type key"},
		"unsigned":            {func(a *args) { a.ima = nil }, "not signed: no security.ima"},
		"hashed":              {func(a *args) { a.ima = append([]byte{1}, make([]byte, 20)...) }, "not signed"},
		"signature cut":       {func(a *args) { a.ima = a.ima[:12] }, "3 bytes of signature, 4 by its header"},
		"lists off":           {func(a *args) { a.cmdline = "quiet" }, "off in this kernel"},
		"lists in PCR 10":     {func(a *args) { a.cmdline = "ima_digest_list_pcr=10" }, "off in this kernel"},
		"buffer":              {func(a *args) { a.buffered = true }, "by path only"},
		"rpm":                 {func(a *args) { a.format = digestlist.FormatRPM }, "by path only"},
		"no policy":           {func(a *args) { a.policy = "" }, "no rule of IMA's policy says to measure"},
		"no appraisal":        {func(a *args) { a.cmdline, a.policy = both, "measure func=DIGEST_LIST_CHECK\n" }, "no rule of IMA's policy says to appraise"},
		"measured by the way": {func(a *args) { a.policy = "measure func=FILE_CHECK mask=^MAY_READ uid=0\n" }, "no rule of IMA's policy"},
	} {
		a := args{cmdline: pcr11, policy: bothLines, name: listName, content: good, ima: signature(3), format: digestlist.FormatCompact}
		c.edit(&a)
		s := newSetting(t, a.cmdline, a.policy, a.name, a.content, map[string][]byte{"security.ima": a.ima, "security.evm": a.evm})
		s.list.Format = a.format
		for _, op := range []upload.Op{upload.Add, upload.Del} {
			r, err := s.Apply(op, s.list, a.buffered)
			if err == nil || !strings.Contains(err.Error(), c.want) || r.Done || len(s.written) > 0 {
				t.Errorf("%s: %+v, %v, wrote %q; want %s", name, r, err, s.written, c.want)
			}
		}
	}
}

// A list that IMA logged when it was read here needs no rule that can be read.
func TestLogged(t *testing.T) {
	content := compact(t, digestlist.OpenEuler, hostEndian(), block(digestlist.File, 0, "a"))
	s := newSetting(t, pcr11, "", listName, content, map[string][]byte{"security.ima": signature(3)})
	apply := func(what string, want bool) {
		t.Helper()
		r, err := s.Apply(upload.Add, s.list, false)
		if r.Done != want || (err == nil) != want {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
	logged := func(path string, content []byte) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(s.dir, "binary_runtime_measurements"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Write(measured(path, content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(s.dir, "policy")); err != nil {
		t.Fatal(err)
	}
	apply("not logged", false)
	logged("/other", content)
	apply("another file logged", false)
	logged(s.list.Path, []byte("other"))
	apply("other content logged", false)
	logged(s.list.Path, content)
	apply("logged", true)
	link := filepath.Join(t.TempDir(), listName)
	if err := os.Symlink(s.list.Path, link); err != nil {
		t.Fatal(err)
	}
	s.list.Path = link
	apply("through a link", true)
	if len(s.written) != 2 {
		t.Errorf("wrote %q", s.written)
	}
}

func TestCheckSigned(t *testing.T) {
	content := []byte("content")
	ng := digest.Sum(digest.SHA256, content).Append([]byte{4, 4})
	old := digest.Sum(digest.SHA1, content).Append([]byte{1})
	for name, c := range map[string]struct {
		ima, evm []byte
		want     string // in the error; "" for none
	}{
		"signature":              {signature(3), nil, ""},
		"hash and portable":      {ng, signature(5), ""},
		"old hash and portable":  {old, signature(5), ""},
		"nothing":                {nil, nil, "no security.ima"},
		"portable alone":         {nil, signature(5), "no security.ima"},
		"hash alone":             {ng, nil, "no signature"},
		"hash and HMAC":          {ng, signature(2), "no signature"},
		"hash and bound":         {ng, signature(3), "no signature"},
		"hash of other":          {digest.Sum(digest.SHA256, nil).Append([]byte{4, 4}), signature(5), "something else"},
		"hash cut":               {ng[:20], signature(5), "security.ima: "},
		"hash of unknown":        {append([]byte{4, 200}, ng[2:]...), signature(5), "security.ima: "},
		"no hash":                {[]byte{4}, signature(5), "ends early"},
		"type 6":                 {[]byte{6, 2, 4}, signature(5), "type 6"},
		"signature of version 1": {append([]byte{3, 1}, signature(3)[2:]...), nil, "version 1"},
		"signature of nothing":   {[]byte{3, 2, 4, 0, 0, 0, 0, 0, 0}, nil, "signature of 9 bytes"},
		"signature too long":     {append(signature(3), 0), nil, "5 bytes of signature, 4"},
	} {
		err := CheckSigned(c.ima, c.evm, content)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzCheckSigned(f *testing.F) {
	f.Add(signature(3), []byte(nil))
	f.Add(digest.Sum(digest.SHA256, nil).Append([]byte{4, 4}), signature(5))
	f.Fuzz(func(t *testing.T, ima, evm []byte) {
		if CheckSigned(ima, evm, nil) != nil {
			return
		}
		if ima[0] != xattrSigned && evm[0] != xattrPortable {
			t.Errorf("%x and %x are taken for a signature", ima, evm)
		}
	})
}

func TestPolicy(t *testing.T) {
	const tmpfs, ext4 = 0x01021994, 0xef53
	for _, c := range []struct {
		text    string
		magic   int64
		measure bool
	}{
		{"", ext4, false},
		{"measure func=DIGEST_LIST_CHECK\n", ext4, true},
		{"measure\n", ext4, true},
		{"measure func=FILE_CHECK\nmeasure func=DIGEST_LIST_CHECK pcr=11 template=ima-sig\n", ext4, true},
		{"appraise func=DIGEST_LIST_CHECK appraise_type=imasig\n", ext4, false},
		{"measure func=DIGEST_LIST_CHECK uid=0\n", ext4, false},
		{"measure func=DIGEST_LIST_CHECK uid=0\nmeasure func=DIGEST_LIST_CHECK\n", ext4, true},
		{"dont_measure fsmagic=0x1021994\nmeasure func=DIGEST_LIST_CHECK\n", ext4, true},
		{"dont_measure fsmagic=0x1021994\nmeasure func=DIGEST_LIST_CHECK\n", tmpfs, false},
		{"dont_measure fsmagic=0x1021994 func=FILE_CHECK\nmeasure func=DIGEST_LIST_CHECK\n", tmpfs, true},
		{"dont_measure fsmagic=tmpfs\nmeasure func=DIGEST_LIST_CHECK\n", ext4, false},
		{"dont_measure obj_type=var_log_t\nmeasure func=DIGEST_LIST_CHECK\n", ext4, false},
		{"dont_appraise\nmeasure func=DIGEST_LIST_CHECK\n", ext4, true},
		{"measure func=DIGEST_LIST_CHECK\ndont_measure\n", ext4, true},
		{"measure parser\n", ext4, false},
	} {
		if got := parsePolicy([]byte(c.text)).do("measure", c.magic); got != c.measure {
			t.Errorf("%q on %#x: %t, want %t", c.text, c.magic, got, c.measure)
		}
	}
}

func TestOpen(t *testing.T) {
	if _, err := Open(t.TempDir(), pcr11); !errors.Is(err, ErrNotThere) {
		t.Errorf("without an interface: %v", err)
	}
	s := newSetting(t, "ima_digest_list_pcr=+11 ima_canonical_fmt", "", listName, nil, nil)
	if got, err := s.Status(); err != nil || got != (Status{7, true, false}) {
		t.Errorf("%+v, %v", got, err)
	}
	if s.endian != digestlist.LittleEndian {
		t.Errorf("canonical format is %s", s.endian)
	}
	if err := os.WriteFile(filepath.Join(s.dir, countFile), []byte("-1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Digests(); err == nil {
		t.Errorf("%d digests", n)
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int{"0": 0, "8M": 8 << 20, "0x10k": 16 << 10, "64M": 64 << 20, "65M": -1, "1G": -1, "": -1, "M": -1, "8MM": -1, "-1": -1, "x": -1} {
		if got := parseSize(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}
