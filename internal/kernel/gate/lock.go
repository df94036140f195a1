//go:build !nobpf && (amd64 || arm64)

package gate

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"diglim/internal/kernel"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// hidden is where bpffs is mounted a second time, in the initramfs. After
// switch_root no path leads there.
const hidden = "/.diglim"

// lockPrefix is what the names of the lock's programs and pins start with.
const lockPrefix = "lock_"

const (
	ftraceEnabled = "/proc/sys/kernel/ftrace_enabled"
	lockdown      = kernel.Securityfs + "/lockdown"
)

// harmless are the types of programs that act on packets, sockets, devices and
// cgroups. All others look into the kernel or change what it does, and so may
// those that are not known yet: they must not be there when the gate is locked,
// and cannot be loaded afterwards.
var harmless = []ebpf.ProgramType{
	ebpf.SocketFilter, ebpf.SchedCLS, ebpf.SchedACT, ebpf.XDP, ebpf.CGroupSKB, ebpf.CGroupSock,
	ebpf.LWTIn, ebpf.LWTOut, ebpf.LWTXmit, ebpf.SockOps, ebpf.SkSKB, ebpf.CGroupDevice, ebpf.SkMsg,
	ebpf.CGroupSockAddr, ebpf.LWTSeg6Local, ebpf.LircMode2, ebpf.SkReuseport, ebpf.FlowDissector,
	ebpf.CGroupSysctl, ebpf.CGroupSockopt, ebpf.SkLookup, ebpf.Netfilter,
}

// Lock locks the gate until the next boot: nobody can take it away, and only a
// program that the set lists as a parser, started as Sealed does, can replace
// the set. lock.bpf.c has what is refused then; docs/design/lock.md says why.
//
// It is for the initramfs, before anything runs that is not trusted, and
// refuses to lock what may be somebody else's already. Killed before its end it
// has locked nothing, though the kernel may be locked down, and can be called
// again.
func Lock() error {
	unlock, err := lockPins()
	if err != nil {
		return err
	}
	defer unlock()
	g, err := Open()
	if err != nil {
		return err
	}
	return errors.Join(lock(g), g.Close())
}

// lock locks the gate. Pins must be locked.
func lock(g *Gate) error {
	for _, check := range []func() error{TrustedWorld, inInitramfs, checkKernel, checkFtrace} {
		if err := check(); err != nil {
			return fmt.Errorf("not locked: %w", err)
		}
	}
	locked, err := Locked()
	if err != nil {
		return err
	}
	if locked {
		return ErrLocked
	}

	places, err := hide()
	if err != nil {
		return err
	}
	if err := lockWith(g, places); err != nil {
		return fmt.Errorf("not locked: %w", errors.Join(err, unhide()))
	}
	return nil
}

// A place is a directory as the kernel names it: struct place of lock.bpf.c.
type place struct {
	Dev, Ino uint64
}

// placeOf returns the place of a directory.
func placeOf(path string) (place, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return place{}, fmt.Errorf("%s: %w", path, err)
	}
	// The kernel's own dev_t has 20 bits for the minor number.
	return place{Dev: uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev)), Ino: st.Ino}, nil
}

// hide mounts bpffs on the hidden directory, in place of what a killed process
// has left, and returns the places that the programs of the lock guard, by the
// names of their variables.
func hide() (map[string]place, error) {
	if err := unhide(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(hidden, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	at, err := placeOf(hidden)
	if err != nil {
		return nil, err
	}
	pins, err := placeOf(Dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Mount(bpffs, hidden, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("bind %s to %s: %w", bpffs, hidden, err)
	}
	return map[string]place{"hidden": at, "pins": pins}, nil
}

// unhide takes the hidden mount away, and the pins of the lock's programs.
func unhide() error {
	pins, err := filepath.Glob(Dir + "/" + lockPrefix + "*")
	if err != nil {
		return err
	}
	for _, pin := range pins {
		if err := os.Remove(pin); err != nil {
			return err
		}
	}
	for {
		err := unix.Unmount(hidden, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", hidden, err)
		}
	}
}

// lockWith loads the programs of the lock, attaches and pins them, and arms them
// as its last act.
func lockWith(g *Gate, places map[string]place) error {
	spec, err := readObject(lockObject)
	if err != nil {
		return err
	}
	var types uint64
	for _, t := range harmless {
		types |= 1 << t
	}
	if err := spec.Variables["harmless_types"].Set(types); err != nil {
		return err
	}
	for name, value := range places {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{"sets": g.sets},
	})
	if err != nil {
		return err
	}
	defer c.Close() // pins hold it

	ours, err := guarded()
	if err != nil {
		return err
	}
	for _, program := range c.Programs {
		if err := ours.addProgram(program); err != nil {
			return err
		}
	}
	if err := ours.write(c.Maps["ours"]); err != nil {
		return err
	}
	for name, program := range c.Programs {
		if err := attachLock(program, filepath.Join(Dir, name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	// After the programs are attached, so that nothing comes in between.
	if err := ours.alone(); err != nil {
		return err
	}
	if err := lockKernelDown(); err != nil {
		return err
	}
	if err := checkFtrace(); err != nil {
		return err
	}
	armed := c.Maps["armed"]
	if err := armed.Put(uint32(0), uint32(1)); err != nil {
		return err
	}
	return armed.Freeze()
}

// guarded returns the programs of the gate, and the maps that they use.
func guarded() (*objects, error) {
	entries, err := os.ReadDir(Dir)
	if err != nil {
		return nil, err
	}
	ours := &objects{programs: map[ebpf.ProgramID]bool{}, maps: map[ebpf.MapID]bool{}}
	for _, e := range entries {
		l, err := link.LoadPinnedLink(filepath.Join(Dir, e.Name()), nil)
		if err != nil {
			continue // a map, which the programs hold
		}
		if err := errors.Join(ours.addLink(l), l.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	if len(ours.programs) == 0 {
		return nil, fmt.Errorf("%s holds no programs", Dir)
	}
	return ours, nil
}

// attachLock attaches a program of the lock for as long as pin exists.
func attachLock(program *ebpf.Program, pin string) error {
	if program.Type() != ebpf.CGroupSysctl {
		return attachProgram(program, pin)
	}
	l, err := attachRootCgroup(program)
	if err != nil {
		return err
	}
	return errors.Join(l.Pin(pin), l.Close())
}

// attachRootCgroup attaches a program for sysctls to all processes. The root of
// the cgroup hierarchy is taken from a mount that no path leads to, so that it
// is the real one, mounted or not.
func attachRootCgroup(program *ebpf.Program) (link.Link, error) {
	fsfd, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cgroup2: %w", err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, fmt.Errorf("cgroup2: %w", err)
	}
	mount, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cgroup2: %w", err)
	}
	defer unix.Close(mount)
	root, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cgroup2: %w", err)
	}
	defer unix.Close(root)
	return link.AttachRawLink(link.RawLinkOptions{Target: root, Program: program, Attach: ebpf.AttachCGroupSysctl})
}

// objects are programs and maps by the kernel's ids.
type objects struct {
	programs map[ebpf.ProgramID]bool
	maps     map[ebpf.MapID]bool
}

// addLink adds a link's program and the maps that it uses.
func (o *objects) addLink(l link.Link) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	program, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return err
	}
	return errors.Join(o.addProgram(program), program.Close())
}

func (o *objects) addProgram(program *ebpf.Program) error {
	info, err := program.Info()
	if err != nil {
		return err
	}
	id, ok := info.ID()
	ids, okMaps := info.MapIDs()
	if !ok || !okMaps {
		return errors.New("the kernel does not number its programs and maps")
	}
	o.programs[id] = true
	for _, id := range ids {
		o.maps[id] = true
	}
	return nil
}

// write writes the ids into the map that the programs look them up in, and
// freezes it.
func (o *objects) write(m *ebpf.Map) error {
	type key struct{ Object, ID uint32 } // struct object_id
	const isMap, isProgram = 1, 2
	for id := range o.maps {
		if err := m.Put(key{isMap, uint32(id)}, uint8(1)); err != nil {
			return err
		}
	}
	for id := range o.programs {
		if err := m.Put(key{isProgram, uint32(id)}, uint8(1)); err != nil {
			return err
		}
	}
	return m.Freeze()
}

// released is how long the kernel may take to let go of the programs of a
// process that was killed.
const released = 5 * time.Second

// alone checks that the kernel has no programs of others that could override
// ours, and that no other program or process holds a map of ours, as far as can
// be seen: not a file descriptor on its way through a socket.
func (o *objects) alone() error {
	for end := time.Now().Add(released); ; {
		err := errors.Join(o.noOtherPrograms(), o.noOtherHolders())
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(released / 50) // the kernel tells nobody when it is done
	}
}

func (o *objects) noOtherPrograms() error {
	return eachProgram(func(id ebpf.ProgramID, program *ebpf.Program) error {
		if o.programs[id] {
			return nil
		}
		info, err := program.Info()
		if err != nil {
			return err
		}
		if !slices.Contains(harmless, info.Type) {
			return fmt.Errorf("BPF program %d, %q of type %v, is not ours\nhint: lock before anything else loads BPF programs", id, info.Name, info.Type)
		}
		ids, _ := info.MapIDs()
		for _, m := range ids {
			if o.maps[m] {
				return fmt.Errorf("BPF program %d, %q, uses map %d of the gate", id, info.Name, m)
			}
		}
		return nil
	})
}

// eachProgram calls f for all programs in the kernel that this process may have.
func eachProgram(f func(ebpf.ProgramID, *ebpf.Program) error) error {
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("programs in the kernel: %w", err)
		}
		id = next
		program, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return fmt.Errorf("BPF program %d: %w", id, err)
		}
		if err := errors.Join(f(id, program), program.Close()); err != nil {
			return err
		}
	}
}

func (o *objects) noOtherHolders() error {
	names, err := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	if err != nil {
		return err
	}
	self := "/proc/" + strconv.Itoa(os.Getpid()) + "/"
	for _, name := range names {
		if strings.HasPrefix(name, self) {
			continue
		}
		info, err := os.ReadFile(name)
		if err != nil {
			continue // closed meanwhile
		}
		for line := range bytes.Lines(info) {
			value, ok := bytes.CutPrefix(line, []byte("map_id:"))
			if !ok {
				continue
			}
			if id, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 32); err != nil || o.maps[ebpf.MapID(id)] {
				return fmt.Errorf("%s is a map of the gate, in another process", strings.Replace(name, "fdinfo", "fd", 1))
			}
		}
	}
	return nil
}

// Locked says whether the gate is locked. To a process that the lock keeps out
// the kernel answers as if it had no right to ask, which says so, too.
func Locked() (bool, error) {
	locked := false
	err := eachProgram(func(_ ebpf.ProgramID, program *ebpf.Program) error {
		m, err := mapOf(program, "lock_bpf", "armed")
		if m == nil || err != nil {
			return err
		}
		var armed uint32
		err = errors.Join(m.Lookup(uint32(0), &armed), m.Close())
		locked = locked || armed == 1
		return err
	})
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0 {
		return true, nil
	}
	return locked, err
}

// mapOf returns the map of that name if the program is an LSM program of that
// name and uses it, and otherwise nil.
func mapOf(program *ebpf.Program, programName, mapName string) (*ebpf.Map, error) {
	info, err := program.Info()
	if err != nil || info.Type != ebpf.LSM || info.Name != programName {
		return nil, err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, err
		}
		found, err := m.Info()
		if err == nil && found.Name == mapName {
			return m, nil
		}
		if err := errors.Join(err, m.Close()); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// openByID returns the gate as its programs have it, whatever is mounted where
// the pins are. Under the lock nobody can have put programs like them there, or
// ask for links.
func openByID() (found *Gate, err error) {
	err = eachProgram(func(_ ebpf.ProgramID, program *ebpf.Program) error {
		g, err := gateOf(program)
		if g != nil && found == nil {
			found = g
			return nil
		}
		if g != nil {
			return errors.Join(errors.New("there are two gates"), g.Close())
		}
		return err
	})
	if err != nil && found != nil {
		return nil, errors.Join(err, found.Close())
	}
	if err == nil && found == nil {
		return nil, ErrNone
	}
	return found, err
}

// inInitramfs checks that the root is the one that the kernel unpacked the
// initramfs into: only there a mount can be hidden.
func inInitramfs() error {
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	is, err := kernel.InInitramfs(root)
	if err != nil {
		return err
	}
	if !is {
		return errors.New("this is not the initramfs\nhint: lock as the first act of the boot, before switch_root")
	}
	return nil
}

// Kernels before these free a set while it may still be in use (CVE-2023-52447).
const (
	fixed61 = 75
	fixed66 = 14
	fixed67 = 2
)

func checkKernel() error {
	code, err := features.LinuxVersionCode()
	if err != nil {
		return fmt.Errorf("version of the kernel: %w", err)
	}
	if major, minor, patch := code>>16, code>>8&0xff, code&0xff; !kernelFixed(major, minor, patch) {
		return fmt.Errorf("version %d.%d.%d of Linux frees a set that is still in use\nhint: it takes Linux 6.1.%d, 6.6.%d or 6.8", major, minor, patch, fixed61, fixed66)
	}
	return nil
}

func kernelFixed(major, minor, patch uint32) bool {
	if major != 6 {
		return major > 6
	}
	switch minor {
	case 1:
		return patch >= fixed61
	case 6:
		return patch >= fixed66
	case 7:
		return patch >= fixed67
	}
	return minor >= 8
}

// checkFtrace checks that LSM programs run at all: they hang on ftrace.
func checkFtrace() error {
	data, err := os.ReadFile(ftraceEnabled)
	if err != nil {
		return err
	}
	if value := strings.TrimSpace(string(data)); value != "1" {
		return fmt.Errorf("%s is %s, and BPF programs do not run without ftrace\nhint: find out who has switched it off", ftraceEnabled, value)
	}
	return nil
}

// lockKernelDown has the kernel refuse what root could change its memory with:
// /dev/mem, unsigned modules, kexec, I/O ports and the like.
func lockKernelDown() error {
	data, err := os.ReadFile(lockdown)
	if err != nil {
		return fmt.Errorf("%w\nhint: add lockdown to lsm= on the kernel command line, and mount securityfs", err)
	}
	if !strings.Contains(string(data), "[none]") {
		return nil
	}
	return os.WriteFile(lockdown, []byte("integrity"), 0)
}
