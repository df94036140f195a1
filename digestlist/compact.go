// Package digestlist reads and writes digest lists: the files that tell a
// kernel which files it is to know.
//
// Parsing gives structure, never trust. A list is worth what its signature is,
// or the place that it came from.
package digestlist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// A Dialect says what the numbers in a compact list mean. Two kernels number
// the types differently under one version number, and nothing in the bytes
// tells them apart: a FILE list of the one grants every file in it upload
// rights on the other. So every function that reads or writes a compact list
// is told. The zero Dialect is none, and refused.
type Dialect uint8

// The dialects.
const (
	V3        Dialect = iota + 1 // DIGLIM v3 (2021-09-14), always little-endian
	OpenEuler                    // IMA digest lists of openEuler, in the host's byte order
	BPF                          // ours, for the gate: as V3, but Verity instead of Metadata
)

// dialects says what the dialects are called, and what number they have for a
// type.
var dialects = [...]struct {
	name  string
	types []numbered
}{
	V3:        {"v3", []numbered{{0, Parser}, {1, File}, {2, Metadata}}},
	OpenEuler: {"openeuler", []numbered{{0, Key}, {1, Parser}, {2, File}, {3, Metadata}}},
	BPF:       {"bpf", []numbered{{0, Parser}, {1, File}, {verityNumber, Verity}}},
}

type numbered struct {
	number uint16
	typ    Type
}

// verityNumber is one that every kernel with digest lists refuses, whichever
// byte order it reads: such a list is never taken for one of something else.
// (As 0x0001, the other way round, it is openEuler's Parser; the algorithm, of
// which only two can be there, is then no algorithm.)
const verityNumber = 0x0100

func (d Dialect) valid() bool { return d != 0 && int(d) < len(dialects) }

func (d Dialect) String() string {
	if !d.valid() {
		return fmt.Sprintf("dialect(%d)", uint8(d))
	}
	return dialects[d].name
}

// ParseDialect reads what String prints.
func ParseDialect(s string) (Dialect, error) {
	for d := V3; d.valid(); d++ {
		if d.String() == s {
			return d, nil
		}
	}
	return 0, fmt.Errorf("dialect %q is not known: v3, openeuler and bpf are", s)
}

// An Endian is a byte order. It too is not to be seen in the bytes of a list
// for certain. The zero Endian is none, and refused.
type Endian uint8

// The byte orders.
const (
	LittleEndian Endian = iota + 1
	BigEndian
)

func (e Endian) String() string {
	switch e {
	case LittleEndian:
		return "little"
	case BigEndian:
		return "big"
	}
	return fmt.Sprintf("endian(%d)", uint8(e))
}

// ParseEndian reads what String prints.
func ParseEndian(s string) (Endian, error) {
	for e := LittleEndian; e <= BigEndian; e++ {
		if e.String() == s {
			return e, nil
		}
	}
	return 0, fmt.Errorf("byte order %q is not known: little and big are", s)
}

type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// order returns the byte order of a dialect's lists, if they can have it.
func order(d Dialect, e Endian) (byteOrder, error) {
	switch {
	case !d.valid():
		return nil, fmt.Errorf("compact list: %s is not known", d)
	case e == LittleEndian:
		return binary.LittleEndian, nil
	case e == BigEndian && d != OpenEuler:
		return nil, fmt.Errorf("compact list: dialect %s is little-endian, on all machines", d)
	case e == BigEndian:
		return binary.BigEndian, nil
	}
	return nil, fmt.Errorf("compact list: %s is not known", e)
}

// A Type says what a digest is the digest of. The zero Type is none.
type Type uint8

// The types.
const (
	Parser   Type = iota + 1 // an executable that may upload lists
	File                     // a file's content
	Metadata                 // a file's metadata
	Key                      // a key; of dialect OpenEuler alone
	Verity                   // a file under fs-verity: its descriptor, not its content; of dialect BPF alone
)

func (t Type) String() string {
	switch t {
	case Parser:
		return "parser"
	case File:
		return "file"
	case Metadata:
		return "metadata"
	case Key:
		return "key"
	case Verity:
		return "verity"
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// ParseType reads what String prints.
func ParseType(s string) (Type, error) {
	for t := Parser; t <= Verity; t++ {
		if t.String() == s {
			return t, nil
		}
	}
	return 0, fmt.Errorf("list type %q is not known", s)
}

// has reports whether digests of type t can be of an algorithm. The kernel's
// fs-verity has two (include/uapi/linux/fsverity.h).
func (t Type) has(alg digest.Algorithm) bool {
	return t != Verity || alg == digest.SHA256 || alg == digest.SHA512
}

// Modifiers are a bit mask over a block's digests. Kernels ignore bits that
// they do not know, and so are those kept here.
type Modifiers uint16

// Immutable says that the file is never legitimately changed: code.
const Immutable Modifiers = 1 << 0

// A Block is a run of digests of one kind.
type Block struct {
	Type      Type
	Modifiers Modifiers
	Algorithm digest.Algorithm
	Digests   []digest.Digest // all of Algorithm
}

const (
	compactVersion    = 1
	compactHeaderSize = 16

	// algorithmEnd is HASH_ALGO__LAST of the kernels that the dialects were
	// written for, which refuse everything from there on.
	algorithmEnd = 20
)

// ParseCompact reads a compact list: blocks, back to back, to the last byte.
// It refuses what the dialect's kernel refuses (security/integrity/diglim/parser.c;
// openEuler: security/integrity/ima/ima_digest_list.c); dialect BPF has no kernel
// that reads it, and the rules of v3. No block at all is a valid, empty list.
func ParseCompact(d Dialect, e Endian, b []byte) ([]Block, error) {
	o, err := order(d, e)
	if err != nil {
		return nil, err
	}
	r := wire.New("compact list", o, b)
	var blocks []Block
	for r.Len() > 0 {
		r.Record(fmt.Sprintf("compact list block %d", len(blocks)))
		block := parseBlock(d, r)
		if r.Err() != nil {
			break
		}
		blocks = append(blocks, block)
	}
	if err := r.Finish(); err != nil {
		return nil, err
	}
	return blocks, nil
}

func parseBlock(d Dialect, r *wire.Reader) Block {
	at := r.Offset()
	version, reserved, typ, modifiers, algo := r.U8(), r.U8(), r.U16(), r.U16(), r.U16()
	count, size := r.U32(), r.U32()
	alg, err := digest.ByKernel(algo)
	types := dialects[d].types
	i := slices.IndexFunc(types, func(n numbered) bool { return n.number == typ })
	switch {
	case r.Err() != nil:
		return Block{}
	case version != compactVersion:
		r.FailAt(at, fmt.Errorf("version %d, must be %d", version, compactVersion))
	case reserved != 0 && d != OpenEuler: // whose kernel does not look at it
		r.FailAt(at+1, fmt.Errorf("reserved byte is %d", reserved))
	case i < 0:
		r.FailAt(at+2, fmt.Errorf("type %d is not known", typ))
	case err != nil || algo >= algorithmEnd:
		r.FailAt(at+6, fmt.Errorf("hash algorithm %d is not known", algo))
	case !types[i].typ.has(alg):
		r.FailAt(at+6, fmt.Errorf("%s digests of %s", types[i].typ, alg))
	case uint64(size) != uint64(count)*uint64(alg.Size()):
		r.FailAt(at+12, fmt.Errorf("%d bytes of data for %d digests of %s", size, count, alg))
	}
	data := r.Sub("compact list digests", int(size))
	if r.Err() != nil {
		return Block{}
	}
	block := Block{types[i].typ, Modifiers(modifiers), alg, make([]digest.Digest, count)}
	for i := range block.Digests {
		block.Digests[i], err = digest.New(alg, data.Bytes(alg.Size()))
		if err != nil {
			r.Fail(err)
		}
	}
	return block
}

// AppendCompact appends a compact list to b. Blocks without digests are left
// out: they say nothing. What the dialect has no number for is refused.
func AppendCompact(b []byte, d Dialect, e Endian, blocks []Block) ([]byte, error) {
	o, err := order(d, e)
	if err != nil {
		return nil, err
	}
	for i, block := range blocks {
		types := dialects[d].types
		t := slices.IndexFunc(types, func(n numbered) bool { return n.typ == block.Type })
		n := uint64(len(block.Digests)) * uint64(block.Algorithm.Size())
		switch {
		case len(block.Digests) == 0:
			continue
		case t < 0:
			return nil, fmt.Errorf("compact list: block %d: dialect %s has no type %s", i, d, block.Type)
		case !block.Algorithm.Valid() || block.Algorithm.Kernel() >= algorithmEnd || !block.Type.has(block.Algorithm):
			return nil, fmt.Errorf("compact list: block %d: %s cannot be in it", i, block.Algorithm)
		case n > math.MaxUint32:
			return nil, fmt.Errorf("compact list: block %d: %d digests do not fit", i, len(block.Digests))
		}
		b = append(b, compactVersion, 0)
		b = o.AppendUint16(b, types[t].number)
		b = o.AppendUint16(b, uint16(block.Modifiers))
		b = o.AppendUint16(b, block.Algorithm.Kernel())
		b = o.AppendUint32(b, uint32(len(block.Digests)))
		b = o.AppendUint32(b, uint32(n))
		for _, x := range block.Digests {
			if x.Algorithm() != block.Algorithm {
				return nil, fmt.Errorf("compact list: block %d: %s among digests of %s", i, x, block.Algorithm)
			}
			b = x.Append(b)
		}
	}
	return b, nil
}

// SplitCompact cuts blocks into lists whose compact form takes at most limit
// bytes each. Digests keep their order.
func SplitCompact(blocks []Block, limit int) ([][]Block, error) {
	var lists [][]Block
	var list []Block
	room := limit
	for _, block := range blocks {
		for len(block.Digests) > 0 {
			n := min(len(block.Digests), (room-compactHeaderSize)/max(1, block.Algorithm.Size()))
			if n <= 0 {
				if len(list) == 0 {
					return nil, errors.New("compact list: the limit leaves no room for a digest")
				}
				lists, list, room = append(lists, list), nil, limit
				continue
			}
			part := block
			part.Digests, block.Digests = block.Digests[:n], block.Digests[n:]
			list = append(list, part)
			room -= compactHeaderSize + n*block.Algorithm.Size()
		}
	}
	if len(list) > 0 {
		lists = append(lists, list)
	}
	return lists, nil
}
