package main

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

// open opens a file of the interface.
func open(name string, flags int) (int, error) {
	return unix.Open(diglim+"/"+name, flags|unix.O_CLOEXEC, 0o600)
}

// write opens a file of the interface, writes data once and closes it.
func write(name string, data []byte) result {
	fd, err := open(name, unix.O_WRONLY)
	if err != nil {
		return result{err: err}
	}
	defer unix.Close(fd)
	n, err := unix.Write(fd, data)
	return result{n, err}
}

func add(list []byte) result { return write("digest_list_add", list) }
func del(list []byte) result { return write("digest_list_del", list) }

// setLabel writes a label with the NUL that ends it.
func setLabel(label string) {
	write("digest_list_label", []byte(label+"\x00"))
}

func addAs(label string, list []byte) result {
	setLabel(label)
	return add(list)
}

func delAs(label string, list []byte) result {
	setLabel(label)
	return del(list)
}

// writeBadPointer writes from an address where there is nothing.
func writeBadPointer(name string, size int) result {
	fd, err := open(name, unix.O_WRONLY)
	if err != nil {
		return result{err: err}
	}
	defer unix.Close(fd)
	n, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(fd), 1, uintptr(size))
	if errno != 0 {
		return result{err: errno}
	}
	return result{n: int(n)}
}

// writev writes the parts with one system call.
func writev(fd int, parts ...[]byte) result {
	iov := make([]unix.Iovec, len(parts))
	for i, p := range parts {
		iov[i].Base = unsafe.SliceData(p)
		iov[i].SetLen(len(p))
	}
	n, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	if errno != 0 {
		return result{err: errno}
	}
	return result{n: int(n)}
}

// A reading is all that read(2) returned until the end of a file.
type reading struct {
	data  []byte
	reads int // that returned something
	err   error
}

func readFile(path string) reading {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return reading{err: err}
	}
	defer unix.Close(fd)
	return readAll(fd)
}

func readAll(fd int) reading {
	var r reading
	buf := make([]byte, 1<<16)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			r.err = err
			return r
		}
		if n == 0 {
			return r
		}
		r.data = append(r.data, buf[:n]...)
		r.reads++
	}
}

// errno names the error that reading ended with, or is "-".
func (r reading) errno() string {
	_, errno := result{err: r.err}.columns()
	return errno
}

// readPieces reads the file in pieces until the end, and calls f for each.
func readPieces(path string, size int, f func(piece []byte, err error)) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, size)
	for {
		n, err := unix.Read(fd, buf)
		f(buf[:max(n, 0)], err)
		if n <= 0 {
			return nil
		}
	}
}

// query writes a query and reads the answer, which is also there when the
// query was refused.
func query(text string) (result, reading) {
	res := write("digest_query", []byte(text))
	return res, readFile(diglim + "/digest_query")
}

// clearQuery empties the kernel's copy of the last query.
func (r *replay) clearQuery() {
	if res := write("digest_query", []byte("-")); !errors.Is(res.err, unix.ENOENT) {
		r.fail(fmt.Errorf("clear the query: %v", res))
	}
}

// pwriteAt opens a file of the interface and writes data at an offset.
func pwriteAt(name string, data []byte, offset int64) result {
	fd, err := open(name, unix.O_WRONLY)
	if err != nil {
		return result{err: err}
	}
	defer unix.Close(fd)
	n, err := unix.Pwrite(fd, data, offset)
	return result{n, err}
}

// seekAndWrite opens a file of the interface, moves to an offset and writes.
func seekAndWrite(name string, data []byte, offset int64) result {
	fd, err := open(name, unix.O_WRONLY)
	if err != nil {
		return result{err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Seek(fd, offset, io.SeekStart); err != nil {
		return result{err: err}
	}
	n, err := unix.Write(fd, data)
	return result{n, err}
}
