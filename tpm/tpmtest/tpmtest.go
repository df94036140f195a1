// Package tpmtest is a TPM in software for tests: it builds and signs quotes
// and IMA logs from structs, right or with any one thing wrong. It shares no
// code with the packages that it tests.
package tpmtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"

	"diglim/internal/digest"
)

// Numbers of the TPM 2.0 specification.
const (
	Magic       = 0xff544347
	AttestQuote = 0x8018

	RSASSA = 0x0014
	RSAPSS = 0x0016
	ECDSA  = 0x0018

	SHA1   = 0x0004
	SHA256 = 0x000b
	SHA384 = 0x000c
	SHA512 = 0x000d

	// AKAttributes are those of an attestation key: fixedTPM, fixedParent,
	// sensitiveDataOrigin, userWithAuth, restricted, sign.
	AKAttributes = 0x00050072
)

var hashes = map[uint16]crypto.Hash{SHA1: crypto.SHA1, SHA256: crypto.SHA256, SHA384: crypto.SHA384, SHA512: crypto.SHA512}

// A Bank is one TPMS_PCR_SELECTION with the values of what it selects.
type Bank struct {
	Alg    uint16
	PCRs   []int
	Values [][]byte // in the order of PCRs, which must be rising
	Bitmap []byte   // nil: made from PCRs, 3 bytes
}

// A Quote is a TPMS_ATTEST to be made.
type Quote struct {
	Magic      uint32
	Type       uint16
	Signer     []byte
	Nonce      []byte
	Clock      uint64
	Resets     uint32
	Restarts   uint32
	Safe       byte
	Firmware   uint64
	Banks      []Bank
	DigestHash uint16 // hash for the PCR digest
	PCRDigest  []byte // nil: made from the banks' values
}

// NewQuote is a right quote.
func NewQuote(nonce []byte, banks ...Bank) Quote {
	return Quote{
		Magic:      Magic,
		Type:       AttestQuote,
		Signer:     append([]byte{0, SHA256}, make([]byte, 32)...),
		Nonce:      nonce,
		Clock:      123456,
		Resets:     7,
		Restarts:   1,
		Safe:       1,
		Firmware:   0x2019102300163636,
		Banks:      banks,
		DigestHash: SHA256,
	}
}

// Attest is the TPMS_ATTEST.
func (q Quote) Attest() []byte {
	be := binary.BigEndian
	b := be.AppendUint32(nil, q.Magic)
	b = be.AppendUint16(b, q.Type)
	b = appendSized(b, q.Signer)
	b = appendSized(b, q.Nonce)
	b = be.AppendUint64(b, q.Clock)
	b = be.AppendUint32(b, q.Resets)
	b = be.AppendUint32(b, q.Restarts)
	b = append(b, q.Safe)
	b = be.AppendUint64(b, q.Firmware)
	b = be.AppendUint32(b, uint32(len(q.Banks)))
	h := hashes[q.DigestHash].New()
	for _, bank := range q.Banks {
		bitmap := bank.Bitmap
		if bitmap == nil {
			bitmap = make([]byte, 3)
			for _, i := range bank.PCRs {
				bitmap[i/8] |= 1 << (i % 8)
			}
		}
		b = be.AppendUint16(b, bank.Alg)
		b = append(b, byte(len(bitmap)))
		b = append(b, bitmap...)
		for _, v := range bank.Values {
			h.Write(v)
		}
	}
	if q.PCRDigest == nil {
		q.PCRDigest = h.Sum(nil)
	}
	return appendSized(b, q.PCRDigest)
}

func appendSized(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
}

// A Key signs.
type Key struct {
	Scheme, Hash uint16 // what the key is for, and signs with unless told otherwise
	RSA          *rsa.PrivateKey
	EC           *ecdsa.PrivateKey
}

// NewRSA makes a key for RSASSA with SHA-256.
func NewRSA(bits int) Key {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	must(err)
	return Key{Scheme: RSASSA, Hash: SHA256, RSA: k}
}

// NewEC makes a key for ECDSA with SHA-256.
func NewEC(curve elliptic.Curve) Key {
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	must(err)
	return Key{Scheme: ECDSA, Hash: SHA256, EC: k}
}

// Sign returns a TPMT_SIGNATURE over message.
func (k Key) Sign(message []byte) []byte {
	ch := hashes[k.Hash]
	h := ch.New()
	h.Write(message)
	sum := h.Sum(nil)
	b := binary.BigEndian.AppendUint16(nil, k.Scheme)
	b = binary.BigEndian.AppendUint16(b, k.Hash)
	switch k.Scheme {
	case ECDSA:
		r, s, err := ecdsa.Sign(rand.Reader, k.EC, sum)
		must(err)
		return appendSized(appendSized(b, r.Bytes()), s.Bytes())
	case RSAPSS:
		sig, err := rsa.SignPSS(rand.Reader, k.RSA, ch, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		must(err)
		return appendSized(b, sig)
	default:
		sig, err := rsa.SignPKCS1v15(rand.Reader, k.RSA, ch, sum)
		must(err)
		return appendSized(b, sig)
	}
}

// Public returns a TPMT_PUBLIC with the attributes given.
func (k Key) Public(attributes uint32) []byte {
	be := binary.BigEndian
	kind := uint16(0x0001)
	if k.EC != nil {
		kind = 0x0023
	}
	b := be.AppendUint16(nil, kind)
	b = be.AppendUint16(b, SHA256)
	b = be.AppendUint32(b, attributes)
	b = appendSized(b, nil)        // policy
	b = be.AppendUint16(b, 0x0010) // symmetric: null
	b = be.AppendUint16(b, k.Scheme)
	b = be.AppendUint16(b, k.Hash)
	if k.EC == nil {
		b = be.AppendUint16(b, uint16(k.RSA.N.BitLen()))
		b = be.AppendUint32(b, 0) // exponent: default
		return appendSized(b, k.RSA.N.Bytes())
	}
	point, err := k.EC.PublicKey.Bytes() // 4, x, y
	must(err)
	n := (len(point) - 1) / 2
	curve := map[elliptic.Curve]uint16{elliptic.P224(): 2, elliptic.P256(): 3, elliptic.P384(): 4, elliptic.P521(): 5}[k.EC.Curve]
	b = be.AppendUint16(b, curve)
	b = be.AppendUint16(b, 0x0010) // kdf: null
	return appendSized(appendSized(b, point[1:1+n]), point[1+n:])
}

// PEM returns the public key as PEM.
func (k Key) PEM() []byte {
	var public any
	if k.EC != nil {
		public = k.EC.Public()
	} else {
		public = k.RSA.Public()
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// An Entry is one entry of an IMA log to be made.
type Entry struct {
	PCR       int
	Template  string
	Hash      []byte // template hash; nil: the right one
	Violation bool   // all zeros for the template hash
	Digest    digest.Digest
	Path      string   // without NUL
	Signature []byte   // for ima-sig
	Fields    [][]byte // for other templates, each without its length; nil: digest, path, signature
	Data      []byte   // template data; nil: made from the fields
	BigEndian bool     // of a host of that byte order
}

func (e Entry) order() interface {
	binary.ByteOrder
	binary.AppendByteOrder
} {
	if e.BigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// NewEntry is a right ima-ng entry on PCR 10.
func NewEntry(path string, d digest.Digest) Entry {
	return Entry{PCR: 10, Template: "ima-ng", Digest: d, Path: path}
}

// TemplateData is the template data of an entry.
func (e Entry) TemplateData() (b []byte) {
	if e.Data != nil {
		return e.Data
	}
	fields := e.Fields
	if fields == nil {
		fields = [][]byte{Tagged(e.Digest), append([]byte(e.Path), 0)}
		if e.Template == "ima-sig" {
			fields = append(fields, e.Signature)
		}
	}
	for _, f := range fields {
		b = e.appendField(b, f)
	}
	return b
}

// Tagged is a digest as a d-ng field has it.
func Tagged(d digest.Digest) []byte {
	return append([]byte(d.Algorithm().String()+":\x00"), d.Bytes()...)
}

func (e Entry) appendField(b, field []byte) []byte {
	return append(e.order().AppendUint32(b, uint32(len(field))), field...)
}

// Log is the log of the entries, with template hashes of algorithm alg.
func Log(alg digest.Algorithm, entries ...Entry) []byte {
	var b []byte
	for _, e := range entries {
		data := e.TemplateData()
		hash := e.Hash
		switch {
		case hash != nil:
		case e.Violation:
			hash = make([]byte, alg.Size())
		default:
			hash = digest.Sum(alg, data).Bytes()
		}
		b = e.order().AppendUint32(b, uint32(e.PCR))
		b = append(b, hash...)
		b = e.appendField(b, []byte(e.Template))
		b = e.appendField(b, data)
	}
	return b
}

// Extend is what a kernel makes of a bank's PCR that has value: all entries
// that name the PCR extend it, violations with all ones.
func Extend(value digest.Digest, pcr int, entries ...Entry) digest.Digest {
	alg := value.Algorithm()
	for _, e := range entries {
		if e.PCR != pcr {
			continue
		}
		with := digest.Sum(alg, e.TemplateData()).Bytes()
		if e.Violation {
			with = bytes.Repeat([]byte{0xff}, alg.Size())
		}
		value = digest.Sum(alg, value.Bytes(), with)
	}
	return value
}
