// Package wire reads binary structures from a byte slice through a bounded
// cursor.
//
// The first error sticks: after it every read returns zero values, so a parser
// reads a whole record and asks once whether all of it was there. Errors name
// the record and the absolute offset at which reading failed. Nothing is
// copied: byte slices returned alias the input.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrShort says that the input ends before the record does.
var ErrShort = errors.New("input ends early")

// ErrTrailing says that bytes are left over where a record ought to end.
var ErrTrailing = errors.New("trailing bytes")

// An Error says what was being read, and at which byte of the input.
type Error struct {
	Record string // what was being read, e.g. "rpm header"
	Offset int64  // bytes from the start of the input
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: offset %d: %v", e.Record, e.Offset, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// A Reader is a cursor over a byte slice. Create one with New.
type Reader struct {
	record string
	order  binary.ByteOrder
	big    bool // order is big-endian; to ask it takes longer than to read
	data   []byte
	pos    int
	base   int64
	err    error
}

// New returns a cursor over data. The record name appears in errors; order
// decides how integers are read.
func New(record string, order binary.ByteOrder, data []byte) *Reader {
	return &Reader{record: record, order: order, big: order == binary.BigEndian, data: data}
}

// Reset makes r a cursor over other data that starts at byte base of something
// larger, without an error.
func (r *Reader) Reset(data []byte, base int64) { r.data, r.base, r.pos, r.err = data, base, 0, nil }

// At says that the input starts at byte base of something larger, so that
// offsets in errors count from there. It returns r.
func (r *Reader) At(base int64) *Reader {
	r.base = base
	return r
}

// Record renames what is being read, for the errors from here on.
func (r *Reader) Record(name string) { r.record = name }

// Err returns the first error, or nil.
func (r *Reader) Err() error { return r.err }

// Offset is the absolute offset of the next byte.
func (r *Reader) Offset() int64 { return r.base + int64(r.pos) }

// Len is the number of bytes left; it is 0 after an error.
func (r *Reader) Len() int {
	if r.err != nil {
		return 0
	}
	return len(r.data) - r.pos
}

// Fail records an error at the current offset, unless there is one already.
func (r *Reader) Fail(err error) { r.FailAt(r.Offset(), err) }

// Failf is Fail with a format.
func (r *Reader) Failf(format string, args ...any) {
	r.FailAt(r.Offset(), fmt.Errorf(format, args...))
}

// FailAt records an error at an absolute offset, unless there is one already.
func (r *Reader) FailAt(offset int64, err error) {
	if r.err == nil {
		r.err = &Error{Record: r.record, Offset: offset, Err: err}
	}
}

// Bytes returns the next n bytes, aliasing the input. It returns nil once
// there is an error; an n that is negative or larger than what is left is one.
func (r *Reader) Bytes(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.data)-r.pos {
		r.Fail(fmt.Errorf("%w: %d bytes wanted, %d left", ErrShort, n, len(r.data)-r.pos))
		return nil
	}
	b := r.data[r.pos : r.pos+n : r.pos+n]
	r.pos += n
	return b
}

// Rest returns all bytes that are left.
func (r *Reader) Rest() []byte { return r.Bytes(r.Len()) }

// U8 reads one byte.
func (r *Reader) U8() uint8 {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 reads a 2-byte integer.
func (r *Reader) U16() uint16 {
	if b := r.Bytes(2); b != nil {
		return r.order.Uint16(b)
	}
	return 0
}

// U32 reads a 4-byte integer.
func (r *Reader) U32() uint32 {
	b := r.Bytes(4)
	switch {
	case b == nil:
		return 0
	case r.big:
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

// U64 reads an 8-byte integer.
func (r *Reader) U64() uint64 {
	if b := r.Bytes(8); b != nil {
		return r.order.Uint64(b)
	}
	return 0
}

// Count reads a 4-byte integer that says how many of something follow, and
// refuses one above limit. Use it before every allocation whose size comes
// from the input.
func (r *Reader) Count(what string, limit int) int {
	at := r.Offset()
	n := r.U32()
	if r.err == nil && uint64(n) > uint64(limit) {
		r.FailAt(at, fmt.Errorf("%d %s, the limit is %d", n, what, limit))
		return 0
	}
	return int(n)
}

// Sub returns a cursor over the next n bytes, with offsets that continue r's.
// If they are not there the error is r's, and the cursor returned has it too.
func (r *Reader) Sub(record string, n int) *Reader {
	at := r.Offset()
	b := r.Bytes(n)
	sub := New(record, r.order, b).At(at)
	sub.err = r.err
	return sub
}

// Finish returns the first error; leftover bytes are one.
func (r *Reader) Finish() error {
	if n := r.Len(); n > 0 {
		r.Fail(fmt.Errorf("%w: %d", ErrTrailing, n))
	}
	return r.err
}
