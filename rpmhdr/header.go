// Package rpmhdr reads the headers of RPM packages: strictly, without copying,
// and without touching the payload.
//
// What it returns is structure, not trust. Signed is what a signature over the
// header covers, byte for byte; whether the signature is good, and whose, is
// for a keyring to say.
//
// The format is described in rpm's docs/manual/format_header.md and
// format_v4.md; the rules enforced here are those of its lib/header.c
// (hdrblobVerifyInfo, hdrblobVerifyRegion), made strict where rpm tolerates
// what no rpmbuild of the last twenty years writes.
package rpmhdr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"diglim/internal/wire"
)

// Limits of a header, which are rpm's own.
const (
	MaxEntries = 0xffff      // entries in the index
	MaxData    = 256<<20 - 1 // bytes in the data store
)

var headerMagic = []byte{0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0}

const (
	introSize = 16 // magic, number of entries, size of the data store
	entrySize = 16 // tag, type, offset, count
)

// A Tag names an entry of a header.
type Tag uint32

// A Header is one parsed header. It aliases the bytes that it was parsed from.
type Header struct {
	blob  []byte // magic to end of data store
	index []byte // entrySize bytes an entry
	data  []byte
}

// entryType is the type of an entry's data.
type entryType uint32

const (
	typeNull entryType = iota
	typeChar
	typeInt8
	typeInt16
	typeInt32
	typeInt64
	typeString
	typeBin
	typeStringArray
	typeI18NString
)

func (t entryType) String() string {
	names := [...]string{"null", "char", "int8", "int16", "int32", "int64", "string", "bin", "string array", "i18n string"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("type(%d)", uint32(t))
}

// size is the size in bytes of one element, 0 for strings.
func (t entryType) size() int {
	switch t {
	case typeChar, typeInt8, typeBin:
		return 1
	case typeInt16:
		return 2
	case typeInt32:
		return 4
	case typeInt64:
		return 8
	}
	return 0
}

type entry struct {
	tag    Tag
	typ    entryType
	offset uint32 // into the data store
	count  uint32
}

func (h Header) entry(i int) entry {
	b := h.index[i*entrySize:]
	return entry{
		tag:    Tag(binary.BigEndian.Uint32(b)),
		typ:    entryType(binary.BigEndian.Uint32(b[4:])),
		offset: binary.BigEndian.Uint32(b[8:]),
		count:  binary.BigEndian.Uint32(b[12:]),
	}
}

func (h Header) entries() int { return len(h.index) / entrySize }

// Signed returns exactly the bytes that a header signature covers: the magic,
// the index and the data store. A header of which this cannot be said (one
// with entries outside its immutable region) is not parsed in the first place.
func (h Header) Signed() []byte { return h.blob }

// Parse reads a main header that stands alone: magic first, nothing behind it.
func Parse(b []byte) (Header, error) {
	h, err := parse("rpm header", b, 0, tagHeaderImmutable)
	if err == nil && len(h.blob) != len(b) {
		err = &wire.Error{Record: "rpm header", Offset: int64(len(h.blob)), Err: wire.ErrTrailing}
	}
	if err != nil {
		return Header{}, err
	}
	return h, nil
}

// blobSize reads a header's intro and returns the size in bytes that the
// header says it has.
func blobSize(r *wire.Reader) int {
	at := r.Offset()
	if magic := r.Bytes(len(headerMagic)); r.Err() == nil && !bytes.Equal(magic, headerMagic) {
		r.FailAt(at, errors.New("no header magic"))
	}
	il := r.Count("index entries", MaxEntries)
	dl := r.Count("bytes of data", MaxData)
	return introSize + il*entrySize + dl
}

// parse reads the header at the start of b, which is at byte base of the file,
// and whose region must have the given tag.
func parse(record string, b []byte, base int64, region Tag) (Header, error) {
	r := wire.New(record, binary.BigEndian, b).At(base)
	size := blobSize(r)
	if r.Err() == nil && size > len(b) {
		r.Failf("%w: the header has %d bytes, %d are there", wire.ErrShort, size, len(b))
	}
	if err := r.Err(); err != nil {
		return Header{}, err
	}
	il := int(binary.BigEndian.Uint32(b[8:]))
	h := Header{
		blob:  b[:size:size],
		index: b[introSize : introSize+il*entrySize],
		data:  b[introSize+il*entrySize : size],
	}
	if i, err := h.check(region); err != nil {
		return Header{}, &wire.Error{Record: record, Offset: base + int64(introSize+i*entrySize), Err: err}
	}
	return h, nil
}

// check verifies every entry. On an error it says which entry it is.
func (h Header) check(region Tag) (int, error) {
	if h.entries() == 0 {
		return 0, errors.New("no entries")
	}
	if err := h.checkRegion(region); err != nil {
		return 0, err
	}
	trailer := int(h.entry(0).offset)
	tags := make([]Tag, 0, h.entries()-1)
	for i := 1; i < h.entries(); i++ {
		e := h.entry(i)
		if e.tag < tagFirst {
			return i, fmt.Errorf("tag %d in the wrong place", e.tag)
		}
		if e.count == 0 || e.count > MaxData {
			return i, fmt.Errorf("tag %d: count %d", e.tag, e.count)
		}
		if int64(e.offset) > int64(trailer) {
			return i, fmt.Errorf("tag %d: data at %d is outside of the region", e.tag, int32(e.offset))
		}
		if s := e.typ.size(); s > 1 && int(e.offset)%s != 0 {
			return i, fmt.Errorf("tag %d: %s data at %d is not aligned", e.tag, e.typ, e.offset)
		}
		// The data ends before the next entry's starts. So nothing overlaps, and
		// looking for the ends of strings reads each byte once in all.
		limit := uint32(trailer)
		if i+1 < h.entries() {
			next := h.entry(i + 1)
			if next.offset < e.offset {
				return i + 1, fmt.Errorf("tag %d: data at %d starts before that of the entry before it, at %d", next.tag, next.offset, e.offset)
			}
			limit = min(limit, next.offset)
		}
		if err := checkData(e, h.data[e.offset:limit]); err != nil {
			return i, fmt.Errorf("tag %d: %w", e.tag, err)
		}
		tags = append(tags, e.tag)
	}
	slices.Sort(tags)
	for i := 1; i < len(tags); i++ {
		if tags[i] == tags[i-1] {
			return 0, fmt.Errorf("tag %d twice", tags[i])
		}
	}
	return 0, nil
}

// checkRegion checks that the first entry is the region, and that the region
// is the whole header: its trailer, the last 16 bytes of data, counts exactly
// the entries that there are.
func (h Header) checkRegion(region Tag) error {
	e := h.entry(0)
	if e.tag != region {
		return fmt.Errorf("the first entry is tag %d, not the region %d", e.tag, region)
	}
	if e.typ != typeBin || e.count != entrySize {
		return fmt.Errorf("region of type %s, count %d", e.typ, e.count)
	}
	if int64(e.offset)+entrySize != int64(len(h.data)) {
		return fmt.Errorf("the region ends at %d, the data at %d", int64(e.offset)+entrySize, len(h.data))
	}
	t := Header{index: h.data[e.offset:]}.entry(0)
	// The signature headers of old packages have the wrong tag here; rpm knows that too.
	if t.tag != region && (region != tagHeaderSignatures || t.tag != tagHeaderImage) {
		return fmt.Errorf("region trailer with tag %d", t.tag)
	}
	if t.typ != typeBin || t.count != entrySize {
		return fmt.Errorf("region trailer of type %s, count %d", t.typ, t.count)
	}
	if n := -int64(int32(t.offset)); n != int64(len(h.index)) {
		return fmt.Errorf("the region trailer speaks of %d bytes of index, there are %d", n, len(h.index))
	}
	return nil
}

// checkData checks that the entry's data is within b.
func checkData(e entry, b []byte) error {
	switch e.typ {
	case typeString, typeStringArray, typeI18NString:
		if e.typ == typeString && e.count != 1 {
			return fmt.Errorf("string with count %d", e.count)
		}
		for i := range e.count {
			end := bytes.IndexByte(b, 0)
			if end < 0 {
				return fmt.Errorf("%d of %d strings end within their bounds", i, e.count)
			}
			b = b[end+1:]
		}
		return nil
	case typeChar, typeInt8, typeInt16, typeInt32, typeInt64, typeBin:
		if int64(e.count)*int64(e.typ.size()) > int64(len(b)) {
			return fmt.Errorf("%d elements of type %s do not fit", e.count, e.typ)
		}
		return nil
	}
	return fmt.Errorf("%s is not a type of data", e.typ)
}
