package rpmdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"

	"diglim/internal/wire"
)

// ndb is rpm's own format (its lib/backend/ndb/rpmpkg.c). All integers are
// little-endian. A file is pages of slots, then blocks of 16 bytes:
//
//	header of 2 slots   magic, version, generation, pages of slots, ...
//	slot                magic, key, first block, blocks; no key: a free one
//	blob                magic, key, generation, size; the header; zeros to
//	                    the end of a block; Adler-32 of all that, size, magic
type ndb struct{ f file }

const (
	ndbMagic     = 'R' | 'p'<<8 | 'm'<<16 | 'P'<<24
	ndbSlotMagic = 'S' | 'l'<<8 | 'o'<<16 | 't'<<24
	ndbBlobMagic = 'B' | 'l'<<8 | 'b'<<16 | 'S'<<24
	ndbTailMagic = 'B' | 'l'<<8 | 'b'<<16 | 'E'<<24

	ndbPage     = 4096
	ndbSlot     = 16 // bytes
	ndbBlock    = 16
	ndbBlobHead = 16
	ndbBlobTail = 12

	ndbMaxPages = maxRecords * ndbSlot / ndbPage
)

func (s *ndb) index() ([]Record, error) {
	const record = "ndb header"
	b, err := s.f.bytes(record, 0, 2*ndbSlot)
	if err != nil {
		return nil, err
	}
	r := wire.New(record, binary.LittleEndian, b)
	r.U32() // magic
	if v := r.U32(); v != 0 {
		r.FailAt(4, fmt.Errorf("version %d, must be 0", v))
	}
	r.U32() // generation
	pages := r.Count("pages of slots", ndbMaxPages)
	if r.Err() != nil {
		return nil, r.Err()
	}
	var records []Record
	page := make([]byte, ndbPage)
	for p := range pages {
		at := int64(p) * ndbPage
		if err := s.f.read("ndb slots", page, at); err != nil {
			return nil, err
		}
		r := wire.New("ndb slot", binary.LittleEndian, page).At(at)
		if p == 0 {
			r.Bytes(2 * ndbSlot)
		}
		for r.Len() > 0 {
			at := r.Offset()
			magic, key, block, count := r.U32(), r.U32(), r.U32(), r.U32()
			if magic != ndbSlotMagic {
				r.FailAt(at, errors.New("no slot magic"))
			}
			if key != 0 {
				records = append(records, Record{Key: key, page: block, size: count})
			}
		}
		if r.Err() != nil {
			return nil, r.Err()
		}
	}
	return records, nil
}

func (s *ndb) read(rec Record, buf []byte) ([]byte, error) {
	const record = "ndb blob"
	at := int64(rec.page) * ndbBlock
	b, err := s.f.room(buf, int64(rec.size)*ndbBlock)
	if err != nil {
		return nil, err
	}
	if err := s.f.read(record, b, at); err != nil {
		return nil, err
	}
	r := wire.New(record, binary.LittleEndian, b).At(at)
	magic, key, _, size := r.U32(), r.U32(), r.U32(), r.U32()
	switch blocks := (ndbBlobHead + int64(size) + ndbBlobTail + ndbBlock - 1) / ndbBlock; {
	case r.Err() != nil:
	case magic != ndbBlobMagic:
		r.FailAt(at, errors.New("no blob magic"))
	case key != rec.Key:
		r.FailAt(at+4, fmt.Errorf("it is of header %d", key))
	case blocks != int64(rec.size):
		r.FailAt(at+12, fmt.Errorf("%d bytes take %d blocks, the slot has %d", size, blocks, rec.size))
	}
	blob := r.Bytes(int(size))
	r.Bytes(r.Len() - ndbBlobTail)
	tail := r.Offset()
	sum, again, end := r.U32(), r.U32(), r.U32()
	switch {
	case r.Err() != nil:
	case again != size || end != ndbTailMagic:
		r.FailAt(tail, errors.New("no blob tail"))
	case sum != adler32.Checksum(b[:len(b)-ndbBlobTail]):
		r.FailAt(tail, errors.New("checksum does not match"))
	}
	return blob, r.Finish()
}
