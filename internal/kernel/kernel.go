// Package kernel finds what a kernel offers to take digest lists through.
package kernel

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A Mount is a pseudo file system, and where it belongs.
type Mount struct {
	Type  string
	Path  string
	Magic int64 // of statfs(2)
}

// Mounts are the file systems that an uploader needs, outermost first.
var Mounts = []Mount{
	{"proc", "/proc", unix.PROC_SUPER_MAGIC},
	{"sysfs", "/sys", unix.SYSFS_MAGIC},
	{"securityfs", Securityfs, unix.SECURITYFS_MAGIC},
}

// Securityfs is where securityfs belongs.
const Securityfs = "/sys/kernel/security"

// EnsureMounted mounts what is missing: the kernel may call an uploader when
// nothing has been mounted yet. It returns a function that undoes just that.
func EnsureMounted() (undo func() error, err error) {
	var mounted []string
	undo = func() error {
		var errs []error
		for _, path := range slices.Backward(mounted) {
			if err := unix.Unmount(path, 0); err != nil {
				errs = append(errs, fmt.Errorf("unmount %s: %w", path, err))
			}
		}
		return errors.Join(errs...)
	}
	for _, m := range Mounts {
		var st unix.Statfs_t
		if err := unix.Statfs(m.Path, &st); err == nil && int64(st.Type) == m.Magic {
			continue
		}
		if err := os.MkdirAll(m.Path, 0o555); err != nil {
			return undo, fmt.Errorf("mount %s: %w", m.Type, err)
		}
		if err := unix.Mount(m.Type, m.Path, m.Type, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, ""); err != nil {
			return undo, fmt.Errorf("mount %s on %s: %w", m.Type, m.Path, err)
		}
		mounted = append(mounted, m.Path)
	}
	return undo, nil
}
