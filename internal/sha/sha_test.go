package sha

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"testing"
)

// check compares with the standard library, by assembly if there is any and
// without.
func check(t *testing.T, data []byte) {
	t.Helper()
	defer func(was bool) { fast = was }(fast)
	for _, fast = range []bool{fast, false} {
		// What is behind a sum belongs to somebody else.
		guard := [16]byte(bytes.Repeat([]byte{0xff}, 16))
		got := struct {
			sum1   [sha1.Size]byte
			guard1 [16]byte
			both   [sha256.Size]byte
			guard2 [16]byte
			alone  [sha256.Size]byte
			guard3 [16]byte
		}{guard1: guard, guard2: guard, guard3: guard}
		Sums(&got.sum1, &got.both, data)
		Sum256(&got.alone, data)
		if got.sum1 != sha1.Sum(data) || got.both != sha256.Sum256(data) || got.alone != got.both {
			t.Fatalf("fast %v, %d bytes: sha1 %x, sha256 %x, %x", fast, len(data), got.sum1, got.both, got.alone)
		}
		if got.guard1 != guard || got.guard2 != guard || got.guard3 != guard {
			t.Fatalf("fast %v, %d bytes: written behind a sum", fast, len(data))
		}
	}
}

func TestAllLengths(t *testing.T) {
	data := make([]byte, 5*blockSize+1)
	for i := range data {
		data[i] = byte(i * 167)
	}
	for n := range data {
		for at := range min(16, len(data)-n) { // however it lies in memory
			check(t, data[at:at+n:at+n])
		}
	}
	for _, n := range []int{short - 1, short, short + 1} {
		check(t, bytes.Repeat([]byte{0xa5}, n))
	}
	check(t, nil)
}

// A million sums, each of what the last ones were.
func TestChain(t *testing.T) {
	var data, want [sha1.Size + sha256.Size]byte
	for range 1 << 20 {
		Sums((*[sha1.Size]byte)(data[:]), (*[sha256.Size]byte)(data[sha1.Size:]), bytes.Clone(data[:]))
		*(*[sha1.Size]byte)(want[:]), *(*[sha256.Size]byte)(want[sha1.Size:]) = sha1.Sum(want[:]), sha256.Sum256(want[:])
	}
	if data != want {
		t.Errorf("%x, want %x", data, want)
	}
}

// A PCR is extended in place.
func TestSumOverItsData(t *testing.T) {
	var data [2 * sha256.Size]byte
	for range 100 {
		want := sha256.Sum256(data[:])
		Sum256((*[sha256.Size]byte)(data[:]), data[:])
		if [sha256.Size]byte(data[:]) != want {
			t.Fatalf("%x, want %x", data, want)
		}
	}
}

func FuzzSums(f *testing.F) {
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) { check(t, data) })
}

func BenchmarkSums(b *testing.B) {
	data := make([]byte, 80) // of an entry of an IMA log
	var sum1 [sha1.Size]byte
	var sum256 [sha256.Size]byte
	b.Run("both", func(b *testing.B) {
		for b.Loop() {
			Sums(&sum1, &sum256, data)
		}
	})
	b.Run("crypto, both", func(b *testing.B) {
		for b.Loop() {
			sum1, sum256 = sha1.Sum(data), sha256.Sum256(data)
		}
	})
	b.Run("SHA-256", func(b *testing.B) {
		for b.Loop() {
			Sum256(&sum256, data)
		}
	})
	b.Run("crypto, SHA-256", func(b *testing.B) {
		for b.Loop() {
			sum256 = sha256.Sum256(data)
		}
	})
}
