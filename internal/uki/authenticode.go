package uki

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// Where fields of the optional header are in it (Microsoft's PE format), in bytes.
const (
	sizeOfHeadersAt = 60
	checksumAt      = 64
	directoriesAt   = 112 // in PE32+; in PE32 16 less
	certificatesAt  = 4 * 8
	magicPE32       = 0x10b
	magicPE32Plus   = 0x20b
)

// Authenticode is the hash by which a firmware knows a PE file of size bytes: that
// of Microsoft's Authenticode, which leaves out the checksum and the signatures.
// Firmware extends PCR 4 with it when it starts the file (PC Client Platform
// Firmware Profile, section 3.3.4.5). A file whose size is no multiple of 8 gets
// another hash when it is signed, because it is filled up. The bank must be
// Available.
func Authenticode(file io.ReaderAt, size int64, bank digest.Algorithm) (digest.Digest, error) {
	head := make([]byte, min(size, maxHeader))
	if _, err := io.ReadFull(io.NewSectionReader(file, 0, size), head); err != nil {
		return digest.Digest{}, err
	}
	r, count, optional := header(head)
	at := r.Offset()
	o := r.Sub("optional header", optional)
	magic := o.U16()
	directories := int64(directoriesAt)
	switch {
	case o.Err() != nil:
	case magic == magicPE32:
		directories -= 16
	case magic != magicPE32Plus:
		o.Failf("magic number %#x", magic)
	}
	o.Bytes(sizeOfHeadersAt - 2)
	headers := int64(o.U32())
	o.Bytes(int(directories) - sizeOfHeadersAt - 4 - 4)
	skip := []section{{at + checksumAt, 4}}
	signatures := int64(0)
	if n := o.U32(); n > certificatesAt/8 {
		o.Bytes(certificatesAt)
		o.U32() // where they are
		signatures = int64(o.U32())
		skip = append(skip, section{at + directories + certificatesAt, 8})
	}
	if o.Err() != nil {
		return digest.Digest{}, o.Err()
	}
	var stored []section
	for i := range count {
		r.Record(fmt.Sprintf("section %d", i+1))
		r.Bytes(8 + 4 + 4)
		length := int64(r.U32())
		from := int64(r.U32())
		r.Bytes(3*4 + 4)
		if length > 0 {
			stored = append(stored, section{from, length})
		}
	}
	if r.Err() != nil {
		return digest.Digest{}, r.Err()
	}
	slices.SortStableFunc(stored, func(a, b section) int { return cmp.Compare(a.at, b.at) })
	var parts []section
	from := int64(0)
	for _, s := range skip {
		parts = append(parts, section{from, s.at - from})
		from = s.at + s.size
	}
	parts = append(parts, section{from, headers - from})
	hashed := headers
	for _, s := range stored {
		parts = append(parts, s)
		hashed += s.size
	}
	parts = append(parts, section{hashed, size - signatures - hashed}) // what lies behind
	h := bank.Hash()
	for _, p := range parts {
		if p.size < 0 || p.at+p.size > size {
			return digest.Digest{}, errors.New("PE file: its headers, sections and signatures are more than the file")
		}
		n, err := io.Copy(h, io.NewSectionReader(file, p.at, p.size))
		if err == nil && n < p.size {
			err = wire.ErrShort
		}
		if err != nil {
			return digest.Digest{}, err
		}
	}
	return digest.Of(bank, h), nil
}
