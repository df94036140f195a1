package tpm_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/tpm"
	"diglim/tpm/tpmtest"
)

var nonce = []byte("a challenge of the verifier's own")

// bank is PCRs of one bank, each with a value of its own.
func bank(alg digest.Algorithm, pcrs ...int) tpmtest.Bank {
	id, _ := alg.TPM()
	b := tpmtest.Bank{Alg: id, PCRs: pcrs}
	for _, i := range pcrs {
		b.Values = append(b.Values, digest.Sum(alg, fmt.Append(nil, "PCR ", i)).Bytes())
	}
	return b
}

// values are what an honest host claims for the banks.
func values(banks ...tpmtest.Bank) tpm.Values {
	v := tpm.Values{}
	for _, b := range banks {
		alg, _ := digest.ByTPM(b.Alg)
		for i, pcr := range b.PCRs {
			v[tpm.PCR{Bank: alg, Index: pcr}], _ = digest.New(alg, b.Values[i])
		}
	}
	return v
}

// check runs the whole of it over bytes, as a verifier would.
func check(attest, sig, key, nonce []byte, claimed tpm.Values) (*tpm.PCRs, error) {
	k, err := tpm.ParsePublic(key)
	if err != nil {
		return nil, err
	}
	q, err := tpm.ParseQuote(attest)
	if err != nil {
		return nil, err
	}
	s, err := tpm.ParseSignature(sig)
	if err != nil {
		return nil, err
	}
	return q.Verify(s, k, nonce, claimed)
}

// expect runs bad, a case that was bred from one that passes, and wants the
// error.
func expect(t *testing.T, name string, want error, pcrs *tpm.PCRs, err error) {
	t.Helper()
	if !errors.Is(err, want) || pcrs != nil {
		t.Errorf("%s: %v, want %v", name, err, want)
	}
}

var (
	rsaKey, rsaOther = tpmtest.NewRSA(2048), tpmtest.NewRSA(2048)
	p256, p384, p521 = tpmtest.NewEC(elliptic.P256()), tpmtest.NewEC(elliptic.P384()), tpmtest.NewEC(elliptic.P521())
)

// with changes what a key signs with.
func with(k tpmtest.Key, scheme, hash uint16) tpmtest.Key {
	k.Scheme, k.Hash = scheme, hash
	return k
}

// Row 1, and every other magic that differs in a byte.
func TestAttack01MagicIsNotTPM(t *testing.T) {
	banks := bank(digest.SHA256, 10)
	good := tpmtest.NewQuote(nonce, banks)
	if _, err := check(good.Attest(), rsaKey.Sign(good.Attest()), rsaKey.PEM(), nonce, values(banks)); err != nil {
		t.Fatal(err)
	}
	for _, magic := range []uint32{0, 0xff544346, 0x474354ff, 0xff544348, 0xffffffff} {
		q := good
		q.Magic = magic
		pcrs, err := check(q.Attest(), rsaKey.Sign(q.Attest()), rsaKey.PEM(), nonce, values(banks))
		expect(t, fmt.Sprintf("%#x", magic), tpm.ErrNotQuote, pcrs, err)
	}
}

// A TPM 1.2 is told by name.
func TestAttack01QuoteOfTPM12(t *testing.T) {
	for _, b := range []string{"\x01\x01\x00\x00QUOT" + strings.Repeat("d", 20) + strings.Repeat("n", 20), "\x00\x36QUT2" + strings.Repeat("n", 46)} {
		if _, err := tpm.ParseQuote([]byte(b)); !errors.Is(err, tpm.ErrNotQuote) || !strings.Contains(err.Error(), "TPM 1.2") {
			t.Errorf("%q: %v", b, err)
		}
	}
}

// Row 2: every TPM_ST_ATTEST that is none.
func TestAttack02AttestOfAnotherType(t *testing.T) {
	banks := bank(digest.SHA256, 10)
	for st := uint16(0x8014); st <= 0x801d; st++ {
		q := tpmtest.NewQuote(nonce, banks)
		q.Type = st
		pcrs, err := check(q.Attest(), rsaKey.Sign(q.Attest()), rsaKey.PEM(), nonce, values(banks))
		if st == tpmtest.AttestQuote {
			if err != nil {
				t.Errorf("a quote: %v", err)
			}
			continue
		}
		expect(t, fmt.Sprintf("%#x", st), tpm.ErrNotQuote, pcrs, err)
	}
}

// Row 3: cut at every offset, one byte more, with a length in front. The
// signature is right for what is there.
func TestAttack03CutOrTrailing(t *testing.T) {
	banks := bank(digest.SHA256, 10)
	attest := tpmtest.NewQuote(nonce, banks).Attest()
	sig := p256.Sign(attest)
	bad := map[string][]byte{
		"trailing byte":   append(slices.Clone(attest), 0),
		"length in front": append(binary.BigEndian.AppendUint16(nil, uint16(len(attest))), attest...),
		"twice":           append(slices.Clone(attest), attest...),
	}
	for i := range attest {
		bad[fmt.Sprintf("first %d bytes", i)] = attest[:i]
	}
	for name, b := range bad {
		if q, err := tpm.ParseQuote(b); err == nil {
			t.Errorf("%s: parsed as %+v", name, q)
		}
		if pcrs, err := check(b, p256.Sign(b), p256.PEM(), nonce, values(banks)); err == nil || pcrs != nil {
			t.Errorf("%s: verified", name)
		}
	}
	for i := range sig {
		if _, err := tpm.ParseSignature(sig[:i]); !errors.Is(err, tpm.ErrMalformed) && !errors.Is(err, tpm.ErrAlgorithm) {
			t.Errorf("first %d bytes of the signature: %v", i, err)
		}
	}
	if _, err := tpm.ParseSignature(append(slices.Clone(sig), 0)); !errors.Is(err, tpm.ErrMalformed) {
		t.Errorf("signature with a trailing byte: %v", err)
	}
}

// Row 4: the values are right, the labels are not those that were signed.
func TestAttack04ValuesUnderOtherLabels(t *testing.T) {
	signed := bank(digest.SHA256, 16, 23)
	attest := tpmtest.NewQuote(nonce, signed).Attest()
	sig := rsaKey.Sign(attest)
	good := values(signed)
	if _, err := check(attest, sig, rsaKey.PEM(), nonce, good); err != nil {
		t.Fatal(err)
	}
	at := func(i int) tpm.PCR { return tpm.PCR{Bank: digest.SHA256, Index: i} }
	other := values(bank(digest.SHA384, 16))
	for name, claimed := range map[string]tpm.Values{
		"moved to 0 and 10": {at(0): good[at(16)], at(10): good[at(23)]},
		"one moved":         {at(16): good[at(16)], at(10): good[at(23)]},
		"one left out":      {at(16): good[at(16)]},
		"one added":         {at(16): good[at(16)], at(23): good[at(23)], at(10): good[at(23)]},
		"none":              {},
		"of another bank":   {at(16): good[at(16)], {Bank: digest.SHA384, Index: 23}: good[at(23)]},
		"digest of another": {at(16): good[at(16)], at(23): other[tpm.PCR{Bank: digest.SHA384, Index: 16}]},
		"no digest":         {at(16): good[at(16)], at(23): {}},
	} {
		pcrs, err := check(attest, sig, rsaKey.PEM(), nonce, claimed)
		expect(t, name, tpm.ErrSelection, pcrs, err)
	}
	swapped := tpm.Values{at(16): good[at(23)], at(23): good[at(16)]}
	pcrs, err := check(attest, sig, rsaKey.PEM(), nonce, swapped)
	expect(t, "swapped", tpm.ErrPCRDigest, pcrs, err)
}

// Row 5: what was not quoted has no value.
func TestAttack05PCROutsideTheSelection(t *testing.T) {
	b := bank(digest.SHA256, 10)
	attest := tpmtest.NewQuote(nonce, b).Attest()
	pcrs, err := check(attest, rsaKey.Sign(attest), rsaKey.PEM(), nonce, values(b))
	if err != nil {
		t.Fatal(err)
	}
	if d, ok := pcrs.Value(digest.SHA256, 10); !ok || d != values(b)[tpm.PCR{Bank: digest.SHA256, Index: 10}] {
		t.Errorf("PCR 10: %v, %v", d, ok)
	}
	for _, p := range []tpm.PCR{{Bank: digest.SHA256, Index: 7}, {Bank: digest.SHA1, Index: 10}, {Bank: digest.SHA256, Index: -1}, {Index: 10}, {Bank: digest.SHA256, Index: 24}} {
		if d, ok := pcrs.Value(p.Bank, p.Index); ok || d != (digest.Digest{}) {
			t.Errorf("%v has the value %v", p, d)
		}
	}
	for _, none := range []*tpm.PCRs{nil, {}} {
		if _, ok := none.Value(digest.SHA256, 10); ok {
			t.Error("PCRs from nowhere have a value")
		}
	}
}

// Row 6.
func TestAttack06EmptyOrDuplicateSelection(t *testing.T) {
	b := bank(digest.SHA256, 10)
	cases := map[string][]tpmtest.Bank{
		"no bank":         {},
		"empty bank":      {{Alg: tpmtest.SHA256, Bitmap: []byte{0, 0, 0}}},
		"empty banks":     {{Alg: tpmtest.SHA1, Bitmap: []byte{0, 0, 0}}, {Alg: tpmtest.SHA256, Bitmap: []byte{0, 0, 0}}},
		"empty and twice": {b, {Alg: tpmtest.SHA256, Bitmap: []byte{0, 0, 0}}},
		"bank twice":      {b, b},
		"bank in two":     {b, bank(digest.SHA256, 11)},
		"no bitmap":       {{Alg: tpmtest.SHA256, Bitmap: []byte{}}},
		"short bitmap":    {{Alg: tpmtest.SHA256, Bitmap: []byte{0, 4}, Values: b.Values}},
		"PCR 24":          {{Alg: tpmtest.SHA256, Bitmap: []byte{0, 4, 0, 1}, Values: b.Values}},
		"unknown bank":    {{Alg: 0x7777, Bitmap: []byte{0, 4, 0}, Values: b.Values}},
		"bank of no hash": {{Alg: 0x0010, Bitmap: []byte{0, 4, 0}, Values: b.Values}},
		"17 banks":        slices.Repeat([]tpmtest.Bank{b}, 17),
	}
	for name, banks := range cases {
		attest := tpmtest.NewQuote(nonce, banks...).Attest()
		pcrs, err := check(attest, rsaKey.Sign(attest), rsaKey.PEM(), nonce, values(b))
		expect(t, name, tpm.ErrMalformed, pcrs, err)
	}
}

// A TPM that is asked for a bank that it has not allocated clears its bitmap
// and quotes the others.
func TestBankThatIsNotAllocated(t *testing.T) {
	b, none := bank(digest.SHA256, 10), tpmtest.Bank{Alg: tpmtest.SHA1, Bitmap: []byte{0, 0, 0}}
	attest := tpmtest.NewQuote(nonce, none, b).Attest()
	q, err := tpm.ParseQuote(attest)
	if err != nil {
		t.Fatal(err)
	}
	dump, err := tpm.AppendValues(nil, q.Selection, values(b))
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := tpm.ParseValues(dump, q.Selection)
	if err != nil {
		t.Fatal(err)
	}
	pcrs, err := check(attest, rsaKey.Sign(attest), rsaKey.PEM(), nonce, claimed)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := pcrs.Value(digest.SHA1, 10); ok {
		t.Error("a PCR of the bank without PCRs has a value")
	}
}

// Row 7: the PCR digest is by the signature's hash, not by the bank's.
func TestAttack07DigestByTheBanksHash(t *testing.T) {
	b := bank(digest.SHA256, 0, 10)
	key := with(p384, tpmtest.ECDSA, tpmtest.SHA384)
	q := tpmtest.NewQuote(nonce, b)
	q.DigestHash = tpmtest.SHA384
	if _, err := check(q.Attest(), key.Sign(q.Attest()), key.PEM(), nonce, values(b)); err != nil {
		t.Errorf("sha256 bank, sha384 signature: %v", err)
	}
	q.DigestHash = tpmtest.SHA256
	pcrs, err := check(q.Attest(), key.Sign(q.Attest()), key.PEM(), nonce, values(b))
	expect(t, "digest by the bank's hash", tpm.ErrPCRDigest, pcrs, err)
}

// Row 8: schemes and hashes, and what a key may sign with.
func TestAttack08SchemesAndHashes(t *testing.T) {
	b := bank(digest.SHA256, 10)
	run := func(key tpmtest.Key, public []byte) error {
		q := tpmtest.NewQuote(nonce, b)
		q.DigestHash = key.Hash
		_, err := check(q.Attest(), key.Sign(q.Attest()), public, nonce, values(b))
		return err
	}
	tried := 0
	for _, hash := range []uint16{tpmtest.SHA1, tpmtest.SHA256, tpmtest.SHA384, tpmtest.SHA512} {
		for _, key := range []tpmtest.Key{with(rsaKey, tpmtest.RSASSA, hash), with(rsaKey, tpmtest.RSAPSS, hash), with(p256, tpmtest.ECDSA, hash), with(p384, tpmtest.ECDSA, hash), with(p521, tpmtest.ECDSA, hash)} {
			var want error
			if hash == tpmtest.SHA1 {
				want = tpm.ErrAlgorithm
			}
			for _, public := range [][]byte{key.PEM(), key.Public(tpmtest.AKAttributes)} {
				tried++
				if err := run(key, public); !errors.Is(err, want) {
					t.Errorf("scheme %#x, hash %#x: %v", key.Scheme, hash, err)
				}
			}
		}
	}
	if tried != 40 {
		t.Errorf("%d combinations tried", tried)
	}
	pss := with(rsaKey, tpmtest.RSAPSS, tpmtest.SHA256)
	if err := run(pss, rsaKey.Public(tpmtest.AKAttributes)); !errors.Is(err, tpm.ErrSignature) {
		t.Errorf("PSS by a key for RSASSA: %v", err)
	}
	longer := with(rsaKey, tpmtest.RSASSA, tpmtest.SHA512)
	if err := run(longer, rsaKey.Public(tpmtest.AKAttributes)); !errors.Is(err, tpm.ErrSignature) {
		t.Errorf("SHA-512 by a key for SHA-256: %v", err)
	}
	attest := tpmtest.NewQuote(nonce, b).Attest()
	relabelled := pss.Sign(attest)
	binary.BigEndian.PutUint16(relabelled, tpmtest.RSASSA)
	pcrs, err := check(attest, relabelled, rsaKey.PEM(), nonce, values(b))
	expect(t, "PSS said to be RSASSA", tpm.ErrSignature, pcrs, err)
	for _, scheme := range []uint16{0, 0x0010, 0x001a, 0x001c, 0x0005} {
		sig := rsaKey.Sign(attest)
		binary.BigEndian.PutUint16(sig, scheme)
		pcrs, err := check(attest, sig, rsaKey.PEM(), nonce, values(b))
		expect(t, fmt.Sprintf("scheme %#x", scheme), tpm.ErrAlgorithm, pcrs, err)
	}
}

// What tpm2_quote -f plain writes for ECDSA is told by its name.
func TestBareECDSASignature(t *testing.T) {
	for _, sig := range [][]byte{{0x30, 0x06, 2, 1, 1, 2, 1, 1}, append([]byte{0x30, 0x45}, make([]byte, 69)...)} {
		if _, err := tpm.ParseSignature(sig); !errors.Is(err, tpm.ErrMalformed) || !strings.Contains(err.Error(), "a bare one of ECDSA") {
			t.Errorf("%x: %v", sig[:4], err)
		}
	}
}

// Row 9: r and s out of range, of another curve, another key, a changed bit.
func TestAttack09SignatureValues(t *testing.T) {
	b := bank(digest.SHA256, 10)
	attest := tpmtest.NewQuote(nonce, b).Attest()
	zero, order := make([]byte, 32), elliptic.P256().Params().N.Bytes()
	one := append(make([]byte, 31), 1)
	ec := func(r, s []byte) []byte {
		b := []byte{0, tpmtest.ECDSA, 0, tpmtest.SHA256}
		for _, v := range [][]byte{r, s} {
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
		}
		return b
	}
	flipped := rsaKey.Sign(attest)
	flipped[100] ^= 1
	for name, c := range map[string]struct{ sig, key []byte }{
		"r and s zero":    {ec(zero, zero), p256.PEM()},
		"r and s empty":   {ec(nil, nil), p256.PEM()},
		"r zero":          {ec(zero, one), p256.PEM()},
		"s zero":          {ec(one, zero), p256.PEM()},
		"r the order":     {ec(order, one), p256.PEM()},
		"s the order":     {ec(one, order), p256.PEM()},
		"one and one":     {ec(one, one), p256.PEM()},
		"of another key":  {rsaOther.Sign(attest), rsaKey.PEM()},
		"of another kind": {rsaKey.Sign(attest), p256.PEM()},
		"RSA for ECDSA":   {p256.Sign(attest), rsaKey.PEM()},
		"other curve":     {p256.Sign(attest), p384.PEM()},
		"P-521 for P-384": {p521.Sign(attest), p384.PEM()},
		"P-521, zero":     {ec(make([]byte, 66), make([]byte, 66)), p521.PEM()},
		"a bit changed":   {flipped, rsaKey.PEM()},
	} {
		pcrs, err := check(attest, c.sig, c.key, nonce, values(b))
		expect(t, name, tpm.ErrSignature, pcrs, err)
	}
	for i := range attest {
		changed := slices.Clone(attest)
		changed[i] ^= 1
		if _, err := check(changed, rsaKey.Sign(attest), rsaKey.PEM(), nonce, values(b)); err == nil {
			t.Errorf("byte %d of the quote changed: verified", i)
		}
	}
}

// Row 10: keys that sign what a TPM did not make, and weak ones.
func TestAttack10KeyNotForAttestation(t *testing.T) {
	const fixedTPM, restricted, decrypt, sign = 1 << 1, 1 << 16, 1 << 17, 1 << 18
	for name, attrs := range map[string]uint32{
		"not restricted":   tpmtest.AKAttributes &^ restricted,
		"not fixed":        tpmtest.AKAttributes &^ fixedTPM,
		"does not sign":    tpmtest.AKAttributes &^ sign,
		"decrypts as well": tpmtest.AKAttributes | decrypt,
		"no attributes":    0,
	} {
		for _, k := range []tpmtest.Key{rsaKey, p256} {
			if _, err := tpm.ParsePublic(k.Public(attrs)); !errors.Is(err, tpm.ErrKey) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for name, k := range map[string]tpmtest.Key{"RSA-1024": tpmtest.NewRSA(1024), "P-224": tpmtest.NewEC(elliptic.P224())} {
		if _, err := tpm.ParsePublic(k.Public(tpmtest.AKAttributes)); !errors.Is(err, tpm.ErrKey) && !errors.Is(err, tpm.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := tpm.ParsePublic(k.PEM()); !errors.Is(err, tpm.ErrKey) {
			t.Errorf("%s as PEM: %v", name, err)
		}
	}
	off := p256.Public(tpmtest.AKAttributes)
	off[len(off)-1] ^= 1
	if _, err := tpm.ParsePublic(off); !errors.Is(err, tpm.ErrKey) {
		t.Errorf("a point that is not on the curve: %v", err)
	}
	good := rsaKey.Public(tpmtest.AKAttributes)
	if _, err := tpm.ParsePublic(append(binary.BigEndian.AppendUint16(nil, uint16(len(good))), good...)); err != nil {
		t.Errorf("TPM2B_PUBLIC: %v", err)
	}
	for i := range good {
		if _, err := tpm.ParsePublic(good[:i]); err == nil {
			t.Errorf("first %d bytes are a key", i)
		}
	}
	if _, err := tpm.ParsePublic(append(slices.Clone(good), 0)); !errors.Is(err, tpm.ErrMalformed) {
		t.Errorf("trailing byte: %v", err)
	}
	if _, err := tpm.ParsePublic(append(p256.PEM(), p256.PEM()...)); !errors.Is(err, tpm.ErrMalformed) {
		t.Errorf("two keys: %v", err)
	}
}

// Every attribute of a key by itself: which of them may be other than those of
// an attestation key is written here.
func TestAttack10AttributeMatrix(t *testing.T) {
	const stClear, fixedParent, origin, userAuth, adminPolicy, noDA, encrypted, x509sign = 1 << 2, 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 10, 1 << 11, 1 << 19
	var harmless uint32 = stClear | fixedParent | origin | userAuth | adminPolicy | noDA | encrypted | x509sign
	const mustBe = 1<<1 | 1<<16 | 1<<17 | 1<<18
	for bit := range 20 {
		changed := uint32(tpmtest.AKAttributes) ^ 1<<bit
		_, err := tpm.ParsePublic(p256.Public(changed))
		switch {
		case mustBe&(1<<bit) != 0 && !errors.Is(err, tpm.ErrKey):
			t.Errorf("attributes %#x: %v", changed, err)
		case harmless&(1<<bit) != 0 && err != nil:
			t.Errorf("attributes %#x: %v", changed, err)
		}
	}
}

// Row 11, as far as a key goes: its name is over all of its public area, so
// that another byte is another name, and another curve point another ID.
func TestAttack11NameIsOverThePublicArea(t *testing.T) {
	for _, k := range []tpmtest.Key{rsaKey, p256, p384, p521} {
		area := k.Public(tpmtest.AKAttributes)
		good, err := tpm.ParsePublic(area)
		if err != nil {
			t.Fatal(err)
		}
		if want := digest.Sum(digest.SHA256, area).Append([]byte{0, tpmtest.SHA256}); !bytes.Equal(good.Name(), want) {
			t.Errorf("name %x, want %x", good.Name(), want)
		}
		names := 0
		for i := range area {
			changed := slices.Clone(area)
			changed[i] ^= 4
			other, err := tpm.ParsePublic(changed)
			if err != nil {
				continue
			}
			names++
			if bytes.Equal(other.Name(), good.Name()) {
				t.Errorf("byte %d changed, the name is the same", i)
			}
		}
		if names == 0 {
			t.Error("no changed byte left a key")
		}
		sized := append(binary.BigEndian.AppendUint16(nil, uint16(len(area))), area...)
		block, _ := pem.Decode(k.PEM())
		for name, form := range map[string][]byte{"TPM2B_PUBLIC": sized, "PEM": k.PEM(), "DER": block.Bytes, "DER certificate": certificate(t, k, x509.KeyUsageDigitalSignature), "PEM certificate": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate(t, k, 0)})} {
			same, err := tpm.ParsePublic(form)
			if err != nil || same.ID() != good.ID() {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if named := name == "TPM2B_PUBLIC"; named != (same.Name() != nil) {
				t.Errorf("%s has the name %x", name, same.Name())
			}
		}
		if _, err := tpm.ParsePublic(certificate(t, k, x509.KeyUsageCertSign)); !errors.Is(err, tpm.ErrKey) {
			t.Errorf("a certificate for another use: %v", err)
		}
	}
	area := p256.Public(tpmtest.AKAttributes)
	binary.BigEndian.PutUint16(area[2:], 0x0010)
	if _, err := tpm.ParsePublic(area); !errors.Is(err, tpm.ErrAlgorithm) {
		t.Errorf("a key without a name: %v", err)
	}
}

// certificate is a certificate of the key, by another.
func certificate(t *testing.T, k tpmtest.Key, usage x509.KeyUsage) []byte {
	var public any
	if k.EC != nil {
		public = k.EC.Public()
	} else {
		public = k.RSA.Public()
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "AK"}, NotAfter: time.Unix(1<<32, 0), KeyUsage: usage}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, rsaOther.RSA)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Row 14: only the nonce that was asked for answers, and never an empty one.
func TestAttack14Nonce(t *testing.T) {
	b := bank(digest.SHA256, 10)
	attest := tpmtest.NewQuote(nonce, b).Attest()
	sig := rsaKey.Sign(attest)
	for name, asked := range map[string][]byte{
		"none":          nil,
		"empty":         {},
		"cut":           nonce[:len(nonce)-1],
		"longer":        append(slices.Clone(nonce), 0),
		"another":       []byte("a challenge of some other session"),
		"as hex":        fmt.Appendf(nil, "%x", nonce),
		"bit different": append(slices.Clone(nonce[:len(nonce)-1]), nonce[len(nonce)-1]^1),
	} {
		pcrs, err := check(attest, sig, rsaKey.PEM(), asked, values(b))
		expect(t, name, tpm.ErrNonce, pcrs, err)
	}
	unasked := tpmtest.NewQuote(nil, b).Attest()
	pcrs, err := check(unasked, rsaKey.Sign(unasked), rsaKey.PEM(), nil, values(b))
	expect(t, "a quote without nonce for no challenge", tpm.ErrNonce, pcrs, err)
	q, _ := tpm.ParseQuote(attest)
	s, _ := tpm.ParseSignature(sig)
	pcrs, err = q.Verify(s, nil, nonce, values(b))
	expect(t, "no key", tpm.ErrKey, pcrs, err)
}
