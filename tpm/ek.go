package tpm

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrCertificate says that nobody vouches for an endorsement key.
var ErrCertificate = errors.New("endorsement certificate not good")

var (
	oidEKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 1} // tcg-kp-EKCertificate
	oidSubjectAlt    = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// maxEKCertificate is more than any NV index of a TPM holds.
const maxEKCertificate = 8192

// VerifyEK proves that a manufacturer vouches for an endorsement key, by the
// certificate that its TPM carries (TCG EK Credential Profile 2.5, section 3),
// and returns that. The certificate may be followed by what fills up its NV
// index, all zeros or all ones.
//
// roots are the manufacturers' that are trusted, none by default; intermediates
// need not be. A list of revocations counts if the issuer of a certificate of
// the chain signed it and it is current at the given time, which is also when
// all certificates have to be valid. Who has no list for an issuer is not told
// what that issuer revoked. Any error is ErrCertificate or ErrMalformed.
//
// That the endorsement key is in the same TPM as an attestation key it does not
// show.
func VerifyEK(b []byte, roots, intermediates []*x509.Certificate, lists []*x509.RevocationList, at time.Time) (*x509.Certificate, error) {
	c, err := parseEK(b)
	if err != nil {
		return nil, err
	}
	if err := ekProfile(c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	// The TPM's model stands in a critical name of a form that crypto/x509 does
	// not know. Any other critical extension that it does not know is refused.
	c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, oidSubjectAlt.Equal)
	options := x509.VerifyOptions{Roots: pool(roots), Intermediates: pool(intermediates), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if at.IsZero() {
		return nil, fmt.Errorf("%w: no time given at which it should be valid", ErrCertificate)
	}
	chains, err := c.Verify(options)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	for _, chain := range chains {
		if err = unrevoked(chain, lists, at); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
}

func parseEK(b []byte) (*x509.Certificate, error) {
	if len(b) > maxEKCertificate {
		return nil, fmt.Errorf("%w: endorsement certificate: %d bytes, the limit is %d", ErrMalformed, len(b), maxEKCertificate)
	}
	var outer asn1.RawValue
	fill, err := asn1.Unmarshal(b, &outer)
	if err != nil {
		return nil, fmt.Errorf("%w: endorsement certificate: %w", ErrMalformed, err)
	}
	if len(bytes.Trim(fill, "\x00")) > 0 && len(bytes.Trim(fill, "\xff")) > 0 {
		return nil, fmt.Errorf("%w: endorsement certificate: offset %d: trailing bytes", ErrMalformed, len(outer.FullBytes))
	}
	c, err := x509.ParseCertificate(outer.FullBytes)
	if err != nil {
		return nil, fmt.Errorf("%w: endorsement certificate: %w", ErrMalformed, err)
	}
	return c, nil
}

// ekProfile checks what the profile says of an endorsement key's certificate:
// it is of no authority, and for a key that decrypts. The extended usage was
// not always asked for; where there is one, it is that of an endorsement key.
func ekProfile(c *x509.Certificate) error {
	usage := x509.KeyUsageKeyAgreement
	if _, ok := c.PublicKey.(*rsa.PublicKey); ok || c.PublicKey == nil { // nil: RSAES-OAEP, which crypto/x509 does not read
		usage = x509.KeyUsageKeyEncipherment
	}
	isEK := slices.ContainsFunc(c.UnknownExtKeyUsage, oidEKCertificate.Equal)
	switch {
	case c.IsCA:
		return errors.New("it is that of an authority")
	case c.KeyUsage&usage == 0:
		return fmt.Errorf("key usage %#x is not that of an endorsement key", int(c.KeyUsage))
	case !isEK && len(c.UnknownExtKeyUsage)+len(c.ExtKeyUsage) > 0:
		return errors.New("extended key usage is not that of an endorsement key")
	}
	return nil
}

// unrevoked looks every certificate of a chain up in the current lists of its
// issuer, the next one in the chain.
func unrevoked(chain []*x509.Certificate, lists []*x509.RevocationList, at time.Time) error {
	for i, issuer := range chain[1:] {
		c := chain[i]
		for _, l := range lists {
			if !bytes.Equal(l.RawIssuer, issuer.RawSubject) || l.CheckSignatureFrom(issuer) != nil || at.Before(l.ThisUpdate) {
				continue
			}
			if !at.Before(l.NextUpdate) {
				return fmt.Errorf("the list of revocations of %s is out of date since %s", issuer.Subject, l.NextUpdate.Format(time.RFC3339))
			}
			for _, r := range l.RevokedCertificateEntries {
				if r.SerialNumber.Cmp(c.SerialNumber) == 0 {
					return fmt.Errorf("certificate %x was revoked", c.SerialNumber)
				}
			}
		}
	}
	return nil
}

func pool(certificates []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool() // never nil, which would be the system's
	for _, c := range certificates {
		p.AddCert(c)
	}
	return p
}
