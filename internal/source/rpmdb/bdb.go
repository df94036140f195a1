package rpmdb

import (
	"encoding/binary"
	"errors"
	"fmt"

	"diglim/internal/wire"
)

// bdb is a hash table of Berkeley DB (its src/dbinc/db_page.h), in the byte
// order of the machine that made it. Headers are larger than what a page of
// the table holds, so they stand in chains of pages of their own.
type bdb struct {
	f        file
	order    binary.ByteOrder
	pageSize int
	pages    uint32
}

const (
	bdbMagic   = 0x00061561 // of a hash table
	bdbMagicAt = 12

	bdbHead = 26 // bytes before the content of a page

	// types of pages
	bdbHashUnsorted = 2
	bdbOverflow     = 7
	bdbHashMeta     = 8
	bdbHash         = 13

	// types of items of a hash page
	bdbInline  = 1
	bdbOffPage = 3
)

func openBDB(f file, order binary.ByteOrder) (*bdb, error) {
	const record = "Berkeley DB metadata"
	b, err := f.bytes(record, 0, 40)
	if err != nil {
		return nil, err
	}
	r := wire.New(record, order, b)
	r.Bytes(bdbMagicAt + 4)
	r.U32() // version
	pageSize := r.U32()
	encryption, kind, flags := r.U8(), r.U8(), r.U8()
	r.U8()
	r.U32() // free list
	last := r.U32()
	partitions := r.U32()
	switch {
	case pageSize < 512 || pageSize > 64<<10 || pageSize&(pageSize-1) != 0:
		r.FailAt(20, fmt.Errorf("pages of %d bytes", pageSize))
	case encryption != 0 || kind != bdbHashMeta || flags != 0 || partitions != 0:
		r.FailAt(24, errors.New("not a plain hash table, as rpm has it"))
	case (int64(last)+1)*int64(pageSize) > f.size:
		r.FailAt(32, fmt.Errorf("%w: page %d of %d bytes is the last, the file has %d bytes", wire.ErrShort, last, pageSize, f.size))
	}
	return &bdb{f, order, int(pageSize), last + 1}, r.Err()
}

// index looks at all pages rather than at those that a hash leads to: so it
// needs no hash, and finds each header once.
func (s *bdb) index() ([]Record, error) {
	var records []Record
	page := make([]byte, s.pageSize)
	for n := uint32(1); n < s.pages; n++ {
		at := int64(n) * int64(s.pageSize)
		if err := s.f.read("Berkeley DB page", page, at); err != nil {
			return nil, err
		}
		if kind := page[25]; kind != bdbHash && kind != bdbHashUnsorted {
			continue
		}
		err := s.items(page, func(key, value item) error {
			if key.kind != bdbInline || len(key.content) != 4 {
				return errors.New("the key is not a number")
			}
			r := Record{Key: s.order.Uint32(key.content), page: n}
			switch {
			case r.Key == 0:
				return nil // has the last key that was given away
			case value.kind == bdbInline:
				r.offset, r.size = uint32(value.offset), uint32(len(value.content))
			case value.kind == bdbOffPage && len(value.content) == 11:
				r.page, r.size = s.order.Uint32(value.content[3:]), s.order.Uint32(value.content[7:])
			default:
				return fmt.Errorf("header %d: item of type %d", r.Key, value.kind)
			}
			if len(records) == maxRecords {
				return fmt.Errorf("more than %d headers", maxRecords)
			}
			records = append(records, r)
			return nil
		})
		if err != nil {
			return nil, &wire.Error{Record: "Berkeley DB hash page", Offset: at, Err: err}
		}
	}
	return records, nil
}

// An item is a key or a value on a hash page.
type item struct {
	kind    byte
	offset  int // of the content on the page
	content []byte
}

// items yields the pairs on a hash page. Items are put on it from its end
// towards its start, one before the other.
func (s *bdb) items(page []byte, yield func(key, value item) error) error {
	n := int(s.order.Uint16(page[20:]))
	end := len(page)
	if n%2 != 0 || bdbHead+2*n > end {
		return fmt.Errorf("%d items", n)
	}
	next := func(i int) (item, error) {
		start := int(s.order.Uint16(page[bdbHead+2*i:]))
		if start < bdbHead+2*n || start >= end {
			return item{}, fmt.Errorf("item %d at %d, the one before it at %d", i, start, end)
		}
		it := item{page[start], start + 1, page[start+1 : end]}
		end = start
		return it, nil
	}
	for i := 0; i < n; i += 2 {
		key, err := next(i)
		if err != nil {
			return err
		}
		value, err := next(i + 1)
		if err != nil {
			return err
		}
		if err := yield(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (s *bdb) read(rec Record, buf []byte) ([]byte, error) {
	const record = "Berkeley DB overflow page"
	b, err := s.f.room(buf, int64(rec.size))
	if err != nil {
		return nil, err
	}
	if rec.offset != 0 {
		return b, s.f.read("Berkeley DB item", b, int64(rec.page)*int64(s.pageSize)+int64(rec.offset))
	}
	var head [bdbHead]byte
	next := rec.page
	for read := 0; read < len(b); {
		at := int64(next) * int64(s.pageSize)
		if err := s.f.read(record, head[:], at); err != nil {
			return nil, err
		}
		r := wire.New(record, s.order, head[:]).At(at)
		r.Bytes(16)
		next = r.U32()
		r.U16()
		n := int(r.U16())
		// All pages but the last are full: so a chain that leads back to itself ends
		// with the header, and soon.
		want := min(len(b)-read, s.pageSize-bdbHead)
		switch {
		case head[25] != bdbOverflow:
			r.FailAt(at+25, fmt.Errorf("page of type %d", head[25]))
		case n != want:
			r.FailAt(at+22, fmt.Errorf("%d bytes of header on it, must be %d", n, want))
		case (next == 0) != (read+n == len(b)):
			r.FailAt(at+16, fmt.Errorf("the next page is %d after %d of %d bytes", next, read+n, len(b)))
		}
		if r.Err() != nil {
			return nil, r.Err()
		}
		if err := s.f.read(record, b[read:read+n], at+bdbHead); err != nil {
			return nil, err
		}
		read += n
	}
	return b, nil
}
