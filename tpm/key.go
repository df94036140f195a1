package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// Numbers of the TCG Algorithm Registry.
const (
	algRSA    = 0x0001
	algNull   = 0x0010
	algRSASSA = 0x0014
	algRSAPSS = 0x0016
	algECDSA  = 0x0018
	algECC    = 0x0023

	curveP256 = 0x0003
	curveP384 = 0x0004
	curveP521 = 0x0005
)

// TPMA_OBJECT bits (Part 2 section 8.3).
const (
	attrFixedTPM   = 1 << 1
	attrRestricted = 1 << 16
	attrDecrypt    = 1 << 17
	attrSign       = 1 << 18
)

const (
	minRSABits  = 2048
	maxRSABits  = 4096
	rsaExponent = 65537
	maxPublic   = 8192 // bytes of a public area, a PEM file or a certificate

	maxCoordinate = 66 // bytes of a coordinate, an r or an s on P-521
)

// A Key is the public half of an attestation key.
type Key struct {
	key    crypto.PublicKey // *rsa.PublicKey or *ecdsa.PublicKey
	der    []byte           // the same as a SubjectPublicKeyInfo
	scheme uint16           // the only scheme the key signs with, 0 if not known
	hash   digest.Algorithm // the only hash the key signs with, 0 if not known
	name   []byte           // TPM2B_NAME, nil if not known
}

// ParsePublic reads an attestation key: a TPMT_PUBLIC, a TPM2B_PUBLIC, a PKIX
// public key or an X.509 certificate (both DER or PEM).
//
// A TPM public area says what the key may do: one that is not a restricted
// signing key bound to its TPM is refused with ErrKey, because it would sign a
// structure that the TPM did not make. A PEM file and a certificate say
// nothing of that kind, and Name is nil: whoever enrolled the key must have
// looked. Of a certificate only the key is used; who issued it, and whether it
// has expired, is for enrolment to judge.
//
// RSA of 2048 to 4096 bits with exponent 65537, and ECC on P-256, P-384 and
// P-521, are accepted; other keys are ErrKey.
func ParsePublic(b []byte) (*Key, error) {
	switch {
	case len(b) > maxPublic:
		return nil, fmt.Errorf("%w: public key: %d bytes, the limit is %d", ErrMalformed, len(b), maxPublic)
	case bytes.HasPrefix(b, []byte("-----BEGIN ")):
		return parsePEM(b)
	case bytes.HasPrefix(b, []byte{0x30}): // a DER sequence; as the length of a TPM2B_PUBLIC it is too much
		return parseDER(b)
	case len(b) > 2 && int(binary.BigEndian.Uint16(b)) == len(b)-2:
		return parseArea(b[2:], 2)
	}
	return parseArea(b, 0)
}

func parsePEM(b []byte) (*Key, error) {
	block, rest := pem.Decode(b)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: public key: not one PEM block", ErrMalformed)
	}
	switch block.Type {
	case "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: public key: %w", ErrMalformed, err)
		}
		return (&Key{key: key}).checked()
	case "CERTIFICATE":
		return parseCertificate(block.Bytes)
	}
	return nil, fmt.Errorf("%w: public key: the PEM block is neither PUBLIC KEY nor CERTIFICATE", ErrMalformed)
}

func parseDER(der []byte) (*Key, error) {
	if key, err := x509.ParsePKIXPublicKey(der); err == nil {
		return (&Key{key: key}).checked()
	}
	return parseCertificate(der)
}

func parseCertificate(der []byte) (*Key, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate: %w", ErrMalformed, err)
	}
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return nil, fmt.Errorf("%w: the certificate is not for a key that signs", ErrKey)
	}
	return (&Key{key: c.PublicKey}).checked()
}

// parseArea reads a TPMT_PUBLIC (Part 2 section 12.2.4) that starts at offset
// base of its file.
func parseArea(b []byte, base int64) (*Key, error) {
	r := wire.New("public key", binary.BigEndian, b).At(base)
	kind, nameHash, attrs := r.U16(), r.U16(), r.U32()
	if kind != algRSA && kind != algECC {
		r.FailAt(base, fmt.Errorf("type %#04x is neither RSA nor ECC", kind))
	}
	sized(r, "policy", maxDigest)
	if r.U16() != algNull { // symmetric: only storage keys have it
		r.U32() // key bits, mode
	}
	k := &Key{}
	hash := uint16(algNull)
	if k.scheme = r.U16(); k.scheme != algNull {
		hash = r.U16()
	}
	switch kind {
	case algRSA:
		bits, e, n := r.U16(), r.U32(), sized(r, "modulus", maxRSABits/8)
		if e == 0 {
			e = rsaExponent
		}
		if r.Err() == nil && 8*len(n) != int(bits) {
			r.Failf("modulus of %d bytes in a key of %d bits", len(n), bits)
		}
		k.key = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(e)}
	case algECC:
		id, kdf := r.U16(), r.U16()
		if kdf != algNull {
			r.U16()
		}
		x, y := sized(r, "coordinate", maxCoordinate), sized(r, "coordinate", maxCoordinate)
		if r.Err() == nil {
			key, err := point(id, x, y)
			if err != nil {
				return nil, err
			}
			k.key = key
		}
	}
	if err := r.Finish(); err != nil {
		return nil, malformed(err)
	}
	const must = attrFixedTPM | attrRestricted | attrSign
	if attrs&must != must || attrs&attrDecrypt != 0 {
		return nil, fmt.Errorf("%w: attributes %#08x are not those of a restricted signing key bound to its TPM", ErrKey, attrs)
	}
	if k.scheme == algNull {
		return nil, fmt.Errorf("%w: a restricted signing key has a scheme", ErrKey)
	}
	var err error
	if k.hash, err = digest.ByTPM(hash); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAlgorithm, err)
	}
	nameAlg, err := digest.ByTPM(nameHash)
	if err != nil || !nameAlg.Available() {
		return nil, fmt.Errorf("%w: hash %#04x for the key's name", ErrAlgorithm, nameHash)
	}
	k.name = digest.Sum(nameAlg, b).Append(binary.BigEndian.AppendUint16(nil, nameHash))
	return k.checked()
}

func point(id uint16, x, y []byte) (*ecdsa.PublicKey, error) {
	var curve elliptic.Curve
	switch id {
	case curveP256:
		curve = elliptic.P256()
	case curveP384:
		curve = elliptic.P384()
	case curveP521:
		curve = elliptic.P521()
	default:
		return nil, fmt.Errorf("%w: elliptic curve %#04x", ErrKey, id)
	}
	n := (curve.Params().BitSize + 7) / 8
	if len(x) > n || len(y) > n {
		return nil, fmt.Errorf("%w: public key: coordinates of %d and %d bytes, the curve has %d", ErrMalformed, len(x), len(y), n)
	}
	b := make([]byte, 1+2*n)
	b[0] = 4 // uncompressed
	copy(b[1+n-len(x):], x)
	copy(b[1+2*n-len(y):], y)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return key, nil
}

// checked is k, unless it is of the wrong kind or size.
func (k *Key) checked() (*Key, error) {
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSABits || n > maxRSABits || key.E != rsaExponent {
			return nil, fmt.Errorf("%w: RSA of %d bits, exponent %d", ErrKey, n, key.E)
		}
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() && key.Curve != elliptic.P521() {
			return nil, fmt.Errorf("%w: elliptic curve %s", ErrKey, key.Params().Name)
		}
	default:
		return nil, fmt.Errorf("%w: neither RSA nor ECDSA but %T", ErrKey, k.key)
	}
	var err error
	if k.der, err = x509.MarshalPKIXPublicKey(k.key); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return k, nil
}

// PEM returns the key as a PEM block PUBLIC KEY.
func (k *Key) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.der})
}

// ID tells keys apart, in whichever form they were given: the SHA-256 of the
// SubjectPublicKeyInfo.
func (k *Key) ID() digest.Digest { return digest.Sum(digest.SHA256, k.der) }

// Name is the key's TPM2B_NAME without its length, a hash over the public area
// (Part 1 section 16); nil if the key came without one, so that nothing is
// known of its attributes.
func (k *Key) Name() []byte { return bytes.Clone(k.name) }
