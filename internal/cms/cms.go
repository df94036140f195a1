// Package cms makes and checks the signatures that the kernel's
// scripts/sign-file appends to modules: CMS SignedData (RFC 5652) of one
// signer, detached, without certificates and without signed attributes, so
// that the signature is over the content and nothing else.
//
// It signs with RSA (PKCS #1 v1.5) and ECDSA keys over SHA-256, SHA-384 and
// SHA-512, and takes no other signatures.
package cms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/smallstep/pkcs7"
)

// The ways in which a signature can fail to verify. Test with errors.Is.
var (
	ErrMalformed   = errors.New("malformed PKCS#7 signature")
	ErrUnknownCert = errors.New("signed by an unknown certificate")
	ErrBad         = errors.New("PKCS#7 signature does not match")
)

// maxSignature is the limit on a signature in bytes. One of RSA-16384 by an
// issuer with a long name has some 3 KiB; what the library's parser takes for
// values within values grows with the square of it.
const maxSignature = 8 << 10

// Hashes are the algorithms to sign with, by the names that sign-file knows
// them by.
var Hashes = map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}

// algorithms are the numbers of a hash, and of ECDSA over it. RSA has one for
// all: the kernel does not know those that name a hash as well.
var algorithms = map[crypto.Hash]struct{ hash, ecdsa asn1.ObjectIdentifier }{
	crypto.SHA256: {pkcs7.OIDDigestAlgorithmSHA256, pkcs7.OIDDigestAlgorithmECDSASHA256},
	crypto.SHA384: {pkcs7.OIDDigestAlgorithmSHA384, pkcs7.OIDDigestAlgorithmECDSASHA384},
	crypto.SHA512: {pkcs7.OIDDigestAlgorithmSHA512, pkcs7.OIDDigestAlgorithmECDSASHA512},
}

// Sign returns the signature over content, DER. The key must be the
// certificate's.
func Sign(content []byte, key crypto.Signer, cert *x509.Certificate, hash crypto.Hash) ([]byte, error) {
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(cert.PublicKey) {
		return nil, errors.New("the key is not the certificate's")
	}
	alg, ok := algorithms[hash]
	if !ok {
		return nil, fmt.Errorf("no signatures over %s", hash)
	}
	s, err := pkcs7.NewSignedData(content)
	if err != nil {
		return nil, err
	}
	s.SetDigestAlgorithm(alg.hash)
	var parameters asn1.RawValue
	switch key.Public().(type) {
	case *rsa.PublicKey:
		s.SetEncryptionAlgorithm(pkcs7.OIDEncryptionAlgorithmRSA)
		parameters = asn1.NullRawValue // RFC 8017 section A.1
	case *ecdsa.PublicKey:
		s.SetEncryptionAlgorithm(alg.ecdsa)
	default:
		return nil, fmt.Errorf("no signatures with a key of type %T", key)
	}
	if err := s.SignWithoutAttr(cert, key, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, err
	}
	s.Detach()
	// Not s.Finish, which would put the certificate in.
	data := s.GetSignedData()
	data.SignerInfos[0].DigestEncryptionAlgorithm.Parameters = parameters
	inner, err := asn1.Marshal(*data)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}{pkcs7.OIDSignedData, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner}})
}

// Verify checks a signature over content and returns whose of the certificates
// it is. They are trusted as they stand, as those in a kernel's keyring are:
// neither their issuers nor their dates are looked at, since nothing says when
// the signature was made. The error wraps one of the Err values above.
func Verify(content, sig []byte, trusted []*x509.Certificate) (*x509.Certificate, error) {
	p, err := parse(sig)
	if err != nil {
		return nil, err
	}
	p.Content, p.Certificates = content, trusted
	cert := p.GetOnlySigner()
	if cert == nil {
		return nil, fmt.Errorf("%w, serial number %x", ErrUnknownCert, p.Signers[0].IssuerAndSerialNumber.SerialNumber)
	}
	if err := p.Verify(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBad, err)
	}
	return cert, nil
}

// parse reads a signature that Sign could have made.
func parse(sig []byte) (*pkcs7.PKCS7, error) {
	if len(sig) > maxSignature {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrMalformed, len(sig), maxSignature)
	}
	var outer asn1.RawValue
	if rest, err := asn1.Unmarshal(sig, &outer); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%w: not one DER value", ErrMalformed)
	}
	p, err := pkcs7.Parse(sig)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	switch {
	case len(p.Signers) != 1:
		return nil, fmt.Errorf("%w: %d signers, must be 1", ErrMalformed, len(p.Signers))
	case len(p.Content) > 0:
		return nil, fmt.Errorf("%w: it has content of its own", ErrMalformed)
	case len(p.Certificates) > 0 || len(p.CRLs) > 0:
		return nil, fmt.Errorf("%w: it brings certificates of its own", ErrMalformed)
	case len(p.Signers[0].AuthenticatedAttributes) > 0 || len(p.Signers[0].UnauthenticatedAttributes) > 0:
		return nil, fmt.Errorf("%w: it has attributes", ErrMalformed)
	case !allowed(p.Signers[0].DigestAlgorithm, p.Signers[0].DigestEncryptionAlgorithm):
		return nil, fmt.Errorf("%w: signature algorithm %s over hash %s", ErrMalformed,
			p.Signers[0].DigestEncryptionAlgorithm.Algorithm, p.Signers[0].DigestAlgorithm.Algorithm)
	}
	return p, nil
}

// Value returns the hash that a signature is over the digest of, and the
// signature itself as its key made it, for who has the digest of the content
// and not the content. Who made it stands in it and is not looked at. The error
// is ErrMalformed.
func Value(sig []byte) (crypto.Hash, []byte, error) {
	p, err := parse(sig)
	if err != nil {
		return 0, nil, err
	}
	for hash, alg := range algorithms {
		if p.Signers[0].DigestAlgorithm.Algorithm.Equal(alg.hash) {
			return hash, p.Signers[0].EncryptedDigest, nil
		}
	}
	return 0, nil, ErrMalformed // parse allows no other
}

// allowed reports whether Sign would have signed so. The library would also
// take SHA-1, and for ECDSA another hash than the one that is named.
func allowed(hash, signature pkix.AlgorithmIdentifier) bool {
	for _, alg := range algorithms {
		if hash.Algorithm.Equal(alg.hash) {
			return signature.Algorithm.Equal(alg.ecdsa) || signature.Algorithm.Equal(pkcs7.OIDEncryptionAlgorithmRSA)
		}
	}
	return false
}
