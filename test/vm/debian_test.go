package vm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/rpmtest"
	"diglim/test/vm"
	"diglim/test/vm/plan"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// writeTree writes files below dir. Those in a directory bin or libexec, and a
// package's scripts, are programs; keys are for nobody else to read.
func writeTree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	program := regexp.MustCompile(`(^|/)(bin/|libexec/|DEBIAN/(pre|post))`)
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if program.MatchString(name) {
			mode = 0o755
		} else if strings.HasSuffix(name, ".key") {
			mode = 0o600
		}
		if err := os.WriteFile(path, []byte(data), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// A debianRepository is a repository with one suite, "test", in which the
// package probe has two versions, signed by key. Beside it is a package, stray,
// that is in no suite.
type debianRepository struct {
	dir string
	key *openpgp.Entity
}

// probe is the program of a version of a package.
func probe(name, version string) string {
	return fmt.Sprintf("#!/bin/sh\n/usr/libexec/%s && echo %[1]s %s\n", name, version)
}

// probePackage is a package whose scripts run its own program, as the scripts
// of services do. Where /run/cut is there the machine is cut off when version 2
// is about to be configured.
func probePackage(name, version string) map[string]string {
	script := func(verb, commands string) string {
		return fmt.Sprintf("#!/bin/sh\n# %s of %s %s\nset -e\n%s", verb, name, version, commands)
	}
	cut := ""
	if version == "2" {
		cut = "[ ! -e /run/cut ] || echo b >/proc/sysrq-trigger\n"
	}
	return map[string]string{
		"DEBIAN/control": fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: x <x@example.org>\nDescription: x\n", name, version),
		"DEBIAN/preinst": script("preinst", ""), "DEBIAN/postinst": script("postinst", cut+name+"\n"),
		"DEBIAN/prerm": script("prerm", name+"\n"), "DEBIAN/postrm": script("postrm", ""),
		"usr/bin/" + name: probe(name, version), "usr/libexec/" + name: string(exitProgram()) + name + version,
	}
}

func newDebianRepository(t *testing.T, ctx context.Context) debianRepository {
	t.Helper()
	r := debianRepository{t.TempDir(), rpmtest.NewKey(t, "archive", nil)}
	build := func(path string, files map[string]string) []byte {
		tree := t.TempDir()
		writeTree(t, tree, files)
		command(t, "dpkg-deb", "--root-owner-group", "--build", tree, path)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var index bytes.Buffer
	for _, version := range []string{"1", "2"} {
		files, name := probePackage("probe", version), "probe_"+version+"_amd64.deb"
		deb := build(filepath.Join(r.dir, name), files)
		fmt.Fprintf(&index, "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", files["DEBIAN/control"], name, len(deb), sha256.Sum256(deb))
	}
	build(filepath.Join(r.dir, "stray.deb"), probePackage("stray", "1"))

	release := fmt.Sprintf("Suite: test\nCodename: test\nDate: %s\nArchitectures: amd64\nComponents: main\nSHA256:\n %x %d main/binary-amd64/Packages",
		time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 UTC"), sha256.Sum256(index.Bytes()), index.Len())
	var signed bytes.Buffer
	w, err := clearsign.Encode(&signed, r.key.PrivateKey, rpmtest.Config(time.Now(), nil))
	if err == nil {
		_, err = w.Write([]byte(release))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	writeTree(t, r.dir, map[string]string{
		"dists/test/InRelease": signed.String() + "\n", "dists/test/main/binary-amd64/Packages": index.String(),
	})
	return r
}

// A debianStep is a command of root's shell after the login.
type debianStep struct {
	name, command string
	exit          int
	output        string // regular expression
}

// The sessions of a guest, each from a boot to its end. V1 and V2 are the
// digests of the versions of the package probe.
var debianSessions = [][]debianStep{{
	{"booted", "systemctl is-system-running --wait", 0, `^running$`},
	{"update", "apt-get -q update", 0, `test/main amd64 Packages`},
	{"install", "apt-get -qy install probe=1", 0, `(?m)^probe 1$`},
	{"run", "probe", 0, `^probe 1$`},
	{"known", "diglim-upload query V1", 0, ``},
	{"remove", "dpkg --remove probe", 0, `(?m)^probe 1$`},
	{"removed", "diglim-upload query V1", 1, `not known`},
	{"purge", "dpkg --purge probe", 0, `Purging`},

	// What no archive vouches for is refused, until the owner does.
	{"stray", "dpkg -i /mnt/stray.deb", 2, `no list of /mnt/stray.deb: refused: .* no signature`},
	{"stray by apt", "apt-get -qy install /mnt/stray.deb", 100, `no list of /mnt/stray.deb: refused: .* no signature`},
	{"not unpacked", "ls /usr/bin/stray", 2, ``},
	{"vouch", "diglim-gen deb --allow-unsigned --output /etc/digest_lists /mnt/stray.deb && diglim-gen sign --key /etc/diglim/owner.key --cert /etc/diglim/keys/owner.pem /etc/digest_lists/0-file_list-compact-stray_1_amd64 && diglim-upload add /etc/digest_lists", 0, ``},
	{"vouched for", "cd /mnt && dpkg -i stray.deb", 0, `(?m)^stray 1$`},

	{"dpkg", "dpkg -i /mnt/probe_1_amd64.deb", 0, `(?m)^probe 1$`},
	{"denied", "denied", 0, `^0$`},
	{"cut", "touch /run/cut && apt-get -qy install probe=2", -1, `(?s)Setting up probe \(2\).*sysrq: Resetting`},
}, {
	{"booted", "systemctl is-system-running --wait", 0, `^running$`},
	{"half", "dpkg-query --show --showformat '${Version} ${db:Status-Status}\n' probe", 0, `^2 half-configured$`},
	{"both", "diglim-upload query V1 V2", 0, ``},
	{"finish", "dpkg --configure -a", 0, `(?m)^probe 2$`},
	{"run", "probe", 0, `^probe 2$`},
	{"old", "diglim-upload query V1", 1, `not known`},
	{"new", "diglim-upload query V2", 0, ``},
	{"purge", "apt-get -qy purge probe", 0, `(?m)^probe 2$`},
	{"purged", "diglim-upload query V2", 1, `not known`},
	{"none denied", "denied", 0, `^0$`},
	{"unknown", "cp /bin/true /usr/bin/unknown && echo >>/usr/bin/unknown && unknown", 126, `Operation not permitted`},
	{"one denied", "denied", 0, `^[1-9]`},
}}

// debianProfile returns what root's shell is to do: the session that the kernel
// command line has.
func debianProfile() string {
	var b strings.Builder
	b.WriteString(`export DEBIAN_FRONTEND=noninteractive
mount -o ro /dev/vdb /mnt
denied() { diglim-upload status --interface bpf --json | sed -n 's/.*"denied": \([0-9]*\),$/\1/p' | head -n 1; }
case $(cat /proc/cmdline) in
`)
	for i, steps := range debianSessions {
		fmt.Fprintf(&b, "*session=%d*)\n", i)
		for _, s := range steps {
			fmt.Fprintf(&b, "echo '@begin %s'; (%s) </dev/null 2>&1; echo \"@end $? after $SECONDS s\"\n", s.name, s.command)
		}
		b.WriteString(";;\n")
	}
	b.WriteString("esac\ntimeout 2 diglim-upload watch --since boot\nsystemctl poweroff\n")
	return b.String()
}

// checkSession compares what was written to the console with what had to be.
func checkSession(t *testing.T, steps []debianStep, console string) {
	t.Helper()
	console = strings.ReplaceAll(console, "\r", "")
	if !strings.Contains(console, "login: root (automatic login)") {
		t.Errorf("no login:\n%s", console)
	}
	for _, s := range steps {
		_, rest, begun := strings.Cut(console, "@begin "+s.name+"\n")
		output, end, ended := strings.Cut(rest, "@end ")
		exit := -1
		if ended {
			fmt.Sscan(end, &exit)
		}
		if !begun || exit != s.exit || !regexp.MustCompile(s.output).MatchString(strings.TrimSpace(output)) {
			t.Errorf("%s: exit code %d, want %d, output to match %s\n%s", s.name, exit, s.exit, s.output, output)
		}
	}
	if t.Failed() {
		t.Logf("console:\n%s", console)
	}
}

// A Debian system boots to a login under a gate that enforces, by lists made of
// its packages, and nothing of it is denied: not while packages are installed,
// removed and upgraded, and not after an upgrade was cut off.
func TestDebian(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("debootstrap takes root")
		}
		t.Skip("debootstrap takes root")
	}
	vm.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	disk, second, early := writeDebian(t, ctx)
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		p := plan.Plan{
			Early: []plan.Command{
				shellEarly("mount", "/busybox mkdir /sysroot && /busybox mount /dev/vda /sysroot"),
				{Name: "upload", Argv: []string{"/diglim-upload", "add", "--interface", "bpf", "--mode", "enforce", "--scope", "all",
					"--root", "/sysroot", "/etc/digest_lists", "/sysroot/etc/digest_lists"}},
				shellEarly("umount", "/busybox umount /sysroot"),
			},
			Init: []string{"/sbin/init"},
		}
		dir := t.TempDir()
		m := vm.Machine{Kernel: k, Initrd: filepath.Join(dir, "initrd"), Disk: filepath.Join(dir, "disk"), Second: second}
		if err := vm.WriteInitrd(ctx, m.Initrd, k, p, early...); err != nil {
			t.Fatal(err)
		}
		command(t, "cp", "--sparse=always", disk, m.Disk)
		for i, steps := range debianSessions {
			m.Cmdline = fmt.Sprintf("session=%d", i)
			// The disk of a machine that was cut off may have no results to read.
			r, err := vm.Boot(ctx, m)
			if last := i == len(debianSessions)-1; last && err != nil {
				t.Fatal(err)
			}
			checkSession(t, steps, r.Console)
		}
	})
}

func shellEarly(name, script string) plan.Command {
	return plan.Command{Name: name, Argv: []string{"/busybox", "sh", "-c", script}}
}

// writeDebian writes the disk of a Debian system that has the hooks, a second
// disk with the repository, and what the initramfs needs.
func writeDebian(t *testing.T, ctx context.Context) (disk, second string, early []vm.File) {
	d, err := vm.Bootstrap(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tree, lists := filepath.Join(dir, "tree"), filepath.Join(dir, "tree/etc/digest_lists")
	repo := newDebianRepository(t, ctx)
	_, key, cert := certificate(t, t.TempDir())
	content := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	sha := func(s string) string { return digest.Sum(digest.SHA256, []byte(s)).String() }
	profile := strings.NewReplacer("V1", sha(probe("probe", "1")), "V2", sha(probe("probe", "2"))).Replace(debianProfile())
	writeTree(t, tree, map[string]string{
		"usr/libexec/diglim/dpkg-lists":  content("../../dist/apt/dpkg-lists"),
		"etc/apt/apt.conf.d/00diglim":    content("../../dist/apt/00diglim"),
		"etc/dpkg/dpkg.cfg.d/diglim":     content("../../dist/apt/dpkg.cfg"),
		"etc/diglim/owner.key":           content(key),
		"etc/diglim/keys/owner.pem":      content(cert),
		"etc/apt/sources.list":           "deb file:/mnt test main\n",
		"etc/apt/trusted.gpg.d/test.gpg": string(rpmtest.Public(t, repo.key)),
		"etc/hostname":                   "guest\n",
		"root/.bash_profile":             profile,
		"out/" + plan.Finished:           "",
		"etc/digest_lists/.keep":         "",
		"etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf": "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear ttyS0 115200 linux\n",
	})
	bin := filepath.Join(tree, "usr/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"diglim-gen", "diglim-upload"} {
		if err := vm.Build(ctx, filepath.Join(bin, name), "diglim/cmd/"+name); err != nil {
			t.Fatal(err)
		}
	}
	gen, upload := filepath.Join(bin, "diglim-gen"), filepath.Join(bin, "diglim-upload")
	debs, err := d.PackageFiles()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(command(t, gen, append([]string{"deb", "--keyring", "/usr/share/keyrings/debian-archive-keyring.gpg", "--apt-lists", d.Apt, "--output", lists}, debs...)...))
	command(t, gen, "files", "--type", "parser", "--label", "diglim-upload", "--output", lists, upload)
	command(t, gen, "files", "--label", "diglim", "--output", lists, gen, upload, filepath.Join(tree, "usr/libexec/diglim/dpkg-lists"))
	made, err := filepath.Glob(filepath.Join(lists, "0-*"))
	if err != nil {
		t.Fatal(err)
	}
	command(t, gen, append([]string{"sign", "--key", key, "--cert", cert}, made...)...)

	disk, second = filepath.Join(dir, "disk"), filepath.Join(dir, "second")
	if err := d.WriteDisk(ctx, disk, 512<<20, tree); err != nil {
		t.Fatal(err)
	}
	if err := vm.WriteDisk(ctx, second, repo.dir, 8<<20); err != nil {
		t.Fatal(err)
	}
	// What the initramfs has vouches for itself.
	init := filepath.Join(dir, "init")
	if err := vm.Build(ctx, init, "diglim/test/vm/guestinit"); err != nil {
		t.Fatal(err)
	}
	own := t.TempDir()
	command(t, gen, "files", "--label", "initramfs", "--output", own, init, "/bin/busybox", upload)
	return disk, second, []vm.File{
		{Name: "busybox", Mode: 0o755, Path: "/bin/busybox"},
		{Name: "diglim-upload", Mode: 0o755, Path: upload},
		{Name: "etc/diglim/keys/owner.pem", Mode: 0o644, Path: cert},
		{Name: "etc/digest_lists/0-file_list-compact-initramfs", Mode: 0o644, Path: filepath.Join(own, "0-file_list-compact-initramfs")},
	}
}
