package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/modsig"
)

// certificates are the keys and certificates that scripts sign lists with:
// sign/both.pem as a kernel build makes it, and an EC key beside its
// certificate in DER.
func certificates(t *testing.T) map[string][]byte {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := func(key crypto.Signer, name string) []byte {
		template := &x509.Certificate{SerialNumber: big.NewInt(0x4711), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	key := func(key crypto.Signer) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	return map[string][]byte{
		"sign/both.pem": append(key(rsaKey), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert(rsaKey, "build")})...),
		"sign/ec.pem":   key(ecKey),
		"sign/ec.x509":  cert(ecKey, "elliptic"),
	}
}

// A list that is signed, its trailer off, verifies with OpenSSL.
func TestSignedForOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Chdir(t.TempDir())
	for name, data := range certificates(t) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list := append([]byte{1, 0, 1, 0, 1, 0, 4, 0, 1, 0, 0, 0, 32, 0, 0, 0}, digest.Sum(digest.SHA256, []byte("abc")).Bytes()...)
	for _, c := range []struct{ key, cert, form string }{
		{"sign/both.pem", "sign/both.pem", "PEM"},
		{"sign/ec.pem", "sign/ec.x509", "DER"},
	} {
		const file = "0-file_list-compact-x"
		if err := os.WriteFile(file, list, 0o644); err != nil {
			t.Fatal(err)
		}
		if code := run([]string{"sign", "--key", c.key, "--cert", c.cert, file}, io.Discard, os.Stderr); code != 0 {
			t.Fatalf("%s: exit code %d", c.key, code)
		}
		signed, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		payload, sig, err := modsig.Split(signed)
		if err != nil || !bytes.Equal(payload, list) || sig.Type != modsig.PKCS7 {
			t.Fatalf("%s: %x, type %d, %v", c.key, payload, sig.Type, err)
		}
		if err := os.WriteFile("sig", sig.Bytes, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("payload", payload, 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("openssl", "x509", "-inform", c.form, "-in", c.cert, "-out", "cert.pem").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out, err := exec.Command("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "sig", "-content", "payload",
			"-certfile", "cert.pem", "-CAfile", "cert.pem", "-purpose", "any", "-out", os.DevNull).CombinedOutput()
		if err != nil {
			t.Errorf("%s: openssl: %v: %s", c.key, err, out)
		}
	}
}
