package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"diglim/internal/corpus"
	"diglim/tpm"
)

var ekNow = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// ekTemplate is a good certificate, with the critical name that says what TPM
// it is in.
func ekTemplate(t *testing.T) *x509.Certificate {
	model, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 23, 133, 2, 1}, Value: "id:00001014"}}})
	if err != nil {
		t.Fatal(err)
	}
	name, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: model}})
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{
		SerialNumber: big.NewInt(4711), NotBefore: ekNow.AddDate(-1, 0, 0), NotAfter: ekNow.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageKeyEncipherment, BasicConstraintsValid: true,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
		ExtraExtensions:    []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: name}},
	}
}

func authority(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: ekNow.AddDate(-5, 0, 0), NotAfter: ekNow.AddDate(5, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// issue makes a certificate of a key, by an issuer's key.
func issue(t *testing.T, c, by *x509.Certificate, key crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, by, key, signer)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// Row 12: every condition of a good chain is broken.
func TestAttack12EndorsementCertificates(t *testing.T) {
	root := issue(t, authority("root", 1), authority("root", 1), p384.EC.Public(), p384.EC)
	middle := issue(t, authority("middle", 2), root, p256.EC.Public(), p384.EC)
	otherRoot := issue(t, authority("root", 1), authority("root", 1), p521.EC.Public(), p521.EC)
	ek := func(change func(*x509.Certificate)) []byte {
		c := ekTemplate(t)
		if change != nil {
			change(c)
		}
		return issue(t, c, middle, rsaKey.RSA.Public(), p256.EC).Raw
	}
	revoke := func(issuer *x509.Certificate, signer crypto.Signer, until time.Time, serials ...int64) *x509.RevocationList {
		l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: ekNow.AddDate(0, -1, 0), NextUpdate: until}
		for _, s := range serials {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: ekNow.AddDate(0, -1, 0)})
		}
		der, err := x509.CreateRevocationList(rand.Reader, l, issuer, signer)
		if err != nil {
			t.Fatal(err)
		}
		made, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	good, later := ek(nil), ekNow.AddDate(0, 1, 0)
	type chain struct {
		ek           []byte
		roots, inter []*x509.Certificate
		lists        []*x509.RevocationList
		at           time.Time
	}
	is := func(c ...*x509.Certificate) []*x509.Certificate { return c }
	base := chain{good, is(root), is(middle), nil, ekNow}
	pass := map[string]func(*chain){
		"good":                   func(c *chain) {},
		"filled up with zeros":   func(c *chain) { c.ek = append(slices.Clone(good), make([]byte, 100)...) },
		"filled up with ones":    func(c *chain) { c.ek = append(slices.Clone(good), bytes.Repeat([]byte{0xff}, 100)...) },
		"without extended usage": func(c *chain) { c.ek = ek(func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }) },
		"others revoked": func(c *chain) {
			c.lists = []*x509.RevocationList{revoke(middle, p256.EC, later, 5), revoke(root, p384.EC, later, 6)}
		},
		"revoked by a stranger": func(c *chain) { c.lists = []*x509.RevocationList{revoke(otherRoot, p521.EC, later, 2, 4711)} },
		"P-256": func(c *chain) {
			e := ekTemplate(t)
			e.KeyUsage = x509.KeyUsageKeyAgreement
			c.ek = issue(t, e, middle, p384.EC.Public(), p256.EC).Raw
		},
	}
	refuse := map[string]func(*chain){
		"no root":           func(c *chain) { c.roots = nil },
		"another root":      func(c *chain) { c.roots = is(otherRoot) },
		"no intermediate":   func(c *chain) { c.inter = nil },
		"nothing":           func(c *chain) { c.ek = nil },
		"no time":           func(c *chain) { c.at = time.Time{} },
		"expired":           func(c *chain) { c.ek = ek(func(c *x509.Certificate) { c.NotAfter = ekNow.AddDate(0, 0, -1) }) },
		"not valid yet":     func(c *chain) { c.ek = ek(func(c *x509.Certificate) { c.NotBefore = ekNow.AddDate(0, 0, 1) }) },
		"authority expired": func(c *chain) { c.at = ekNow.AddDate(6, 0, 0) },
		"of an authority":   func(c *chain) { c.ek = middle.Raw },
		"CA":                func(c *chain) { c.ek = ek(func(c *x509.Certificate) { c.IsCA = true }) },
		"for signing":       func(c *chain) { c.ek = ek(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }) },
		"for no usage":      func(c *chain) { c.ek = ek(func(c *x509.Certificate) { c.KeyUsage = 0 }) },
		"for a TLS server": func(c *chain) {
			c.ek = ek(func(c *x509.Certificate) {
				c.UnknownExtKeyUsage = nil
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			})
		},
		"for another TCG use": func(c *chain) {
			c.ek = ek(func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}} })
		},
		"unknown and critical": func(c *chain) {
			c.ek = ek(func(c *x509.Certificate) {
				c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
			})
		},
		"issuer is no CA": func(c *chain) {
			leaf := authority("middle", 2)
			leaf.IsCA, leaf.KeyUsage = false, x509.KeyUsageDigitalSignature
			c.inter = is(issue(t, leaf, root, p256.EC.Public(), p384.EC))
		},
		"revoked":              func(c *chain) { c.lists = []*x509.RevocationList{revoke(middle, p256.EC, later, 5, 4711)} },
		"authority revoked":    func(c *chain) { c.lists = []*x509.RevocationList{revoke(root, p384.EC, later, 2)} },
		"list out of date":     func(c *chain) { c.lists = []*x509.RevocationList{revoke(middle, p256.EC, ekNow.AddDate(0, 0, -1))} },
		"trailing certificate": func(c *chain) { c.ek = append(slices.Clone(good), good...) },
		"trailing byte":        func(c *chain) { c.ek = append(slices.Clone(good), 1) },
		"filled up with both":  func(c *chain) { c.ek = append(slices.Clone(good), 0, 0xff) },
		"9 KiB":                func(c *chain) { c.ek = append(slices.Clone(good), make([]byte, 9<<10)...) },
		"a bit changed":        func(c *chain) { c.ek = slices.Clone(good); c.ek[len(c.ek)-5] ^= 1 },
	}
	if len(pass) != 7 || len(refuse) != 24 {
		t.Errorf("%d good and %d bad chains", len(pass), len(refuse))
	}
	run := func(change func(*chain)) (*x509.Certificate, error) {
		c := base
		change(&c)
		return tpm.VerifyEK(c.ek, c.roots, c.inter, c.lists, c.at)
	}
	for name, change := range pass {
		if c, err := run(change); err != nil || c == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range refuse {
		if c, err := run(change); !errors.Is(err, tpm.ErrCertificate) && !errors.Is(err, tpm.ErrMalformed) || c != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range good {
		if _, err := tpm.VerifyEK(good[:i], base.roots, base.inter, nil, ekNow); err == nil {
			t.Errorf("first %d bytes: verified", i)
		}
	}
}

// A real certificate of swtpm's is read; nobody here vouches for it.
func TestCorpusEndorsementCertificate(t *testing.T) {
	for _, guest := range []string{"ovmf-tis-6.12cloud-imang", "seabios-crb-6.1cloud-imasig"} {
		der := corpus.Read(t, "vm-evidence", guest, "ekcert-rsa.der")
		_, err := tpm.VerifyEK(der, nil, nil, nil, time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))
		if unknown := (x509.UnknownAuthorityError{}); !errors.Is(err, tpm.ErrCertificate) || !errors.As(err, &unknown) {
			t.Errorf("%s: %v", guest, err)
		}
	}
}
