package rpmhdr

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Tags that this package reads (rpm's include/rpm/rpmtag.h).
const (
	tagHeaderImage      Tag = 61
	tagHeaderSignatures Tag = 62
	tagHeaderImmutable  Tag = 63
	tagFirst            Tag = 100 // below it are regions only

	tagName           Tag = 1000
	tagVersion        Tag = 1001
	tagRelease        Tag = 1002
	tagEpoch          Tag = 1003
	tagArch           Tag = 1022
	tagOldFilenames   Tag = 1027
	tagFileSizes      Tag = 1028
	tagFileModes      Tag = 1030
	tagFileDigests    Tag = 1035
	tagFileLinktos    Tag = 1036
	tagFileFlags      Tag = 1037
	tagSourceRPM      Tag = 1044
	tagNoSource       Tag = 1051
	tagNoPatch        Tag = 1052
	tagDirIndexes     Tag = 1116
	tagBasenames      Tag = 1117
	tagDirnames       Tag = 1118
	tagLongFileSizes  Tag = 5008
	tagFileDigestAlgo Tag = 5011

	// in the signature header
	sigDSA      Tag = 267  // OpenPGP packet over the header: DSA, later also ECDSA and EdDSA
	sigRSA      Tag = 268  // OpenPGP packet over the header: RSA
	sigSHA1     Tag = 269  // hex digest of the header
	sigSHA256   Tag = 273  // hex digest of the header
	sigOpenPGP  Tag = 278  // OpenPGP packets over the header, base64 (rpm 6)
	sigSHA3_256 Tag = 279  // hex digest of the header (rpm 6)
	sigPGP      Tag = 1002 // OpenPGP packet over header and payload: RSA
	sigGPG      Tag = 1005 // OpenPGP packet over header and payload: DSA
)

// find returns the entry with that tag, and whether it is there. The index of
// a package has some 60 entries.
func (h Header) find(tag Tag) (entry, bool) {
	for i := range h.entries() {
		if e := h.entry(i); e.tag == tag {
			return e, true
		}
	}
	return entry{}, false
}

// bytes returns a binary entry, nil if there is none.
func (h Header) bytes(tag Tag) ([]byte, error) {
	e, ok := h.find(tag)
	if !ok {
		return nil, nil
	}
	if e.typ != typeBin {
		return nil, wrongType(tag, e.typ, typeBin)
	}
	return h.data[e.offset:][:e.count], nil
}

// text returns a string entry without its NUL, nil if there is none.
func (h Header) text(tag Tag) ([]byte, error) {
	e, ok := h.find(tag)
	if !ok {
		return nil, nil
	}
	if e.typ != typeString && (e.typ != typeStringArray || e.count != 1) {
		return nil, wrongType(tag, e.typ, typeString)
	}
	b := h.data[e.offset:]
	return b[:bytes.IndexByte(b, 0)], nil
}

// integers is an array of big-endian integers, unsigned, aliasing the header.
type integers struct {
	b    []byte
	size int
}

func (a integers) len() int {
	if a.size == 0 {
		return 0
	}
	return len(a.b) / a.size
}

func (a integers) at(i int) uint64 {
	switch b := a.b[i*a.size:]; a.size {
	case 2:
		return uint64(binary.BigEndian.Uint16(b))
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	default:
		return binary.BigEndian.Uint64(b)
	}
}

// ints returns an integer array of that type, of length 0 if there is none.
func (h Header) ints(tag Tag, typ entryType) (integers, error) {
	e, ok := h.find(tag)
	if !ok {
		return integers{}, nil
	}
	if e.typ != typ {
		return integers{}, wrongType(tag, e.typ, typ)
	}
	size := typ.size()
	return integers{h.data[e.offset:][:int(e.count)*size], size}, nil
}

// strings is a string array, read from front to back, aliasing the header.
type strings struct {
	b []byte
	n int // strings left
}

// next returns the next string without its NUL. There must be one.
func (s *strings) next() []byte {
	end := bytes.IndexByte(s.b, 0)
	v := s.b[:end]
	s.b = s.b[end+1:]
	s.n--
	return v
}

// texts returns a string array, of length 0 if there is none.
func (h Header) texts(tag Tag) (strings, error) {
	e, ok := h.find(tag)
	if !ok {
		return strings{}, nil
	}
	if e.typ != typeStringArray {
		return strings{}, wrongType(tag, e.typ, typeStringArray)
	}
	return strings{h.data[e.offset:], int(e.count)}, nil
}

func wrongType(tag Tag, got, want entryType) error {
	return fmt.Errorf("tag %d is of type %s, must be %s", tag, got, want)
}
