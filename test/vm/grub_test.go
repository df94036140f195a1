package vm_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/test/vm"
	"diglim/test/vm/plan"
)

// A machine that Debian's shim and GRUB boot, under Secure Boot, is trusted by the
// policy that policy init made of it, once that has the settings and the initramfs:
// the kernel is in a list. Another command line, initramfs or kernel is named.
func TestGRUB(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		g := newGRUBGuest(t, ctx, k)
		const line = "ima_policy=tcb"
		settings := g.boot(line)
		out := g.run(t, 0, "attest-verify", "policy", "init", "--output", "policy", "--ak", filepath.Join(g.out, honest, "ak.pub"),
			"--lists", "lists", "--allow-unsigned", filepath.Join(g.out, honest))
		for _, want := range []string{"/EFI/debian/grub.cfg", "initrd.img"} {
			if !strings.Contains(out, want) {
				t.Errorf("policy init does not name %s:\n%s", want, out)
			}
		}
		g.check("what policy init made", attest.OtherBootFile, attest.OtherInitrd)
		g.state("file %s \"settings\"", digest.Sum(digest.SHA256, []byte(settings)))
		g.state("initramfs %q", g.machine.Initrd)
		g.check("honest")
		g.named(k)
		g.state("initramfs %s \"as the one that was not there\"", digest.Sum(digest.SHA256, []byte("by hand")))
		g.checkFrom(later, "measured later", attest.WrongAggregate)

		if strings.HasPrefix(k.Release, vm.Series[0]+".") {
			// The settings that say so are others, too.
			g.machine.Initrd = g.initrd(k, " ")
			g.boot(line + " init=/bin/sh")
			g.check("another command line and initramfs", attest.OtherCommand, attest.OtherBootFile, attest.OtherInitrd)
			return
		}
		other, err := vm.Fetch(ctx, vm.Series[0])
		if err != nil {
			t.Fatal(err)
		}
		g.machine.Kernel, g.machine.Initrd = other, g.initrd(other, "")
		g.boot(line)
		g.check("another kernel", attest.OtherBootFile, attest.OtherBootLoader)
	})
}

// Evidence that a guest collects: at once, and when it has extended a PCR by hand and
// has put that into the log.
const (
	honest = "honest"
	later  = "later"
	forged = plan.Out + "/forged"
)

// A grubGuest is a guest that GRUB boots and that collects evidence, and its verifier.
type grubGuest struct {
	attestGuest
	t     *testing.T
	ctx   context.Context
	plan  plan.Plan
	nonce string
}

func newGRUBGuest(t *testing.T, ctx context.Context, k vm.Kernel) *grubGuest {
	g := &grubGuest{attestGuest: attestGuest{dir: t.TempDir(), tree: t.TempDir()}, t: t, ctx: ctx, nonce: hex.EncodeToString([]byte("what it was asked"))}
	g.bin = filepath.Join(g.tree, "usr", "bin")
	g.must(os.MkdirAll(g.bin, 0o755))
	for _, pkg := range []string{"diglim/cmd/diglim-gen", "diglim/cmd/attest-verify", "diglim/test/vm/guestattest"} {
		g.must(vm.Build(ctx, filepath.Join(g.bin, filepath.Base(pkg)), pkg))
	}
	for _, argv := range [][]string{
		{"attest-verify", "collect", "--output", plan.Out + "/" + honest, "--nonce", g.nonce},
		{"guestattest", "extend", "9"},
		{"guestattest", "forge", "extended", "/sys/kernel/security/tpm0/binary_bios_measurements", forged},
		{"attest-verify", "collect", "--output", plan.Out + "/" + later, "--nonce", g.nonce, "--firmware-log", forged},
	} {
		argv[0] = "/usr/bin/" + argv[0]
		g.plan.Commands = append(g.plan.Commands, plan.Command{Name: fmt.Sprint("command", len(g.plan.Commands)), Argv: argv})
	}
	g.machine = vm.Machine{Kernel: k, Disk: filepath.Join(g.dir, "disk"), TPM: true, TPMState: filepath.Join(g.dir, "tpm"), ESP: filepath.Join(g.dir, "esp")}
	g.machine.Initrd = g.initrd(k, "")
	g.run(t, 0, "diglim-gen", "files", "--format", "tlv", "--label", "programs", "--output", "lists", g.bin)
	g.run(t, 0, "diglim-gen", "files", "--format", "tlv", "--label", "kernel", "--output", "lists", filepath.Join(k.Dir, "boot"))
	return g
}

func (g *grubGuest) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// initrd writes an initramfs for a kernel, with something more in it.
func (g *grubGuest) initrd(k vm.Kernel, more string) string {
	g.t.Helper()
	path := filepath.Join(g.dir, "initrd-"+k.Release+more)
	g.must(vm.WriteInitrd(g.ctx, path, k, g.plan, vm.File{Name: "more", Mode: 0o644, Data: []byte(more)}))
	return path
}

// boot boots the guest with a command line, and returns the settings by which GRUB
// does that.
func (g *grubGuest) boot(line string) string {
	g.t.Helper()
	settings := fmt.Sprintf("set timeout=0\nmenuentry Guest {\n\tlinux /%s %s\n\tinitrd /%s\n}\n", vm.Vmlinuz, vm.Cmdline(line), vm.InitrdImg)
	g.must(vm.WriteGRUB(g.ctx, g.machine.ESP, g.machine, settings))
	g.must(vm.WriteDisk(g.ctx, g.machine.Disk, g.tree, 64<<20))
	r, err := vm.Boot(g.ctx, g.machine)
	g.must(err)
	for _, c := range g.plan.Commands {
		if output, exit, err := r.Command(c.Name); err != nil || exit != 0 {
			g.t.Fatalf("in the guest: %v: exit code %d, %v\n%s", c.Argv, exit, err, output)
		}
	}
	checkKernelLog(g.t, r)
	g.out = r.Out
	return settings
}

// state adds a statement to the policy.
func (g *grubGuest) state(format string, args ...any) {
	g.t.Helper()
	f, err := os.OpenFile(filepath.Join(g.dir, "policy"), os.O_APPEND|os.O_WRONLY, 0)
	g.must(err)
	_, err = fmt.Fprintf(f, format+"\n", args...)
	g.must(err)
	g.must(f.Close())
}

// named names what is started by its files, as people do, and wants the same answer;
// and none where the kernel is to be started by anything.
func (g *grubGuest) named(k vm.Kernel) {
	g.t.Helper()
	loaders, err := vm.Loaders(g.ctx)
	g.must(err)
	path := filepath.Join(g.dir, "policy")
	inited, err := os.ReadFile(path)
	g.must(err)
	byDigest := regexp.MustCompile(`(?m)^(boot-loader|grub|kernel) .*\n`)
	for keyword, exit := range map[string]int{"kernel": 0, "boot-loader": 2} {
		text := byDigest.ReplaceAllString(string(inited), "") + fmt.Sprintf("boot-loader %q\ngrub %q\n%s %q\n",
			filepath.Join(loaders, vm.DebianShim), filepath.Join(loaders, vm.DebianGRUB), keyword, filepath.Join(k.Dir, "boot", "vmlinuz-"+k.Release))
		g.must(os.WriteFile(path, []byte(text), 0o644))
		g.run(g.t, exit, "attest-verify", "policy", "check", "policy")
		if exit == 0 {
			g.check("by its files")
		}
	}
	g.must(os.WriteFile(path, inited, 0o644))
}

// check has the evidence judged, and wants findings of these codes against it.
func (g *grubGuest) check(name string, codes ...attest.Code) {
	g.t.Helper()
	g.checkFrom(honest, name, codes...)
}

func (g *grubGuest) checkFrom(evidence, name string, codes ...attest.Code) {
	g.t.Helper()
	exit := 0
	if len(codes) > 0 {
		exit = 1
	}
	out := g.run(g.t, exit, "attest-verify", "check", "--json", "--policy", "policy", "--nonce", g.nonce, filepath.Join(g.out, evidence))
	var a answer
	g.must(json.Unmarshal([]byte(out), &a))
	slices.Sort(codes)
	if got := a.against(); !slices.Equal(got, codes) {
		g.t.Errorf("%s: found %v, want %v\n%s", name, got, codes, out)
	}
}
