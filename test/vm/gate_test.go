package vm_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"diglim/test/vm"
	"diglim/test/vm/plan"
)

// gateFiles puts what guestgate works with below dir: itself, programs and a
// library of the host, and modules of the kernel.
func gateFiles(t *testing.T, ctx context.Context, k vm.Kernel, dir string) {
	t.Helper()
	if err := vm.Build(ctx, filepath.Join(dir, "guestgate"), "diglim/test/vm/guestgate"); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"busybox": "/bin/busybox", "libc.so.6": "/lib/x86_64-linux-gnu/libc.so.6"} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		writeGateFile(t, dir, name, data)
	}
	for name, module := range map[string]string{"known.ko": "dummy", "unknown.ko": "ifb", "overlay.ko": "overlay"} {
		data, err := k.Module(ctx, module)
		if err != nil {
			t.Fatal(err)
		}
		writeGateFile(t, dir, name, data)
	}
	writeGateFile(t, dir, "script", []byte("#!/gate/busybox sh\nexit 0\n"))
}

func writeGateFile(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// cases parses what guestgate printed.
func cases(t *testing.T, r vm.Result, command string) map[string]string {
	t.Helper()
	output, exit, err := r.Command(command)
	if err != nil {
		t.Fatal(err)
	}
	if exit != 0 {
		t.Errorf("%s: exit code %d:\n%s", command, exit, output)
	}
	got := map[string]string{}
	for line := range strings.Lines(output) {
		name, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		got[name] = text
	}
	return got
}

func TestGate(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		tree := t.TempDir()
		dir := filepath.Join(tree, "gate")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		gateFiles(t, ctx, k, dir)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var early []vm.File
		for _, e := range entries {
			early = append(early, vm.File{Name: "gate/" + e.Name(), Mode: 0o755, Path: filepath.Join(dir, e.Name())})
		}
		p := plan.Plan{Modules: []string{"/gate/overlay.ko"}}
		known := []string{"/gate/busybox", "/gate/libc.so.6", "/gate/known.ko", "/gate/script"}
		guestgate := func(name string, args ...string) plan.Command {
			return plan.Command{Name: name, Argv: append([]string{"/gate/guestgate"}, args...)}
		}
		shell := func(name, script string) plan.Command {
			return plan.Command{Name: name, Argv: []string{"/gate/busybox", "sh", "-c", script}}
		}
		p.Early = []plan.Command{
			guestgate("start", append([]string{"start", "enforce"}, known...)...),
			guestgate("try", "try"),
		}
		p.Commands = []plan.Command{
			guestgate("status", "status"),
			shell("overlay", "cd /gate && ./busybox mkdir -p /lower /merged /tmp/upper /tmp/work && ./busybox mount -t overlay overlay -o lowerdir=/lower,upperdir=/tmp/upper,workdir=/tmp/work /merged"),
			guestgate("memory", "memory"),
			guestgate("scope", "scope"),
			guestgate("tmpfs", "fresh", "/tmp"),
			guestgate("ext4", "fresh", "/gate"),
			guestgate("overlayfs", "fresh", "/merged"),
			guestgate("policy", "policy"),
			guestgate("tmpfs with IMA", "fresh", "/tmp"),
			guestgate("ext4 with IMA", "fresh", "/gate"),
			guestgate("overlayfs with IMA", "fresh", "/merged"),
			guestgate("stop", "stop"),
			guestgate("start log", append([]string{"start", "log"}, known...)...),
			guestgate("try log", "try"),
			guestgate("stop log", "stop"),
		}
		m := writeMachine(t, ctx, k, p, tree, early...)
		r, err := vm.Boot(ctx, m)
		t.Log(r.Console)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range append(p.Early, p.Commands...) {
			out, exit, err := r.Command(c.Name)
			t.Logf("%s: %d %v\n%s", c.Name, exit, err, out)
		}
	})
}
