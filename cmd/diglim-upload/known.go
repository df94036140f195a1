//go:build !nobpf && (amd64 || arm64)

package main

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"

	"golang.org/x/sys/unix"
)

// checkKnown says which file of those that the system cannot start or go on
// without is not in the set: this program, PID 1, and what they name as
// interpreter or dynamic loader; and if root is given, what the system below it
// cannot start without.
func checkKnown(m *set.Image, alg digest.Algorithm, root, cmdline string) error {
	if !alg.Available() {
		return errUnmeasured(cmdline)
	}
	c := knownChecker{m, alg}
	if err := c.check("/", "/proc/self/exe", "this program"); err != nil {
		return err
	}
	if err := c.checkPID1(cmdline); err != nil {
		return err
	}
	if root == "" {
		return nil
	}
	init := cmp.Or(kernelWants(cmdline, "init"), "/sbin/init")
	if err := c.check(root, init, "the init to come"); err != nil {
		return err
	}
	return c.checkSystem(root, init)
}

// errUnmeasured is for an algorithm that nothing here computes.
func errUnmeasured(cmdline string) error {
	return fmt.Errorf("nothing here computes the digests that this kernel measures files with (ima_hash=%s)", kernelWants(cmdline, "ima_hash"))
}

type knownChecker struct {
	set *set.Image
	alg digest.Algorithm
}

// checkPID1 checks the program that runs as PID 1, and its script if it is an
// interpreter. Before there is one, it checks what the kernel will start.
func (c knownChecker) checkPID1(cmdline string) error {
	const root = "/proc/1/root"
	_, err := os.Readlink("/proc/1/exe")
	if errors.Is(err, fs.ErrNotExist) {
		return c.check("/", cmp.Or(kernelWants(cmdline, "rdinit"), "/init"), "PID 1 to come")
	}
	if err != nil {
		return fmt.Errorf("PID 1: %w", err)
	}
	if err := c.check(root, "/proc/1/exe", "PID 1"); err != nil {
		return err
	}
	args, err := os.ReadFile("/proc/1/cmdline")
	if err != nil {
		return fmt.Errorf("PID 1: %w", err)
	}
	// A script is run as INTERPRETER [ARGUMENT] SCRIPT.
	for i, arg := range strings.Split(string(args), "\x00") {
		if i != 1 && i != 2 || !strings.HasPrefix(arg, "/") {
			continue
		}
		f, err := openInRoot(root, arg)
		if err != nil {
			continue
		}
		start := make([]byte, 2)
		_, err = io.ReadFull(f, start)
		f.Close()
		if err == nil && string(start) == "#!" {
			return c.check(root, arg, "the script of PID 1")
		}
	}
	return nil
}

// maxInterpreters is how many interpreters of interpreters the kernel follows.
const maxInterpreters = 5

// check checks a program below a root, and what it needs to start.
func (c knownChecker) check(root, path, what string) error {
	for range maxInterpreters {
		f, err := openInRoot(root, path)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		d, next, err := c.look(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %s: %w", what, path, err)
		}
		if strings.HasPrefix(path, "/proc/") {
			if target, err := os.Readlink(path); err == nil {
				path = target
			}
		}
		if !c.set.Has(set.Content, d) {
			return cli.Hint(fmt.Errorf("%s is in no list: %s (%s)", what, cli.Text(path), d),
				"list it, or use --mode log, to find what else is missing")
		}
		if next == "" {
			return nil
		}
		path, what = next, "what "+cli.Text(path)+" starts with"
	}
	return fmt.Errorf("%s: too many interpreters", what)
}

// look hashes a program and returns the interpreter or dynamic loader that it
// names, "" if it names none.
func (c knownChecker) look(f *os.File) (d digest.Digest, next string, err error) {
	h := c.alg.Hash()
	if _, err := io.Copy(h, f); err != nil {
		return d, "", err
	}
	d = digest.Of(c.alg, h)
	start := make([]byte, 256) // BINPRM_BUF_SIZE
	n, err := f.ReadAt(start, 0)
	if err != nil && err != io.EOF {
		return d, "", err
	}
	start = start[:n]
	if line, ok := bytes.CutPrefix(start, []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		if fields := strings.Fields(string(line)); len(fields) > 0 {
			return d, fields[0], nil
		}
		return d, "", nil
	}
	if !bytes.HasPrefix(start, []byte(elf.ELFMAG)) {
		return d, "", nil
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return d, "", err
	}
	for _, p := range e.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, min(p.Filesz, unix.PathMax))
		if _, err := p.ReadAt(name, 0); err != nil {
			return d, "", err
		}
		return d, string(bytes.TrimRight(name, "\x00")), nil
	}
	return d, "", nil
}
