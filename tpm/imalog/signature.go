package imalog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

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

// Covers returns the digests of which one is what s has to be over if it is to
// speak for the file that e is about. It is none where e does not have all
// that such a signature is over, or where it is of something else.
//
// Version 2 is over the file's digest (asymmetric_verify in
// security/integrity/digsig_asymmetric.c); version 3, the one for fs-verity,
// over the hash of an ima_file_id (calc_file_id_hash in ima_appraise.c): u8
// kind, u8 hash, digest. EVM's is over the values of the attributes and the
// owner (evm_calc_hmac_or_hash in evm/evm_crypto.c), whose byte order is that
// of the host and stands nowhere.
func (s Signature) Covers(e *Entry) []digest.Digest {
	var over []digest.Digest
	switch {
	case s.Kind == FileSignature && !e.Verity, s.Kind == VeritySignature && e.Verity && s.Version == 3:
		if s.Hash != e.Digest.Algorithm() {
			return nil
		}
		over = []digest.Digest{e.Digest}
	case s.Kind == EVMSignature && s.Hash.Available() && s.Hash.Size() <= e.Digest.Algorithm().Size() && e.holds():
		for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
			over = append(over, digest.Sum(s.Hash, e.XattrValues, e.owner(order)))
		}
	}
	if s.Version == 3 {
		if !s.Hash.Available() {
			return nil
		}
		for i, d := range over {
			over[i] = digest.Sum(s.Hash, d.Append([]byte{byte(s.Kind), byte(s.Hash.Kernel())}))
		}
	}
	return over
}

// digestAttribute is IMA_XATTR_DIGEST_NG (integrity.h): an attribute that is a
// u8 hash and the file's digest.
const digestAttribute = 4

// holds reports whether the attributes of e are there whole, and security.ima
// is among them and holds the digest of the file. Without it, or where that is
// a signature in its turn, EVM says nothing about the file's content.
func (e *Entry) holds() bool {
	names := strings.Split(strings.TrimRight(string(e.XattrNames), "\x00"), "|")
	if e.Verity || e.Digest.IsZero() || len(names) != len(e.XattrSizes) {
		return false
	}
	want := e.Digest.Append([]byte{digestAttribute, byte(e.Digest.Algorithm().Kernel())})
	values, holds := e.XattrValues, false
	for i, name := range names {
		n := e.XattrSizes[i]
		if uint64(n) > uint64(len(values)) {
			return false
		}
		if name == "security.ima" {
			if !bytes.Equal(values[:n], want) {
				return false
			}
			holds = true
		}
		values = values[n:]
	}
	return holds && len(values) == 0
}

// owner is the struct h_misc of a kernel of 64 bits (hmac_add_misc in
// security/integrity/evm/evm_crypto.c): u64 inode number and u32 generation,
// which are 0 in a portable signature, u32 user, u32 group, u16 mode, u16 0.
func (e *Entry) owner(order binary.AppendByteOrder) []byte {
	b := order.AppendUint32(make([]byte, 12), e.UID)
	b = order.AppendUint32(b, e.GID)
	b = order.AppendUint16(b, e.Mode)
	return append(b, 0, 0)
}
