package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/keyring"
	"diglim/internal/modsig"
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
