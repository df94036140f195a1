// Command guestlock attacks the gate in a guest, before and after it is locked.
// Each of its commands prints a line for a case: its name, a tab, how the
// attempt ended, and whether the gate is on afterwards, which is whether a
// program that is not in its set is refused.
//
//	guestlock open       the attacks on gates that are not locked
//	guestlock refuse     what keeps a gate from being locked
//	guestlock lock       start a gate and lock it
//	guestlock locked     the attacks on the locked gate, and what still works
//	guestlock switched   the same after switch_root, and without /sys
//	guestlock replace    as a parser: put the next set in force
//	guestlock replace-unsealed   the same, from the file it was started from
//	guestlock child      as a parser: start a program that does it
//	guestlock hold       as a parser: print a line, and stay until standard input ends
//
// It lies in a directory with a copy of itself that has a byte more and is
// listed as a parser, and with a program that is not in the set.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"diglim/internal/digest"
	"diglim/internal/kernel/gate"
	"diglim/internal/kernel/gate/set"

	"golang.org/x/sys/unix"
)

// Where the programs and modules are.
const (
	dir      = "/lock/"
	own      = dir + "guestlock"
	parser   = dir + "parser"
	unlisted = dir + "unlisted"
	signed   = dir + "signed.ko"
	unsigned = dir + "unsigned.ko"
)

func main() {
	// The first thread cannot end, so nothing else is to run on it that gives
	// its thread a world of its own.
	runtime.LockOSThread()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: guestlock open|refuse|lock|locked|switched|replace|hold")
		os.Exit(2)
	}
	console, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	r := &report{out: bufio.NewWriter(os.Stdout), console: console}
	err = run(r, os.Args[1])
	if err := errors.Join(err, r.out.Flush()); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func run(r *report, command string) error {
	switch command {
	case "open":
		return attackOpen(r)
	case "refuse":
		return refuse(r)
	case "lock":
		return lock(r)
	case "locked":
		return attackLocked(r, false)
	case "switched":
		return attackLocked(r, true)
	case "replace":
		if err := gate.Sealed(); err != nil {
			return err
		}
		return replace()
	case "replace-unsealed":
		return replace()
	case "child":
		if err := gate.Sealed(); err != nil {
			return err
		}
		fmt.Println(output(exec.Command(own, "replace")))
		return nil
	case "hold":
		return hold()
	}
	return fmt.Errorf("no command %s", command)
}

// A report writes cases. The console gets them, too: what a guest leaves is lost
// if it does not come to its end.
type report struct {
	out     *bufio.Writer
	console io.Writer
}

func (r *report) line(name, format string, args ...any) {
	text, _, _ := strings.Cut(fmt.Sprintf(format, args...), "\nhint:")
	line := fmt.Sprintf("%s\t%s\n", name, strings.ReplaceAll(text, "\n", "; "))
	r.out.WriteString(line)
	io.WriteString(r.console, line)
}

// errno is how an attempt ended.
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

// anchor stands for a keyring.
var anchor = [32]byte{1, 2, 3}

// image is the set in all cases.
func image(generation uint64) (*set.Image, error) {
	sums, err := listed()
	if err != nil {
		return nil, err
	}
	var b set.Builder
	for name, d := range sums {
		if err := b.Add(set.Content, d); err != nil {
			return nil, err
		}
		if name == parser {
			if err := b.Add(set.Parser, d); err != nil {
				return nil, err
			}
		}
	}
	return b.Build(set.Header{Generation: generation, Loaded: time.Now(), Mode: set.Enforce, Anchor: anchor})
}

// listed returns the digests of the files in the set. They do not change, and an
// emulated processor takes its time for each.
var listed = sync.OnceValues(func() (map[string]digest.Digest, error) {
	sums := map[string]digest.Digest{}
	for _, name := range []string{"/proc/1/exe", own, parser, signed, unsigned} {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		sums[name] = digest.Sum(digest.SHA256, data)
	}
	return sums, nil
})

func start() error {
	m, err := image(1)
	if err != nil {
		return err
	}
	g, err := gate.Start(m)
	if err != nil {
		return err
	}
	return g.Close()
}

// gateIsOn says whether a program that is not listed is refused.
func gateIsOn() bool {
	return errors.Is(exec.Command(unlisted).Run(), unix.EPERM)
}

// settled says whether the gate is on after an attempt that ended so: if it was
// not refused, when the kernel has had the time to let go of the gate.
func settled(err error) string {
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if !gateIsOn() {
			return "off"
		}
		if err != nil || time.Now().After(end) {
			return "on"
		}
	}
}

// replace puts the next set in force, as a parser does.
func replace() error {
	g, err := gate.Open()
	if err != nil {
		return err
	}
	defer g.Close()
	old, err := g.Image()
	if err != nil {
		return err
	}
	next, err := image(old.Header().Generation + 1)
	if err != nil {
		return err
	}
	if err := gate.MayReplace(old.Header(), next.Header(), true); err != nil {
		return err
	}
	if err := g.Replace(next); err != nil {
		return err
	}
	now, err := g.Image()
	if err != nil {
		return err
	}
	fmt.Printf("%d more\n", now.Header().Generation-old.Header().Generation)
	return nil
}

// hold opens the gate as a parser does, and waits.
func hold() error {
	if err := gate.Sealed(); err != nil {
		return err
	}
	g, err := gate.Open()
	if err != nil {
		return err
	}
	defer g.Close()
	fmt.Println("open")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
