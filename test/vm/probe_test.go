package vm_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/modsig"
	"diglim/internal/rpmtest"
	"diglim/test/vm"
	"diglim/test/vm/plan"
)

// steps are shell scripts to run in a guest, and what they must print.
type steps struct {
	plan  plan.Plan
	wants map[string]want
}

type want struct {
	output string // regular expression
	exit   int
}

func (s *steps) add(name, script, output string, exit int) {
	if s.wants == nil {
		s.wants = make(map[string]want)
	}
	s.plan.Early = append(s.plan.Early, plan.Command{Name: name, Argv: []string{"/busybox", "sh", "-c", script}})
	s.wants[name] = want{output, exit}
}

func (s *steps) check(t *testing.T, r vm.Result) {
	t.Helper()
	for _, c := range s.plan.Early {
		output, exit, err := r.Command(c.Name)
		if err != nil {
			t.Fatal(err)
		}
		if w := s.wants[c.Name]; exit != w.exit || !regexp.MustCompile(w.output).MatchString(output) {
			t.Errorf("%s: exit code %d, want %d:\n%s\nis not %s", c.Name, exit, w.exit, output, w.output)
		}
	}
}

// uploaderFiles builds the uploader for a guest, and says what busybox and it
// have for digests, and the guest's init.
func uploaderFiles(t *testing.T, ctx context.Context) (files []vm.File, known []digest.Digest) {
	t.Helper()
	dir := t.TempDir()
	upload, init := filepath.Join(dir, "diglim-upload"), filepath.Join(dir, "init")
	for path, pkg := range map[string]string{upload: "diglim/cmd/diglim-upload", init: "diglim/test/vm/guestinit"} {
		if err := vm.Build(ctx, path, pkg); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{upload, init, "/bin/busybox"} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		known = append(known, digest.Sum(digest.SHA256, data))
	}
	return []vm.File{
		{Name: "busybox", Mode: 0o755, Path: "/bin/busybox"},
		{Name: "diglim-upload", Mode: 0o755, Path: upload},
	}, known
}

// Where nothing takes lists, there is one line an interface, whatever else is
// missing.
func TestNoInterface(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		files, _ := uploaderFiles(t, ctx)
		files = append(files, vm.File{Name: "lists/0-file_list-compact-x", Mode: 0o644, Data: compactList(t, 1)})
		nobody := func(diglim, ima, bpf, hint string) string {
			return `^error: no kernel interface accepts digest lists here\n  diglim  ` + diglim + `\n  ima     ` + ima + `\n  bpf     ` + bpf + `\nhint: ` + hint + `\n$`
		}
		const noDIGLIM, noIMA = `the kernel has no DIGLIM: no /sys/kernel/security/integrity/diglim`, `the kernel has no IMA digest lists: no /sys/kernel/security/ima/digest_list_data`
		var s steps
		s.add("no BPF LSM", "/diglim-upload add /lists", nobody(noDIGLIM, noIMA, `BPF LSM is not active, only lockdown.*`, `add bpf to lsm= on the kernel command line.*`), 2)
		s.add("status", "/diglim-upload status --json", nobody(noDIGLIM, noIMA, `.*`, `.*`), 2)
		s.add("replace", "/diglim-upload replace /lists", `^error: no kernel interface accepts digest lists here\n  bpf     BPF LSM is not active.*\nhint: .*\n$`, 2)
		s.add("diglim", "/diglim-upload add --interface diglim /lists", `^error: .*\n  diglim  `+noDIGLIM+`\nhint: .*\n$`, 2)
		s.add("not root", "/busybox setpriv --reuid 1000 /diglim-upload add /lists 2>&1 || /busybox unshare --user /diglim-upload add /lists", `  bpf     only root can load BPF programs\nhint: run it as root\n`, 2)
		s.add("no securityfs", "/busybox umount /sys/kernel/security; /busybox mount -o remount,ro /sys; /busybox unshare --user /diglim-upload add /lists",
			nobody(noDIGLIM+` \(.*\)`, noIMA+` \(.*\)`, `.*`, `.*`), 2)
		s.add("nothing in sys", "/busybox mount -t tmpfs -o ro none /sys; /diglim-upload add --securityfs /nowhere /lists", nobody(`.*`, `.*`, `.*`, `.*`), 2)
		m := writeMachine(t, ctx, k, s.plan, t.TempDir(), files...)
		m.Cmdline = "lsm=lockdown,yama,apparmor"
		r, err := vm.Boot(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, r)
	})
}

// The gate by the uploader: the first set, what it says, what it refuses.
func TestUploadGate(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		files, known := uploaderFiles(t, ctx)
		list := func(typ digestlist.Type, digests ...digest.Digest) []byte {
			b, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{{Type: typ, Algorithm: digest.SHA256, Digests: digests}})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		vendor := rpmtest.NewKey(t, "vendor", nil)
		p := rpmtest.Package{Name: "p", Algo: 8, Files: []rpmtest.File{rpmtest.Regular("/usr/bin/p", 0o755, "p")}}.Header()
		signed := modsig.Append(bytes.Clone(p), modsig.Signature{Type: modsig.PGP, Bytes: rpmtest.Sign(t, vendor, p, time.Now().Add(-time.Hour), nil)})
		script := []byte("#!/busybox sh\necho ran\n")
		for name, data := range map[string][]byte{
			"etc/diglim/keys/vendor.gpg":       rpmtest.Public(t, vendor),
			"all/0-parser_list-compact-upload": list(digestlist.Parser, known[0]),
			"all/1-file_list-compact-base":     list(digestlist.File, known[1:]...),
			"all/2-file_list-rpm-p-1.0-1":      signed,
			"noinit/0-file_list-compact-base":  list(digestlist.File, known[0], known[2]),
			"bad/0-file_list-rpm-p-1.0-1":      p,
			"more/0-file_list-compact-script":  list(digestlist.File, digest.Sum(digest.SHA256, script)),
		} {
			files = append(files, vm.File{Name: name, Mode: 0o644, Data: data})
		}
		files = append(files, vm.File{Name: "script", Mode: 0o755, Data: script})

		var s steps
		s.add("before", "/diglim-upload status --interface bpf", `^interface  bpf \(kernel .*\)     no gate\n$`, 0)
		s.add("no lists", "/diglim-upload add --interface bpf /bad", `(?s)^error: /bad/0-file_list-rpm-p-1.0-1: not signed\nerror: no list is left, and nothing was changed\n$`, 1)
		s.add("without init", "/diglim-upload add --interface bpf --mode enforce /noinit", `^error: PID 1 is in no list: /init \(sha256:`+known[1].Hex()+`\)\nhint: .*\n$`, 1)
		s.add("still none", "/diglim-upload count --interface bpf", `^0\n$`, 0)
		s.add("add", "/diglim-upload add /all", `(?s)^interface bpf; not diglim: .*\nbpf: 4 digests from 3 lists in .* s, mode log, .* of kernel memory\n$`, 0)
		s.add("status", "/diglim-upload status --interface bpf", `mode  log     scope  vendor     locked  no\nset        generation 1, 5 digests, 3 lists, loaded .* in the initramfs\n`, 0)
		s.add("unknown", "/script", `^ran\n$`, 0)
		s.add("watch", "/busybox timeout 2 /diglim-upload watch --since boot", `"hook":"exec","verdict":"logged","reason":"unlisted","path":"/script","digest":"`+digest.Sum(digest.SHA256, script).String()+`","pid":\d+,"uid":0,"comm":"`, 0)
		s.add("watch again", "/busybox timeout 1 /diglim-upload watch --since boot", `^$`, 0)
		s.add("query", "/diglim-upload query --interface bpf "+known[0].String(), `content\n.*parser\n$`, 0)
		s.add("enforce", "/diglim-upload replace --mode enforce --scope all /all", `^bpf: 4 digests from 3 lists in .* s, mode enforce, `, 0)
		s.add("denied", "/script", `not permitted`, 126)
		s.add("denied is counted", "/diglim-upload status --interface bpf --json", `(?s)"mode": "enforce",\n  "scope": "all",.*"generation": 2,.*"denied": 1,`, 0)
		s.add("add more", "/diglim-upload add --interface bpf /more", `^bpf: 1 digest from 1 list in .* s, mode enforce, `, 0)
		s.add("known", "/script", `^ran\n$`, 0)
		s.add("del", "/diglim-upload del --interface bpf /more", `hint: diglim-upload replace DIR`, 1)
		s.add("stop", "/diglim-upload stop", `^bpf: the gate is gone\n$`, 0)
		s.add("after", "/diglim-upload count --interface bpf", `^0\n$`, 0)
		s.add("bare", "/busybox umount /sys/fs/bpf; /busybox umount /sys/kernel/security /sys; /busybox env -i /diglim-upload add --interface bpf /all <&- >&- 2>&-", `^$`, 0)
		s.add("after bare", "/diglim-upload count --interface bpf", `^5\n$`, 0)
		s.add("processes", "/busybox ps | /busybox grep -c '[d]iglim-upload'", `^0\n$`, 1)
		s.add("stop again", "/diglim-upload stop", `gone`, 0)

		m := writeMachine(t, ctx, k, s.plan, t.TempDir(), files...)
		r, err := vm.Boot(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, r)
		checkKernelLog(t, r)
	})
}

// The way back: the kernel command line has the last word on the mode.
func TestModeByCommandLine(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		files, known := uploaderFiles(t, ctx)
		b, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{{Type: digestlist.File, Algorithm: digest.SHA256, Digests: known}})
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, vm.File{Name: "lists/0-file_list-compact-x", Mode: 0o644, Data: b}, vm.File{Name: "script", Mode: 0o755, Data: []byte("#!/busybox sh\necho ran\n")})
		var s steps
		s.add("add", "/diglim-upload add --interface bpf --mode enforce /lists", `^mode log and not enforce, by diglim.mode=log on the kernel command line\nbpf: .*, mode log, `, 0)
		s.add("unknown", "/script", `^ran\n$`, 0)
		m := writeMachine(t, ctx, k, s.plan, t.TempDir(), files...)
		m.Cmdline = "diglim.mode=log"
		r, err := vm.Boot(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, r)
	})
}
