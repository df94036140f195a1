package plain

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/unpack"
)

// Limits on an initramfs image. It is unpacked to memory by the kernel, before
// anything runs.
const (
	maxImage      = 16 << 30 // bytes unpacked
	maxImageFiles = 1 << 18
	maxImagePaths = 32 << 20 // bytes of all paths
)

// Initramfs returns the files of an initramfs image, sorted by path, as they
// are once the kernel has unpacked it (init/initramfs.c): of several with one
// path the last, hard links with the content that they share. An image is cpio
// archives (newc or crc), one after the other, each as it is or inside of a
// gzip, xz or zstd stream, with zeros between. Members that are not regular
// files are left out. The algorithm must be Available.
func Initramfs(r io.Reader, alg digest.Algorithm) ([]File, error) {
	img := &image{alg: alg, files: make(map[string]*content)}
	if err := img.read(r); err != nil {
		return nil, err
	}
	return img.list(), nil
}

// MaxContent is the limit on what Contents returns of a file in bytes.
const MaxContent = 64 << 20

// Contents returns the contents in an initramfs image that have these digests,
// of those that have not more than MaxContent bytes. The digests are of one
// algorithm.
func Contents(r io.Reader, wanted []digest.Digest) (map[digest.Digest][]byte, error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	img := &image{alg: wanted[0].Algorithm(), files: make(map[string]*content), wanted: make(map[digest.Digest][]byte)}
	for _, d := range wanted {
		img.wanted[d] = nil
	}
	err := img.read(r)
	return img.wanted, err
}

func (img *image) read(r io.Reader) error {
	in := newInput(r)
	for part := 1; ; part++ {
		if err := in.skipZeros(); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		at := in.offset()
		if err := img.part(in); err != nil {
			return fmt.Errorf("part %d at offset %d: %w", part, at, err)
		}
	}
	if img.archives == 0 {
		return errors.New("no cpio archive in it")
	}
	return nil
}

// image is what has been unpacked.
type image struct {
	alg   digest.Algorithm
	files map[string]*content // by path; hard links share one
	paths int                 // bytes of all paths
	size  int64               // bytes unpacked from compressed parts

	archives int
	wanted   map[digest.Digest][]byte // contents to keep; nil for none
}

// content is what an inode holds.
type content struct {
	mode   uint32
	size   int64
	digest digest.Digest
	elf    bool
}

// part reads an archive, or a compressed stream of archives.
func (img *image) part(in *input) error {
	magic, err := in.Peek(len(cpioNewc))
	if len(magic) > 0 && magic[0] == '0' {
		return img.archive(in)
	}
	if err != nil && err != io.EOF {
		return err
	}
	format, err := unpack.ByMagic(magic)
	if err != nil {
		return err
	}
	if format == unpack.None {
		return fmt.Errorf("starts with %q, which is neither cpio nor compressed", magic)
	}
	u, err := unpack.First(format, in.Reader, maxImage-img.size)
	if err != nil {
		return err
	}
	defer u.Close()
	unpacked := newInput(u)
	for {
		if err := unpacked.skipZeros(); err == io.EOF {
			img.size += unpacked.offset()
			return nil
		} else if err != nil {
			return err
		}
		if err := img.archive(unpacked); err != nil {
			return fmt.Errorf("%s: %w", format, err)
		}
	}
}

// archive reads an archive up to its trailer.
func (img *image) archive(in *input) error {
	if at := in.offset(); at%4 != 0 {
		return fmt.Errorf("archive at offset %d, must be a multiple of 4", at)
	}
	type inode struct{ number, major, minor uint32 }
	links := make(map[inode]*content)
	for {
		m, err := readMember(in)
		if err != nil {
			return err
		}
		if m.name == cpioTrailer {
			img.archives++
			return readContent(in, m, io.Discard)
		}
		// Whether names start at the root or say so, they mean the same: the
		// kernel unpacks where there is nothing else.
		name := strings.TrimLeft(m.name, "/")
		if name == "" {
			name = "."
		}
		path, err := unpack.Path(name)
		if err != nil {
			return err
		}
		if m.mode&cpioType != cpioRegular {
			img.remove(path)
			m.hasChecksum = false // some write one for symbolic links, some do not
			if err := readContent(in, m, io.Discard); err != nil {
				return err
			}
			continue
		}
		if path == "/" {
			return fmt.Errorf("regular file %q, which is the root", m.name)
		}
		key := inode{m.inode, m.major, m.minor}
		c, linked := links[key]
		if !linked {
			// The kernel writes over a file that is there already.
			if c = img.files[path]; c == nil {
				c = new(content)
			}
			if m.links > 1 {
				links[key] = c
			}
			if len(links) > maxImageFiles {
				return fmt.Errorf("more than %d files with hard links", maxImageFiles)
			}
		}
		h := img.alg.Hash()
		start := &head{limit: len(elf.ELFMAG)}
		if img.wanted != nil && m.size <= MaxContent {
			start.limit = int(m.size)
		}
		if err := readContent(in, m, io.MultiWriter(h, start)); err != nil {
			return err
		}
		c.mode = m.mode & 0o7777
		if m.size > 0 || !linked { // one of all links carries the content
			c.size, c.digest = m.size, digest.Of(img.alg, h)
			c.elf = bytes.HasPrefix(start.b, []byte(elf.ELFMAG))
			if _, ok := img.wanted[c.digest]; ok && m.size <= MaxContent {
				img.wanted[c.digest] = start.b
			}
		}
		if err := img.add(path, c); err != nil {
			return err
		}
	}
}

func (img *image) add(path string, c *content) error {
	if _, there := img.files[path]; !there {
		img.paths += len(path)
	}
	img.files[path] = c
	if len(img.files) > maxImageFiles {
		return fmt.Errorf("more than %d files", maxImageFiles)
	}
	if img.paths > maxImagePaths {
		return fmt.Errorf("paths of more than %d bytes", maxImagePaths)
	}
	return nil
}

func (img *image) remove(path string) {
	if _, there := img.files[path]; there {
		img.paths -= len(path)
		delete(img.files, path)
	}
}

func (img *image) list() []File {
	files := make([]File, 0, len(img.files))
	for path, c := range img.files {
		files = append(files, File{path, c.mode, c.size, c.digest, c.elf})
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return files
}

// A head keeps the first bytes of what is written to it.
type head struct {
	b     []byte
	limit int
}

func (h *head) Write(p []byte) (int, error) {
	h.b = append(h.b, p[:min(len(p), h.limit-len(h.b))]...)
	return len(p), nil
}

// An input knows how far reading has come.
type input struct {
	*bufio.Reader
	read *counter
}

func newInput(r io.Reader) *input {
	c := &counter{Reader: r}
	return &input{bufio.NewReaderSize(c, 64<<10), c}
}

func (in *input) offset() int64 { return in.read.n - int64(in.Buffered()) }

// skipZeros reads on to the first byte that is not zero; io.EOF if there is
// none.
func (in *input) skipZeros() error {
	for {
		b, err := in.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return in.UnreadByte()
		}
	}
}

type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}
