package set

import (
	"bytes"
	"cmp"
	"math/bits"
	"slices"
)

// A pile is keys that grow in number without being moved, until they are sorted.
type pile struct {
	chunks [][]key // all full but the last
	len    int
	clean  bool // sorted, different, and in one chunk
}

const (
	minChunk = 16
	maxChunk = 1 << 15 // keys, 1 MiB
)

func (p *pile) add(k key) {
	last := len(p.chunks) - 1
	if last < 0 || len(p.chunks[last]) == cap(p.chunks[last]) {
		p.chunks = append(p.chunks, make([]key, 0, min(max(minChunk, p.len/4), maxChunk)))
		last++
	}
	p.chunks[last] = append(p.chunks[last], k)
	p.len++
	p.clean = false
}

// sorted returns the keys after sort.
func (p *pile) sorted() []key { return p.chunks[0] }

// sort orders the keys and drops those that are there twice. First it deals
// them out by their leading bits, of which as many count as leave a few keys
// with each value: keys of digests are as good as random, so that is most of
// the work, in two walks. What is left is sorted by comparing.
func (p *pile) sort() {
	if p.clean {
		return
	}
	shift := 32 - min(bits.Len(uint(p.len/4)), 24)
	end := make([]uint32, 1<<(32-shift)+1) // where the keys of each value go, and in the end where they end
	for _, chunk := range p.chunks {
		for i := range chunk {
			end[chunk[i].first()>>shift+1]++
		}
	}
	for i := range end[1:] {
		end[i+1] += end[i]
	}
	keys := make([]key, p.len)
	for _, chunk := range p.chunks {
		for i := range chunk {
			v := chunk[i].first() >> shift
			keys[end[v]] = chunk[i]
			end[v]++
		}
	}
	start := uint32(0)
	for _, e := range end[:len(end)-1] {
		slices.SortFunc(keys[start:e], compareKeys)
		start = e
	}
	keys = slices.Clip(slices.Compact(keys))
	p.chunks, p.len, p.clean = [][]key{keys}, len(keys), true
}

// compareKeys orders keys by the first bucket that they may stand in, so that
// buckets are filled from the first to the last and memory is walked in order.
func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.first(), b.first()), bytes.Compare(a[:], b[:]))
}
