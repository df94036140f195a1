package digestlist_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"diglim/digestlist"
	"diglim/internal/corpus"
	"diglim/internal/digest"
)

func sha1sum(s string) digest.Digest { return digest.Sum(digest.SHA1, []byte(s)) }

// What the original generator made of real files comes out again.
func TestTLVVectors(t *testing.T) {
	for name, want := range map[string]digestlist.TLV{
		"tlv-v6-one-sha256": {Algorithm: digest.SHA256, Entries: []digestlist.TLVEntry{{Digest: abc, Path: "/t/a"}}},
		"tlv-v6-two-sha1": {Algorithm: digest.SHA1, Entries: []digestlist.TLVEntry{
			{Digest: mustDigest(t, "sha1:8714e0ef31edb00e33683f575274379955b3526c"), Path: "/t/b"}, {Digest: sha1sum("abc"), Path: "/t/a"}}},
	} {
		vector := corpus.Read(t, "digestlist/vectors", name)
		got, err := digestlist.ParseTLV(vector)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if b, err := digestlist.AppendTLV([]byte("x"), want); err != nil || string(b) != "x"+string(vector) {
			t.Errorf("%s: written %x, %v", name, b, err)
		}
	}
	if l, err := digestlist.ParseTLV(corpus.Read(t, "digestlist/vectors/tlv-v5-one-sha256")); !errors.Is(err, digestlist.ErrOldTLV) {
		t.Errorf("the layout of version 5: %v, %v", l, err)
	}
}

func mustDigest(t testing.TB, s string) digest.Digest {
	t.Helper()
	d, err := digest.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// goodTLV has two entries: at byte 18, with a path, and at byte 73, without.
func goodTLV(t testing.TB) []byte {
	t.Helper()
	b, err := digestlist.AppendTLV(nil, digestlist.TLV{Algorithm: digest.SHA256, Entries: []digestlist.TLVEntry{{Digest: abc, Path: "/t/a"}, {Digest: x}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBadTLV(t *testing.T) {
	good := goodTLV(t)
	if _, err := digestlist.ParseTLV(good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if l, err := digestlist.ParseTLV(good[:n]); err == nil {
			t.Errorf("the first %d of %d bytes: %v", n, len(good), l)
		}
	}
	const first, second = 18, 73
	u16 := func(at int, v uint16) []byte {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint16(b[at:], v)
		return b
	}
	u32 := func(at int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b[at:], v)
		return b
	}
	set := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	// the first entry with another path, its sizes right
	path := func(p string) []byte {
		b := bytes.Clone(good[:first])
		b = binary.BigEndian.AppendUint32(append(b, 0, 2), uint32(6+32+6+len(p)))
		b = append(b, good[first+6:first+6+6+32]...)
		b = binary.BigEndian.AppendUint32(append(b, 0, 1), uint32(len(p)))
		return append(append(b, p...), good[second:]...)
	}
	if _, err := digestlist.ParseTLV(path("/" + strings.Repeat("x", 4094) + "\x00")); err != nil {
		t.Errorf("the longest path: %v", err)
	}
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"entry first":                    {good[first:], "tlv algorithm: offset 0: field 2, must be 0"},
		"count first":                    {good[8:], "field 1, must be 0"},
		"field 3":                        {u16(first, 3), "tlv entry 0: offset 18: field 3, must be 2"},
		"algorithm again":                {u16(8, 0), "tlv count: offset 8: field 0, must be 1"},
		"no algorithm, no count":         {nil, "ends early"},
		"algorithm 23":                   {u16(6, 23), "tlv algorithm: offset 6: unknown kernel hash algorithm 23"},
		"algorithm of a size":            {u16(6, 2), "sha1 digest of 32 bytes"},
		"algorithm of 1 byte":            {append([]byte{0, 0, 0, 0, 0, 1, 4}, good[8:]...), "ends early"},
		"algorithm of 4 bytes":           {append([]byte{0, 0, 0, 0, 0, 4, 0, 4, 0, 0}, good[8:]...), "trailing"},
		"algorithm of 0 bytes":           {append([]byte{0, 0, 0, 0, 0, 0}, good...), "layout of versions 3 to 5"},
		"count of 2 bytes":               {append(bytes.Clone(good[:8]), append([]byte{0, 1, 0, 0, 0, 2, 0, 2}, good[first:]...)...), "ends early"},
		"count 1":                        {u32(14, 1), "offset 73: trailing bytes"},
		"count 3":                        {u32(14, 3), "tlv count: offset 14: 3 entries"},
		"count 2^32-1":                   {u32(14, 1<<32-1), "4294967295 entries"},
		"entry of 0 bytes":               {u32(first+2, 0), "ends early"},
		"entry of 2^32-1":                {u32(first+2, 1<<32-1), "4294967295 bytes, the limit is"},
		"entry one too short":            {u32(first+2, 48), "tlv path: offset 64: 5 bytes, the limit is 4"},
		"entry one too long":             {u32(first+2, 50), "trailing"},
		"digest second":                  {u16(first+6, 1), "tlv digest: offset 24: field 1, must be 0"},
		"digest of 31":                   {u32(first+8, 31), "sha256 digest of 31 bytes"},
		"digest of 2^31":                 {u32(first+8, 1<<31), "2147483648 bytes"},
		"digest twice":                   {u16(first+6+6+32, 0), "tlv path: offset 62: field 0, must be 1"},
		"field 2 in an entry":            {u16(first+6+6+32, 2), "field 2, must be 1"},
		"path without NUL":               {set(second-1, 'x'), "does not end in a NUL"},
		"path with two NULs":             {set(second-2, 0), "NUL in a path"},
		"empty path":                     {path("\x00"), "empty path"},
		"path of no bytes":               {path(""), "does not end in a NUL"},
		"path too long":                  {path("/" + strings.Repeat("x", 4095) + "\x00"), "path of 4096 bytes, the limit is 4095"},
		"trailing byte":                  {append(bytes.Clone(good), 0), "tlv list: offset 117: trailing bytes"},
		"trailing entry":                 {append(bytes.Clone(good), good[second:]...), "trailing bytes"},
		"compact list":                   {[]byte{1, 0, 1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "field 256, must be 0"},
		"zeros":                          {make([]byte, 64), "versions 3 to 5"},
		"little-endian":                  {[]byte{0, 0, 2, 0, 0, 0, 4, 0, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0}, "33554432 bytes"},
		"the second entry's size is big": {u32(second+2, 39), "39 bytes, the limit is 38"},
	} {
		if l, err := digestlist.ParseTLV(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", name, l, err, c.want)
		}
	}
}

func TestBadTLVEntries(t *testing.T) {
	for name, l := range map[string]digestlist.TLV{
		"no algorithm":      {},
		"digest of another": {Algorithm: digest.SM3, Entries: []digestlist.TLVEntry{{Digest: abc}}},
		"no digest":         {Algorithm: digest.SHA256, Entries: []digestlist.TLVEntry{{Path: "/a"}}},
		"NUL":               {Algorithm: digest.SHA256, Entries: []digestlist.TLVEntry{{Digest: abc, Path: "/a\x00b"}}},
		"long path":         {Algorithm: digest.SHA256, Entries: []digestlist.TLVEntry{{Digest: abc, Path: strings.Repeat("x", 4096)}}},
	} {
		if b, err := digestlist.AppendTLV(nil, l); err == nil {
			t.Errorf("%s: %x", name, b)
		}
	}
}

// A count that the bytes behind it cannot hold costs no memory.
func TestTLVMemory(t *testing.T) {
	good := goodTLV(t)
	b := append(bytes.Clone(good), make([]byte, 1<<20)...)
	binary.BigEndian.PutUint32(b[14:], (1<<20+uint32(len(good))-18)/44)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := digestlist.ParseTLV(b); err == nil {
		t.Error("zeros are entries")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes allocated for a list of %d", n, len(b))
	}
}

func FuzzParseTLV(f *testing.F) {
	f.Add(goodTLV(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := digestlist.ParseTLV(b)
		if err != nil {
			return
		}
		again, err := digestlist.AppendTLV(nil, l)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is written again as %x, %v", b, again, err)
		}
	})
}
