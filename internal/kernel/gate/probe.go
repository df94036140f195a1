//go:build !nobpf && (amd64 || arm64)

package gate

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
)

const lsmList = "/sys/kernel/security/lsm"

// hooks are the functions of the kernel that the programs hang on.
var hooks = []string{
	"bprm_check_security", "mmap_file", "file_mprotect", "kernel_read_file", "kernel_load_data",
	"file_open", "inode_setattr",
}

// Probe says what this kernel, or this process, lacks to have a gate.
func Probe() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can load BPF programs\nhint: run it as root")
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("no type information of the kernel: %w\nhint: it takes a kernel with CONFIG_DEBUG_INFO_BTF, and /sys mounted", err)
	}
	for _, hook := range hooks {
		var f *btf.Func
		if err := kernel.TypeByName("bpf_lsm_"+hook, &f); err != nil {
			return fmt.Errorf("no BPF LSM hook %s\nhint: it takes a kernel with CONFIG_BPF_LSM", hook)
		}
	}
	active, err := os.ReadFile(lsmList)
	if err != nil {
		return fmt.Errorf("active security modules: %w\nhint: mount securityfs on /sys/kernel/security", err)
	}
	if !slices.Contains(strings.Split(strings.TrimSpace(string(active)), ","), "bpf") {
		return fmt.Errorf("BPF LSM is not active (%s)\nhint: add bpf to lsm= on the kernel command line", strings.TrimSpace(string(active)))
	}
	return nil
}
