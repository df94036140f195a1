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
		found := 0
		// With a separator behind it a link to a directory is followed.
		err := filepath.WalkDir(arg+string(filepath.Separator), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				errs = append(errs, err)
				return nil
			}
			if !d.IsDir() && strings.HasSuffix(path, ".rpm") {
				files = append(files, At(path))
				found++
			}
			return nil
		})
		if err != nil {
			errs = append(errs, err)
		}
		if found == 0 {
			errs = append(errs, fmt.Errorf("%s: no packages (*.rpm) below it", arg))
		}
	}
	byPath := func(a, b File) int { return cmp.Compare(a.Path, b.Path) }
	if !slices.IsSortedFunc(files, byPath) {
		slices.SortFunc(files, byPath)
	}
	return slices.CompactFunc(files, func(a, b File) bool { return a.Path == b.Path }), errs
}

// At returns the file at a path. Of what is not there Read says so.
//
// It is os.Stat without what that allocates: with a cache it is nearly all that
// is done for a package.
func At(path string) File {
	var st unix.Stat_t
	for {
		switch err := unix.Stat(path, &st); err {
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
