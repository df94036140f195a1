package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"

	"diglim/internal/rsaverify"

	encoding_asn1 "encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// What is read here is little of X.509 (RFC 5280) and of CMS (RFC 5652), and
// all that internal/cms takes; that says it with crypto/x509, which is larger
// than all else that an uploader in an initramfs wants of cryptography.

// maxPKCS7 is the limit on a signature in bytes. One of RSA-16384 by an issuer
// with a long name has some 3 KiB.
const maxPKCS7 = 8 << 10

// A certificate is what of one is needed to know its signatures.
type certificate struct {
	issuer, serial []byte // DER
	rsa            *rsaverify.Key
	ecdsa          *ecdsa.PublicKey
}

func oid(numbers ...int) encoding_asn1.ObjectIdentifier { return numbers }

// Numbers of RFC 5652 section 5.1, RFC 8017 section A.1, RFC 5480 section 2.1.
func oidData() encoding_asn1.ObjectIdentifier       { return oid(1, 2, 840, 113549, 1, 7, 1) }
func oidSignedData() encoding_asn1.ObjectIdentifier { return oid(1, 2, 840, 113549, 1, 7, 2) }
func oidRSA() encoding_asn1.ObjectIdentifier        { return oid(1, 2, 840, 113549, 1, 1, 1) }
func oidEC() encoding_asn1.ObjectIdentifier         { return oid(1, 2, 840, 10045, 2, 1) }

// hashes are the hash algorithms of signatures (RFC 5754 section 2), each with
// the number of ECDSA over it (RFC 5758 section 3.2).
func hashes() map[crypto.Hash][2]encoding_asn1.ObjectIdentifier {
	return map[crypto.Hash][2]encoding_asn1.ObjectIdentifier{
		crypto.SHA256: {oid(2, 16, 840, 1, 101, 3, 4, 2, 1), oid(1, 2, 840, 10045, 4, 3, 2)},
		crypto.SHA384: {oid(2, 16, 840, 1, 101, 3, 4, 2, 2), oid(1, 2, 840, 10045, 4, 3, 3)},
		crypto.SHA512: {oid(2, 16, 840, 1, 101, 3, 4, 2, 3), oid(1, 2, 840, 10045, 4, 3, 4)},
	}
}

// curveByOID finds a curve (RFC 5480 section 2.1.1.1).
func curveByOID(o encoding_asn1.ObjectIdentifier) elliptic.Curve {
	switch {
	case o.Equal(oid(1, 2, 840, 10045, 3, 1, 7)):
		return elliptic.P256()
	case o.Equal(oid(1, 3, 132, 0, 34)):
		return elliptic.P384()
	case o.Equal(oid(1, 3, 132, 0, 35)):
		return elliptic.P521()
	}
	return nil
}

var errDER = errors.New("not the DER that it has to be")

// parseCertificate reads a certificate (RFC 5280 section 4.1), one DER value.
func parseCertificate(der []byte) (certificate, error) {
	var outer, tbs, spki cryptobyte.String
	var c certificate
	in := cryptobyte.String(der)
	version := asn1.Tag(0).Constructed().ContextSpecific()
	if !in.ReadASN1(&outer, asn1.SEQUENCE) || !in.Empty() ||
		!outer.ReadASN1(&tbs, asn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(version) ||
		!tbs.ReadASN1Element((*cryptobyte.String)(&c.serial), asn1.INTEGER) ||
		!tbs.SkipASN1(asn1.SEQUENCE) || // signature algorithm
		!tbs.ReadASN1Element((*cryptobyte.String)(&c.issuer), asn1.SEQUENCE) ||
		!tbs.SkipASN1(asn1.SEQUENCE) || // validity
		!tbs.SkipASN1(asn1.SEQUENCE) || // subject
		!tbs.ReadASN1(&spki, asn1.SEQUENCE) {
		return certificate{}, errDER
	}
	var alg cryptobyte.String
	var id encoding_asn1.ObjectIdentifier
	var bits []byte
	if !spki.ReadASN1(&alg, asn1.SEQUENCE) || !alg.ReadASN1ObjectIdentifier(&id) ||
		!spki.ReadASN1BitStringAsBytes(&bits) || !spki.Empty() {
		return certificate{}, errDER
	}
	switch {
	case id.Equal(oidRSA()):
		key, n := cryptobyte.String(bits), new(big.Int)
		var numbers cryptobyte.String
		var e int
		if !key.ReadASN1(&numbers, asn1.SEQUENCE) || !key.Empty() ||
			!numbers.ReadASN1Integer(n) || !numbers.ReadASN1Integer(&e) || !numbers.Empty() || n.Sign() <= 0 {
			return certificate{}, errDER
		}
		c.rsa = rsaverify.New(&rsa.PublicKey{N: n, E: e})
		if c.rsa.Size() == 0 {
			return certificate{}, fmt.Errorf("an RSA key with %d bits cannot be used", n.BitLen())
		}
		return c, nil
	case id.Equal(oidEC()):
		var curveID encoding_asn1.ObjectIdentifier
		if !alg.ReadASN1ObjectIdentifier(&curveID) {
			return certificate{}, errDER
		}
		curve := curveByOID(curveID)
		if curve == nil {
			return certificate{}, fmt.Errorf("curve %s is not known", curveID)
		}
		key, err := ecdsa.ParseUncompressedPublicKey(curve, bits)
		if err != nil {
			return certificate{}, err
		}
		c.ecdsa = key
		return c, nil
	}
	return certificate{}, fmt.Errorf("keys of algorithm %s are not known", id)
}

// verifyPKCS7 checks what sign-file writes: CMS SignedData of one signer,
// detached, without certificates and without attributes, so that the signature
// is over the content and nothing else. A nil error means that one of certs has
// signed content.
func verifyPKCS7(content, sig []byte, certs []certificate) error {
	if len(sig) > maxPKCS7 {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrMalformed, len(sig), maxPKCS7)
	}
	s, err := parseSigner(sig)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var sum []byte
	bad := error(nil)
	for _, c := range certs {
		if !bytes.Equal(c.issuer, s.issuer) || !bytes.Equal(c.serial, s.serial) {
			continue
		}
		if sum == nil {
			h := s.hash.New()
			h.Write(content)
			sum = h.Sum(nil)
		}
		switch {
		case s.rsa && c.rsa != nil && c.rsa.Verify(s.hash, sum, s.signature) == nil:
			return nil
		case !s.rsa && c.ecdsa != nil && ecdsa.VerifyASN1(c.ecdsa, sum, s.signature):
			return nil
		}
		bad = ErrNotMatching
	}
	if bad != nil {
		return bad
	}
	return fmt.Errorf("%w, serial number %x", ErrUnknownCert, s.serial[2:])
}

// A signer is a CMS SignerInfo.
type signer struct {
	issuer, serial []byte // DER
	hash           crypto.Hash
	rsa            bool // or it is ECDSA
	signature      []byte
}

func parseSigner(der []byte) (signer, error) {
	var outer, inner, data, algs, infos, info cryptobyte.String
	var id, digestID encoding_asn1.ObjectIdentifier
	explicit := asn1.Tag(0).Constructed().ContextSpecific()
	in := cryptobyte.String(der)
	if !in.ReadASN1(&outer, asn1.SEQUENCE) || !in.Empty() ||
		!outer.ReadASN1ObjectIdentifier(&id) || !id.Equal(oidSignedData()) ||
		!outer.ReadASN1(&inner, explicit) || !outer.Empty() ||
		!inner.ReadASN1(&data, asn1.SEQUENCE) || !inner.Empty() ||
		!readVersion(&data) ||
		!data.ReadASN1(&algs, asn1.SET) || !readAlgorithm(&algs, &digestID) || !algs.Empty() ||
		!data.ReadASN1(&inner, asn1.SEQUENCE) ||
		!inner.ReadASN1ObjectIdentifier(&id) || !id.Equal(oidData()) {
		return signer{}, errDER
	}
	if !inner.Empty() {
		return signer{}, errors.New("it has content of its own")
	}
	if !data.PeekASN1Tag(asn1.SET) {
		return signer{}, errors.New("it brings certificates of its own")
	}
	if !data.ReadASN1(&infos, asn1.SET) || !data.Empty() || !infos.ReadASN1(&info, asn1.SEQUENCE) {
		return signer{}, errDER
	}
	if !infos.Empty() {
		return signer{}, errors.New("more than one signer")
	}
	var s signer
	var name cryptobyte.String
	var sigID encoding_asn1.ObjectIdentifier
	if !readVersion(&info) ||
		!info.ReadASN1(&name, asn1.SEQUENCE) ||
		!name.ReadASN1Element((*cryptobyte.String)(&s.issuer), asn1.SEQUENCE) ||
		!name.ReadASN1Element((*cryptobyte.String)(&s.serial), asn1.INTEGER) || !name.Empty() ||
		!readAlgorithm(&info, &id) || !id.Equal(digestID) {
		return signer{}, errDER
	}
	if info.PeekASN1Tag(explicit) {
		return signer{}, errors.New("it has attributes")
	}
	if !readAlgorithm(&info, &sigID) ||
		!info.ReadASN1((*cryptobyte.String)(&s.signature), asn1.OCTET_STRING) {
		return signer{}, errDER
	}
	if !info.Empty() {
		return signer{}, errors.New("it has attributes")
	}
	for hash, ids := range hashes() {
		if digestID.Equal(ids[0]) {
			s.hash, s.rsa = hash, sigID.Equal(oidRSA())
			if s.rsa || sigID.Equal(ids[1]) {
				return s, nil
			}
		}
	}
	return signer{}, fmt.Errorf("signature algorithm %s over hash %s", sigID, digestID)
}

// readVersion reads the version that goes with one signer who is named by
// issuer and serial number, and no certificates (RFC 5652 sections 5.1 and 5.3).
func readVersion(s *cryptobyte.String) bool {
	var version int
	return s.ReadASN1Integer(&version) && version == 1
}

// readAlgorithm reads an AlgorithmIdentifier without parameters, or with NULL
// for them.
func readAlgorithm(s *cryptobyte.String, id *encoding_asn1.ObjectIdentifier) bool {
	var alg, null cryptobyte.String
	return s.ReadASN1(&alg, asn1.SEQUENCE) && alg.ReadASN1ObjectIdentifier(id) &&
		(alg.Empty() || alg.ReadASN1(&null, asn1.NULL) && null.Empty() && alg.Empty())
}
