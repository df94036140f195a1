// Package rsaverify verifies RSA signatures of PKCS #1 v1.5 (RFC 8017 section
// 8.2.2). It says the same as crypto/rsa, and for keys above 2048 bits says it
// in less than a third of the time: crypto/rsa takes care that nobody learns anything
// about its inputs from the time that it takes. Here all inputs are public.
// See docs/design/rsa.md.
package rsaverify

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"errors"
	"math/big"
	"math/bits"
)

// ErrVerification says that it is not a signature of the key over the digest,
// or that the key is none.
var ErrVerification = errors.New("RSA signature does not verify")

// Limits on moduli in bits. crypto/rsa, too, refuses smaller ones; verifying
// with a larger one takes milliseconds.
const (
	minBits = 1024
	maxBits = 16384
)

// exponent is the one that keys have. The few that have another are left to
// crypto/rsa.
const exponent = 1<<16 + 1

// prefixes are DigestInfo up to the digest, in DER (RFC 8017 section 9.2 note
// 1; SHA-3 likewise with its numbers).
var prefixes = map[crypto.Hash]string{
	crypto.MD5:      "\x30\x20\x30\x0c\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x05\x05\x00\x04\x10",
	crypto.SHA1:     "\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
	crypto.SHA224:   "\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x04\x05\x00\x04\x1c",
	crypto.SHA256:   "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
	crypto.SHA384:   "\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
	crypto.SHA512:   "\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
	crypto.SHA3_256: "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x08\x05\x00\x04\x20",
	crypto.SHA3_512: "\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x0a\x05\x00\x04\x40",
}

// A Key is a public key, made ready for any number of verifications. It is
// safe for concurrent use. The zero Key verifies nothing.
type Key struct {
	pub   *rsa.PublicKey // nil if it is no key
	bits  uint
	folds []fold // for reduce; nil to leave it to crypto/rsa
}

// A fold is a place at which a number is cut, and what the part above it
// counts modulo N.
type fold struct {
	at  int      // words
	mod *big.Int // 2^(at*bits.UintSize) mod N
}

// New makes a key ready. With one whose modulus is too small, too large or
// even, or whose exponent is even or 1, nothing ever verifies.
func New(pub *rsa.PublicKey) *Key {
	if pub.N == nil || pub.N.Sign() <= 0 || pub.N.Bit(0) == 0 || pub.E < 3 || pub.E%2 == 0 {
		return &Key{}
	}
	size := pub.N.BitLen()
	if size < minBits || size > maxBits {
		return &Key{}
	}
	k := &Key{pub: pub, bits: uint(size)}
	if pub.E == exponent {
		k.folds = folds(pub.N)
	}
	return k
}

// maxExtra is how many words a number that reduce returned can have more than
// N: two where the last fold cuts, and a carry.
const maxExtra = 3

// folds cut the square of a number that reduce returned to half of the words
// that it has more than N, that to half again, and so on.
func folds(n *big.Int) []fold {
	var fs []fold
	words := len(n.Bits())
	for above := words + 2*maxExtra; above > 2; {
		above = above/2 + 1
		power := new(big.Int).Lsh(big.NewInt(1), uint((words+above)*bits.UintSize))
		fs = append(fs, fold{words + above, power.Mod(power, n)})
	}
	return fs
}

// Size is the length in bytes of the key's signatures.
func (k *Key) Size() int { return int(k.bits+7) / 8 }

// Verify checks a signature, Size bytes, over a digest that the hash made.
func (k *Key) Verify(hash crypto.Hash, digest, sig []byte) error {
	if k.pub == nil || len(sig) != k.Size() {
		return ErrVerification
	}
	prefix, known := prefixes[hash]
	if k.folds == nil || !known {
		if err := rsa.VerifyPKCS1v15(k.pub, hash, digest, sig); err != nil {
			return ErrVerification
		}
		return nil
	}
	if len(digest) != hash.Size() {
		return ErrVerification
	}
	s := new(big.Int).SetBytes(sig)
	if s.Cmp(k.pub.N) >= 0 {
		return ErrVerification
	}
	// What the signer encoded is compared with what it had to encode, whole:
	// nothing of it is parsed.
	encoded := k.power(s).FillBytes(make([]byte, k.Size()))
	if !bytes.Equal(encoded, encode(k.Size(), prefix, digest)) {
		return ErrVerification
	}
	return nil
}

// encode is EMSA-PKCS1-v1_5 (RFC 8017 section 9.2), steps 2 to 5. With minBits
// there is room for every hash and the 8 bytes of padding.
func encode(size int, prefix string, digest []byte) []byte {
	em := bytes.Repeat([]byte{0xff}, size)
	em[0], em[1] = 0, 1
	tail := em[size-len(prefix)-len(digest)-1:]
	tail[0] = 0
	copy(tail[1:], prefix)
	copy(tail[1+len(prefix):], digest)
	return em
}

// power returns s^65537 mod N, for s < N: sixteen squarings and s once more.
func (k *Key) power(s *big.Int) *big.Int {
	var x, y big.Int
	var scratch reduction
	x.Set(s)
	for range 16 {
		y.Mul(&x, &x)
		k.reduce(&x, &y, &scratch)
	}
	y.Mul(&x, s)
	return y.Rem(&y, k.pub.N)
}

// reduction is what reduce works with, kept for the next time.
type reduction struct{ high, low, product big.Int }

// reduce sets x to a number that is y modulo N, and short: see maxExtra. It
// overwrites y. Each fold replaces high*2^at + low by high*(2^at mod N) + low,
// which is the same modulo N whatever the numbers are: nothing is estimated,
// and nothing is to be corrected.
func (k *Key) reduce(x, y *big.Int, r *reduction) {
	for _, f := range k.folds {
		words := y.Bits()
		if len(words) <= f.at {
			continue
		}
		r.high.SetBits(words[f.at:])
		r.low.SetBits(words[:f.at])
		r.product.Mul(&r.high, f.mod)
		y.Add(&r.product, &r.low)
	}
	x.Set(y)
}
