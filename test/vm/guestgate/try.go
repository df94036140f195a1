package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"diglim/internal/kernel/gate"

	"golang.org/x/sys/unix"
)

// Where the cases find their files, and make new ones.
const (
	files   = "/gate"
	busybox = files + "/busybox"
	library = files + "/libc.so.6"
	known   = files + "/known.ko"
	unknown = files + "/unknown.ko"
	script  = files + "/script"
)

// A trial tries things under a gate and shows the event that each has caused.
type trial struct {
	*report
	dir    string
	gate   *gate.Gate
	before gate.Status
	seen   [gate.Hooks][gate.Verdicts]uint64 // events
	events chan gate.Event
	cancel context.CancelFunc
	done   chan error
}

// newTrial starts to watch; events of before are left out.
func newTrial(r *report, where string) (*trial, error) {
	dir, err := os.MkdirTemp(where, "trial")
	if err != nil {
		return nil, err
	}
	g, err := gate.Open()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &trial{report: r, dir: dir, gate: g, events: make(chan gate.Event, 1000), cancel: cancel, done: make(chan error, 1)}
	go func() { t.done <- g.Watch(ctx, func(e gate.Event) { t.events <- e }) }()
	t.flush()
	t.seen = [gate.Hooks][gate.Verdicts]uint64{}
	t.before, err = g.Status()
	return t, err
}

// stop ends the watch, and shows whether the counters agree with the events.
func (t *trial) stop() error {
	after, err := t.gate.Status()
	if err != nil {
		return err
	}
	agree := "the events"
	for h := range after.Counts {
		for v := range after.Counts[h] {
			n := after.Counts[h][v] - t.before.Counts[h][v]
			if v := gate.Verdict(v); v != gate.Known && n != t.seen[h][v] {
				agree = fmt.Sprintf("%d %v %v, %d events", n, gate.Hook(h), v, t.seen[h][v])
			}
		}
	}
	if after.Lost != 0 || after.Suppressed != 0 {
		agree = fmt.Sprintf("%d lost, %d suppressed", after.Lost, after.Suppressed)
	}
	t.line("counters are", "%s", agree)
	known := ""
	for h := range after.Counts {
		known += fmt.Sprintf(" %v %d", gate.Hook(h), after.Counts[h][gate.Known]-t.before.Counts[h][gate.Known])
	}
	t.line("counters of known", "%s", known[1:])
	t.cancel()
	if err := <-t.done; !errors.Is(err, context.Canceled) {
		return err
	}
	return errors.Join(t.gate.Close(), os.RemoveAll(t.dir))
}

// flush takes the events that are there: all those until one that it causes
// itself.
func (t *trial) flush() (before []gate.Event) {
	marker := filepath.Join(t.dir, "marker")
	os.WriteFile(marker, []byte(marker), 0o644)
	mapFile(marker, unix.PROT_EXEC|unix.PROT_READ, unix.MAP_PRIVATE)
	os.Remove(marker)
	for {
		select {
		case e := <-t.events:
			t.seen[e.Hook][e.Verdict]++
			if e.Path == marker {
				return before
			}
			before = append(before, e)
		case <-time.After(30 * time.Second):
			return append(before, gate.Event{Path: "no event of the marker"})
		}
	}
}

// expect does something and shows how it ended and what was told of it. The
// content is that of the file which should be told.
func (t *trial) expect(name string, content []byte, do func() error) {
	err := do()
	text := errno(err)
	for _, e := range t.flush() {
		text += fmt.Sprintf("; %v %v %v %s", e.Hook, e.Verdict, e.Reason, strings.TrimPrefix(e.Path, t.dir+"/"))
		if !e.Digest.IsZero() && e.Digest.String() != sum(content) {
			text += ", by the digest of another content"
		}
	}
	t.line(name, "%s", text)
}

func (t *trial) file(name string, content []byte) string {
	path := filepath.Join(t.dir, name)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		panic(err)
	}
	return path
}

// mapFile maps the first page of a file, and unmaps it.
func mapFile(path string, prot, flags int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	data, err := unix.Mmap(fd, 0, 4096, prot, flags)
	if err != nil {
		return err
	}
	return unix.Munmap(data)
}

func execute(argv ...string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Args[0] = "busybox" // whatever the file is called
	return cmd.Run()
}

func finit(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// try does what a gate has to judge.
func try(r *report) error {
	t, err := newTrial(r, "/tmp")
	if err != nil {
		return err
	}
	box, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	lib, err := os.ReadFile(library)
	if err != nil {
		return err
	}
	module, err := os.ReadFile(unknown)
	if err != nil {
		return err
	}
	changed := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
		return b
	}

	t.expect("program known", nil, func() error { return execute(busybox, "true") })
	other := append(bytes.Clone(box), 0)
	t.expect("program unknown", other, func() error { return execute(t.file("other", other), "true") })
	t.expect("program copied", nil, func() error { return execute(t.file("copy", box), "true") })
	t.expect("library known", nil, func() error { return mapFile(library, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE) })
	t.expect("library changed", changed(lib), func() error {
		return mapFile(t.file("libc", changed(lib)), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	})
	t.expect("library read", nil, func() error { return mapFile(t.file("libd", changed(lib)), unix.PROT_READ, unix.MAP_PRIVATE) })
	t.expect("module known", nil, func() error { return finit(known) })
	t.expect("module unknown", module, func() error { return finit(unknown) })
	t.expect("module from memory", nil, func() error { return unix.InitModule(module, "") })
	memory := func(content []byte, seals int) func() error {
		return func() error {
			fd, err := unix.MemfdCreate("x", unix.MFD_ALLOW_SEALING)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if _, err := unix.Write(fd, content); err != nil {
				return err
			}
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
				return err
			}
			return execute(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), "true")
		}
	}
	t.expect("memfd unknown", other, memory(other, unix.F_SEAL_WRITE))
	t.expect("memfd known, writable", box, memory(box, 0))
	t.expect("memfd known, sealed", box, memory(box, unix.F_SEAL_WRITE))
	t.expect("script known", nil, func() error { return execute(script) })
	text := []byte("#!" + busybox + " sh\nexit 0 # not listed\n")
	t.expect("script unknown", text, func() error { return execute(t.file("script", text)) })
	return t.stop()
}
