// Package vm boots stock Debian kernels under QEMU, with a software TPM, for
// the tests that need a kernel. Nothing is installed and nothing is mounted:
// kernels are unpacked below build/vm in the repository, disks are made by
// mke2fs and read by debugfs. Machines are always emulated (TCG), because a
// build machine's KVM may not run a stock kernel, and have no network.
package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// programs that the package runs, and a file that it reads, and the Debian packages that have them.
var programs = []struct{ name, debian string }{
	{"qemu-system-x86_64", "qemu-system-x86"},
	{"swtpm", "swtpm"},
	{"swtpm_setup", "swtpm-tools"},
	{"mke2fs", "e2fsprogs"},
	{"debugfs", "e2fsprogs"},
	{"e2fsck", "e2fsprogs"},
	{"apt-get", "apt"},
	{"dpkg", "dpkg"},
	{"debootstrap", "debootstrap"},
	{"xz", "xz-utils"},
	{"make", "make"},
	{"gcc-12", "gcc-12"},
	{"openssl", "openssl"},
	{"sbsign", "sbsigntool"},
	{"dracut", "dracut-core"},
	{"mkinitramfs", "initramfs-tools-core"},
	{"depmod", "kmod"},
	{"/bin/busybox", "busybox-static"},
	{"/lib/systemd/systemd", "systemd"},
	{"objcopy", "binutils"},
	{stub, "systemd-boot-efi"},
	{"/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd", "ovmf"},
}

// Require skips the test where a program that the package runs is missing.
// With CI=true in the environment it fails the test instead.
func Require(t testing.TB) {
	t.Helper()
	missing := Missing()
	if len(missing) == 0 {
		return
	}
	msg := fmt.Sprintf("no virtual machine without the Debian packages %s", strings.Join(missing, " "))
	if os.Getenv("CI") == "true" {
		t.Fatal(msg)
	}
	t.Skip(msg)
}

// Missing returns the names of the Debian packages that must be installed for
// this package to work.
func Missing() []string {
	var debian []string
	seen := map[string]bool{}
	for _, p := range programs {
		if _, err := lookPath(p.name); err != nil && !seen[p.debian] {
			seen[p.debian] = true
			debian = append(debian, p.debian)
		}
	}
	return debian
}

// lookPath finds a program, also in the system directories that a user's PATH
// leaves out on Debian. A path has to exist.
func lookPath(name string) (string, error) {
	if filepath.IsAbs(name) {
		_, err := os.Stat(name)
		return name, err
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}

// run runs a program in dir and returns what it wrote to its standard output.
// An error quotes the last lines of what it wrote to standard error.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	path, err := lookPath(name)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	// A user's settings must not change what the programs print.
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, tail(stderr.String(), 20))
	}
	return string(out), nil
}

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Root returns the directory of the repository that the working directory is
// in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod in the working directory or above it")
		}
		dir = parent
	}
}
