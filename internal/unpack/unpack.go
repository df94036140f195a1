// Package unpack reads compressed data and archive members that nobody vouches
// for: what comes out, and the memory that it takes, has limits.
package unpack

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
)

const (
	// maxWindow is the limit on the history in bytes that a decoder keeps. It is
	// what xz -9 asks for; zstd asks for more only by --ultra -22 and --long.
	maxWindow = 64 << 20

	maxPath = 4095 // bytes: PATH_MAX of the kernel without its NUL
)

// ErrLimit says that more comes out than is allowed.
var ErrLimit = errors.New("unpacks to more than the limit")

// A Format is a way of compressing. The zero Format is none at all.
type Format uint8

// The formats.
const (
	None Format = iota
	Gzip
	XZ
	Zstd
)

func (f Format) String() string { return [...]string{"none", "gzip", "xz", "zstd"}[f] }

// BySuffix splits a file name into what the unpacked file is called, and the
// format that its suffix stands for.
func BySuffix(name string) (base string, f Format, err error) {
	switch suffix := path.Ext(name); suffix {
	case ".gz":
		f = Gzip
	case ".xz":
		f = XZ
	case ".zst":
		f = Zstd
	case ".bz2", ".lzma", ".lz4", ".lzo":
		return "", None, fmt.Errorf("compressed with %s, only gz, xz and zst are supported", suffix[1:])
	default:
		return name, None, nil
	}
	return strings.TrimSuffix(name, path.Ext(name)), f, nil
}

// magics are what compressed data starts with (linux/lib/decompress.c).
var magics = []struct {
	magic  string
	format Format
	other  string // the name of a format that is not supported
}{
	{"\x1f\x8b", Gzip, ""},
	{"\xfd7zXZ\x00", XZ, ""},
	{"\x28\xb5\x2f\xfd", Zstd, ""},
	{"BZh", None, "bzip2"},
	{"\x02\x21\x4c\x18", None, "lz4"},
	{"\x89LZO", None, "lzo"},
	{"\x5d\x00\x00", None, "lzma"},
}

// ByMagic returns the format that the first bytes of compressed data stand
// for; None if they stand for no known one. Six bytes are enough.
func ByMagic(b []byte) (Format, error) {
	for _, m := range magics {
		if !bytes.HasPrefix(b, []byte(m.magic)) {
			continue
		}
		if m.format == None {
			return None, fmt.Errorf("compressed with %s, only gzip, xz and zstd are supported", m.other)
		}
		return m.format, nil
	}
	return None, nil
}

// New returns a reader of what all of r unpacks to. After limit bytes it fails
// with ErrLimit.
func New(f Format, r io.Reader, limit int64) (io.ReadCloser, error) {
	u, err := decoder(f, r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f, err)
	}
	return &reader{u, f, limit, limit}, nil
}

func decoder(f Format, r io.Reader) (io.ReadCloser, error) {
	switch f {
	case Gzip:
		return gzip.NewReader(r)
	case XZ:
		u, err := xz.NewReader(r, maxWindow)
		return io.NopCloser(u), err
	case Zstd:
		u, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return u.IOReadCloser(), nil
	}
	return io.NopCloser(r), nil
}

// First is New for the compressed stream that r starts with. Once that is read
// to its end r stands right behind it.
func First(f Format, r *bufio.Reader, limit int64) (io.ReadCloser, error) {
	switch f {
	case Gzip:
		u, err := gzip.NewReader(r) // reads byte by byte, if it can
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		u.Multistream(false)
		return &reader{u, f, limit, limit}, nil
	case XZ:
		return New(f, xzStream(r), limit)
	case Zstd:
		return New(f, zstdFrame(r), limit)
	}
	return nil, errors.New("data that is not compressed has no end of its own")
}

type reader struct {
	io.ReadCloser
	format Format
	limit  int64
	left   int64
}

func (r *reader) Read(p []byte) (int, error) {
	if r.left < 0 {
		return 0, fmt.Errorf("%s: %w of %d bytes", r.format, ErrLimit, r.limit)
	}
	// One byte more than there may be, to see whether there is.
	n, err := r.ReadCloser.Read(p[:min(int64(len(p)), r.left+1)])
	r.left -= int64(n)
	if r.left < 0 {
		return n - 1, fmt.Errorf("%s: %w of %d bytes", r.format, ErrLimit, r.limit)
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%s: %w", r.format, err)
	}
	return n, err
}

// Path returns where below the root an archive's member of that name comes to
// lie, e.g. "/usr/bin/sh" for "./usr/bin/sh". Names that are absolute, that
// climb (..), that have control characters, or that no kernel would take are
// refused.
func Path(name string) (string, error) {
	switch {
	case len(name) > maxPath:
		return "", fmt.Errorf("name %.32q… of %d bytes, the limit is %d", name, len(name), maxPath)
	case name == "":
		return "", errors.New("member without a name")
	case name[0] == '/':
		return "", fmt.Errorf("name %q is absolute", name)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", fmt.Errorf("name %q has control characters", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("name %q climbs out", name)
		}
	}
	return path.Clean("/" + name), nil
}
