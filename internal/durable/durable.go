// Package durable writes files so that nobody ever sees half of one: not
// another process, and not whoever boots after a power cut.
package durable

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A Dir is a directory that files are written to. Close it to make what was
// written last through a power cut.
type Dir struct {
	path  string
	dirty bool
}

// tempPrefix is how temporary files are called. stale is the age at which one
// was left behind by a run that was killed: none lives for longer than a write.
const (
	tempPrefix = ".tmp-"
	stale      = time.Hour
)

// Open makes the directory if it is missing, and sweeps out what killed runs
// have left in it.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(path, tempPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, name := range left {
		if info, err := os.Lstat(name); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > stale {
			if err := ignoreNotExist(os.Remove(name)); err != nil {
				return nil, err
			}
		}
	}
	return &Dir{path: path}, nil
}

// Sync makes what was renamed in or into a directory last.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Write replaces a file's content. It reports whether it did: a file that
// holds data already is not touched.
//
// The order of the system calls is what matters: write(temporary),
// fsync(temporary), rename(temporary, file), and fsync(directory) in Close.
func (d *Dir) Write(name string, data []byte) (changed bool, err error) {
	path := filepath.Join(d.path, name)
	if same, err := hasContent(path, data); same || err != nil {
		return false, err
	}
	// Not os.CreateTemp, which opens for reading too: where IMA measures what
	// root reads, it would measure the empty file.
	temp := filepath.Join(d.path, tempPrefix+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreNotExist(os.Remove(temp)))
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	if err = os.Rename(temp, path); err != nil {
		return false, err
	}
	d.dirty = true
	return true, nil
}

// Holds reports whether a file is there and has that content.
func (d *Dir) Holds(name string, data []byte) (bool, error) {
	return hasContent(filepath.Join(d.path, name), data)
}

// Remove removes a file.
func (d *Dir) Remove(name string) error {
	d.dirty = true
	return os.Remove(filepath.Join(d.path, name))
}

// Close makes the renames last.
func (d *Dir) Close() error {
	if !d.dirty {
		return nil
	}
	d.dirty = false
	return Sync(d.path)
}

func hasContent(path string, data []byte) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s: not a regular file", path)
	}
	if info.Size() != int64(len(data)) {
		return false, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	// In pieces: a large file is not to be in memory twice.
	piece := make([]byte, min(len(data), 32<<10))
	for len(data) > 0 {
		n, err := io.ReadFull(f, piece[:min(len(data), len(piece))])
		if err != nil || !bytes.Equal(piece[:n], data[:n]) {
			return false, ignoreEOF(err)
		}
		data = data[n:]
	}
	return true, nil
}

// ignoreEOF returns nil for a file that became shorter: its content is another.
func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
