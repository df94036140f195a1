package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"diglim/digestlist"
	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/internal/keyring"
	"diglim/internal/modsig"
	"diglim/internal/rpmtest"
	"diglim/rpmhdr"
	"diglim/tpm/tpmtest"
)

// Lists without a vendor's signature, of both formats, are believed when the
// user says so; an appended signature is not part of the list.
func TestBareLists(t *testing.T) {
	a, b, c := digest.Sum(digest.SHA256, []byte("a")), digest.Sum(digest.SHA256, []byte("b")), digest.Sum(digest.SHA256, []byte("c"))
	compact, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{
		{Type: digestlist.File, Algorithm: digest.SHA256, Digests: []digest.Digest{a}},
		{Type: digestlist.Metadata, Algorithm: digest.SHA256, Digests: []digest.Digest{b}}})
	if err != nil {
		t.Fatal(err)
	}
	tlv, err := digestlist.AppendTLV(nil, digestlist.TLV{Algorithm: digest.SHA256, Entries: []digestlist.TLVEntry{{Digest: c, Path: "/usr/bin/c"}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, list := range map[string][]byte{
		"0-file_list-compact-a": modsig.Append(compact, modsig.Signature{Type: modsig.PKCS7, Bytes: []byte("signature")}),
		"tlv-c":                 tlv,
		"tlv-damaged":           tlv[:len(tlv)-1],
	} {
		if err := os.WriteFile(filepath.Join(dir, name), list, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := loadLists(trust{keys: &keyring.Keyring{}, allowUnsigned: true}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if l.Accepted != 2 || l.Unsigned != 2 || len(l.Refused) != 1 || l.Refused[0].List != "tlv-damaged" {
		t.Errorf("%+v", l)
	}
	if s := l.known.Find(a); len(s) != 1 || s[0].Package != "a" || s[0].Path != "" {
		t.Errorf("a: %+v", s)
	}
	signed := modsig.Append(compact, modsig.Signature{Type: modsig.PKCS7, Bytes: []byte("signature")})
	for name, identity := range map[string][]byte{"0-file_list-compact-a": signed, "tlv-c": tlv} {
		if s := l.known.Find(digest.Sum(digest.SHA256, identity)); len(s) != 1 || s[0].List != name {
			t.Errorf("%s, as it is read: %+v", name, s)
		}
	}
	if s := l.known.Find(digest.Sum(digest.SHA512, compact)); len(s) != 1 || s[0].List != "0-file_list-compact-a" {
		t.Errorf("a list without its signature, as kernels take it: %+v", s)
	}
	if s := l.known.Find(digest.Sum(digest.SHA256, tlv[:len(tlv)-1])); len(s) != 0 {
		t.Errorf("a list that was refused is known: %+v", s)
	}
	if s := l.known.Find(c); len(s) != 1 || s[0].Package != "c" || s[0].Path != "/usr/bin/c" {
		t.Errorf("c: %+v", s)
	}
	if s := l.known.Find(b); len(s) != 0 {
		t.Errorf("metadata is taken for a file: %+v", s)
	}
	if s := l.verity.Find(a); len(s) != 0 {
		t.Errorf("a file's digest is taken for one of fs-verity: %+v", s)
	}
	l, err = loadLists(trust{keys: &keyring.Keyring{}}, dir)
	if err != nil || l.Accepted != 0 || len(l.Refused) != 3 || !strings.Contains(l.Refused[0].Error, "no signature of a vendor") {
		t.Errorf("%+v, %v", l, err)
	}
}

// A list for the gate has digests of fs-verity, which are kept apart from those
// of files: by the type of a block, whatever the list is called. A list that is
// not called one for the gate is not read as one.
func TestVerityLists(t *testing.T) {
	program, a, b := digest.Sum(digest.SHA256, []byte("program")), digest.Sum(digest.SHA256, []byte("a")), digest.Sum(digest.SHA512, []byte("b"))
	list, err := digestlist.AppendCompact(nil, digestlist.BPF, digestlist.LittleEndian, []digestlist.Block{
		{Type: digestlist.File, Algorithm: digest.SHA256, Digests: []digest.Digest{program}},
		{Type: digestlist.Verity, Algorithm: digest.SHA256, Digests: []digest.Digest{a}},
		{Type: digestlist.Verity, Algorithm: digest.SHA512, Digests: []digest.Digest{b}}})
	if err != nil {
		t.Fatal(err)
	}
	metadata, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{
		{Type: digestlist.Metadata, Algorithm: digest.SHA256, Digests: []digest.Digest{a}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"0-verity_list-compact-web":      list,
		"1-file_list-compact-web":        list,
		"2-verity_list-compact-cut":      list[:len(list)-1],
		"3-verity_list-compact-metadata": metadata,
		"unnamed":                        list,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := loadLists(trust{keys: &keyring.Keyring{}, allowUnsigned: true}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if l.Accepted != 1 || len(l.Refused) != 4 {
		t.Errorf("%+v", l)
	}
	for _, d := range []digest.Digest{a, b} {
		if s := l.verity.Find(d); len(s) != 1 || s[0].Package != "web" {
			t.Errorf("%s: %+v", d, s)
		}
		if s := l.known.Find(d); len(s) != 0 {
			t.Errorf("%s is taken for a file's: %+v", d, s)
		}
	}
	if s := l.known.Find(program); len(s) != 1 || len(l.verity.Find(program)) != 0 {
		t.Errorf("a file among them: %+v, %+v", s, l.verity.Find(program))
	}
}

// What is measured of an rpm list on a host is known in every form that it can
// have there: as it is, as DIGLIM is told of it, and converted.
func TestFormsOfRPMLists(t *testing.T) {
	p := rpmtest.Package{Name: "p", Algo: 8, Files: []rpmtest.File{
		rpmtest.Regular("/etc/a", 0o644, "a"), rpmtest.Regular("/usr/bin/b", 0o755, "b"), rpmtest.Regular("/etc/c", 0o644, "c")}}
	header, err := rpmhdr.Parse(p.Header())
	if err != nil {
		t.Fatal(err)
	}
	const name = "0-file_list-rpm-p-1.0-1.noarch"
	file := digestlist.AppendRPM(nil, digestlist.RPM{Header: header})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), file, 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := loadLists(trust{keys: &keyring.Keyring{}, allowUnsigned: true}, dir)
	if err != nil || l.Accepted != 1 {
		t.Fatalf("%+v, %v", l, err)
	}
	compact := func(d digestlist.Dialect, blocks ...digestlist.Block) []byte {
		b, err := digestlist.AppendCompact(nil, d, digestlist.LittleEndian, blocks)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sum := func(s string) digest.Digest { return digest.Sum(digest.SHA256, []byte(s)) }
	mutable := digestlist.Block{Type: digestlist.File, Algorithm: digest.SHA256, Digests: []digest.Digest{sum("a"), sum("c")}}
	immutable := digestlist.Block{Type: digestlist.File, Modifiers: digestlist.Immutable, Algorithm: digest.SHA256, Digests: []digest.Digest{sum("b")}}
	other := mutable
	other.Digests = []digest.Digest{sum("a"), sum("evil")}
	for form, c := range map[string]struct {
		content []byte
		known   bool
	}{
		"file":                 {file, true},
		"what changes":         {compact(digestlist.V3, mutable), true},
		"what does not":        {compact(digestlist.V3, immutable), true},
		"converted":            {compact(digestlist.V3, mutable, immutable), true},
		"openeuler":            {compact(digestlist.OpenEuler, mutable, immutable), true},
		"in another order":     {compact(digestlist.V3, immutable, mutable), false},
		"with another file":    {compact(digestlist.V3, other, immutable), false},
		"of parsers":           {compact(digestlist.V3, digestlist.Block{Type: digestlist.Parser, Algorithm: digest.SHA256, Digests: mutable.Digests}), false},
		"with a tail":          {append(compact(digestlist.V3, mutable), 0), false},
		"of nothing":           {nil, false},
		"converted and signed": {modsig.Append(compact(digestlist.V3, mutable, immutable), modsig.Signature{Bytes: []byte("s")}), false},
	} {
		for _, alg := range imaHashes {
			s := l.known.Find(digest.Sum(alg, c.content))
			if known := len(s) == 1 && s[0].List == name; known != c.known || !known && len(s) > 0 {
				t.Errorf("%s, %s: %+v", form, alg, s)
			}
		}
	}
}

// What the original DIGLIM v3 measured in guests is known by the lists that it
// was given, whole or without their signature, and nothing else of it is.
func TestFormsInRecording(t *testing.T) {
	recording := corpus.Read(t, "diglim-v3-transcript.tsv")
	nth := func(n int) digest.Digest { return digest.Sum(digest.SHA256, fmt.Appendf(nil, "digest %d", n)) }
	list := func(m digestlist.Modifiers, digests ...digest.Digest) []byte {
		b, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian,
			[]digestlist.Block{{Type: digestlist.File, Modifiers: m, Algorithm: digest.SHA256, Digests: digests}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	abc, one, two := list(digestlist.Immutable, digest.Sum(digest.SHA256, []byte("abc"))), list(digestlist.Immutable, nth(1)), list(0, nth(100), nth(101))
	signed := modsig.Append(bytes.Clone(two), modsig.Signature{Type: modsig.PGP, Bytes: bytes.Repeat([]byte("S"), 100)})
	dir := t.TempDir()
	for name, b := range map[string][]byte{"abc": abc, "one": one, "signed": signed} {
		if err := os.WriteFile(filepath.Join(dir, "0-file_list-compact-"+name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := loadLists(trust{keys: &keyring.Keyring{}, allowUnsigned: true}, dir)
	if err != nil || l.Accepted != 3 {
		t.Fatalf("%+v, %v", l, err)
	}
	given := [][]byte{abc, one, two, signed}
	count := map[string]int{}
	entries := regexp.MustCompile(`\[pcr(?:10|12) (ima-buf|ima-sig) th=([0-9a-f]{40}) d-ng=(sha256:[0-9a-f]{64}) n-ng="([^"\\]*)"`)
	for _, m := range entries.FindAllStringSubmatch(string(recording), -1) {
		template, hash, name := m[1], m[2], m[4]
		d, err := digest.Parse(m[3])
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(given, func(b []byte) bool { return digest.Sum(digest.SHA256, b) == d })
		if known := len(l.known.Find(d)) > 0; known != (i >= 0) {
			t.Errorf("%s: known %v", m[0], known)
		}
		if i < 0 {
			count["unknown"]++
			continue
		}
		count[template]++
		if strings.HasSuffix(name, " chars)") {
			continue // the recording has cut it
		}
		last := given[i]
		if template == "ima-sig" {
			last = nil // no attribute
		}
		e := tpmtest.Entry{Fields: [][]byte{tpmtest.Tagged(d), []byte(name + "\x00"), last}}
		if got := digest.Sum(digest.SHA1, e.TemplateData()).Hex(); got != hash {
			t.Errorf("%s: made anew its hash is %s", m[0], got)
		}
	}
	if count["ima-buf"] < 60 || count["ima-sig"] < 4 || count["unknown"] < 50 {
		t.Errorf("%v", count)
	}
}
