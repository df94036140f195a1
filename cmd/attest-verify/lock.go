package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// lock waits until no other check holds what is kept in a file, and holds it
// until unlock is called or the process ends. It locks a file beside it, which
// stays: the file itself is replaced.
func lock(path string) (unlock func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: lock: %w", f.Name(), err), f.Close())
	}
	return f.Close, nil
}

// lockShared keeps systemd from measuring, if its log is there, until unlock is
// called: it extends a PCR, and then writes the record, with a lock on the log
// (systemd-pcrextend(8)). A quote in between would be ahead of the log.
func lockShared(path string) (unlock func() error, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: lock: %w", path, err), f.Close())
	}
	return f.Close, nil
}
