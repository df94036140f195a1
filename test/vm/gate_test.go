package vm_test

import (
	"context"
	"maps"
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
		name, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok {
			t.Logf("%s: %s", command, name) // a measurement, or an error
			continue
		}
		got[name] = text
	}
	return got
}

// A gateGuest is a guest in the making that has guestgate and its files both in
// the initramfs and on the disk.
type gateGuest struct {
	plan  plan.Plan
	tree  string
	early []vm.File
}

func newGateGuest(t *testing.T, ctx context.Context, k vm.Kernel) *gateGuest {
	t.Helper()
	g := &gateGuest{tree: t.TempDir(), plan: plan.Plan{Modules: []string{"/gate/overlay.ko"}}}
	dir := filepath.Join(g.tree, "gate")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	gateFiles(t, ctx, k, dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		g.early = append(g.early, vm.File{Name: "gate/" + e.Name(), Mode: 0o755, Path: filepath.Join(dir, e.Name())})
	}
	return g
}

func guestgate(name string, args ...string) plan.Command {
	return plan.Command{Name: name, Argv: append([]string{"/gate/guestgate"}, args...)}
}

// startGate starts a gate that knows the files of the guest, but for those that
// are called unknown.
func startGate(name, mode string) plan.Command {
	return guestgate(name, "start", mode, "/gate/busybox", "/gate/libc.so.6", "/gate/known.ko", "/gate/script")
}

func shell(name, script string) plan.Command {
	return plan.Command{Name: name, Argv: []string{"/gate/busybox", "sh", "-c", script}}
}

func (g *gateGuest) boot(t *testing.T, ctx context.Context, k vm.Kernel) vm.Result {
	t.Helper()
	r, err := vm.Boot(ctx, writeMachine(t, ctx, k, g.plan, g.tree, g.early...))
	if err != nil {
		t.Fatal(err)
	}
	checkKernelLog(t, r)
	return r
}

// checkCases compares what a command printed with what it has to print.
func checkCases(t *testing.T, r vm.Result, command string, want map[string]string) {
	t.Helper()
	got := cases(t, r, command)
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: %s: %q, want %q", command, name, got[name], text)
		}
	}
	for name, text := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %s: %q, not expected", command, name, text)
		}
	}
}

// with returns a copy of the cases with some that are different.
func with(cases map[string]string, different map[string]string) map[string]string {
	all := maps.Clone(cases)
	maps.Copy(all, different)
	return all
}

// The gate from the initramfs on, what it judges, and what changes under it.
func TestGate(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		g := newGateGuest(t, ctx, k)
		g.plan.Early = []plan.Command{startGate("start", "enforce"), guestgate("try", "try")}
		g.plan.Commands = []plan.Command{
			guestgate("status", "status"),
			shell("overlay", "cd /gate && ./busybox mkdir -p /lower /merged /tmp/upper /tmp/work && ./busybox mount -t overlay overlay -o lowerdir=/lower,upperdir=/tmp/upper,workdir=/tmp/work /merged"),
			guestgate("memory", "memory"),
			guestgate("verity", "verity", "/gate"),
			guestgate("scope", "scope"),
			guestgate("tmpfs", "fresh", "/tmp"),
			guestgate("ext4", "fresh", "/gate"),
			guestgate("overlayfs", "fresh", "/merged"),
			guestgate("policy", "policy"),
			guestgate("tmpfs with IMA", "fresh", "/tmp"),
			guestgate("ext4 with IMA", "fresh", "/gate"),
			guestgate("overlayfs with IMA", "fresh", "/merged"),
			guestgate("stop", "stop"),
			startGate("start log", "log"),
			guestgate("try log", "try"),
			guestgate("stop log", "stop"),
		}
		r := g.boot(t, ctx, k)

		for _, name := range []string{"start", "overlay", "policy", "stop", "start log", "stop log"} {
			checkCases(t, r, name, nil)
		}
		checkCases(t, r, "status", map[string]string{"status": "enforce generation 1, 6 digests"})
		try := map[string]string{
			"program known":         "ok",
			"program unknown":       "EPERM; exec denied unlisted other",
			"program copied":        "ok",
			"library known":         "ok",
			"library changed":       "EPERM; mmap denied unlisted libc",
			"library read":          "ok",
			"module known":          "ok",
			"module unknown":        "EPERM; read denied unlisted /gate/unknown.ko",
			"module from memory":    "EPERM; load denied no file ",
			"memfd unknown":         "EPERM; exec denied unlisted /memfd:x (deleted)",
			"memfd known, writable": "EPERM; exec denied writers /memfd:x (deleted)",
			"memfd known, sealed":   "ok",
			"script known":          "ok",
			"script unknown":        "EPERM; exec denied unlisted script",
			"counters are":          "the events",
			"counters of known":     "exec 5 mmap 5 mprotect 0 read 1 load 0 write 0",
		}
		checkCases(t, r, "try", try)
		checkCases(t, r, "try log", with(try, map[string]string{
			"program unknown":       "ok; exec logged unlisted other; mmap logged unlisted other",
			"library changed":       "ok; mmap logged unlisted libc",
			"module known":          "EEXIST", // from before
			"module unknown":        "ok; read logged unlisted /gate/unknown.ko",
			"module from memory":    "EEXIST; load logged no file ",
			"memfd unknown":         "ok; exec logged unlisted /memfd:x (deleted); mmap logged unlisted /memfd:x (deleted)",
			"memfd known, writable": "ok; exec logged writers /memfd:x (deleted); mmap logged writers /memfd:x (deleted)",
			"script unknown":        "ok; exec logged unlisted script",
			"counters of known":     "exec 6 mmap 6 mprotect 0 read 1 load 0 write 0",
		}))
		checkCases(t, r, "memory", map[string]string{
			"mprotect of a file":                    "EPERM; mprotect denied unjudged unlisted",
			"mprotect of anonymous memory, private": "ok",
			"mprotect of anonymous memory, shared":  "ok",
			"mprotect of a memfd":                   "EPERM; mprotect denied unjudged memfd:x",
			"shmat with SHM_EXEC":                   "EPERM; mmap denied unhashed /SYSV00000000 (deleted)",
			"READ_IMPLIES_EXEC":                     "EPERM; mmap denied unlisted unlisted",
			"counters are":                          "the events",
			"counters of known":                     "exec 0 mmap 0 mprotect 0 read 0 load 0 write 0",
		})
		// bpf_get_fsverity_digest came with 6.8.
		verity := map[string]string{
			"without fs-verity": "EPERM; mmap denied unlisted file",
			"with fs-verity":    "ok",
			"counters are":      "the events",
			"counters of known": "exec 0 mmap 1 mprotect 0 read 0 load 0 write 0",
		}
		if strings.HasPrefix(k.Release, "6.1.") {
			verity["with fs-verity"] = verity["without fs-verity"]
			verity["counters of known"] = "exec 0 mmap 0 mprotect 0 read 0 load 0 write 0"
		}
		checkCases(t, r, "verity", verity)
		long := "/tmp/" + strings.Repeat("x", 200)
		checkCases(t, r, "scope", map[string]string{
			"below":                                  "ok; mmap scoped unlisted /tmp/users/a/b",
			"excepted":                               "EPERM; mmap denied unlisted /tmp/users/but/b",
			"not below":                              "EPERM; mmap denied unlisted /tmp/usersx",
			"long":                                   "ok; mmap scoped unlisted " + long + "/b",
			"owner":                                  "ok; mmap scoped unlisted /tmp/owned",
			"owner elsewhere":                        "EPERM; mmap denied unlisted /owned",
			"mprotect where mapping was let through": "ok; mprotect scoped unjudged b",
			"module":                                 "EPERM; read denied unlisted /tmp/users/m.ko",
			"deleted":                                "EPERM; mmap denied unlisted /tmp/users/a/b (deleted)",
			"counters are":                           "the events",
			"counters of known":                      "exec 0 mmap 0 mprotect 0 read 0 load 0 write 0",
		})
		checkFresh(t, r, k)
	})
}

// checkFresh has the outcomes of files that change. What IMA holds a stale
// digest of is refused for its writers.
func checkFresh(t *testing.T, r vm.Result, k vm.Kernel) {
	t.Helper()
	local := map[string]string{
		"mapped again without hashing":                  "true",
		"mapped under another set without hashing":      "true",
		"mapped under a set without it":                 "EPERM; mmap denied unlisted cached",
		"mapped under a set with it":                    "ok",
		"hashed: written meanwhile":                     "EPERM; mmap denied writers hashed",
		"written: executed":                             "ENOEXEC",
		"written: writer open":                          "EPERM; mmap denied unlisted written",
		"written: writer closed":                        "EPERM; mmap denied unlisted written",
		"written: restored":                             "ok",
		"written: opened just after it was mapped":      "ETXTBSY; write denied mapped written",
		"shared: executed":                              "ENOEXEC",
		"shared: mapped writable":                       "EPERM; mmap denied writers shared",
		"shared: written":                               "EPERM; mmap denied unlisted shared",
		"shared: unmapped":                              "EPERM; mmap denied unlisted shared",
		"running: open for writing":                     "ETXTBSY; write denied mapped running",
		"running: open and truncate":                    "ETXTBSY; write denied mapped running",
		"running: truncate":                             "ETXTBSY; write denied mapped ",
		"running: content":                              "true",
		"ended: open for writing":                       "ok",
		"truncated to what is known":                    "EPERM; mmap denied writers truncated",
		"cut: executed":                                 "ENOEXEC",
		"cut: truncate":                                 "ok",
		"cut: truncated":                                "EPERM; mmap denied unlisted cut",
		"mprotect: not judged":                          "EPERM; mprotect denied unjudged protected",
		"mprotect: mapped executable before":            "ok",
		"mprotect: mapped executable under another set": "ok",
		"replaced by renaming":                          "ok",
		"counters are":                                  "the events",
		"counters of known":                             "exec 3 mmap 12 mprotect 2 read 0 load 0 write 0",
	}
	overlay := with(local, map[string]string{
		"mprotect: mapped executable under another set": "EPERM; mprotect denied unjudged protected",
		"counters of known":                             "exec 3 mmap 12 mprotect 1 read 0 load 0 write 0",
		"ended: open for writing":                       "ETXTBSY; write denied mapped running", // as long as the inode is in memory
	})
	if !strings.HasPrefix(k.Release, "6.1.") {
		// The mapping tells nothing of the file above.
		overlay["mprotect: mapped executable before"] = "EPERM; mprotect denied unjudged protected"
		overlay["counters of known"] = "exec 3 mmap 12 mprotect 0 read 0 load 0 write 0"
	}
	const another = ", by the digest of another content"
	stale := map[string]string{
		"written: writer open": "EPERM; mmap denied writers written" + another,
		"shared: written":      "EPERM; mmap denied writers shared" + another,
	}
	if strings.HasPrefix(k.Release, "6.1.") {
		// Later kernels forget the digest then.
		stale["cut: truncated"] = "EPERM; mmap denied writers cut" + another
	}
	checkCases(t, r, "tmpfs", local)
	checkCases(t, r, "ext4", local)
	// Hashed or not is a matter of time, and IMA's cache makes it short.
	checkCases(t, r, "overlayfs", with(overlay, map[string]string{
		"mapped again without hashing": "false", "mapped under another set without hashing": "false",
	}))
	checkCases(t, r, "tmpfs with IMA", with(local, stale))
	checkCases(t, r, "ext4 with IMA", with(local, stale))
	above := with(with(overlay, stale), map[string]string{
		"mapped again without hashing":             "true",
		"mapped under another set without hashing": "true",
		"shared: unmapped":                         "EPERM; mmap denied writers shared" + another,
	})
	if strings.HasPrefix(k.Release, "6.1.") {
		// Seen there: IMA holds no digest of a file that was only mapped.
		above["mapped again without hashing"] = "false"
		above["mapped under another set without hashing"] = "false"
		above["shared: written"] = local["shared: written"]
		above["shared: unmapped"] = local["shared: unmapped"]
	}
	checkCases(t, r, "overlayfs with IMA", above)
}

// Sets are replaced as a whole, and whoever replaces them can be killed.
func TestGateReplace(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		g := newGateGuest(t, ctx, k)
		g.plan.Commands = []plan.Command{
			startGate("start", "enforce"),
			guestgate("replace", "replace"),
			guestgate("kill", "kill"),
			guestgate("stop", "stop"),
		}
		r := g.boot(t, ctx, k)
		checkCases(t, r, "start", nil)
		checkCases(t, r, "replace", map[string]string{
			"6000 digests":                  "at most 36 bytes each: true",
			"100000 digests":                "at most 36 bytes each: true",
			"1000000 digests":               "at most 36 bytes each: true",
			"judged enough":                 "true",
			"wrong verdicts":                "0",
			"old sets that are still there": "0",
			"not the next generation":       "true",
		})
		checkCases(t, r, "kill", map[string]string{
			"programs attached":   "7",
			"directories of pins": "1",
			"killed":              "224 times",
			"both sets seen":      "true",
		})
		checkCases(t, r, "stop", nil)
	})
}
