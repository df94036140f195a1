// Package sha hashes short data, as crypto/sha1 and crypto/sha256 do and in half
// the time: what they take for data of a block or two is mostly not hashing.
//
// Where a processor has instructions for SHA (amd64, "SHA-NI"), SHA-1 and SHA-256
// of the same data are made side by side, in the time that one of them takes: each
// instruction waits for the one before it, and meanwhile there is room for the
// other hash's. Elsewhere, for long data, and where FIPS 140 is to be held, it is
// the standard library that hashes.
package sha

import (
	"crypto/fips140"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
)

// short is how much is hashed here, in bytes. No goroutine can be interrupted in
// assembly.
const short = 64 << 10

const blockSize = 64

var fast = available() && !fips140.Enabled()

// Sum256 sets sum to the SHA-256 of data, which may overlap it.
func Sum256(sum *[sha256.Size]byte, data []byte) {
	if !fast || len(data) > short {
		*sum = sha256.Sum256(data)
		return
	}
	var end ending
	n := end.fill(data)
	sum256(sum, data, &end, n)
}

// Sums sets sum1 to the SHA-1 and sum256 to the SHA-256 of data.
func Sums(sum1 *[sha1.Size]byte, sum256 *[sha256.Size]byte, data []byte) {
	if !fast || len(data) > short {
		*sum1, *sum256 = sha1.Sum(data), sha256.Sum256(data)
		return
	}
	var end ending
	n := end.fill(data)
	sums(sum1, sum256, data, &end, n)
}

// An ending is what is hashed after the whole blocks of data: what is left of it,
// a one bit, zeros, and its length in bits (FIPS 180-4, 5.1.1).
type ending [2 * blockSize]byte

// fill returns how many blocks the ending has.
func (e *ending) fill(data []byte) int {
	left := copy(e[:], data[len(data)&^(blockSize-1):])
	e[left] = 0x80
	n := 1
	if left >= blockSize-8 {
		n = 2
	}
	binary.BigEndian.PutUint64(e[n*blockSize-8:], 8*uint64(len(data)))
	return n
}
