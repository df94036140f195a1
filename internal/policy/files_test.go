package policy

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"diglim/internal/digest"
)

func numbered(alg digest.Algorithm, i int) digest.Digest {
	return digest.Sum(alg, binary.LittleEndian.AppendUint64(nil, uint64(i)))
}

func TestNoFiles(t *testing.T) {
	var f Files
	d := numbered(digest.SHA256, 0)
	f.Add(digest.Digest{}, Source{})
	for range 2 {
		if f.Find(d) != nil || f.Find(digest.Digest{}) != nil || f.Knows(d, nil) || f.Knows(digest.Digest{}, nil) || len(f.Some(d, nil, 1)) != 0 {
			t.Error("a file is known that was not added")
		}
		md5, unknown := numbered(digest.MD5, 0), digest.Digest{}
		for _, d := range []*digest.Digest{&d, &md5, &unknown} {
			q := []Query{{Digest: d, Known: true}}
			if f.KnowAll(q); q[0].Known {
				t.Errorf("%s is known", d)
			}
		}
		if f.Len() > 1 {
			t.Errorf("%d digests", f.Len())
		}
		f.Add(numbered(digest.SHA1, 0), Source{})
	}
}

// The set and a map of Go are told the same, and say the same.
func TestFilesAreAsAdded(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	algs := []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512}
	long := strings.Repeat("n", maxName)
	paths := []string{"", "/", "name", "/usr/bin/", "/usr/bin/bash", "/usr/lib/bash", "/usr/" + long, "/usr/" + long + "n", "/a\x00b/c\x00d", "\xff"}
	var f Files
	want := map[digest.Digest][]Source{}
	for i := range 3 * chunkLen {
		d := numbered(algs[random.IntN(len(algs))], random.IntN(2*chunkLen))
		if i%16 == 0 {
			d = numbered(digest.SHA256, i%3) // of very many sources
		}
		s := Source{Package: fmt.Sprint("package ", i/100), Path: paths[random.IntN(len(paths))], There: random.IntN(8) == 0}
		if random.IntN(4) > 0 {
			s.Path += fmt.Sprint(i)
		}
		f.Add(d, s)
		want[d] = append(want[d], s)
	}
	if f.Len() != len(want) {
		t.Errorf("%d digests, want %d", f.Len(), len(want))
	}
	none := numbered(digest.SHA256, -1)
	for d, sources := range want {
		if got := f.Find(d); !slices.Equal(got, sources) {
			t.Fatalf("%s: %+v, want %+v", d, got, sources)
		}
		for _, path := range []string{"/usr/bin/bash", sources[0].Path} {
			var few []Source
			for _, s := range sources {
				if !s.There || s.Path == path {
					few = append(few, s)
				}
			}
			if f.Knows(d, []byte(path)) != (len(few) > 0) {
				t.Fatalf("%s at %q: known %v by %+v", d, path, len(few) == 0, few)
			}
			q := []Query{{Digest: &d, Path: []byte(path)}, {Digest: &none, Path: []byte(path), Known: true}, {Digest: &d, Path: []byte(path), Known: true}}
			if f.KnowAll(q); q[0].Known != (len(few) > 0) || q[1].Known || q[2].Known != q[0].Known {
				t.Fatalf("%s at %q: %+v, known by %+v", d, path, q, few)
			}
			slices.SortStableFunc(few, func(a, b Source) int {
				switch {
				case a.Path == path && b.Path != path:
					return -1
				case a.Path != path && b.Path == path:
					return 1
				}
				return 0
			})
			few = few[:min(len(few), 5)]
			if got := f.Some(d, []byte(path), 5); !slices.Equal(got, few) {
				t.Fatalf("%s at %q: %+v, want %+v", d, path, got, few)
			}
		}
	}
	for i := range chunkLen {
		if d := numbered(digest.SHA256, -1-i); f.Knows(d, nil) {
			t.Fatalf("%s is known", d)
		}
	}
	at := map[digest.Digest][]Source{}
	for d, s := range f.At(func([]byte) bool { return true }) {
		at[d] = append(at[d], s)
	}
	if !reflect.DeepEqual(at, want) {
		t.Error("At of all paths is not what was added")
	}
	for _, s := range f.At(func(path []byte) bool { return string(path) == "/usr/bin/bash" }) {
		if s.Path != "/usr/bin/bash" {
			t.Fatalf("At(/usr/bin/bash) yields %+v", s)
		}
	}
}

// Values that differ in their last bit only are different, and so are the same
// bytes of two algorithms.
func TestNearbyDigests(t *testing.T) {
	var f Files
	for i := range 256 {
		b := make([]byte, 32)
		b[i/8] = 1 << (i % 8)
		d, _ := digest.New(digest.SHA256, b)
		if f.Knows(d, nil) {
			t.Fatalf("%s is known", d)
		}
		f.Add(d, Source{})
		if other, _ := digest.New(digest.SM3, b); f.Knows(other, nil) {
			t.Fatalf("%s is known", other)
		}
	}
	if f.Len() != 256 {
		t.Errorf("%d digests", f.Len())
	}
}

// A set takes as much as Files says, right before and after its index grew.
func TestFilesMemory(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const full = 3 << 16 // digests in 1<<18 slots
	for n, most := range map[int]uint64{full: 62, full + 1: 73} {
		var f Files
		before := heap()
		for i := range n {
			f.Add(numbered(digest.SHA256, i), Source{Package: "package", List: "list"})
		}
		if took := (heap() - before) / uint64(n); took > most {
			t.Errorf("%d digests take %d bytes each, the limit is %d", n, took, most)
		}
		if f.Len() != n {
			t.Errorf("%d digests, want %d", f.Len(), n)
		}
	}
}
