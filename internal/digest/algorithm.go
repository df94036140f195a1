package digest

import (
	"crypto"
	_ "crypto/md5" // the imports register what they implement; SHA-1 and SHA-2 are used
	_ "crypto/sha3"
	"fmt"
	"hash"
)

// An Algorithm is a hash algorithm. The zero value is none. Algorithms sort by
// their kernel number.
type Algorithm uint8

// The algorithms that the kernel's enum hash_algo numbers
// (include/uapi/linux/hash_info.h).
const (
	MD4 Algorithm = iota + 1
	MD5
	SHA1
	RIPEMD160
	SHA256
	SHA384
	SHA512
	SHA224
	RIPEMD128
	RIPEMD256
	RIPEMD320
	WP256
	WP384
	WP512
	TGR128
	TGR160
	TGR192
	SM3
	Streebog256
	Streebog512
	SHA3_256
	SHA3_384
	SHA3_512
)

// table has one row an algorithm, in the order of the kernel's numbers. A 0 in
// the TPM column (TCG Algorithm Registry, TPM_ALG_ID) or the OpenPGP column
// (RFC 9580 section 9.5) means that there is no such number there.
var table = [...]struct {
	name    string // as kernel interfaces spell it
	size    int
	tpm     uint16
	openpgp uint8
	hash    crypto.Hash
}{
	{"md4", 16, 0, 0, 0},
	{"md5", 16, 0, 1, crypto.MD5},
	{"sha1", 20, 0x0004, 2, crypto.SHA1},
	{"rmd160", 20, 0, 3, 0},
	{"sha256", 32, 0x000b, 8, crypto.SHA256},
	{"sha384", 48, 0x000c, 9, crypto.SHA384},
	{"sha512", 64, 0x000d, 10, crypto.SHA512},
	{"sha224", 28, 0, 11, crypto.SHA224},
	{"rmd128", 16, 0, 0, 0},
	{"rmd256", 32, 0, 0, 0},
	{"rmd320", 40, 0, 0, 0},
	{"wp256", 32, 0, 0, 0},
	{"wp384", 48, 0, 0, 0},
	{"wp512", 64, 0, 0, 0},
	{"tgr128", 16, 0, 0, 0},
	{"tgr160", 20, 0, 0, 0},
	{"tgr192", 24, 0, 0, 0},
	{"sm3", 32, 0x0012, 0, 0},
	{"streebog256", 32, 0, 0, 0},
	{"streebog512", 64, 0, 0, 0},
	{"sha3-256", 32, 0x0027, 12, crypto.SHA3_256},
	{"sha3-384", 48, 0x0028, 0, crypto.SHA3_384},
	{"sha3-512", 64, 0x0029, 14, crypto.SHA3_512},
}

// Valid reports whether a is in the table.
func (a Algorithm) Valid() bool { return a != 0 && int(a) <= len(table) }

// String returns the kernel's name of the algorithm.
func (a Algorithm) String() string {
	if !a.Valid() {
		return fmt.Sprintf("algorithm(%d)", uint8(a))
	}
	return table[a-1].name
}

// Size returns the digest size in bytes; 0 for an algorithm that is not Valid.
func (a Algorithm) Size() int {
	if !a.Valid() {
		return 0
	}
	return table[a-1].size
}

// Available reports whether this program can compute the algorithm.
func (a Algorithm) Available() bool { return a.Valid() && table[a-1].hash.Available() }

// Crypto returns the standard library's number, 0 if it has none.
func (a Algorithm) Crypto() crypto.Hash {
	if !a.Valid() {
		return 0
	}
	return table[a-1].hash
}

// Hash returns a new running hash. The algorithm must be Available.
func (a Algorithm) Hash() hash.Hash { return a.Crypto().New() }

// Kernel returns the number in the kernel's enum hash_algo.
func (a Algorithm) Kernel() uint16 { return uint16(a) - 1 }

// TPM returns the TPM_ALG_ID, and whether there is one.
func (a Algorithm) TPM() (uint16, bool) {
	if !a.Valid() || table[a-1].tpm == 0 {
		return 0, false
	}
	return table[a-1].tpm, true
}

// ByKernel finds an algorithm by its number in the kernel's enum hash_algo.
func ByKernel(n uint16) (Algorithm, error) {
	if int(n) >= len(table) {
		return 0, fmt.Errorf("unknown kernel hash algorithm %d", n)
	}
	return Algorithm(n + 1), nil
}

// ByTPM finds an algorithm by its TPM_ALG_ID.
func ByTPM(id uint16) (Algorithm, error) {
	for i, row := range table {
		if row.tpm == id && id != 0 {
			return Algorithm(i + 1), nil
		}
	}
	return 0, fmt.Errorf("unknown TPM hash algorithm %#04x", id)
}

// ByOpenPGP finds an algorithm by its number in OpenPGP.
func ByOpenPGP(n uint8) (Algorithm, error) {
	for i, row := range table {
		if row.openpgp == n && n != 0 {
			return Algorithm(i + 1), nil
		}
	}
	return 0, fmt.Errorf("unknown OpenPGP hash algorithm %d", n)
}

// ByName finds an algorithm by the kernel's name; also "sm3-256", as older
// kernels spell sm3.
func ByName(name string) (Algorithm, error) {
	if name == "sm3-256" {
		return SM3, nil
	}
	for i, row := range table {
		if row.name == name {
			return Algorithm(i + 1), nil
		}
	}
	return 0, fmt.Errorf("unknown hash algorithm %q", name)
}
