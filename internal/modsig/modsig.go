// Package modsig reads and writes the signature that the kernel's module
// signing puts behind a file: the signature, a 12-byte struct
// module_signature (include/linux/module_signature.h) and a marker.
package modsig

import (
	"bytes"
	"encoding/binary"
	"errors"

	"diglim/internal/wire"
)

// Marker ends a signed file.
const Marker = "~Module signature appended~\n"

const infoSize = 12 // struct module_signature

// TrailerSize is what is appended beside the signature itself, in bytes.
const TrailerSize = infoSize + len(Marker)

// An IDType says what kind of signature it is (enum pkey_id_type).
type IDType uint8

// The kinds of signature.
const (
	PGP   IDType = 0 // an OpenPGP signature packet
	X509  IDType = 1
	PKCS7 IDType = 2 // what scripts/sign-file writes
)

// A Signature is what was appended.
type Signature struct {
	Type  IDType
	Bytes []byte // aliases the input of Split
}

// ErrNone says that a file has no appended signature.
var ErrNone = errors.New("no appended signature")

// Split takes the signature off a file and returns what it is about. Both
// results alias file. A file without the marker is ErrNone, returned with the
// whole file; a damaged trailer is another error. The fields that the kernel's
// mod_check_sig wants to be 0 must be.
func Split(file []byte) ([]byte, Signature, error) {
	rest, ok := bytes.CutSuffix(file, []byte(Marker))
	if !ok {
		return file, Signature{}, ErrNone
	}
	if len(rest) < infoSize {
		return nil, Signature{}, &wire.Error{Record: "module signature", Offset: 0, Err: wire.ErrShort}
	}
	at := len(rest) - infoSize
	r := wire.New("module signature", binary.BigEndian, rest[at:]).At(int64(at))
	algo, hash, id, signerLen, keyIDLen := r.U8(), r.U8(), r.U8(), r.U8(), r.U8()
	pad := r.Bytes(3)
	size := r.Count("bytes of signature", at)
	switch {
	case r.Err() != nil:
	case algo != 0 || hash != 0 || signerLen != 0 || keyIDLen != 0 || !bytes.Equal(pad, []byte{0, 0, 0}):
		r.FailAt(int64(at), errors.New("fields that must be 0 are not"))
	case id > uint8(PKCS7):
		r.FailAt(int64(at)+2, errors.New("unknown signature type"))
	}
	if err := r.Finish(); err != nil {
		return nil, Signature{}, err
	}
	return rest[: at-size : at-size], Signature{IDType(id), rest[at-size : at : at]}, nil
}

// Append appends a signature and its trailer to b.
func Append(b []byte, s Signature) []byte {
	b = append(b, s.Bytes...)
	b = append(b, 0, 0, byte(s.Type), 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Bytes)))
	return append(b, Marker...)
}
