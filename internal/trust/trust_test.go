package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"diglim/digestlist"
	"diglim/internal/cms"
	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"
	"diglim/internal/modsig"
	"diglim/internal/rpmtest"
)

func newCert(t testing.TB, key crypto.Signer, serial int64) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "diglim test"},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)}
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

func newKeys(t testing.TB) []crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys := []crypto.Signer{key}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

// What crypto/x509 and internal/cms say of a signature is said here, of good
// ones and of all that a changed byte makes of them.
func TestAgainstCMS(t *testing.T) {
	content := []byte("what was signed")
	for n, key := range newKeys(t) {
		cert := newCert(t, key, int64(n)*1000+127)
		ours, err := parseCertificate(cert.Raw)
		if err != nil {
			t.Fatal(err)
		}
		for name, hash := range cms.Hashes {
			sig, err := cms.Sign(content, key, cert, hash)
			if err != nil {
				t.Fatal(err)
			}
			if err := verifyPKCS7(content, sig, []certificate{ours}); err != nil {
				t.Errorf("%T, %s: %v", key, name, err)
			}
			if err := verifyPKCS7(content[1:], sig, []certificate{ours}); !errors.Is(err, ErrNotMatching) {
				t.Errorf("%T, %s: other content: %v", key, name, err)
			}
			if err := verifyPKCS7(content, sig, nil); !errors.Is(err, ErrUnknownCert) {
				t.Errorf("%T, %s: no certificate: %v", key, name, err)
			}
			for i := range sig {
				if hash != crypto.SHA256 {
					break // the layout is the same
				}
				for _, bit := range []byte{1, 0x20, 0x80} {
					bad := bytes.Clone(sig)
					bad[i] ^= bit
					_, theirErr := cms.Verify(content, bad, []*x509.Certificate{cert})
					if ourErr := verifyPKCS7(content, bad, []certificate{ours}); ourErr == nil && theirErr != nil {
						t.Errorf("%T, %s: byte %d ^ %#x is taken, and not by internal/cms: %v", key, name, i, bit, theirErr)
					}
				}
			}
			for n := range sig {
				if err := verifyPKCS7(content, sig[:n], []certificate{ours}); !errors.Is(err, ErrMalformed) {
					t.Errorf("%T, %s: cut at %d: %v", key, name, n, err)
				}
			}
			if err := verifyPKCS7(content, append(bytes.Clone(sig), 0), []certificate{ours}); !errors.Is(err, ErrMalformed) {
				t.Errorf("%T, %s: a byte more: %v", key, name, err)
			}
			if err := verifyPKCS7(content, append(bytes.Clone(sig), make([]byte, maxPKCS7)...), []certificate{ours}); !errors.Is(err, ErrMalformed) {
				t.Errorf("%T, %s: too long: %v", key, name, err)
			}
		}
		for n := range cert.Raw {
			if _, err := parseCertificate(cert.Raw[:n]); err == nil {
				t.Errorf("%T: a certificate cut at %d is taken", key, n)
			}
		}
	}
}

// A key of an issuer that another key's certificate names as well is not taken
// for it.
func TestSameName(t *testing.T) {
	keys := newKeys(t)
	sig, err := cms.Sign([]byte("x"), keys[0], newCert(t, keys[0], 1), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range newKeys(t) {
		c, err := parseCertificate(newCert(t, key, 1).Raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyPKCS7([]byte("x"), sig, []certificate{c}); !errors.Is(err, ErrNotMatching) {
			t.Errorf("%T: %v", key, err)
		}
	}
}

func TestCertificatesRefused(t *testing.T) {
	small, err := asn1.Marshal(struct {
		N *big.Int
		E int
	}{new(big.Int).SetBit(big.NewInt(1), 511, 1), 65537})
	if err != nil {
		t.Fatal(err)
	}
	key := newKeys(t)[0].(*rsa.PrivateKey)
	cert := newCert(t, key, 1)
	swapped := bytes.Replace(cert.Raw, x509.MarshalPKCS1PublicKey(&key.PublicKey), small, 1)
	for name, der := range map[string][]byte{"empty": nil, "a small key, and lengths that are wrong": swapped, "trailing": append(bytes.Clone(cert.Raw), 0)} {
		if _, err := parseCertificate(der); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var seen []string
	see := func(name string, _ []byte) error { seen = append(seen, name); return nil }
	load := func() *Ring {
		t.Helper()
		seen = nil
		r, err := Load(dir, see)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := load(); !r.Empty() || r.Anchor() != [32]byte{} {
		t.Error("an empty directory is something")
	}
	keys := newKeys(t)
	cert, other := newCert(t, keys[0], 1), newCert(t, keys[1], 2)
	pgp := rpmtest.Public(t, rpmtest.NewKey(t, "vendor", rpmtest.Ed25519))
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Raw})...)
	write("vendor.gpg", pgp)
	write("sub/cert.der", cert.Raw)
	first := load()
	if first.Empty() || len(first.certs) != 1 || first.keys.Len() != 1 || first.Anchor() == [32]byte{} {
		t.Errorf("%d certificates, %d keys", len(first.certs), first.keys.Len())
	}
	// The anchor is of the keys, not of names, order, or what is no key.
	write("a/copy.der", cert.Raw)
	write("README", []byte("hello"))
	if r := load(); r.Anchor() != first.Anchor() || len(r.Skipped) != 1 || !strings.Contains(r.Skipped[0].Error(), "README") {
		t.Errorf("anchor %x, first %x, skipped %v", r.Anchor(), first.Anchor(), r.Skipped)
	}
	write("both.pem", both)
	if r := load(); r.Anchor() == first.Anchor() || len(r.certs) != 4 {
		t.Errorf("another certificate: anchor %x, %d certificates", r.Anchor(), len(r.certs))
	}
	write("bad.pem", []byte("-----BEGIN CERTIFICATE-----\nxx\n"))
	write("bad.der", cert.Raw[:100])
	if r := load(); len(r.Skipped) != 3 {
		t.Errorf("skipped %v", r.Skipped)
	}
	if want := []string{"README", "a/copy.der", "bad.der", "bad.pem", "both.pem", "sub/cert.der", "vendor.gpg"}; !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
	refuse := errors.New("not this one")
	if _, err := Load(dir, func(string, []byte) error { return refuse }); err != refuse {
		t.Errorf("a file that must not be read: %v", err)
	}
	if _, err := Load(filepath.Join(dir, "missing"), see); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// Digests of all kinds of lists come out, and nothing of those that fail.
func TestProve(t *testing.T) {
	key := newKeys(t)[1]
	cert := newCert(t, key, 1)
	ours, err := parseCertificate(cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	r := &Ring{certs: []certificate{ours}}
	sum := digest.Sum(digest.SHA256, []byte("x"))
	compact := func(d digestlist.Dialect, types ...digestlist.Type) []byte {
		var blocks []digestlist.Block
		for _, typ := range types {
			blocks = append(blocks, digestlist.Block{Type: typ, Algorithm: digest.SHA256, Digests: []digest.Digest{sum}})
		}
		b, err := digestlist.AppendCompact(nil, d, digestlist.LittleEndian, blocks)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tlv, err := digestlist.AppendTLV(nil, digestlist.TLV{Algorithm: digest.SHA256, Entries: []digestlist.TLVEntry{{Digest: sum, Path: "/x"}}})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(b []byte) []byte {
		sig, err := cms.Sign(b, key, cert, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return modsig.Append(bytes.Clone(b), modsig.Signature{Type: modsig.PKCS7, Bytes: sig})
	}
	before := []Entry{{set.Verity, sum}}
	v3 := compact(digestlist.V3, digestlist.Parser, digestlist.File, digestlist.Metadata)
	for name, c := range map[string]struct {
		file      []byte
		format    digestlist.Format
		initramfs bool
		want      []set.Kind
		err       error
	}{
		"v3":                         {sign(v3), digestlist.FormatCompact, false, []set.Kind{set.Parser, set.Content}, nil},
		"bpf":                        {sign(compact(digestlist.BPF, digestlist.Verity)), digestlist.FormatCompact, false, []set.Kind{set.Verity}, nil},
		"openeuler":                  {sign(compact(digestlist.OpenEuler, digestlist.Metadata)), digestlist.FormatCompact, false, nil, errAny},
		"tlv":                        {sign(tlv), digestlist.FormatTLV, false, []set.Kind{set.Content}, nil},
		"unsigned":                   {v3, digestlist.FormatCompact, false, nil, ErrUnsigned},
		"unsigned in the initramfs":  {v3, digestlist.FormatCompact, true, []set.Kind{set.Parser, set.Content}, nil},
		"unsigned tlv there":         {tlv, digestlist.FormatTLV, true, nil, ErrUnsigned},
		"unsigned rpm there":         {rpmtest.Package{Name: "p"}.Header(), digestlist.FormatRPM, true, nil, ErrUnsigned},
		"badly signed there":         {sign(v3)[1:], digestlist.FormatCompact, true, nil, ErrNotMatching},
		"marker alone, there":        {[]byte(modsig.Marker), digestlist.FormatCompact, true, nil, errAny},
		"format that nobody has":     {sign(v3), "zip", false, nil, errAny},
		"compact that is called tlv": {sign(v3), digestlist.FormatTLV, false, nil, errAny},
	} {
		got, err := r.Prove(before, c.file, c.format, c.initramfs)
		switch {
		case c.err == nil && err != nil, c.err != nil && err == nil, c.err != nil && c.err != errAny && !errors.Is(err, c.err):
			t.Errorf("%s: %v, want %v", name, err, c.err)
		case len(got) != 1+len(c.want):
			t.Errorf("%s: %v", name, got)
		}
		for i, kind := range c.want {
			if got[i+1] != (Entry{kind, sum}) {
				t.Errorf("%s: %v", name, got[i+1])
			}
		}
	}
	if _, err := new(Ring).Prove(nil, sign(v3), digestlist.FormatCompact, false); !errors.Is(err, ErrUnknownCert) {
		t.Errorf("the zero Ring: %v", err)
	}
}

var errAny = errors.New("any error")

func FuzzPKCS7(f *testing.F) {
	key := newKeys(f)[1]
	cert := newCert(f, key, 1)
	c, err := parseCertificate(cert.Raw)
	if err != nil {
		f.Fatal(err)
	}
	sig, err := cms.Sign([]byte("x"), key, cert, crypto.SHA256)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sig)
	f.Add(cert.Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseCertificate(b)
		if verifyPKCS7([]byte("y"), b, []certificate{c}) == nil {
			t.Error("forged")
		}
	})
}
