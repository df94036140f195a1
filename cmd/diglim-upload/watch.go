//go:build !nobpf && (amd64 || arm64)

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"diglim/internal/cli"
	"diglim/internal/kernel"
	"diglim/internal/kernel/gate"
	"diglim/internal/kernel/measure"
	"diglim/internal/measured"

	"golang.org/x/sys/unix"
)

// gateCommands are the commands that only the gate has.
func gateCommands(g gateway) []*cli.Command {
	return []*cli.Command{applyCommand(g, replace), bootCommand(g, systemMachine()), watchCommand(g), stopCommand(g)}
}

// watched is what watching takes.
type watched interface {
	Watch(context.Context, func(gate.Event)) error
}

// watchLock is locked by who watches: there is one ring, and of several that
// read it each gets a part.
const watchLock = "/run/diglim-watch.lock"

func watchCommand(g gateway) *cli.Command {
	f := flag.NewFlagSet("watch", flag.ContinueOnError)
	since := f.String("since", "now", "`now|boot`: boot begins with what is still there")
	f.Bool("json", true, "a line of JSON for each; there is no other form")
	extend := f.Bool("extend", false, "add what mode log let through, since boot, to the PCR that is measured into, and to "+measured.LogPath)
	return &cli.Command{
		Name: "watch", Flags: f,
		Short: "tell what was not known, as it happens (bpf)",
		Long: `Tells of each file that was used and is in no list, as a line of JSON, until it is
interrupted. What is told once is not told again. At most 1,000 a second are told
of; status counts them all.

With --extend a file that is in no list changes the PCR, once.`,
		Run: func(_ []string, stdout, _ io.Writer) (err error) {
			if *since != "now" && *since != "boot" {
				return fmt.Errorf("--since %q is not known: now and boot are", *since)
			}
			start := time.Time{}
			if *since == "now" {
				start = time.Now()
			}
			if _, err := g.Enter(); err != nil {
				return refused(err)
			}
			unlock, err := lockFile(watchLock)
			if err != nil {
				return err
			}
			defer unlock()
			open, err := g.Open()
			if err != nil {
				return fmt.Errorf("bpf: %w", err)
			}
			defer func() { err = errors.Join(err, open.Close()) }()
			add := func(gate.Event) error { return nil }
			if *extend {
				x, err := measure.OpenExtender(kernel.Securityfs)
				if errors.Is(err, measure.ErrNothing) {
					err = cli.Hint(err, "diglim-upload add --measure-pcr")
				}
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, x.Close()) }()
				add = func(e gate.Event) error {
					if e.Verdict != gate.Logged {
						return nil
					}
					return x.Add(e.Path, e.Digest)
				}
			}
			ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			err = open.Watch(ctx, func(e gate.Event) {
				if ctx.Err() != nil {
					return
				}
				if err := add(e); err != nil {
					cancel(err)
					return
				}
				if e.Time.Before(start) {
					return
				}
				if err := cli.WriteObject(stdout, eventObject(e), false); err != nil {
					cancel(err)
				}
			})
			if cause := context.Cause(ctx); ctx.Err() != nil && !errors.Is(cause, context.Canceled) {
				return cause // it could not be written
			}
			if ctx.Err() != nil {
				return nil
			}
			return err
		},
	}
}

func eventObject(e gate.Event) cli.Object {
	o := cli.Object{
		{Name: "time", Value: e.Time.UTC().Format(time.RFC3339Nano)},
		{Name: "hook", Value: e.Hook.String()},
		{Name: "verdict", Value: e.Verdict.String()},
		{Name: "reason", Value: e.Reason.String()},
		{Name: "path", Value: e.Path},
	}
	if !e.Digest.IsZero() {
		o = append(o, cli.Member{Name: "digest", Value: e.Digest.String()})
	}
	return append(o, cli.Object{
		{Name: "pid", Value: e.PID},
		{Name: "uid", Value: e.UID},
		{Name: "comm", Value: e.Command},
		{Name: "device", Value: fmt.Sprintf("%d:%d", e.Device>>20, e.Device&(1<<20-1))},
	}...)
}

// lockFile locks a file until unlock is called, or the process ends.
func lockFile(path string) (unlock func(), err error) {
	// There is no /run in a small initramfs.
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	// Not for reading: IMA would measure the empty file.
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("somebody watches already")
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return func() { unix.Close(fd) }, nil
}

func stopCommand(g gateway) *cli.Command {
	var jsonOut bool
	f := flag.NewFlagSet("stop", flag.ContinueOnError)
	f.BoolVar(&jsonOut, "json", false, "answer as JSON")
	return &cli.Command{
		Name: "stop", Flags: f,
		Short: "take the gate away (bpf)",
		Run: func(_ []string, stdout, _ io.Writer) error {
			err := g.Stop()
			stopped := err == nil
			if err != nil && !errors.Is(err, gate.ErrNone) {
				return refused(err)
			}
			if jsonOut {
				return cli.WriteObject(stdout, cli.Object{{Name: "interface", Value: "bpf"}, {Name: "stopped", Value: stopped}}, true)
			}
			text := "bpf: the gate is gone"
			if !stopped {
				text = "bpf: there was no gate"
			}
			_, err = fmt.Fprintln(stdout, text)
			return err
		},
	}
}
