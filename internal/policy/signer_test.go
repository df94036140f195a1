package policy_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"

	"diglim/internal/digest"
	"diglim/internal/policy"
)

func certificate(t *testing.T, key crypto.Signer, id []byte) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ima"}, SubjectKeyId: id}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func spki(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestParseSigners(t *testing.T) {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, public := certificate(t, r, []byte{9, 9, 1, 2, 3, 4}), spki(t, ec)
	for name, c := range map[string]struct {
		data  []byte
		names []string
	}{
		"DER": {cert, []string{"CN=ima"}},
		"PEM": {block("CERTIFICATE", cert), []string{"CN=ima"}},
		"two": {slices.Concat([]byte("a comment\n"), block("PUBLIC KEY", public), block("CERTIFICATE", cert)), []string{"file", "CN=ima"}},
	} {
		signers, err := policy.ParseSigners("file", c.data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var names []string
		for _, s := range signers {
			names = append(names, s.Name)
			key := crypto.Signer(ec)
			if s.Name != "file" {
				key = r
				if !s.Called(0x01020304) {
					t.Errorf("%s: not found by the end of its subject key id", name)
				}
			}
			for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512, digest.SHA1, digest.SHA224} {
				d := digest.Sum(alg, []byte("x"))
				sig, err := key.Sign(rand.Reader, d.Bytes(), alg.Crypto())
				if err != nil {
					t.Fatal(err)
				}
				if got, want := s.Verify(d, sig), alg != digest.SHA1 && alg != digest.SHA224; got != want {
					t.Errorf("%s, %s: %v", name, alg, got)
				}
				if s.Verify(digest.Sum(alg, []byte("y")), sig) {
					t.Errorf("%s, %s: another digest", name, alg)
				}
			}
			if !s.Is(key.Public()) || s.Is(nil) || s.Called(0) {
				t.Errorf("%s: is not itself", name)
			}
		}
		if !slices.Equal(names, c.names) {
			t.Errorf("%s: %q", name, names)
		}
	}

	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":       {nil, "neither PEM nor"},
		"text":          {[]byte("x"), "neither PEM nor"},
		"cut":           {cert[:100], "neither PEM nor"},
		"with a tail":   {append(slices.Clone(cert), 0), "neither PEM nor"},
		"a bare key":    {public, "neither PEM nor"},
		"damaged PEM":   {block("CERTIFICATE", cert)[:200], "damaged PEM"},
		"bad in PEM":    {block("CERTIFICATE", cert[:100]), "key 1: "},
		"private":       {block("PRIVATE KEY", public), `PEM of a "PRIVATE KEY"`},
		"good, private": {slices.Concat(block("PUBLIC KEY", public), block("PRIVATE KEY", public)), `PEM of a "PRIVATE KEY"`},
		"Ed25519":       {block("PUBLIC KEY", spki(t, ed)), "ed25519.PublicKey are not known"},
	} {
		if s, err := policy.ParseSigners("file", c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	if (&policy.Signer{}).Verify(digest.Sum(digest.SHA256, nil), nil) {
		t.Error("the zero Signer signed")
	}
}
