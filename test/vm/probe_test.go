package vm_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/modsig"
	"diglim/internal/rpmtest"
	"diglim/test/vm"
	"diglim/test/vm/plan"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// steps are shell scripts to run in a guest, in the initramfs or with the disk
// as the root, and what they must print.
type steps struct {
	plan  plan.Plan
	wants map[string]want
}

type want struct {
	output string // regular expression
	exit   int
}

func (s *steps) add(name, script, output string, exit int) {
	s.plan.Early = append(s.plan.Early, s.step(name, script, output, exit))
}

func (s *steps) addAfter(name, script, output string, exit int) {
	s.plan.Commands = append(s.plan.Commands, s.step(name, script, output, exit))
}

func (s *steps) step(name, script, output string, exit int) plan.Command {
	if s.wants == nil {
		s.wants = make(map[string]want)
	}
	s.wants[name] = want{output, exit}
	return plan.Command{Name: name, Argv: []string{"/busybox", "sh", "-c", script}}
}

func (s *steps) check(t *testing.T, r vm.Result) {
	t.Helper()
	for _, c := range slices.Concat(s.plan.Early, s.plan.Commands) {
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

const scriptText = "#!/busybox sh\necho ran\n"

// listOf makes a compact list that nobody has signed.
func listOf(t *testing.T, typ digestlist.Type, digests ...digest.Digest) []byte {
	t.Helper()
	b, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{{Type: typ, Algorithm: digest.SHA256, Digests: digests}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// packageList makes the header of a package with one file, and an rpm list of it.
func packageList(t *testing.T, vendor *openpgp.Entity, name, content string) (header, list []byte) {
	t.Helper()
	header = rpmtest.Package{Name: name, Algo: 8, Files: []rpmtest.File{rpmtest.Regular("/usr/bin/"+name, 0o755, content)}}.Header()
	return header, modsig.Append(bytes.Clone(header), modsig.Signature{Type: modsig.PGP, Bytes: rpmtest.Sign(t, vendor, header, time.Now().Add(-time.Hour), nil)})
}

// The gate by the uploader: the first set, what it says, what it refuses.
func TestUploadGate(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		files, known := uploaderFiles(t, ctx)
		list := func(typ digestlist.Type, digests ...digest.Digest) []byte { return listOf(t, typ, digests...) }
		vendor := rpmtest.NewKey(t, "vendor", nil)
		p, signed := packageList(t, vendor, "p", "p")
		script := []byte(scriptText)
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
		files = append(files, vm.File{Name: "lists/0-file_list-compact-x", Mode: 0o644, Data: listOf(t, digestlist.File, known...)},
			vm.File{Name: "script", Mode: 0o755, Data: []byte(scriptText)})
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

// The lock by the uploader: nobody takes the gate away, and what comes in is
// signed by the keys of before.
func TestUploadLock(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		files, known := uploaderFiles(t, ctx)
		vendor, other := rpmtest.NewKey(t, "vendor", nil), rpmtest.NewKey(t, "other", nil)
		header, signed := packageList(t, vendor, "q", scriptText)
		_, foreign := packageList(t, other, "q", scriptText)
		script := digest.Sum(digest.SHA256, []byte(scriptText))
		lists := map[string][]byte{
			"etc/diglim/keys/vendor.gpg":          rpmtest.Public(t, vendor),
			"all/0-parser_list-compact-upload":    listOf(t, digestlist.Parser, known[0]),
			"all/1-file_list-compact-base":        listOf(t, digestlist.File, known[1:]...),
			"keys/other.gpg":                      rpmtest.Public(t, other),
			"signed/0-file_list-rpm-q-1.0-1":      signed,
			"unsigned/0-file_list-rpm-q-1.0-1":    header,
			"foreign/0-file_list-rpm-q-1.0-1":     foreign,
			"initramfs/0-file_list-compact-x-1.0": listOf(t, digestlist.File, script),
		}
		for name, data := range lists {
			files = append(files, vm.File{Name: name, Mode: 0o644, Data: data})
		}
		files = append(files, vm.File{Name: "script", Mode: 0o755, Data: []byte(scriptText)})
		tree := t.TempDir()
		for _, f := range files {
			data := f.Data
			if f.Path != "" {
				var err error
				if data, err = os.ReadFile(f.Path); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(tree, f.Name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o755)); err != nil {
				t.Fatal(err)
			}
		}

		var s steps
		s.add("lock", "/diglim-upload add --interface bpf --mode enforce --scope all --lock /all", `^bpf: 3 digests from 2 lists in .* s, mode enforce, `, 0)
		s.add("status", "/diglim-upload status --interface bpf", `mode  enforce     scope  all     locked  yes\n`, 0)
		s.add("unsigned from the initramfs", "/diglim-upload add --interface bpf /initramfs", `not signed`, 1)
		s.addAfter("denied", "/script", `not permitted`, 126)
		s.addAfter("stop", "/diglim-upload stop", `lock`, 1)
		s.addAfter("pins", "/busybox rm -r /sys/fs/bpf/diglim", `not permitted`, 1)
		s.addAfter("unsigned", "/diglim-upload add --interface bpf /unsigned", `not signed`, 1)
		s.addAfter("foreign", "/diglim-upload add --interface bpf /foreign", `(?i)key`, 1)
		s.addAfter("another keyring", "/diglim-upload add --interface bpf --keyring /keys /foreign", `keyring`, 1)
		s.addAfter("weaker mode", "/diglim-upload add --interface bpf --mode log /signed", `mode`, 1)
		s.addAfter("weaker scope", "/diglim-upload add --interface bpf --scope vendor /signed", `scope|rules`, 1)
		s.addAfter("still denied", "/script", `not permitted`, 126)
		s.addAfter("signed", "GODEBUG=x=1 /diglim-upload add --interface bpf /signed", `^bpf: 1 digest from 1 list in .* s, mode enforce, `, 0)
		s.addAfter("known", "/script", `^ran\n$`, 0)
		s.addAfter("status after", "/diglim-upload status --interface bpf --json", `(?s)"locked": true,.*"generation": 2,`, 0)

		r, err := vm.Boot(ctx, writeMachine(t, ctx, k, s.plan, tree, files...))
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, r)
		checkKernelLog(t, r)
	})
}

// The kernel hashes files with another algorithm, and so must lists: unless it
// falls back on SHA-256, because the other one is a module, as that of Linux 6.1
// here is.
func TestUploadAlgorithm(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		files, known := uploaderFiles(t, ctx)
		init, err := os.ReadFile(filepath.Join(filepath.Dir(files[1].Path), "init"))
		if err != nil {
			t.Fatal(err)
		}
		contents := [][]byte{init, []byte(scriptText)}
		for _, f := range files {
			data, err := os.ReadFile(f.Path)
			if err != nil {
				t.Fatal(err)
			}
			contents = append(contents, data)
		}
		var long []digest.Digest
		for _, c := range contents {
			long = append(long, digest.Sum(digest.SHA512, c))
		}
		list, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{{Type: digestlist.File, Algorithm: digest.SHA512, Digests: long}})
		if err != nil {
			t.Fatal(err)
		}
		known = append(known, digest.Sum(digest.SHA256, []byte(scriptText)))
		files = append(files,
			vm.File{Name: "sha256/0-file_list-compact-x", Mode: 0o644, Data: listOf(t, digestlist.File, known...)},
			vm.File{Name: "sha512/0-file_list-compact-x", Mode: 0o644, Data: list},
			vm.File{Name: "script", Mode: 0o755, Data: []byte(scriptText)},
			vm.File{Name: "unknown", Mode: 0o755, Data: []byte(scriptText + "\n")})
		right, wrong := "sha512", "sha256"
		if strings.HasPrefix(k.Release, "6.1.") {
			right, wrong = wrong, right
		}
		var s steps
		s.add("wrong", "/diglim-upload add --interface bpf --mode enforce /"+wrong, `is in no list: .* \(`+right+`:`, 1)
		s.add("right", "/diglim-upload add --interface bpf --mode enforce --scope all /"+right, `^bpf: 4 digests from 1 list in .* s, mode enforce, [^;]*\n$`, 0)
		s.add("useless", "/diglim-upload add --interface bpf /"+wrong, `; 4 digests that cannot match: the kernel measures with `+right+`\n$`, 0)
		s.add("known", "/script", `^ran\n$`, 0)
		s.add("unknown", "/unknown", `not permitted`, 126)
		m := writeMachine(t, ctx, k, s.plan, t.TempDir(), files...)
		m.Cmdline = "ima_hash=sha512"
		r, err := vm.Boot(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, r)
	})
}
