// Command guestlists drives, in a guest, the packages that give lists to a
// kernel, and then does to the kernel what they would not. It prints one line a
// case, its columns separated by tabs, for the test to judge.
//
// The first argument says whose cases: diglim, or openeuler with the path of the
// module, which is loaded anew for each case.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"diglim/digestlist"
	"diglim/internal/digest"

	"golang.org/x/sys/unix"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	err := errors.New("usage: guestlists diglim | openeuler MODULE")
	switch {
	case len(os.Args) == 2 && os.Args[1] == "diglim":
		err = diglimCases(out)
	case len(os.Args) == 3 && os.Args[1] == "openeuler":
		err = openEulerCases(out, os.Args[2])
	}
	if err := errors.Join(err, out.Flush()); err != nil {
		fmt.Fprintln(os.Stderr, "guestlists:", err)
		os.Exit(1)
	}
}

// errno names an error number, or is "-".
func errno(err error) string {
	var e unix.Errno
	switch {
	case err == nil:
		return "-"
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// told is an error in one line, or "-".
func told(err error) string {
	if err == nil {
		return "-"
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

func block(typ digestlist.Type, names ...string) digestlist.Block {
	b := digestlist.Block{Type: typ, Algorithm: digest.SHA256}
	for _, n := range names {
		b.Digests = append(b.Digests, digest.Sum(digest.SHA256, []byte(n)))
	}
	return b
}

// raw opens a file with flags, writes once, and closes it: what a program does
// that knows nothing of the kernel.
func raw(path string, flags int, data []byte) (n int, err error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	return unix.Write(fd, data)
}
