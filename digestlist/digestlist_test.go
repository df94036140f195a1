package digestlist_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"diglim/digestlist"
	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/internal/rpmtest"
	"diglim/rpmhdr"
)

var (
	abc    = digest.Sum(digest.SHA256, []byte("abc"))
	script = digest.Sum(digest.SHA256, []byte("#!/bin/sh\n"))
	x      = digest.Sum(digest.SHA256, []byte("x"))
)

func file(m digestlist.Modifiers, d ...digest.Digest) digestlist.Block {
	return digestlist.Block{Type: digestlist.File, Modifiers: m, Algorithm: d[0].Algorithm(), Digests: d}
}

// The vectors were made by the original tools, or derived by hand from what
// the original kernel reads.
func TestCompactVectors(t *testing.T) {
	for name, c := range map[string]struct {
		blocks []digestlist.Block
		want   string
	}{
		"one immutable file": {[]digestlist.Block{file(digestlist.Immutable, script)},
			"01000100010004000100000020000000" + script.Hex()},
		"two blocks": {[]digestlist.Block{file(0, abc), file(digestlist.Immutable, script, x)},
			"01000100000004000100000020000000" + abc.Hex() + "01000100010004000200000040000000" + script.Hex() + x.Hex()},
		"parser": {[]digestlist.Block{{Type: digestlist.Parser, Algorithm: digest.SHA256, Digests: []digest.Digest{abc}}},
			"01000000000004000100000020000000" + abc.Hex()},
		"empty blocks are left out": {[]digestlist.Block{{Type: digestlist.File}, file(0, abc), {Type: digestlist.File}},
			"01000100000004000100000020000000" + abc.Hex()},
	} {
		got, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, c.blocks)
		if err != nil || hex.EncodeToString(got) != c.want {
			t.Errorf("%s: %x, %v", name, got, err)
			continue
		}
		blocks, err := digestlist.ParseCompact(digestlist.V3, digestlist.LittleEndian, got)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		again, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, blocks)
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("%s: written again %x, %v", name, again, err)
		}
	}
}

// What the original kernel refuses is refused.
func TestBadCompact(t *testing.T) {
	good, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{
		file(0, abc), file(digestlist.Immutable, digest.Sum(digest.SHA1, []byte("x")))})
	if err != nil {
		t.Fatal(err)
	}
	const second = 16 + 32 // where the second block starts
	for n := range good {
		if _, err := digestlist.ParseCompact(digestlist.V3, digestlist.LittleEndian, good[:n]); (err == nil) != (n == 0 || n == second) {
			t.Errorf("the first %d of %d bytes: %v", n, len(good), err)
		}
	}
	u16 := func(at int, v uint16) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint16(b[at:], v)
		return b
	}
	u32 := func(at int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"version 0":           {u16(0, 0), "block 0: offset 0: version 0"},
		"version 2":           {u16(0, 2), "version 2"},
		"reserved":            {u16(0, 0x101), "offset 1: reserved byte is 1"},
		"reserved, 2nd block": {u16(second, 0x101), "block 1: offset 49: reserved"},
		"digest list type":    {u16(2, 3), "offset 2: type 3"},
		"type 4":              {u16(2, 4), "type 4"},
		"type 256":            {u16(2, 256), "type 256"},
		"algorithm 20":        {u16(6, 20), "hash algorithm 20"},
		"algorithm 65535":     {u16(6, 65535), "hash algorithm 65535"},
		"algorithm of a size": {u16(6, 2), "32 bytes of data for 1 digests of sha1"},
		"count 0":             {u32(8, 0), "32 bytes of data for 0 digests"},
		"count 2":             {u32(8, 2), "for 2 digests"},
		"count 2^27, size 0":  {u32(8, 1<<27), "for 134217728 digests"},
		"size 2^32-1":         {u32(12, 1<<32-1), "4294967295 bytes"},
		"trailing byte":       {append(bytes.Clone(good), 0), "block 2: "},
		"trailing header":     {append(bytes.Clone(good), make([]byte, 16)...), "version 0"},
	} {
		if _, err := digestlist.ParseCompact(digestlist.V3, digestlist.LittleEndian, c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := digestlist.ParseCompact(0, digestlist.LittleEndian, good); err == nil {
		t.Error("a list of no dialect is read")
	}
}

// The same list for openEuler, on machines of either byte order, differs in the
// numbers of its types and in nothing else.
func TestOpenEuler(t *testing.T) {
	a := digest.Sum(digest.SHA1, []byte("abc"))
	blocks := []digestlist.Block{
		{Type: digestlist.Key, Algorithm: digest.SHA256, Digests: []digest.Digest{x}},
		{Type: digestlist.Parser, Algorithm: digest.SHA256, Digests: []digest.Digest{script}},
		file(digestlist.Immutable, abc),
		{Type: digestlist.Metadata, Algorithm: digest.SHA1, Digests: []digest.Digest{a}},
	}
	for e, want := range map[digestlist.Endian]string{
		digestlist.LittleEndian: "01000000000004000100000020000000" + x.Hex() + "01000100000004000100000020000000" + script.Hex() +
			"01000200010004000100000020000000" + abc.Hex() + "01000300000002000100000014000000" + a.Hex(),
		digestlist.BigEndian: "01000000000000040000000100000020" + x.Hex() + "01000001000000040000000100000020" + script.Hex() +
			"01000002000100040000000100000020" + abc.Hex() + "01000003000000020000000100000014" + a.Hex(),
	} {
		got, err := digestlist.AppendCompact(nil, digestlist.OpenEuler, e, blocks)
		if err != nil || hex.EncodeToString(got) != want {
			t.Fatalf("%s: %x, %v", e, got, err)
		}
		back, err := digestlist.ParseCompact(digestlist.OpenEuler, e, got)
		if err != nil || !reflect.DeepEqual(back, blocks) {
			t.Errorf("%s: read again %v, %v", e, back, err)
		}
		got[1] = 7 // reserved, and nothing to that kernel
		if back, err := digestlist.ParseCompact(digestlist.OpenEuler, e, got); err != nil || !reflect.DeepEqual(back, blocks) {
			t.Errorf("%s, reserved byte 7: %v, %v", e, back, err)
		}
		got[1] = 0
		// In the other byte order the sizes do not fit.
		if back, err := digestlist.ParseCompact(digestlist.OpenEuler, digestlist.LittleEndian+digestlist.BigEndian-e, got); err == nil {
			t.Errorf("%s, read in the other order: %v", e, back)
		}
		got[2], got[3] = 4, 4
		if _, err := digestlist.ParseCompact(digestlist.OpenEuler, e, got); err == nil || !strings.Contains(err.Error(), "offset 2: type 1028") {
			t.Errorf("%s, type 1028: %v", e, err)
		}
	}
	// What the one calls a file is a parser to the other: only the caller knows.
	v3, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, blocks[2:3])
	if err != nil {
		t.Fatal(err)
	}
	back, err := digestlist.ParseCompact(digestlist.OpenEuler, digestlist.LittleEndian, v3)
	if err != nil || back[0].Type != digestlist.Parser {
		t.Errorf("a file of v3 is a %v of openeuler, %v", back, err)
	}
	if b, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, blocks); err == nil || !strings.Contains(err.Error(), "has no type key") {
		t.Errorf("a key in v3: %x, %v", b, err)
	}
}

// A list of fs-verity digests is one to the gate alone: to every kernel that
// takes compact lists, in either byte order, it is malformed.
func TestVerity(t *testing.T) {
	long := digest.Sum(digest.SHA512, []byte("x"))
	verity := func(d ...digest.Digest) digestlist.Block {
		return digestlist.Block{Type: digestlist.Verity, Algorithm: d[0].Algorithm(), Digests: d}
	}
	blocks := []digestlist.Block{
		{Type: digestlist.Parser, Algorithm: digest.SHA256, Digests: []digest.Digest{script}},
		file(digestlist.Immutable, abc), verity(x), verity(long)}
	const header = "0100" + "0001" + "0000"
	want := "01000000000004000100000020000000" + script.Hex() + "01000100010004000100000020000000" + abc.Hex() +
		header + "04000100000020000000" + x.Hex() + header + "06000100000040000000" + long.Hex()
	b, err := digestlist.AppendCompact(nil, digestlist.BPF, digestlist.LittleEndian, blocks)
	if err != nil || hex.EncodeToString(b) != want {
		t.Fatalf("%x, %v", b, err)
	}
	back, err := digestlist.ParseCompact(digestlist.BPF, digestlist.LittleEndian, b)
	if err != nil || !reflect.DeepEqual(back, blocks) {
		t.Errorf("%v, %v", back, err)
	}

	for _, d := range []digest.Digest{x, long} {
		b, err := digestlist.AppendCompact(nil, digestlist.BPF, digestlist.LittleEndian, []digestlist.Block{verity(d)})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layouts {
			if l.d == digestlist.BPF {
				continue
			}
			if back, err := digestlist.ParseCompact(l.d, l.e, b); err == nil || !strings.Contains(err.Error(), " is not known") {
				t.Errorf("%s, %s endian: %v, %v", l.d, l.e, back, err)
			}
			if b, err := digestlist.AppendCompact(nil, l.d, l.e, []digestlist.Block{verity(d)}); err == nil {
				t.Errorf("%s, %s endian: %x", l.d, l.e, b)
			}
		}
	}
	for _, d := range []digest.Digest{digest.Sum(digest.SHA1, nil), digest.Sum(digest.SHA384, nil)} {
		if b, err := digestlist.AppendCompact(nil, digestlist.BPF, digestlist.LittleEndian, []digestlist.Block{verity(d)}); err == nil {
			t.Errorf("%s: %x", d, b)
		}
		bad := d.Append([]byte{1, 0, 0, 1, 0, 0, byte(d.Algorithm().Kernel()), 0, 1, 0, 0, 0, byte(d.Algorithm().Size()), 0, 0, 0})
		if back, err := digestlist.ParseCompact(digestlist.BPF, digestlist.LittleEndian, bad); err == nil || !strings.Contains(err.Error(), "offset 6: verity digests of") {
			t.Errorf("%s: %v, %v", d, back, err)
		}
	}
	for _, typ := range []digestlist.Type{digestlist.Metadata, digestlist.Key} {
		if b, err := digestlist.AppendCompact(nil, digestlist.BPF, digestlist.LittleEndian, []digestlist.Block{{Type: typ, Algorithm: digest.SHA256, Digests: []digest.Digest{x}}}); err == nil {
			t.Errorf("%s: %x", typ, b)
		}
	}
	if back, err := digestlist.ParseCompact(digestlist.BPF, digestlist.LittleEndian, []byte("\x01\x00\x02\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00")); err == nil {
		t.Errorf("metadata: %v", back)
	}
}

func TestLayouts(t *testing.T) {
	for _, c := range []struct {
		d  digestlist.Dialect
		e  digestlist.Endian
		ok bool
	}{
		{digestlist.V3, digestlist.LittleEndian, true},
		{digestlist.OpenEuler, digestlist.LittleEndian, true},
		{digestlist.OpenEuler, digestlist.BigEndian, true},
		{digestlist.BPF, digestlist.LittleEndian, true},
		{digestlist.BPF, digestlist.BigEndian, false},
		{digestlist.V3, digestlist.BigEndian, false},
		{digestlist.V3, 0, false},
		{digestlist.OpenEuler, 0, false},
		{digestlist.OpenEuler, 3, false},
		{0, digestlist.LittleEndian, false},
		{4, digestlist.LittleEndian, false},
	} {
		_, err := digestlist.ParseCompact(c.d, c.e, nil)
		_, err2 := digestlist.AppendCompact(nil, c.d, c.e, nil)
		if (err == nil) != c.ok || (err2 == nil) != c.ok {
			t.Errorf("%s, %s: %v, %v", c.d, c.e, err, err2)
		}
		if d, err := digestlist.ParseDialect(c.d.String()); err == nil && d != c.d {
			t.Errorf("%s is read as %s", c.d, d)
		}
		if e, err := digestlist.ParseEndian(c.e.String()); err == nil && e != c.e {
			t.Errorf("%s is read as %s", c.e, e)
		}
	}
}

func TestBadBlocks(t *testing.T) {
	sha3 := digest.Sum(digest.SHA3_256, nil)
	for name, b := range map[string]digestlist.Block{
		"no type":                 {Algorithm: digest.SHA256, Digests: []digest.Digest{abc}},
		"unknown type":            {Type: 9, Algorithm: digest.SHA256, Digests: []digest.Digest{abc}},
		"no algorithm":            {Type: digestlist.File, Digests: []digest.Digest{abc}},
		"digest of another":       {Type: digestlist.File, Algorithm: digest.SM3, Digests: []digest.Digest{abc}},
		"too new for that kernel": {Type: digestlist.File, Algorithm: digest.SHA3_256, Digests: []digest.Digest{sha3}},
	} {
		if got, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{b}); err == nil {
			t.Errorf("%s: %x", name, got)
		}
	}
	if _, err := digestlist.AppendCompact(nil, 0, digestlist.LittleEndian, nil); err == nil {
		t.Error("a list of no dialect is written")
	}
}

func TestSplitCompact(t *testing.T) {
	many := digestlist.Block{Type: digestlist.File, Algorithm: digest.SHA256}
	for i := range 100 {
		many.Digests = append(many.Digests, digest.Sum(digest.SHA256, []byte{byte(i)}))
	}
	blocks := []digestlist.Block{file(0, abc), {Type: digestlist.File}, many}
	for _, limit := range []int{48, 64, 100, 112, 1000, 3264, 1 << 20} {
		lists, err := digestlist.SplitCompact(blocks, limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []digest.Digest
		for _, list := range lists {
			b, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, list)
			if err != nil || len(b) > limit || len(b) == 0 {
				t.Errorf("limit %d: list of %d bytes, %v", limit, len(b), err)
			}
			for _, block := range list {
				got = append(got, block.Digests...)
			}
		}
		if !slices.Equal(got, append([]digest.Digest{abc}, many.Digests...)) {
			t.Errorf("limit %d: other digests come out", limit)
		}
	}
	if _, err := digestlist.SplitCompact(blocks, 47); err == nil {
		t.Error("a limit without room for a digest is taken")
	}
}

// The rule of rpm_parser, file by file, with what its original got wrong: one
// immutable file made all after it immutable.
func TestImmutable(t *testing.T) {
	p := rpmtest.Package{Name: "p", Algo: 8}
	want := map[bool][]digest.Digest{}
	for _, c := range []struct {
		path      string
		mode      uint16
		content   string
		immutable bool
	}{
		{"/usr/bin/run", 0o755, "1", true},
		{"/etc/after-it", 0o644, "2", false},
		{"/usr/bin/empty", 0o755, "", false},
		{"/etc/shadow", 0o000, "3", true},
		{"/etc/read-only", 0o444, "4", true},
		{"/usr/bin/group", 0o654, "5", true},
		{"/lib/modules/6.1/kernel/a.ko", 0o644, "6", true},
		{"/usr/lib/modules/6.1/modules.dep", 0o644, "7", false},
		{"/lib/firmware/a.bin", 0o644, "8", true},
		{"/usr/libexec/sudo/plugin", 0o644, "9", true},
		{"/usr/libexec/other", 0o644, "10", false},
		{"/usr/lib64/libx.so.1", 0o644, "11", true},
		{"/lib64/libx.so.1", 0o644, "12", true},
		{"/usr/lib/libx.so.1", 0o644, "13", false},
	} {
		f := rpmtest.Regular(c.path, c.mode, c.content)
		p.Files = append(p.Files, f)
		d, _ := digest.FromHex(digest.SHA256, []byte(f.Digest))
		want[c.immutable] = append(want[c.immutable], d)
	}
	ghost := rpmtest.Regular("/var/log/x", 0o644, "ghost")
	ghost.Flags = uint32(rpmhdr.FileGhost)
	link := rpmtest.Regular("/link", 0o777, "link")
	link.Mode = 0o120777
	p.Files = append(p.Files, ghost, link, rpmtest.File{Path: "/none", Mode: 0o100644})
	h, err := rpmhdr.Parse(p.Header())
	if err != nil {
		t.Fatal(err)
	}
	mutable, immutable, err := digestlist.FromHeader(h)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []digestlist.Block{mutable, immutable} {
		if got := want[b.Modifiers == digestlist.Immutable]; !slices.Equal(got, b.Digests) {
			t.Errorf("modifiers %d: %v, want %v", b.Modifiers, b.Digests, got)
		}
	}
}

func TestNames(t *testing.T) {
	for _, s := range []string{"0-file_list-rpm-bash-5.2.37-1.fc42.x86_64", "10-parser_list-compact-diglim-upload", "0-metadata_list-compact-x"} {
		n, err := digestlist.ParseName(digestlist.InterfaceDIGLIM, s)
		if err != nil || n.String() != s {
			t.Errorf("%s: %+v, %v", s, n, err)
		}
	}
	long := "0-file_list-rpm-" + strings.Repeat("x", digestlist.NameMax)
	for _, s := range []string{"", "x", "0-file_list-rpm", "0-file_list-rpm-", "-1-file_list-rpm-x", "a-file_list-rpm-x", "0-file-rpm-x",
		"0-other_list-rpm-x", "0-file_list-tar-x", "0-file_list-rpm-a b", "0-file_list-rpm-a/b", "0-file_list-rpm-a\nb", "0-file_list-rpm-é", long,
		"99999999999-file_list-rpm-x"} {
		if n, err := digestlist.ParseName(digestlist.InterfaceDIGLIM, s); err == nil {
			t.Errorf("%q: %+v", s, n)
		}
	}
	sorted := []string{"0-b", "2-a", "9-a", "10-a", "10-b", "010-c", "noposition"}
	got := slices.Clone(sorted)
	slices.Reverse(got)
	slices.SortFunc(got, digestlist.CompareNames)
	want := []string{"0-b", "2-a", "9-a", "010-c", "10-a", "10-b", "noposition"}
	if !slices.Equal(got, want) {
		t.Errorf("sorted %v, want %v", got, want)
	}
}

// One name, as each interface has it.
func TestNamesPerInterface(t *testing.T) {
	const D, O, C, B = digestlist.InterfaceDIGLIM, digestlist.InterfaceOpenEuler, digestlist.InterfaceDigestCache, digestlist.InterfaceBPF
	name := func(position int, typ digestlist.Type, f digestlist.Format) digestlist.Name {
		return digestlist.Name{Position: position, Type: typ, Format: f, Label: "bash-5.2.15-3.fc38.x86_64"}
	}
	const rpm, compact, tlv, none = digestlist.FormatRPM, digestlist.FormatCompact, digestlist.FormatTLV, digestlist.NoPosition
	for _, c := range []struct {
		i    digestlist.Interface
		n    digestlist.Name
		want string // without the label; "" if there is none
	}{
		{D, name(0, digestlist.File, rpm), "0-file_list-rpm-"},
		{O, name(0, digestlist.File, rpm), "0-file_list-rpm-"},
		{C, name(0, digestlist.File, rpm), "0-rpm-"},
		{C, name(none, digestlist.File, rpm), "rpm-"},
		{C, name(17, digestlist.File, tlv), "17-tlv-"},
		{D, name(3, digestlist.File, tlv), "3-file_list-tlv-"},
		{O, name(0, digestlist.Key, compact), "0-key_list-compact-"},
		{O, name(0, digestlist.Metadata, compact), "0-metadata_list-compact-"},
		{D, name(0, digestlist.Key, compact), ""},
		{D, name(0, 0, compact), ""},
		{D, name(none, digestlist.File, rpm), ""},
		{O, name(0, digestlist.File, tlv), ""},
		{C, name(0, digestlist.File, compact), ""},
		{C, name(0, digestlist.Parser, tlv), ""},
		{0, name(0, digestlist.File, rpm), ""},
		{5, name(0, digestlist.File, rpm), ""},
		{B, name(0, digestlist.File, rpm), "0-file_list-rpm-"},
		{B, name(0, digestlist.File, tlv), "0-file_list-tlv-"},
		{B, name(2, digestlist.Parser, compact), "2-parser_list-compact-"},
		{B, name(0, digestlist.Verity, compact), "0-verity_list-compact-"},
		{B, name(0, digestlist.Verity, rpm), ""},
		{B, name(0, digestlist.Verity, tlv), ""},
		{B, name(0, digestlist.Metadata, compact), ""},
		{B, name(0, digestlist.Key, compact), ""},
		{B, name(none, digestlist.File, rpm), ""},
		{D, name(0, digestlist.Verity, compact), ""},
		{O, name(0, digestlist.Verity, compact), ""},
		{C, name(0, digestlist.Verity, compact), ""},
		{C, name(0, digestlist.Verity, tlv), ""},
	} {
		got, err := c.n.File(c.i)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: %+v is called %s", c.i, c.n, got)
			}
			continue
		}
		if err != nil || got != c.want+c.n.Label {
			t.Errorf("%s: %+v is called %s, %v", c.i, c.n, got, err)
		}
		if back, err := digestlist.ParseName(c.i, got); err != nil || back != c.n {
			t.Errorf("%s: %s is read as %+v, %v", c.i, got, back, err)
		}
		if back, _, err := digestlist.KnownName(got); err != nil || back != c.n {
			t.Errorf("%s is known as %+v, %v", got, back, err)
		}
	}
	for _, c := range []struct {
		i digestlist.Interface
		s string
	}{
		{O, "0-file_list-compact-x.sig"}, {C, "rpm"}, {C, "rpm-"}, {C, "9-rpm-"}, {C, "9x-rpm-a"}, {C, "0-file_list-rpm-a"}, {C, "map-a"},
		{C, "99999999999-rpm-a"}, {C, "rpm-a/b"}, {C, "9"}, {C, ""}, {D, "rpm-a"}, {C, "-rpm-a"},
		{D, "0-verity_list-compact-x"}, {O, "0-verity_list-compact-x"}, {C, "0-verity_list-compact-x"}, {B, "rpm-a"},
	} {
		if n, err := digestlist.ParseName(c.i, c.s); err == nil {
			t.Errorf("%s: %s is read as %+v", c.i, c.s, n)
		}
	}
	for i := digestlist.Interface(0); i < 6; i++ {
		if got, err := digestlist.ParseInterface(i.String()); (err == nil) != (i >= D && i <= B) || err == nil && got != i {
			t.Errorf("%s is read as %s, %v", i, got, err)
		}
	}
}

// A package that calls itself something that is no file name makes no file.
func TestNameFor(t *testing.T) {
	for _, name := range []string{"../../etc/passwd", "a/b", "a b", "a\nb", "", strings.Repeat("x", 250)} {
		h, err := rpmhdr.Parse(rpmtest.Package{Name: name}.Header())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := digestlist.NameFor(h, digestlist.FormatRPM); err == nil {
			t.Errorf("package %q makes list %q", name, n)
		}
	}
}

func TestRPMList(t *testing.T) {
	header := rpmtest.Package{Name: "p"}.Header()
	h, err := rpmhdr.Parse(header)
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range [][]byte{nil, []byte("signature")} {
		b := digestlist.AppendRPM(nil, digestlist.RPM{Header: h, Signature: sig})
		l, err := digestlist.ParseRPM(b)
		if err != nil || !bytes.Equal(l.Header.Signed(), header) || !bytes.Equal(l.Signature, sig) {
			t.Errorf("%q: %q, %v", sig, l.Signature, err)
		}
		if sig == nil && !bytes.Equal(b, header) {
			t.Error("an unsigned list is not the header alone")
		}
		if _, err := digestlist.ParseRPM(append([]byte{0}, b...)); err == nil {
			t.Error("a list with a byte in front is read")
		}
		for n := range len(b) {
			if l, err := digestlist.ParseRPM(b[:n]); err == nil && n != len(header) {
				t.Errorf("the first %d of %d bytes are a list: %v", n, len(b), l)
			}
		}
	}
}

// The bytes that the original tools make of a real package.
func TestRealPackage(t *testing.T) {
	p, err := rpmhdr.ParsePackage(corpus.Read(t, "digestlist/digest-cache-tools/fedora-release-identity-workstation-38-34.noarch.rpm"))
	if err != nil {
		t.Fatal(err)
	}
	sigs, err := p.HeaderSignatures()
	if err != nil || len(sigs) != 1 {
		t.Fatalf("%d signatures, %v", len(sigs), err)
	}
	list := digestlist.AppendRPM(nil, digestlist.RPM{Header: p.Header, Signature: sigs[0].Packet})
	if !bytes.Equal(list, corpus.Read(t, "digestlist/vectors/rpm-fedora-release-identity-workstation-38-34.noarch")) {
		t.Error("the rpm list differs from the original's")
	}
	name, err := digestlist.NameFor(p.Header, digestlist.FormatRPM)
	if err != nil || name.String() != "0-file_list-rpm-fedora-release-identity-workstation-38-34.noarch" {
		t.Errorf("name %s, %v", name, err)
	}
	mutable, immutable, err := digestlist.FromHeader(p.Header)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{mutable, immutable})
	const want = "sha256:0e4765583b59c6dbfd0bc0c8148772ff03dd5205f98162b16a4608d9b9bca9a6"
	if got := digest.Sum(digest.SHA256, compact).String(); err != nil || got != want {
		t.Errorf("the compact list has %d bytes, %s, %v; want %s", len(compact), got, err, want)
	}
}

func TestRealLists(t *testing.T) {
	e1 := corpus.Read(t, "digestlist/vectors/compact-v3-E1")
	blocks, err := digestlist.ParseCompact(digestlist.V3, digestlist.LittleEndian, e1)
	if err != nil || len(blocks) != 1 || !slices.Equal(blocks[0].Digests, []digest.Digest{script}) || blocks[0].Modifiers != digestlist.Immutable {
		t.Errorf("E1: %v, %v", blocks, err)
	}
	l, err := digestlist.ParseRPM(corpus.Read(t, "digestlist/1-digestlist-rpm-libxslt-1.1.29-4.fc27-x86_64"))
	if err != nil || l.Signature != nil {
		t.Fatalf("libxslt: %v, %v", l.Signature, err)
	}
	mutable, immutable, err := digestlist.FromHeader(l.Header)
	if n := len(mutable.Digests) + len(immutable.Digests); err != nil || n != 10 {
		t.Errorf("libxslt: %d digests, %v", n, err)
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	header := rpmtest.Package{Name: "p"}.Header()
	for name, c := range map[string]struct {
		content string
		format  digestlist.Format
	}{
		"0-file_list-rpm-p":     {"whatever", digestlist.FormatRPM},
		"0-file_list-compact-p": {"whatever", digestlist.FormatCompact},
		"some-header":           {string(header), digestlist.FormatRPM},
		"some-list":             {"\x01\x00", digestlist.FormatCompact},
		"some-tlv":              {string(goodTLV(t)), digestlist.FormatTLV},
		"tlv-p":                 {"whatever", digestlist.FormatTLV},
		"7-rpm-p":               {"whatever", digestlist.FormatRPM},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, format, err := digestlist.ReadFile(path); err != nil || format != c.format {
			t.Errorf("%s: %s, %v", name, format, err)
		}
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, digestlist.MaxFile+1); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, large, filepath.Join(dir, "missing")} {
		if _, _, err := digestlist.ReadFile(path); err == nil {
			t.Errorf("%s is read", path)
		}
	}
}

// layouts are all that a compact list can have.
var layouts = []struct {
	d digestlist.Dialect
	e digestlist.Endian
}{
	{digestlist.V3, digestlist.LittleEndian},
	{digestlist.OpenEuler, digestlist.LittleEndian},
	{digestlist.OpenEuler, digestlist.BigEndian},
	{digestlist.BPF, digestlist.LittleEndian},
}

func FuzzParseCompact(f *testing.F) {
	for i, l := range layouts {
		for _, blocks := range [][]digestlist.Block{nil, {file(0, abc)}, {file(0, abc), file(digestlist.Immutable, script, x)}} {
			b, err := digestlist.AppendCompact(nil, l.d, l.e, blocks)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(i), b)
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, b []byte) {
		l := layouts[int(i)%len(layouts)]
		blocks, err := digestlist.ParseCompact(l.d, l.e, b)
		if err != nil {
			return
		}
		want, at := bytes.Clone(b), 0
		for _, block := range blocks {
			if len(block.Digests) == 0 {
				return // empty blocks are read and not written
			}
			if l.d == digestlist.OpenEuler {
				want[at+1] = 0 // reserved: read as anything, written as 0
			}
			at += 16 + len(block.Digests)*block.Algorithm.Size()
		}
		again, err := digestlist.AppendCompact(nil, l.d, l.e, blocks)
		if err != nil || !bytes.Equal(again, want) {
			t.Errorf("%x is written again as %x, %v", b, again, err)
		}
	})
}

func FuzzParseRPM(f *testing.F) {
	h, err := rpmhdr.Parse(rpmtest.Package{Name: "p", Algo: 8, Files: []rpmtest.File{rpmtest.Regular("/a", 0o755, "a")}}.Header())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(digestlist.AppendRPM(nil, digestlist.RPM{Header: h}))
	f.Add(digestlist.AppendRPM(nil, digestlist.RPM{Header: h, Signature: []byte("signature")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := digestlist.ParseRPM(b)
		if err != nil {
			return
		}
		if again := digestlist.AppendRPM(nil, l); !bytes.Equal(again, b) {
			t.Error("a list that was read is written otherwise")
		}
		if _, _, err := digestlist.FromHeader(l.Header); err == nil {
			_, _ = digestlist.NameFor(l.Header, digestlist.FormatCompact)
		}
	})
}

func FuzzParseName(f *testing.F) {
	for _, name := range []string{"0-file_list-rpm-bash-5.2.37-1.fc42.x86_64", "17-tlv-bash", "rpm-bash", "0-key_list-compact-x", "0-verity_list-compact-x"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, i, err := digestlist.KnownName(s)
		if err != nil {
			return
		}
		// The same but for zeros in front of the position.
		again, err := n.File(i)
		if err != nil || strings.TrimLeft(s, "0") != strings.TrimLeft(again, "0") {
			t.Errorf("%q is written again as %q, %v", s, again, err)
		}
	})
}

func ExampleName() {
	n := digestlist.Name{Type: digestlist.File, Format: digestlist.FormatRPM, Label: "bash-5.2.37-1.fc42.x86_64"}
	fmt.Println(n)
	// Output: 0-file_list-rpm-bash-5.2.37-1.fc42.x86_64
}
