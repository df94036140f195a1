package digestlist

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// A TLV list is digests of files with their paths, as the Integrity Digest
// Cache reads it: the layout of version 6 of its patches (2024-11-19,
// include/uapi/linux/tlv_digest_list.h), big-endian on all machines. It does
// not say which files are never changed.
type TLV struct {
	Algorithm digest.Algorithm // of all entries
	Entries   []TLVEntry
}

// A TLVEntry is one file.
type TLVEntry struct {
	Digest digest.Digest
	Path   string // absolute; "" for none. The kernel does not look at it.
}

// The fields of a list, and those of an entry. A field is be16 number, be32
// length, content.
const (
	tlvAlgorithm = 0 // be16, enum hash_algo
	tlvCount     = 1 // be32, how many entries follow
	tlvEntry     = 2

	tlvDigest = 0
	tlvPath   = 1 // ends in a NUL

	tlvHeaderSize = 6
	maxPath       = 4096 // bytes with the NUL: PATH_MAX
)

// ErrOldTLV says that a list has the layout that the digest cache had before.
var ErrOldTLV = errors.New("tlv list in the layout of versions 3 to 5 of the digest cache: only that of version 6 is read")

// ParseTLV reads a tlv list, without its appended signature. It takes what the
// format's generator writes, which is the algorithm, the count and then the
// entries, each a digest and perhaps a path. The kernel, more lenient, would
// also take fields that are empty or come again, and any count.
func ParseTLV(b []byte) (TLV, error) {
	if bytes.HasPrefix(b, make([]byte, 8)) { // a be64 data type of 0
		return TLV{}, ErrOldTLV
	}
	r := wire.New("tlv list", binary.BigEndian, b)
	f := tlvField(r, "tlv algorithm", tlvAlgorithm)
	at := f.Offset()
	alg, err := digest.ByKernel(f.U16())
	if err != nil {
		f.FailAt(at, err)
	}
	if err := f.Finish(); err != nil {
		return TLV{}, err
	}
	f = tlvField(r, "tlv count", tlvCount)
	n := f.Count("entries in the bytes that follow", r.Len()/(2*tlvHeaderSize+alg.Size()))
	if err := f.Finish(); err != nil {
		return TLV{}, err
	}
	l := TLV{alg, make([]TLVEntry, n)}
	for i := range l.Entries {
		if l.Entries[i], err = parseTLVEntry(tlvField(r, fmt.Sprintf("tlv entry %d", i), tlvEntry), alg); err != nil {
			return TLV{}, err
		}
	}
	r.Record("tlv list")
	if err := r.Finish(); err != nil {
		return TLV{}, err
	}
	return l, nil
}

// tlvField returns a cursor over the content of the next field, which has to
// be that one.
func tlvField(r *wire.Reader, record string, want uint16) *wire.Reader {
	r.Record(record)
	at := r.Offset()
	field := r.U16()
	if field != want && r.Err() == nil {
		r.FailAt(at, fmt.Errorf("field %d, must be %d", field, want))
	}
	return r.Sub(record, r.Count("bytes", r.Len()-4))
}

func parseTLVEntry(r *wire.Reader, alg digest.Algorithm) (TLVEntry, error) {
	f := tlvField(r, "tlv digest", tlvDigest)
	at := f.Offset()
	d, err := digest.New(alg, f.Rest())
	if err != nil {
		f.FailAt(at, err)
	}
	if err := f.Finish(); err != nil {
		return TLVEntry{}, err
	}
	e := TLVEntry{Digest: d}
	if r.Len() > 0 {
		f := tlvField(r, "tlv path", tlvPath)
		at := f.Offset()
		path, ended := bytes.CutSuffix(f.Rest(), []byte{0})
		e.Path = string(path)
		if !ended {
			f.FailAt(at, errors.New("path does not end in a NUL"))
		}
		if err := checkPath(e.Path); err != nil {
			f.FailAt(at, err)
		}
		if err := f.Finish(); err != nil {
			return TLVEntry{}, err
		}
	}
	return e, r.Finish()
}

func checkPath(path string) error {
	switch {
	case path == "":
		return errors.New("empty path")
	case len(path) >= maxPath:
		return fmt.Errorf("path of %d bytes, the limit is %d", len(path), maxPath-1)
	case strings.IndexByte(path, 0) >= 0:
		return errors.New("NUL in a path")
	}
	return nil
}

// AppendTLV appends a tlv list to b.
func AppendTLV(b []byte, l TLV) ([]byte, error) {
	if !l.Algorithm.Valid() {
		return nil, fmt.Errorf("tlv list: %s has no number", l.Algorithm)
	}
	if uint64(len(l.Entries)) > math.MaxUint32 {
		return nil, fmt.Errorf("tlv list: %d entries do not fit", len(l.Entries))
	}
	field := func(number uint16, size int) {
		b = binary.BigEndian.AppendUint16(b, number)
		b = binary.BigEndian.AppendUint32(b, uint32(size))
	}
	field(tlvAlgorithm, 2)
	b = binary.BigEndian.AppendUint16(b, l.Algorithm.Kernel())
	field(tlvCount, 4)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Entries)))
	for i, e := range l.Entries {
		if e.Digest.Algorithm() != l.Algorithm {
			return nil, fmt.Errorf("tlv list: entry %d: %s among digests of %s", i, e.Digest, l.Algorithm)
		}
		size := tlvHeaderSize + l.Algorithm.Size()
		if e.Path != "" {
			if err := checkPath(e.Path); err != nil {
				return nil, fmt.Errorf("tlv list: entry %d: %w", i, err)
			}
			size += tlvHeaderSize + len(e.Path) + 1
		}
		field(tlvEntry, size)
		field(tlvDigest, l.Algorithm.Size())
		b = e.Digest.Append(b)
		if e.Path != "" {
			field(tlvPath, len(e.Path)+1)
			b = append(append(b, e.Path...), 0)
		}
	}
	return b, nil
}
