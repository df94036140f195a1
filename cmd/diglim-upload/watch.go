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
			start := time.Time{}
			switch *since {
			case "boot":
			case "now":
				start = time.Now()
			default:
				return fmt.Errorf("--since %q is not known: now and boot are", *since)
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
			var x *measure.Extender
			if *extend {
				x, err = measure.OpenExtender(kernel.Securityfs)
				if errors.Is(err, measure.ErrNothing) {
					err = cli.Hint(err, "diglim-upload add --measure")
				}
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, x.Close()) }()
			}
			return watch(open, func(e gate.Event) error {
				if x != nil && e.Verdict == gate.Logged {
					if err := x.Add(e.Path, e.Digest); err != nil {
						return err
					}
				}
				if e.Time.Before(start) {
					return nil
				}
				return cli.WriteObject(stdout, eventObject(e), false)
			})
		},
	}
}

// watch passes events on until it is interrupted, or tell fails.
func watch(w watched, tell func(gate.Event) error) error {
	interrupted, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancel(interrupted)
	defer cancel()
	var failed error
	err := w.Watch(ctx, func(e gate.Event) {
		if ctx.Err() != nil {
			return
		}
		if failed = tell(e); failed != nil {
			cancel()
		}
	})
	if ctx.Err() != nil {
		return failed // nil if it was interrupted
	}
	return err
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
