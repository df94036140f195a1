// Command guestgate tries the gate in a guest. Each of its commands prints a
// line for a case: its name, a tab, and what happened.
//
//	guestgate start log|enforce FILE...   start the gate; FILEs are in its set
//	guestgate stop
//	guestgate status                      mode, generation and digests
//	guestgate try                         what a gate is to judge
//	guestgate scope                       the same file in several places, under rules
//	guestgate fresh DIRECTORY             files that change, on the file system of the directory
//	guestgate verity DIRECTORY            a file under fs-verity
//	guestgate memory                      what becomes executable without a file's being mapped so
//	guestgate policy                      have IMA measure what is executed or mapped executable
//	guestgate replace                     sets of several sizes replace each other under load
//	guestgate kill                        processes die in the middle of Start, Replace and Stop
//	guestgate cost PROGRAM                what running a known program takes
//	guestgate renew                       replace the set by the same, as the next generation
//	guestgate churn start|replace DIGEST...  what they do until then
package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"diglim/internal/digest"
	"diglim/internal/kernel/gate"
	"diglim/internal/kernel/gate/set"

	"github.com/cilium/ebpf"
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
	case "status":
		return status(r)
	case "try":
		return try(r)
	case "scope":
		return scope(r)
	case "fresh":
		return fresh(r, args[0])
	case "verity":
		return verity(r, args[0])
	case "memory":
		return memory(r)
	case "policy":
		return os.WriteFile("/sys/kernel/security/ima/policy", []byte("measure func=BPRM_CHECK\nmeasure func=MMAP_CHECK mask=MAY_EXEC\n"), 0o600)
	case "replace":
		return replace(r)
	case "kill":
		return kill(r)
	case "cost":
		return cost(r, args[0])
	case "renew":
		return renew()
	case "churn":
		return churn(args[0], args[1:])
	}
	return fmt.Errorf("no command %s", command)
}

// start starts a gate, with this program and the files in its set.
func start(mode string, files []string) error {
	m, err := set.ParseMode(mode)
	if err != nil {
		return err
	}
	sums, err := sumFiles(append([]string{"/proc/self/exe", "/proc/1/exe"}, files...)...)
	if err != nil {
		return err
	}
	image, err := imageOf(set.Header{Generation: 1, Mode: m, Loaded: time.Now()}, sums)
	if err != nil {
		return err
	}
	return startWith(image)
}

func startWith(image *set.Image) error {
	g, err := gate.Start(image)
	if err != nil {
		return err
	}
	return g.Close()
}

// sumFiles hashes files.
func sumFiles(names ...string) ([]digest.Digest, error) {
	var sums []digest.Digest
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		sums = append(sums, digest.Sum(digest.SHA256, data))
	}
	return sums, nil
}

// imageOf is a set of digests of contents.
func imageOf(h set.Header, sums []digest.Digest) (*set.Image, error) {
	var b set.Builder
	for _, d := range sums {
		if err := b.Add(set.Content, d); err != nil {
			return nil, err
		}
	}
	return b.Build(h)
}

func status(r *report) error {
	g, err := gate.Open()
	if err != nil {
		return err
	}
	s, err := g.Status()
	if err != nil {
		return err
	}
	r.line("status", "%v generation %d, %d digests", s.Header.Mode, s.Header.Generation, s.Digests)
	if err := verified(); err != nil {
		return err
	}
	return g.Close()
}

// verified measures what the programs cost the kernel's verifier.
func verified() error {
	var id ebpf.ProgramID
	for {
		var err error
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			return err
		}
		info, err := p.Info()
		if err != nil {
			return err
		}
		n, _ := info.VerifiedInstructions()
		fmt.Fprintf(os.Stderr, "%s: %d instructions verified\n", info.Name, n)
		p.Close()
	}
}

// next replaces the set by one that holds the contents too, in another mode or
// with other rules if change says so.
func next(g *gate.Gate, change func(*set.Header), contents ...[]byte) error {
	old, err := g.Image()
	if err != nil {
		return err
	}
	var b set.Builder
	b.AddImage(old)
	for _, c := range contents {
		if err := b.Add(set.Content, digest.Sum(digest.SHA256, c)); err != nil {
			return err
		}
	}
	h := old.Header()
	h.Generation++
	if change != nil {
		change(&h)
	}
	image, err := b.Build(h)
	if err != nil {
		return err
	}
	return g.Replace(image)
}

// renew replaces the set by one of the same digests.
func renew() error {
	g, err := gate.Open()
	if err != nil {
		return err
	}
	return errors.Join(next(g, nil), g.Close())
}

// back puts an earlier set in force again.
func back(g *gate.Gate, to *set.Image) error {
	now, err := g.Image()
	if err != nil {
		return err
	}
	image, err := generation(to, now.Header().Generation+1)
	if err != nil {
		return err
	}
	return g.Replace(image)
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
