// Package plain takes digests of files that no package vouches for: files as
// they lie on a disk, and those in an initramfs image. It proves nothing of
// them; whoever names them does.
package plain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"diglim/internal/digest"
)

// A File is a regular file, as a digest list is to know it.
type File struct {
	Path   string // absolute
	Mode   uint32 // permissions, set-id and sticky bits: S_IALLUGO of the kernel
	Size   int64  // bytes
	Digest digest.Digest
	ELF    bool // the content begins as that of an ELF file; only Initramfs says so
}

// IsImmutable reports whether the file is never legitimately changed: it can be
// run, or written by nobody, and has content; or it lies where the kernel looks
// for modules and firmware, wherever the root of that is. It is the rule of
// compact_gen, decided for each file by itself, and with its exception for what
// depmod rewrites (/lib/modules/*/modules.*).
func (f File) IsImmutable() bool {
	if (f.Mode&0o111 != 0 || f.Mode&0o222 == 0) && f.Size != 0 {
		return true
	}
	dir, base := path.Split(f.Path)
	return strings.Contains(dir, "/lib/modules/") && !strings.HasPrefix(base, "modules.") ||
		strings.Contains(dir, "/lib/firmware/")
}

// mode returns the bits of File.Mode.
func mode(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	for _, b := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if m&b.mode != 0 {
			bits |= b.bit
		}
	}
	return bits
}

// Find returns the files that the arguments stand for: a file for itself, a
// directory for all regular files below it. Arguments may be symbolic links;
// below a directory these are not followed. Paths are absolute and without
// links, sorted, each once. What cannot be read is in errs; the rest is found
// all the same.
func Find(args []string) (paths []string, errs []error) {
	for _, arg := range args {
		root, err := realPath(arg)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found := 0
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				errs = append(errs, err)
			case d.Type().IsRegular():
				paths = append(paths, path)
				found++
			case path == root && !d.IsDir():
				errs = append(errs, fmt.Errorf("%s: not a regular file", path))
				found++ // it has been said
			}
			return nil
		})
		if err != nil {
			errs = append(errs, err)
		}
		if found == 0 {
			errs = append(errs, fmt.Errorf("%s: no regular files below it", arg))
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), errs
}

func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// Read reads a file and returns its digest. The algorithm must be Available.
// A file that changes meanwhile is an error.
func Read(path string, alg digest.Algorithm) (File, error) {
	f, info, err := open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	h := alg.Hash()
	if _, err := io.Copy(h, f); err != nil {
		return File{}, err
	}
	if err := unchanged(f, info); err != nil {
		return File{}, err
	}
	return File{Path: path, Mode: mode(info.Mode()), Size: info.Size(), Digest: digest.Of(alg, h)}, nil
}

// ReadVerity reads a file and returns its fs-verity digest, as Verity does.
func ReadVerity(path string, alg digest.Algorithm) (File, error) {
	f, info, err := open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	d, err := Verity(f, alg)
	if err != nil {
		return File{}, fmt.Errorf("%s: %w", path, err)
	}
	return File{Path: path, Mode: mode(info.Mode()), Size: info.Size(), Digest: d}, unchanged(f, info)
}

func open(path string) (*os.File, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for a writer
		return nil, nil, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// unchanged says whether the file, read to its end, is the one it was.
func unchanged(f *os.File, was fs.FileInfo) error {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	is, err := f.Stat()
	if err != nil {
		return err
	}
	if at != was.Size() || is.Size() != was.Size() || !is.ModTime().Equal(was.ModTime()) {
		return fmt.Errorf("%s: changed while it was read", f.Name())
	}
	return nil
}

// ZeroPage returns the digest of a page of zeros, 4096 bytes, which some
// loaders map as if it were a file. The algorithm must be Available.
func ZeroPage(alg digest.Algorithm) digest.Digest {
	return digest.Sum(alg, bytes.Repeat([]byte{0}, 4096))
}
