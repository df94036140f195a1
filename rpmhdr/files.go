package rpmhdr

import (
	"errors"
	"fmt"
	"iter"

	"diglim/internal/digest"
)

// MaxPath is the limit on a path in bytes, which is Linux' own (PATH_MAX).
const MaxPath = 4096

// A File is one file of a package, as its header describes it. Byte slices
// alias the header.
type File struct {
	Dir, Base []byte // the path is Dir+Base; Dir ends in a slash
	Link      []byte // target, of a symbolic link
	Size      uint64 // bytes
	Mode      uint16 // st_mode: type and permissions
	Flags     FileFlags
	Digest    digest.Digest // zero if the header has none
}

// Path returns the file's path as text. Any byte but NUL can be in it.
func (f File) Path() string { return string(f.Dir) + string(f.Base) }

const (
	modeType    = 0o170000
	modeRegular = 0o100000
	modeLink    = 0o120000
)

// IsRegular reports whether it is a regular file.
func (f File) IsRegular() bool { return f.Mode&modeType == modeRegular }

// IsGhost reports whether the package owns the file but does not carry it.
func (f File) IsGhost() bool { return f.Flags&FileGhost != 0 }

// FileFlags are rpm's attributes of a file (rpmfileAttrs).
type FileFlags uint32

// The flags that decide what a digest is worth.
const (
	FileConfig FileFlags = 1 << 0 // meant to be edited
	FileGhost  FileFlags = 1 << 6 // not in the payload
)

// fileTable is a header's file list, checked to be of one length.
type fileTable struct {
	n                    int
	base, digests, links strings
	dirnames             []byte
	dirs                 []uint32 // where each directory starts in dirnames, and the last one ends
	dirIndexes, modes    integers
	sizes, flags         integers
	alg                  digest.Algorithm
}

// Files yields the package's files in header order. After an error it ends.
func (h Header) Files() iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		t, err := h.files()
		if err != nil {
			yield(File{}, fmt.Errorf("rpm header: %w", err))
			return
		}
		for i := range t.n {
			f, err := t.file(i)
			if err != nil {
				yield(File{}, fmt.Errorf("rpm header: file %d: %w", i, err))
				return
			}
			if !yield(f, nil) {
				return
			}
		}
	}
}

func (h Header) files() (*fileTable, error) {
	t := &fileTable{}
	var errs [9]error
	t.base, errs[0] = h.texts(tagBasenames)
	t.digests, errs[1] = h.texts(tagFileDigests)
	t.links, errs[2] = h.texts(tagFileLinktos)
	t.dirIndexes, errs[3] = h.ints(tagDirIndexes, typeInt32)
	t.modes, errs[4] = h.ints(tagFileModes, typeInt16)
	t.sizes, errs[5] = h.ints(tagFileSizes, typeInt32)
	t.flags, errs[6] = h.ints(tagFileFlags, typeInt32)
	t.alg, errs[7] = h.fileDigestAlgorithm()
	if _, ok := h.find(tagLongFileSizes); ok {
		t.sizes, errs[5] = h.ints(tagLongFileSizes, typeInt64)
	}
	dirs, err := h.texts(tagDirnames)
	errs[8] = err
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	t.n = t.base.n
	if _, ok := h.find(tagOldFilenames); ok && t.n == 0 {
		return nil, fmt.Errorf("tag %d: the file list of rpm 3 is not supported", tagOldFilenames)
	}
	for _, c := range []struct {
		tag      Tag
		n        int
		optional bool
	}{
		{tagDirIndexes, t.dirIndexes.len(), false},
		{tagFileModes, t.modes.len(), false},
		{tagFileSizes, t.sizes.len(), false},
		{tagFileFlags, t.flags.len(), true},
		{tagFileLinktos, t.links.n, true},
		{tagFileDigests, t.digests.n, true},
	} {
		if c.n != t.n && (c.n != 0 || !c.optional) {
			return nil, fmt.Errorf("tag %d has %d elements for %d files", c.tag, c.n, t.n)
		}
	}
	if dirs.n > t.n {
		return nil, fmt.Errorf("tag %d has %d elements for %d files", tagDirnames, dirs.n, t.n)
	}
	t.dirnames = dirs.b
	t.dirs = make([]uint32, 1, dirs.n+1)
	for dirs.n > 0 {
		dirs.next()
		t.dirs = append(t.dirs, uint32(len(t.dirnames)-len(dirs.b)))
	}
	return t, nil
}

// fileDigestAlgorithm is MD5 where the header does not say.
func (h Header) fileDigestAlgorithm() (digest.Algorithm, error) {
	a, err := h.ints(tagFileDigestAlgo, typeInt32)
	switch {
	case err != nil:
		return 0, err
	case a.len() == 0:
		return digest.MD5, nil
	case a.len() != 1 || a.at(0) > 0xff:
		return 0, fmt.Errorf("tag %d: not one algorithm", tagFileDigestAlgo)
	}
	return digest.ByOpenPGP(uint8(a.at(0)))
}

// file returns the i-th file. It must be called once for each i, in order:
// string arrays are read from front to back.
func (t *fileTable) file(i int) (File, error) {
	d := t.dirIndexes.at(i)
	if d >= uint64(len(t.dirs)-1) {
		return File{}, fmt.Errorf("directory %d of %d", d, len(t.dirs)-1)
	}
	f := File{
		Dir:  t.dirnames[t.dirs[d] : t.dirs[d+1]-1],
		Base: t.base.next(),
		Size: t.sizes.at(i),
		Mode: uint16(t.modes.at(i)),
	}
	if n := len(f.Dir) + len(f.Base); n > MaxPath {
		return File{}, fmt.Errorf("path of %d bytes, the limit is %d", n, MaxPath)
	}
	if t.flags.len() > 0 {
		f.Flags = FileFlags(t.flags.at(i))
	}
	if t.links.n > 0 {
		if link := t.links.next(); f.Mode&modeType == modeLink {
			f.Link = link
		}
	}
	if t.digests.n > 0 {
		if text := t.digests.next(); len(text) > 0 {
			var err error
			if f.Digest, err = digest.FromHex(t.alg, text); err != nil {
				return File{}, err
			}
		}
	}
	return f, nil
}
