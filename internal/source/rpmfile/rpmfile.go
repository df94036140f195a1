// Package rpmfile finds RPM package files and reads their headers.
package rpmfile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diglim/rpmhdr"
)

// Find returns the package files that the arguments stand for: a file for
// itself, a directory for all files below it that end in .rpm, in the order of
// their paths. What cannot be read is in errs; the rest is found all the same.
func Find(args []string) (files []string, errs []error) {
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !info.IsDir() {
			files = append(files, arg)
			continue
		}
		found := 0
		// With a separator behind it a link to a directory is followed.
		err = filepath.WalkDir(arg+string(filepath.Separator), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				errs = append(errs, err)
				return nil
			}
			if !d.IsDir() && strings.HasSuffix(path, ".rpm") {
				files = append(files, path)
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
	slices.Sort(files)
	return slices.Compact(files), errs
}

// Read reads a package file up to its payload. It uses buf if that is large
// enough.
func Read(path string, buf []byte) (rpmhdr.Package, error) {
	info, err := os.Stat(path)
	if err != nil {
		return rpmhdr.Package{}, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for a writer
		return rpmhdr.Package{}, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return rpmhdr.Package{}, err
	}
	defer f.Close()
	p, err := rpmhdr.ReadPackage(f, info.Size(), buf)
	if err != nil {
		return rpmhdr.Package{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}
