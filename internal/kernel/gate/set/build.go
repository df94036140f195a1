package set

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"diglim/internal/digest"
)

// A Builder collects digests and makes an Image of them. It takes 32 bytes of
// memory for each digest added, and up to a quarter more; Build takes as much
// again, and the image. The zero Builder is empty and ready for use.
type Builder struct {
	tables map[tableID]*pile
}

// Add adds a digest; one that is there already changes nothing. A program that
// may replace the set may also run: what is added as Parser is added as Content
// too. A digest whose first 32 bytes are zero cannot be in a set.
func (b *Builder) Add(kind Kind, d digest.Digest) error {
	k := keyOf(d)
	switch {
	case !kind.valid():
		return fmt.Errorf("digest set: %s: %s is not known", d, kind)
	case d.IsZero() || k.empty():
		return fmt.Errorf("digest set: %s cannot be in it", d)
	}
	b.add(tableID{kind, d.Algorithm()}, k)
	if kind == Parser {
		b.add(tableID{Content, d.Algorithm()}, k)
	}
	return nil
}

func (b *Builder) add(id tableID, k key) {
	if b.tables == nil {
		b.tables = make(map[tableID]*pile)
	}
	p := b.tables[id]
	if p == nil {
		p = new(pile)
		b.tables[id] = p
	}
	p.add(k)
}

// AddImage adds all digests of an image.
func (b *Builder) AddImage(m *Image) {
	for _, t := range m.tables {
		buckets := m.buckets(t)
		for i := range t.Buckets {
			for n := range slots {
				if k := slot(buckets, i, n); !k.empty() {
					b.add(t.id(), *k)
				}
			}
		}
	}
}

// Tables are filled to maxLoad percent; where that does not work out, to less,
// down to minLoad.
const (
	maxLoad  = 95
	minLoad  = 51
	loadStep = 2
)

// Build makes an image of the digests. Its bytes depend on the header and the
// digests alone, not on the order in which they were added. It takes 33.7 bytes
// a digest. The Builder can be used further.
//
// It is an error if there are too many tables, or if too many digests want the
// same places, which is an accident that does not happen to digests of files
// that nobody made for it.
func (b *Builder) Build(h Header) (*Image, error) {
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("digest set: %w", err)
	}
	if len(b.tables) > MaxTables {
		return nil, fmt.Errorf("digest set: %d tables, the limit is %d", len(b.tables), MaxTables)
	}
	blocks := 1 + len(h.Rules)
	for _, p := range b.tables {
		p.sort()
		blocks += bucketsFor(p.len, maxLoad)
	}
	if blocks > MaxBlocks {
		return nil, fmt.Errorf("digest set: %d blocks, the limit is %d", blocks, MaxBlocks)
	}

	h.Loaded = time.Unix(0, h.Loaded.UnixNano()).UTC()
	h.Rules = slices.Clone(h.Rules)
	m := &Image{header: h, b: make([]byte, (1+len(h.Rules))*BlockSize, blocks*BlockSize)}
	for _, id := range slices.SortedFunc(maps.Keys(b.tables), tableID.compare) {
		t, err := m.appendTable(id, b.tables[id].sorted())
		if err != nil {
			return nil, fmt.Errorf("digest set: %s: %w", id, err)
		}
		m.tables = append(m.tables, t)
		m.digests += int(t.Digests)
	}
	m.putHeader()
	return m, nil
}

// bucketsFor returns how many buckets hold n keys at a load in percent.
func bucketsFor(n, load int) int {
	return int((int64(n)*100 + slots*int64(load) - 1) / (slots * int64(load)))
}

// appendTable appends the buckets of the keys, which are sorted and different,
// to the image.
func (m *Image) appendTable(id tableID, keys []key) (Table, error) {
	start := len(m.b)
	tried := 0
	for load := maxLoad; load >= minLoad; load -= loadStep {
		n := bucketsFor(len(keys), load)
		if n == tried {
			continue
		}
		tried = n
		if start/BlockSize+n > MaxBlocks {
			break
		}
		m.b = slices.Grow(m.b[:start], n*BlockSize)[:start+n*BlockSize]
		if fill(m.b[start:], keys) {
			return Table{id.kind, id.alg, uint32(start / BlockSize), uint32(n), uint32(len(keys))}, nil
		}
	}
	return Table{}, fmt.Errorf("%d digests find no room in %d buckets: they are too much alike", len(keys), tried)
}

// maxKicks is how many keys may be moved to make room for one. At a load of 95
// percent it takes a handful.
const maxKicks = 2000

// fill puts the keys into the buckets, and reports whether there was room for
// all. It is cuckoo hashing with two choices and a random walk: a key that
// finds both its buckets full takes another one's place, which moves to its
// other bucket, and so on. The walk's numbers are the same each time.
func fill(buckets []byte, keys []key) bool {
	clear(buckets)
	count := uint32(len(buckets) / BlockSize)
	used := make([]uint8, count) // slots of each bucket
	random := uint32(1)
	for _, k := range keys {
		to, other := choices(&k, count)
		if used[other] < used[to] {
			to = other
		}
		for kicks := 0; used[to] == slots; kicks++ {
			if kicks == maxKicks {
				return false
			}
			random ^= random << 13 // xorshift (Marsaglia 2003)
			random ^= random >> 17
			random ^= random << 5
			s := slot(buckets, to, int(random%slots))
			k, *s = *s, k
			i, j := choices(&k, count)
			to ^= i ^ j
		}
		*slot(buckets, to, int(used[to])) = k
		used[to]++
	}
	return true
}

// putHeader writes the header and the rules into the first blocks, which are zero.
func (m *Image) putHeader() {
	h := &m.header
	b := append(m.b[:0], magic...)
	le := binary.LittleEndian
	b = le.AppendUint64(b, h.Generation)
	b = le.AppendUint64(b, uint64(h.Loaded.UnixNano()))
	b = le.AppendUint32(b, uint32(h.Mode))
	b = le.AppendUint32(b, uint32(len(m.b)/BlockSize))
	b = le.AppendUint32(b, h.Lists)
	b = le.AppendUint32(b, uint32(m.digests))
	b = le.AppendUint16(b, uint16(len(h.Rules)))
	b = le.AppendUint16(b, uint16(len(m.tables)))
	var flags uint32
	if h.Initramfs {
		flags |= flagInitramfs
	}
	b = le.AppendUint32(b, flags)
	b = append(b, h.Anchor[:]...)
	for _, t := range m.tables {
		b = append(b, uint8(t.Kind), uint8(t.Algorithm.Kernel()), 0, 0)
		b = le.AppendUint32(b, t.First)
		b = le.AppendUint32(b, t.Buckets)
		b = le.AppendUint32(b, t.Digests)
	}
	for i, r := range h.Rules {
		putRule(m.b[(1+i)*BlockSize:], r)
	}
}

func putRule(b []byte, r Rule) {
	verdict, has, owner, fs := Log, uint32(0), uint32(0), uint64(0)
	if r.Enforce {
		verdict = Enforce
	}
	if r.Owner != nil {
		has, owner = has|hasOwner, *r.Owner
	}
	if r.FS != nil {
		has, fs = has|hasFS, *r.FS
	}
	if r.Path != "" {
		has |= hasPath
	}
	le := binary.LittleEndian
	b = le.AppendUint32(b[:0], uint32(verdict))
	b = le.AppendUint32(b, has)
	b = le.AppendUint32(b, owner)
	b = le.AppendUint32(b, uint32(len(r.Path)))
	b = le.AppendUint64(b, fs)
	_ = append(b, r.Path...)
}
