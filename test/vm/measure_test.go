package vm_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/measured"
	"diglim/internal/modsig"
	"diglim/internal/rpmtest"
	"diglim/internal/scope"
	"diglim/test/vm"
	"diglim/test/vm/plan"
	"diglim/tpm/imalog"
)

const measurePCR = 12

// A measuredHost is what a guest is made of that measures its lists.
type measuredHost struct {
	program string // path of diglim-upload
	busybox []byte
	policy  string // the administrator's
	key     []byte
	early   []namedList // in the initramfs
	late    []namedList // on the disk
}

type namedList struct {
	name    string
	content []byte
}

func newMeasuredHost(t *testing.T, ctx context.Context) measuredHost {
	t.Helper()
	h := measuredHost{program: filepath.Join(t.TempDir(), "diglim-upload"), policy: "# ours\nmeasure func=BPRM_CHECK mask=MAY_EXEC"}
	if err := vm.Build(ctx, h.program, "diglim/cmd/diglim-upload"); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.busybox, err = os.ReadFile("/bin/busybox"); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(h.program)
	if err != nil {
		t.Fatal(err)
	}
	known := digestlist.Block{Type: digestlist.File, Algorithm: digest.SHA256, Digests: []digest.Digest{
		digest.Sum(digest.SHA256, h.busybox), digest.Sum(digest.SHA256, program)}}
	compact, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{known})
	if err != nil {
		t.Fatal(err)
	}
	vendor := rpmtest.NewKey(t, "vendor", rpmtest.Ed25519)
	h.key = rpmtest.Public(t, vendor)
	rpm := func(name string) namedList {
		header := rpmtest.Package{Name: name, Algo: 8, Files: []rpmtest.File{rpmtest.Regular("/usr/bin/"+name, 0o755, name)}}.Header()
		signature := modsig.Signature{Type: modsig.PGP, Bytes: rpmtest.Sign(t, vendor, header, time.Now().Add(-time.Hour), nil)}
		return namedList{"0-file_list-rpm-" + name + "-1.0-1.noarch", modsig.Append(header, signature)}
	}
	h.early = []namedList{{"0-file_list-compact-busybox", compact}, rpm("a"), rpm("b")}
	h.late = []namedList{rpm("c")}
	return h
}

// boot boots a guest. It runs early in the initramfs and late with the disk as
// the root, and keeps its logs in the end.
func (h measuredHost) boot(t *testing.T, ctx context.Context, k vm.Kernel, early, late []plan.Command) vm.Result {
	t.Helper()
	files := []vm.File{
		{Name: "busybox", Mode: 0o755, Data: h.busybox},
		{Name: "diglim-upload", Mode: 0o755, Path: h.program},
		{Name: "etc/ima/ima-policy", Mode: 0o644, Data: []byte(h.policy)},
		{Name: "etc/diglim/keys/vendor.gpg", Mode: 0o644, Data: h.key},
	}
	for _, l := range h.early {
		files = append(files, vm.File{Name: "etc/digest_lists/" + l.name, Mode: 0o644, Data: l.content})
	}
	tree := t.TempDir()
	program, err := os.ReadFile(h.program)
	if err != nil {
		t.Fatal(err)
	}
	onDisk := map[string][]byte{"busybox": h.busybox, "diglim-upload": program, "etc/diglim/keys/vendor.gpg": h.key}
	for _, l := range h.late {
		onDisk["lists/"+l.name] = l.content
	}
	for name, data := range onDisk {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const logs = `/busybox cat /sys/kernel/security/ima/binary_runtime_measurements >/out/ima.bin
if [ -e ` + measured.LogPath + ` ]; then /busybox cp ` + measured.LogPath + ` /out/measure.cel; fi`
	p := plan.Plan{Early: early, Commands: append(late, sh("logs", logs))}
	m := writeMachine(t, ctx, k, p, tree, files...)
	m.TPM = true
	r, err := vm.Boot(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	checkKernelLog(t, r)
	return r
}

func sh(name, script string) plan.Command {
	return plan.Command{Name: name, Argv: []string{"/busybox", "sh", "-c", script}}
}

// pcrs prints the PCR in every bank.
func pcrs(name string) plan.Command {
	return sh(name, `for d in /sys/class/tpm/tpm0/pcr-*; do echo "${d##*-}:$(/busybox cat $d/12)"; done`)
}

// values are what pcrs printed.
func values(t *testing.T, r vm.Result, name string) []digest.Digest {
	t.Helper()
	var all []digest.Digest
	for _, line := range strings.Fields(output(t, r, name)) {
		d, err := digest.Parse(strings.ToLower(line))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	if len(all) != 2 {
		t.Fatalf("%s: banks %v, want 2", name, all)
	}
	return all
}

// output is what a command that succeeded wrote.
func output(t *testing.T, r vm.Result, name string) string {
	t.Helper()
	text, exit, err := r.Command(name)
	if err != nil || exit != 0 {
		t.Fatalf("%s: exit code %d, %v\n%s", name, exit, err, text)
	}
	return text
}

// sequence is what the guest is to measure when it adds the lists in the
// initramfs.
func (h measuredHost) sequence(t *testing.T) *measured.Sequence {
	t.Helper()
	policy, err := measured.Policy(measurePCR, "", []byte(h.policy))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := scope.Load(scope.Vendor)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(h.program)
	if err != nil {
		t.Fatal(err)
	}
	config := measured.Config{Interface: "bpf", PCR: measurePCR, Mode: "log", Scope: scope.Format(rules)}
	s := &measured.Sequence{}
	add(s, measured.PolicyName, policy)
	add(s, measured.ConfigName, config.Text())
	add(s, measured.ProgramName, program)
	add(s, measured.KeyName("vendor.gpg"), h.key)
	for _, l := range h.early {
		add(s, measured.ListName(l.name), l.content)
	}
	return s
}

func add(s *measured.Sequence, name string, content []byte) {
	s.Add(measured.File{Name: name, Digest: digest.Sum(digest.SHA256, content)})
}

// checkValues compares PCRs with what the sequence makes of them.
func checkValues(t *testing.T, what string, got []digest.Digest, s *measured.Sequence) {
	t.Helper()
	for _, d := range got {
		if want := s.Extend(imalog.Zero(d.Algorithm())); d != want {
			t.Errorf("%s: PCR %d is %s, want %s", what, measurePCR, d, want)
		}
	}
}

// The PCR has the value that was computed before, whatever runs when, until
// something else is given to the kernel, or something runs that is in no list.
func TestMeasure(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		h := newMeasuredHost(t, ctx)
		add := sh("add", "/diglim-upload add --interface bpf --measure-pcr 12 /etc/digest_lists")
		again := sh("again", "/diglim-upload add --interface bpf /etc/digest_lists")
		other := sh("other", "/diglim-upload add --interface bpf --measure-pcr 13 /etc/digest_lists 2>&1; echo $?")

		r := h.boot(t, ctx, k,
			[]plan.Command{add, pcrs("added"), again, other},
			[]plan.Command{
				sh("run", "/busybox true; /busybox ls / >/dev/null"),
				pcrs("ran"),
				// Fork only: what is waited for is the event.
				sh("unknown", `set -e
(/busybox cat /busybox; echo) >/tmp/other
/busybox chmod 755 /tmp/other
/busybox mkfifo /tmp/events
/diglim-upload watch --extend --since boot >/tmp/events &
exec 3</tmp/events
/tmp/other || true
read -r line <&3
echo "$line"
/tmp/other || true
kill $!
wait $!`),
				pcrs("after unknown"),
				sh("late", "/diglim-upload add --interface bpf /lists"),
				pcrs("after late"),
				// What was told is not told again, nor added.
				sh("goes on", `/busybox rm /tmp/events; set -e
(/busybox cat /busybox; echo x) >/tmp/third
/busybox chmod 755 /tmp/third
/busybox mkfifo /tmp/events
/diglim-upload watch --extend --since boot >/tmp/events &
exec 3</tmp/events
/tmp/third || true
read -r line <&3
kill $!
wait $!`),
				pcrs("end"),
			})
		want := h.sequence(t)
		for _, name := range []string{"add", "again", "run", "late", "goes on"} {
			output(t, r, name)
		}
		first := values(t, r, "added")
		checkValues(t, "added", first, want)
		checkValues(t, "ran", values(t, r, "ran"), want)
		if text := output(t, r, "other"); !strings.Contains(text, "PCR 12 is what is measured into since the boot") || !strings.HasSuffix(text, "\n1\n") {
			t.Errorf("another PCR: %s", text)
		}
		if text := output(t, r, "unknown"); !strings.Contains(text, `"path":"/tmp/other"`) {
			t.Errorf("watch: %s", text)
		}
		if unknown := values(t, r, "after unknown"); slices.Equal(unknown, first) {
			t.Error("the PCR does not show what is unknown")
		}
		checkLogs(t, r, values(t, r, "end"), []string{"/tmp/other", "/tmp/third"})

		// Another boot: programs run first, and others.
		r = h.boot(t, ctx, k,
			[]plan.Command{sh("early", "/busybox uname -a; /busybox id; /busybox sha256sum /busybox"), add, pcrs("added")},
			[]plan.Command{
				sh("run", "/busybox find /lists; /busybox cp /busybox /tmp/box; /tmp/box true || true"),
				pcrs("ran"),
				sh("late", "/diglim-upload add --interface bpf --measure-pcr 12 /lists"),
				pcrs("after late"),
			})
		for _, name := range []string{"early", "add", "run", "late"} {
			output(t, r, name)
		}
		if second := values(t, r, "ran"); !slices.Equal(second, first) {
			t.Errorf("PCR %d is %v after one boot, %v after another", measurePCR, first, second)
		}
		for _, l := range h.late {
			want.Add(measured.File{Name: measured.ListName(l.name), Digest: digest.Sum(digest.SHA256, l.content)})
		}
		checkValues(t, "after late", values(t, r, "after late"), want)
		checkLogs(t, r, values(t, r, "after late"), nil)

		// One with another list.
		changed := h
		changed.early = slices.Clone(h.early)
		changed.early[0].content = slices.Concat(h.early[0].content, h.early[0].content)
		r = changed.boot(t, ctx, k, []plan.Command{add, pcrs("added")}, nil)
		output(t, r, "add")
		third := values(t, r, "added")
		checkValues(t, "changed", third, changed.sequence(t))
		for i := range third {
			if third[i] == first[i] {
				t.Errorf("a list has changed, and the PCR is %s as before", third[i])
			}
		}
	})
}

// checkLogs replays IMA's log and that of the unknown, and has the paths in the
// latter. The administrator's rule must have gone on working.
func checkLogs(t *testing.T, r vm.Result, got []digest.Digest, unknown []string) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(r.Out, "ima.bin"))
	if err != nil {
		t.Fatal(err)
	}
	var records []measured.Record
	if text, err := os.ReadFile(filepath.Join(r.Out, "measure.cel")); err == nil {
		if records, err = measured.Records(text); err != nil {
			t.Fatal(err)
		}
	} else if unknown != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, r := range records {
		paths = append(paths, r.Content.Path)
	}
	if !slices.Equal(paths, unknown) {
		t.Errorf("unknown %q, want %q", paths, unknown)
	}
	administrators := 0
	for _, value := range got {
		var ima []digest.Digest
		for e, err := range imalog.Entries(bytes.NewReader(log), imalog.Layout{Hash: digest.SHA1}) {
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case e.PCR == measurePCR:
				ima = append(ima, e.Sum(value.Algorithm()))
			case string(e.Path) == "/busybox":
				administrators++
			}
		}
		replayed, err := measured.Replay(imalog.Zero(value.Algorithm()), ima, records)
		if err != nil || replayed != value {
			t.Errorf("the logs make %s, %v, of the PCR, which is %s", replayed, err, value)
		}
	}
	if administrators == 0 {
		t.Error("the administrator's rule measures nothing")
	}
}
