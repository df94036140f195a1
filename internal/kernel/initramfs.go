package kernel

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// InInitramfs reports whether an open file lies on the initial rootfs, which
// holds what the boot loader gave the kernel as its initramfs: no other file
// system is of that type, and nobody can mount one. It reads /proc/self/mountinfo.
func InInitramfs(f *os.File) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return false, err
	}
	if fs.Type != unix.RAMFS_MAGIC && fs.Type != unix.TMPFS_MAGIC {
		return false, nil
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	defer mounts.Close()
	return isRootfs(mounts, fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
}

// isRootfs reports whether a list of mounts (proc_pid_mountinfo(5)) says that a
// device is of type rootfs.
func isRootfs(mountinfo io.Reader, device string) (bool, error) {
	s := bufio.NewScanner(mountinfo)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if ok && len(fields) > 2 && fields[2] == device && len(kind) > 0 && kind[0] == "rootfs" {
			return true, nil
		}
	}
	return false, s.Err()
}
