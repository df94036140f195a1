package eventlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

const (
	// imageSecurity is EFI_IMAGE_SECURITY_DATABASE_GUID,
	// d719b2cb-3d3a-4596-a3bc-dad00e67656f as it lies in memory.
	imageSecurity = "\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f"

	guidSize       = 16
	listHeaderSize = guidSize + 3*4
	maxSignatures  = 1 << 16 // in one variable
)

// A GUID is an EFI_GUID as it lies in memory.
type GUID [guidSize]byte

// String is the text of RFC 9562; UEFI has the first three numbers in
// little-endian byte order.
func (g GUID) String() string {
	b := slices.Clone(g[:])
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// x509 is the type of signatures that are certificates.
const x509 = "x509"

// kinds are the types of signatures of the UEFI specification, section
// 32.4.1, by GUID, and how long their data is; 0 is any length.
var kinds = map[string]struct {
	name string
	size int
}{
	"c1c41626-504c-4092-aca9-41f936934328": {"sha256", 32},
	"3c5766e8-269c-4e34-aa14-ed776e85b3b6": {"rsa2048", 256},
	"e2b36190-879b-4a3d-ad8d-f2e7bba32784": {"rsa2048-sha256", 256},
	"826ca512-cf10-4ac9-b187-be01496631bd": {"sha1", 20},
	"67f8444f-8743-48f1-a328-1eaab8736080": {"rsa2048-sha1", 256},
	"a5c059a1-94e4-4aa7-87b5-ab155c2bf072": {x509, 0},
	"0b6e5233-a65c-44c9-9407-d9ab83bfc8bd": {"sha224", 28},
	"ff3e5307-9fd0-48c9-85f1-8ad56c701e01": {"sha384", 48},
	"093e0fae-a6c4-4f50-9f1b-d41e2b89c19a": {"sha512", 64},
	"3bd2a492-96c0-4079-b420-fcf98ef103ed": {"x509-sha256", 48},
	"7076876e-80c2-4ee6-aad2-28b349a6865b": {"x509-sha384", 64},
	"446dbf63-2502-4cda-bcfa-2465d2b0fe9d": {"x509-sha512", 80},
}

// A Signature is one EFI_SIGNATURE_DATA: a certificate, or what else a variable
// of Secure Boot names keys and images by.
type Signature struct {
	Kind  string // "x509" of a certificate, "sha256" of an image's digest, …; the GUID if it is not known
	Owner GUID   // who put it there, by its own word
	Data  []byte // aliases what was parsed
}

// ParseSignatures reads a variable of EFI_SIGNATURE_LISTs, back to back (UEFI
// section 32.4.1): GUID of the type, u32 size of the list with this header, u32
// size of a header of the type, u32 size of each signature, which begins with
// the GUID of its owner. An empty variable has none. An error is a *wire.Error.
func ParseSignatures(b []byte) ([]Signature, error) {
	r := wire.New("signature list 1", binary.LittleEndian, b)
	var all []Signature
	for n := 1; r.Len() > 0; n++ {
		r.Record(fmt.Sprintf("signature list %d", n))
		at := r.Offset()
		kind := kindOf(r.Bytes(guidSize))
		size, header, each := int64(r.U32()), int64(r.U32()), int64(r.U32())
		body := size - listHeaderSize - header
		switch {
		case r.Err() != nil:
		case body < 0:
			r.FailAt(at+guidSize, fmt.Errorf("%d bytes, its headers have %d", size, listHeaderSize+header))
		case body > int64(r.Len()):
			r.FailAt(at+guidSize, wire.ErrShort)
		case each <= guidSize:
			r.FailAt(at+guidSize+8, fmt.Errorf("signatures of %d bytes, their owner alone has %d", each, guidSize))
		case kind.size > 0 && each != guidSize+int64(kind.size):
			r.FailAt(at+guidSize+8, fmt.Errorf("%s of %d bytes, they have %d", kind.name, each-guidSize, kind.size))
		case body%each != 0:
			r.FailAt(at+guidSize, fmt.Errorf("%d bytes of signatures of %d", body, each))
		case int64(len(all))+body/each > maxSignatures:
			r.FailAt(at, fmt.Errorf("more than %d signatures", maxSignatures))
		}
		r.Bytes(int(header))
		for ; r.Err() == nil && body > 0; body -= each {
			s := Signature{Kind: kind.name}
			copy(s.Owner[:], r.Bytes(guidSize))
			s.Data = r.Bytes(int(each) - guidSize)
			all = append(all, s)
		}
	}
	if err := r.Finish(); err != nil {
		return nil, err
	}
	return all, nil
}

func kindOf(guid []byte) (kind struct {
	name string
	size int
}) {
	if len(guid) == guidSize {
		name := GUID(guid).String()
		if known, ok := kinds[name]; ok {
			return known
		}
		kind.name = name
	}
	return kind
}

// A Key is what Secure Boot accepts or refuses something by.
type Key struct {
	Event    int    // number
	Variable string // PK, KEK, db or dbx
	Signature
}

// Digest names a key: of a certificate, and of what is no digest, it is the
// SHA-256; what is one is given as it is.
func (k Key) Digest() digest.Digest {
	if alg, err := digest.ByName(k.Kind); err == nil {
		if d, err := digest.New(alg, k.Data); err == nil {
			return d
		}
	}
	return digest.Sum(digest.SHA256, k.Data)
}

// Keys are the keys of Secure Boot: what PK, KEK, db and dbx held, by the events
// of PCR 7 before its separator whose data the bank proves, whatever they are
// called. The PCR itself has to be compared by the caller. A variable that
// cannot be read, or is there twice, is an oddity, and of what it held nothing
// is returned.
func (l *Log) Keys(bank digest.Algorithm) (keys []Key, odd []Oddity) {
	seen := map[string]bool{}
	for i := range l.Events {
		e := &l.Events[i]
		if e.PCR != secureBootPCR {
			continue
		}
		if e.Separates(bank) {
			break // what comes later is about single images
		}
		data, ok := e.Proven(bank)
		if !ok {
			continue
		}
		for _, v := range []struct{ guid, name string }{
			{globalVariable, "PK"}, {globalVariable, "KEK"}, {imageSecurity, "db"}, {imageSecurity, "dbx"},
		} {
			value, ok := variable(data, v.guid, v.name)
			if !ok {
				continue
			}
			signatures, err := ParseSignatures(value)
			if err == nil && seen[v.name] {
				err = errors.New("is measured twice")
			}
			if err != nil {
				odd = append(odd, Oddity{e.Number, e.Offset, v.name + ": " + err.Error()})
			}
			seen[v.name] = true
			for _, s := range signatures {
				if err == nil {
					keys = append(keys, Key{e.Number, v.name, s})
				}
			}
		}
	}
	return keys, odd
}
