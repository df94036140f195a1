package main

import (
	"testing"

	"diglim/digestlist"
	"diglim/internal/digest"
)

// lists are lists that no package gives: those that cannot be converted to
// everything.
func lists(t *testing.T) map[string][]byte {
	t.Helper()
	a, b, c := digest.Sum(digest.SHA256, []byte("a")), digest.Sum(digest.SHA1, []byte("b")), digest.Sum(digest.SHA3_256, []byte("c"))
	compact := func(d digestlist.Dialect, blocks ...digestlist.Block) []byte {
		list, err := digestlist.AppendCompact(nil, d, digestlist.LittleEndian, blocks)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	block := func(typ digestlist.Type, m digestlist.Modifiers, d digest.Digest) digestlist.Block {
		return digestlist.Block{Type: typ, Modifiers: m, Algorithm: d.Algorithm(), Digests: []digest.Digest{d}}
	}
	tlv, err := digestlist.AppendTLV(nil, digestlist.TLV{Algorithm: digest.SHA3_256, Entries: []digestlist.TLVEntry{{Digest: c, Path: "/c"}}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"lists-of/0-parser_list-compact-p":            compact(digestlist.V3, block(digestlist.Parser, 0, a)),
		"lists-of/0-file_list-compact-parser":         compact(digestlist.V3, block(digestlist.Parser, 0, a)),
		"lists-of/0-file_list-compact-two-algorithms": compact(digestlist.V3, block(digestlist.File, 0, a), block(digestlist.File, 0, b)),
		"lists-of/0-file_list-compact-mutable":        compact(digestlist.V3, block(digestlist.File, 0, a)),
		"lists-of/0-file_list-compact-immutable":      compact(digestlist.V3, block(digestlist.File, digestlist.Immutable, a)),
		"lists-of/0-file_list-compact-empty":          nil,
		"lists-of/0-key_list-compact-k":               compact(digestlist.OpenEuler, block(digestlist.Key, 0, a)),
		"lists-of/tlv-sha3":                           tlv,
		"lists-of/tlv-old":                            make([]byte, 64),
		"signed/README":                               nil,
	}
}
