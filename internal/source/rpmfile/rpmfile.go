// Package rpmfile finds RPM package files and reads their headers.
package rpmfile

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diglim/rpmhdr"

	"golang.org/x/sys/unix"
)

// A File is a package file, as it was when it was found.
type File struct {
	Path  string
	Stamp Stamp
	mode  uint32 // st_mode
	err   error  // why nothing is known of it
}

// A Stamp is what changes whenever a file does. The zero Stamp says nothing.
type Stamp struct {
	Size, Modified, Changed int64 // bytes; nanoseconds since 1970
	Inode                   uint64
}

// Find returns the package files that the arguments stand for: a file for
// itself, a directory for all files below it that end in .rpm, in the order of
// their paths. What cannot be read is in errs; the rest is found all the same.
func Find(args []string) (files []File, errs []error) {
	for _, arg := range args {
		f := At(arg)
		if f.err != nil {
			errs = append(errs, f.err)
			continue
		}
		if f.mode&unix.S_IFMT != unix.S_IFDIR {
			files = append(files, f)
			continue
		}
		found := len(files)
		files, errs = walk(files, errs, arg)
		if len(files) == found {
			errs = append(errs, fmt.Errorf("%s: no packages (*.rpm) below it", arg))
		}
	}
	byPath := func(a, b File) int { return cmp.Compare(a.Path, b.Path) }
	if !slices.IsSortedFunc(files, byPath) {
		slices.SortFunc(files, byPath)
	}
	return slices.CompactFunc(files, func(a, b File) bool { return a.Path == b.Path }), errs
}

// walk appends the packages below a directory.
func walk(files []File, errs []error, path string) ([]File, []error) {
	dir, err := os.Open(path)
	if err != nil {
		return files, append(errs, err)
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		errs = append(errs, err)
	}
	for _, e := range entries {
		below := filepath.Join(path, e.Name())
		switch {
		case e.IsDir():
			files, errs = walk(files, errs, below)
		case strings.HasSuffix(e.Name(), ".rpm"):
			files = append(files, at(int(dir.Fd()), e.Name(), below))
		}
	}
	return files, errs
}

// At returns the file at a path. Of what is not there Read says so.
func At(path string) File { return at(unix.AT_FDCWD, path, path) }

// at is os.Stat without what that allocates, and for a name in an open
// directory, which the kernel finds in half the time: with a cache it is nearly
// all that is done for a package.
func at(dir int, name, path string) File {
	var st unix.Stat_t
	for {
		switch err := unix.Fstatat(dir, name, &st, 0); err {
		case nil:
			return File{Path: path, mode: st.Mode, Stamp: Stamp{st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Ino}}
		case unix.EINTR:
		default:
			return File{Path: path, err: &fs.PathError{Op: "stat", Path: path, Err: err}}
		}
	}
}

// Read reads the package up to its payload, as rpmhdr.ReadPackage does: it uses
// buf if that is large enough, and returns the buffer that it used.
func (f File) Read(buf []byte) (p rpmhdr.Package, used []byte, err error) {
	if f.err != nil {
		return rpmhdr.Package{}, nil, f.err
	}
	if f.mode&unix.S_IFMT != unix.S_IFREG { // opening a pipe would wait for a writer
		return rpmhdr.Package{}, nil, fmt.Errorf("%s: not a regular file", f.Path)
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return rpmhdr.Package{}, nil, err
	}
	defer file.Close()
	p, used, err = rpmhdr.ReadPackage(file, f.Stamp.Size, buf)
	if err != nil {
		return rpmhdr.Package{}, nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return p, used, nil
}
