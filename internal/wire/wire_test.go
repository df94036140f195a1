package wire

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

func TestReader(t *testing.T) {
	r := New("thing", binary.BigEndian, []byte{1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 'a', 'b'})
	if a, b, c, d := r.U8(), r.U16(), r.U32(), r.U64(); a != 1 || b != 2 || c != 3 || d != 4 {
		t.Errorf("read %d %d %d %d", a, b, c, d)
	}
	if got := string(r.Rest()); got != "ab" {
		t.Errorf("Rest = %q", got)
	}
	if err := r.Finish(); err != nil {
		t.Error(err)
	}
}

func TestFirstErrorSticks(t *testing.T) {
	r := New("thing", binary.LittleEndian, []byte{1, 2, 3}).At(100)
	r.U16()
	if r.U32() != 0 || r.Bytes(1) != nil || r.U8() != 0 || r.Len() != 0 {
		t.Error("reads after an error return something")
	}
	r.Failf("later")
	err := r.Finish()
	if !errors.Is(err, ErrShort) {
		t.Fatalf("error %v is not ErrShort", err)
	}
	var at *Error
	if !errors.As(err, &at) || at.Offset != 102 || at.Record != "thing" {
		t.Errorf("error %v does not say thing, offset 102", err)
	}
}

func TestFinishRefusesLeftovers(t *testing.T) {
	r := New("thing", binary.LittleEndian, []byte{1, 2, 3})
	r.U8()
	if err := r.Finish(); !errors.Is(err, ErrTrailing) || !strings.Contains(err.Error(), "offset 1") {
		t.Errorf("Finish = %v", err)
	}
}

func TestCountMeetsItsLimit(t *testing.T) {
	r := New("thing", binary.LittleEndian, []byte{4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	if n := r.Count("wheels", 4); n != 4 {
		t.Errorf("Count = %d", n)
	}
	if n := r.Count("wheels", 4); n != 0 || r.Err() == nil || !strings.Contains(r.Err().Error(), "offset 4: 4294967295 wheels") {
		t.Errorf("Count = %d, %v", n, r.Err())
	}
}

func TestSubKeepsOffsets(t *testing.T) {
	r := New("outer", binary.LittleEndian, []byte{9, 9, 1, 2, 3})
	r.Bytes(2)
	s := r.Sub("inner", 2)
	s.U32()
	if err := s.Err(); err == nil || !strings.HasPrefix(err.Error(), "inner: offset 2: ") {
		t.Errorf("inner error: %v", err)
	}
	if r.Err() != nil || r.Len() != 1 {
		t.Errorf("outer: %v, %d left", r.Err(), r.Len())
	}
	if s := r.Sub("inner", 7); s.Err() == nil || r.Err() == nil {
		t.Error("a Sub past the end gives no error")
	}
}

func TestNegativeLength(t *testing.T) {
	r := New("thing", binary.LittleEndian, []byte{1})
	if r.Bytes(-1) != nil || r.Err() == nil {
		t.Error("a negative length is accepted")
	}
}

// A cursor that is used again begins anew, in the same byte order.
func TestReset(t *testing.T) {
	for _, order := range []interface {
		binary.ByteOrder
		binary.AppendByteOrder
	}{binary.BigEndian, binary.LittleEndian} {
		r := New("record", order, []byte{1})
		if r.U32(); r.Err() == nil {
			t.Error("no error")
		}
		r.Reset(order.AppendUint32(nil, 0x01020304), 100)
		if n := r.U32(); n != 0x01020304 || r.Err() != nil || r.Offset() != 104 || r.Len() != 0 {
			t.Errorf("%s: %#x, %v, offset %d, %d left", order, n, r.Err(), r.Offset(), r.Len())
		}
	}
}
