package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
	"unsafe"

	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"
	"diglim/internal/source/plain"

	"golang.org/x/sys/unix"
)

const rx = unix.PROT_READ | unix.PROT_EXEC

// pages is a content for files to be mapped: known, if the letter is k.
func pages(letter string, n int) []byte { return bytes.Repeat([]byte(letter), n*4096) }

// fresh changes files below dir, and maps them executable.
func fresh(r *report, dir string) error {
	t, err := newTrial(r, dir)
	if err != nil {
		return err
	}
	k, evil := pages("k", 2), pages("e", 2)
	big := pages("k", 2048)
	if err := next(t.gate, nil, k, big); err != nil {
		return err
	}
	mapping := func(path string) func() error {
		return func() error { return mapFile(path, rx, unix.MAP_PRIVATE) }
	}

	before, err := t.gate.Image()
	if err != nil {
		return err
	}
	kept := pages("d", 2048)
	if err := next(t.gate, nil, kept); err != nil {
		return err
	}
	path := t.file("cached", kept)
	first := elapsed(mapping(path))
	again := first
	for range 3 { // whatever else the host does meanwhile
		again = min(again, elapsed(mapping(path)))
	}
	r.line("mapped again without hashing", "%t", again*20 < first)
	after := first
	for range 3 {
		if err := next(t.gate, nil); err != nil {
			return err
		}
		after = min(after, elapsed(mapping(path)))
	}
	r.line("mapped under another set without hashing", "%t", after*20 < first)
	fmt.Fprintf(os.Stderr, "%s: mapped first %v, again %v, under another set %v\n", dir, first, again, after)
	if err := back(t.gate, before); err != nil {
		return err
	}
	t.expect("mapped under a set without it", kept, mapping(path))
	if err := next(t.gate, nil, kept); err != nil {
		return err
	}
	t.expect("mapped under a set with it", nil, mapping(path))
	if err := back(t.gate, before); err != nil {
		return err
	}

	// Whoever writes has the file open before it is hashed, writes where it has been
	// hashed, and has closed it when the hash is there.
	path = t.file("hashed", big)
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	t.expect("hashed: written meanwhile", big, func() error {
		mapped := make(chan error)
		go func() { mapped <- mapping(path)() }()
		<-time.After(first / 4)
		_, err := w.WriteAt(evil, 0)
		err = errors.Join(err, w.Close())
		return errors.Join(<-mapped, err)
	})

	// What is executed IMA hashes and keeps the digest of, if it has a policy.
	// Text that is no program is as good.
	path = t.file("written", k)
	t.expect("written: executed", nil, func() error { return execute(path) })
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(evil, 0); err != nil {
		return err
	}
	t.expect("written: writer open", evil, mapping(path))
	f.Close()
	t.expect("written: writer closed", evil, mapping(path))
	if err := os.WriteFile(path, k, 0o755); err != nil {
		return err
	}
	t.expect("written: restored", k, mapping(path))
	t.expect("written: opened just after it was mapped", nil, func() error { return open(path, unix.O_RDWR) })

	path = t.file("shared", k)
	t.expect("shared: executed", nil, func() error { return execute(path) })
	if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return err
	}
	shared, err := unix.Mmap(int(f.Fd()), 0, len(k), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	f.Close()
	t.expect("shared: mapped writable", k, mapping(path))
	copy(shared, evil)
	t.expect("shared: written", evil, mapping(path))
	if err := unix.Munmap(shared); err != nil {
		return err
	}
	t.expect("shared: unmapped", evil, mapping(path))

	path = t.file("running", k)
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	code, err := unix.Mmap(fd, 0, len(k), rx, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	unix.Close(fd)
	t.expect("running: open for writing", nil, func() error { return open(path, unix.O_WRONLY) })
	t.expect("running: open and truncate", nil, func() error { return open(path, unix.O_RDONLY|unix.O_TRUNC) })
	t.expect("running: truncate", nil, func() error { return unix.Truncate(path, 4096) })
	r.line("running: content", "%t", bytes.Equal(code, k))
	if err := unix.Munmap(code); err != nil {
		return err
	}
	settle()
	t.expect("ended: open for writing", nil, func() error { return open(path, unix.O_WRONLY) })

	path = t.file("truncated", pages("k", 3))
	mapFile(path, rx, unix.MAP_PRIVATE) // IMA has its digest now, if it has a policy
	t.flush()
	if err := unix.Truncate(path, int64(len(k))); err != nil {
		return err
	}
	t.expect("truncated to what is known", k, mapping(path))
	path = t.file("cut", k)
	t.expect("cut: executed", nil, func() error { return execute(path) })
	t.expect("cut: truncate", nil, func() error { return unix.Truncate(path, 4096) })
	t.expect("cut: truncated", k[:4096], mapping(path))

	path = t.file("protected", k)
	t.expect("mprotect: not judged", nil, func() error { return protect(path) })
	t.expect("mprotect: mapped executable before", nil, func() error {
		if err := mapFile(path, rx, unix.MAP_PRIVATE); err != nil {
			return err
		}
		return protect(path)
	})
	if err := next(t.gate, nil); err != nil {
		return err
	}
	t.expect("mprotect: mapped executable under another set", nil, func() error { return protect(path) })
	path = t.file("renamed", evil)
	t.expect("replaced by renaming", k, func() error {
		if err := os.Rename(t.file("new", k), path); err != nil {
			return err
		}
		return mapFile(path, rx, unix.MAP_PRIVATE)
	})
	return t.stop()
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// protect maps a file readable, and makes the mapping executable.
func protect(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	data, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(data)
	return unix.Mprotect(data, rx)
}

func elapsed(f func() error) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// settle waits until a mapping is no longer one that was made just now, for
// which the gate takes a second.
func settle() { <-time.After(1500 * time.Millisecond) }

// memory makes memory executable in other ways than by mapping a file so.
func memory(r *report) error {
	t, err := newTrial(r, "/tmp")
	if err != nil {
		return err
	}
	unlisted := t.file("unlisted", pages("u", 1))
	t.expect("mprotect of a file", nil, func() error { return protect(unlisted) })
	for name, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
		t.expect("mprotect of anonymous memory, "+name, nil, func() error {
			data, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|flags)
			if err != nil {
				return err
			}
			return unix.Mprotect(data, rx)
		})
	}
	t.expect("mprotect of a memfd", nil, func() error {
		fd, err := unix.MemfdCreate("x", 0)
		if err != nil {
			return err
		}
		if err := unix.Ftruncate(fd, 4096); err != nil {
			return err
		}
		data, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		return unix.Mprotect(data, rx)
	})
	t.expect("shmat with SHM_EXEC", nil, func() error {
		id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600|unix.IPC_CREAT)
		if err != nil {
			return err
		}
		_, err = unix.SysvShmAttach(id, 0, 0o100000)
		return err
	})
	t.expect("READ_IMPLIES_EXEC", pages("u", 1), func() error {
		runtime.LockOSThread() // and its end: the thread is not used any more
		const personality = 0x0400000
		if _, _, e := unix.Syscall(unix.SYS_PERSONALITY, personality, 0, 0); e != 0 {
			return e
		}
		err := mapFile(unlisted, unix.PROT_READ, unix.MAP_PRIVATE)
		if _, _, e := unix.Syscall(unix.SYS_PERSONALITY, 0, 0, 0); e != 0 {
			return e
		}
		runtime.UnlockOSThread()
		return err
	})
	return t.stop()
}

// scope has rules, by path, owner and file system.
func scope(r *report) error {
	t, err := newTrial(r, "/tmp")
	if err != nil {
		return err
	}
	owner, tmpfs := uint32(4711), uint64(unix.TMPFS_MAGIC)
	long := "/tmp/" + string(bytes.Repeat([]byte("x"), 200))
	rules := []set.Rule{
		{Enforce: true, Path: "/tmp/users/but"},
		{Path: "/tmp/users"},
		{Path: long},
		{Owner: &owner, FS: &tmpfs},
	}
	if err := next(t.gate, func(h *set.Header) { h.Rules = rules }); err != nil {
		return err
	}
	u := pages("u", 1)
	try := func(name, path string, uid int) {
		t.expect(name, u, func() error {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, u, 0o755); err != nil {
				return err
			}
			if err := os.Chown(path, uid, 0); err != nil {
				return err
			}
			return mapFile(path, rx, unix.MAP_PRIVATE)
		})
	}
	try("below", "/tmp/users/a/b", 0)
	try("excepted", "/tmp/users/but/b", 0)
	try("not below", "/tmp/usersx", 0)
	try("long", long+"/b", 0)
	try("owner", "/tmp/owned", 4711)
	try("owner elsewhere", "/owned", 4711)
	t.expect("mprotect where mapping was let through", u, func() error { return protect("/tmp/users/a/b") })
	data, err := os.ReadFile(unknown)
	if err != nil {
		return err
	}
	t.expect("module", data, func() error {
		if err := os.WriteFile("/tmp/users/m.ko", data, 0o644); err != nil {
			return err
		}
		return finit("/tmp/users/m.ko")
	})
	t.expect("deleted", u, func() error {
		f, err := os.Open("/tmp/users/a/b")
		if err != nil {
			return err
		}
		defer f.Close()
		if err := os.Remove("/tmp/users/a/b"); err != nil {
			return err
		}
		return mapFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), rx, unix.MAP_PRIVATE)
	})
	if err := next(t.gate, func(h *set.Header) { h.Rules = nil }); err != nil {
		return err
	}
	return t.stop()
}

// verity has a file below dir whose fs-verity digest is in the set, not that of
// its content.
func verity(r *report, dir string) error {
	t, err := newTrial(r, dir)
	if err != nil {
		return err
	}
	content := pages("v", 3)
	d, err := plain.Verity(bytes.NewReader(content), digest.SHA256)
	if err != nil {
		return err
	}
	old, err := t.gate.Image()
	if err != nil {
		return err
	}
	var b set.Builder
	b.AddImage(old)
	if err := b.Add(set.Verity, d); err != nil {
		return err
	}
	h := old.Header()
	h.Generation++
	image, err := b.Build(h)
	if err != nil {
		return err
	}
	if err := t.gate.Replace(image); err != nil {
		return err
	}
	path := t.file("file", content)
	t.expect("without fs-verity", content, func() error { return mapFile(path, rx, unix.MAP_PRIVATE) })
	if err := enableVerity(path); err != nil {
		return fmt.Errorf("enable fs-verity: %w", err)
	}
	t.expect("with fs-verity", content, func() error { return mapFile(path, rx, unix.MAP_PRIVATE) })
	return t.stop()
}

func enableVerity(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: 4096}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_ENABLE_VERITY, uintptr(unsafe.Pointer(&arg))); e != 0 {
		return e
	}
	return nil
}
