// Digestset compares the gate's digest set with a map of Go and with a hash map
// of BPF: the time to make them, the memory they take, and the time to find a
// digest in them. It prints ratios: absolute figures depend on the machine.
//
//	go run ./bench/digestset
//
// What needs bpf(2), and with it root, is left out where that is not permitted,
// and named. Lookups from a BPF program are not measured here.
package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// rounds is how often each contender runs; the median counts.
const rounds = 5

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
}

func run(w io.Writer) error {
	for _, n := range []int{6_000, 100_000, 1_000_000} {
		if err := compare(w, n); err != nil {
			return err
		}
	}
	return nil
}

// A key is what both sides' maps have for a digest.
type key = [32]byte

// A contender makes a set of some digests, which come in both forms.
type contender struct {
	name string
	make func([]digest.Digest, []key) (made, error)
}

// made is what a contender made.
type made struct {
	bytes uint64           // of memory, as the kernel accounts for it; 0 if they are on the heap
	has   func(i int) bool // looks a digest up by its index; nil if that cannot be done from here
	close func() error
}

// figures are what one run of a contender showed.
type figures struct {
	ms            float64 // until it is made
	bytes         float64 // a digest
	found, missed float64 // ns a lookup, 0 if not measured
}

func compare(w io.Writer, n int) error {
	all, keys := random(2 * n)
	image, err := build(all[:n])
	if err != nil {
		return err
	}
	contenders := []contender{
		{"the set: added and built", ours},
		{"map[[32]byte]struct{}", goMap},
		{"the set's image into a BPF array, frozen", bpfArray(image)},
		{"BPF hash map, in batches", bpfHash(0)},
		{"BPF hash map, in batches, not preallocated", bpfHash(unix.BPF_F_NO_PREALLOC)},
	}
	order := rand.New(rand.NewPCG(1, 1)).Perm(n)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "%d digests\tmade in ms\tratio\tbytes a digest\tratio\tfound in ns\tratio\tnot found\tratio\t\n", n)
	var first figures
	var left []string
	for i, c := range contenders {
		f, err := measure(c, all, keys, order)
		if errors.Is(err, unix.EPERM) {
			left = append(left, fmt.Sprintf("left out: %s: %v", c.name, err))
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if i == 0 {
			first = f
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t\n", c.name, cell(f.ms, first.ms), cell(f.bytes, first.bytes),
			cell(f.found, first.found), cell(f.missed, first.missed))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, line := range append(left, "") {
		fmt.Fprintln(w, line)
	}
	return nil
}

func cell(v, first float64) string {
	if v == 0 {
		return "\t"
	}
	return fmt.Sprintf("%.1f\t%.2f", v, v/first)
}

// random returns digests that are as good as those of files; the first half is
// put into the sets.
func random(n int) ([]digest.Digest, []key) {
	all, keys := make([]digest.Digest, n), make([]key, n)
	for i := range all {
		all[i] = digest.Sum(digest.SHA256, fmt.Append(nil, i))
		all[i].Append(keys[i][:0])
	}
	return all, keys
}

// measure runs a contender some times over, and takes the median of each figure.
func measure(c contender, all []digest.Digest, keys []key, order []int) (figures, error) {
	n := len(order)
	var times, bytes, found, missed []float64
	for range rounds {
		before := heap()
		start := time.Now()
		m, err := c.make(all, keys)
		if err != nil {
			return figures{}, err
		}
		times = append(times, float64(time.Since(start))/float64(time.Millisecond))
		if m.bytes == 0 {
			m.bytes = heap() - before
		}
		bytes = append(bytes, float64(m.bytes)/float64(n))
		if m.has != nil {
			f, err := lookups(m, order, 0)
			if err != nil {
				return figures{}, err
			}
			g, err := lookups(m, order, n)
			if err != nil {
				return figures{}, err
			}
			found, missed = append(found, f), append(missed, g)
		}
		if err := m.close(); err != nil {
			return figures{}, err
		}
	}
	return figures{median(times), median(bytes), median(found), median(missed)}, nil
}

// heap returns the bytes that are in use on Go's heap.
func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// lookups looks up as many digests as there are in the set, from one on, in a
// random order; the first half of all are in it. It returns nanoseconds each.
func lookups(m made, order []int, from int) (float64, error) {
	start := time.Now()
	for _, i := range order {
		if m.has(from+i) != (from == 0) {
			return 0, fmt.Errorf("digest %d is or is not in the set", from+i)
		}
	}
	return float64(time.Since(start)) / float64(len(order)), nil
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func build(digests []digest.Digest) (*set.Image, error) {
	var b set.Builder
	for _, d := range digests {
		if err := b.Add(set.Content, d); err != nil {
			return nil, err
		}
	}
	return b.Build(set.Header{Generation: 1, Loaded: time.Now(), Mode: set.Enforce})
}

func ours(all []digest.Digest, _ []key) (made, error) {
	m, err := build(all[:len(all)/2])
	if err != nil {
		return made{}, err
	}
	return made{
		bytes: uint64(len(m.Bytes())),
		has:   func(i int) bool { return m.Has(set.Content, all[i]) },
		close: func() error { return nil },
	}, nil
}

func goMap(_ []digest.Digest, keys []key) (made, error) {
	m := make(map[key]struct{})
	for _, k := range keys[:len(keys)/2] {
		m[k] = struct{}{}
	}
	return made{
		has:   func(i int) bool { _, ok := m[keys[i]]; return ok },
		close: func() error { return nil },
	}, nil
}

// bpfArray hands an image to the kernel, as the gate does.
func bpfArray(image *set.Image) func([]digest.Digest, []key) (made, error) {
	return func([]digest.Digest, []key) (made, error) {
		b := image.Bytes()
		m, err := ebpf.NewMap(&ebpf.MapSpec{
			Type:       ebpf.Array,
			KeySize:    4,
			ValueSize:  set.BlockSize,
			MaxEntries: uint32(len(b) / set.BlockSize),
			Flags:      unix.BPF_F_MMAPABLE | unix.BPF_F_INNER_MAP,
		})
		if err != nil {
			return made{}, err
		}
		values, err := unix.Mmap(m.FD(), 0, len(b), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return made{}, err
		}
		copy(values, b)
		if err := unix.Munmap(values); err != nil {
			return made{}, err
		}
		if err := m.Freeze(); err != nil {
			return made{}, err
		}
		return ofKernel(m)
	}
}

// bpfHash puts the digests into a hash map.
func bpfHash(flags uint32) func([]digest.Digest, []key) (made, error) {
	return func(_ []digest.Digest, keys []key) (made, error) {
		keys = keys[:len(keys)/2]
		m, err := ebpf.NewMap(&ebpf.MapSpec{
			Type:       ebpf.Hash,
			KeySize:    uint32(len(key{})),
			ValueSize:  1,
			MaxEntries: uint32(len(keys)),
			Flags:      flags,
		})
		if err != nil {
			return made{}, err
		}
		values := make([]uint8, len(keys))
		if _, err := m.BatchUpdate(keys, values, nil); err != nil {
			return made{}, err
		}
		return ofKernel(m)
	}
}

// ofKernel says what the kernel accounts for a map.
func ofKernel(m *ebpf.Map) (made, error) {
	info, err := m.Info()
	if err != nil {
		return made{}, err
	}
	bytes, ok := info.Memlock()
	if !ok {
		return made{}, errors.New("the kernel does not say what the map takes")
	}
	return made{bytes: bytes, close: m.Close}, nil
}
