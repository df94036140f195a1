package rsaverify

import (
	"bytes"
	"crypto"
	_ "crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
	"fmt"
	"math/big"
	mathbits "math/bits"
	"testing"
)

// A private is a key that signs whatever it is told, padded or not.
type private struct {
	rsa.PublicKey
	d *big.Int
}

// newPrivate makes a key whose modulus has exactly that many bits.
func newPrivate(t testing.TB, bits, e int) *private {
	t.Helper()
	one := big.NewInt(1)
	for {
		p, err := rand.Prime(rand.Reader, (bits+1)/2)
		if err != nil {
			t.Fatal(err)
		}
		q, err := rand.Prime(rand.Reader, bits/2)
		if err != nil {
			t.Fatal(err)
		}
		n := new(big.Int).Mul(p, q)
		phi := new(big.Int).Mul(p.Sub(p, one), q.Sub(q, one))
		if d := new(big.Int).ModInverse(big.NewInt(int64(e)), phi); d != nil && n.BitLen() == bits {
			return &private{rsa.PublicKey{N: n, E: e}, d}
		}
	}
}

// sign returns what gives encoded when it is raised to E.
func (k *private) sign(encoded []byte) []byte {
	m := new(big.Int).SetBytes(encoded)
	return m.Exp(m.Mod(m, k.N), k.d, k.N).FillBytes(make([]byte, k.Size()))
}

// agree fails the test unless crypto/rsa says the same, and returns what both
// say.
func agree(t *testing.T, name string, pub *rsa.PublicKey, hash crypto.Hash, digest, sig []byte) bool {
	t.Helper()
	theirs := rsa.VerifyPKCS1v15(pub, hash, digest, sig)
	ours := New(pub).Verify(hash, digest, sig)
	if (ours == nil) != (theirs == nil) {
		t.Errorf("%s: %v, and crypto/rsa says %v", name, ours, theirs)
	}
	return ours == nil
}

var hashes = []crypto.Hash{crypto.MD5, crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512,
	crypto.SHA512_256, crypto.SHA3_384} // the last two are left to crypto/rsa

func sum(h crypto.Hash, data string) []byte {
	w := h.New()
	w.Write([]byte(data))
	return w.Sum(nil)
}

// Good signatures of keys of all sizes, also such that do not fill their bytes.
func TestGood(t *testing.T) {
	for _, bits := range []int{1024, 1025, 1031, 2047, 2048, 3072, 4096} {
		for _, e := range []int{3, 17, 65537} {
			if e != exponent && bits > 1031 {
				continue
			}
			k := newPrivate(t, bits, e)
			hashes := hashes
			if bits > 2048 { // these take their time to sign with
				hashes = hashes[3:6]
			}
			for _, h := range hashes {
				digest := sum(h, "document")
				sig := k.sign(encoded(k.Size(), h, digest))
				name := fmt.Sprintf("%d bits, exponent %d, %s", bits, e, h)
				if !agree(t, name, &k.PublicKey, h, digest, sig) {
					t.Errorf("%s: refused", name)
				}
				if agree(t, name+", other document", &k.PublicKey, h, sum(h, "documenu"), sig) {
					t.Errorf("%s: taken for another document", name)
				}
			}
		}
	}
}

// encoded is what a signature over a digest is to hold.
func encoded(size int, h crypto.Hash, digest []byte) []byte {
	prefix := prefixes[h]
	switch h {
	case crypto.SHA512_256:
		prefix = "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x06\x05\x00\x04\x20"
	case crypto.SHA3_384:
		prefix = "\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x09\x05\x00\x04\x30"
	}
	return encode(size, prefix, digest)
}

// badEncodings are what verifiers that parse have taken for a good encoding,
// and what they might.
func badEncodings(size int, digest []byte) map[string][]byte {
	prefix := []byte(prefixes[crypto.SHA256])
	// build pads what comes after the zero byte to the full size.
	build := func(start []byte, fill, separator byte, tail ...[]byte) []byte {
		end := append([]byte{separator}, bytes.Join(tail, nil)...)
		em := bytes.Repeat([]byte{fill}, size)
		copy(em, start)
		copy(em[size-len(end):], end)
		return em
	}
	// early puts the digest after 8 bytes of padding, and the tail behind it.
	early := func(fill byte) []byte {
		em := append([]byte{0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0}, prefix...)
		em = append(em, digest...)
		return append(em, bytes.Repeat([]byte{fill}, size-len(em))...)
	}
	noParameters := bytes.Clone(prefix)
	noParameters = append(noParameters[:15:15], noParameters[17:]...)
	noParameters[1], noParameters[3] = prefix[1]-2, prefix[3]-2
	longLength := append([]byte{0x30, 0x81}, prefix[1:]...)
	otherNull := bytes.Clone(prefix)
	otherNull[15] = 4
	inParameters := append(append([]byte{0x30, prefix[1] + 8, 0x30, prefix[3] + 8}, prefix[4:15]...), append([]byte{4, 8, 1, 2, 3, 4, 5, 6, 7, 8}, prefix[17:]...)...)
	bad := map[string][]byte{
		"garbage behind":              early(0xaa),
		"zeros behind":                early(0),
		"short padding, then ff":      early(0xff),
		"starts with 1":               build([]byte{1, 1}, 0xff, 0, prefix, digest),
		"block type 0":                build([]byte{0, 0}, 0xff, 0, prefix, digest),
		"block type 0, padded with 0": build([]byte{0, 0}, 0, 0, prefix, digest),
		"block type 2":                build([]byte{0, 2}, 0xff, 0, prefix, digest),
		"padded with fe":              build([]byte{0, 1}, 0xfe, 0, prefix, digest),
		"padded with 0":               build([]byte{0, 1}, 0, 0, prefix, digest),
		"separator 1":                 build([]byte{0, 1}, 0xff, 1, prefix, digest),
		"separator ff":                build([]byte{0, 1}, 0xff, 0xff, prefix, digest),
		"no prefix":                   build([]byte{0, 1}, 0xff, 0, digest),
		"no digest":                   build([]byte{0, 1}, 0xff, 0, prefix),
		"nothing":                     build([]byte{0, 1}, 0xff, 0),
		"half the digest":             build([]byte{0, 1}, 0xff, 0, prefix, digest[:16]),
		"digest and a byte":           build([]byte{0, 1}, 0xff, 0, prefix, digest, []byte{0}),
		"digest twice":                build([]byte{0, 1}, 0xff, 0, prefix, digest, digest),
		"no parameters":               build([]byte{0, 1}, 0xff, 0, noParameters, digest),
		"length in two bytes":         build([]byte{0, 1}, 0xff, 0, longLength, digest),
		"parameters of another type":  build([]byte{0, 1}, 0xff, 0, otherNull, digest),
		"garbage in the parameters":   build([]byte{0, 1}, 0xff, 0, inParameters, digest),
		"another hash of that size":   build([]byte{0, 1}, 0xff, 0, []byte(prefixes[crypto.SHA3_256]), digest),
		"all zero":                    make([]byte, size),
		"one":                         append(make([]byte, size-1), 1),
	}
	for i := range 8 {
		em := build([]byte{0, 1}, 0xff, 0, prefix, digest)
		em[2+i] = 0
		bad[fmt.Sprintf("zero in the padding at %d", i)] = em
	}
	return bad
}

func TestBadEncodings(t *testing.T) {
	digest := sum(crypto.SHA256, "document")
	for _, e := range []int{3, 65537} {
		k := newPrivate(t, 2048, e)
		if !agree(t, "good", &k.PublicKey, crypto.SHA256, digest, k.sign(encoded(k.Size(), crypto.SHA256, digest))) {
			t.Fatal("a good one is refused")
		}
		for name, em := range badEncodings(k.Size(), digest) {
			if agree(t, name, &k.PublicKey, crypto.SHA256, digest, k.sign(em)) {
				t.Errorf("%s: taken", name)
			}
		}
	}
	// Every bit of the encoding counts.
	k := newPrivate(t, 1024, exponent)
	for i := range k.Size() {
		for bit := range 8 {
			em := encoded(k.Size(), crypto.SHA256, digest)
			em[i] ^= 1 << bit
			if agree(t, fmt.Sprintf("byte %d, bit %d", i, bit), &k.PublicKey, crypto.SHA256, digest, k.sign(em)) {
				t.Errorf("byte %d, bit %d flipped: taken", i, bit)
			}
		}
	}
}

// Numbers that are no signatures, or another spelling of one.
func TestBadSignatures(t *testing.T) {
	k := newPrivate(t, 1030, exponent) // with room above N
	digest := sum(crypto.SHA256, "document")
	good := k.sign(encoded(k.Size(), crypto.SHA256, digest))
	s := new(big.Int).SetBytes(good)
	number := func(n *big.Int) []byte { return n.FillBytes(make([]byte, k.Size())) }
	for name, sig := range map[string][]byte{
		"plus N":         number(new(big.Int).Add(s, k.N)),
		"plus 2 N":       number(new(big.Int).Add(s, new(big.Int).Lsh(k.N, 1))),
		"N minus it":     number(new(big.Int).Sub(k.N, s)),
		"0":              number(new(big.Int)),
		"1":              number(big.NewInt(1)),
		"N":              number(k.N),
		"N - 1":          number(new(big.Int).Sub(k.N, big.NewInt(1))),
		"all ones":       bytes.Repeat([]byte{0xff}, k.Size()),
		"empty":          nil,
		"zero in front":  append([]byte{0}, good...),
		"first cut off":  good[1:],
		"last cut off":   good[:len(good)-1],
		"zero behind":    append(bytes.Clone(good), 0),
		"little-endian":  reversed(good),
		"the encoding":   encoded(k.Size(), crypto.SHA256, digest),
		"1 MB of zeros":  make([]byte, 1<<20),
		"its own square": number(new(big.Int).Exp(s, big.NewInt(2), k.N)),
	} {
		if agree(t, name, &k.PublicKey, crypto.SHA256, digest, sig) {
			t.Errorf("%s: taken", name)
		}
	}
	for name, digest := range map[string][]byte{"no digest": nil, "short digest": digest[1:], "long digest": append(bytes.Clone(digest), 0)} {
		if agree(t, name, &k.PublicKey, crypto.SHA256, digest, k.sign(encode(k.Size(), prefixes[crypto.SHA256], digest))) {
			t.Errorf("%s: taken", name)
		}
	}
	if agree(t, "hash 0", &k.PublicKey, 0, digest, good) || agree(t, "MD4", &k.PublicKey, crypto.MD4, digest[:16], good) {
		t.Error("a hash that is none is taken")
	}
}

func reversed(b []byte) []byte {
	r := bytes.Clone(b)
	for i, c := range b {
		r[len(b)-1-i] = c
	}
	return r
}

// Keys that are none verify nothing, whatever the signature.
func TestBadKeys(t *testing.T) {
	good := newPrivate(t, 2048, exponent)
	digest := sum(crypto.SHA256, "document")
	even := new(big.Int).Add(good.N, big.NewInt(1))
	for name, pub := range map[string]*rsa.PublicKey{
		"no modulus":       {E: exponent},
		"modulus 0":        {N: new(big.Int), E: exponent},
		"modulus 1":        {N: big.NewInt(1), E: exponent},
		"negative modulus": {N: new(big.Int).Neg(good.N), E: exponent},
		"even modulus":     {N: even, E: exponent},
		"exponent 0":       {N: good.N},
		"exponent 1":       {N: good.N, E: 1},
		"exponent 2":       {N: good.N, E: 2},
		"exponent -1":      {N: good.N, E: -1},
		"exponent 65536":   {N: good.N, E: 65536},
		"1023 bits":        &newPrivate(t, 1023, exponent).PublicKey,
		"512 bits":         &newPrivate(t, 512, exponent).PublicKey,
		"16385 bits":       {N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), maxBits), big.NewInt(1)), E: exponent},
	} {
		k := New(pub)
		size := 256
		if pub.N != nil {
			size = (pub.N.BitLen() + 7) / 8
		}
		em := make([]byte, size)
		if size > 60 {
			em = encoded(size, crypto.SHA256, digest)
		}
		// with exponent 1 the encoding is its own signature
		for _, sig := range [][]byte{em, make([]byte, size), nil} {
			if k.Verify(crypto.SHA256, digest, sig) == nil {
				t.Errorf("%s: verified", name)
			}
		}
	}
	if new(Key).Verify(crypto.SHA256, digest, nil) == nil {
		t.Error("the zero Key verifies")
	}
}

// What is reduced is right modulo N. It does not grow either: of what has
// maxExtra words more than N the square comes back with no more than that.
func TestReduce(t *testing.T) {
	for _, bits := range []int{1024, 1025, 2047, 4096} {
		k := New(&newPrivate(t, bits, exponent).PublicKey)
		n, one := k.pub.N, big.NewInt(1)
		square := new(big.Int).Mul(n, n)
		widest := new(big.Int).Lsh(one, uint((len(n.Bits())+maxExtra)*mathbits.UintSize))
		widest.Sub(widest, one)
		values := []*big.Int{widest.Mul(widest, widest), new(big.Int), one, new(big.Int).Sub(n, one), n, new(big.Int).Add(n, one), new(big.Int).Sub(square, one), new(big.Int).Sub(square, n)}
		for range 1000 {
			y, err := rand.Int(rand.Reader, square)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, y)
		}
		for _, y := range values {
			var x big.Int
			k.reduce(&x, new(big.Int).Set(y), &reduction{})
			if extra := len(x.Bits()) - len(n.Bits()); extra > maxExtra {
				t.Errorf("%d bits: %x is reduced to %d words more than N", bits, y, extra)
			}
			if want := new(big.Int).Mod(y, n); x.Mod(&x, n).Cmp(want) != 0 {
				t.Fatalf("%d bits: %x mod N is %x, want %x", bits, y, &x, want)
			}
		}
	}
}

// Whatever a key holder may sign, and whatever anybody may send, crypto/rsa
// says the same of it.
func FuzzVerify(f *testing.F) {
	var keys []*private
	for _, bits := range []int{1024, 1031, 2048} {
		keys = append(keys, newPrivate(f, bits, exponent))
	}
	keys = append(keys, newPrivate(f, 1024, 3))
	digest := sum(crypto.SHA256, "document")
	for i, k := range keys {
		f.Add(uint8(i), uint8(3), digest, encoded(k.Size(), crypto.SHA256, digest), true)
	}
	for _, em := range badEncodings(128, digest) {
		f.Add(uint8(0), uint8(3), digest, em, true)
	}
	f.Fuzz(func(t *testing.T, key, hash uint8, digest, b []byte, signed bool) {
		k, h := keys[int(key)%len(keys)], hashes[int(hash)%len(hashes)]
		sig := b
		if signed {
			if len(b) > k.Size() {
				return
			}
			sig = k.sign(b)
		}
		ours := agree(t, "fuzzed", &k.PublicKey, h, digest, sig)
		if signed && len(digest) == h.Size() {
			m := new(big.Int).SetBytes(b)
			want := bytes.Equal(m.Mod(m, k.N).FillBytes(make([]byte, k.Size())), encoded(k.Size(), h, digest))
			if ours != want {
				t.Errorf("%s of %x, encoded as %x: %v", h, digest, b, ours)
			}
		}
	})
}
