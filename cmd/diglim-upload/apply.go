package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/kernel"
	"diglim/internal/kernel/upload"
	"diglim/internal/measured"
)

// A verb is what is done with lists.
type verb string

const (
	add     verb = "add"
	del     verb = "del"
	replace verb = "replace"
	boots   verb = "boot" // as replace, at boot
)

func (v verb) past() string {
	return map[verb]string{add: "added", del: "deleted", replace: "replaced", boots: "added"}[v]
}

// An application is lists, and what is to be done with them.
type application struct {
	verb     verb
	paths    []string // absolute, in the order in which they go
	buffered bool
	gate     gateFlags
	stderr   io.Writer
	failed   int
	measure  measuring
}

// fail says that a list failed; path is "" if the error names it.
func (a *application) fail(path string, err error) {
	if path != "" {
		err = fmt.Errorf("%s: %s", cli.Text(path), cli.Text(err.Error()))
	}
	cli.PrintError(a.stderr, err)
	a.failed++
}

// An outcome is what was done.
type outcome struct {
	digests, lists int
	already        int // lists that were there, or not there, before
	failed         int
	seconds        float64
	gate           *gateOutcome // nil for the interfaces that keep lists
}

// A gateOutcome is what there is to say besides of a set in the gate.
type gateOutcome struct {
	mode, scope string
	locked      bool
	generation  uint64
	digests     int // in the set, after this
	bytes       int // of kernel memory that the set takes
	useless     int // digests of algorithms that the kernel does not measure with
	measured    digest.Algorithm
}

func (o outcome) object(v verb, s session) cli.Object {
	object := cli.Object{
		{Name: "interface", Value: s.name},
		{Name: "done", Value: v.past()},
		{Name: "digests", Value: o.digests},
		{Name: "lists", Value: o.lists},
		{Name: "already", Value: o.already},
		{Name: "failed", Value: o.failed},
		{Name: "seconds", Value: o.seconds},
	}
	if g := o.gate; g != nil {
		object = append(object, cli.Member{Name: "gate", Value: cli.Object{
			{Name: "mode", Value: g.mode},
			{Name: "scope", Value: g.scope},
			{Name: "locked", Value: g.locked},
			{Name: "generation", Value: g.generation},
			{Name: "digests", Value: g.digests},
			{Name: "bytes", Value: g.bytes},
			{Name: "measured_with", Value: g.measured.String()},
			{Name: "never_match", Value: g.useless},
		}})
	}
	return append(object, s.passedOver())
}

func (o outcome) text(v verb, s session, w io.Writer) error {
	if g := o.gate; g != nil {
		fmt.Fprintf(w, "%s: %s from %s in %.2f s, mode %s, %s of kernel memory",
			s.name, cli.Plural(o.digests, "digest"), cli.Plural(o.lists, "list"), o.seconds, g.mode, size(g.bytes))
		if g.useless > 0 {
			fmt.Fprintf(w, "; %s that cannot match: the kernel measures with %s", cli.Plural(g.useless, "digest"), g.measured)
		}
		if o.failed > 0 {
			fmt.Fprintf(w, "; %s failed", cli.Count(o.failed))
		}
		_, err := fmt.Fprintln(w)
		return err
	}
	already := map[verb]string{add: "there before", del: "not there"}[v]
	_, err := fmt.Fprintf(w, "%s: %s %s from %s in %.2f s (%s %s, %s failed)\n", s.name, v.past(),
		cli.Plural(o.digests, "digest"), cli.Plural(o.lists, "list"), o.seconds, cli.Count(o.already), already, cli.Count(o.failed))
	return err
}

// size writes a number of bytes as people say it.
func size(bytes int) string {
	if bytes < 1_000_000 {
		return fmt.Sprintf("%d kB", (bytes+999)/1000)
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}

func applyCommand(g gateway, v verb) *cli.Command {
	t := target{gate: g}
	var jsonOut bool
	a := application{verb: v}
	f := flag.NewFlagSet(string(v), flag.ContinueOnError)
	if v == replace {
		t.name, t.securityfs = "bpf", kernel.Securityfs
	} else {
		t.flags(f)
	}
	f.BoolVar(&jsonOut, "json", false, "answer as JSON")
	cmd := &cli.Command{Name: string(v), Args: "LIST|DIR...", Flags: f}
	switch v {
	case add:
		cmd.Short = "add digest lists to what the kernel knows"
		cmd.Long = `Goes through the lists, and those in directories, in the order of their names:
by the number in front, then by bytes, parser lists before the others. A list
that the kernel has already is no error.`
	case del:
		cmd.Short = "take digest lists away from the kernel (diglim, ima)"
		cmd.Long = `Goes through the lists, and those in directories, in the order of their names:
by the number in front, then by bytes, parser lists after the others. A list
that the kernel does not have is no error. The gate keeps digests, not lists:
use replace there.`
	case replace:
		cmd.Args = "DIR..."
		cmd.Short = "make the gate's set exactly what directories hold (bpf)"
		cmd.Long = `Makes the set exactly what the lists hold, in one act: no program is ever judged
by half of it. If a list fails, nothing is replaced.`
	}
	if v != replace {
		f.BoolVar(&a.buffered, "buffer", false, "give the kernel the content of compact lists instead of their path (diglim)")
	}
	if v != del {
		a.gate.flags(f)
		a.measure.flags(f)
	}
	cmd.Run = func(args []string, stdout, stderr io.Writer) (err error) {
		start := time.Now()
		a.gate.set(f)
		a.stderr = stderr
		s, err := t.openFor(stderr)
		defer func() { err = errors.Join(err, s.close()) }()
		if err != nil {
			return err
		}
		if err := a.allowed(s.name); err != nil {
			return err
		}
		if v != del {
			if err := a.measure.begin(t.securityfs); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.measure.end()) }()
		}
		if s.name != "bpf" { // where there is more to say
			if err := a.measure.config(measured.Config{Interface: s.name}); err != nil {
				return err
			}
		}
		a.paths = a.findLists(args)
		o, err := s.apply(&a)
		if err != nil {
			return err
		}
		o.failed, o.seconds = a.failed, time.Since(start).Seconds()
		if jsonOut {
			err = cli.WriteObject(stdout, o.object(v, s), true)
		} else {
			err = o.text(v, s, stdout)
		}
		if err == nil && a.failed > 0 {
			err = cli.Exit(cli.No)
		}
		return err
	}
	return cmd
}

// allowed says whether the interface can do what is asked for.
func (a *application) allowed(name string) error {
	switch {
	case name == "bpf" && a.verb == del:
		return &cli.ExitError{Code: cli.No, Err: cli.Hint(errors.New("the gate keeps digests, not lists: none can be taken away"),
			"diglim-upload replace DIR makes the set exactly what a directory holds")}
	case name == "bpf" && a.buffered:
		return errors.New("--buffer is for diglim, and the interface is bpf")
	case name == "bpf":
		return nil
	case a.gate.given != "":
		return fmt.Errorf("--%s is for bpf, and the interface is %s", a.gate.given, name)
	}
	return nil
}

// findLists returns the lists that the arguments stand for, absolute and in
// the order in which they go.
func (a *application) findLists(args []string) (paths []string) {
	for _, arg := range args {
		arg, err := filepath.Abs(arg)
		if err != nil {
			a.fail("", err)
			continue
		}
		info, err := os.Stat(arg)
		if err != nil {
			a.fail("", err)
			continue
		}
		if !info.IsDir() {
			paths = append(paths, arg)
			continue
		}
		names, err := digestlist.ReadDir(arg)
		if err != nil {
			a.fail("", err)
		}
		for _, name := range names {
			paths = append(paths, filepath.Join(arg, name))
		}
	}
	op := upload.Add
	if a.verb == del {
		op = upload.Del
	}
	slices.SortStableFunc(paths, func(x, y string) int { return upload.Compare(op, x, y) })
	return paths
}
