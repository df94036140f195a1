package set_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"
)

var algorithms = []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512}

// plain is a header without rules.
var plain = set.Header{Generation: 1, Loaded: time.Unix(1_700_000_000, 1).UTC(), Mode: set.Enforce}

// random returns n digests that are as good as random, the same for each seed.
func random(t testing.TB, seed uint64, alg digest.Algorithm, n int) []digest.Digest {
	t.Helper()
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(alg)})
	list := make([]digest.Digest, n)
	b := make([]byte, alg.Size())
	for i := range list {
		if _, err := r.Read(b); err != nil {
			t.Fatal(err)
		}
		list[i] = newDigest(t, alg, b)
	}
	return list
}

func newDigest(t testing.TB, alg digest.Algorithm, b []byte) digest.Digest {
	t.Helper()
	d, err := digest.New(alg, b)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func add(t testing.TB, b *set.Builder, kind set.Kind, list ...digest.Digest) {
	t.Helper()
	for _, d := range list {
		if err := b.Add(kind, d); err != nil {
			t.Fatal(err)
		}
	}
}

func build(t testing.TB, b *set.Builder, h set.Header) *set.Image {
	t.Helper()
	m, err := b.Build(h)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func parse(t testing.TB, b []byte) *set.Image {
	t.Helper()
	m, err := set.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// ceiling is how large the image of n digests in one table, without rules, may
// be: 36 bytes a digest, and for a set so small that it counts, the header and
// a bucket that is not full.
func ceiling(n int) int {
	if n >= 6000 {
		return 36 * n
	}
	return 36*n + 2*set.BlockSize
}

// Every digest that was added is found, and none other; the image is as small
// as promised.
func TestHas(t *testing.T) {
	sizes := []int{0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 129, 500, 1000, 5999, 6000, 6001, 50_000, 1_000_000}
	for _, alg := range algorithms {
		for i, n := range sizes {
			if n >= 1_000_000 && (alg != digest.SHA256 || testing.Short()) {
				continue
			}
			kind := set.Kind(i%2 + 1)
			all := random(t, uint64(i), alg, 2*n+100)
			in, out := all[:n], all[n:]
			var b set.Builder
			add(t, &b, kind, in...)
			m := build(t, &b, plain)
			if m.Digests() != n || len(m.Bytes()) > ceiling(n) {
				t.Errorf("%d digests of %s: there are %d, in %d bytes", n, alg, m.Digests(), len(m.Bytes()))
			}
			for _, m := range []*set.Image{m, parse(t, m.Bytes())} {
				for _, d := range in {
					if !m.Has(kind, d) || m.Has(3-kind, d) || m.Has(set.Parser, d) {
						t.Fatalf("%d digests: %s %s is not there, or is elsewhere too", n, kind, d)
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
}

// Sets of every small size can be built, from many digests each.
func TestSmallSets(t *testing.T) {
	for n := range 400 {
		for seed := range uint64(20) {
			var b set.Builder
			add(t, &b, set.Content, random(t, seed<<9|uint64(n), digest.SHA256, n)...)
			m := build(t, &b, plain)
			if len(m.Bytes()) > ceiling(n) {
				t.Errorf("seed %d: %d digests in %d bytes", seed, n, len(m.Bytes()))
			}
		}
	}
}

// member is a digest and what it is in the set as.
type member struct {
	kind set.Kind
	d    digest.Digest
}

// members returns a random choice of digests of all kinds and some algorithms,
// in up to eight tables.
func members(t testing.TB, r *rand.Rand) []member {
	t.Helper()
	var list []member
	for range 1 + r.IntN(6) {
		kind, alg := set.Kind(1+r.IntN(3)), algorithms[r.IntN(2)]
		for _, d := range random(t, r.Uint64(), alg, r.IntN(1+1<<r.IntN(12))) {
			list = append(list, member{kind, d})
		}
	}
	return list
}

func builderOf(t testing.TB, list []member) *set.Builder {
	t.Helper()
	var b set.Builder
	for _, m := range list {
		add(t, &b, m.kind, m.d)
	}
	return &b
}

// The bytes of an image come from what is in it alone: not from the order in
// which it was added, nor from how often, nor from whether it was a digest at a
// time, another image, or after an earlier Build.
func TestSameBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		list := members(t, r)
		want := build(t, builderOf(t, list), plain).Bytes()

		again := slices.Concat(list, list[:len(list)/2])
		r.Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
		if got := build(t, builderOf(t, again), plain).Bytes(); !bytes.Equal(got, want) {
			t.Fatalf("%d digests added in another order make another image", len(list))
		}

		cut, over := r.IntN(len(list)+1), r.IntN(len(list)+1)
		union := builderOf(t, list[:max(cut, over)])
		union.AddImage(build(t, builderOf(t, list[min(cut, over):]), plain))
		if got := build(t, union, plain).Bytes(); !bytes.Equal(got, want) {
			t.Fatalf("%d digests, from %d of them from an image, make another image", len(list), min(cut, over))
		}

		twice := builderOf(t, list[:cut])
		build(t, twice, plain)
		for _, m := range list[cut:] {
			add(t, twice, m.kind, m.d)
		}
		if got := build(t, twice, plain).Bytes(); !bytes.Equal(got, want) {
			t.Fatalf("%d digests, %d of them after a Build, make another image", len(list), len(list)-cut)
		}
	}
}

// Random sets are read back as what they were, tables and all.
func TestRandomSets(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		list := members(t, r)
		want := make(map[member]bool)
		for _, m := range list {
			want[m] = true
			if m.kind == set.Parser {
				want[member{set.Content, m.d}] = true
			}
		}
		h := randomHeader(r)
		made := build(t, builderOf(t, list), h)
		m := parse(t, bytes.Clone(made.Bytes()))
		if !reflect.DeepEqual(m.Header(), h) || !reflect.DeepEqual(made.Header(), h) {
			t.Fatalf("header %+v, made of %+v", m.Header(), h)
		}
		if m.Digests() != len(want) || !slices.Equal(m.Tables(), made.Tables()) {
			t.Fatalf("%d digests, want %d; tables %v, want %v", m.Digests(), len(want), m.Tables(), made.Tables())
		}
		for x := range want {
			for kind := set.Content; kind <= set.Parser; kind++ {
				if has := m.Has(kind, x.d); has != want[member{kind, x.d}] {
					t.Fatalf("%s %s: %v", kind, x.d, has)
				}
			}
		}
	}
}

func randomHeader(r *rand.Rand) set.Header {
	h := set.Header{
		Generation: 1 + r.Uint64N(9),
		Loaded:     time.Unix(0, r.Int64()).UTC(),
		Mode:       set.Mode(1 + r.IntN(2)),
		Lists:      r.Uint32(),
		Initramfs:  r.IntN(2) == 1,
		Anchor:     [32]byte{byte(r.Uint32())},
	}
	for range r.IntN(set.MaxRules + 1) {
		rule := set.Rule{Enforce: r.IntN(2) == 1}
		if r.IntN(2) == 1 {
			rule.Owner = new(r.Uint32N(2))
		}
		if r.IntN(2) == 1 {
			rule.FS = new(r.Uint64N(2))
		}
		if n := r.IntN(set.MaxPath); n > 0 {
			rule.Path = "/" + string(bytes.Repeat([]byte{'p'}, n))
		}
		h.Rules = append(h.Rules, rule)
	}
	return h
}

// Digests that differ behind their 32nd byte are one to the kernel, and here.
func TestLongDigests(t *testing.T) {
	a := random(t, 1, digest.SHA512, 1)[0]
	bytes := a.Bytes()
	bytes[32] ^= 1
	b := newDigest(t, digest.SHA512, bytes)
	var builder set.Builder
	add(t, &builder, set.Content, a, b)
	if m := build(t, &builder, plain); m.Digests() != 1 || !m.Has(set.Content, a) || !m.Has(set.Content, b) {
		t.Errorf("%d digests", m.Digests())
	}
}

func TestRefusedDigests(t *testing.T) {
	zeros := make([]byte, digest.MaxSize)
	tail := append(make([]byte, 32), bytes.Repeat([]byte{1}, 32)...)
	d := random(t, 1, digest.SHA256, 1)[0]
	for name, x := range map[string]member{
		"no digest":              {set.Content, digest.Digest{}},
		"no kind":                {0, d},
		"unknown kind":           {4, d},
		"all zero":               {set.Content, newDigest(t, digest.SHA256, zeros[:32])},
		"all zero, short":        {set.Content, newDigest(t, digest.SHA1, zeros[:20])},
		"zero as far as it goes": {set.Content, newDigest(t, digest.SHA512, tail)},
	} {
		var b set.Builder
		if err := b.Add(x.kind, x.d); err == nil {
			t.Errorf("%s: added", name)
		}
		if m := build(t, &b, plain); m.Digests() != 0 || m.Has(x.kind, x.d) {
			t.Errorf("%s: in the set", name)
		}
	}
}

func TestTooManyTables(t *testing.T) {
	var b set.Builder
	for alg := digest.MD5; alg < digest.MD5+set.MaxTables; alg++ {
		add(t, &b, set.Content, random(t, 1, alg, 3)...)
	}
	if m := build(t, &b, plain); len(m.Tables()) != set.MaxTables {
		t.Errorf("%d tables", len(m.Tables()))
	}
	add(t, &b, set.Verity, random(t, 1, digest.SHA256, 3)...)
	if _, err := b.Build(plain); err == nil {
		t.Error("one table too many is built")
	}
}

// alike returns n digests that are random but for the leading bits of both
// numbers that choose their buckets, which are ones: they come last of all.
func alike(t testing.TB, n, bits int) []digest.Digest {
	t.Helper()
	list := random(t, uint64(bits), digest.SHA256, n)
	for i, d := range list {
		b := d.Bytes()
		for bit := range bits {
			for _, word := range []int{0, 4} {
				b[word+3-bit/8] |= 0x80 >> (bit % 8)
			}
		}
		list[i] = newDigest(t, digest.SHA256, b)
	}
	return list
}

// Digests made to fall into the same buckets are an error, soon. As many as
// two buckets hold are none.
func TestAdversary(t *testing.T) {
	others := random(t, 99, digest.SHA256, 100_000)
	for _, c := range []struct {
		n, bits int
		fits    bool
	}{
		{8, 32, true},
		{9, 32, false}, // both choices are the same bucket
		{10_000, 32, false},
		{10_000, 16, false},
		{8, 18, true},
		{17, 18, false},
	} {
		var b set.Builder
		add(t, &b, set.Content, others...)
		add(t, &b, set.Content, alike(t, c.n, c.bits)...)
		start := time.Now()
		m, err := b.Build(plain)
		took := time.Since(start)
		if (err == nil) != c.fits {
			t.Errorf("%d digests alike in %d bits: %v", c.n, c.bits, err)
		}
		if err == nil && m.Digests() != len(others)+c.n {
			t.Errorf("%d digests", m.Digests())
		}
		if took > 30*time.Second {
			t.Errorf("%d digests alike in %d bits took %v", c.n, c.bits, took)
		}
		t.Logf("%d digests alike in %d bits: %v, %v", c.n, c.bits, took, err)
	}

	// Two buckets, each the first choice of some: 16 digests.
	var b set.Builder
	for i, d := range random(t, 7, digest.SHA256, 16) {
		copy := d.Bytes()
		for at := range 8 {
			copy[at] = 0
		}
		copy[4*(i%2)+3] = 0xff
		add(t, &b, set.Content, newDigest(t, digest.SHA256, copy))
	}
	if m := build(t, &b, plain); m.Digests() != 16 || len(m.Bytes()) != 4*set.BlockSize {
		t.Errorf("%d digests in %d bytes", m.Digests(), len(m.Bytes()))
	}
}

func TestRefusedHeaders(t *testing.T) {
	rule := func(path string) func(*set.Header) {
		return func(h *set.Header) { h.Rules = []set.Rule{{}, {Path: path}} }
	}
	for name, change := range map[string]func(*set.Header){
		"generation 0":   func(h *set.Header) { h.Generation = 0 },
		"no time":        func(h *set.Header) { h.Loaded = time.Time{} },
		"before 1970":    func(h *set.Header) { h.Loaded = time.Unix(0, -1) },
		"after 2262":     func(h *set.Header) { h.Loaded = time.Unix(1<<34, 0) },
		"no mode":        func(h *set.Header) { h.Mode = 0 },
		"mode 3":         func(h *set.Header) { h.Mode = 3 },
		"33 rules":       func(h *set.Header) { h.Rules = make([]set.Rule, set.MaxRules+1) },
		"the root":       rule("/"),
		"relative":       rule("usr"),
		"trailing slash": rule("/usr/"),
		"dots":           rule("/usr/../etc"),
		"two slashes":    rule("/usr//local"),
		"a zero byte":    rule("/usr\x00"),
		"long path":      rule("/" + string(bytes.Repeat([]byte{'p'}, set.MaxPath))),
	} {
		h := plain
		change(&h)
		if _, err := new(set.Builder).Build(h); err == nil {
			t.Errorf("%s: built", name)
		}
	}
}

func TestNames(t *testing.T) {
	for _, m := range []set.Mode{set.Log, set.Enforce} {
		if got, err := set.ParseMode(m.String()); err != nil || got != m {
			t.Errorf("%s: %s, %v", m, got, err)
		}
	}
	for _, s := range []string{"", "mode(0)", "Log"} {
		if m, err := set.ParseMode(s); err == nil {
			t.Errorf("%q is %s", s, m)
		}
	}
	if got := fmt.Sprint(set.Content, set.Verity, set.Parser, set.Kind(4), set.Mode(3)); got != "content verity parser kind(4) mode(3)" {
		t.Error(got)
	}
}
