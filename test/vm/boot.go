package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"diglim/test/vm/plan"
)

// A Machine is what Boot boots.
type Machine struct {
	Kernel  Kernel
	Initrd  string // from WriteInitrd
	Disk    string // from WriteDisk; the guest writes to it
	Cmdline string // for the kernel, besides the console
	TPM     bool   // a new TPM 2.0 with SHA-1 and SHA-256 banks
	State   string // directory of a TPM from NewTPM, which the machine has instead and leaves off

	// SecureBoot starts the kernel by a UEFI firmware that runs only what its
	// test key has signed, and hands the key on to the kernel. Kernels then
	// lock themselves down.
	SecureBoot *TestKey

	Memory int // MiB; 0 is 512
}

// A Result is what a guest left when it had carried out its plan.
type Result struct {
	Console string // all that was written to the serial console
	Out     string // directory with a copy of the guest's plan.Out
}

// Command returns what a command of the plan wrote, to standard output and
// standard error, and its exit code.
func (r Result) Command(name string) (output string, exit int, err error) {
	base := filepath.Join(r.Out, name)
	data, err := os.ReadFile(base + plan.OutputSuffix)
	if err != nil {
		return "", 0, err
	}
	code, err := os.ReadFile(base + plan.ExitSuffix)
	if err != nil {
		return "", 0, err
	}
	exit, err = strconv.Atoi(string(code))
	return string(data), exit, err
}

// KernelLog returns the guest's kernel log.
func (r Result) KernelLog() (string, error) {
	data, err := os.ReadFile(filepath.Join(r.Out, plan.KernelLog))
	return string(data), err
}

// Boot boots the machine and waits until it powers off. The console goes to
// Disk + ".console", the results to Disk + ".out". Whatever happens, no process
// is left when it returns. An error quotes the end of the console.
func Boot(ctx context.Context, m Machine) (Result, error) {
	text, err := Console(ctx, m)
	r := Result{Console: text, Out: m.Disk + ".out"}
	if err == nil {
		err = readOut(ctx, m.Disk, r.Out)
	}
	if err == nil {
		_, err = os.Stat(filepath.Join(r.Out, plan.Finished))
	}
	if err != nil {
		return r, fmt.Errorf("guest on %s: %w\nconsole:\n%s", m.Kernel.Release, err, tail(r.Console, 25))
	}
	return r, nil
}

// Console is Boot for a guest that leaves no results but what it writes to its
// console, which it returns.
func Console(ctx context.Context, m Machine) (string, error) {
	// The child processes are to die with this thread, so it must not end
	// before them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	console := m.Disk + ".console"
	if err := os.Remove(console); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	bootErr := boot(ctx, m, console)
	text, err := os.ReadFile(console)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return string(text), errors.Join(bootErr, err)
}

func boot(ctx context.Context, m Machine, console string) error {
	// The path of a socket is short, that of a test's directory often not.
	dir, err := os.MkdirTemp("", "vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	memory := m.Memory
	if memory == 0 {
		memory = 512
	}
	image, firmware := m.Kernel.image(), []string{"-machine", "q35"}
	if m.SecureBoot != nil {
		if image, firmware, err = m.SecureBoot.prepare(ctx, dir, image); err != nil {
			return err
		}
	}
	args := append(firmware,
		"-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", strconv.Itoa(memory),
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "file:"+console,
		"-kernel", image, "-initrd", m.Initrd,
		"-append", strings.TrimSpace("console=ttyS0 panic=-1 quiet "+m.Cmdline),
		"-drive", "if=none,id=disk,format=raw,cache=unsafe,file="+m.Disk,
		"-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci",
	)
	if m.TPM || m.State != "" {
		state := m.State
		if state == "" {
			state = filepath.Join(dir, "tpm")
			if err := NewTPM(ctx, state); err != nil {
				return err
			}
		}
		socket := filepath.Join(dir, "tpm.sock")
		stop, err := startTPM(ctx, state, socket)
		if err != nil {
			return err
		}
		defer stop()
		args = append(args, "-chardev", "socket,id=tpm,path="+socket,
			"-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0")
	}

	qemu, err := command(ctx, "qemu-system-x86_64", args...)
	if err != nil {
		return err
	}
	out, err := qemu.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("stopped: %w", ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("qemu: %w\n%s", err, tail(string(out), 20))
	}
	return nil
}

// command returns a command without standard input that dies with ctx or with
// the calling thread.
func command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := lookPath(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}
