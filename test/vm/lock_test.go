package vm_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
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
		for _, c := range append(p.Early, p.Commands...) {
			out, exit, err := r.Command(c.Name)
			t.Logf("%s: %d %v\n%s", c.Name, exit, err, out)
		}
		checkKernelLog(t, r)
	})
}
