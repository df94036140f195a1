// Package upload is what the kernel interfaces in securityfs share: a list, what
// is done with it, and how their control files are opened and written.
package upload

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"diglim/digestlist"

	"golang.org/x/sys/unix"
)

// An Op is what is done with a list.
type Op int

// The operations.
const (
	Add Op = iota
	Del
)

// A List is one list file, read.
type List struct {
	Path    string // absolute, as the kernel is to open it
	Format  digestlist.Format
	Content []byte
}

// Name is the name of the list's file without its directory.
func (l List) Name() string { return filepath.Base(l.Path) }

// A Result says what was done with a list.
type Result struct {
	Digests int  // in the list
	Done    bool // false if the kernel had (or had not) the list already

	// Elsewhere is the name of another list with the same content, if the kernel
	// has that instead. Nothing was written then: the kernel knows a list by its
	// content, and would forget both with the one.
	Elsewhere string
}

// Compare orders list files for an operation, by the names in their paths. A
// kernel that lets only listed programs upload must be told of the uploader
// before all else, and forget it last, so parser lists come first to be added
// and last to be deleted. The rest is as in digestlist.CompareNames.
func Compare(op Op, a, b string) int {
	a, b = filepath.Base(a), filepath.Base(b)
	parsers := cmp.Compare(rank(a), rank(b))
	if op == Del {
		parsers = -parsers
	}
	return cmp.Or(parsers, digestlist.CompareNames(a, b))
}

func rank(name string) int {
	if n, _, err := digestlist.KnownName(name); err == nil && n.Type == digestlist.Parser {
		return 0
	}
	return 1
}

// busyTimeout is how long to wait while another process holds the interface.
const busyTimeout = 10 * time.Second

// Open opens a control file. While another process has one open, the kernel
// says EBUSY, and nothing tells when it is done: Open tries again for 10 s.
func Open(path string, flags int) (fd int, err error) {
	deadline := time.Now().Add(busyTimeout)
	pause := time.Millisecond
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return fd, nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EBUSY) || time.Now().After(deadline):
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		time.Sleep(pause)
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// Write writes data with a single write(2): these kernels take one list a
// write, at position 0, so a short write must not be continued. os.File would.
func Write(fd int, data []byte) error {
	n, err := unix.Write(fd, data)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Write(fd, data)
	}
	if err == nil && n != len(data) {
		err = fmt.Errorf("the kernel took %d of %d bytes", n, len(data))
	}
	return err
}

// WriteFile opens a control file, writes data once, and closes it.
func WriteFile(path string, data []byte) error {
	fd, err := Open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	err = Write(fd, data)
	if err != nil {
		err = &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return errors.Join(err, unix.Close(fd))
}
