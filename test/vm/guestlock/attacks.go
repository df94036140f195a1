package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"diglim/internal/kernel/gate"
	"diglim/internal/kernel/gate/set"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// An attack is a way to switch the gate off, or to get a hold on it.
type attack struct {
	name string
	do   func() error
	undo func() error // of what it leaves behind; may be nil
}

const bpffs = "/sys/fs/bpf"

// attacks are tried in this order.
var attacks = []attack{
	// The pins and where they are.
	{"remove a pin", func() error { return os.Remove(gate.Dir + "/diglim_exec") }, nil},
	{"remove all pins", removePins, nil},
	{"rename a pin", func() error { return os.Rename(gate.Dir+"/diglim_exec", gate.Dir+"/other") },
		func() error { return os.Rename(gate.Dir+"/other", gate.Dir+"/diglim_exec") }},
	{"rename the directory", func() error { return os.Rename(gate.Dir, bpffs+"/other") },
		func() error { return os.Rename(bpffs+"/other", gate.Dir) }},
	{"rename over a pin", renameOver, nil},
	{"chmod and chown the pins", chmodPins, nil},
	{"umount bpffs", func() error { return unix.Unmount(bpffs, 0) }, mountBPF},
	{"umount -l bpffs", func() error { return unix.Unmount(bpffs, unix.MNT_DETACH) }, mountBPF},
	{"move bpffs, remove the pins", moveAndRemove, mountBPF},
	{"bind bpffs, remove the pins", bindAndRemove, func() error { return unix.Unmount("/tmp/bound", unix.MNT_DETACH) }},
	{"mount over the pins", func() error { return unix.Mount("bpf", bpffs, "bpf", 0, "") }, func() error { return unix.Unmount(bpffs, 0) }},
	{"umount in another mount namespace", inNamespace(unix.MS_PRIVATE, umountAll), mountBPF},
	{"umount the hidden bpffs", func() error { return unix.Unmount(hidden, unix.MNT_DETACH) }, nil},
	{"umount the hidden bpffs in another namespace", inNamespace(unix.MS_PRIVATE, func() error { return unix.Unmount(hidden, unix.MNT_DETACH) }), nil},
	{"rmdir below the hidden bpffs from another namespace", inNamespace(unix.MS_PRIVATE, rmdirHidden), nil},
	{"rename over the directory of the hidden bpffs", inNamespace(unix.MS_PRIVATE, renameOverHidden), nil},
	{"move the hidden bpffs", moveHidden, nil},
	{"remove the hidden pins", func() error { return os.RemoveAll(hidden) }, nil},

	// bpf(2).
	{"link detach by id", eachLink(func(l link.Link) error { return l.Detach() }), nil},
	{"link update by id", eachLink(func(l link.Link) error { return bpf(29, &[4]uint32{fd(l), 0, 0, 0}) }), nil},
	{"link by pin: update", func() error {
		return withPinned(func(l link.Link) error { return bpf(29, &[4]uint32{fd(l), 0, 0, 0}) })
	}, nil},
	{"link by pin: detach", func() error {
		return withPinned(func(l link.Link) error { return bpf(34, &[4]uint32{fd(l)}) })
	}, nil},
	{"program by id", eachProgram(func(*ebpf.Program) error { return nil }), nil},
	{"empty the slot, map by id", eachMap("sets", func(m *ebpf.Map) error { return m.Delete(uint32(0)) }), nil},
	{"empty the slot, map by pin", emptyByPin, nil},
	{"freeze the outer map by id", eachMap("sets", func(m *ebpf.Map) error { return m.Freeze() }), nil},
	{"write the set by id", eachMap("diglim_image", func(m *ebpf.Map) error { return m.Put(uint32(0), make([]byte, set.BlockSize)) }), nil},
	{"mmap the set by id", eachMap("diglim_image", mmapMap), nil},
	{"write the set from a program", eachMap("diglim_image", logFromProgram), nil},
	{"arm or disarm by id", eachMap("armed", func(m *ebpf.Map) error { return m.Put(uint32(0), uint32(0)) }), nil},
	{"make oneself a parser", eachMap("parsers", markMyself), nil},
	{"a map in the shape of a set", mapLikeASet, nil},
	{"load an LSM program", load(ebpf.LSM, ebpf.AttachLSMMac, "bpf"), nil},
	{"load fmod_ret on security_bpf", load(ebpf.Tracing, ebpf.AttachModifyReturn, "security_bpf"), nil},
	{"load fentry", load(ebpf.Tracing, ebpf.AttachTraceFEntry, "security_bpf"), nil},
	{"load kprobe", load(ebpf.Kprobe, 0, ""), nil},
	{"load tracepoint", load(ebpf.TracePoint, 0, ""), nil},
	{"load raw tracepoint", load(ebpf.RawTracepoint, 0, ""), nil},
	{"load perf event", load(ebpf.PerfEvent, 0, ""), nil},
	{"load syscall", load(ebpf.Syscall, 0, ""), nil},
	{"enable stats", func() error { return bpfFD(32, &[1]uint32{0}) }, nil},

	// What BPF hangs on, and the kernel's memory.
	{"ftrace_enabled", func() error { return os.WriteFile("/proc/sys/kernel/ftrace_enabled", []byte("0"), 0) },
		func() error { return os.WriteFile("/proc/sys/kernel/ftrace_enabled", []byte("1"), 0) }},
	{"ftrace_enabled, another procfs", otherProc, func() error { return os.WriteFile("/proc/sys/kernel/ftrace_enabled", []byte("1"), 0) }},
	{"tracefs", tracefs, nil},
	{"/dev/mem", openMem, nil},
	{"iopl", iopl, nil},
	{"kexec_load", func() error {
		// Nothing to load: unloads what is there, if one may.
		_, _, e := unix.Syscall6(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0, 0, 0)
		return result(e)
	}, nil},
	{"kexec_file_load", kexecFile, nil},
	{"unsigned module", func() error { return module(unsigned) }, func() error { return unix.DeleteModule("ifb", 0) }},
	{"stop", gate.Stop, nil},
}

// sysAttacks take /sys away, and with it what the others are on.
var sysAttacks = []attack{
	{"umount -l /sys", func() error { return unix.Unmount("/sys", unix.MNT_DETACH) }, mountSys},
	{"umount in a namespace that propagates", inNamespace(unix.MS_SHARED, umountAll), mountSys},
	{"rmdir /sys from another namespace", inNamespace(unix.MS_PRIVATE, rmdirSys), mountSys},
}

// attackOpen tries the attacks on gates that are not locked.
func attackOpen(r *report) error {
	running := false
	for _, a := range slices.Concat(attacks, sysAttacks) {
		if !running {
			if err := start(); err != nil {
				return fmt.Errorf("%s: start: %w", a.name, err)
			}
			running = true
		}
		err := a.do()
		state := settled(err)
		r.line(a.name, "%s, %s", errno(err), state)
		if a.undo != nil && err == nil {
			if err := a.undo(); err != nil {
				return fmt.Errorf("%s: undo: %w", a.name, err)
			}
		}
		if state == "off" {
			if err := gate.Stop(); err != nil && !errors.Is(err, gate.ErrNone) {
				if err := os.RemoveAll(gate.Dir); err != nil {
					return err
				}
			}
			running = false
		}
	}
	if running {
		return gate.Stop()
	}
	return nil
}

func result(e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

func removePins() error {
	entries, err := os.ReadDir(gate.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(gate.Dir, e.Name())))
	}
	return errors.Join(err, os.Remove(gate.Dir))
}

func renameOver() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer m.Close()
	other := bpffs + "/mine"
	if err := m.Pin(other); err != nil {
		return err
	}
	defer os.Remove(other)
	return os.Rename(other, gate.Dir+"/diglim_exec")
}

func chmodPins() error {
	return errors.Join(os.Chmod(gate.Dir, 0o777), os.Chmod(gate.Dir+"/sets", 0o666), os.Chown(gate.Dir+"/sets", 1, 1))
}

func mountBPF() error {
	var st unix.Statfs_t
	if err := unix.Statfs(bpffs, &st); err == nil && st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	return unix.Mount("bpf", bpffs, "bpf", 0, "mode=700")
}

// mountSys mounts what was below /sys.
func mountSys() error {
	if err := os.MkdirAll("/sys", 0o755); err != nil {
		return err
	}
	if _, err := os.Stat("/sys/kernel"); err != nil {
		if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
			return err
		}
	}
	if _, err := os.Stat("/sys/kernel/security/lsm"); err != nil {
		if err := unix.Mount("securityfs", "/sys/kernel/security", "securityfs", 0, ""); err != nil {
			return err
		}
	}
	return mountBPF()
}

func moveAndRemove() error {
	if err := os.MkdirAll("/tmp/moved", 0o755); err != nil {
		return err
	}
	if err := unix.Mount(bpffs, "/tmp/moved", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	err := os.RemoveAll("/tmp/moved/diglim")
	return errors.Join(err, unix.Mount("/tmp/moved", bpffs, "", unix.MS_MOVE, ""))
}

func bindAndRemove() error {
	if err := os.MkdirAll("/tmp/bound", 0o755); err != nil {
		return err
	}
	if err := unix.Mount(bpffs, "/tmp/bound", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	err := os.RemoveAll("/tmp/bound/diglim")
	if err != nil {
		unix.Unmount("/tmp/bound", 0)
	}
	return err
}

// inNamespace runs f in a mount namespace of its own, whose mounts are private
// or share what happens to them with those they are copies of.
func inNamespace(propagation uintptr, f func() error) func() error {
	return func() error {
		if propagation == unix.MS_SHARED {
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
				return err
			}
			defer unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		return onThread(unix.CLONE_FS|unix.CLONE_NEWNS, func() error {
			if err := unix.Mount("", "/", "", unix.MS_REC|propagation, ""); err != nil {
				return err
			}
			return f()
		})
	}
}

// onThread runs f on a thread that shares less with the others.
func onThread(unshare int, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends
		err := unix.Unshare(unshare)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func umountAll() error {
	return errors.Join(unix.Unmount(bpffs, unix.MNT_DETACH), unix.Unmount("/sys", unix.MNT_DETACH))
}

// rmdirSys removes the directory that sysfs is mounted on, from where it is not:
// the kernel unmounts it everywhere.
func rmdirSys() error {
	return errors.Join(unix.Unmount("/sys", unix.MNT_DETACH), unix.Rmdir("/sys"))
}

// hidden is where the lock has its pins. No path leads there after switch_root.
const hidden = "/.diglim"

func rmdirHidden() error {
	unix.Unmount(hidden, unix.MNT_DETACH)
	return unix.Rmdir(hidden)
}

func renameOverHidden() error {
	unix.Unmount(hidden, unix.MNT_DETACH)
	if err := os.Mkdir("/over", 0o755); err != nil {
		return err
	}
	defer os.Remove("/over")
	return unix.Rename("/over", hidden)
}

func moveHidden() error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, hidden, unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.MoveMount(fd, "", unix.AT_FDCWD, "/tmp", unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// bpf is the system call, whose attributes are all 0 beyond those given.
func bpf[T any](cmd int, attr *T) error {
	_, err := bpfCall(cmd, attr)
	return err
}

func bpfCall[T any](cmd int, attr *T) (int, error) {
	n, _, e := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	return int(n), result(e)
}

// bpfFD is a call that returns a file descriptor.
func bpfFD[T any](cmd int, attr *T) error {
	n, err := bpfCall(cmd, attr)
	if err == nil {
		unix.Close(n)
	}
	return err
}

func fd(l link.Link) uint32 { return uint32(l.(interface{ FD() int }).FD()) }

// withPinned is what can be done with a link from its pin.
func withPinned(f func(link.Link) error) error {
	l, err := link.LoadPinnedLink(gate.Dir+"/diglim_exec", nil)
	if err != nil {
		return err
	}
	return errors.Join(f(l), l.Close())
}

// eachLink does something with all links by their ids. It ends with the first
// error.
func eachLink(f func(link.Link) error) func() error {
	return func() error {
		for id := link.ID(0); id < 200; id++ {
			l, err := link.NewFromID(id)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return err
			}
			if err := errors.Join(f(l), l.Close()); err != nil {
				return err
			}
		}
		return nil
	}
}

func eachProgram(f func(*ebpf.Program) error) func() error {
	return func() error {
		for id := ebpf.ProgramID(0); ; {
			next, err := ebpf.ProgramGetNextID(id)
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			id = next
			p, err := ebpf.NewProgramFromID(id)
			if err != nil {
				return err
			}
			if err := errors.Join(f(p), p.Close()); err != nil {
				return err
			}
		}
	}
}

// eachMap does something with all maps of a name by their ids. Under the lock
// names are not to be had: a refusal is the end, whatever the map.
func eachMap(name string, f func(*ebpf.Map) error) func() error {
	return func() error {
		found := false
		var refused error
		for id := ebpf.MapID(0); ; {
			next, err := ebpf.MapGetNextID(id)
			if errors.Is(err, os.ErrNotExist) {
				break
			}
			if err != nil {
				return err
			}
			id = next
			m, err := ebpf.NewMapFromID(id)
			if errors.Is(err, os.ErrPermission) {
				refused = err
				continue
			}
			if err != nil {
				return err
			}
			info, err := m.Info()
			if err == nil && info.Name == name {
				found = true
				err = f(m)
			}
			if err := errors.Join(err, m.Close()); err != nil {
				return err
			}
		}
		if !found && refused == nil {
			return errors.New("no such map")
		}
		return refused
	}
}

func emptyByPin() error {
	m, err := ebpf.LoadPinnedMap(gate.Dir+"/sets", nil)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Delete(uint32(0))
}

func mmapMap(m *ebpf.Map) error {
	b, err := unix.Mmap(m.FD(), 0, set.BlockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	clear(b)
	return unix.Munmap(b)
}

// logFromProgram has a program that needs no more than a socket write mode log
// into the header of the set: that a map is frozen does not hold for programs.
func logFromProgram(m *ebpf.Map) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.StoreImm(asm.R0, 24, int64(set.Log), asm.Word),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}})
	if err != nil {
		return err
	}
	defer p.Close()
	_, _, err = p.Test(make([]byte, 64))
	return err
}

func markMyself(m *ebpf.Map) error {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	return m.Put(uint32(pidfd), uint8(1))
}

func mapLikeASet() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: set.BlockSize, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE | unix.BPF_F_INNER_MAP})
	if err != nil {
		return err
	}
	return m.Close()
}

// load loads a program that does nothing.
func load(t ebpf.ProgramType, attach ebpf.AttachType, to string) func() error {
	return func() error {
		spec := &ebpf.ProgramSpec{Type: t, AttachType: attach, AttachTo: to, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}}
		if t == ebpf.Syscall {
			spec.Flags = unix.BPF_F_SLEEPABLE
		}
		p, err := ebpf.NewProgram(spec)
		if err != nil {
			return err
		}
		return p.Close()
	}
}

func otherProc() error {
	const dir = "/tmp/proc"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("proc", dir, "proc", 0, ""); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(dir+"/sys/kernel/ftrace_enabled", []byte("0"), 0), unix.Unmount(dir, 0))
}

func tracefs() error {
	const dir = "/sys/kernel/tracing"
	if err := unix.Mount("tracefs", dir, "tracefs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return err
	}
	err := errors.Join(
		os.WriteFile(dir+"/set_ftrace_notrace", []byte("bpf_lsm_bprm_check_security"), 0),
		os.WriteFile(dir+"/tracing_on", []byte("0"), 0),
		os.WriteFile(dir+"/kprobe_events", []byte("p:lock bpf_lsm_bprm_check_security"), 0),
	)
	return errors.Join(err, unix.Unmount(dir, 0))
}

func openMem() error {
	if _, err := os.Stat("/dev/mem"); err != nil {
		if err := unix.Mknod("/dev/mem", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1))); err != nil {
			return err
		}
	}
	f, err := os.OpenFile("/dev/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func iopl() error {
	const sysIOPL = 172 // x86-64, which the guests are; others have no such call
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		_, _, e := unix.Syscall(sysIOPL, 3, 0, 0)
		done <- result(e)
	}()
	return <-done
}

// kexecFile gives the kernel a kernel to start that is none.
func kexecFile() error {
	f, err := os.Open(unlisted)
	if err != nil {
		return err
	}
	defer f.Close()
	const noInitramfs = 4
	_, _, e := unix.Syscall6(unix.SYS_KEXEC_FILE_LOAD, f.Fd(), 0, 1, uintptr(unsafe.Pointer(&[1]byte{})), noInitramfs, 0)
	return result(e)
}

func module(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// mountInfo returns the lines of the mount table that have a word in them.
func mountInfo(word string) string {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	var found []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, word) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found, "; ")
}

// output is what a command printed, and how it ended.
func output(cmd *exec.Cmd) string {
	out, err := cmd.CombinedOutput()
	text := strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "; ")
	if err != nil {
		text += " (" + err.Error() + ")"
	}
	return text
}
