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
	if s := l.known.Find(c); len(s) != 1 || s[0].Package != "c" || s[0].Path != "/usr/bin/c" {
		t.Errorf("c: %+v", s)
	}
	if s := l.known.Find(b); len(s) != 0 {
		t.Errorf("metadata is taken for a file: %+v", s)
	}
	l, err = loadLists(trust{keys: &keyring.Keyring{}}, dir)
	if err != nil || l.Accepted != 0 || len(l.Refused) != 3 || !strings.Contains(l.Refused[0].Error, "no signature of a vendor") {
		t.Errorf("%+v, %v", l, err)
	}
}
