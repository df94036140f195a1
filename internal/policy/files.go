package policy

import (
	"hash/maphash"
	"iter"
	"math"
	"strings"

	"diglim/internal/digest"
)

// Files is a set of known files. A file is known by the algorithm and the
// value of its digest and by nothing else; its path is a label. A copy is the
// same set. It takes 59 to 70 bytes a SHA-256 digest, as full as its index is,
// and the name of the file: what files have in common, as package, signer and
// directory, is there once.
type Files struct {
	set *set
}

// Add makes a file known. A digest may have several sources. No more than
// 2^32-1 sources are taken in all.
func (f *Files) Add(d digest.Digest, s Source) {
	if f.set == nil {
		f.set = &set{seed: maphash.MakeSeed(), empty: table{slots: make([]slot, 1)}, directory: map[string]uint32{}, origin: map[Source]uint32{}}
	}
	if f.set.sources == math.MaxUint32 || d.IsZero() {
		return
	}
	f.set.sources++
	f.set.add(d, s)
}

// Find returns the sources of a digest, in the order in which they were added;
// none if it is not known.
func (f *Files) Find(d digest.Digest) (sources []Source) {
	for l := range f.labels(d) {
		sources = append(sources, f.set.source(l))
	}
	return sources
}

// Len is the number of different digests.
func (f *Files) Len() (n int) {
	if f.set != nil {
		for _, t := range f.set.tables {
			n += t.labels.len
		}
	}
	return n
}

// At yields the digests and sources of the files at the wanted paths, in no
// order. The path that wanted is asked about is good until it returns.
func (f *Files) At(wanted func(path []byte) bool) iter.Seq2[digest.Digest, Source] {
	return func(yield func(digest.Digest, Source) bool) {
		if f.set == nil {
			return
		}
		var path []byte
		for _, t := range f.set.tables {
			for row := range uint32(t.labels.len) {
				for l := range f.set.labels(t, row) {
					path = f.set.appendPath(path[:0], l)
					if !wanted(path) {
						continue
					}
					if d, _ := digest.New(t.alg, t.value(row)); !yield(d, f.set.source(l)) {
						return
					}
				}
			}
		}
	}
}

// labels yields what is known of a digest besides its value.
func (f *Files) labels(d digest.Digest) iter.Seq[*label] {
	t, slot := f.find(d)
	if slot == 0 {
		return func(func(*label) bool) {}
	}
	return f.set.labels(t, slot.row())
}

// find returns the slot of a digest and the table that it is in, or 0.
func (f *Files) find(d digest.Digest) (*table, slot) {
	if f.set == nil {
		return nil, 0
	}
	t := f.set.table(d.Algorithm())
	_, found := t.find(d.Hash(f.set.seed), &d)
	return t, found
}

// Knows reports whether a file that was measured at a path is known: by a source
// that is good at any path, or by one that is good at that one.
func (f *Files) Knows(d digest.Digest, path []byte) bool {
	t, slot := f.find(d)
	return f.good(t, slot, path)
}

// good reports whether what find found is good at a path.
func (f *Files) good(t *table, found slot, path []byte) bool {
	if found&slotBound == 0 {
		return found != 0
	}
	for l := range f.set.labels(t, found.row()) {
		if f.set.goodAt(l, path) {
			return true
		}
	}
	return false
}

// A Query asks whether a file that was measured at a path is known.
type Query struct {
	Digest *digest.Digest
	Path   []byte
	Known  bool // the answer

	table *table
	hash  uint64
	slot  slot
	value byte // so that it is read
}

// KnowAll answers queries as Knows does. A set is larger than a processor's
// caches, and most of a lookup is waiting for memory. Each loop does little, so
// that the processor asks for what several queries need at one time; the last
// one has it all at hand.
func (f *Files) KnowAll(queries []Query) {
	if f.set == nil {
		for i := range queries {
			queries[i].Known = false
		}
		return
	}
	for i := range queries {
		q := &queries[i]
		q.table = f.set.table(q.Digest.Algorithm())
		q.hash = q.Digest.Hash(f.set.seed)
	}
	for i := range queries {
		q := &queries[i]
		q.slot = q.table.slots[q.table.home(q.hash)]
	}
	for i := range queries {
		q := &queries[i]
		t := q.table
		for at := t.home(q.hash); q.slot != 0 && !q.slot.like(q.hash); q.slot = t.slots[at] {
			at = t.next(at)
		}
		if q.slot != 0 {
			q.value = t.value(q.slot.row())[0]
		}
	}
	for i := range queries {
		q := &queries[i]
		found := q.slot
		if found != 0 && !q.Digest.Is(q.table.value(found.row())) {
			_, found = q.table.find(q.hash, q.Digest)
		}
		q.Known = f.good(q.table, found, q.Path)
	}
}

// Some returns at most so many of the sources by which Knows knows a file:
// first those that have it where it was measured.
func (f *Files) Some(d digest.Digest, path []byte, limit int) []Source {
	few := []Source{}
	labels := f.labels(d)
	for _, there := range []bool{true, false} {
		for l := range labels {
			if len(few) == limit {
				return few
			}
			if f.set.goodAt(l, path) && f.set.hasPath(l, path) == there {
				few = append(few, f.set.source(l))
			}
		}
	}
	return few
}

// A set is what all copies of a Files share.
type set struct {
	seed    maphash.Seed // against digests chosen to meet in one slot
	tables  []*table     // one for each algorithm
	empty   table
	sources uint32 // of all digests

	more        pile[label] // of digests with several sources, all but the first
	origins     []Source    // without their paths, where those decide nothing
	origin      map[Source]uint32
	directories []string
	directory   map[string]uint32
	names       names
}

// A table has the digests of one algorithm, each in a row of its own, and an
// index of them.
type table struct {
	alg    digest.Algorithm
	size   int         // bytes of a value
	values [][]byte    // of chunkLen rows each, but the last
	labels pile[label] // the first of each row
	slots  []slot      // the index: a power of two of them, at least a quarter free
}

// A slot of the index is 0 if it is free. Else its upper half are 31 bits of
// the value's hash, which tell most other values from it without a look at
// them, and slotBound. Its lower half is the row, counted from 1.
type slot uint64

// slotBound says that the digest has a source that is good at one path only.
const slotBound = 1 << 32

const slotTag = math.MaxUint64 - slotBound - math.MaxUint32

func (s slot) like(hash uint64) bool { return (s^slot(hash))&slotTag == 0 }

func (s slot) row() uint32 { return uint32(s) - 1 }

// A label is the source of a row, in little.
type label struct {
	origin    uint32
	directory uint32
	name      uint32 // in names; 0: directory is all of the path
	// next links the sources of one digest, in more, counted from 1. That of
	// the first is the last one, 0 if there is no other; that of the last one
	// is the second.
	next uint32
}

// table is that of an algorithm, or the empty one.
func (s *set) table(alg digest.Algorithm) *table {
	for _, t := range s.tables {
		if t.alg == alg {
			return t
		}
	}
	return &s.empty
}

func (s *set) add(d digest.Digest, source Source) {
	t := s.table(d.Algorithm())
	if t == &s.empty {
		t = &table{alg: d.Algorithm(), size: d.Algorithm().Size(), slots: make([]slot, 8)}
		s.tables = append(s.tables, t)
	}
	hash := d.Hash(s.seed)
	at, found := t.find(hash, &d)
	l := s.label(source)
	if found == 0 {
		if 4*(t.labels.len+1) > 3*len(t.slots) {
			t.grow(s.seed)
			at, _ = t.find(hash, &d)
		}
		t.values = appendChunk(t.values, t.labels.len, d.Bytes()...)
		t.labels.add(l)
		t.slots[at] = slot(hash)&slotTag | slot(t.labels.len)
	} else {
		first := t.labels.at(int(found.row()))
		if first.next == 0 {
			l.next = uint32(s.more.len) + 1
		} else {
			last := s.more.at(int(first.next) - 1)
			l.next, last.next = last.next, uint32(s.more.len)+1
		}
		s.more.add(l)
		first.next = uint32(s.more.len)
	}
	if source.There {
		t.slots[at] |= slotBound
	}
}

// home is the slot where the search for a hash begins.
func (t *table) home(hash uint64) int { return int(uint32(hash)) & (len(t.slots) - 1) }

func (t *table) next(at int) int { return (at + 1) & (len(t.slots) - 1) }

// find returns the slot of a digest, or 0 and where it belongs.
func (t *table) find(hash uint64, d *digest.Digest) (at int, found slot) {
	for at = t.home(hash); ; at = t.next(at) {
		s := t.slots[at]
		if s == 0 || s.like(hash) && d.Is(t.value(s.row())) {
			return at, s
		}
	}
}

func (t *table) value(row uint32) []byte {
	at := int(row%chunkLen) * t.size
	return t.values[row/chunkLen][at : at+t.size]
}

// grow doubles the index.
func (t *table) grow(seed maphash.Seed) {
	old := t.slots
	t.slots = make([]slot, 2*len(old))
	for _, s := range old {
		if s == 0 {
			continue
		}
		at := t.home(maphash.Bytes(seed, t.value(s.row())))
		for t.slots[at] != 0 {
			at = t.next(at)
		}
		t.slots[at] = s
	}
}

// labels yields the sources of a row in the order in which they were added.
func (s *set) labels(t *table, row uint32) iter.Seq[*label] {
	return func(yield func(*label) bool) {
		first := t.labels.at(int(row))
		if !yield(first) || first.next == 0 {
			return
		}
		last := s.more.at(int(first.next) - 1)
		for l := last; ; {
			l = s.more.at(int(l.next) - 1)
			if !yield(l) || l == last {
				return
			}
		}
	}
}

// label takes a source apart into what it shares with others and what not.
func (s *set) label(source Source) (l label) {
	path := source.Path
	if source.There {
		path = "" // it stays where it decides
	} else {
		source.Path = ""
	}
	l.origin = s.originOf(source)
	directory := path[:strings.LastIndexByte(path, '/')+1]
	if l.name = s.names.add(path[len(directory):]); l.name == 0 {
		directory = path
	}
	l.directory = s.directoryOf(directory)
	return l
}

func (s *set) originOf(source Source) uint32 {
	if n := len(s.origins); n > 0 && s.origins[n-1] == source {
		return uint32(n - 1) // files of a package come one after the other
	}
	n, ok := s.origin[source]
	if !ok {
		n = uint32(len(s.origins))
		s.origins = append(s.origins, source)
		s.origin[source] = n
	}
	return n
}

func (s *set) directoryOf(path string) uint32 {
	n, ok := s.directory[path]
	if !ok {
		n = uint32(len(s.directories))
		path = strings.Clone(path) // and not the name behind it
		s.directories = append(s.directories, path)
		s.directory[path] = n
	}
	return n
}

func (s *set) source(l *label) Source {
	source := s.origins[l.origin]
	if !source.There {
		source.Path = s.directories[l.directory] + string(s.names.at(l.name))
	}
	return source
}

func (s *set) appendPath(b []byte, l *label) []byte {
	if o := &s.origins[l.origin]; o.There {
		return append(b, o.Path...)
	}
	b = append(b, s.directories[l.directory]...)
	return append(b, s.names.at(l.name)...)
}

// goodAt reports whether a source knows a file that was measured at a path.
func (s *set) goodAt(l *label, path []byte) bool {
	o := &s.origins[l.origin]
	return !o.There || o.Path == string(path)
}

// hasPath reports whether that is the path of a source.
func (s *set) hasPath(l *label, path []byte) bool {
	if o := &s.origins[l.origin]; o.There {
		return o.Path == string(path)
	}
	directory, name := s.directories[l.directory], s.names.at(l.name)
	n := len(directory)
	return len(path) == n+len(name) && string(path[:n]) == directory && string(path[n:]) == string(name)
}
