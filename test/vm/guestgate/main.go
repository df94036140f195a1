// Command guestgate tries the gate in a guest. Each of its commands prints a
// line for a case: its name, a tab, and what happened.
//
//	guestgate start log|enforce FILE...   start the gate; FILEs are in its set
//	guestgate stop
//	guestgate try                         what an enforcing gate refuses, and what not
package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"time"

	"diglim/internal/digest"
	"diglim/internal/kernel/gate"
	"diglim/internal/kernel/gate/set"

	"golang.org/x/sys/unix"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	err := errors.Join(run(&report{out: out}, os.Args[1], os.Args[2:]), out.Flush())
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func run(r *report, command string, args []string) error {
	switch command {
	case "start":
		return start(args[0], args[1:])
	case "stop":
		return gate.Stop()
	case "try":
		return try(r)
	}
	return fmt.Errorf("no command %s", command)
}

// start starts a gate, with this program and the files in its set.
func start(mode string, files []string) error {
	m, err := set.ParseMode(mode)
	if err != nil {
		return err
	}
	image, err := imageOf(set.Header{Generation: 1, Mode: m}, append([]string{"/proc/self/exe", "/proc/1/exe"}, files...)...)
	if err != nil {
		return err
	}
	g, err := gate.Start(image, gate.Options{})
	if err != nil {
		return err
	}
	return g.Close()
}

// imageOf is a set of the contents of files.
func imageOf(h set.Header, files ...string) (*set.Image, error) {
	var b set.Builder
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if err := b.Add(set.Content, digest.Sum(digest.SHA256, data)); err != nil {
			return nil, err
		}
	}
	if h.Loaded.IsZero() {
		h.Loaded = time.Now()
	}
	return b.Build(h)
}

// A report writes cases.
type report struct {
	out *bufio.Writer
}

func (r *report) line(name, format string, args ...any) {
	fmt.Fprintf(r.out, "%s\t%s\n", name, fmt.Sprintf(format, args...))
}

// errno is how a system call ended.
func errno(err error) string {
	var e unix.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func sum(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }
