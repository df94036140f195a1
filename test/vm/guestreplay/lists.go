package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// Types of digests and numbers of algorithms in a list.
const (
	parser   = 0
	file     = 1
	metadata = 2

	md5         = 1
	sha1        = 2
	sha256ID    = 4
	sha512      = 6
	sm3         = 17
	streebog256 = 18
)

// digestSize is the size of a digest by algorithm. What comes after the last
// algorithm of DIGLIM v3 was recorded with 32 bytes.
func digestSize(algo int) int {
	sizes := []int{16, 16, 20, 20, 32, 48, 64, 28, 16, 32, 40, 32, 48, 64, 16, 20, 24, 32, 32, 64}
	if algo < len(sizes) {
		return sizes[algo]
	}
	return 32
}

// abc is the SHA-256 digest of "abc".
var abc = sha256.Sum256([]byte("abc"))

// digest returns the nth digest of the recording, in the size of the algorithm.
func digest(algo, n int) []byte {
	d := sha256.Sum256([]byte(fmt.Sprintf("digest %d", n)))
	next := sha256.Sum256(d[:])
	return append(d[:], next[:]...)[:digestSize(algo)]
}

// header returns the header of a block with any numbers in it.
func header(version, reserved byte, typ, modifiers, algo uint16, count, datalen uint32) []byte {
	b := []byte{version, reserved}
	b = binary.LittleEndian.AppendUint16(b, typ)
	b = binary.LittleEndian.AppendUint16(b, modifiers)
	b = binary.LittleEndian.AppendUint16(b, algo)
	b = binary.LittleEndian.AppendUint32(b, count)
	return binary.LittleEndian.AppendUint32(b, datalen)
}

// block returns a well-formed block.
func block(typ, modifiers, algo int, digests ...[]byte) []byte {
	data := slices.Concat(digests...)
	return append(header(1, 0, uint16(typ), uint16(modifiers), uint16(algo), uint32(len(digests)), uint32(len(data))), data...)
}

// The lists that many cases use.
var (
	listL     = block(file, 1, sha256ID, abc[:])
	listM     = block(file, 1, sha256ID, digest(sha256ID, 1))
	listB     = block(file, 0, sha256ID, digest(sha256ID, 1))
	pathList  = block(file, 0, sha256ID, digest(sha256ID, 100), digest(sha256ID, 101))
	otherList = block(file, 0, sha256ID, digest(sha256ID, 9000))
	thirdList = block(file, 0, sha256ID, digest(sha256ID, 9001))
)

// signature is what stands for one between a list and its trailer.
var signature = slices.Repeat([]byte{'S'}, 100)

// trailer returns the end of a file with an appended signature of size sigLen.
func trailer(sigLen uint32) []byte {
	b := make([]byte, 8) // algo, hash, id_type, signer_len, key_id_len, pad
	b = binary.BigEndian.AppendUint32(b, sigLen)
	return append(b, "~Module signature appended~\n"...)
}
