package set_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"
)

// example is the set that the format's description shows: two programs, one of
// them a parser, a file known by its SHA-1 and one under fs-verity; what users
// bring below /home is logged.
func example(t testing.TB) *set.Image {
	t.Helper()
	var b set.Builder
	add(t, &b, set.Content, digest.Sum(digest.SHA256, []byte("abc")), digest.Sum(digest.SHA1, []byte("abc")))
	add(t, &b, set.Parser, digest.Sum(digest.SHA256, []byte("diglim-upload")))
	add(t, &b, set.Verity, digest.Sum(digest.SHA256, []byte("fs-verity descriptor")))
	return build(t, &b, set.Header{
		Generation: 2,
		Loaded:     time.Date(2026, time.January, 2, 3, 4, 5, 6, time.UTC),
		Mode:       set.Enforce,
		Lists:      3,
		Initramfs:  true,
		Anchor:     [32]byte(digest.Sum(digest.SHA256, []byte("keyring")).Bytes()),
		Rules: []set.Rule{
			{Owner: new(uint32(0)), FS: new(uint64(0x858458f6)), Enforce: true}, // RAMFS_MAGIC
			{Path: "/home"},
		},
	})
}

// Where things are in the example.
const (
	exTables  = 80
	exRule0   = 1 * set.BlockSize
	exRule1   = 2 * set.BlockSize
	exSHA1    = 3 * set.BlockSize
	exContent = 4 * set.BlockSize
	exVerity  = 5 * set.BlockSize
	exParser  = 6 * set.BlockSize
	exEnd     = 7 * set.BlockSize
)

func u16(at int, v uint16) func([]byte) []byte {
	return func(b []byte) []byte { binary.LittleEndian.PutUint16(b[at:], v); return b }
}

func u32(at int, v uint32) func([]byte) []byte {
	return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b }
}

func u64(at int, v uint64) func([]byte) []byte {
	return func(b []byte) []byte { binary.LittleEndian.PutUint64(b[at:], v); return b }
}

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 1; return b }
}

// move moves the digest in one slot to another.
func move(from, to int) func([]byte) []byte {
	return func(b []byte) []byte {
		copy(b[to:to+32], b[from:from+32])
		clear(b[from : from+32])
		return b
	}
}

// double copies the digest in one slot to another.
func double(from, to int) func([]byte) []byte {
	return func(b []byte) []byte { copy(b[to:to+32], b[from:from+32]); return b }
}

func all(changes ...func([]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte {
		for _, change := range changes {
			b = change(b)
		}
		return b
	}
}

// bad are images that must not be taken, each the example but for one thing,
// and what is said of them.
var bad = []struct {
	name   string
	change func([]byte) []byte
	say    string
}{
	{"nothing", func(b []byte) []byte { return nil }, "offset 0: input ends early"},
	{"half a header", func(b []byte) []byte { return b[:set.BlockSize/2] }, "offset 28: 7 blocks"},
	{"header alone", func(b []byte) []byte { return b[:set.BlockSize] }, "offset 28: 7 blocks"},
	{"block missing", func(b []byte) []byte { return b[:exParser] }, "offset 28: 7 blocks"},
	{"byte missing", func(b []byte) []byte { return b[:exEnd-1] }, "offset 28: 7 blocks"},
	{"byte too many", func(b []byte) []byte { return append(b, 0) }, "offset 28: 7 blocks"},
	{"block too many", func(b []byte) []byte { return append(b, make([]byte, set.BlockSize)...) }, "offset 28: 7 blocks"},
	{"block counted too many", all(func(b []byte) []byte { return append(b, make([]byte, set.BlockSize)...) }, u32(28, 8)), "offset 28: the tables end before block 7, the image before 8"},
	{"magic", flip(0), `offset 0: "EIGLIMS\x01"`},
	{"version", flip(7), `offset 0: "DIGLIMS\x00"`},
	{"generation", u64(8, 0), "offset 8: generation 0"},
	{"loaded", u64(16, 1<<63), "offset 16: loaded"},
	{"no mode", u32(24, 0), "offset 24: mode(0)"},
	{"mode", u32(24, 3), "offset 24: mode(3)"},
	{"blocks", u32(28, 6), "offset 28: 6 blocks"},
	{"blocks that overflow", u32(28, 1<<31+7), "offset 28: 2147483655 blocks"},
	{"digests", u32(36, 4), "offset 36: 4 digests, the tables have 5"},
	{"no digests", u32(36, 0), "offset 36: 0 digests"},
	{"too many rules", u16(40, 33), "offset 40: 33 rules"},
	{"a rule more", u16(40, 3), "offset 84: buckets from block 3, must be 4"},
	{"a rule less", u16(40, 1), "offset 84: buckets from block 3, must be 2"},
	{"too many tables", u16(42, 9), "offset 42: 9 tables"},
	{"a table more", u16(42, 5), "offset 144: kind(0) is not known"},
	{"a table less", u16(42, 3), "offset 36: 5 digests, the tables have 4"},
	{"flags", u32(44, 2), "offset 44: flags 0x2"},
	{"kind 0", func(b []byte) []byte { b[exTables] = 0; return b }, "offset 80: kind(0)"},
	{"kind 4", func(b []byte) []byte { b[exTables+3*16] = 4; return b }, "offset 128: kind(4)"},
	{"algorithm", func(b []byte) []byte { b[exTables+1] = 23; return b }, "offset 81: unknown kernel hash algorithm 23"},
	{"two tables for the same", func(b []byte) []byte { b[exTables+1] = 4; return b }, "offset 96: content sha256 comes after content sha256"},
	{"tables in another order", func(b []byte) []byte { b[exTables] = 2; return b }, "offset 96: content sha256 comes after verity sha1"},
	{"table, zero", u16(exTables+2, 1), "offset 82: bytes that must be zero"},
	{"table, first", u32(exTables+4, 0), "offset 84: buckets from block 0, must be 3"},
	{"table, buckets", u32(exTables+8, 2), "offset 88: 2 buckets for 1 digests"},
	{"table beyond the end", all(u32(exTables+3*16+8, 2), u32(exTables+3*16+12, 9)), "offset 136: 2 buckets from block 6 are beyond the image"},
	{"table of all buckets", u32(exTables+3*16+8, 1<<32-1), "offset 136: 4294967295 buckets for 1 digests"},
	{"table of all digests", u32(exTables+12, 1<<32-1), "offset 92: 4294967295 digests"},
	{"table of all", all(u32(exTables+3*16+8, 1<<22), u32(exTables+3*16+12, 31_000_000)), "offset 136: 4194304 buckets from block 6 are beyond"},
	{"table, no buckets", u32(exTables+8, 0), "offset 88: 0 buckets for 1 digests"},
	{"table, no digests", u32(exTables+12, 0), "offset 92: 0 digests"},
	{"table, more digests than fit", u32(exTables+12, 9), "offset 88: 1 buckets for 9 digests"},
	{"table, too full", u32(exTables+12, 8), "offset 88: 1 buckets for 8 digests"},
	{"table, a digest more", all(u32(exTables+12, 2), u32(36, 6)), "offset 768: 1 digests, the table has 2"},
	{"table, a digest less", all(u32(exTables+16+12, 1), u32(36, 4)), "offset 1024: 2 digests, the table has 1"},
	{"behind the tables", flip(144), "offset 144: 112 bytes that must be 0"},
	{"end of the header", flip(255), "offset 144: 112 bytes that must be 0"},
	{"rule, no verdict", u32(exRule0, 0), "rule 0: offset 256: verdict 0"},
	{"rule, verdict", u32(exRule1, 3), "rule 1: offset 512: verdict 3"},
	{"rule, conditions", u32(exRule0+4, 8), "rule 0: offset 260: conditions 0x8"},
	{"rule, owner without condition", u32(exRule1+8, 1), "rule 1: offset 520: owner 1"},
	{"rule, file system without condition", u64(exRule1+16, 1), "rule 1: offset 528: file system 0x1"},
	{"rule, path without condition", u32(exRule0+12, 1), "rule 0: offset 268: path of 1 bytes"},
	{"rule, condition without path", u32(exRule0+4, 7), "rule 0: offset 268: path of 0 bytes"},
	{"rule, long path", u32(exRule1+12, set.MaxPath+1), "rule 1: offset 524: path of 233 bytes"},
	{"rule, path of all bytes", u32(exRule1+12, 1<<32-1), "rule 1: offset 524: path of 4294967295 bytes"},
	{"rule, path with zeros", u32(exRule1+12, 6), `rule 1: offset 536: path "/home\x00"`},
	{"rule, path ends early", u32(exRule1+12, 4), "rule 1: offset 540: 228 bytes that must be 0"},
	{"rule, relative", flip(exRule1 + 24), `rule 1: offset 536: path ".home"`},
	{"rule, root", u32(exRule1+12, 1), `rule 1: offset 536: path "/"`},
	{"rule, slash", all(u32(exRule1+12, 6), func(b []byte) []byte { b[exRule1+24+5] = '/'; return b }), `rule 1: offset 536: path "/home/"`},
	{"rule, end", flip(exSHA1 - 1), "rule 1: offset 541: 227 bytes that must be 0"},
	{"empty slot before a digest", move(exContent, exContent+64), "content sha256: offset 1056: digest behind an empty slot"},
	{"digest missing", move(exContent+32, exContent+32), "content sha256: offset 1024: 1 digests, the table has 2"},
	{"digest twice", all(double(exContent, exContent+64), u32(exTables+16+12, 3), u32(36, 6)), "content sha256: offset 1088: digest that is there already"},
	{"long SHA-1", flip(exSHA1 + 20), "content sha1: offset 768: more than the 20 bytes of a digest"},
	{"long SHA-1, end", flip(exSHA1 + 31), "content sha1: offset 768: more than the 20 bytes of a digest"},
	{"parser that is no content", flip(exParser + 31), "parser sha256: offset 1536: parser that is no content"},
	{"digest not in its table's parser", all(flip(exContent), flip(exContent+32)), "parser sha256: offset 1536: parser that is no content"},
}

func TestBadImages(t *testing.T) {
	good := example(t).Bytes()
	if len(good) != exEnd {
		t.Fatalf("the example has %d bytes", len(good))
	}
	for _, c := range bad {
		_, err := set.Parse(c.change(bytes.Clone(good)))
		if err == nil || !strings.Contains(err.Error(), c.say) || !strings.HasPrefix(err.Error(), "digest set ") {
			t.Errorf("%s: %v, want %q", c.name, err, c.say)
		}
	}
	for n := range good {
		if _, err := set.Parse(good[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are taken", n, len(good))
		}
	}
}

// A digest where nobody looks for it is found out, and so is one that stands in
// both its buckets.
func TestBadPlaces(t *testing.T) {
	const n = 100
	var b set.Builder
	add(t, &b, set.Content, random(t, 5, digest.SHA256, n)...)
	good := build(t, &b, plain).Bytes()
	buckets := uint64(len(good)/set.BlockSize - 1)
	slot := func(bucket, n int) []byte { return good[(1+bucket)*set.BlockSize+n*32:][:32] }
	elsewhere, twice := 0, 0
	for bucket := range int(buckets) {
		for i := range 8 {
			key := slot(bucket, i)
			if bytes.Equal(key, make([]byte, 32)) {
				continue
			}
			first := int(uint64(binary.LittleEndian.Uint32(key)) * buckets >> 32)
			second := int(uint64(binary.LittleEndian.Uint32(key[4:])) * buckets >> 32)
			for other := range int(buckets) {
				bad := bytes.Clone(good)
				copy(bad[(1+other)*set.BlockSize:], key)
				want := "digest in bucket"
				if other == bucket {
					if i == 0 {
						continue
					}
					want = "there already"
				} else if other == first || other == second {
					want = "there already"
					twice++
				} else {
					elsewhere++
				}
				if _, err := set.Parse(bad); err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("slot %d of bucket %d copied to bucket %d: %v, want %q", i, bucket, other, err, want)
				}
			}
		}
	}
	if elsewhere < n || twice < n/2 {
		t.Errorf("%d digests elsewhere, %d twice", elsewhere, twice)
	}
}

// Every bit of header and rules says something: change one, and the image is
// refused, or says something else.
func TestEveryBit(t *testing.T) {
	good := example(t)
	taken := 0
	for at := range exSHA1 {
		for bit := range 8 {
			b := bytes.Clone(good.Bytes())
			b[at] ^= 1 << bit
			m, err := set.Parse(b)
			if err != nil {
				continue
			}
			taken++
			if reflect.DeepEqual(m.Header(), good.Header()) && reflect.DeepEqual(m.Tables(), good.Tables()) {
				t.Errorf("bit %d of byte %d says nothing", bit, at)
			}
		}
	}
	if taken < 256 {
		t.Errorf("%d changes taken", taken)
	}
}

// Reading an image costs no memory but its own, whatever it says.
func TestMemoryCeiling(t *testing.T) {
	var b set.Builder
	add(t, &b, set.Content, random(t, 1, digest.SHA256, 200_000)...)
	h := plain
	for range set.MaxRules {
		h.Rules = append(h.Rules, set.Rule{Path: "/" + strings.Repeat("p", set.MaxPath-1)})
	}
	large := build(t, &b, h).Bytes()
	images := map[string][]byte{
		"large":              large,
		"large, wrong count": u32(36, 1)(bytes.Clone(large)),
		"large, noise":       append(bytes.Clone(large[:(1+set.MaxRules)*set.BlockSize]), bytes.Repeat([]byte{0xff}, len(large)-(1+set.MaxRules)*set.BlockSize)...),
	}
	for _, c := range bad {
		images[c.name] = c.change(bytes.Clone(example(t).Bytes()))
	}
	for name, image := range images {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = set.Parse(image)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 32<<10 {
			t.Errorf("%s: %d bytes allocated for an image of %d", name, got, len(image))
		}
	}
}

// A set costs 32 bytes and a quarter for each digest added, as much again to
// sort them, and the image; all of it together, whether freed since or not.
func TestBuilderMemory(t *testing.T) {
	const n = 200_000
	list := random(t, 1, digest.SHA256, n)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var b set.Builder
	add(t, &b, set.Content, list...)
	build(t, &b, plain)
	runtime.ReadMemStats(&after)
	if got := float64(after.TotalAlloc-before.TotalAlloc) / n; got < 64 || got > 110 {
		t.Errorf("%.1f bytes allocated for a digest", got)
	}
}

// What is taken can be built again from what was read, to as many digests in
// the same tables; and all of it is found.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := set.Parse(b)
		if err != nil {
			return
		}
		for _, table := range m.Tables() {
			size := min(table.Algorithm.Size(), 32)
			found := uint32(0)
			for at := int(table.First) * set.BlockSize; at < int(table.First+table.Buckets)*set.BlockSize; at += 32 {
				if bytes.Equal(b[at:at+32], make([]byte, 32)) {
					continue
				}
				value := make([]byte, table.Algorithm.Size())
				copy(value, b[at:at+size])
				found++
				if !m.Has(table.Kind, newDigest(t, table.Algorithm, value)) {
					t.Errorf("%s %x is not found", table.Kind, value)
				}
			}
			if found != table.Digests {
				t.Errorf("%d digests found, %d are in the table", found, table.Digests)
			}
		}
		var again set.Builder
		again.AddImage(m)
		made, err := again.Build(m.Header())
		if err != nil {
			return // where digests are alike it takes luck to place them
		}
		if !reflect.DeepEqual(parse(t, made.Bytes()).Header(), m.Header()) || made.Digests() != m.Digests() || len(made.Tables()) != len(m.Tables()) {
			t.Errorf("built again: %+v, %+v", made.Header(), made.Tables())
		}
	})
}

// The seeds of FuzzParse are the example and all that is bad about it. With
// -update they are written again.
func TestSeeds(t *testing.T) {
	dir := filepath.Join("testdata", "fuzz", "FuzzParse")
	seed := func(name string, image []byte) {
		path := filepath.Join(dir, strings.NewReplacer(" ", "-", ",", "").Replace(name))
		want := fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", image)
		if corpus.Updating() {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the test makes: run it with -update (%v)", path, err)
		}
	}
	seed("good", example(t).Bytes())
	for _, c := range bad {
		seed(c.name, c.change(bytes.Clone(example(t).Bytes())))
	}
}

// The format's description shows the example, byte for byte.
func TestDescription(t *testing.T) {
	const path = "../../../../docs/formats/digest-set.md"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const open, shut = "```hexdump\n", "```\n"
	before, rest, ok := strings.Cut(string(doc), open)
	_, after, ok2 := strings.Cut(rest, shut)
	if !ok || !ok2 {
		t.Fatalf("%s has no dump", path)
	}
	want := before + open + dump(example(t).Bytes()) + shut + after
	if corpus.Updating() {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(doc) != want {
		t.Errorf("%s shows something else: see what changed, then run the test with -update", path)
	}
}

// dump prints bytes as hexdump -C does: a row that is as the one before it, and
// all that follow it, as "*".
func dump(b []byte) string {
	var s strings.Builder
	star := false
	for at := 0; at < len(b); at += 16 {
		if at > 0 && bytes.Equal(b[at:at+16], b[at-16:at]) {
			if !star {
				s.WriteString("*\n")
			}
			star = true
			continue
		}
		star = false
		row := hex.Dump(b[at : at+16])
		fmt.Fprintf(&s, "%08x%s", at, row[8:])
	}
	fmt.Fprintf(&s, "%08x\n", len(b))
	return s.String()
}
