package rpmdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"diglim/internal/wire"
)

// sqlite reads one table of a database of SQLite 3 (https://sqlite.org/fileformat2.html):
//
//	CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)
//
// A table is a tree of pages; its leaves have the rows, the ends of long ones
// in chains of pages of their own. Pages are counted from 1.
type sqlite struct {
	f        file
	pageSize int
	usable   int    // bytes of a page; the rest is for extensions
	pages    uint32 // in all

	// Pages that were written since the database was last brought up to date,
	// and where in the write-ahead log they are.
	wal   file
	inWAL map[uint32]int64
}

const (
	sqliteMagic  = "SQLite format 3\x00"
	sqliteHeader = 100 // bytes before the content of page 1

	sqliteInterior = 5  // type of a page of a table with pages below it
	sqliteLeaf     = 13 // and of one with rows

	sqliteMaxDepth = 20 // SQLite's own limit on trees
)

func openSQLite(f, wal, journal file) (*sqlite, error) {
	const record = "SQLite header"
	// The start of a transaction that was never ended: what it overwrote is in
	// the journal, and what is in the database is neither old nor new.
	if journal.size >= 8 {
		head, err := journal.bytes("SQLite journal", 0, 8)
		if err != nil {
			return nil, err
		}
		if string(head) == "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" {
			return nil, errors.New("a change to the database was cut off (there is a -journal); rpm must roll it back first")
		}
	}
	b, err := f.bytes(record, 0, sqliteHeader)
	if err != nil {
		return nil, err
	}
	r := wire.New(record, binary.BigEndian, b)
	r.Bytes(len(sqliteMagic))
	pageSize := int(r.U16())
	if pageSize == 1 {
		pageSize = 64 << 10
	}
	r.U8()
	version, reserved := r.U8(), int(r.U8())
	switch encoding := binary.BigEndian.Uint32(b[56:]); {
	case pageSize < 512 || pageSize&(pageSize-1) != 0:
		r.FailAt(16, fmt.Errorf("pages of %d bytes", pageSize))
	case version != 1 && version != 2:
		r.FailAt(19, fmt.Errorf("read version %d, must be 1 or 2", version))
	case pageSize-reserved < 480:
		r.FailAt(20, fmt.Errorf("%d bytes of each page reserved", reserved))
	case encoding != 1:
		r.FailAt(56, fmt.Errorf("text encoding %d, must be 1 (UTF-8)", encoding))
	}
	if r.Err() != nil {
		return nil, r.Err()
	}
	s := &sqlite{f: f, pageSize: pageSize, usable: pageSize - reserved, pages: uint32(min(f.size/int64(pageSize), math.MaxUint32)), wal: wal}
	return s, s.readWAL()
}

// page reads a page.
func (s *sqlite) page(n uint32, b []byte) error {
	if n == 0 || n > s.pages {
		return fmt.Errorf("page %d of %d", n, s.pages)
	}
	if at, ok := s.inWAL[n]; ok {
		return s.wal.read("SQLite write-ahead log", b, at)
	}
	return s.f.read("SQLite page", b, s.start(n))
}

// start is where a page starts in the file.
func (s *sqlite) start(n uint32) int64 { return int64(n-1) * int64(s.pageSize) }

func (s *sqlite) index() ([]Record, error) {
	schema, err := s.rows(1)
	if err != nil {
		return nil, fmt.Errorf("SQLite schema: %w", err)
	}
	for _, row := range schema {
		payload, err := s.payload(row, nil)
		if err != nil {
			return nil, err
		}
		columns, err := columnsOf(payload)
		if err != nil {
			return nil, err
		}
		// type, name, table, first page, SQL
		if len(columns) == 5 && string(columns[0].bytes) == "table" && string(columns[1].bytes) == "Packages" {
			root, ok := columns[3].integer()
			if !ok || root < 0 || root > math.MaxUint32 {
				return nil, errors.New("SQLite schema: table Packages has no first page")
			}
			records, err := s.rows(uint32(root))
			if err != nil {
				return nil, fmt.Errorf("table Packages: %w", err)
			}
			return records, nil
		}
	}
	return nil, errors.New("no table Packages in it")
}

// rows finds the rows of the table whose tree starts at that page.
func (s *sqlite) rows(root uint32) ([]Record, error) {
	var records []Record
	// No page of a tree has two places in it.
	visits := (s.f.size + s.wal.size) / int64(s.pageSize)
	var walk func(n uint32, depth int) error
	walk = func(n uint32, depth int) error {
		if visits == 0 || depth > sqliteMaxDepth {
			return errors.New("the tree of pages has no end")
		}
		visits--
		page := make([]byte, s.pageSize)
		if err := s.page(n, page); err != nil {
			return err
		}
		head := 0
		if n == 1 {
			head = sqliteHeader
		}
		r := wire.New("SQLite page", binary.BigEndian, page[head:s.usable]).At(s.start(n) + int64(head))
		kind := r.U8()
		r.Bytes(2) // free space
		cells := int(r.U16())
		r.Bytes(3)
		if kind == sqliteInterior {
			last := r.U32()
			for range cells {
				child := wire.New("SQLite page", binary.BigEndian, page[min(int(r.U16()), s.usable):s.usable]).At(s.start(n))
				below := child.U32()
				if err := errors.Join(r.Err(), child.Err()); err != nil {
					return err
				}
				if err := walk(below, depth+1); err != nil {
					return err
				}
			}
			return walk(last, depth+1)
		}
		if kind != sqliteLeaf {
			r.FailAt(s.start(n), fmt.Errorf("page of type %d in a table", kind))
		}
		for range cells {
			record := Record{page: n, offset: uint32(r.U16())}
			if r.Err() != nil {
				return r.Err()
			}
			cell, err := s.cell(page, record)
			if err != nil {
				return err
			}
			if cell.rowid > math.MaxUint32 || len(records) > 0 && uint32(cell.rowid) <= records[len(records)-1].Key {
				return fmt.Errorf("row %d after others", cell.rowid)
			}
			if len(records) == maxRecords {
				return fmt.Errorf("more than %d rows", maxRecords)
			}
			record.Key = uint32(cell.rowid)
			records = append(records, record)
		}
		return r.Err()
	}
	return records, walk(root, 0)
}

// A cell is a row as it stands on its page.
type cell struct {
	rowid    uint64
	size     uint64 // of the row in bytes
	local    []byte // as much of it as is on the page
	overflow uint32 // page with the next part, 0 if there is none
}

// cell reads the cell that the record tells of, on its page.
func (s *sqlite) cell(page []byte, rec Record) (cell, error) {
	r := wire.New("SQLite cell", binary.BigEndian, page[min(int(rec.offset), s.usable):s.usable]).At(s.start(rec.page) + int64(rec.offset))
	c := cell{size: varint(r), rowid: varint(r)}
	// how SQLite divides a row between the page and others
	local := int(min(c.size, math.MaxInt32))
	if most := s.usable - 35; local > most {
		least := (s.usable-12)*32/255 - 23
		if local = least + (local-least)%(s.usable-4); local > most {
			local = least
		}
		c.local = r.Bytes(local)
		c.overflow = r.U32()
		return c, r.Err()
	}
	c.local = r.Bytes(local)
	return c, r.Err()
}

// payload reads a row.
func (s *sqlite) payload(rec Record, buf []byte) ([]byte, error) {
	page := make([]byte, s.pageSize)
	if err := s.page(rec.page, page); err != nil {
		return nil, err
	}
	c, err := s.cell(page, rec)
	if err != nil {
		return nil, err
	}
	inAll := file{size: s.f.size + s.wal.size}
	b, err := inAll.room(buf, int64(min(c.size, math.MaxInt64)))
	if err != nil {
		return nil, err
	}
	read := copy(b, c.local)
	for next := c.overflow; read < len(b); {
		if err := s.page(next, page); err != nil {
			return nil, err
		}
		next = binary.BigEndian.Uint32(page)
		read += copy(b[read:], page[4:s.usable])
	}
	return b, nil
}

func (s *sqlite) read(rec Record, buf []byte) ([]byte, error) {
	payload, err := s.payload(rec, buf)
	if err != nil {
		return nil, err
	}
	columns, err := columnsOf(payload)
	if err != nil {
		return nil, err
	}
	if len(columns) != 2 || !columns[1].isBlob() {
		return nil, errors.New("the row has no header in it")
	}
	return columns[1].bytes, nil
}

// A column of a row: its type, and what is stored of it.
type column struct {
	kind  uint64
	bytes []byte
}

const sqliteMaxColumns = 16 // the table has 2, the schema 5

// columnsOf divides a row.
func columnsOf(payload []byte) ([]column, error) {
	r := wire.New("SQLite row", binary.BigEndian, payload)
	size := varint(r)
	kinds := r.Sub("SQLite row", int(min(size, math.MaxInt32))-int(r.Offset()))
	var columns []column
	for kinds.Len() > 0 {
		if len(columns) == sqliteMaxColumns {
			kinds.Failf("more than %d columns", sqliteMaxColumns)
			break
		}
		columns = append(columns, column{kind: varint(kinds)})
	}
	for i, c := range columns {
		columns[i].bytes = r.Bytes(c.size())
	}
	if kinds.Err() != nil {
		return nil, kinds.Err()
	}
	return columns, r.Finish()
}

// size is the size of a column in bytes, -1 of one that cannot be.
func (c column) size() int {
	switch {
	case c.kind <= 4:
		return int(c.kind)
	case c.kind == 5:
		return 6
	case c.kind <= 7:
		return 8
	case c.kind <= 9: // the constants 0 and 1
		return 0
	case c.kind >= 12:
		return int(min((c.kind-12)/2, math.MaxInt32))
	}
	return -1
}

func (c column) isBlob() bool { return c.kind >= 12 && c.kind%2 == 0 }

func (c column) integer() (int64, bool) {
	if c.kind == 8 || c.kind == 9 {
		return int64(c.kind - 8), true
	}
	if c.kind == 0 || c.kind > 6 {
		return 0, false
	}
	v := int64(int8(c.bytes[0]))
	for _, b := range c.bytes[1:] {
		v = v<<8 | int64(b)
	}
	return v, true
}

// varint reads an integer of SQLite's: 7 bits a byte, the first byte first,
// and all 8 of the ninth.
func varint(r *wire.Reader) uint64 {
	var v uint64
	for range 8 {
		b := r.U8()
		v = v<<7 | uint64(b&0x7f)
		if b < 0x80 {
			return v
		}
	}
	return v<<8 | uint64(r.U8())
}
