package policy

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"diglim/internal/digest"
	"diglim/internal/rsaverify"
)

// A Signer is a key whose signatures in the IMA log make files known. Only
// ParseSigners makes one.
type Signer struct {
	Name string // of its certificate, or of the file that has the key

	ids    []uint32
	public crypto.PublicKey
	rsa    *rsaverify.Key // of an RSA key
}

// ParseSigners reads the keys in PEM text, certificates and public keys in any
// order, or the one certificate in DER. A key without a certificate is called
// name. Keys are trusted as they stand, as those in a kernel's keyring are:
// neither issuers nor dates are looked at, since nothing says when a file was
// signed.
func ParseSigners(name string, data []byte) ([]*Signer, error) {
	var signers []*Signer
	add := func(s *Signer, err error) error {
		signers = append(signers, s)
		return err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		var err error
		switch block.Type {
		case "CERTIFICATE":
			err = add(certified(block.Bytes))
		case "PUBLIC KEY":
			err = add(bare(name, block.Bytes))
		default:
			err = fmt.Errorf("PEM of a %q", block.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", len(signers), err)
		}
	}
	if len(signers) > 0 {
		return signers, nil
	}
	if bytes.Contains(data, []byte("-----BEGIN")) {
		return nil, errors.New("damaged PEM")
	}
	s, err := certified(data)
	if err != nil {
		return nil, fmt.Errorf("no key, neither PEM nor a certificate in DER: %w", err)
	}
	return []*Signer{s}, nil
}

// certified takes the key out of a certificate. The kernel finds it by the end
// of the subject key id that is in it.
func certified(der []byte) (*Signer, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	s, err := newSigner(cert.Subject.String(), cert.PublicKey, cert.RawSubjectPublicKeyInfo)
	if id := cert.SubjectKeyId; err == nil && len(id) >= 4 {
		s.ids = append(s.ids, binary.BigEndian.Uint32(id[len(id)-4:]))
	}
	return s, err
}

func bare(name string, der []byte) (*Signer, error) {
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	return newSigner(name, public, der)
}

// newSigner takes a key with its SubjectPublicKeyInfo. The SHA-1 of what is in
// the latter's bit string is what a subject key id mostly is (RFC 5280 section
// 4.2.1.2), and what evmctl calls a key that has no certificate by.
func newSigner(name string, public crypto.PublicKey, spki []byte) (*Signer, error) {
	s := &Signer{Name: name, public: public}
	switch key := public.(type) {
	case *rsa.PublicKey:
		if s.rsa = rsaverify.New(key); s.rsa.Size() == 0 {
			return nil, fmt.Errorf("an RSA key with %d bits cannot be used", key.N.BitLen())
		}
	case *ecdsa.PublicKey:
	default:
		return nil, fmt.Errorf("keys of type %T are not known", public)
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		return nil, err
	}
	id := sha1.Sum(info.Key.Bytes)
	s.ids = []uint32{binary.BigEndian.Uint32(id[len(id)-4:])}
	return s, nil
}

// Is reports whether that is the signer's key.
func (s *Signer) Is(key crypto.PublicKey) bool {
	public, ok := s.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key)
}

// Called reports whether signatures of the key may say that it has that id. It
// has 32 bits, and anybody can make another key that has it too.
func (s *Signer) Called(id uint32) bool { return slices.Contains(s.ids, id) }

// Verify reports whether sig is the key's over a digest: PKCS #1 v1.5, or ECDSA
// in ASN.1. No signature over another digest than SHA-2 of 256 bits and more,
// of which collisions might be made, is any good.
func (s *Signer) Verify(d digest.Digest, sig []byte) bool {
	switch d.Algorithm() {
	case digest.SHA256, digest.SHA384, digest.SHA512:
	default:
		return false
	}
	switch key := s.public.(type) {
	case *rsa.PublicKey:
		return s.rsa.Verify(d.Algorithm().Crypto(), d.Bytes(), sig) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, d.Bytes(), sig)
	}
	return false
}
