// Command guestinit is the first process of a guest: it carries out the plan in
// the initramfs, leaves the results on the disk and powers off.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"diglim/test/vm/plan"

	"golang.org/x/sys/unix"
)

const (
	disk = "/dev/vda"
	path = "/usr/sbin:/usr/bin:/sbin:/bin"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("guestinit:", err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("guestinit: power off:", err)
	}
}

func run() error {
	if err := mountAll(); err != nil {
		return err
	}
	data, err := os.ReadFile(plan.Path)
	if err != nil {
		return err
	}
	var p plan.Plan
	if err := json.Unmarshal(data, &p); err != nil {
		return fmt.Errorf("%s: %w", plan.Path, err)
	}

	for _, path := range p.Modules {
		if err := load(path); err != nil {
			return err
		}
	}
	var results []result
	for _, c := range p.Early {
		results = append(results, execute(c))
	}
	if err := switchRoot(); err != nil {
		return err
	}
	for _, r := range results {
		if err := r.write(); err != nil {
			return err
		}
	}
	for _, c := range p.Commands {
		if err := execute(c).write(); err != nil {
			return err
		}
	}
	for _, name := range p.Unload {
		if err := unix.DeleteModule(name, unix.O_NONBLOCK); err != nil {
			return fmt.Errorf("unload %s: %w", name, err)
		}
	}
	return finish()
}

func mountAll() error {
	for _, m := range []struct{ fstype, dir string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"securityfs", "/sys/kernel/security"},
		{"tmpfs", "/tmp"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.dir, m.fstype, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

// switchRoot makes the disk the root. The initramfs stays below it, out of
// reach.
func switchRoot() error {
	const newRoot = "/disk"
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(disk, newRoot, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", disk, err)
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/tmp"} {
		if err := os.MkdirAll(newRoot+dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return os.MkdirAll(plan.Out, 0o755)
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

type result struct {
	name   string
	output []byte
	exit   int
}

// execute runs a command. One that cannot be started has the exit code 127, as
// in a shell.
func execute(c plan.Command) result {
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env = append([]string{"PATH=" + path}, c.Env...)
	var output bytes.Buffer
	cmd.Stdout = &output
	cmd.Stderr = &output
	err := cmd.Run()
	r := result{name: c.Name, output: output.Bytes()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.exit = exit.ExitCode()
		if r.exit < 0 {
			r.output = fmt.Appendf(r.output, "\nguestinit: %v\n", exit)
		}
	case err != nil:
		r.exit = 127
		r.output = fmt.Appendf(r.output, "guestinit: %v\n", err)
	}
	return r
}

func (r result) write() error {
	base := filepath.Join(plan.Out, r.name)
	if err := os.WriteFile(base+plan.OutputSuffix, r.output, 0o644); err != nil {
		return err
	}
	return os.WriteFile(base+plan.ExitSuffix, []byte(strconv.Itoa(r.exit)), 0o644)
}

// finish saves the kernel's log and makes the disk fit to be read.
func finish() error {
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return fmt.Errorf("size of the kernel log: %w", err)
	}
	log := make([]byte, size)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, log)
	if err != nil {
		return fmt.Errorf("kernel log: %w", err)
	}
	if err := os.WriteFile(filepath.Join(plan.Out, plan.KernelLog), log[:n], 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(plan.Out, plan.Finished), nil, 0o644)
}
