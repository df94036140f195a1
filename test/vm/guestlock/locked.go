package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"diglim/internal/kernel/gate"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

const ftraceEnabled = "/proc/sys/kernel/ftrace_enabled"

// refuse tries to lock a gate where that is refused.
func refuse(r *report) error {
	if err := start(); err != nil {
		return err
	}
	if err := os.WriteFile(ftraceEnabled, []byte("0"), 0); err != nil {
		return err
	}
	r.line("without ftrace", "%v", gate.Lock())
	if err := os.WriteFile(ftraceEnabled, []byte("1"), 0); err != nil {
		return err
	}

	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "foreign", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "bpf", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return err
	}
	r.line("with a program of others", "%v", gate.Lock())
	if err := p.Close(); err != nil {
		return err
	}

	holder, err := startHolder(own)
	if err != nil {
		return err
	}
	r.line("with a map in another process", "%v", gate.Lock())
	if err := holder.end(); err != nil {
		return err
	}

	sets, err := ebpf.LoadPinnedMap(gate.Dir+"/sets", nil)
	if err != nil {
		return err
	}
	user, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "user", Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, sets.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}})
	if err := errors.Join(err, sets.Close()); err != nil {
		return err
	}
	r.line("with a map in another program", "%v", gate.Lock())
	if err := user.Close(); err != nil {
		return err
	}

	r.line("in another mount namespace", "%v", inNamespace(unix.MS_PRIVATE, gate.Lock)())
	const root = "/tmp/root"
	if err := os.MkdirAll(root+"/proc", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("proc", root+"/proc", "proc", 0, ""); err != nil {
		return err
	}
	r.line("in a chroot", "%v", onThread(unix.CLONE_FS, func() error {
		if err := errors.Join(unix.Chroot(root), os.Chdir("/")); err != nil {
			return err
		}
		return gate.TrustedWorld()
	}))
	if err := unix.Unmount(root+"/proc", 0); err != nil {
		return err
	}
	locked, err := gate.Locked()
	r.line("locked", "%v, %v", locked, errno(err))

	if err := gate.Stop(); err != nil {
		return err
	}
	return killed(r)
}

// killed kills one that starts a gate and locks it, when it has begun with the
// lock.
func killed(r *report) error {
	cmd := exec.Command(own, "lock")
	if err := cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if pins, err := filepath.Glob(gate.Dir + "/lock_*"); err == nil && len(pins) > 0 {
			break
		}
		if time.Now().After(end) {
			return errors.New("the lock has not begun within a minute")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	cmd.Wait()
	locked, err := gate.Locked()
	r.line("killed", "locked %v, %v; gate %s", locked, errno(err), settled(nil))
	return nil
}

// lock completes the lock that was killed.
func lock(r *report) error {
	old, err := os.OpenFile(ftraceEnabled, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer old.Close()
	if err := start(); errors.Is(err, gate.ErrRunning) {
		r.line("started before", "ok")
	} else if err != nil {
		return err
	}
	err = gate.Lock()
	r.line("lock", "%s, gate %s", errno(err), settled(err))
	locked, err := gate.Locked()
	r.line("locked", "%v, %v", locked, errno(err))
	_, err = old.WriteString("0")
	r.line("ftrace_enabled, opened before", "%s, %s", errno(err), settled(err))
	r.line("lock again", "%v", gate.Lock())
	return nil
}

// attackLocked tries the attacks on the locked gate, with or without those on
// /sys, then those on its parser, and what must go on working.
func attackLocked(r *report, sys bool) error {
	for _, a := range attacks {
		err := a.do()
		r.line(a.name, "%s, %s", errno(err), settled(err))
		if a.undo != nil && err == nil {
			if err := a.undo(); err != nil {
				return fmt.Errorf("%s: undo: %w", a.name, err)
			}
		}
	}
	if sys {
		for _, a := range sysAttacks {
			err := a.do()
			r.line(a.name, "%s, %s", errno(err), settled(nil))
			if err := a.undo(); err != nil {
				return fmt.Errorf("%s: undo: %w", a.name, err)
			}
		}
	}

	r.line("parser replaces the set", "%s", output(exec.Command(parser, "replace")))
	if err := unix.Mount("bpf", bpffs, "bpf", 0, ""); err != nil {
		return err
	}
	r.line("parser replaces the set, other pins", "%s", output(exec.Command(parser, "replace")))
	if err := unix.Unmount(bpffs, 0); err != nil {
		return err
	}
	r.line("parser, not sealed", "%s", output(exec.Command(parser, "replace-unsealed")))
	r.line("not a parser", "%s", output(exec.Command(own, "replace")))
	r.line("program started by a parser", "%s", output(exec.Command(parser, "child")))
	r.line("parser that shares its root", "%s", outputWith(exec.Command(parser, "replace"), &unix.SysProcAttr{Cloneflags: unix.CLONE_FS}))
	r.line("parser with a seccomp filter", "%s", underSeccomp(exec.Command(parser, "replace")))
	text, err := traced(parser, "replace")
	r.line("parser traced from its start", "%s", text)
	if err != nil {
		return err
	}
	if err := attackParser(r); err != nil {
		return err
	}

	r.line("socket filter", "%s", errno(load(ebpf.SocketFilter, 0, "")()))
	r.line("cgroup program", "%s", errno(load(ebpf.CGroupDevice, ebpf.AttachCGroupDevice, "")()))
	err = module(signed)
	r.line("signed module", "%s", errno(err))
	if err == nil {
		if err := unix.DeleteModule("dummy", 0); err != nil {
			return err
		}
	}
	_, err = os.Stat("/proc/2/root" + hidden)
	if sys {
		r.line("hidden bpffs, seen", "%v, by kernel threads %v", mountInfo(hidden) != "", err == nil)
	}
	r.line("at last", "%s", settled(nil))
	return nil
}

// A holder is a parser that has the gate open.
type holder struct {
	cmd *exec.Cmd
	in  io.WriteCloser
}

func startHolder(program string) (*holder, error) {
	cmd := exec.Command(program, "hold")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		return nil, fmt.Errorf("holder: %q, %w", line, err)
	}
	return &holder{cmd, in}, nil
}

func (h *holder) end() error { return errors.Join(h.in.Close(), h.cmd.Wait()) }

// attackParser tries to take over a parser that has the gate open.
func attackParser(r *report) error {
	h, err := startHolder(parser)
	if err != nil {
		return err
	}
	pid := h.cmd.Process.Pid
	proc := "/proc/" + strconv.Itoa(pid)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = unix.PtraceSeize(pid)
	r.line("ptrace a parser", "%s", errno(err))
	r.line("/proc/PID/mem of a parser", "%s", errno(openWrite(proc+"/mem")))
	local := []byte{1}
	_, err = unix.ProcessVMWritev(pid, []unix.Iovec{{Base: &local[0], Len: 1}}, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&local[0])), Len: 1}}, 0)
	r.line("process_vm_writev to a parser", "%s", errno(err))
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	_, err = unix.PidfdGetfd(pidfd, 3, 0)
	r.line("pidfd_getfd from a parser", "%s", errno(err))

	// Its maps have numbers, but no way to open them.
	opened := "none"
	entries, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := proc + "/fd/" + e.Name()
		if target, err := os.Readlink(path); err == nil && target == "anon_inode:bpf-map" {
			opened = errno(openWrite(path))
		}
	}
	r.line("/proc/PID/fd of a parser", "%s", opened)
	return h.end()
}

func openWrite(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func outputWith(cmd *exec.Cmd, attr *unix.SysProcAttr) string {
	cmd.SysProcAttr = attr
	return output(cmd)
}

// underSeccomp runs a command under a filter that allows everything; one of an
// attacker would ask him.
func underSeccomp(cmd *exec.Cmd) string {
	done := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends
		allow := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}}
		prog := unix.SockFprog{Len: 1, Filter: &allow[0]}
		if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
			done <- err.Error()
			return
		}
		done <- output(cmd)
	}()
	return <-done
}

// traced runs a program under ptrace from its first instruction, as a debugger
// does.
func traced(program string, args ...string) (string, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pr, pw, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer pr.Close()
	p, err := os.StartProcess(program, append([]string{program}, args...), &os.ProcAttr{
		Files: []*os.File{nil, pw, pw}, Sys: &unix.SysProcAttr{Ptrace: true},
	})
	pw.Close()
	if err != nil {
		return "", err
	}
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(p.Pid, &status, 0, nil); err != nil {
			return "", err
		}
		if status.Exited() || status.Signaled() {
			out, err := io.ReadAll(pr)
			return string(out) + "(exit " + strconv.Itoa(status.ExitStatus()) + ")", err
		}
		signal := int(status.StopSignal())
		if signal == int(unix.SIGTRAP) {
			signal = 0
		}
		if err := unix.PtraceCont(p.Pid, signal); err != nil {
			return "", err
		}
	}
}
