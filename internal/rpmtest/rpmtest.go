// Package rpmtest makes RPM packages and keys for tests: good ones, and every
// kind of bad one that a test can think of.
package rpmtest

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// An Entry is an entry of a header, with its data as it stands in the store.
type Entry struct {
	Tag, Type, Count uint32
	Data             []byte
	Align            int // of the data in the store; 0 is 1
}

// Int16s, Int32s, Int64s, String, Strings and Bin make entries of those types.
func Int16s(tag uint32, values ...uint16) Entry {
	var b []byte
	for _, v := range values {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return Entry{tag, 3, uint32(len(values)), b, 2}
}

func Int32s(tag uint32, values ...uint32) Entry {
	var b []byte
	for _, v := range values {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return Entry{tag, 4, uint32(len(values)), b, 4}
}

func Int64s(tag uint32, values ...uint64) Entry {
	var b []byte
	for _, v := range values {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return Entry{tag, 5, uint32(len(values)), b, 8}
}

func String(tag uint32, value string) Entry {
	return Entry{tag, 6, 1, append([]byte(value), 0), 1}
}

func Strings(tag uint32, values ...string) Entry {
	return Entry{tag, 8, uint32(len(values)), []byte(strings.Join(values, "\x00") + "\x00"), 1}
}

func Bin(tag uint32, value []byte) Entry {
	return Entry{tag, 7, uint32(len(value)), value, 1}
}

// The tags of the two regions.
const (
	RegionSignatures = 62
	RegionImmutable  = 63
)

// Header makes a header with a region around all entries, in the order given.
func Header(region uint32, entries ...Entry) []byte {
	var index, data []byte
	for _, e := range entries {
		for e.Align > 1 && len(data)%e.Align != 0 {
			data = append(data, 0)
		}
		index = AppendIndex(index, e.Tag, e.Type, uint32(len(data)), e.Count)
		data = append(data, e.Data...)
	}
	index = append(AppendIndex(nil, region, 7, uint32(len(data)), 16), index...)
	data = AppendIndex(data, region, 7, uint32(-len(index)), 16)
	return Raw(index, data)
}

// AppendIndex appends one entry to an index.
func AppendIndex(b []byte, tag, typ, offset, count uint32) []byte {
	for _, v := range []uint32{tag, typ, offset, count} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// Raw puts magic and sizes in front of an index and a data store.
func Raw(index, data []byte) []byte {
	b := []byte{0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0}
	b = binary.BigEndian.AppendUint32(b, uint32(len(index)/16))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(append(b, index...), data...)
}

// A File is a file of a Package.
type File struct {
	Path   string // absolute
	Mode   uint16
	Size   uint64
	Flags  uint32
	Digest string // hex, "" for none
	Link   string
}

// Regular is a file with that content, whose digest is its SHA-256.
func Regular(path string, mode uint16, content string) File {
	sum := sha256.Sum256([]byte(content))
	return File{Path: path, Mode: 0o100000 | mode, Size: uint64(len(content)), Digest: hex.EncodeToString(sum[:])}
}

// A Package is the recipe of a package.
type Package struct {
	Name    string
	Release string // "1" if it is empty
	Files   []File
	Algo    uint32 // FILEDIGESTALGO; 0 leaves the tag out, which means MD5
	Source  bool
	Extra   []Entry // appended to the main header
}

// Entries returns what goes into the main header.
func (p Package) Entries() []Entry {
	release := cmp.Or(p.Release, "1")
	entries := []Entry{String(1000, p.Name), String(1001, "1.0"), String(1002, release), String(1022, "noarch")}
	if len(p.Files) > 0 {
		var sizes, flags, dirIndexes []uint32
		var modes []uint16
		var digests, links, bases, dirs []string
		index := map[string]uint32{}
		for _, f := range p.Files {
			cut := strings.LastIndexByte(f.Path, '/') + 1
			dir, base := f.Path[:cut], f.Path[cut:]
			if _, ok := index[dir]; !ok {
				index[dir] = uint32(len(dirs))
				dirs = append(dirs, dir)
			}
			sizes, flags, modes = append(sizes, uint32(f.Size)), append(flags, f.Flags), append(modes, f.Mode)
			digests, links = append(digests, f.Digest), append(links, f.Link)
			dirIndexes, bases = append(dirIndexes, index[dir]), append(bases, base)
		}
		entries = append(entries, Int32s(1028, sizes...), Int16s(1030, modes...), Strings(1035, digests...),
			Strings(1036, links...), Int32s(1037, flags...))
		if !p.Source {
			entries = append(entries, String(1044, p.Name+"-1.0-1.src.rpm"))
		}
		entries = append(entries, Int32s(1116, dirIndexes...), Strings(1117, bases...), Strings(1118, dirs...))
	} else if !p.Source {
		entries = append(entries, String(1044, p.Name+"-1.0-1.src.rpm"))
	}
	if p.Algo != 0 {
		entries = append(entries, Int32s(5011, p.Algo))
	}
	return append(entries, p.Extra...)
}

// Header returns the main header.
func (p Package) Header() []byte { return Header(RegionImmutable, p.Entries()...) }

// Signatures are the OpenPGP packets to put into a package: by tag 268 (or
// 267), and by tag 278.
type Signatures struct {
	RSA, DSA []byte
	OpenPGP  [][]byte
}

// File returns the package file, with header digests and a payload that is
// none.
func (p Package) File(sigs Signatures) []byte { return PackageFile(p.Header(), sigs) }

// PackageFile makes a package file of any main header.
func PackageFile(header []byte, sigs Signatures) []byte {
	var entries []Entry
	if sigs.DSA != nil {
		entries = append(entries, Bin(267, sigs.DSA))
	}
	if sigs.RSA != nil {
		entries = append(entries, Bin(268, sigs.RSA))
	}
	s1, s256 := sha1.Sum(header), sha256.Sum256(header)
	entries = append(entries, String(269, hex.EncodeToString(s1[:])), String(273, hex.EncodeToString(s256[:])))
	if len(sigs.OpenPGP) > 0 {
		var texts []string
		for _, s := range sigs.OpenPGP {
			texts = append(texts, base64.StdEncoding.EncodeToString(s))
		}
		entries = append(entries, Strings(278, texts...))
	}
	return Join(Header(RegionSignatures, entries...), header)
}

// Join makes a package file of a signature header and a main header.
func Join(signatures, header []byte) []byte {
	lead := make([]byte, 96)
	copy(lead, []byte{0xed, 0xab, 0xee, 0xdb, 3})
	lead[79] = 5
	b := append(lead, signatures...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	b = append(b, header...)
	return append(b, bytes.Repeat([]byte("payload "), 16)...)
}
