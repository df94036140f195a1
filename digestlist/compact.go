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
	V3 Dialect = iota + 1 // DIGLIM v3 (2021-09-14), little-endian
)

func (d Dialect) String() string {
	if d == V3 {
		return "v3"
	}
	return fmt.Sprintf("dialect(%d)", uint8(d))
}

// A Type says what a digest is the digest of. The zero Type is none.
type Type uint8

// The types.
const (
	Parser   Type = iota + 1 // an executable that may upload lists
	File                     // a file's content
	Metadata                 // a file's metadata
)

func (t Type) String() string {
	switch t {
	case Parser:
		return "parser"
	case File:
		return "file"
	case Metadata:
		return "metadata"
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// ParseType reads what String prints.
func ParseType(s string) (Type, error) {
	for t := Parser; t <= Metadata; t++ {
		if t.String() == s {
			return t, nil
		}
	}
	return 0, fmt.Errorf("list type %q is not known", s)
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

	// v3AlgorithmEnd is HASH_ALGO__LAST of the kernels that DIGLIM v3 was
	// written for, which refuse everything from there on.
	v3AlgorithmEnd = 20
)

// ParseCompact reads a compact list: blocks, back to back, to the last byte.
// It refuses what the kernel refuses (security/integrity/diglim/parser.c).
// No block at all is a valid, empty list.
func ParseCompact(d Dialect, b []byte) ([]Block, error) {
	if d != V3 {
		return nil, fmt.Errorf("compact list: %s is not known", d)
	}
	r := wire.New("compact list", binary.LittleEndian, b)
	var blocks []Block
	for r.Len() > 0 {
		r.Record(fmt.Sprintf("compact list block %d", len(blocks)))
		block := parseBlock(r)
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

func parseBlock(r *wire.Reader) Block {
	at := r.Offset()
	version, reserved, typ, modifiers, algo := r.U8(), r.U8(), r.U16(), r.U16(), r.U16()
	count, size := r.U32(), r.U32()
	alg, err := digest.ByKernel(algo)
	switch {
	case r.Err() != nil:
		return Block{}
	case version != compactVersion:
		r.FailAt(at, fmt.Errorf("version %d, must be %d", version, compactVersion))
	case reserved != 0:
		r.FailAt(at+1, fmt.Errorf("reserved byte is %d", reserved))
	case typ >= uint16(Metadata):
		r.FailAt(at+2, fmt.Errorf("type %d is not known", typ))
	case err != nil || algo >= v3AlgorithmEnd:
		r.FailAt(at+6, fmt.Errorf("hash algorithm %d is not known", algo))
	case uint64(size) != uint64(count)*uint64(alg.Size()):
		r.FailAt(at+12, fmt.Errorf("%d bytes of data for %d digests of %s", size, count, alg))
	}
	data := r.Sub("compact list digests", int(size))
	if r.Err() != nil {
		return Block{}
	}
	block := Block{Type(typ + 1), Modifiers(modifiers), alg, make([]digest.Digest, count)}
	for i := range block.Digests {
		block.Digests[i], err = digest.New(alg, data.Bytes(alg.Size()))
		if err != nil {
			r.Fail(err)
		}
	}
	return block
}

// AppendCompact appends a compact list to b. Blocks without digests are left
// out: they say nothing.
func AppendCompact(b []byte, d Dialect, blocks []Block) ([]byte, error) {
	if d != V3 {
		return nil, fmt.Errorf("compact list: %s is not known", d)
	}
	for i, block := range blocks {
		n := uint64(len(block.Digests)) * uint64(block.Algorithm.Size())
		switch {
		case len(block.Digests) == 0:
			continue
		case block.Type < Parser || block.Type > Metadata:
			return nil, fmt.Errorf("compact list: block %d: %s is not known", i, block.Type)
		case !block.Algorithm.Valid() || block.Algorithm.Kernel() >= v3AlgorithmEnd:
			return nil, fmt.Errorf("compact list: block %d: %s cannot be in it", i, block.Algorithm)
		case n > math.MaxUint32:
			return nil, fmt.Errorf("compact list: block %d: %d digests do not fit", i, len(block.Digests))
		}
		b = append(b, compactVersion, 0)
		b = binary.LittleEndian.AppendUint16(b, uint16(block.Type-1))
		b = binary.LittleEndian.AppendUint16(b, uint16(block.Modifiers))
		b = binary.LittleEndian.AppendUint16(b, block.Algorithm.Kernel())
		b = binary.LittleEndian.AppendUint32(b, uint32(len(block.Digests)))
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
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
