// Package digest holds a digest together with its algorithm, as one
// comparable value, and the one table that maps the algorithm numbers of the
// Linux kernel, of TPM 2.0 and of OpenPGP onto each other.
package digest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/maphash"
	"strings"

	"diglim/internal/sha"
)

// MaxSize is the size in bytes of the largest digest of any algorithm.
const MaxSize = 64

// A Digest is a digest value and its algorithm. It is comparable and usable as
// a map key: two digests are equal only if their algorithms are. The zero
// Digest has no algorithm and equals no digest of a file.
type Digest struct {
	alg Algorithm
	b   [MaxSize]byte
}

// New makes a digest of value, whose length must be the algorithm's size.
func New(alg Algorithm, value []byte) (d Digest, err error) {
	err = d.Set(alg, value)
	return d, err
}

// Set is New in place. After an error d is the zero Digest.
func (d *Digest) Set(alg Algorithm, value []byte) error {
	if d.alg != alg || len(value) != alg.Size() { // else what is behind its value is zero
		*d = Digest{}
	}
	if !alg.Valid() {
		return fmt.Errorf("digest of unknown algorithm %d", alg)
	}
	if len(value) != alg.Size() {
		return fmt.Errorf("%s digest of %d bytes, must be %d", alg, len(value), alg.Size())
	}
	d.alg = alg
	copy(d.b[:], value)
	return nil
}

// FromHex makes a digest of hexadecimal text, which must have twice the
// algorithm's size in digits.
func FromHex(alg Algorithm, text []byte) (Digest, error) {
	if !alg.Valid() {
		return Digest{}, fmt.Errorf("digest of unknown algorithm %d", alg)
	}
	if len(text) != 2*alg.Size() {
		return Digest{}, fmt.Errorf("%s digest of %d hex digits, must be %d", alg, len(text), 2*alg.Size())
	}
	d := Digest{alg: alg}
	if _, err := hex.Decode(d.b[:], text); err != nil {
		return Digest{}, fmt.Errorf("%s digest: %w", alg, err)
	}
	return d, nil
}

// Parse reads the form that String prints, "sha256:ba78…".
func Parse(text string) (Digest, error) {
	name, value, ok := strings.Cut(text, ":")
	if !ok {
		return Digest{}, fmt.Errorf("digest %q is not ALGORITHM:HEX", text)
	}
	alg, err := ByName(name)
	if err != nil {
		return Digest{}, err
	}
	return FromHex(alg, []byte(value))
}

// Sum hashes data. The algorithm must be Available.
func Sum(alg Algorithm, data ...[]byte) (d Digest) {
	if len(data) == 1 {
		d.SetSum(alg, data[0])
		return d
	}
	h := alg.Hash()
	for _, b := range data {
		h.Write(b)
	}
	return Of(alg, h)
}

// SetSum is Sum in place.
func (d *Digest) SetSum(alg Algorithm, data []byte) {
	if d.alg != alg { // else what is behind its value is zero
		*d = Digest{alg: alg}
	}
	// What TPMs and logs hash with, without a running hash made for it.
	switch alg {
	case SHA1:
		*(*[sha1.Size]byte)(d.b[:]) = sha1.Sum(data)
	case SHA256:
		sha.Sum256((*[sha256.Size]byte)(d.b[:]), data)
	case SHA384:
		*(*[sha512.Size384]byte)(d.b[:]) = sha512.Sum384(data)
	case SHA512:
		d.b = sha512.Sum512(data)
	default:
		h := alg.Hash()
		h.Write(data)
		h.Sum(d.b[:0])
	}
}

// SetSums is SetSum of two digests, and costs no more than one where they are
// SHA-1 and SHA-256.
func SetSums(d *Digest, alg Algorithm, e *Digest, other Algorithm, data []byte) {
	if alg != SHA1 || other != SHA256 {
		d.SetSum(alg, data)
		e.SetSum(other, data)
		return
	}
	if d.alg != alg {
		*d = Digest{alg: alg}
	}
	if e.alg != other {
		*e = Digest{alg: other}
	}
	sha.Sums((*[sha1.Size]byte)(d.b[:]), (*[sha256.Size]byte)(e.b[:]), data)
}

// Extend is what a TPM does to a PCR: d becomes the hash of its value and that of
// by, which must be of the same algorithm.
func (d *Digest) Extend(by *Digest) {
	if d.alg != SHA256 || by.alg != SHA256 {
		*d = Sum(d.alg, d.b[:d.alg.Size()], by.b[:by.alg.Size()])
		return
	}
	var values [2 * sha256.Size]byte
	copy(values[:sha256.Size], d.b[:])
	copy(values[sha256.Size:], by.b[:])
	sha.Sum256((*[sha256.Size]byte)(d.b[:]), values[:])
}

// Of takes the digest out of a running hash, which must have been made by
// alg.Hash.
func Of(alg Algorithm, h hash.Hash) Digest {
	d := Digest{alg: alg}
	h.Sum(d.b[:0])
	return d
}

// Algorithm returns the algorithm; 0 for the zero Digest.
func (d Digest) Algorithm() Algorithm { return d.alg }

// IsZero reports whether d is the zero Digest (not whether its bytes are 0).
func (d Digest) IsZero() bool { return d.alg == 0 }

// Bytes returns a copy of the value, Algorithm().Size() bytes.
func (d Digest) Bytes() []byte { return bytes.Clone(d.b[:d.alg.Size()]) }

// Append appends the value's bytes to b.
func (d Digest) Append(b []byte) []byte { return append(b, d.b[:d.alg.Size()]...) }

// Equal is ==, and looks only at what can differ.
func (d *Digest) Equal(e *Digest) bool { return d.alg == e.alg && d.Is(e.b[:e.alg.Size()]) }

// Is reports whether value is the value's bytes.
func (d *Digest) Is(value []byte) bool { return string(d.b[:d.alg.Size()]) == string(value) }

// Hash returns a hash of the value's bytes, for tables in memory.
func (d *Digest) Hash(seed maphash.Seed) uint64 { return maphash.Bytes(seed, d.b[:d.alg.Size()]) }

// Hex returns the value as lower-case hexadecimal text without its algorithm,
// for formats that carry the algorithm elsewhere.
func (d Digest) Hex() string { return hex.EncodeToString(d.b[:d.alg.Size()]) }

// Compare orders digests by kernel algorithm number, then by bytes.
func (d Digest) Compare(e Digest) int {
	if d.alg != e.alg {
		return int(d.alg) - int(e.alg)
	}
	return bytes.Compare(d.b[:], e.b[:])
}

// String returns "sha256:ba78…".
func (d Digest) String() string {
	if d.IsZero() {
		return "none"
	}
	return d.alg.String() + ":" + d.Hex()
}

// MarshalText is String, for JSON.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is Parse, for JSON.
func (d *Digest) UnmarshalText(text []byte) (err error) {
	*d, err = Parse(string(text))
	return err
}
