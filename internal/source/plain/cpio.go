package plain

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"

	"diglim/internal/wire"
)

// What a cpio archive can hold (Linux Documentation/driver-api/early-userspace/
// buffer-format.rst, init/initramfs.c).
const (
	cpioHeaderSize = 110
	cpioNewc       = "070701"
	cpioCRC        = "070702" // newc with a checksum over contents
	cpioTrailer    = "TRAILER!!!"

	maxCPIOName = 4096 // bytes with the NUL: PATH_MAX
	cpioType    = 0o170000
	cpioRegular = 0o100000
)

// A member is what the header of an archive's member says. A file's content
// follows, padded to 4 bytes.
type member struct {
	name                string
	mode, links         uint32
	inode, major, minor uint32
	size                int64
	checksum            uint32 // sum of the content's bytes
	hasChecksum         bool
}

// readMember reads a member's header and name, with their padding.
func readMember(in *input) (member, error) {
	at := in.offset()
	var b [cpioHeaderSize]byte
	if err := readFull(in, b[:], "cpio header"); err != nil {
		return member{}, err
	}
	m, nameSize, err := parseMember(b[:], at)
	if err != nil {
		return member{}, err
	}
	name := make([]byte, (cpioHeaderSize+nameSize+3)&^3-cpioHeaderSize)
	if err := readFull(in, name, "cpio name"); err != nil {
		return member{}, err
	}
	if end := bytes.IndexByte(name, 0); end != nameSize-1 {
		return member{}, &wire.Error{Record: "cpio name", Offset: at + cpioHeaderSize, Err: fmt.Errorf("ends at byte %d of %d", end, nameSize)}
	}
	m.name = string(name[:nameSize-1])
	return m, nil
}

// parseMember reads a header at an offset: a magic and 13 numbers of 8
// hexadecimal digits.
func parseMember(b []byte, at int64) (m member, nameSize int, err error) {
	r := wire.New("cpio header", binary.BigEndian, b).At(at)
	switch magic := string(r.Bytes(6)); magic {
	case cpioNewc:
	case cpioCRC:
		m.hasChecksum = true
	default:
		r.FailAt(at, fmt.Errorf("magic %q is not that of newc or crc", magic))
	}
	number := func() uint32 {
		at := r.Offset()
		digits := string(r.Bytes(8))
		n, err := strconv.ParseUint(digits, 16, 32)
		if err != nil {
			r.FailAt(at, fmt.Errorf("%q is not a number of 8 hexadecimal digits", digits))
		}
		return uint32(n)
	}
	m.inode = number()
	m.mode = number()
	number() // uid
	number() // gid
	m.links = number()
	number() // mtime
	m.size = int64(number())
	m.major, m.minor = number(), number()
	number() // rdev major
	number() // rdev minor
	sizeAt := r.Offset()
	size := number()
	if size == 0 || size > maxCPIOName {
		r.FailAt(sizeAt, fmt.Errorf("name of %d bytes, must be 1 to %d", size, maxCPIOName))
	}
	m.checksum = number()
	return m, int(size), r.Finish()
}

// readFull fills b; what ends before is an error that says in which record.
func readFull(in *input, b []byte, record string) error {
	at := in.offset()
	n, err := io.ReadFull(in, b)
	switch err {
	case nil:
		return nil
	case io.EOF, io.ErrUnexpectedEOF:
		err = fmt.Errorf("%w: %d bytes wanted, %d left", wire.ErrShort, len(b), n)
	}
	return &wire.Error{Record: record, Offset: at, Err: err}
}

// readContent copies a member's content to w, and reads its padding.
func readContent(in *input, m member, w io.Writer) error {
	at := in.offset()
	sum := new(byteSum)
	if m.hasChecksum {
		w = io.MultiWriter(w, sum)
	}
	n, err := io.CopyN(w, in, m.size)
	if err == io.EOF {
		err = fmt.Errorf("%w: %d bytes wanted, %d left", wire.ErrShort, m.size, n)
	}
	if err == nil && m.hasChecksum && uint32(*sum) != m.checksum {
		err = fmt.Errorf("checksum %08x, the header says %08x", uint32(*sum), m.checksum)
	}
	if err != nil {
		return &wire.Error{Record: fmt.Sprintf("cpio content of %q", m.name), Offset: at, Err: err}
	}
	var padding [4]byte
	return readFull(in, padding[:-m.size&3], "cpio padding")
}

// byteSum is the checksum of the crc format, which is none: the sum of all
// bytes.
type byteSum uint32

func (s *byteSum) Write(b []byte) (int, error) {
	for _, c := range b {
		*s += byteSum(c)
	}
	return len(b), nil
}
