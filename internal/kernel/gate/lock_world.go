//go:build linux

package gate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// The inode numbers of the namespaces that the kernel boots with
// (include/linux/proc_ns.h).
const (
	initUser   = 0xEFFFFFFD
	initPID    = 0xEFFFFFFC
	initCgroup = 0xEFFFFFFB
)

// TrustedWorld checks that the process lives where the first process does: in
// the namespaces of the boot, with the same mounts and the same root. Elsewhere
// a path can lead to something else. It cannot see what root has mounted in
// that world: whatever is read there must prove itself.
func TrustedWorld() error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/proc", &fs); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	if fs.Type != unix.PROC_SUPER_MAGIC {
		return errors.New("/proc is not procfs\nhint: mount -t proc proc /proc")
	}
	for _, ns := range []struct {
		name string
		want uint64 // 0: that of the first process
	}{
		{"user", initUser}, {"pid", initPID}, {"cgroup", initCgroup}, {"mnt", 0},
	} {
		var st unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/"+ns.name, &st); errors.Is(err, unix.ENOENT) {
			continue // a kernel without namespaces of this kind
		} else if err != nil {
			return fmt.Errorf("/proc/thread-self/ns/%s: %w", ns.name, err)
		}
		want := ns.want
		if want == 0 {
			var first unix.Stat_t
			if err := unix.Stat("/proc/1/ns/"+ns.name, &first); err != nil {
				return fmt.Errorf("/proc/1/ns/%s: %w", ns.name, err)
			}
			want = first.Ino
		}
		if st.Ino != want {
			return fmt.Errorf("this process runs in a %s namespace of its own\nhint: run it outside of containers", ns.name)
		}
	}
	var own, first unix.Stat_t
	if err := errors.Join(unix.Stat("/proc/thread-self/root/.", &own), unix.Stat("/proc/1/root/.", &first)); err != nil {
		return fmt.Errorf("root directory: %w", err)
	}
	if own.Dev != first.Dev || own.Ino != first.Ino {
		return errors.New("this process has another root than the first process\nhint: run it without chroot")
	}
	return nil
}

// sealed is what the lock demands of a parser's file: nobody can change it, nor
// has a hold on its memory.
const sealed = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// Sealed executes this program again, with the same arguments and an empty
// environment, from a sealed copy in memory, or returns nil if that has been
// done. Under the lock only such a process can be a parser. The environment
// could change what the Go runtime and crypto packages do (GODEBUG). It is the
// first thing to do: what the process has opened is open for its successor
// unless it closes on exec.
func Sealed() error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	if seals, err := unix.FcntlInt(self.Fd(), unix.F_GET_SEALS, 0); err == nil && seals&sealed == sealed && len(os.Environ()) == 0 {
		return nil
	}
	fd, err := unix.MemfdCreate("diglim", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("memfd: %w", err)
	}
	memory := os.NewFile(uintptr(fd), "memfd")
	defer memory.Close()
	if _, err := io.Copy(memory, self); err != nil {
		return fmt.Errorf("copy of this program in memory: %w", err)
	}
	if _, err := unix.FcntlInt(memory.Fd(), unix.F_ADD_SEALS, sealed|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("seal the copy of this program: %w", err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d", memory.Fd())
	return fmt.Errorf("execute the copy of this program: %w", syscall.Exec(path, os.Args, nil))
}
