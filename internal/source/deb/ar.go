package deb

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"

	"diglim/internal/wire"
)

const (
	arMagic      = "!<arch>\n"
	arHeaderSize = 60
)

// An arReader reads the members of an ar archive, one after the other
// and without looking back (deb(5), <ar.h>).
type arReader struct {
	r    io.Reader
	off  int64 // bytes read
	left int64 // of the member's content
	odd  bool  // a byte pads it
}

// start reads the archive's magic.
func (a *arReader) start() error {
	b, err := a.fill(len(arMagic), "ar magic")
	if err == nil && string(b) != arMagic {
		err = &wire.Error{Record: "ar magic", Offset: 0, Err: fmt.Errorf("%q is none", b)}
	}
	return unexpected(err)
}

// next goes to the next member, over what was not read of the one before, and
// returns its name and size; io.EOF behind the last one.
func (a *arReader) next() (name string, size int64, err error) {
	if _, err := io.Copy(io.Discard, a); err != nil {
		return "", 0, err
	}
	if a.odd {
		if _, err := a.fill(1, "ar padding"); err != nil {
			return "", 0, unexpected(err)
		}
		a.odd = false
	}
	at := a.off
	b, err := a.fill(arHeaderSize, "ar header")
	if err != nil {
		return "", 0, err
	}
	name, size, err = parseARHeader(b, at)
	a.left, a.odd = size, size%2 != 0
	return name, size, err
}

// parseARHeader reads a member's header at an offset: text, padded with
// spaces.
func parseARHeader(b []byte, at int64) (name string, size int64, err error) {
	r := wire.New("ar header", binary.BigEndian, b).At(at)
	name = strings.TrimSuffix(strings.TrimRight(string(r.Bytes(16)), " "), "/")
	r.Bytes(12 + 6 + 6 + 8) // time, owner, group, mode
	sizeAt := r.Offset()
	digits := strings.TrimRight(string(r.Bytes(10)), " ")
	if n, err := strconv.ParseUint(digits, 10, 63); err == nil {
		size = int64(n)
	} else {
		r.FailAt(sizeAt, fmt.Errorf("size %q is not a number", digits))
	}
	if end := string(r.Bytes(2)); end != "`\n" {
		r.FailAt(at, fmt.Errorf("ends in %q", end))
	}
	return name, size, r.Finish()
}

// fill reads n bytes. Where there are none at all the error is io.EOF.
func (a *arReader) fill(n int, record string) ([]byte, error) {
	b := make([]byte, n)
	at := a.off
	got, err := io.ReadFull(a.r, b)
	a.off += int64(got)
	if err == io.ErrUnexpectedEOF {
		err = &wire.Error{Record: record, Offset: at, Err: fmt.Errorf("%w: %d bytes wanted, %d left", wire.ErrShort, n, got)}
	}
	return b, err
}

// Read reads the content of the member.
func (a *arReader) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, io.EOF
	}
	n, err := a.r.Read(p[:min(int64(len(p)), a.left)])
	a.off += int64(n)
	a.left -= int64(n)
	if err == io.EOF && a.left > 0 {
		err = &wire.Error{Record: "ar member", Offset: a.off, Err: fmt.Errorf("%w: %d bytes missing", wire.ErrShort, a.left)}
	} else if err == io.EOF {
		err = nil
	}
	return n, err
}
