package rpmhdr_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"diglim/internal/digest"
	"diglim/internal/rpmtest"
	"diglim/internal/wire"
	"diglim/rpmhdr"
)

// hello has one file of every sort.
var hello = rpmtest.Package{
	Name: "hello",
	Algo: 8,
	Files: []rpmtest.File{
		rpmtest.Regular("/usr/bin/hello", 0o755, "#!/bin/sh\n"),
		rpmtest.Regular("/usr/share/doc/hello/README", 0o644, "read me"),
		{Path: "/usr/share/doc/hello", Mode: 0o040755},
		{Path: "/usr/bin/hi", Mode: 0o120777, Link: "hello"},
		{Path: "/var/log/hello", Mode: 0o100644, Flags: uint32(rpmhdr.FileGhost)},
	},
}

func TestFiles(t *testing.T) {
	p, err := rpmhdr.ParsePackage(hello.File(rpmtest.Signatures{}))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := p.Header.NEVRA(); err != nil || n.String() != "hello-1.0-1.noarch" {
		t.Errorf("NEVRA = %v, %v", n, err)
	}
	var got []string
	for f, err := range p.Header.Files() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %o %d %v %v %s %.14s", f.Path(), f.Mode, f.Size, f.IsRegular(), f.IsGhost(), f.Link, f.Digest))
	}
	want := []string{
		"/usr/bin/hello 100755 10 true false  sha256:a8076d3",
		"/usr/share/doc/hello/README 100644 7 true false  sha256:ab9b4bd",
		"/usr/share/doc/hello 40755 0 false false  none",
		"/usr/bin/hi 120777 0 false false hello none",
		"/var/log/hello 100644 0 true true  none",
	}
	for i := range want {
		if i >= len(got) || !strings.HasPrefix(got[i], want[i][:len(want[i])-7]) {
			t.Errorf("file %d: %q, want %q", i, got[min(i, len(got)-1)], want[i])
		}
	}
	if !bytes.Equal(p.Header.Signed(), hello.Header()) {
		t.Error("Signed is not the main header")
	}
}

func TestLongFileSizesAndMD5(t *testing.T) {
	p := rpmtest.Package{Name: "big", Files: []rpmtest.File{{Path: "/big", Mode: 0o100644, Digest: strings.Repeat("ab", 16)}},
		Extra: []rpmtest.Entry{rpmtest.Int64s(5008, 1<<40)}}
	h, err := rpmhdr.Parse(p.Header())
	if err != nil {
		t.Fatal(err)
	}
	for f, err := range h.Files() {
		if err != nil || f.Size != 1<<40 || f.Digest.Algorithm() != digest.MD5 {
			t.Errorf("file %+v, %v", f, err)
		}
	}
}

func TestSourcePackage(t *testing.T) {
	for want, p := range map[string]rpmtest.Package{
		"src":    {Name: "hello", Source: true},
		"nosrc":  {Name: "hello", Source: true, Extra: []rpmtest.Entry{rpmtest.Int32s(1051, 0)}},
		"noarch": {Name: "hello"},
	} {
		h, err := rpmhdr.Parse(p.Header())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := h.NEVRA(); err != nil || n.Arch != want {
			t.Errorf("Arch = %q, %v, want %q", n.Arch, err, want)
		}
	}
}

func TestSignatures(t *testing.T) {
	sigs := rpmtest.Signatures{RSA: []byte("rsa"), DSA: []byte("dsa"), OpenPGP: [][]byte{[]byte("one"), []byte("two")}}
	p, err := rpmhdr.ParsePackage(hello.File(sigs))
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.HeaderSignatures()
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, s := range got {
		text = append(text, fmt.Sprintf("%d %s", s.Tag, s.Packet))
	}
	if want := "278 one, 278 two, 268 rsa, 267 dsa"; strings.Join(text, ", ") != want {
		t.Errorf("signatures %v, want %s", text, want)
	}
	if s, err := p.PayloadSignatures(); err != nil || len(s) != 0 {
		t.Errorf("payload signatures %v, %v", s, err)
	}
}

// bad makes a header with one thing wrong.
func bad(entries func([]rpmtest.Entry) []rpmtest.Entry) []byte {
	return rpmtest.Header(rpmtest.RegionImmutable, entries(hello.Entries())...)
}

// hostile are headers with one thing wrong each, and what must be said of it.
func hostile() map[string][2]string {
	good := hello.Header()
	il := int(binary.BigEndian.Uint32(good[8:]))
	data := 16 + 16*il
	patch := func(at int, v uint32) string {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b[at:], v)
		return string(b)
	}
	entry := func(i, field int) int { return 16 + 16*i + 4*field }
	appended := func(e ...rpmtest.Entry) string {
		return string(bad(func(all []rpmtest.Entry) []rpmtest.Entry { return append(all, e...) }))
	}
	trailer := len(good) - 16
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(good[at:]) }
	return map[string][2]string{
		"empty":                       {"", "input ends early"},
		"other magic":                 {patch(0, 0x8eade802), "no header magic"},
		"reserved bytes":              {patch(4, 1), "no header magic"},
		"no entries":                  {string(rpmtest.Raw(nil, make([]byte, 16))), "no entries"},
		"65536 entries":               {patch(8, 65536), "65536 index entries, the limit is 65535"},
		"2^32-1 entries":              {patch(8, 1<<32-1), "the limit is"},
		"256 MiB of data":             {patch(12, 256<<20), "the limit is"},
		"one entry more":              {patch(8, uint32(il+1)), "input ends early"},
		"one entry less":              {patch(8, uint32(il-1)), "region trailer with tag"},
		"one byte of data more":       {patch(12, u32(12)+1), "input ends early"},
		"one byte of data less":       {patch(12, u32(12)-1), "the region ends at"},
		"trailing byte":               {string(good) + "x", "trailing bytes"},
		"no region":                   {patch(entry(0, 0), 1000), "not the region"},
		"signature region":            {string(rpmtest.Header(rpmtest.RegionSignatures, hello.Entries()...)), "not the region"},
		"region of another type":      {patch(entry(0, 1), 6), "region of type"},
		"region count":                {patch(entry(0, 3), 15), "region of type"},
		"region before the end":       {patch(entry(0, 2), 0), "the region ends at"},
		"region at -1":                {patch(entry(0, 2), 1<<32-1), "the region ends at"},
		"region trailer's tag":        {patch(trailer, 62), "region trailer with tag"},
		"region trailer's type":       {patch(trailer+4, 6), "region trailer of type"},
		"region trailer's count":      {patch(trailer+12, 0), "region trailer of type"},
		"region of fewer entries":     {patch(trailer+8, uint32(-(il-1)*16)), "bytes of index"},
		"region of more entries":      {patch(trailer+8, uint32(-(il+1)*16)), "bytes of index"},
		"region of positive size":     {patch(trailer+8, uint32(il*16)), "bytes of index"},
		"second region":               {patch(entry(1, 0), 63), "tag 63 in the wrong place"},
		"tag 0":                       {patch(entry(1, 0), 0), "in the wrong place"},
		"type null":                   {patch(entry(1, 1), 0), "not a type of data"},
		"type 10":                     {patch(entry(1, 1), 10), "not a type of data"},
		"count 0":                     {patch(entry(1, 3), 0), "count 0"},
		"string of count 2":           {patch(entry(1, 3), 2), "string with count 2"},
		"count 2^32-1":                {patch(entry(5, 3), 1<<32-1), "count 4294967295"},
		"more elements than data":     {patch(entry(5, 3), 1000), "do not fit"},
		"offset -1":                   {patch(entry(2, 2), 1<<32-1), "outside of the region"},
		"offset past the end":         {patch(entry(2, 2), uint32(len(good)-data)), "outside of the region"},
		"offsets out of order":        {patch(entry(3, 2), 0), "starts before"},
		"overlap":                     {patch(entry(2, 2), u32(entry(1, 2))+1), "0 of 1 strings"},
		"not aligned":                 {appended(rpmtest.String(6000, "x"), rpmtest.Entry{Tag: 6001, Type: 4, Count: 1, Data: []byte{0, 0, 0, 1}}), "not aligned"},
		"duplicate tag":               {appended(rpmtest.String(1000, "other")), "tag 1000 twice"},
		"string without end":          {appended(rpmtest.Entry{Tag: 6000, Type: 6, Count: 1, Data: []byte("x")}), "end within"},
		"fewer strings than count":    {appended(rpmtest.Entry{Tag: 6000, Type: 8, Count: 3, Data: []byte("a\x00b\x00")}), "2 of 3 strings"},
		"strings into the next entry": {appended(rpmtest.Entry{Tag: 6000, Type: 8, Count: 3, Data: []byte("a\x00b\x00")}, rpmtest.String(6001, "c")), "2 of 3 strings"},
		"2^28 strings":                {appended(rpmtest.Entry{Tag: 6000, Type: 8, Count: 1<<28 - 1, Data: []byte("a\x00")}), "1 of"},
		"integers overlap":            {patch(entry(6, 2), u32(entry(5, 2))+2), "do not fit"},
		"more directories than files": {string(bad(set(1118, rpmtest.Strings(1118, "/", "/", "/", "/", "/", "/")))), "tag 1118 has 6 elements for 5 files"},
		"path of 4097 bytes":          {string(bad(set(1118, rpmtest.Strings(1118, "/"+strings.Repeat("x", 4091), "/a/", "/b/")))), "path of 4097 bytes"},
		"file in directory 9":         {string(bad(set(1116, rpmtest.Int32s(1116, 0, 1, 9, 0, 3)))), "directory 9"},
		"fewer modes than files":      {string(bad(set(1030, rpmtest.Int16s(1030, 1, 2)))), "tag 1030 has 2 elements for 5 files"},
		"fewer sizes than files":      {string(bad(set(1028, rpmtest.Int32s(1028, 1)))), "tag 1028 has 1 elements"},
		"fewer digests than files":    {string(bad(set(1035, rpmtest.Strings(1035, "")))), "tag 1035 has 1 elements"},
		"fewer flags than files":      {string(bad(set(1037, rpmtest.Int32s(1037, 0)))), "tag 1037 has 1 elements"},
		"fewer links than files":      {string(bad(set(1036, rpmtest.Strings(1036, "")))), "tag 1036 has 1 elements"},
		"modes of another type":       {string(bad(set(1030, rpmtest.Int32s(1030, 1, 2, 3, 4, 5)))), "tag 1030 is of type int32"},
		"digest with odd digits":      {string(bad(set(1035, rpmtest.Strings(1035, "", "xyz", "", "", "")))), "file 1: sha256 digest of 3 hex digits"},
		"digest with other digits":    {string(bad(set(1035, rpmtest.Strings(1035, strings.Repeat("g", 64), "", "", "", "")))), "file 0: sha256 digest"},
		"digest of another algorithm": {string(bad(set(5011, rpmtest.Int32s(5011, 10)))), "sha512 digest of 64 hex digits"},
		"unknown digest algorithm":    {string(bad(set(5011, rpmtest.Int32s(5011, 99)))), "unknown OpenPGP hash algorithm 99"},
		"digest algorithm 256+8":      {string(bad(set(5011, rpmtest.Int32s(5011, 264)))), "not one algorithm"},
		"two digest algorithms":       {string(bad(set(5011, rpmtest.Int32s(5011, 8, 8)))), "not one algorithm"},
		"file list of rpm 3":          {string(rpmtest.Package{Name: "old", Extra: []rpmtest.Entry{rpmtest.Strings(1027, "/a", "/b")}}.Header()), "rpm 3"},
	}
}

// set replaces the entry with that tag.
func set(tag uint32, e rpmtest.Entry) func([]rpmtest.Entry) []rpmtest.Entry {
	return func(all []rpmtest.Entry) []rpmtest.Entry {
		for i := range all {
			if all[i].Tag == tag {
				all[i] = e
			}
		}
		return all
	}
}

// read reads all there is in a header.
func read(b []byte) error {
	h, err := rpmhdr.Parse(b)
	if err != nil {
		return err
	}
	if _, err := h.NEVRA(); err != nil {
		return err
	}
	for _, err := range h.Files() {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestHostileHeaders(t *testing.T) {
	if err := read(hello.Header()); err != nil {
		t.Fatal(err)
	}
	for name, c := range hostile() {
		if err := read([]byte(c[0])); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %v, want %q", name, err, c[1])
		}
	}
}

func TestTruncatedAtEveryOffset(t *testing.T) {
	good := hello.File(rpmtest.Signatures{RSA: []byte("rsa")})
	p, err := rpmhdr.ParsePackage(good)
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		_, err := rpmhdr.ParsePackage(good[:n])
		if want := int64(n) < p.Size; (err != nil) != want || want && !errors.Is(err, wire.ErrShort) {
			t.Errorf("first %d of %d bytes: %v", n, len(good), err)
		}
		_, _, fromFile := rpmhdr.ReadPackage(bytes.NewReader(good), int64(n), nil)
		if fmt.Sprint(fromFile) != fmt.Sprint(err) {
			t.Errorf("first %d bytes as a file: %v, as bytes: %v", n, fromFile, err)
		}
	}
}

func TestBadPackages(t *testing.T) {
	header := hello.Header()
	signatures := func(e ...rpmtest.Entry) []byte { return rpmtest.Header(rpmtest.RegionSignatures, e...) }
	good := rpmtest.Join(signatures(rpmtest.String(273, digest.Sum(digest.SHA256, header).Hex())), header)
	patch := func(at int, v byte) []byte { b := bytes.Clone(good); b[at] = v; return b }
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"lead magic":           {patch(0, 0), "not an RPM package"},
		"lead signature type":  {patch(79, 1), "signature type 1, must be 5"},
		"signature magic":      {patch(96, 0), "offset 96: no header magic"},
		"SHA-1":                {rpmtest.Join(signatures(rpmtest.String(269, strings.Repeat("0", 40))), header), "does not match"},
		"SHA-256":              {rpmtest.Join(signatures(rpmtest.String(273, strings.Repeat("0", 64))), header), "does not match"},
		"SHA3-256":             {rpmtest.Join(signatures(rpmtest.String(279, strings.Repeat("0", 64))), header), "does not match"},
		"SHA-256 too short":    {rpmtest.Join(signatures(rpmtest.String(273, "00")), header), "tag 273: sha256 digest of 2 hex digits"},
		"SHA-256 of a blob":    {rpmtest.Join(signatures(rpmtest.Bin(273, []byte("00"))), header), "tag 273 is of type bin"},
		"changed byte":         {patch(len(good)-300, good[len(good)-300]^1), ""},
		"immutable signatures": {rpmtest.Join(rpmtest.Header(rpmtest.RegionImmutable, rpmtest.String(1000, "x")), header), "not the region 62"},
	} {
		if _, err := rpmhdr.ParsePackage(c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := rpmhdr.ParsePackage(good); err != nil {
		t.Error(err)
	}
	if p, err := rpmhdr.ParsePackage(rpmtest.Join(signatures(rpmtest.Strings(278, "not base64!")), header)); err != nil {
		t.Error(err)
	} else if _, err := p.HeaderSignatures(); err == nil {
		t.Error("a signature that is not base64 is taken")
	}
	many := rpmtest.Signatures{}
	for range 33 {
		many.OpenPGP = append(many.OpenPGP, []byte("sig"))
	}
	if p, err := rpmhdr.ParsePackage(hello.File(many)); err != nil {
		t.Error(err)
	} else if _, err := p.HeaderSignatures(); err == nil {
		t.Error("33 signatures are taken")
	}
}

// Flipping any bit of a signed header changes what Signed returns, or is
// refused: there is no byte in it that a signature does not cover.
func TestEveryBitIsSigned(t *testing.T) {
	good := hello.Header()
	for i := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			if h, err := rpmhdr.Parse(b); err == nil && bytes.Equal(h.Signed(), good) {
				t.Fatalf("byte %d, bit %d is not in Signed", i, bit)
			}
		}
	}
}

// hostileSizes are headers of 8 MB that make careless readers slow or hungry.
func hostileSizes() map[string][]byte {
	const size = 8 << 20
	var manyEntries []rpmtest.Entry
	for i := range uint32(65_000) {
		manyEntries = append(manyEntries, rpmtest.String(10_000+i, strings.Repeat("x", 100)))
	}
	n := uint32(size / 24)
	names := strings.Repeat("x\x00", int(n))
	files := []rpmtest.Entry{
		rpmtest.String(1000, "big"), rpmtest.String(1001, "1"), rpmtest.String(1002, "1"), rpmtest.String(1022, "noarch"),
		rpmtest.Int32s(1028, make([]uint32, n)...), rpmtest.Int16s(1030, make([]uint16, n)...),
		{Tag: 1035, Type: 8, Count: n, Data: make([]byte, n)},
		rpmtest.Int32s(1037, make([]uint32, n)...), rpmtest.Int32s(1116, make([]uint32, n)...),
		{Tag: 1117, Type: 8, Count: n, Data: []byte(names)},
		{Tag: 1118, Type: 8, Count: n, Data: []byte(names)},
	}
	// every entry claims all the strings there are
	overlapping := rpmtest.Header(rpmtest.RegionImmutable, rpmtest.Entry{Tag: 6000, Type: 8, Count: 4 << 20, Data: make([]byte, 7<<20)})
	index := overlapping[16:48]
	var claims []byte
	for i := range uint32(60_000) {
		claims = rpmtest.AppendIndex(claims, 6001+i, 8, 0, 4<<20)
	}
	all := append(bytes.Clone(index), claims...)
	data := bytes.Clone(overlapping[48:])
	binary.BigEndian.PutUint32(data[len(data)-8:], uint32(-len(all)))
	return map[string][]byte{
		"65,000 entries":              rpmtest.Header(rpmtest.RegionImmutable, manyEntries...),
		"one file and directory each": rpmtest.Header(rpmtest.RegionImmutable, files...),
		"60,000 claims on one array":  rpmtest.Raw(all, data),
	}
}

// Reading a hostile header takes at most twice its size in memory.
func TestMemory(t *testing.T) {
	for name, b := range hostileSizes() {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := read(b)
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d bytes of header, %d allocated: %v", name, len(b), used, err)
		if used > 2*uint64(len(b)) {
			t.Errorf("%s: %d bytes allocated for a header of %d", name, used, len(b))
		}
	}
}

// A file that claims 256 MiB of header and has none costs nothing.
func TestClaimedSizeIsNotAllocated(t *testing.T) {
	file := hello.File(rpmtest.Signatures{})
	p, err := rpmhdr.ParsePackage(file)
	if err != nil {
		t.Fatal(err)
	}
	at := int(p.Size) - len(p.Header.Signed())
	binary.BigEndian.PutUint32(file[at+12:], rpmhdr.MaxData)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err = rpmhdr.ReadPackage(bytes.NewReader(file), int64(len(file)), nil)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, wire.ErrShort) {
		t.Error(err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes allocated", used)
	}
}

func BenchmarkHostile(b *testing.B) {
	for name, data := range hostileSizes() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				_ = read(data)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(hello.Header())
	f.Add(rpmtest.Package{Name: "empty"}.Header())
	for _, c := range hostile() {
		f.Add([]byte(c[0]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := rpmhdr.Parse(b)
		if err != nil {
			return
		}
		if !bytes.Equal(h.Signed(), b) {
			t.Error("Signed is not what was parsed")
		}
		_ = read(b)
	})
}

func FuzzParsePackage(f *testing.F) {
	f.Add(hello.File(rpmtest.Signatures{RSA: []byte("rsa"), OpenPGP: [][]byte{[]byte("one")}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := rpmhdr.ParsePackage(b)
		if err != nil {
			return
		}
		if _, err := p.HeaderSignatures(); err == nil {
			_, _ = p.PayloadSignatures()
		}
		again, _, err := rpmhdr.ReadPackage(bytes.NewReader(b), int64(len(b)), nil)
		if err != nil || !bytes.Equal(again.Header.Signed(), p.Header.Signed()) || again.Size != p.Size {
			t.Error("a file is read otherwise than its bytes")
		}
		for _, err := range p.Header.Files() {
			if err != nil {
				return
			}
		}
	})
}
