package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	events chan gate.Event
	stop   func() error
}

// newTrial starts to watch; events of before are left out.
func newTrial(r *report) (*trial, error) {
	dir, err := os.MkdirTemp("/tmp", "trial")
	if err != nil {
		return nil, err
	}
	g, err := gate.Open()
	if err != nil {
		return nil, err
	}
	t := &trial{report: r, dir: dir, events: make(chan gate.Event, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Watch(ctx, func(e gate.Event) { t.events <- e }) }()
	t.stop = func() error {
		cancel()
		err := <-done
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		return errors.Join(err, g.Close(), os.RemoveAll(dir))
	}
	t.flush()
	return t, nil
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
		text += fmt.Sprintf("; %v %v %v %s", e.Hook, e.Verdict, e.Reason, e.Path)
		if !e.Digest.IsZero() && e.Digest.String() != sum(content) {
			text += " digest " + e.Digest.String()
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
	t, err := newTrial(r)
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
	t.expect("program copied", nil, func() error { return execute(t.file("busybox-copy", box), "true") })
	t.expect("library known", nil, func() error { return mapFile(library, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE) })
	t.expect("library changed", changed(lib), func() error {
		return mapFile(t.file("libc", changed(lib)), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	})
	t.expect("library read", nil, func() error { return mapFile(t.file("libd", changed(lib)), unix.PROT_READ, unix.MAP_PRIVATE) })
	t.expect("module known", nil, func() error { return finit(known) })
	t.expect("module unknown", module, func() error { return finit(unknown) })
	t.expect("module from memory", nil, func() error { return unix.InitModule(module, "") })
	t.expect("memfd", other, func() error {
		fd, err := unix.MemfdCreate("x", 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if _, err := unix.Write(fd, other); err != nil {
			return err
		}
		return execute(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), "true")
	})
	t.expect("memfd sealed by reopening", other, func() error {
		fd, err := unix.MemfdCreate("x", 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if _, err := unix.Write(fd, other); err != nil {
			return err
		}
		ro, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(ro)
		unix.Close(fd)
		return execute(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ro), "true")
	})
	t.expect("script known", nil, func() error { return execute(script) })
	text := []byte("#!" + busybox + " sh\nexit 0 # not listed\n")
	t.expect("script unknown", text, func() error { return execute(t.file("script", text)) })
	return t.stop()
}
