// Package rsaverify verifies RSA signatures of PKCS #1 v1.5 (RFC 8017 section
// 8.2.2). It says the same as crypto/rsa, and for keys above 2048 bits says it
// in a third of the time: crypto/rsa takes care that nobody learns anything
// about its inputs from the time that it takes. Here all inputs are public.
// See docs/design/rsa.md.
package rsaverify

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"errors"
	"math/big"
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
	pub  *rsa.PublicKey // nil if it is no key
	bits uint
	mu   *big.Int // 2^(2*bits) / N, for reduce; nil to leave it to crypto/rsa
}

// New makes a key ready. With one whose modulus is too small, too large or
// even, or whose exponent is even or 1, nothing ever verifies.
func New(pub *rsa.PublicKey) *Key {
	if pub.N == nil || pub.N.Sign() <= 0 || pub.N.Bit(0) == 0 || pub.E < 3 || pub.E%2 == 0 {
		return &Key{}
	}
	bits := pub.N.BitLen()
	if bits < minBits || bits > maxBits {
		return &Key{}
	}
	k := &Key{pub: pub, bits: uint(bits)}
	if pub.E == exponent {
		k.mu = new(big.Int).Lsh(big.NewInt(1), 2*k.bits)
		k.mu.Quo(k.mu, pub.N)
	}
	return k
}

// Size is the length in bytes of the key's signatures.
func (k *Key) Size() int { return int(k.bits+7) / 8 }

// Verify checks a signature, Size bytes, over a digest that the hash made.
func (k *Key) Verify(hash crypto.Hash, digest, sig []byte) error {
	if k.pub == nil || len(sig) != k.Size() {
		return ErrVerification
	}
	prefix, known := prefixes[hash]
	if k.mu == nil || !known {
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
	var x, y, q, t big.Int
	x.Set(s)
	for range 16 {
		y.Mul(&x, &x)
		k.reduce(&x, &y, &q, &t)
	}
	y.Mul(&x, s)
	k.reduce(&x, &y, &q, &t)
	return &x
}

// reduce sets x to y mod N, for 0 <= y < N^2, by Barrett's reduction (Handbook
// of Applied Cryptography, 14.42, in base 2): q is at most 2 below y / N. The
// last two arguments are scratch space.
func (k *Key) reduce(x, y, q, t *big.Int) {
	q.Rsh(y, k.bits-1)
	t.Mul(q, k.mu)
	q.Rsh(t, k.bits+1)
	t.Mul(q, k.pub.N)
	x.Sub(y, t)
	for x.Cmp(k.pub.N) >= 0 {
		x.Sub(x, k.pub.N)
	}
}
