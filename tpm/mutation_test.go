package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"math/big"
	"reflect"
	"slices"
	"testing"

	"diglim/internal/digest"
	"diglim/tpm"
	"diglim/tpm/tpmtest"
)

// A mutation breaks one field of a good quote. Signed again by the right key it
// gives want; nil says that only the signature covers the field.
type mutation struct {
	name   string
	change func(*tpmtest.Quote)
	want   error
}

// mutations has at least one for every field of a quote, by the field's name.
var mutations = map[string][]mutation{
	"Magic": {
		{"0", func(q *tpmtest.Quote) { q.Magic = 0 }, tpm.ErrNotQuote},
		{"a bit", func(q *tpmtest.Quote) { q.Magic ^= 1 << 31 }, tpm.ErrNotQuote},
		{"other byte order", func(q *tpmtest.Quote) { q.Magic = 0x474354ff }, tpm.ErrNotQuote},
	},
	"Type": {
		{"certify", func(q *tpmtest.Quote) { q.Type = 0x8017 }, tpm.ErrNotQuote},
		{"creation", func(q *tpmtest.Quote) { q.Type = 0x801a }, tpm.ErrNotQuote},
		{"time", func(q *tpmtest.Quote) { q.Type = 0x8019 }, tpm.ErrNotQuote},
	},
	"Signer": {
		{"another", func(q *tpmtest.Quote) { q.Signer[10] ^= 1 }, nil},
		{"none", func(q *tpmtest.Quote) { q.Signer = nil }, nil},
		{"too long", func(q *tpmtest.Quote) { q.Signer = make([]byte, 67) }, tpm.ErrMalformed},
	},
	"Nonce": {
		{"none", func(q *tpmtest.Quote) { q.Nonce = nil }, tpm.ErrNonce},
		{"another", func(q *tpmtest.Quote) { q.Nonce = bytes.Repeat([]byte{1}, len(q.Nonce)) }, tpm.ErrNonce},
		{"cut", func(q *tpmtest.Quote) { q.Nonce = q.Nonce[1:] }, tpm.ErrNonce},
		{"longer", func(q *tpmtest.Quote) { q.Nonce = append(slices.Clone(q.Nonce), 0) }, tpm.ErrNonce},
		{"too long", func(q *tpmtest.Quote) { q.Nonce = make([]byte, 67) }, tpm.ErrMalformed},
	},
	"Clock":    {{"earlier", func(q *tpmtest.Quote) { q.Clock-- }, nil}},
	"Resets":   {{"fewer", func(q *tpmtest.Quote) { q.Resets-- }, nil}},
	"Restarts": {{"fewer", func(q *tpmtest.Quote) { q.Restarts-- }, nil}},
	"Safe": {
		{"no", func(q *tpmtest.Quote) { q.Safe = 0 }, nil},
		{"neither yes nor no", func(q *tpmtest.Quote) { q.Safe = 2 }, tpm.ErrMalformed},
	},
	"Firmware": {{"older", func(q *tpmtest.Quote) { q.Firmware-- }, nil}},
	"Banks": {
		{"none", func(q *tpmtest.Quote) { q.Banks = nil }, tpm.ErrMalformed},
		{"one less", func(q *tpmtest.Quote) { q.Banks = q.Banks[:1] }, tpm.ErrSelection},
		{"one twice", func(q *tpmtest.Quote) { q.Banks = append(slices.Clone(q.Banks), q.Banks[0]) }, tpm.ErrMalformed},
		{"in other order", func(q *tpmtest.Quote) { q.Banks = []tpmtest.Bank{q.Banks[1], q.Banks[0]} }, nil},
		{"another PCR", func(q *tpmtest.Quote) { q.Banks[1].Bitmap = []byte{1, 0, 0} }, tpm.ErrSelection},
		{"a PCR more", func(q *tpmtest.Quote) { q.Banks[1].Bitmap = []byte{1, 4, 0} }, tpm.ErrSelection},
		{"another bank", func(q *tpmtest.Quote) { q.Banks[1].Alg = tpmtest.SHA384 }, tpm.ErrSelection},
		{"another value", func(q *tpmtest.Quote) { q.Banks[1].Values = [][]byte{make([]byte, 32)} }, tpm.ErrPCRDigest},
	},
	"DigestHash": {
		{"sha1", func(q *tpmtest.Quote) { q.DigestHash = tpmtest.SHA1 }, tpm.ErrPCRDigest},
		{"sha384", func(q *tpmtest.Quote) { q.DigestHash = tpmtest.SHA384 }, tpm.ErrPCRDigest},
		{"sha512", func(q *tpmtest.Quote) { q.DigestHash = tpmtest.SHA512 }, tpm.ErrPCRDigest},
	},
	"PCRDigest": {
		{"none", func(q *tpmtest.Quote) { q.PCRDigest = []byte{} }, tpm.ErrPCRDigest},
		{"zeros", func(q *tpmtest.Quote) { q.PCRDigest = make([]byte, 32) }, tpm.ErrPCRDigest},
		{"too long", func(q *tpmtest.Quote) { q.PCRDigest = make([]byte, 65) }, tpm.ErrMalformed},
	},
}

// Every field of a good quote is broken, once under the old signature and once
// under a new one.
func TestEveryFieldOfAQuote(t *testing.T) {
	good := func() tpmtest.Quote {
		return tpmtest.NewQuote(slices.Clone(nonce), bank(digest.SHA1, 0, 7), bank(digest.SHA256, 10))
	}
	claimed := values(good().Banks...)
	for _, key := range []tpmtest.Key{rsaKey, with(rsaKey, tpmtest.RSAPSS, tpmtest.SHA256), p256, p384, p521} {
		attest := good().Attest()
		sig := key.Sign(attest)
		public := key.Public(tpmtest.AKAttributes)
		if _, err := check(attest, sig, public, nonce, claimed); err != nil {
			t.Fatal(err)
		}
		bred := 0
		fields := reflect.TypeFor[tpmtest.Quote]()
		for i := range fields.NumField() {
			field := fields.Field(i).Name
			if len(mutations[field]) == 0 {
				t.Errorf("no mutation of %s", field)
			}
			for _, m := range mutations[field] {
				bred++
				q := good()
				m.change(&q)
				changed := q.Attest()
				if bytes.Equal(changed, attest) {
					t.Errorf("%s %s: nothing changed", field, m.name)
				}
				if pcrs, err := check(changed, sig, public, nonce, claimed); err == nil || pcrs != nil {
					t.Errorf("%s %s, under the old signature: verified", field, m.name)
				}
				pcrs, err := check(changed, key.Sign(changed), public, nonce, claimed)
				if !errors.Is(err, m.want) || (pcrs == nil) != (m.want != nil) {
					t.Errorf("%s %s, signed again: %v, want %v", field, m.name, err, m.want)
				}
			}
		}
		if bred != 34 {
			t.Errorf("%d mutations", bred)
		}
	}
}

// Row 8: TPMs salt with as many bytes as the hash has, or as many as fit.
func TestAttack08PSSSalts(t *testing.T) {
	b := bank(digest.SHA256, 10)
	attest := tpmtest.NewQuote(nonce, b).Attest()
	sum := sha256.Sum256(attest)
	for _, salt := range []int{rsa.PSSSaltLengthEqualsHash, rsa.PSSSaltLengthAuto} {
		raw, err := rsa.SignPSS(rand.Reader, rsaKey.RSA, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: salt})
		if err != nil {
			t.Fatal(err)
		}
		sig := slices.Concat([]byte{0, tpmtest.RSAPSS, 0, tpmtest.SHA256, 1, 0}, raw)
		if _, err := check(attest, sig, rsaKey.PEM(), nonce, values(b)); err != nil {
			t.Errorf("salt %d: %v", salt, err)
		}
		sig[len(sig)-1] ^= 1
		pcrs, err := check(attest, sig, rsaKey.PEM(), nonce, values(b))
		expect(t, "a bit changed", tpm.ErrSignature, pcrs, err)
		binary.BigEndian.PutUint16(sig[2:], tpmtest.SHA384)
		pcrs, err = check(attest, sig, rsaKey.PEM(), nonce, values(b))
		expect(t, "another hash", tpm.ErrSignature, pcrs, err)
	}
}

// Row 9: exponents and sizes of RSA keys.
func TestAttack09RSALimits(t *testing.T) {
	area := rsaKey.Public(tpmtest.AKAttributes)
	at := len(area) - 256 - 2 - 4 // exponent, length, modulus
	for e, want := range map[uint32]error{0: nil, 65537: nil, 1: tpm.ErrKey, 2: tpm.ErrKey, 3: tpm.ErrKey, 65539: tpm.ErrKey, 1<<32 - 1: tpm.ErrKey} {
		changed := slices.Clone(area)
		binary.BigEndian.PutUint32(changed[at:], e)
		if _, err := tpm.ParsePublic(changed); !errors.Is(err, want) {
			t.Errorf("exponent %d: %v", e, err)
		}
	}
	short := slices.Clone(area)
	binary.BigEndian.PutUint16(short[at-2:], 1024)
	if _, err := tpm.ParsePublic(short); !errors.Is(err, tpm.ErrMalformed) {
		t.Errorf("2048 bits said to be 1024: %v", err)
	}
	zeros := slices.Clone(area)
	clear(zeros[at+6 : at+6+130])
	if _, err := tpm.ParsePublic(zeros); !errors.Is(err, tpm.ErrKey) {
		t.Errorf("1008 bits said to be 2048: %v", err)
	}
	three := *rsaKey.RSA
	three.E = 3
	der, err := x509.MarshalPKIXPublicKey(&three.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tpm.ParsePublic(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})); !errors.Is(err, tpm.ErrKey) {
		t.Errorf("exponent 3 in a PEM: %v", err)
	}
	// A signature of another length, and one that is more than the modulus.
	b := bank(digest.SHA256, 10)
	attest := tpmtest.NewQuote(nonce, b).Attest()
	good := rsaKey.Sign(attest)[6:]
	for name, raw := range map[string][]byte{
		"a zero more": append([]byte{0}, good...),
		"cut":         good[1:],
		"none":        nil,
		"ones":        bytes.Repeat([]byte{0xff}, 256),
		"one":         append(make([]byte, 255), 1),
	} {
		sig := slices.Concat([]byte{0, tpmtest.RSASSA, 0, tpmtest.SHA256}, binary.BigEndian.AppendUint16(nil, uint16(len(raw))), raw)
		pcrs, err := check(attest, sig, rsaKey.PEM(), nonce, values(b))
		expect(t, name, tpm.ErrSignature, pcrs, err)
	}
}

// The whole of a quote's verification, and the signature alone.
func BenchmarkVerify(b *testing.B) {
	bank := bank(digest.SHA256, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	for _, key := range []tpmtest.Key{rsaKey, p256} {
		attest := tpmtest.NewQuote(nonce, bank).Attest()
		sig := key.Sign(attest)
		public, err := tpm.ParsePublic(key.Public(tpmtest.AKAttributes))
		if err != nil {
			b.Fatal(err)
		}
		q, err := tpm.ParseQuote(attest)
		if err != nil {
			b.Fatal(err)
		}
		dump, err := tpm.AppendValues(nil, q.Selection, values(bank))
		if err != nil {
			b.Fatal(err)
		}
		name := "RSA-2048"
		if key.EC != nil {
			name = "P-256"
		}
		b.Run(name+"/quote", func(b *testing.B) {
			for b.Loop() {
				q, err1 := tpm.ParseQuote(attest)
				s, err2 := tpm.ParseSignature(sig)
				v, err3 := tpm.ParseValues(dump, q.Selection)
				if _, err4 := q.Verify(s, public, nonce, v); err1 != nil || err2 != nil || err3 != nil || err4 != nil {
					b.Fatal(err1, err2, err3, err4)
				}
			}
		})
		b.Run(name+"/signature", func(b *testing.B) {
			sum := sha256.Sum256(attest)
			for b.Loop() {
				if key.EC != nil {
					n := int(binary.BigEndian.Uint16(sig[4:]))
					if !verifyEC(key, sum[:], sig[6:6+n], sig[8+n:]) {
						b.Fatal("signature")
					}
				} else if err := rsa.VerifyPKCS1v15(&key.RSA.PublicKey, crypto.SHA256, sum[:], sig[6:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func verifyEC(key tpmtest.Key, sum, r, s []byte) bool {
	return ecdsa.Verify(&key.EC.PublicKey, sum, new(big.Int).SetBytes(r), new(big.Int).SetBytes(s))
}
