package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/kernel"
)

// A system is one of the kernel's interfaces, open.
type system interface {
	apply(a *application) (outcome, error)
	count() (int, error)
	query(digest.Digest) (answer, error)
	status() (report, error)
}

// A report is a status: for people, and the same as JSON.
type report interface {
	text(w io.Writer) error
	object() cli.Object
}

// An answer says what the kernel knows of a digest: as what it knows it, such
// as "content", or "file of" a list. Nothing is not known.
type answer []string

// interfaces are the names of those that there are, in the order of probing.
var interfaces = [...]string{"diglim", "ima", "bpf"}

// A passedOver is an interface that was asked for before the one that was
// found, or instead of it, and why it is not the one.
type passedOver struct{ name, why string }

// A target is the flags that say which kernel interface to speak to.
type target struct {
	gate       gateway
	name       string
	securityfs string
}

func (t *target) flags(f *flag.FlagSet) {
	f.StringVar(&t.name, "interface", "auto", "kernel `interface`: diglim (DIGLIM v3), ima (openEuler), bpf (BPF LSM), or auto, the first of them that is there")
	f.StringVar(&t.securityfs, "securityfs", kernel.Securityfs, "`directory` where securityfs is mounted; the usual one is mounted if it is not")
}

// A session is an interface that was found.
type session struct {
	system
	name   string
	passed []passedOver
	close  func() error // undoes the mounts; never nil
}

func (s session) passedOver() cli.Member {
	objects := []cli.Object{}
	for _, p := range s.passed {
		objects = append(objects, cli.Object{{Name: "interface", Value: p.name}, {Name: "why", Value: p.why}})
	}
	return cli.Member{Name: "passed_over", Value: objects}
}

// open mounts what is missing and finds the interface. The caller closes the
// session whether there is an error or not.
func (t *target) open() (s session, err error) {
	s.close = func() error { return nil }
	names := interfaces[:]
	if t.name != "auto" {
		names = nil
		for _, n := range interfaces {
			if n == t.name {
				names = []string{n}
			}
		}
		if names == nil {
			return s, fmt.Errorf("interface %q is not known: auto, %s are", t.name, strings.Join(interfaces[:], ", "))
		}
	}
	var unmounted error
	if t.securityfs == kernel.Securityfs {
		s.close, unmounted = kernel.EnsureMounted()
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil && unmounted == nil {
		return s, err
	}
	var hint string
	for _, name := range names {
		var err error
		switch name {
		case "diglim":
			s.system, err = openDIGLIM(t.securityfs, string(cmdline))
		case "ima":
			s.system, err = openIMA(t.securityfs, string(cmdline))
		case "bpf":
			s.system, err = openGateSystem(t.gate, string(cmdline))
		}
		if err == nil {
			s.name = name
			if name == "bpf" {
				// The gate is pinned below /sys, and what is mounted stays.
				s.close = func() error { return nil }
			}
			if c, ok := s.system.(io.Closer); ok {
				undo := s.close
				s.close = func() error { return errors.Join(c.Close(), undo()) }
			}
			return s, nil
		}
		if h := cli.HintOf(err); h != "" {
			hint = h
		}
		if unmounted != nil && name != "bpf" {
			err = fmt.Errorf("%w (%w)", err, unmounted)
		}
		s.passed = append(s.passed, passedOver{name, err.Error()})
	}
	var lines strings.Builder
	for _, p := range s.passed {
		fmt.Fprintf(&lines, "\n  %-7s %s", p.name, p.why)
	}
	err = fmt.Errorf("no kernel interface accepts digest lists here%s", lines.String())
	if errors.Is(unmounted, fs.ErrPermission) {
		hint = "run this as root"
	}
	if hint == "" {
		hint = "boot a kernel with DIGLIM v3, openEuler's IMA, or BPF LSM"
	}
	return s, cli.Hint(err, "%s", hint)
}

// openFor is open for a command: it says on stderr why the interface that was
// found is not another one.
func (t *target) openFor(stderr io.Writer) (session, error) {
	s, err := t.open()
	if err == nil && len(s.passed) > 0 {
		fmt.Fprintf(stderr, "interface %s", s.name)
		for _, p := range s.passed {
			fmt.Fprintf(stderr, "; not %s: %s", p.name, p.why)
		}
		fmt.Fprintln(stderr)
	}
	return s, err
}
