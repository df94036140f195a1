package vm_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/test/vm"
	"diglim/test/vm/plan"
)

// A tampering is done in a guest, before it collects evidence.
type tampering struct {
	name   string
	script string                // that does it; none for an honest guest
	args   string                // of collect, to hand in what the script made up
	answer string                // the challenge of another one, which is answered once more
	codes  []attest.Code         // of the findings against trust
	more   func(a answer) string // what is missing in the answer, if not only the codes count
}

// answer is what attest-verify check says.
type answer struct {
	Outcome  string
	Findings []struct {
		Code     attest.Code
		Leaves   string
		Path     string
		Why      string
		Packaged []struct{ Path string }
	}
	Proven   int
	Firmware []struct{ PCR int }
}

// against are the codes of the findings against trust, each once.
func (a answer) against() []attest.Code {
	var codes []attest.Code
	for _, f := range a.Findings {
		if f.Leaves != attest.Trusted.String() && !slices.Contains(codes, f.Code) {
			codes = append(codes, f.Code)
		}
	}
	slices.Sort(codes)
	return codes
}

// named wants a finding of that code about a path, or about any.
func named(code attest.Code, path string) func(answer) string {
	return func(a answer) string {
		for _, f := range a.Findings {
			if f.Code == code && (path == "" || f.Path == path) {
				return ""
			}
		}
		return fmt.Sprintf("no finding %s about %s", code, path)
	}
}

const forgedLog = "/tmp/forged"

// forgedIMA is a tampering that hands in an IMA log with one entry forged.
func forgedIMA(how string, more func(answer) string) tampering {
	return tampering{name: how, script: "guestattest forge " + how + " /sys/kernel/security/ima/binary_runtime_measurements " + forgedLog,
		args: "--ima-log " + forgedLog, codes: []attest.Code{attest.DoesNotReplay}, more: more}
}

// tamperings are done one after the other in one boot. What was run stays in
// the log, and what was extended in the PCR: so those that leave something come
// last, and say what was left before.
var tamperings = []tampering{
	{name: "honest", script: "hello"},
	{name: "replayed", answer: "honest", codes: []attest.Code{attest.WrongNonce}},
	{name: "other-key", args: "--key-type ecc", codes: []attest.Code{attest.BadSignature}},
	forgedIMA("remove", nil),
	forgedIMA("change", named(attest.WrongHash, "")),
	forgedIMA("rehash", nil),
	forgedIMA("swap", nil),
	{name: "event", script: "guestattest forge event /sys/kernel/security/tpm0/binary_bios_measurements " + forgedLog,
		args: "--firmware-log " + forgedLog, codes: []attest.Code{attest.FirmwareDiffers}},
	{name: "unknown", script: "/home/unknown", codes: []attest.Code{attest.UnknownFile}, more: named(attest.UnknownFile, "/home/unknown")},
	{name: "violation", script: "exec 3>>/usr/bin/hello; cat /usr/bin/hello >/dev/null",
		codes: []attest.Code{attest.UnknownFile, attest.Violation}, more: named(attest.Violation, "/usr/bin/hello")},
	{name: "changed", script: "printf x >>/usr/bin/hello; hello",
		codes: []attest.Code{attest.UnknownFile, attest.Violation}, more: named(attest.UnknownFile, "/usr/bin/hello")},
	{name: "extend-7", script: "guestattest extend 7",
		codes: []attest.Code{attest.UnknownFile, attest.Violation, attest.FirmwareDiffers, attest.WrongAggregate, attest.UnexpectedPCR}},
	{name: "extend-10", script: "guestattest extend 10",
		codes: []attest.Code{attest.FirmwareDiffers, attest.DoesNotReplay, attest.UnexpectedPCR}},
}

// A machine whose firmware, kernel and programs are the known ones is trusted,
// and whatever is done to it in the guest is named. One kernel is booted without
// UEFI, the other with Secure Boot, and then with another command line, which
// only UEFI measures.
func TestTamperingsAreNamed(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		uefi := strings.HasPrefix(k.Release, vm.Series[1]+".")
		g := newAttestGuest(t, ctx, k, uefi)
		g.boot(t, ctx, "ima_policy=tcb")
		g.writePolicy(t, uefi)
		for _, tampering := range tamperings {
			t.Run(tampering.name, func(t *testing.T) { g.check(t, tampering) })
		}
		if !uefi {
			return
		}
		g.boot(t, ctx, "ima_policy=tcb "+onlyFirst)
		t.Run("command line", func(t *testing.T) {
			other := tamperings[0]
			other.codes = []attest.Code{attest.OtherBootLoader, attest.UnexpectedImage, attest.OtherCommandLine}
			g.check(t, other)
		})
	})
}

// onlyFirst on the kernel's command line ends the plan after the honest part.
// The plan must be the same: it is in the initramfs, which is measured.
const onlyFirst = "onlyfirst"

// An attestGuest is a guest that collects evidence, and its verifier.
type attestGuest struct {
	dir     string // of the verifier: lists, policy, the guest's key
	tree    string // of the guest's disk
	bin     string // programs on it, which are the verifier's too
	machine vm.Machine
	out     string // of the last boot
	nonces  map[string]string
}

func newAttestGuest(t *testing.T, ctx context.Context, k vm.Kernel, uefi bool) *attestGuest {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	g := &attestGuest{dir: t.TempDir(), tree: t.TempDir(), nonces: map[string]string{}}
	g.bin = filepath.Join(g.tree, "usr", "bin")
	must(errors.Join(os.MkdirAll(g.bin, 0o755), os.MkdirAll(filepath.Join(g.tree, "home"), 0o755)))
	for _, pkg := range []string{"diglim/cmd/diglim-gen", "diglim/cmd/attest-verify", "diglim/test/vm/guestattest"} {
		must(vm.Build(ctx, filepath.Join(g.bin, filepath.Base(pkg)), pkg))
	}
	busybox, err := os.ReadFile("/bin/busybox")
	must(err)
	for name, data := range map[string][]byte{"usr/bin/busybox": busybox, "usr/bin/hello": exitProgram(), "home/unknown": append(exitProgram(), 0)} {
		must(os.WriteFile(filepath.Join(g.tree, name), data, 0o755))
	}

	var p plan.Plan
	for i, tampering := range tamperings {
		if tampering.answer != "" {
			continue
		}
		g.nonces[tampering.name] = rand.Text()
		script := tampering.script
		if i > 0 {
			script = "grep -q " + onlyFirst + " /proc/cmdline && exit\n" + script
		}
		script += "\nattest-verify collect --output " + plan.Out + "/" + tampering.name + " --nonce " + hex.EncodeToString([]byte(g.nonces[tampering.name])) + " " + tampering.args
		p.Commands = append(p.Commands, plan.Command{Name: tampering.name, Argv: []string{"/usr/bin/busybox", "sh", "-e", "-c", script}})
	}
	g.machine = writeMachine(t, ctx, k, p, g.tree)
	g.machine.TPM, g.machine.TPMState = true, filepath.Join(g.dir, "tpm")
	if uefi {
		g.machine.SecureBoot, err = vm.WriteTestKey(ctx, g.dir)
		must(err)
	}
	g.run(t, 0, "diglim-gen", "files", "--format", "tlv", "--label", "guest", "--output", "lists", g.bin)
	return g
}

// run runs a program of the verifier, and returns its standard output.
func (g *attestGuest) run(t *testing.T, wantExit int, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(g.bin, name), args...)
	cmd.Dir = g.dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != wantExit {
		t.Errorf("%s %s: exit code %d, want %d\n%s%s", name, strings.Join(args, " "), got, wantExit, out, stderr.String())
	}
	return string(out)
}

// boot boots the guest with the same TPM as before and a new disk, and wants
// every command of its plan to end well.
func (g *attestGuest) boot(t *testing.T, ctx context.Context, cmdline string) {
	t.Helper()
	g.machine.Cmdline = cmdline
	if g.machine.SecureBoot != nil {
		g.machine.Image = filepath.Join(g.dir, "linux.efi")
		if _, err := os.Stat(g.machine.Image); err == nil {
			g.machine.Image = filepath.Join(g.dir, "other.efi") // linux.efi is in the policy
		}
		if err := g.machine.SecureBoot.WriteUKI(ctx, g.machine.Image, g.machine); err != nil {
			t.Fatal(err)
		}
	}
	if err := vm.WriteDisk(ctx, g.machine.Disk, g.tree, 64<<20); err != nil {
		t.Fatal(err)
	}
	r, err := vm.Boot(ctx, g.machine)
	if err != nil {
		t.Fatal(err)
	}
	for name := range g.nonces {
		if output, exit, err := r.Command(name); err != nil || exit != 0 {
			t.Errorf("in the guest: %s: exit code %d, %v\n%s", name, exit, err, output)
		}
	}
	checkKernelLog(t, r)
	g.out = r.Out
}

// writePolicy enrols the guest's key, and writes down what the guest is, all
// but its programs, as the honest evidence has it.
func (g *attestGuest) writePolicy(t *testing.T, uefi bool) {
	t.Helper()
	honest := filepath.Join(g.out, "honest")
	key, err := os.ReadFile(filepath.Join(honest, "ak.pub"))
	if err != nil {
		t.Fatal(err)
	}
	statements := []string{"policy 1", "ima sha256:10", "ak ak.pub", "ak-attributes required", "lists lists", "unsigned-lists accept",
		"quoted sha256:0-11", "extended sha256:0-7"}
	boot := []int{0, 2, 7} // firmware, option ROMs, Secure Boot
	if uefi {
		initrd, err := os.ReadFile(g.machine.Initrd)
		if err != nil {
			t.Fatal(err)
		}
		statements = append(statements, "firmware-log 0-7,9,11,12", "secure-boot required", "uki linux.efi",
			fmt.Sprintf("kernel-command-line %q", vm.Cmdline(g.machine.Cmdline)),
			fmt.Sprintf("initramfs %s \"the guest's\"", digest.Sum(digest.SHA256, initrd)))
	} else {
		statements = append(statements, "firmware-log 0-7")
		boot = append(boot, 4) // what was booted
	}
	var replayed struct {
		PCRs []struct{ Value digest.Digest }
	}
	if err := json.Unmarshal([]byte(g.run(t, 0, "attest-verify", "replay", "--json", honest)), &replayed); err != nil {
		t.Fatal(err)
	}
	for _, pcr := range boot {
		statements = append(statements, fmt.Sprintf("pcr sha256:%d %s", pcr, replayed.PCRs[pcr].Value.Hex()))
	}
	for name, data := range map[string][]byte{"ak.pub": key, "policy": []byte(strings.Join(statements, "\n") + "\n")} {
		if err := os.WriteFile(filepath.Join(g.dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// check has the verifier judge the evidence of a tampering.
func (g *attestGuest) check(t *testing.T, tampering tampering) {
	nonce, from := g.nonces[tampering.name], tampering.name
	if tampering.answer != "" {
		nonce, from = rand.Text(), tampering.answer
	}
	exit := 1
	if len(tampering.codes) == 0 {
		exit = 0
	}
	out := g.run(t, exit, "attest-verify", "check", "--json", "--policy", "policy", "--nonce", hex.EncodeToString([]byte(nonce)), filepath.Join(g.out, from))
	var a answer
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		t.Fatal(err)
	}
	slices.Sort(tampering.codes)
	if got := a.against(); !slices.Equal(got, tampering.codes) {
		t.Errorf("found %v, want %v\n%s", got, tampering.codes, out)
	}
	if tampering.more != nil {
		if missing := tampering.more(a); missing != "" {
			t.Errorf("%s\n%s", missing, out)
		}
	}
}
