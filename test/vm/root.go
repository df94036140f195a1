package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// systemdPrograms are what a small system with systemd is made of, as Debian has
// them.
var systemdPrograms = []string{
	"/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd-journald", "/usr/lib/systemd/systemd-shutdown",
	"/usr/lib/systemd/systemd-remount-fs", "/usr/lib/systemd/systemd-sulogin-shell",
	"/usr/lib/systemd/system-generators/systemd-fstab-generator",
	"/usr/bin/systemctl", "/usr/bin/systemd-tmpfiles", "/usr/bin/dash", "/usr/bin/mount", "/usr/bin/umount", "/usr/bin/login",
	"/usr/sbin/agetty", "/usr/sbin/sulogin", "/usr/bin/busybox",
}

var systemdUnits = []string{
	"basic.target", "emergency.service", "emergency.target", "final.target", "getty.target", "local-fs.target",
	"local-fs-pre.target", "multi-user.target", "paths.target", "rescue.service", "rescue.target", "shutdown.target",
	"slices.target", "sockets.target", "swap.target", "sysinit.target", "systemd-journald.service", "systemd-journald.socket",
	"systemd-journald-dev-log.socket", "systemd-remount-fs.service", "systemd-tmpfiles-setup.service", "timers.target", "umount.target",
	"sockets.target.wants/systemd-journald.socket", "sockets.target.wants/systemd-journald-dev-log.socket", "sysinit.target.wants/systemd-journald.service", "sysinit.target.wants/systemd-tmpfiles-setup.service",
}

// WriteSystemdRoot writes a small root file system to dir that boots into
// systemd, from the Debian packages of this machine: programs, the libraries
// that they need, units for a journal, and a login on the serial console.
func WriteSystemdRoot(ctx context.Context, dir string) error {
	for _, d := range []string{"dev", "proc", "run", "sys", "sysroot", "root", "tmp", "var/log", "etc/systemd/system/multi-user.target.wants", "usr/bin", "usr/sbin", "usr/lib64", "usr/lib/tmpfiles.d"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for link, to := range map[string]string{
		"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64",
		"usr/sbin/init": "../lib/systemd/systemd", "usr/bin/sh": "dash", "etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target",
		"etc/systemd/system/multi-user.target.wants/login.service": "../login.service",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/fstab": "/dev/vda / ext4 rw 0 0\n", "etc/hostname": "guest\n", "etc/machine-id": strings.Repeat("0123", 8) + "\n",
		"etc/os-release": "ID=guest\nPRETTY_NAME=\"a guest\"\n", "etc/passwd": "root::0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\ntty:x:5:\n",
		"etc/systemd/system/login.service": "[Service]\nExecStart=/sbin/agetty --noreset ttyS0\nStandardInput=tty\nTTYPath=/dev/ttyS0\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}

	files := map[string]bool{}
	for _, p := range systemdPrograms {
		files[p] = true
		out, err := run(ctx, "", "ldd", p)
		if err != nil && !strings.Contains(err.Error(), "not a dynamic executable") {
			return err
		}
		// NAME => PATH (ADDRESS), or PATH (ADDRESS)
		for field := range strings.FieldsSeq(out) {
			if strings.HasPrefix(field, "/") {
				files[field] = true
			}
		}
	}
	for _, u := range systemdUnits {
		matches, err := filepath.Glob(filepath.Join("/usr/lib/systemd/system", u))
		if err != nil || len(matches) == 0 {
			return fmt.Errorf("no unit %s here: %v", u, err)
		}
		files[matches[0]] = true
	}
	for name := range files {
		if err := copyInto(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// copyInto copies a file of this machine, or the files in a directory, to the
// same place below dir.
func copyInto(dir, name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if info.IsDir() {
		entries, err := os.ReadDir(name)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := copyInto(dir, filepath.Join(name, e.Name())); err != nil {
				return err
			}
		}
		return nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	to := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}
