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
	Second  string // another disk, which the guest cannot write to; none if empty
	Cmdline string // for the kernel, besides the console
	TPM     bool   // a TPM 2.0 with SHA-1 and SHA-256 banks

	// TPMState is the directory that the TPM is kept in from boot to boot. The
	// first makes it; if it is empty each has a new TPM.
	TPMState string

	// Image is a unified kernel image, from TestKey.WriteUKI, which the UEFI firmware of
	// SecureBoot starts from a disk of its own, as it starts one on a real machine:
	// so it measures it. Initrd and Cmdline are those in the image then.
	Image string

	// SecureBoot starts the kernel by a UEFI firmware that runs only what its
	// test key has signed, and hands the key on to the kernel. Kernels then
	// lock themselves down.
	SecureBoot *TestKey

	// WriteLog is a file for all that the machine writes to its disk, and when it
	// has that flushed, for Cut; none if empty.
	WriteLog string

	// ESP is the directory, from WriteGRUB, that is the system partition from which a
	// UEFI firmware with the keys of PCs boots. Initrd and Cmdline are what is there.
	ESP string

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
	start, firmware := []string{"-kernel", m.Kernel.image(), "-initrd", m.Initrd, "-append", Cmdline(m.Cmdline)}, []string{"-machine", "q35"}
	switch {
	case m.ESP != "":
		start = systemPartition(m.ESP)
		firmware, err = writeFirmware(dir, pcVariables)
	case m.Image != "" && m.SecureBoot == nil:
		return errors.New("an image without Secure Boot")
	case m.Image != "":
		start, firmware, err = m.SecureBoot.prepareDisk(dir, m.Image)
	case m.SecureBoot != nil:
		start[1], firmware, err = m.SecureBoot.prepare(ctx, dir, start[1])
	}
	if err != nil {
		return err
	}
	args := append(append(firmware, start...),
		"-accel", "tcg", "-cpu", "qemu64", "-smp", "1", "-m", strconv.Itoa(memory),
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "file:"+console,
		"-blockdev", m.blockdev(),
		"-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci",
	)
	if m.Second != "" {
		args = append(args, "-drive", "if=none,id=second,format=raw,readonly=on,file="+m.Second, "-device", "virtio-blk-pci,drive=second")
	}
	if m.TPM {
		state := m.TPMState
		if state == "" {
			state = filepath.Join(dir, "tpm")
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

// blockdev is QEMU's name for the disk. The host need not flush what it writes.
func (m Machine) blockdev() string {
	disk := func(at, path string) string {
		return "," + at + "driver=file," + at + "cache.no-flush=on," + at + "filename=" + path
	}
	if m.WriteLog == "" {
		return "node-name=disk,driver=raw" + disk("file.", m.Disk)
	}
	return "node-name=disk,driver=blklogwrites" + disk("file.", m.Disk) + disk("log.", m.WriteLog)
}

// Cmdline is the kernel's command line, with the console before what is asked.
func Cmdline(asked string) string { return strings.TrimSpace("console=ttyS0 panic=-1 quiet " + asked) }

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
