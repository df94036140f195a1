//go:build !nobpf && (amd64 || arm64)

package gate

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"diglim/internal/kernel"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// hooks are the functions of the kernel that the programs hang on.
var hooks = []string{
	"bprm_check_security", "mmap_file", "file_mprotect", "kernel_read_file", "kernel_load_data",
	"file_open", "inode_setattr",
}

// Probe says what this kernel, or this process, lacks to have a gate. It is one
// error with a hint, or nil.
func Probe() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can load BPF programs\nhint: run it as root")
	}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	release := unix.ByteSliceToString(uname.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major < 6 || major == 6 && minor < 1 {
		return fmt.Errorf("kernel %s is too old\nhint: it takes 6.1 or later", release)
	}
	active, err := os.ReadFile(kernel.Securityfs + "/lsm")
	if err != nil {
		return fmt.Errorf("active security modules: %w\nhint: mount securityfs on %s", err, kernel.Securityfs)
	}
	if list := strings.TrimSpace(string(active)); !slices.Contains(strings.Split(list, ","), "bpf") {
		return fmt.Errorf("BPF LSM is not active, only %s\nhint: add bpf to lsm= on the kernel command line (CONFIG_BPF_LSM)", list)
	}
	if _, err := os.Stat(kernel.Securityfs + "/integrity/ima"); err != nil {
		return errors.New("no IMA, which hashes the files\nhint: it takes a kernel with CONFIG_IMA")
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("no type information of the kernel: %w\nhint: it takes a kernel with CONFIG_DEBUG_INFO_BTF, and /sys mounted", err)
	}
	for _, hook := range hooks {
		var f *btf.Func
		if err := kernel.TypeByName("bpf_lsm_"+hook, &f); err != nil {
			return fmt.Errorf("no BPF LSM hook %s: %w", hook, err)
		}
	}
	return nil
}
