package modsig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	for _, sig := range []Signature{{PGP, []byte("signature")}, {PKCS7, nil}} {
		file := Append([]byte("list"), sig)
		payload, got, err := Split(file)
		if err != nil || string(payload) != "list" || got.Type != sig.Type || !bytes.Equal(got.Bytes, sig.Bytes) {
			t.Errorf("Split = %q, %v, %v", payload, got, err)
		}
	}
}

func TestNone(t *testing.T) {
	if b, _, err := Split([]byte("list")); !errors.Is(err, ErrNone) || string(b) != "list" {
		t.Errorf("Split = %q, %v", b, err)
	}
}

// Every way to damage a good trailer is refused. The kernel bounds none of it
// and crashes on some of them.
func TestDamaged(t *testing.T) {
	good := Append([]byte("list"), Signature{PGP, []byte("signature")})
	info := len(good) - TrailerSize
	length := func(n uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint32(b[info+8:], n); return b }
	}
	set := func(i int, v byte) func([]byte) []byte {
		return func(b []byte) []byte { b[info+i] = v; return b }
	}
	for name, damage := range map[string]func([]byte) []byte{
		"longer than the file": length(uint32(info + 1)),
		"2^31":                 length(1 << 31),
		"2^32-1":               length(1<<32 - 1),
		"algo":                 set(0, 1),
		"hash":                 set(1, 1),
		"id type":              set(2, 3),
		"signer":               set(3, 1),
		"key id":               set(4, 1),
		"pad":                  set(7, 1),
		"marker alone":         func(b []byte) []byte { return b[len(b)-len(Marker):] },
		"no room":              func(b []byte) []byte { return b[len(b)-len(Marker)-11:] },
	} {
		if b, s, err := Split(damage(bytes.Clone(good))); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%s: Split = %q, %v, %v", name, b, s, err)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(Append([]byte("list"), Signature{PGP, []byte("signature")}))
	f.Add([]byte(Marker))
	f.Fuzz(func(t *testing.T, file []byte) {
		payload, sig, err := Split(file)
		if err == nil && !bytes.Equal(Append(bytes.Clone(payload), sig), file) {
			t.Error("a file that was split does not come back")
		}
	})
}
