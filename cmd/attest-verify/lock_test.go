package main

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/tpm"
)

// Checks that hold the lock while they read, judge and write never let an older
// state replace a newer one, whichever comes first.
func TestNoOlderStateIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "host")
	const checks = 64
	var all sync.WaitGroup
	for clock := range uint64(checks) {
		all.Go(func() {
			unlock, err := lock(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			last, err := readLast(path)
			if err != nil {
				t.Error(err)
			}
			if last != nil && last.Clock > clock {
				return
			}
			now := &attest.Seen{AK: digest.Sum(digest.SHA256, nil), At: time.Unix(1, 0), State: tpm.State{Clock: clock}}
			if err := writeLast(path, now); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if last, err := readLast(path); err != nil || last.Clock != checks-1 {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host")
	unlock, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != syscall.EWOULDBLOCK {
		t.Errorf("held: %v", err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Errorf("not held: %v", err)
	}
	link := filepath.Join(filepath.Dir(path), "link")
	if err := os.Symlink(path, link+".lock"); err != nil {
		t.Fatal(err)
	}
	if _, err := lock(link); err == nil {
		t.Error("a symbolic link is followed")
	}
}

// While collect quotes, systemd does not measure.
func TestLockShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "measure.log")
	unlock, err := lockShared(path)
	if err != nil || unlock() != nil {
		t.Fatalf("no log: %v", err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if unlock, err = lockShared(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("systemd could measure: %v", err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Errorf("systemd cannot measure any more: %v", err)
	}
}
