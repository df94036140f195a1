package vm_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"diglim/internal/modsig"
	"diglim/test/vm"
	"diglim/test/vm/plan"
)

// exitProgram is a program for x86-64 that does nothing: it is started often.
func exitProgram() []byte {
	code := []byte{0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05} // exit(0)
	const base, headers = 0x400000, 64 + 56
	var b bytes.Buffer
	for _, v := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
			Entry: base + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
		},
		elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base,
			Filesz: uint64(headers + len(code)), Memsz: uint64(headers + len(code)), Align: 4096,
		},
		code,
	} {
		binary.Write(&b, binary.LittleEndian, v)
	}
	return b.Bytes()
}

// lockFiles writes what guestlock works with to dir: copies of itself, and a
// module with and one without its signature.
func lockFiles(t *testing.T, ctx context.Context, k vm.Kernel, dir string) {
	t.Helper()
	own := filepath.Join(dir, "guestlock")
	if err := vm.Build(ctx, own, "diglim/test/vm/guestlock"); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := k.Module(ctx, "dummy")
	if err != nil {
		t.Fatal(err)
	}
	other, err := k.Module(ctx, "ifb")
	if err != nil {
		t.Fatal(err)
	}
	unsigned, _, err := modsig.Split(other)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"parser": append(program[:len(program):len(program)], 1), "unlisted": exitProgram(),
		"signed.ko": signed, "unsigned.ko": unsigned,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLock tries every known way around the gate on one that is not locked, on
// one that is, in the initramfs, and once more after switch_root.
func TestLock(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		tree := t.TempDir()
		dir := filepath.Join(tree, "lock")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		lockFiles(t, ctx, k, dir)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var early []vm.File
		for _, e := range entries {
			early = append(early, vm.File{Name: "lock/" + e.Name(), Mode: 0o755, Path: filepath.Join(dir, e.Name())})
		}
		var p plan.Plan
		for _, name := range []string{"open", "refuse", "lock", "locked"} {
			p.Early = append(p.Early, plan.Command{Name: name, Argv: []string{"/lock/guestlock", name}})
		}
		p.Commands = []plan.Command{{Name: "switched", Argv: []string{"/lock/guestlock", "switched"}}}
		m := writeMachine(t, ctx, k, p, tree, early...)
		m.Cmdline = "iomem=relaxed"
		r, err := vm.Boot(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]map[string]string{}
		for _, c := range slices.Concat(p.Early, p.Commands) {
			got[c.Name] = cases(t, r, c.Name)
		}
		for _, a := range attacks {
			for command, want := range map[string]string{"open": a.open, "locked": a.locked, "switched": a.switched} {
				compareCase(t, command, a.name, want, got[command])
			}
		}
		for name, want := range lockRefused {
			compareCase(t, "refuse", name, want, got["refuse"])
		}
		for name, want := range lockHolds {
			compareCase(t, "lock", name, want, got["lock"])
		}
		for _, command := range []string{"locked", "switched"} {
			for name, want := range lockedStill {
				compareCase(t, command, name, want, got[command])
			}
		}
		compareCase(t, "switched", "hidden bpffs, seen", "false, by kernel threads false", got["switched"])
		for command, cases := range got {
			for name, text := range cases {
				t.Errorf("%s: %s: %s: nobody expects this case", command, name, text)
			}
		}
		checkKernelLog(t, r)
	})
}

// compareCase takes a case out of what the guest printed. An empty want is a
// case that is not tried.
func compareCase(t *testing.T, command, name, want string, got map[string]string) {
	t.Helper()
	text, ok := got[name]
	delete(got, name)
	switch {
	case want == "" && !ok:
	case !ok:
		t.Errorf("%s: %s: not tried", command, name)
	case !regexp.MustCompile("^(" + want + ")$").MatchString(text):
		t.Errorf("%s: %s: %s, want %s", command, name, text, want)
	}
}

// An attack is how the attempts of guestlock end, as regular expressions, and
// whether the gate is on then: without the lock, with it in the initramfs, and
// with it after switch_root.
type attack struct {
	name, open, locked, switched string
}

const (
	off     = "ok, off"
	on      = "ok, on"
	refused = "EPERM, on"
	nothing = "(ENOENT|EINVAL), on" // there is nothing to attack
)

var attacks = []attack{
	{"remove a pin", off, refused, refused},
	{"remove all pins", off, refused, refused},
	{"rename a pin", on, refused, refused},
	{"rename the directory", on, refused, refused},
	{"rename over a pin", off, refused, refused},
	{"chmod and chown the pins", on, on, on},
	{"umount bpffs", off, refused, refused},
	{"umount -l bpffs", off, refused, refused},
	{"move bpffs, remove the pins", off, refused, refused},
	{"bind bpffs, remove the pins", off, refused, refused},
	{"mount over the pins", on, on, on},
	{"umount in another mount namespace", on, refused, refused},
	{"umount the hidden bpffs", nothing, refused, nothing},
	{"umount the hidden bpffs in another namespace", nothing, refused, nothing},
	{"rmdir below the hidden bpffs from another namespace", nothing, "(EPERM|EBUSY), on", nothing},
	{"rename over the directory of the hidden bpffs", on, "(EPERM|EBUSY), on", on},
	{"move the hidden bpffs", nothing, refused, nothing},
	{"remove the hidden pins", on, refused, on},

	{"link detach by id", "not supported, on", refused, refused},
	{"link update by id", "EINVAL, on", refused, refused},
	{"link by pin: update", "EINVAL, on", refused, refused},
	{"link by pin: detach", "ENOTSUP, on", refused, refused},
	{"program by id", on, refused, refused},
	{"empty the slot, map by id", off, refused, refused},
	{"empty the slot, map by pin", off, refused, refused},
	{"freeze the outer map by id", on, refused, refused},
	{"write the set by id", refused, refused, refused}, // it is frozen
	{"mmap the set by id", refused, refused, refused},
	{"write the set from a program", off, refused, refused},
	{"arm or disarm by id", "no such map, on", refused, refused},
	{"make oneself a parser", "no such map, on", refused, refused},
	{"a map in the shape of a set", on, refused, refused},
	{"load an LSM program", on, refused, refused},
	{"load fmod_ret on security_bpf", on, refused, refused},
	{"load fentry", on, refused, refused},
	{"load kprobe", on, refused, refused},
	{"load tracepoint", on, refused, refused},
	{"load raw tracepoint", on, refused, refused},
	{"load perf event", on, refused, refused},
	{"load syscall", on, refused, refused},
	{"enable stats", on, refused, refused},

	{"ftrace_enabled", off, refused, refused},
	{"ftrace_enabled, another procfs", off, refused, refused},
	{"tracefs", on, on, on},
	{"/dev/mem", on, refused, refused},
	{"iopl", on, refused, refused},
	{"kexec_load", refused, refused, refused}, // by the gate
	{"kexec_file_load", refused, refused, refused},
	{"unsigned module", on, refused, refused},
	{"stop", off, "the gate is locked until the next boot, on", "the gate is locked until the next boot, on"},

	{"umount -l /sys", off, "", on},
	{"umount in a namespace that propagates", off, "", on},
	{"rmdir /sys from another namespace", off, "", on},
}

var lockRefused = map[string]string{
	"without ftrace":                "not locked: .*ftrace_enabled is 0.*",
	"with a program of others":      `not locked: BPF program \d+, "foreign" of type LSM, is not ours`,
	"with a map in another process": `not locked: /proc/\d+/fd/\d+ is a map of the gate, in another process`,
	"with a map in another program": `not locked: BPF program \d+, "user", uses map \d+ of the gate`,
	"in another mount namespace":    "not locked: this process runs in a mnt namespace of its own",
	"in a chroot":                   "this process has another root than the first process",
	"locked":                        "false, ok",
	"killed":                        "locked false, ok; gate on",
}

var lockHolds = map[string]string{
	"started before":                "ok",
	"lock":                          "ok, gate on",
	"locked":                        "true, ok",
	"ftrace_enabled, opened before": refused,
	"lock again":                    "the gate is locked until the next boot.*",
}

// lockedStill is what goes on working, for a parser, and what does not, for
// others.
var lockedStill = map[string]string{
	"parser replaces the set":             "1 more",
	"parser replaces the set, other pins": "1 more",
	"parser, not sealed":                  notParser,
	"not a parser":                        notParser,
	"program started by a parser":         notParser + ".*",
	"parser that shares its root":         notParser,
	"parser with a seccomp filter":        notParser,
	"parser traced from its start":        notParser,
	"ptrace a parser":                     "EPERM",
	"/proc/PID/mem of a parser":           "E(ACCES|PERM)",
	"process_vm_writev to a parser":       "EPERM",
	"pidfd_getfd from a parser":           "EPERM",
	"/proc/PID/fd of a parser":            "ENXIO",
	"socket filter":                       "ok",
	"cgroup program":                      "ok",
	"signed module":                       "ok",
	"at last":                             "on",
}

const notParser = `error: the gate is locked until the next boot, and this process is no parser.*`
