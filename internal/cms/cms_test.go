package cms

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
)

var content = []byte("what was signed")

// newCert makes a certificate that a key issues to itself.
func newCert(t testing.TB, key crypto.Signer, serial int64) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: "diglim test"},
		NotBefore:    time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC), // the kernel does not look at it either
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newKeys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	keys := make(map[string]crypto.Signer)
	for _, bits := range []int{2048, 3072} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		keys[fmt.Sprintf("rsa%d", bits)] = key
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[curve.Params().Name] = key
	}
	return keys
}

// OpenSSL agrees in both directions, and where signatures do not depend on
// chance to the byte: its flags are those that sign-file asks libcrypto for.
func TestAgainstOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	openssl := func(args ...string) ([]byte, error) {
		cmd := exec.Command("openssl", args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, stderr.Bytes())
		}
		return out, err
	}
	in := write("content", content)
	other := write("other", content[1:])
	for name, key := range newKeys(t) {
		cert := newCert(t, key, 4711)
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		keyFile := write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		certFile := write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
		for md, hash := range Hashes {
			ours, err := Sign(content, key, cert, hash)
			if err != nil {
				t.Fatalf("%s, %s: %v", name, md, err)
			}
			sig := write("sig", ours)
			verify := []string{"cms", "-verify", "-binary", "-inform", "DER", "-in", sig, "-certfile", certFile, "-nointern", "-noverify", "-content"}
			if out, err := openssl(append(verify, in)...); err != nil || !bytes.Equal(out, content) {
				t.Errorf("%s, %s: openssl says %q, %v", name, md, out, err)
			}
			if out, err := openssl(append(verify, other)...); err == nil {
				t.Errorf("%s, %s: openssl takes it for other content: %q", name, md, out)
			}
			theirs, err := openssl("cms", "-sign", "-binary", "-noattr", "-nocerts", "-nosmimecap", "-md", md, "-outform", "DER",
				"-signer", certFile, "-inkey", keyFile, "-in", in)
			if err != nil {
				t.Fatalf("%s, %s: %v", name, md, err)
			}
			if got, err := Verify(content, theirs, []*x509.Certificate{cert}); err != nil || got != cert {
				t.Errorf("%s, %s: openssl's signature: %v", name, md, err)
			}
			if _, isRSA := key.(*rsa.PrivateKey); isRSA && !bytes.Equal(ours, theirs) {
				t.Errorf("%s, %s: ours  %x\ntheirs %x", name, md, ours, theirs)
			}
		}
	}
}

// Signatures that are not what sign-file writes, or not right, are refused.
func TestRefused(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	cert, sameName, another := newCert(t, key, 1), newCert(t, other, 1), newCert(t, key, 2)
	trusted := []*x509.Certificate{another, cert}
	good, err := Sign(content, key, cert, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Verify(content, good, trusted); err != nil || got != cert {
		t.Fatalf("%v, %v", got, err)
	}
	// variant signs as the library does, with a change.
	variant := func(change func(*pkcs7.SignedData)) []byte {
		t.Helper()
		s, err := pkcs7.NewSignedData(content)
		if err != nil {
			t.Fatal(err)
		}
		s.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
		s.SetEncryptionAlgorithm(pkcs7.OIDEncryptionAlgorithmRSA)
		change(s)
		b, err := s.Finish()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	plain := func(s *pkcs7.SignedData) {
		t.Helper()
		if err := s.SignWithoutAttr(cert, key, pkcs7.SignerInfoConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		sig     []byte
		trusted []*x509.Certificate
		want    error
	}{
		"nobody trusted":              {good, nil, ErrUnknownCert},
		"another serial number":       {good, []*x509.Certificate{another}, ErrUnknownCert},
		"another key of that name":    {good, []*x509.Certificate{sameName}, ErrBad},
		"empty":                       {nil, trusted, ErrMalformed},
		"trailing byte":               {append(bytes.Clone(good), 0), trusted, ErrMalformed},
		"too long":                    {append(bytes.Clone(good), make([]byte, maxSignature)...), trusted, ErrMalformed},
		"brings its certificate":      {variant(func(s *pkcs7.SignedData) { plain(s); s.Detach() }), trusted, ErrMalformed},
		"not detached":                {variant(plain), trusted, ErrMalformed},
		"two signers":                 {variant(func(s *pkcs7.SignedData) { plain(s); plain(s); s.Detach() }), trusted, ErrMalformed},
		"no signer":                   {variant(func(s *pkcs7.SignedData) { s.Detach() }), trusted, ErrMalformed},
		"over SHA-1":                  {variant(func(s *pkcs7.SignedData) { s.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA1); plain(s); s.Detach() }), trusted, ErrMalformed},
		"signed attributes":           {variant(func(s *pkcs7.SignedData) { signWithAttributes(t, s, cert, key); s.Detach() }), trusted, ErrMalformed},
		"the certificate, not a CMS":  {cert.Raw, trusted, ErrMalformed},
		"a number instead of signers": {[]byte{0x30, 3, 2, 1, 1}, trusted, ErrMalformed},
	} {
		if got, err := Verify(content, c.sig, c.trusted); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if got, err := Verify(content[1:], good, trusted); !errors.Is(err, ErrBad) {
		t.Errorf("other content: %v, %v", got, err)
	}
	for n := range good {
		if got, err := Verify(content, good[:n], trusted); err == nil {
			t.Errorf("cut at %d: %v", n, got)
		}
	}
	// A flipped bit changes the issuer, the signature, or what neither is.
	changed := 0
	for i := range good {
		for bit := range 8 {
			sig := bytes.Clone(good)
			sig[i] ^= 1 << bit
			if _, err := Verify(content, sig, trusted); err == nil {
				changed++
			}
		}
	}
	if changed > 200 { // versions, the set of hashes, parameters: nothing is decided by them
		t.Errorf("%d of %d flipped bits go unseen", changed, 8*len(good))
	}
}

// Values within values, as deep as the limit lets them, cost little.
func TestNested(t *testing.T) {
	var sig []byte
	for len(sig) < maxSignature-8 {
		header := []byte{0x30, byte(len(sig))}
		if len(sig) > 255 {
			header = []byte{0x30, 0x82, byte(len(sig) >> 8), byte(len(sig))}
		} else if len(sig) > 127 {
			header = []byte{0x30, 0x81, byte(len(sig))}
		}
		sig = append(header, sig...)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Verify(content, sig, nil); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d bytes allocated for %d", n, len(sig))
	} else {
		t.Log(n, "bytes allocated")
	}
}

func signWithAttributes(t *testing.T, s *pkcs7.SignedData, cert *x509.Certificate, key crypto.Signer) {
	t.Helper()
	if err := s.AddSigner(cert, key, pkcs7.SignerInfoConfig{}); err != nil {
		t.Fatal(err)
	}
}

func TestSignRefuses(t *testing.T) {
	a, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if sig, err := Sign(content, a, newCert(t, b, 1), crypto.SHA256); err == nil {
		t.Errorf("another's certificate: %x", sig)
	}
	if sig, err := Sign(content, a, newCert(t, a, 1), crypto.SHA1); err == nil {
		t.Errorf("SHA-1: %x", sig)
	}
	if sig, err := Sign(content, ed, newCert(t, ed, 1), crypto.SHA256); err == nil {
		t.Errorf("Ed25519: %x", sig)
	}
}

func TestPEM(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	cert := newCert(t, ec, 1)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	block := func(typ string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}) }
	both := append(block("EC PRIVATE KEY", sec1), block("CERTIFICATE", cert.Raw)...)
	locked := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: pkcs8})
	for name, c := range map[string]struct {
		text []byte
		want interface{ Equal(crypto.PrivateKey) bool }
	}{
		"PKCS #8":              {block("PRIVATE KEY", pkcs8), rsaKey},
		"PKCS #1":              {block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), rsaKey},
		"SEC 1":                {block("EC PRIVATE KEY", sec1), ec},
		"key and certificate":  {both, ec},
		"certificate, key":     {append(block("CERTIFICATE", cert.Raw), block("EC PRIVATE KEY", sec1)...), ec},
		"parameters, key":      {append(block("EC PARAMETERS", []byte{5, 0}), both...), ec},
		"certificate alone":    {block("CERTIFICATE", cert.Raw), nil},
		"encrypted":            {block("ENCRYPTED PRIVATE KEY", pkcs8), nil},
		"encrypted, as before": {locked, nil},
		"DER":                  {pkcs8, nil},
		"damaged":              {block("PRIVATE KEY", pkcs8[:100]), nil},
		"nothing":              {nil, nil},
	} {
		key, err := ParseKey(c.text)
		if (err == nil) != (c.want != nil) || err == nil && !c.want.Equal(key) {
			t.Errorf("%s: %T, %v", name, key, err)
		}
	}
	for name, c := range map[string]struct {
		data []byte
		want int
	}{
		"PEM": {both, 1}, "DER": {cert.Raw, 1}, "two": {append(bytes.Clone(both), both...), 2}, "none": {block("PRIVATE KEY", pkcs8), 0},
		"damaged": {block("CERTIFICATE", cert.Raw[:100]), 0}, "nothing": {nil, 0},
	} {
		certs, err := ParseCertificates(c.data)
		if len(certs) != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%s: %d certificates, %v", name, len(certs), err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	cert := newCert(f, key, 1)
	sig, err := Sign(content, key, cert, crypto.SHA256)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sig)
	trusted := []*x509.Certificate{cert}
	f.Fuzz(func(t *testing.T, sig []byte) {
		if _, err := Verify([]byte("something else"), sig, trusted); err == nil {
			t.Error("verified")
		}
	})
}
