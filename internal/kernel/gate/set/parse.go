package set

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

const (
	magic      = "DIGLIMS\x01"
	headerSize = 80 // up to the tables
	tableSize  = 16

	flagInitramfs = 1 << 0

	hasOwner = 1 << 0
	hasFS    = 1 << 1
	hasPath  = 1 << 2
)

// Parse reads an image, from a file or from a kernel's map, whose values follow
// each other in b. It takes nothing that Build would not make, up to where in
// its two buckets a digest stands: the program in the kernel, which reads the
// image next, checks nothing. The image aliases b; what is allocated besides
// does not depend on the number of digests.
func Parse(b []byte) (*Image, error) {
	r := wire.New("digest set header", binary.LittleEndian, b)
	m := &Image{b: b}
	rules, tables := m.parseHeader(r)
	m.parseTables(r, rules, tables)
	m.parseRules(r, rules)
	for _, t := range m.tables {
		m.parseBuckets(r, t)
	}
	if err := r.Finish(); err != nil {
		return nil, err
	}
	return m, nil
}

// parseHeader reads the header up to the tables, and returns how many rules and
// tables there are.
func (m *Image) parseHeader(r *wire.Reader) (rules, tables int) {
	h := &m.header
	if got := r.Bytes(len(magic)); r.Err() == nil && string(got) != magic {
		r.FailAt(0, fmt.Errorf("%q is not the magic of a digest set", got))
	}
	if h.Generation = r.U64(); h.Generation == 0 {
		r.FailAt(8, errors.New("generation 0"))
	}
	loaded := r.U64()
	if loaded > math.MaxInt64 {
		r.FailAt(16, fmt.Errorf("loaded %d nanoseconds after 1970", loaded))
	}
	h.Loaded = time.Unix(0, int64(loaded)).UTC()
	if h.Mode = Mode(r.U32()); !h.Mode.valid() {
		r.FailAt(24, fmt.Errorf("%s is not known", h.Mode))
	}
	if blocks := r.U32(); blocks > MaxBlocks || int(blocks)*BlockSize != len(m.b) {
		r.FailAt(28, fmt.Errorf("%d blocks of %d bytes in an image of %d", blocks, BlockSize, len(m.b)))
	}
	h.Lists = r.U32()
	m.digests = int(r.U32())
	rules, tables = int(r.U16()), int(r.U16())
	if rules > MaxRules {
		r.FailAt(40, fmt.Errorf("%d rules, the limit is %d", rules, MaxRules))
	}
	if tables > MaxTables {
		r.FailAt(42, fmt.Errorf("%d tables, the limit is %d", tables, MaxTables))
	}
	flags := r.U32()
	if flags&^flagInitramfs != 0 {
		r.FailAt(44, fmt.Errorf("flags %#x are not known", flags))
	}
	h.Initramfs = flags&flagInitramfs != 0
	copy(h.Anchor[:], r.Bytes(len(h.Anchor)))
	if r.Err() != nil {
		return 0, 0
	}
	return rules, tables
}

// parseTables reads the rest of the header. The tables follow each other, from
// behind the rules to the end of the image.
func (m *Image) parseTables(r *wire.Reader, rules, tables int) {
	next := uint64(1 + rules)
	digests := 0
	var last tableID
	for i := range tables {
		r.Record(fmt.Sprintf("digest set table %d", i))
		at := r.Offset()
		kind, algo, zero := Kind(r.U8()), r.U8(), r.U16()
		t := Table{Kind: kind, First: r.U32(), Buckets: r.U32(), Digests: r.U32()}
		alg, err := digest.ByKernel(uint16(algo))
		t.Algorithm = alg
		id := tableID{kind, alg}
		switch {
		case !kind.valid():
			r.FailAt(at, fmt.Errorf("%s is not known", kind))
		case err != nil:
			r.FailAt(at+1, err)
		case id.compare(last) <= 0:
			r.FailAt(at, fmt.Errorf("%s comes after %s", id, last))
		case zero != 0:
			r.FailAt(at+2, fmt.Errorf("bytes that must be zero are %#x", zero))
		case uint64(t.First) != next:
			r.FailAt(at+4, fmt.Errorf("buckets from block %d, must be %d", t.First, next))
		case t.Digests == 0 || t.Digests > MaxBlocks*slots:
			r.FailAt(at+12, fmt.Errorf("%d digests", t.Digests))
		case int64(t.Buckets) < int64(bucketsFor(int(t.Digests), maxLoad)) || int64(t.Buckets) > int64(bucketsFor(int(t.Digests), minLoad)):
			r.FailAt(at+8, fmt.Errorf("%d buckets for %d digests", t.Buckets, t.Digests))
		}
		next += uint64(t.Buckets)
		if next*BlockSize > uint64(len(m.b)) {
			r.FailAt(at+8, fmt.Errorf("%d buckets from block %d are beyond the image", t.Buckets, t.First))
		}
		if r.Err() != nil {
			return
		}
		last = id
		digests += int(t.Digests)
		m.tables = append(m.tables, t)
	}
	r.Record("digest set header")
	if digests != m.digests {
		r.FailAt(36, fmt.Errorf("%d digests, the tables have %d", m.digests, digests))
	}
	if next*BlockSize != uint64(len(m.b)) {
		r.FailAt(28, fmt.Errorf("the tables end before block %d, the image before %d", next, len(m.b)/BlockSize))
	}
	zeros(r, BlockSize-headerSize-tables*tableSize)
}

// parseRules reads the blocks behind the header.
func (m *Image) parseRules(r *wire.Reader, n int) {
	for i := range n {
		r.Record(fmt.Sprintf("digest set rule %d", i))
		rule := parseRule(r)
		if r.Err() != nil {
			return
		}
		m.header.Rules = append(m.header.Rules, rule)
	}
}

func parseRule(r *wire.Reader) Rule {
	at := r.Offset()
	verdict, has, owner, length, fs := Mode(r.U32()), r.U32(), r.U32(), r.U32(), r.U64()
	rule := Rule{Enforce: verdict == Enforce}
	if has&hasOwner != 0 {
		rule.Owner = &owner
	}
	if has&hasFS != 0 {
		rule.FS = &fs
	}
	switch {
	case r.Err() != nil:
	case !verdict.valid():
		r.FailAt(at, fmt.Errorf("verdict %d is not known", verdict))
	case has&^(hasOwner|hasFS|hasPath) != 0:
		r.FailAt(at+4, fmt.Errorf("conditions %#x are not known", has))
	case rule.Owner == nil && owner != 0:
		r.FailAt(at+8, fmt.Errorf("owner %d, but no such condition", owner))
	case rule.FS == nil && fs != 0:
		r.FailAt(at+16, fmt.Errorf("file system %#x, but no such condition", fs))
	case (has&hasPath != 0) != (length != 0) || length > MaxPath:
		r.FailAt(at+12, fmt.Errorf("path of %d bytes, conditions %#x", length, has))
	}
	if r.Err() != nil {
		return Rule{}
	}
	rule.Path = string(r.Bytes(int(length)))
	if err := rule.check(); err != nil {
		r.FailAt(at+24, err)
	}
	zeros(r, MaxPath-int(length))
	return rule
}

// parseBuckets checks that the digests of a table are where they are looked
// for, each of them once, as many as the table says, and that no slot before
// one is empty.
func (m *Image) parseBuckets(r *wire.Reader, t Table) {
	r.Record(fmt.Sprintf("digest set buckets of %s", t.id()))
	start := r.Offset()
	buckets := r.Bytes(int(t.Buckets) * BlockSize)
	if r.Err() != nil {
		return
	}
	digests := uint32(0)
	for bucket := range t.Buckets {
		used := 0
		for n := range slots {
			k := slot(buckets, bucket, n)
			if k.empty() {
				continue
			}
			at := start + int64(bucket)*BlockSize + int64(n)*keySize
			if n != used {
				r.FailAt(at, errors.New("digest behind an empty slot"))
				return
			}
			if err := m.checkKey(t, buckets, bucket, n, k); err != nil {
				r.FailAt(at, err)
				return
			}
			used++
		}
		digests += uint32(used)
	}
	if digests != t.Digests {
		r.FailAt(start, fmt.Errorf("%d digests, the table has %d", digests, t.Digests))
	}
}

func (m *Image) checkKey(t Table, buckets []byte, bucket uint32, n int, k *key) error {
	i, j := choices(k, t.Buckets)
	if bucket != i && bucket != j {
		return fmt.Errorf("digest in bucket %d, must be in %d or %d", bucket, i, j)
	}
	if size := t.Algorithm.Size(); size < keySize && !isZero(k[size:]) {
		return fmt.Errorf("more than the %d bytes of a digest", size)
	}
	if slotOf(buckets, bucket, k) != n || bucket == j && i != j && slotOf(buckets, i, k) >= 0 {
		return errors.New("digest that is there already")
	}
	if t.Kind == Parser && !m.has(tableID{Content, t.Algorithm}, k) {
		return errors.New("parser that is no content")
	}
	return nil
}

// zeros reads n bytes that say nothing yet.
func zeros(r *wire.Reader, n int) {
	at := r.Offset()
	if !isZero(r.Bytes(n)) {
		r.FailAt(at, fmt.Errorf("%d bytes that must be 0 are not", n))
	}
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
