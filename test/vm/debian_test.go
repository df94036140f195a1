package vm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/rpmtest"
	"diglim/test/vm"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"golang.org/x/sys/unix"
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
// package probe has three versions and some packages of the system are newer,
// signed by key. Beside it is a package, stray, that is in no suite.
type debianRepository struct {
	dir string
	key *openpgp.Entity
}

// probe is the program of a version of a package.
func probe(name, version string) string {
	return fmt.Sprintf("#!/bin/sh\n/usr/libexec/%s && echo %[1]s %s\n", name, version)
}

// probePackage is a package whose scripts run its own program, as the scripts
// of services do. Where /run/kill is there dpkg is killed when version 2 is about
// to be configured.
func probePackage(name, version string) map[string]string {
	script := func(verb, commands string) string {
		return fmt.Sprintf("#!/bin/sh\n# %s of %s %s\nset -e\n%s", verb, name, version, commands)
	}
	kill := ""
	if version == "2" {
		kill = "if [ -e /run/kill ]; then kill -KILL $PPID; exit 1; fi\n"
	}
	return map[string]string{
		"DEBIAN/control": fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: x <x@example.org>\nDescription: x\n", name, version),
		"DEBIAN/preinst": script("preinst", ""), "DEBIAN/postinst": script("postinst", kill+name+"\n"),
		"DEBIAN/prerm": script("prerm", name+"\n"), "DEBIAN/postrm": script("postrm", ""),
		"usr/bin/" + name: probe(name, version), "usr/libexec/" + name: string(exitProgram()) + name + version,
	}
}

// newerPackages are those of the system that the repository has in a newer version.
// dash is the shell that runs all of dpkg's scripts, and those of the hooks.
var newerPackages = flag.String("newer", "dash", "the packages of the Debian system that are upgraded beside probe")

func newDebianRepository(t *testing.T, ctx context.Context, d vm.Debian) debianRepository {
	t.Helper()
	r := debianRepository{t.TempDir(), rpmtest.NewKey(t, "archive", nil)}
	var index strings.Builder
	build := func(tree, name string) {
		command(t, "dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, filepath.Join(r.dir, name))
	}
	publish := func(tree, name string) {
		build(tree, name)
		deb := read(t, filepath.Join(r.dir, name))
		fmt.Fprintf(&index, "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", read(t, filepath.Join(tree, "DEBIAN/control")), name, len(deb), sha256.Sum256(deb))
	}
	probe := func(name, version string) string {
		tree := t.TempDir()
		writeTree(t, tree, probePackage(name, version))
		return tree
	}
	for _, version := range []string{"1", "2", "3"} {
		publish(probe("probe", version), "probe_"+version+"_amd64.deb")
	}
	build(probe("stray", "1"), "stray.deb")
	for _, name := range strings.Fields(*newerPackages) {
		debs, err := filepath.Glob(filepath.Join(d.Debs, name+"_*.deb"))
		if err != nil || len(debs) != 1 {
			t.Fatalf("packages %s: %v %v", name, debs, err)
		}
		tree := filepath.Join(t.TempDir(), name)
		command(t, "dpkg-deb", "--raw-extract", debs[0], tree)
		newer(t, tree)
		publish(tree, name+".deb")
	}

	release := fmt.Sprintf("Suite: test\nCodename: test\nDate: %s\nArchitectures: amd64\nComponents: main\nSHA256:\n %x %d main/binary-amd64/Packages",
		time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 UTC"), sha256.Sum256([]byte(index.String())), index.Len())
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

// newer makes an unpacked package its next version, of which all programs and
// libraries are others that do the same.
func newer(t *testing.T, tree string) {
	t.Helper()
	control := filepath.Join(tree, "DEBIAN/control")
	write(t, control, regexp.MustCompile(`(?m)^Version: .*`).ReplaceAll(read(t, control), []byte("$0+newer")), 0o644)
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data := read(t, path)
		if !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
			return nil
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("newer")
		return errors.Join(err, f.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A debianStep is a command of root's shell after the login.
type debianStep struct {
	name, command string
	exit          int
	output        string // regular expression
}

// cutMark is written to the disk right before the upgrade.
const cutMark = "the upgrade begins"

// The sessions of a guest, each from a boot to its end. V1, V2 and V3 are the
// digests of the versions of the package probe, DASH that of the system's first
// shell.
var debianSessions = [][]debianStep{{
	{"booted", "systemctl is-system-running --wait", 0, `^running$`},
	{"enforce", "diglim-upload status --interface bpf --json", 0, `"mode": "enforce"`},
	{"update", "apt-get -q update", 0, `test/main amd64 Packages`},
	{"install", "apt-get -qy install probe=1", 0, `(?m)^probe 1$`},
	{"run", "probe", 0, `^probe 1$`},
	{"known", "diglim-upload query V1", 0, ``},

	// What no archive vouches for is refused, until the owner does.
	{"stray", "dpkg -i /mnt/stray.deb", 2, `no list of /mnt/stray.deb: refused: .* no signature`},
	{"stray by apt", "apt-get -qy install /mnt/stray.deb", 100, `no list of /mnt/stray.deb: refused: .* no signature`},
	{"not unpacked", "ls /usr/bin/stray", 2, ``},
	{"vouch", "/usr/libexec/diglim/dpkg-lists vouch /mnt/stray.deb", 0, ``},
	{"vouched for", "cd /mnt && dpkg -i stray.deb", 0, `(?m)^stray 1$`},

	{"kill", "touch /run/kill && dpkg -i /mnt/probe_2_amd64.deb", 128 + int(unix.SIGKILL), `Setting up probe \(2\)`},
	{"half", "dpkg-query --show --showformat '${Version} ${db:Status-Status}\n' probe", 0, `^2 half-configured$`},
	{"both", "diglim-upload query V1 V2", 0, ``},
	{"configure", "rm /run/kill && dpkg --configure -a", 0, `(?m)^probe 2$`},
	{"old", "diglim-upload query V1", 1, `not known`},

	{"upgrade", "echo " + cutMark + " >/root/mark && sync && apt-get -qy install probe=3 NEWER", 0, `(?m)^probe 3$`},
	{"upgraded", "diglim-upload query V3", 0, ``},
	{"denied", "denied", 0, `^0$`},
}, {
	{"booted", "systemctl is-system-running --wait", 0, `^running$`},
	{"enforce", "diglim-upload status --interface bpf --json", 0, `"mode": "enforce"`},
	{"half", "dpkg --audit", 0, ``},
	{"run", "probe", 0, `^probe [23]$`},
	{"finish", "finish && apt-get -qy install probe=3 NEWER", 0, ``},
	{"run new", "probe", 0, `^probe 3$`},
	{"old", "diglim-upload query V2", 1, `not known`},
	{"old shell", "diglim-upload query DASH", 1, `not known`},
	{"new", "diglim-upload query V3", 0, ``},
	{"remove", "dpkg --remove probe", 0, `(?m)^probe 3$`},
	{"removed", "diglim-upload query V3", 1, `not known`},
	{"purge", "dpkg --purge probe", 0, `Purging`},
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
# What dpkg says to do: what was cut off while it was unpacked must be once more.
finish() {
	dpkg --configure -a
	mess=$(dpkg-query --show --showformat '${db:Status-Eflag} ${Package}\n' | sed -n 's/^reinstreq //p')
	[ -z "$mess" ] || apt-get -qy install --reinstall $mess
	apt-get -qyf install
}
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
		t.Error("no login")
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
	if line := kernelTrouble.FindString(console); line != "" {
		t.Errorf("the kernel complains: %s", line)
	}
	if t.Failed() {
		t.Logf("console:\n%s", console)
	}
}

// Power cuts are at random. More of them than a test has time for are made with
//
//	go test ./test/vm -run TestDebian -args -cuts 20
var (
	cuts    = flag.Int("cuts", 1, "how many power cuts each test of them makes on a kernel")
	cutSeed = flag.Uint64("cut-seed", rand.Uint64(), "of the first power cut; the next has the next")
)

// eachCut cuts a machine off that has run to its end already, from a copy of its
// disk at the start and the log of what it wrote since. Each test finds the disk
// as the cut left it.
func eachCut(t *testing.T, start, log string, test func(t *testing.T, ctx context.Context, disk string)) {
	for seed := *cutSeed; seed < *cutSeed+uint64(*cuts); seed++ {
		t.Run(fmt.Sprintf("cut %d", seed), func(t *testing.T) {
			disk := filepath.Join(t.ArtifactDir(), "disk") // kept with -artifacts, to look at
			command(t, "cp", "--sparse=always", start, disk)
			said, err := vm.Cut(disk, log, []byte(cutMark+"\n"), rand.New(rand.NewPCG(seed, 0)))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(said)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			test(t, ctx, disk)
		})
	}
}

// A Debian system boots to a login under a gate that enforces, by the initramfs
// that its own update-initramfs made and by lists made of its packages, and
// nothing of it is denied: not while packages are installed, removed and
// upgraded, and not after an upgrade was cut off.
func TestDebian(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("debootstrap takes root")
		}
		t.Skip("debootstrap takes root")
	}
	vm.Require(t)
	system := newDebianSystem(t)
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		dir := t.TempDir()
		m := vm.Machine{Kernel: k, Initrd: system.initrd(k), Second: system.second,
			Disk: filepath.Join(dir, "disk"), WriteLog: filepath.Join(dir, "writes")}
		boot := func(t *testing.T, ctx context.Context, m vm.Machine, session int) {
			m.Cmdline = fmt.Sprintf("root=/dev/vda rootfstype=ext4 rw session=%d", session)
			console, err := vm.Console(ctx, m)
			if err != nil {
				t.Error(err)
			}
			checkSession(t, debianSessions[session], console)
		}
		command(t, "cp", "--sparse=always", system.disk, m.Disk)
		write(t, m.WriteLog, nil, 0o600)
		boot(t, ctx, m, 0)
		eachCut(t, system.disk, m.WriteLog, func(t *testing.T, ctx context.Context, disk string) {
			m := m
			m.Disk, m.WriteLog, m.Initrd = disk, "", filepath.Join(t.TempDir(), "initrd")
			command(t, "e2fsck", "-y", "-E", "journal_only", disk)
			command(t, "debugfs", "-R", "dump /boot/initrd.img-"+k.Release+" "+m.Initrd, disk)
			boot(t, ctx, m, 1)
		})
	})
}

// A debianSystem is a Debian system that has the hooks, and a second disk with
// the repository.
type debianSystem struct {
	root, disk, second string
}

// initrd is what a boot loader takes.
func (s debianSystem) initrd(k vm.Kernel) string {
	return filepath.Join(s.root, "boot/initrd.img-"+k.Release)
}

func newDebianSystem(t *testing.T) debianSystem {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := vm.Bootstrap(ctx)
	must(err)
	dir := t.TempDir()
	s := debianSystem{filepath.Join(dir, "root"), filepath.Join(dir, "disk"), filepath.Join(dir, "second")}
	must(os.Mkdir(s.root, 0o755))
	must(d.Copy(ctx, s.root))
	own := filepath.Join(dir, "own")
	makeInstall(t, "install-apt", own)
	command(t, "cp", "-a", own+"/.", s.root)

	repo := newDebianRepository(t, ctx, d)
	_, key, cert := certificate(t, t.TempDir())
	sha := func(data []byte) string { return digest.Sum(digest.SHA256, data).String() }
	profile := strings.NewReplacer("V1", sha([]byte(probe("probe", "1"))), "V2", sha([]byte(probe("probe", "2"))), "V3", sha([]byte(probe("probe", "3"))),
		"NEWER", *newerPackages, "DASH", sha(read(t, filepath.Join(s.root, "usr/bin/dash")))).Replace(debianProfile())
	writeTree(t, s.root, map[string]string{
		"etc/diglim/owner.key":           string(read(t, key)),
		"etc/diglim/keys/owner.pem":      string(read(t, cert)),
		"etc/diglim/boot.conf":           "mode enforce\nscope all\n",
		"etc/apt/sources.list":           "deb file:/mnt test main\n",
		"etc/apt/trusted.gpg.d/test.gpg": string(rpmtest.Public(t, repo.key)),
		"etc/hostname":                   "guest\n",
		"root/.bash_profile":             profile,
		"etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf": "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear ttyS0 115200 linux\n",
	})
	lists, bin := filepath.Join(s.root, "etc/digest_lists"), filepath.Join(s.root, "usr/bin")
	gen, upload := filepath.Join(bin, "diglim-gen"), filepath.Join(bin, "diglim-upload")
	debs, err := d.PackageFiles()
	must(err)
	t.Log(command(t, gen, append([]string{"deb", "--keyring", "/usr/share/keyrings/debian-archive-keyring.gpg", "--apt-lists", d.Apt, "--output", lists}, debs...)...))
	command(t, gen, "files", "--type", "parser", "--label", "diglim-upload", "--output", lists, upload)
	command(t, gen, "files", "--label", "diglim", "--output", lists, own)
	made, err := filepath.Glob(filepath.Join(lists, "0-*"))
	must(err)
	command(t, gen, append([]string{"sign", "--key", key, "--cert", cert}, made...)...)

	for _, series := range vm.Series {
		k, err := vm.Fetch(ctx, series)
		must(err)
		must(vm.WriteModules(ctx, k, s.root))
		config := "boot/config-" + k.Release
		write(t, filepath.Join(s.root, config), read(t, filepath.Join(k.Dir, config)), 0o644)
		t.Log(command(t, "chroot", s.root, "/usr/sbin/update-initramfs", "-c", "-k", k.Release))
	}
	must(vm.WriteJournaledDisk(ctx, s.disk, s.root, 512<<20))
	must(vm.WriteDisk(ctx, s.second, repo.dir, 32<<20))
	return s
}
