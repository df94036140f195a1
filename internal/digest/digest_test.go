package digest

import (
	"encoding/json"
	"strings"
	"testing"
)

const abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

func TestSumPrintsItsAlgorithm(t *testing.T) {
	d := Sum(SHA256, []byte("a"), []byte("bc"))
	if d.String() != abc {
		t.Errorf("Sum = %s", d)
	}
	if back, err := Parse(abc); err != nil || back != d {
		t.Errorf("Parse = %v, %v", back, err)
	}
}

// The numbers are fixed by others: formats.md 1.2 (kernel), the TCG algorithm
// registry and RFC 9580.
func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		alg     Algorithm
		name    string
		size    int
		kernel  uint16
		tpm     uint16
		openpgp uint8
	}{
		{MD5, "md5", 16, 1, 0, 1},
		{SHA1, "sha1", 20, 2, 4, 2},
		{RIPEMD160, "rmd160", 20, 3, 0, 3},
		{SHA256, "sha256", 32, 4, 0xb, 8},
		{SHA384, "sha384", 48, 5, 0xc, 9},
		{SHA512, "sha512", 64, 6, 0xd, 10},
		{SHA224, "sha224", 28, 7, 0, 11},
		{SM3, "sm3", 32, 17, 0x12, 0},
		{Streebog512, "streebog512", 64, 19, 0, 0},
		{SHA3_256, "sha3-256", 32, 20, 0x27, 12},
		{SHA3_512, "sha3-512", 64, 22, 0x29, 14},
	} {
		if c.alg.String() != c.name || c.alg.Size() != c.size || c.alg.Kernel() != c.kernel {
			t.Errorf("%s: size %d, kernel %d", c.alg, c.alg.Size(), c.alg.Kernel())
		}
		if a, err := ByKernel(c.kernel); a != c.alg || err != nil {
			t.Errorf("ByKernel(%d) = %v, %v", c.kernel, a, err)
		}
		if a, err := ByName(c.name); a != c.alg || err != nil {
			t.Errorf("ByName(%s) = %v, %v", c.name, a, err)
		}
		if a, err := ByTPM(c.tpm); (c.tpm != 0) != (err == nil) || (err == nil && a != c.alg) {
			t.Errorf("ByTPM(%#x) = %v, %v", c.tpm, a, err)
		}
		if a, err := ByOpenPGP(c.openpgp); (c.openpgp != 0) != (err == nil) || (err == nil && a != c.alg) {
			t.Errorf("ByOpenPGP(%d) = %v, %v", c.openpgp, a, err)
		}
	}
	for i := range table {
		a := Algorithm(i + 1)
		if a.Available() && a.Hash().Size() != a.Size() {
			t.Errorf("%s: computed size %d, table %d", a, a.Hash().Size(), a.Size())
		}
	}
	if _, err := ByKernel(uint16(len(table))); err == nil {
		t.Error("a kernel number past the table is accepted")
	}
}

// A digest that was another one is the same as a new one.
func TestSetInPlace(t *testing.T) {
	algs := []Algorithm{SHA512, SHA1, SHA256, SHA256, MD5, SHA384, SHA1}
	var set, sum Digest
	for _, alg := range algs {
		want := Sum(alg, []byte("a"), []byte("bc"))
		sum.SetSum(alg, []byte("abc"))
		if err := set.Set(alg, want.Bytes()); err != nil || set != want || sum != want {
			t.Errorf("%s: %s, %s, %v", want, set, sum, err)
		}
		if b := want.Bytes(); !set.Is(b) || set.Is(b[1:]) || set.Is(nil) {
			t.Errorf("%s is not its bytes, or others", set)
		}
	}
	if err := set.Set(SHA256, make([]byte, 20)); err == nil || !set.IsZero() {
		t.Errorf("a sha256 digest of 20 bytes is %s", set)
	}
}

// What is made in place or two at a time is what is made alone.
func TestSumsAndExtend(t *testing.T) {
	var d, e Digest
	for _, alg := range []Algorithm{SHA1, SHA256, SHA384, SHA512, MD5} {
		for _, other := range []Algorithm{SHA512, SHA256, SHA1} {
			data := []byte(alg.String() + other.String())
			SetSums(&d, alg, &e, other, data)
			if d != Sum(alg, data) || e != Sum(other, data) {
				t.Errorf("%s and %s: %s, %s", alg, other, d, e)
			}
			want := Sum(alg, d.Bytes(), e.Bytes())
			if !d.Equal(&d) || d.Equal(&e) != (d == e) || d.Equal(&want) || d.Equal(&Digest{}) {
				t.Errorf("%s: not equal to what it is, or to something else", d)
			}
			if d.Extend(&e); d != want {
				t.Errorf("%s extended by %s is %s, want %s", alg, other, d, want)
			}
		}
	}
}

// Equal bytes under another algorithm are another digest (attacks.md row 33).
func TestAlgorithmIsPartOfTheValue(t *testing.T) {
	b := make([]byte, 32)
	x, _ := New(SHA256, b)
	y, _ := New(SM3, b)
	if x == y || x.Compare(y) >= 0 || y.Compare(x) <= 0 {
		t.Error("sha256 and sm3 of the same bytes are equal")
	}
	if z, _ := New(SHA256, b); z == (Digest{}) {
		t.Error("a digest of zeros is the zero Digest")
	}
}

func TestRefusals(t *testing.T) {
	for _, s := range []string{"", "sha256", "sha256:", "sha256:00", abc + "00", strings.Replace(abc, "ba", "bx", 1), "sha257" + abc[6:], ":" + abc[7:]} {
		if d, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %v", s, d)
		}
	}
	if _, err := New(0, nil); err == nil {
		t.Error("a digest without an algorithm is made")
	}
	if _, err := New(SHA1, make([]byte, 32)); err == nil {
		t.Error("a sha1 digest of 32 bytes is made")
	}
}

func TestJSON(t *testing.T) {
	d, _ := Parse(abc)
	b, err := json.Marshal(d)
	if err != nil || string(b) != `"`+abc+`"` {
		t.Errorf("%s, %v", b, err)
	}
	var e Digest
	if err := json.Unmarshal(b, &e); err != nil || e != d {
		t.Errorf("%v, %v", e, err)
	}
}

// A sum in one piece is the sum in several.
func TestSumOfPieces(t *testing.T) {
	for alg := MD4; alg.Valid(); alg++ {
		if alg.Available() && Sum(alg, []byte("abc")) != Sum(alg, []byte("a"), []byte("bc")) {
			t.Errorf("%s: %s", alg, Sum(alg, []byte("abc")))
		}
	}
}
