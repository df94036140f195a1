package imalog

import (
	"encoding/binary"
	"fmt"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// A SignatureKind says what a signature in an extended attribute is over
// (enum evm_ima_xattr_type in the kernel's security/integrity/integrity.h).
type SignatureKind uint8

// The kinds that are signatures.
const (
	FileSignature   SignatureKind = 3 // the file's digest
	EVMSignature    SignatureKind = 5 // portable EVM metadata
	VeritySignature SignatureKind = 6 // the fs-verity digest
)

func (k SignatureKind) String() string {
	switch k {
	case FileSignature:
		return "file"
	case EVMSignature:
		return "EVM"
	case VeritySignature:
		return "fs-verity"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// A Signature is the value of an attribute security.ima or security.evm, and
// proves nothing: KeyID has 32 bits, and whoever may write attributes writes
// what he likes.
type Signature struct {
	Kind    SignatureKind
	Version int // 2 or 3
	Hash    digest.Algorithm
	KeyID   uint32 // the last 4 bytes of the key's X.509 subject key id
	Value   []byte
}

// ParseSignature reads a signature_v2_hdr of version 2 or 3 (integrity.h), all
// in network order: u8 kind, u8 version, u8 hash, u32 key id, u16 size, value.
// Attributes that are no signature, and version 1, are errors.
func ParseSignature(xattr []byte) (Signature, error) {
	r := wire.New("signature", binary.BigEndian, xattr)
	s := Signature{Kind: SignatureKind(r.U8()), Version: int(r.U8())}
	switch s.Kind {
	case FileSignature, EVMSignature, VeritySignature:
	default:
		r.FailAt(0, fmt.Errorf("attribute of %s is no signature", s.Kind))
	}
	if s.Version != 2 && s.Version != 3 {
		r.FailAt(1, fmt.Errorf("signature version %d", s.Version))
	}
	alg, err := digest.ByKernel(uint16(r.U8()))
	if err != nil {
		r.FailAt(2, err)
	}
	s.Hash = alg
	s.KeyID = r.U32()
	s.Value = r.Bytes(int(r.U16()))
	return s, r.Finish()
}
