package rpmdb

import (
	"encoding/binary"
	"fmt"
	"maps"
)

const (
	walHeader = 32
	walFrame  = 24 // bytes before the page of a frame

	walMagic = 0x377f0682 // and 1 more where checksums are over big-endian words

	// walMax is the limit on a write-ahead log in bytes. SQLite starts to empty it
	// at 1,000 pages.
	walMax = 256 << 20
)

// readWAL finds the pages that are newer in the write-ahead log than in the
// database (https://sqlite.org/fileformat2.html#the_write_ahead_log). rpm
// leaves such a log while it works, and when it is killed. SQLite itself can
// read one only after writing an index of it beside the database.
//
// The log ends where a checksum says so, and counts up to the last frame that
// ends a transaction. A log that does not start as one is an old one.
func (s *sqlite) readWAL() error {
	const record = "SQLite write-ahead log"
	if s.wal.size < walHeader {
		return nil
	}
	if s.wal.size > walMax {
		return fmt.Errorf("%s: %d bytes, the limit is %d", record, s.wal.size, walMax)
	}
	head, err := s.wal.bytes(record, 0, walHeader)
	if err != nil {
		return err
	}
	u32 := func(b []byte, i int) uint32 { return binary.BigEndian.Uint32(b[4*i:]) }
	var sum walSum
	switch u32(head, 0) {
	case walMagic:
		sum.order = binary.LittleEndian
	case walMagic + 1:
		sum.order = binary.BigEndian
	default:
		return nil
	}
	sum.add(head[:24])
	if !sum.is(u32(head, 6), u32(head, 7)) {
		return nil
	}
	if size := u32(head, 2); int64(size) != int64(s.pageSize) {
		return fmt.Errorf("%s: pages of %d bytes, the database has %d", record, size, s.pageSize)
	}
	committed, open := map[uint32]int64{}, map[uint32]int64{}
	frame := make([]byte, walFrame+s.pageSize)
	for at := int64(walHeader); at+int64(len(frame)) <= s.wal.size; at += int64(len(frame)) {
		if err := s.wal.read(record, frame, at); err != nil {
			return err
		}
		sum.add(frame[:8])
		sum.add(frame[walFrame:])
		page, pages := u32(frame, 0), u32(frame, 1)
		sameSalt := u32(frame, 2) == u32(head, 4) && u32(frame, 3) == u32(head, 5)
		if page == 0 || !sameSalt || !sum.is(u32(frame, 4), u32(frame, 5)) {
			break
		}
		open[page] = at + walFrame
		if pages != 0 { // ends a transaction: so many pages has the database now
			maps.Copy(committed, open)
			clear(open)
			s.pages = pages
		}
	}
	s.inWAL = committed
	return nil
}

// walSum is the running checksum of a write-ahead log.
type walSum struct {
	order  binary.ByteOrder
	s0, s1 uint32
}

// add adds bytes, a multiple of 8.
func (c *walSum) add(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		c.s0 += c.order.Uint32(b) + c.s1
		c.s1 += c.order.Uint32(b[4:]) + c.s0
	}
}

func (c *walSum) is(s0, s1 uint32) bool { return c.s0 == s0 && c.s1 == s1 }
