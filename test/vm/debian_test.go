package vm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
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

// command runs a program of the host and returns what it said.
func command(t *testing.T, ctx context.Context, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// writeTree writes files below dir: those in a directory bin or libexec, or of
// a package's scripts, are programs.
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
		}
		if err := os.WriteFile(path, []byte(data), mode); err != nil {
			t.Fatal(err)
		}
	}
}

// A debianRepository is a repository with one suite, "test", in which the
// package probe has two versions, signed by key. Beside it is a package that is
// in no suite.
type debianRepository struct {
	dir string
	key *openpgp.Entity
}

// probe is the program of a version of the package.
func probe(version string) string {
	return "#!/bin/sh\n/usr/libexec/probe && echo probe " + version + "\n"
}

// probePackage is a package whose scripts run its own program, as the scripts
// of services do. That of version 2 cuts the machine off when it is configured
// while /run/cut is there.
func probePackage(version string) map[string]string {
	script := func(more string) string {
		return "#!/bin/sh\nset -e\n# " + version + "\n" + more
	}
	return map[string]string{
		"DEBIAN/control": "Package: probe\nVersion: " + version + "\nArchitecture: amd64\nMaintainer: x <x@example.org>\nDescription: x\n",
		"DEBIAN/preinst": script(""), "DEBIAN/prerm": script("probe\n"), "DEBIAN/postrm": script(""),
		"DEBIAN/postinst": script("[ ! -e /run/cut ] || [ " + version + " = 1 ] || echo b >/proc/sysrq-trigger\nprobe\n"),
		"usr/bin/probe":   probe(version), "usr/libexec/probe": string(exitProgram()) + version,
	}
}

func newDebianRepository(t *testing.T, ctx context.Context) debianRepository {
	r := debianRepository{t.TempDir(), rpmtest.NewKey(t, "archive", nil)}
	build := func(files map[string]string, name string) []byte {
		tree, path := t.TempDir(), filepath.Join(r.dir, name)
		writeTree(t, tree, files)
		writeTree(t, r.dir, map[string]string{name: ""})
		command(t, ctx, "dpkg-deb", "--root-owner-group", "--build", tree, path)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var index bytes.Buffer
	for _, version := range []string{"1", "2"} {
		files, name := probePackage(version), "pool/probe_"+version+"_amd64.deb"
		deb := build(files, name)
		fmt.Fprintf(&index, "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", files["DEBIAN/control"], name, len(deb), sha256.Sum256(deb))
	}
	stray := probePackage("3")
	stray["DEBIAN/control"] = strings.Replace(stray["DEBIAN/control"], "probe", "stray", 1)
	build(stray, "stray.deb")

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

// debianSession is what root's shell does after the login. Each step says how
// it ended, and what had been denied by then.
const debianSession = `
denied() { diglim-upload status --interface bpf --json | sed -n 's/.*"denied": \([0-9]*\).*/\1/p'; }
step() {
	local name=$1 code=0
	shift
	echo "@begin $name"
	"$@" </dev/null 2>&1 || code=$?
	echo "@end $name $code $(denied)"
}
export DEBIAN_FRONTEND=noninteractive
mount -o ro /dev/vdb /mnt
step booted systemctl is-system-running --wait
case $(cat /proc/cmdline) in
*session=install*)
	step update apt-get -q update
	step install apt-get -qy install probe=1
	step run probe
	step known diglim-upload query V1
	step remove apt-get -qy remove probe
	step unknown diglim-upload query V1
	step purge apt-get -qy purge probe
	step stray dpkg -i /mnt/stray.deb
	step stray-apt apt-get -qy install /mnt/stray.deb
	step dpkg dpkg -i /mnt/pool/probe_1_amd64.deb
	step run-again probe
	touch /run/cut
	step cut apt-get -qy install probe=2
	;;
*)
	step half dpkg-query --show --showformat '${Version} ${db:Status-Status}' probe
	step both diglim-upload query V1 V2
	step finish dpkg --configure -a
	step run probe
	step old diglim-upload query V1
	step new diglim-upload query V2
	step purge apt-get -qy purge probe
	step unknown diglim-upload query V2
	cp /bin/true /usr/bin/unknown && echo >>/usr/bin/unknown
	step denied unknown
	;;
esac
diglim-upload status
timeout 3 diglim-upload watch --since boot
systemctl poweroff
`

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
				{Name: "upload", Argv: []string{"/diglim-upload", "add", "--interface", "bpf", "--mode", mode, "--scope", "all",
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
		command(t, ctx, "cp", "--sparse=always", disk, m.Disk)
		for _, session := range []string{"install", "finish"} {
			m.Cmdline = "session=" + session
			r, err := vm.Boot(ctx, m)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(r.Console)
		}
	})
}

var mode = os.Getenv("XMODE")

func shellEarly(name, script string) plan.Command {
	return plan.Command{Name: name, Argv: []string{"/busybox", "sh", "-c", script}}
}

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
	session := strings.NewReplacer("V1", sha(probe("1")), "V2", sha(probe("2"))).Replace(debianSession)
	writeTree(t, tree, map[string]string{
		"usr/libexec/diglim/dpkg-lists":  content("../../dist/apt/dpkg-lists"),
		"etc/apt/apt.conf.d/00diglim":    content("../../dist/apt/00diglim"),
		"etc/dpkg/dpkg.cfg.d/diglim":     content("../../dist/apt/dpkg.cfg"),
		"etc/diglim/owner.key":           content(key),
		"etc/diglim/keys/owner.pem":      content(cert),
		"etc/apt/sources.list":           "deb file:/mnt test main\n",
		"etc/apt/trusted.gpg.d/test.gpg": string(rpmtest.Public(t, repo.key)),
		"etc/hostname":                   "guest\n",
		"root/.bash_profile":             session,
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
	t.Log(command(t, ctx, gen, append([]string{"deb", "--keyring", "/usr/share/keyrings/debian-archive-keyring.gpg", "--apt-lists", d.Apt, "--output", lists}, debs...)...))
	command(t, ctx, gen, "files", "--type", "parser", "--label", "diglim-upload", "--output", lists, upload)
	command(t, ctx, gen, "files", "--label", "diglim", "--output", lists, gen, upload, filepath.Join(tree, "usr/libexec/diglim/dpkg-lists"))
	made, err := filepath.Glob(filepath.Join(lists, "0-*"))
	if err != nil {
		t.Fatal(err)
	}
	command(t, ctx, gen, append([]string{"sign", "--key", key, "--cert", cert}, made...)...)

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
	command(t, ctx, gen, "files", "--label", "initramfs", "--output", own, init, "/bin/busybox", upload)
	return disk, second, []vm.File{
		{Name: "busybox", Mode: 0o755, Path: "/bin/busybox"},
		{Name: "diglim-upload", Mode: 0o755, Path: upload},
		{Name: "etc/diglim/keys/owner.pem", Mode: 0o644, Path: cert},
		{Name: "etc/digest_lists/0-file_list-compact-initramfs", Mode: 0o644, Path: filepath.Join(own, "0-file_list-compact-initramfs")},
	}
}
