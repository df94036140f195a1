//go:build !purego

package sha

//lint:file-ignore U1000 the assembly reads its constants from here

import (
	"crypto/sha1"
	"crypto/sha256"
)

// sum256 hashes the whole blocks of data, and then n blocks of its ending.
//
//go:noescape
func sum256(sum *[sha256.Size]byte, data []byte, end *ending, n int)

// sums is sum256 for both hashes.
//
//go:noescape
func sums(sum1 *[sha1.Size]byte, sum256 *[sha256.Size]byte, data []byte, end *ending, n int)

// cpuid returns two of the registers of the instruction of that name.
func cpuid(leaf uint32) (a, b, c uint32)

// available reports whether the processor has what the assembly is written in.
// (No operating system that Go runs on lacks the registers.)
func available() bool {
	const (
		ssse3 = 1 << 9  // leaf 1, ECX
		sha   = 1 << 29 // leaf 7, EBX
	)
	if last, _, _ := cpuid(0); last < 7 {
		return false
	}
	_, _, c := cpuid(1)
	_, b, _ := cpuid(7)
	return c&ssse3 != 0 && b&sha != 0
}

// What the assembly reads.
var (
	flip = [16]byte{3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12}

	// The first states (FIPS 180-4, 5.3), in the order of the registers.
	start1   = [8]uint32{0x10325476, 0x98badcfe, 0xefcdab89, 0x67452301, 0, 0, 0, 0xc3d2e1f0}
	start256 = [8]uint32{0x9b05688c, 0x510e527f, 0xbb67ae85, 0x6a09e667, 0x5be0cd19, 0x1f83d9ab, 0xa54ff53a, 0x3c6ef372}

	// The constants of SHA-256 (FIPS 180-4, 4.2.2).
	constants = [64]uint32{
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
		0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
		0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
		0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
		0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
		0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
		0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
	}
)
