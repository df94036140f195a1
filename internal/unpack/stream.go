package unpack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A stream passes on one compressed stream out of something longer, and not a
// byte of what follows. Decoders read ahead; where a stream ends is found out
// by its framing. Whether what is framed makes sense is left to the decoder.
type stream struct {
	r    *bufio.Reader
	head []byte       // taken from r, and not passed on yet
	body int64        // bytes of r to pass on after that
	step func() error // takes the next head, sets body, and the step after; nil at the end
	err  error        // the step's, once head has been passed on
}

func (s *stream) Read(p []byte) (int, error) {
	for len(s.head) == 0 && s.body == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.step == nil {
			return 0, io.EOF
		}
		s.err = s.step()
	}
	if len(s.head) > 0 {
		n := copy(p, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.body)])
	s.body -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// take moves n bytes to head and returns them.
func (s *stream) take(n int) ([]byte, error) {
	at := len(s.head)
	s.head = append(s.head, make([]byte, n)...)
	got, err := io.ReadFull(s.r, s.head[at:])
	s.head = s.head[:at+got]
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return s.head[at:], err
}

// zstdFrame is the zstd frame that r starts with (RFC 8878 section 3.1.1).
func zstdFrame(r *bufio.Reader) *stream {
	s := &stream{r: r}
	checksum := 0
	block := func() error {
		b, err := s.take(3)
		if err != nil {
			return err
		}
		h := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
		last, kind, size := h&1 != 0, h>>1&3, int64(h>>3)
		switch kind {
		case 1: // run of one byte
			size = 1
		case 3:
			return errors.New("reserved block type")
		}
		s.body = size
		if last {
			s.step = func() error {
				s.step = nil
				s.body = int64(checksum)
				return nil
			}
		}
		return nil
	}
	s.step = func() error {
		b, err := s.take(5)
		if err != nil {
			return err
		}
		descriptor := b[4]
		checksum = int(descriptor >> 2 & 1 * 4)
		size := [4]int64{0, 2, 4, 8}[descriptor>>6] // of the content size
		if single := descriptor>>5&1 != 0; !single {
			size++ // window descriptor
		} else if size == 0 {
			size = 1
		}
		size += [4]int64{0, 1, 2, 4}[descriptor&3] // dictionary id
		s.body = size
		s.step = block
		return nil
	}
	return s
}

// xzStream is the xz stream that r starts with (The .xz File Format, version
// 1.2, section 2).
func xzStream(r *bufio.Reader) *stream {
	s := &stream{r: r}
	var (
		check        int64  // size of a block's check
		size         int64  // of the block, or index, so far
		records      uint64 // of the index, yet to come
		block, chunk func() error
		record       func() error
	)
	padding := func() int64 { return -size & 3 }
	// number takes an integer of the index (section 1.2).
	number := func() (n uint64, err error) {
		for i := range 9 {
			b, err := s.take(1)
			if err != nil {
				return 0, err
			}
			size++
			n |= uint64(b[0]&0x7f) << (7 * i)
			if b[0]&0x80 == 0 {
				return n, nil
			}
		}
		return 0, errors.New("index: a number of more than 9 bytes")
	}
	record = func() error {
		if records == 0 {
			s.body = padding() + 4 + 12 // CRC32, stream footer
			s.step = nil
			return nil
		}
		records--
		for range 2 {
			if _, err := number(); err != nil {
				return err
			}
		}
		return nil
	}
	// chunk is one of LZMA2, which every block ends its filters with.
	chunk = func() error {
		b, err := s.take(1)
		if err != nil {
			return err
		}
		switch control := b[0]; {
		case control == 0:
			s.body = -(size+1)&3 + check
			s.step = block
		case control <= 2: // not compressed
			if b, err = s.take(2); err != nil {
				return err
			}
			s.body = int64(binary.BigEndian.Uint16(b)) + 1
			size += 3 + s.body
		case control < 0x80:
			return fmt.Errorf("LZMA2 control byte %#02x", control)
		default:
			if b, err = s.take(4); err != nil {
				return err
			}
			s.body = int64(binary.BigEndian.Uint16(b[2:])) + 1
			if control >= 0xc0 { // new properties
				s.body++
			}
			size += 5 + s.body
		}
		return nil
	}
	block = func() error {
		b, err := s.take(1)
		if err != nil {
			return err
		}
		if b[0] != 0 {
			s.body = int64(b[0])*4 + 3
			size = 0 // the header is a multiple of 4
			s.step = chunk
			return nil
		}
		size = 1
		s.step = record
		records, err = number()
		return err
	}
	s.step = func() error {
		b, err := s.take(12)
		if err != nil {
			return err
		}
		check = [16]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[b[7]&15]
		s.step = block
		return nil
	}
	return s
}
