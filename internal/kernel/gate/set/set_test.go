package set_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"
)

var header = set.Header{Generation: 1, Loaded: time.Unix(1_700_000_000, 1).UTC(), Mode: set.Enforce}

// digests returns n digests that are as good as random, the same each time.
func digests(t testing.TB, seed uint64, alg digest.Algorithm, n int) []digest.Digest {
	t.Helper()
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(alg)})
	list := make([]digest.Digest, n)
	b := make([]byte, alg.Size())
	for i := range list {
		r.Read(b)
		d, err := digest.New(alg, b)
		if err != nil {
			t.Fatal(err)
		}
		list[i] = d
	}
	return list
}

func build(t testing.TB, h set.Header, kind set.Kind, list ...digest.Digest) *set.Image {
	t.Helper()
	var b set.Builder
	for _, d := range list {
		if err := b.Add(kind, d); err != nil {
			t.Fatal(err)
		}
	}
	m, err := b.Build(h)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Every digest that was added is found, in its table alone, and none other; the
// image is no larger than it may be.
func TestHas(t *testing.T) {
	sizes := []int{0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 129, 500, 1000, 5999, 6000, 6001, 20_000, 100_000, 1_000_000}
	for _, alg := range []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512} {
		for i, n := range sizes {
			kind := set.Kind(i%3 + 1)
			all := digests(t, 1, alg, 2*n+100)
			in, out := all[:n], all[n:]
			m := build(t, header, kind, in...)
			if _, err := set.Parse(m.Bytes()); err != nil {
				t.Fatalf("%d digests of %s: %v", n, alg, err)
			}
			for _, d := range in {
				if !m.Has(kind, d) {
					t.Fatalf("%d digests: %s %s is not there", n, kind, d)
				}
			}
			for _, d := range out {
				if m.Has(kind, d) {
					t.Fatalf("%d digests: %s %s is there", n, kind, d)
				}
			}
		}
	}
}
