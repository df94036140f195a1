package vm_test

import (
	"context"
	"encoding/json"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/modsig"
	"diglim/internal/rpmtest"
	"diglim/test/vm"
	"diglim/test/vm/plan"
	"diglim/test/vm/seal"

	"github.com/google/go-tpm/tpm2/transport"
)

// A secret is sealed to what attest-verify predicts of an initramfs and the
// lists of the system that it switches to. It opens on every boot with these,
// whatever runs; not with another list, key or program, and then the PCR has the
// value that is predicted for those.
func TestPredict(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		dir := t.TempDir()
		programs := map[string]string{}
		for name, pkg := range map[string]string{
			"diglim-upload": "diglim/cmd/diglim-upload", "attest-verify": "diglim/cmd/attest-verify", "guestseal": "diglim/test/vm/guestseal",
		} {
			programs[name] = filepath.Join(dir, name)
			if err := vm.Build(ctx, programs[name], pkg); err != nil {
				t.Fatal(err)
			}
		}
		vendor, other := rpmtest.NewKey(t, "vendor", rpmtest.Ed25519), rpmtest.NewKey(t, "other", rpmtest.Ed25519)
		list := func(name, content string) []byte {
			header := rpmtest.Package{Name: name, Algo: 8, Files: []rpmtest.File{rpmtest.Regular("/usr/bin/"+name, 0o755, content)}}.Header()
			return modsig.Append(header, modsig.Signature{Type: modsig.PGP, Bytes: rpmtest.Sign(t, vendor, header, time.Now().Add(-time.Hour), nil)})
		}
		h := host{t: t, ctx: ctx, kernel: k, programs: programs, state: filepath.Join(dir, "tpm"),
			key: rpmtest.Public(t, vendor), early: list("a", "a"), late: list("attest-verify", string(read(t, programs["attest-verify"])))}
		h.upload = read(t, programs["diglim-upload"])

		expected := h.predict()
		const secret = "the disk's key"
		if err := vm.UseTPM(ctx, h.state, func(tpm transport.TPM) (err error) {
			h.secret, err = seal.Seal(tpm, expected.policy(digest.SHA256).Bytes(), []byte(secret))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		r := h.boot("as predicted")
		r.check(expected, secret)
		r.judge(expected)

		// Half of the changes on each kernel: a guest takes its time.
		changes := map[string]func(h *host){
			"another list in the initramfs": func(h *host) { h.early = list("c", "c") },
			"another list of the system":    func(h *host) { h.late = list("c", "c") },
			"another key":                   func(h *host) { h.key = append(h.key, rpmtest.Public(t, other)...) },
			"another uploader":              func(h *host) { h.upload = append(h.upload[:len(h.upload):len(h.upload)], 0) },
		}
		for i, name := range slices.Sorted(maps.Keys(changes)) {
			if !strings.HasPrefix(k.Release, vm.Series[i%len(vm.Series)]+".") {
				continue
			}
			change := changes[name]
			changed := h
			change(&changed)
			changed.boot(name).check(changed.predict(), "")
		}
	})
}

// A host is what a guest is made of.
type host struct {
	t           *testing.T
	ctx         context.Context
	kernel      vm.Kernel
	programs    map[string]string
	state       string // of its TPM
	upload      []byte // diglim-upload
	key         []byte
	early, late []byte // lists of the initramfs, and of the system
	secret      []byte // sealed
}

// write writes the guest's initramfs and disk.
func (h host) write(p plan.Plan) vm.Machine {
	h.t.Helper()
	tree := h.t.TempDir()
	write(h.t, filepath.Join(tree, "etc/digest_lists/0-file_list-rpm-late"), h.late, 0o644)
	write(h.t, filepath.Join(tree, "sbin/init"), read(h.t, "/bin/busybox"), 0o755)
	write(h.t, filepath.Join(tree, "usr/bin/attest-verify"), read(h.t, h.programs["attest-verify"]), 0o755)
	return writeMachine(h.t, h.ctx, h.kernel, p, tree,
		vm.File{Name: "busybox", Mode: 0o755, Path: "/bin/busybox"},
		vm.File{Name: "unknown", Mode: 0o755, Data: []byte("#!/busybox true\n")},
		vm.File{Name: "guestseal", Mode: 0o755, Path: h.programs["guestseal"]},
		vm.File{Name: "secret", Mode: 0o600, Data: h.secret},
		vm.File{Name: "usr/bin/diglim-upload", Mode: 0o755, Data: h.upload},
		vm.File{Name: "etc/diglim/boot.conf", Mode: 0o644, Data: []byte("mode enforce\nscope all\nmeasure\n")},
		vm.File{Name: "etc/diglim/keys/vendor.gpg", Mode: 0o644, Data: h.key},
		vm.File{Name: "etc/digest_lists/0-file_list-rpm-early", Mode: 0o644, Data: h.early})
}

// A prediction is what attest-verify says of a host.
type prediction struct {
	Values []struct{ Value, Policy string }
}

// predict says what the host's PCR is going to be.
func (h host) predict() (p prediction) {
	h.t.Helper()
	m := h.write(plan.Plan{})
	lists := filepath.Join(h.t.TempDir(), "0-file_list-rpm-late")
	write(h.t, lists, h.late, 0o644)
	out, err := exec.CommandContext(h.ctx, h.programs["attest-verify"], "predict", "--json", "--initramfs", m.Initrd, "--lists", lists).Output()
	if err == nil {
		err = json.Unmarshal(out, &p)
	}
	if err != nil {
		h.t.Fatalf("predict: %v\n%s", err, out)
	}
	return p
}

func (p prediction) policy(bank digest.Algorithm) digest.Digest {
	for _, v := range p.Values {
		if strings.HasPrefix(v.Value, bank.String()+":") {
			if d, err := digest.Parse(v.Policy); err == nil {
				return d
			}
		}
	}
	return digest.Digest{}
}

// A booted is a guest that has been.
type booted struct {
	host
	name string
	vm.Result
}

func (h host) boot(name string) booted {
	h.t.Helper()
	script := func(name, text string) plan.Command {
		return plan.Command{Name: name, Argv: []string{"/busybox", "sh", "-c", text}}
	}
	const mount = `/busybox mkdir -p /mnt && /busybox mount -t ext4 /dev/vda /mnt && { /usr/bin/diglim-upload boot --root /mnt; /busybox umount /mnt; }`
	m := h.write(plan.Plan{Early: []plan.Command{
		{Name: "first", Argv: []string{"/usr/bin/diglim-upload", "boot"}},
		script("run", `/busybox ls /; /unknown; exec /busybox cat /plan.json`),
		script("second", mount),
		script("values", `for d in /sys/class/tpm/tpm0/pcr-*; do echo "${d##*-}:$(/busybox cat $d/12)"; done`),
		{Name: "unseal", Argv: []string{"/guestseal", "/secret", "12"}},
		script("log", `/busybox grep ' /run/diglim/' /sys/kernel/security/ima/ascii_runtime_measurements; /busybox dmesg | /busybox grep diglim`),
	}, Commands: []plan.Command{
		{Name: "collect", Argv: []string{"/usr/bin/attest-verify", "collect", "--output", "/out/evidence", "--nonce", nonce}},
	}})
	m.TPM, m.TPMState = true, h.state
	r, err := vm.Boot(h.ctx, m)
	if err != nil {
		h.t.Fatalf("%s: %v", name, err)
	}
	checkKernelLog(h.t, r)
	return booted{h, name, r}
}

const nonce = "000102030405060708090a0b0c0d0e0f"

// judge has attest-verify judge the guest by a policy that knows nothing of it but
// the predicted value.
func (b booted) judge(p prediction) {
	b.t.Helper()
	if out, exit, err := b.Command("collect"); err != nil || exit != 0 {
		b.t.Fatalf("collect: exit code %d, %v\n%s", exit, err, out)
	}
	evidence := filepath.Join(b.Out, "evidence")
	file := filepath.Join(b.t.TempDir(), "policy")
	check := func(value string) (string, error) {
		text := "policy 1\nima sha256:10\nfile " + digest.Sum(digest.SHA256).String() + " \"empty files\"\npcr sha256:12 " + value + " \"predicted\"\n"
		write(b.t, file, []byte(text), 0o644)
		out, err := exec.CommandContext(b.ctx, b.programs["attest-verify"], "check", "--policy", file, "--nonce", nonce,
			"--ak", filepath.Join(evidence, "ak.pub"), evidence).CombinedOutput()
		return string(out), err
	}
	for _, v := range p.Values {
		if value, ok := strings.CutPrefix(v.Value, "sha256:"); ok {
			if out, err := check(value); err != nil {
				b.t.Errorf("%s: %v\n%s", b.name, err, out)
			}
			if out, err := check(strings.Repeat("a", len(value))); err == nil || !strings.Contains(out, "pcr-not-expected") || !strings.Contains(out, "unknown-file") {
				b.t.Errorf("%s, another value expected: %v\n%s", b.name, err, out)
			}
		}
	}
}

// check holds the guest against what was predicted. The secret is "" if it is to
// stay one.
func (b booted) check(p prediction, secret string) {
	b.t.Helper()
	log, _, _ := b.Command("log")
	values, _, err := b.Command("values")
	if err != nil {
		b.t.Fatal(err)
	}
	banks := strings.Fields(strings.ToLower(values))
	if len(banks) != 2 {
		b.t.Fatalf("%s: values %q, want those of 2 banks", b.name, values)
	}
	for _, value := range banks {
		found := false
		for _, v := range p.Values {
			found = found || v.Value == value
		}
		if !found {
			b.t.Errorf("%s: PCR 12 is %s, predicted were %v; log\n%s", b.name, value, p.Values, log)
		}
	}
	out, exit, err := b.Command("unseal")
	switch {
	case err != nil:
		b.t.Fatal(err)
	case secret != "" && (exit != 0 || out != secret+"\n"):
		b.t.Errorf("%s: the secret does not open: %s\n%s", b.name, out, log)
	case secret == "" && (exit == 0 || !strings.Contains(out, "policy")):
		b.t.Errorf("%s: the secret opens, or fails otherwise: %s", b.name, out)
	}
}
