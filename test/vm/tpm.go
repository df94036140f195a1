package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// newTPM makes a TPM 2.0 with SHA-1 and SHA-256 banks whose state is kept in a
// directory, if that is not there.
func newTPM(ctx context.Context, state string) error {
	switch err := os.Mkdir(state, 0o700); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	_, err := run(ctx, "", "swtpm_setup", "--tpm2", "--tpmstate", state, "--pcr-banks", "sha1,sha256")
	return err
}

// UseTPM powers on a TPM that a directory keeps, or makes a new one there, outside
// of any machine and for as long as use takes.
func UseTPM(ctx context.Context, state string, use func(transport.TPM) error) (err error) {
	if err := newTPM(ctx, state); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tpm-") // the path of a socket is short
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	socket, control, pidfile := filepath.Join(dir, "tpm"), filepath.Join(dir, "ctrl"), filepath.Join(dir, "pid")
	if _, err := run(ctx, "", "swtpm", "socket", "--tpm2", "--daemon", "--pid", "file="+pidfile, "--tpmstate", "dir="+state,
		"--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+control, "--flags", "not-need-init,startup-clear"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, powerOff(pidfile, control)) }()
	t, err := linuxudstpm.Open(socket)
	if err != nil {
		return err
	}
	return errors.Join(use(t), t.Close())
}

// powerOff ends a TPM, and waits until its connection ends with it.
func powerOff(pidfile, control string) error {
	text, err := os.ReadFile(pidfile)
	if err != nil {
		return err
	}
	var pid int
	if _, err := fmt.Sscan(strings.TrimSpace(string(text)), &pid); err != nil {
		return err
	}
	c, err := net.Dial("unix", control)
	if err != nil {
		return err
	}
	err = syscall.Kill(pid, syscall.SIGTERM)
	if err == nil {
		io.Copy(io.Discard, c) // until it ends, in whatever way
	}
	return errors.Join(err, c.Close())
}

// startTPM starts a TPM for a machine, as UseTPM does. stop ends it and waits for its end.
func startTPM(ctx context.Context, state, socket string) (stop func(), err error) {
	if err := newTPM(ctx, state); err != nil {
		return nil, err
	}
	// swtpm is given a socket that listens already: nobody has to wait for it.
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	if err != nil {
		return nil, err
	}
	defer file.Close()

	ctx, cancel := context.WithCancel(ctx)
	swtpm, err := command(ctx, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state,
		"--ctrl", "type=unixio,fd=3", "--terminate")
	if err != nil {
		cancel()
		return nil, err
	}
	swtpm.ExtraFiles = []*os.File{file}
	if err := swtpm.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("swtpm: %w", err)
	}
	return func() {
		cancel()
		swtpm.Wait() // killed, so it says so
	}, nil
}
