package vm_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"diglim/test/vm"
	"diglim/test/vm/plan"
)

// eachKernel runs test on the kernels of all series, beside those of other tests: a
// guest has one processor.
func eachKernel(t *testing.T, test func(t *testing.T, ctx context.Context, k vm.Kernel)) {
	vm.Require(t)
	t.Parallel()
	for _, series := range vm.Series {
		t.Run(series, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			k, err := vm.Fetch(ctx, series)
			if err != nil {
				t.Fatal(err)
			}
			test(t, ctx, k)
		})
	}
}

// buildModule builds the DIGLIM module for k and returns it as a file of an
// initramfs.
func buildModule(t *testing.T, ctx context.Context, k vm.Kernel) vm.File {
	t.Helper()
	object, err := k.BuildModule(ctx, "../kmod", "diglim_v3")
	if err != nil {
		t.Fatal(err)
	}
	return vm.File{Name: "modules/diglim_v3.ko", Mode: 0o644, Path: object}
}

// writeMachine writes the initramfs for the plan and a disk that holds the tree.
func writeMachine(t *testing.T, ctx context.Context, k vm.Kernel, p plan.Plan, tree string, files ...vm.File) vm.Machine {
	t.Helper()
	dir := t.TempDir()
	m := vm.Machine{Kernel: k, Initrd: filepath.Join(dir, "initrd"), Disk: filepath.Join(dir, "disk")}
	if err := vm.WriteInitrd(ctx, m.Initrd, k, p, files...); err != nil {
		t.Fatal(err)
	}
	if err := vm.WriteDisk(ctx, m.Disk, tree, 64<<20); err != nil {
		t.Fatal(err)
	}
	return m
}

var kernelTrouble = regexp.MustCompile(`.*(\bBUG\b|WARNING:|Oops|[Ll]eak).*`)

// checkKernelLog fails the test if the guest's kernel complained.
func checkKernelLog(t *testing.T, r vm.Result) {
	t.Helper()
	log, err := r.KernelLog()
	if err != nil {
		t.Fatal(err)
	}
	if line := kernelTrouble.FindString(log); line != "" {
		t.Errorf("kernel log: %s\nin\n%s", line, log)
	}
}

// A guest has the module before its disk, IMA measures what runs from the disk,
// and extends a TPM.
func TestBoot(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		tree := t.TempDir()
		if err := os.WriteFile(filepath.Join(tree, "hello"), []byte("from the disk\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		busybox := vm.File{Name: "busybox", Mode: 0o755, Path: "/bin/busybox"}
		data, err := os.ReadFile(busybox.Path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, "busybox"), data, 0o755); err != nil {
			t.Fatal(err)
		}
		p := plan.Plan{
			Modules: []string{"/modules/diglim_v3.ko"},
			Early: []plan.Command{
				{Name: "count", Argv: []string{"/busybox", "cat", "/sys/kernel/security/integrity/diglim/digests_count"}},
			},
			Commands: []plan.Command{
				{Name: "hello", Argv: []string{"/busybox", "cat", "/hello"}},
				{Name: "false", Argv: []string{"/busybox", "false"}},
				{Name: "missing", Argv: []string{"/missing"}},
				{Name: "ima", Argv: []string{"/busybox", "cat", "/sys/kernel/security/ima/ascii_runtime_measurements"}},
				{Name: "pcr10", Argv: []string{"/busybox", "cat", "/sys/class/tpm/tpm0/pcr-sha256/10"}},
			},
			Unload: []string{"diglim_v3"},
		}
		m := writeMachine(t, ctx, k, p, tree, buildModule(t, ctx, k), busybox)
		m.TPM = true
		m.Cmdline = "ima_policy=tcb"
		r, err := vm.Boot(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []struct {
			name, output string
			exit         int
		}{
			{"count", `^Parser digests: 0\nFile digests: 0\nMetadata digests: 0\nDigest list digests: 0\n$`, 0},
			{"hello", `^from the disk\n$`, 0},
			{"false", `^$`, 1},
			{"missing", `^guestinit: .*no such file`, 127},
			{"ima", `^10 [0-9a-f]{40} ima-sig sha256:[0-9a-f]{64} boot_aggregate \n10 [0-9a-f]{40} ima-sig sha256:[0-9a-f]{64} /busybox \n`, 0},
			{"pcr10", `^[0-9A-F]{64}\n$`, 0},
		} {
			output, exit, err := r.Command(want.name)
			if err != nil {
				t.Fatal(err)
			}
			if exit != want.exit || !regexp.MustCompile(want.output).MatchString(output) {
				t.Errorf("%s: exit code %d, output %q; want %d, %s", want.name, exit, output, want.exit, want.output)
			}
		}
		if output, _, _ := r.Command("pcr10"); regexp.MustCompile(`^0+\n$`).MatchString(output) {
			t.Errorf("PCR 10 is %s: IMA found no TPM", output)
		}
		checkKernelLog(t, r)
	})
}

// A guest that does not power off in time is stopped, and the error shows how
// far it came. One that cannot start is an error, too. No process is left.
func TestBootFails(t *testing.T) {
	vm.Require(t)
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir) // for the processes to be told by
	k, err := vm.Fetch(t.Context(), vm.Series[0])
	if err != nil {
		t.Fatal(err)
	}
	p := plan.Plan{Early: []plan.Command{{Name: "hang", Argv: []string{"/busybox", "sleep", "3600"}}}}
	m := writeMachine(t, t.Context(), k, p, t.TempDir(), vm.File{Name: "busybox", Mode: 0o755, Path: "/bin/busybox"})
	m.TPM = true
	m.Cmdline = "loglevel=7"

	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	_, err = vm.Boot(ctx, m)
	checkError(t, err, `stopped: context deadline exceeded\nconsole:\n.+`)
	checkNoProcess(t, dir)

	m.Initrd = filepath.Join(dir, "no such file")
	_, err = vm.Boot(t.Context(), m)
	checkError(t, err, `qemu: exit status 1\n.*initrd`)
	checkNoProcess(t, dir)
}

func checkError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
		t.Errorf("error %v, want %s", err, want)
	}
}

// checkNoProcess fails the test if a process has the directory in its command
// line.
func checkNoProcess(t *testing.T, dir string) {
	t.Helper()
	cmdlines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range cmdlines {
		// It may have ended meanwhile.
		if cmdline, err := os.ReadFile(path); err == nil && bytes.Contains(cmdline, []byte(dir)) {
			t.Errorf("still running: %q", cmdline)
		}
	}
}

func TestFetchUnknown(t *testing.T) {
	vm.Require(t)
	_, err := vm.Fetch(t.Context(), "2.6")
	checkError(t, err, `^kernel 2\.6: (?s:.*)hint: apt-get update$`)
}
