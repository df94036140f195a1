package vm_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"diglim/test/vm"
	"diglim/test/vm/plan"
	"diglim/test/vm/rpmbuild"

	"golang.org/x/sys/unix"
)

// requireRPM skips the test where a root cannot be made of packages. With
// CI=true in the environment it fails the test instead.
func requireRPM(t *testing.T) {
	t.Helper()
	vm.Require(t)
	var missing []string
	for _, name := range []string{"rpmbuild", "rpmsign", "rpm", "gpg", "ldd"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if os.Geteuid() != 0 {
		missing = append(missing, "root, for rpm --root")
	}
	switch {
	case missing == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("missing: %s", strings.Join(missing, ", "))
	default:
		t.Skipf("missing: %s", strings.Join(missing, ", "))
	}
}

// An rpmRoot is a system that packages were installed into, by rpm.
type rpmRoot struct {
	dir    string // the root
	keys   string // file with the key that signed the packages
	upload string // diglim-upload, as it is in the root
}

const (
	rpmPackages = "/packages" // in the guest: what is installed there
	rpmUpload   = "/usr/bin/diglim-upload"
	rpmBusybox  = "/bin/busybox"
)

// applets of busybox, which are what the root has of coreutils.
var applets = []string{"bin/cat", "bin/cp", "bin/grep", "bin/kill", "bin/ln", "bin/ls", "bin/mkdir", "bin/mktemp", "bin/mount",
	"bin/mv", "bin/rm", "bin/stat", "bin/sync", "usr/bin/realpath", "usr/bin/tr"}

// ends returns what a file has, and a text behind it: a program that does the
// same and has another digest.
func ends(t *testing.T, path, text string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return append(data, text...)
}

// libraries returns the files that a program needs to be loaded, where it looks
// for them.
func libraries(t *testing.T, ctx context.Context, program string) []vm.File {
	t.Helper()
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		t.Fatal(err)
	}
	var files []vm.File
	for line := range strings.Lines(string(out)) {
		for _, field := range strings.Fields(line) {
			if strings.HasPrefix(field, "/") {
				files = append(files, vm.File{Name: field[1:], Mode: 0o755, Data: ends(t, field, "")})
			}
		}
	}
	return files
}

// newRPMRoot makes the root, and packages for the guest. Its lists are what
// the package of this project's programs makes of rpm's database.
func newRPMRoot(t *testing.T, ctx context.Context) rpmRoot {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r := rpmRoot{dir: filepath.Join(dir, "root"), keys: filepath.Join(dir, "vendor.asc"), upload: filepath.Join(dir, "source/bin/diglim-upload")}
	repository, err := vm.Root()
	must(err)
	for _, name := range []string{"diglim-gen", "diglim-upload"} {
		must(vm.Build(ctx, filepath.Join(dir, "source/bin", name), "diglim/cmd/"+name))
	}
	must(os.CopyFS(filepath.Join(dir, "source/dist"), os.DirFS(filepath.Join(repository, "dist"))))
	must(os.Chmod(filepath.Join(dir, "source/dist/rpm/diglim-update"), 0o755))
	hello, init := filepath.Join(dir, "hello"), filepath.Join(dir, "init")
	must(vm.Build(ctx, hello, "diglim/test/vm/story/hello"))
	must(vm.Build(ctx, init, "diglim/test/vm/guestinit"))

	packages := filepath.Join(dir, "packages")
	b, err := rpmbuild.New(ctx, packages, r.keys, "rsa3072")
	must(err)
	defer func() { must(b.Close()) }()
	build := func(pkg rpmbuild.Package) {
		t.Helper()
		must(b.Build(ctx, pkg))
	}

	busybox := []vm.File{
		{Name: rpmBusybox[1:], Mode: 0o755, Path: rpmBusybox},
		{Name: "sbin/init", Mode: 0o755, Path: init},
	}
	for _, name := range applets {
		busybox = append(busybox, vm.File{Name: name, Mode: fs.ModeSymlink, Data: []byte(rpmBusybox)})
	}
	build(rpmbuild.Package{Name: "base", Version: "1.0", Files: busybox})
	program, err := exec.LookPath("rpm")
	must(err)
	build(rpmbuild.Package{Name: "rpm", Version: "1.0", Files: []vm.File{
		{Name: "bin/sh", Mode: 0o755, Path: "/bin/dash"}, // it maps the C library
		{Name: "usr/bin/rpm", Mode: 0o755, Path: program},
		{Name: "usr/lib/rpm/macros", Mode: 0o644, Path: "/usr/lib/rpm/macros"},
		{Name: "usr/lib/rpm/rpmrc", Mode: 0o644, Path: "/usr/lib/rpm/rpmrc"},
		{Name: "usr/lib/rpm/platform/x86_64-linux/macros", Mode: 0o644, Path: "/usr/lib/rpm/platform/x86_64-linux/macros"},
		{Name: "etc/rpm/macros", Mode: 0o644, Data: []byte("%_dbpath /var/lib/rpm\n")},
	}})
	libs := libraries(t, ctx, program)
	build(rpmbuild.Package{Name: "libs", Version: "1.0", Files: libs})
	must(b.Spec(ctx, filepath.Join(dir, "source/dist/rpm/diglim.spec"), "_sourcedir "+filepath.Join(dir, "source")))
	build(rpmbuild.Package{Name: "keys", Version: "1.0", Files: []vm.File{{Name: "etc/diglim/keys/vendor.asc", Mode: 0o644, Path: r.keys}}})
	left := func(version string) {
		build(rpmbuild.Package{Name: "left", Version: version, Files: []vm.File{{Name: "usr/bin/left", Mode: 0o755, Data: ends(t, hello, "left "+version)}}})
	}
	left("1.0")
	installed, err := filepath.Glob(filepath.Join(packages, "*.rpm"))
	must(err)

	// A new C library: whatever is started from then on maps it.
	for _, version := range []string{"2.0", "3.0", "4.0"} {
		for i, f := range libs {
			if filepath.Base(f.Name) == "libc.so.6" {
				libs[i].Data = append(libs[i].Data, version...)
			}
		}
		build(rpmbuild.Package{Name: "libs", Version: version, Files: libs, Scripts: "%post\n/usr/bin/rpm --version"})
	}
	for _, version := range []string{"1.0", "2.0"} {
		build(rpmbuild.Package{Name: "hello", Version: version, Files: []vm.File{
			{Name: "usr/bin/hello", Mode: 0o755, Data: ends(t, hello, version)},
			{Name: "usr/bin/hello-script", Mode: 0o755, Data: []byte("#!/bin/sh\necho script of hello " + version + "\n")},
		}, Scripts: "%post\n/usr/bin/hello\n%preun\n/usr/bin/hello-script\n%postun\necho hello " + version + " is gone"})
	}
	left("2.0")
	left("3.0")
	build(rpmbuild.Package{Name: "other", Version: "1.0", Files: []vm.File{{Name: "usr/bin/other", Mode: 0o755, Data: ends(t, hello, "other")}},
		Scripts: "%post\n/usr/bin/other"})
	// What is installed after hello, and has rpm killed before its own files come.
	build(rpmbuild.Package{Name: "cut", Version: "1.0", Tags: "Requires(pre): hello",
		Files:   []vm.File{{Name: "usr/bin/cut-program", Mode: 0o755, Data: ends(t, hello, "cut")}},
		Scripts: "%pre\nif [ -e /cut ]; then kill -9 $PPID; fi\n%post\n/usr/bin/cut-program"})

	must(os.MkdirAll(filepath.Join(r.dir, "var/lib/rpm"), 0o755))
	must(os.MkdirAll(filepath.Join(r.dir, "var/tmp"), 0o755))
	must(os.MkdirAll(filepath.Join(r.dir, "dev"), 0o755))
	must(unix.Mknod(filepath.Join(r.dir, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	cmd := exec.CommandContext(ctx, "rpm", append([]string{"--root", r.dir, "--dbpath", "/var/lib/rpm", "--nodeps", "-U"}, installed...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("rpm --root: %v\n%s", err, out)
	}
	lists, err := filepath.Glob(filepath.Join(r.dir, "etc/digest_lists/0-file_list-rpm-*"))
	if err != nil || len(lists) != len(installed) {
		t.Fatalf("lists %v, %v, of %d packages; rpm --root:\n%s", lists, err, len(installed), out)
	}
	must(os.CopyFS(filepath.Join(r.dir, rpmPackages), os.DirFS(packages)))
	must(os.WriteFile(filepath.Join(r.dir, "left-2.0"), ends(t, hello, "left 2.0"), 0o755)) // what the package has
	return r
}

// An rpmStep is something that is done in the guest.
type rpmStep struct {
	name, script string
	want         []string // in the output
	exit         int
}

// denied is the exit code of a shell that cannot execute a program.
const denied = 126

// boot boots the root in mode enforce, for all files, with the lists that it
// has, and carries out the steps.
func (r rpmRoot) boot(t *testing.T, ctx context.Context, m vm.Machine, steps []rpmStep) {
	t.Helper()
	p := plan.Plan{
		Early: []plan.Command{{Name: "enforce", Argv: []string{rpmBusybox, "sh", "-c",
			"mkdir /sysroot && mount -t ext4 /dev/vda /sysroot && " + rpmUpload + " add --mode enforce --scope all --root /sysroot /sysroot/etc/digest_lists && umount /sysroot"}}},
		Commands: []plan.Command{{Name: "run", Argv: []string{rpmBusybox, "mount", "-t", "tmpfs", "tmpfs", "/run"}}},
	}
	for _, s := range steps {
		p.Commands = append(p.Commands,
			plan.Command{Name: s.name, Argv: []string{"/bin/sh", "-c", s.script}})
	}
	p.Commands = append(p.Commands,
		plan.Command{Name: "status", Argv: []string{rpmUpload, "status", "--json"}},
		plan.Command{Name: "watch", Argv: []string{rpmBusybox, "timeout", "1", rpmUpload, "watch", "--since", "boot"}})
	if err := vm.WriteInitrd(ctx, m.Initrd, m.Kernel, p,
		vm.File{Name: rpmBusybox[1:], Mode: 0o755, Path: rpmBusybox},
		vm.File{Name: rpmUpload[1:], Mode: 0o755, Path: r.upload},
		vm.File{Name: "etc/diglim/keys/vendor.asc", Mode: 0o644, Path: r.keys}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	result, err := vm.Boot(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("guest of %d steps: %v", len(steps), time.Since(start).Round(time.Second))
	command := func(name string) (string, int) {
		t.Helper()
		out, exit, err := result.Command(name)
		if err != nil {
			t.Fatal(err)
		}
		return out, exit
	}
	if out, exit := command("enforce"); exit != 0 || !strings.Contains(out, "mode enforce") {
		t.Fatalf("enforce: exit %d\n%s", exit, out)
	}
	want := 0
	for _, s := range steps {
		out, exit := command(s.name)
		if exit != s.exit {
			t.Errorf("%s: exit %d, want %d\n%s", s.name, exit, s.exit, out)
		}
		for _, w := range s.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: %q is not in\n%s", s.name, w, out)
			}
		}
		if s.exit == denied {
			want++
		}
	}
	var status struct {
		Mode   string
		Denied *int
	}
	out, _ := command("status")
	if err := json.Unmarshal([]byte(out), &status); err != nil || status.Mode != "enforce" || status.Denied == nil {
		t.Fatalf("status: %v\n%s", err, out)
	}
	if *status.Denied != want {
		out, _ := command("watch")
		t.Errorf("%d denied, want %d:\n%s", *status.Denied, want, out)
	}
	checkKernelLog(t, result)
}

// Packages come and go in mode enforce and nothing that ought to run is denied,
// whoever installs them, and when that is cut off and finished later.
// What is gone is denied.
func TestRPMRoot(t *testing.T) {
	requireRPM(t)
	r := newRPMRoot(t, t.Context())
	const (
		// as a front end with a librpm of its own, and no hook
		unannounced = "/usr/libexec/diglim/rpm-transaction -U --nodeps "
		install     = "rpm -Uv --nodeps "
		pkg         = rpmPackages + "/"
		suffix      = "-1.x86_64.rpm "
		upgrade     = install + pkg + "hello-2.0" + suffix + pkg + "left-3.0" + suffix + pkg + "libs-4.0" + suffix
	)
	steps := []rpmStep{
		{name: "install", script: install + pkg + "hello-1.0" + suffix + "&& hello && cp /usr/bin/hello /hello-1.0 && ls /etc/digest_lists",
			want: []string{"hello\nhello\n", "0-file_list-rpm-hello-1.0-1.x86_64"}},
		{name: "unannounced", script: unannounced + pkg + "libs-2.0" + suffix + "&& ls /etc/digest_lists && ! ls -d /etc/digest_lists/*libs-1.0*",
			want: []string{"RPM version", "0-file_list-rpm-libs-2.0"}},
		{name: "not a package", script: "echo x >" + pkg + "bad.rpm; out=$(" + install + pkg + "bad.rpm 2>&1); r=$?; echo \"$out\"; case $out in *rpm-transaction*) exit 9 ;; esac; exit $r",
			want: []string{"diglim-update: some of the packages are not proved"}, exit: 1}, // and rpm is not even started
		// What there is when rpm is killed between renaming files and writing to the
		// database, made of its parts.
		{name: "left", script: "/usr/libexec/diglim/diglim-update add " + pkg + "left-2.0" + suffix + "&& cp -p /left-2.0 /usr/bin/left.new && mv /usr/bin/left.new /usr/bin/left && left && rpm -q left",
			want: []string{"hello\nleft-1.0"}},
		{name: "cut", script: ": >/cut; " + install + pkg + "hello-2.0" + suffix + pkg + "cut-1.0" + suffix + "; r=$?; hello; rpm -q hello; exit $r",
			want: []string{"Killed\nhello\nhello-1.0-1.x86_64\nhello-2.0-1.x86_64\n"}, exit: 128 + int(unix.SIGKILL)},
		// The set that the next boot would have.
		{name: "boot", script: "diglim-upload replace /etc/digest_lists && hello && left && /hello-1.0 && cp /usr/bin/hello /hello-2.0 && ls /etc/digest_lists",
			want: []string{"hello\nhello\nhello\n", "1-file_list-rpm-hello-2.0", "1-file_list-rpm-left-2.0", "1-file_list-rpm-cut-1.0"}},
		{name: "another", script: install + pkg + "other-1.0" + suffix + "&& hello && left && ls /etc/digest_lists",
			want: []string{"0-file_list-rpm-hello-2.0", "1-file_list-rpm-left-2.0", "1-file_list-rpm-cut-1.0"}},
		{name: "finish", script: "rm /cut; " + install + "--replacepkgs " + pkg + "left-2.0" + suffix + pkg + "hello-2.0" + suffix + pkg + "cut-1.0" + suffix + pkg + "libs-3.0" + suffix +
			"&& hello && left && cut-program && ! ls -d /etc/digest_lists/1-*", want: []string{"script of hello 2.0", "hello 1.0 is gone", "RPM version"}},
		{name: "old", script: "/hello-1.0", exit: denied},
		{name: "erase", script: "/hello-2.0 && rpm -e --nodeps hello && ! ls -d /etc/digest_lists/*hello*",
			want: []string{"script of hello 2.0", "hello 2.0 is gone"}},
		{name: "erased", script: "/hello-2.0", exit: denied},
	}
	// What the power cut is in.
	upgraded := []rpmStep{
		{name: "upgrade", script: "echo " + cutMark + " >/mark && sync && " + upgrade + "&& left && hello", want: []string{"RPM version"}},
	}
	finish := []rpmStep{
		{name: "run", script: "left && ls -l /etc/digest_lists; rpm -qa"},
		{name: "finish", script: upgrade + "--replacepkgs && hello && left && ! ls -d /etc/digest_lists/1-*"},
		{name: "old", script: "/left-2.0", exit: denied},
		{name: "erase", script: "rpm -e --nodeps left && ! ls -d /etc/digest_lists/*left*"},
	}
	start := filepath.Join(t.TempDir(), "disk")
	if err := vm.WriteJournaledDisk(t.Context(), start, r.dir, 256<<20); err != nil {
		t.Fatal(err)
	}
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		dir := t.TempDir()
		m := vm.Machine{Kernel: k, Initrd: filepath.Join(dir, "initrd"), Memory: 768,
			Disk: filepath.Join(dir, "disk")}
		command(t, "cp", "--sparse=always", start, m.Disk)
		if !strings.HasPrefix(k.Release, vm.Series[1]+".") {
			r.boot(t, ctx, m, steps)
			return // what a disk has after a power cut is not the kernel's matter
		}
		m.WriteLog = filepath.Join(dir, "writes")
		write(t, m.WriteLog, nil, 0o600)
		r.boot(t, ctx, m, append(steps, upgraded...))
		eachCut(t, start, m.WriteLog, func(t *testing.T, ctx context.Context, disk string) {
			m := m
			m.Disk, m.WriteLog = disk, ""
			r.boot(t, ctx, m, finish)
		})
	})
}
