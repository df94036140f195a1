// Package story is the whole of what this project is for, played once in a
// guest: packages are built and signed, lists are made of them, a stock kernel
// boots and has a gate before anything else runs, its TPM quotes what was run,
// one program is changed by a byte and run again, the TPM quotes that, and then
// the gate is told to deny what it does not know.
//
// Every file that the guest reads or runs comes from one of the packages, down
// to its first process and the modules of its disk.
package story

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"diglim/test/vm"
	"diglim/test/vm/plan"
	"diglim/test/vm/rpmbuild"

	"github.com/sassoftware/go-rpmutils"
)

// A Story is a directory in which the story is played. Its files:
//
//	bin/         the three programs, as the guest has them
//	packages/    signed packages of all that the guest runs
//	vendor.asc   the key that signed them
//	lists/       their digest lists, made by whoever tells the story
//	evidence/before/, evidence/after/   what the guest collected
//	told.json    what was run in the guest, and what it printed
type Story struct {
	Dir    string
	Kernel vm.Kernel
	Told
}

// Told is what there is to tell when the guest has played its part.
type Told struct {
	Release string // of the guest's kernel

	// What a verifier asked the guest, before and after the change.
	NonceBefore, NonceAfter string

	Runs []Run // in the guest, in order
}

// Paths of what the story is about, in the guest.
const (
	Hello = "/usr/bin/hello"
	Lists = "/etc/digest_lists"
)

// Denied is the command that the gate denies.
const Denied = "denied"

// A Run is a command that was run in the guest.
type Run struct {
	Name   string // of the plan
	Argv   []string
	Output string
	Exit   int
}

// New begins a story in an empty directory.
func New(dir string, k vm.Kernel) *Story {
	nonce := func() string {
		b := make([]byte, 20)
		rand.Read(b) // never fails
		return hex.EncodeToString(b)
	}
	return &Story{dir, k, Told{Release: k.Release, NonceBefore: nonce(), NonceAfter: nonce()}}
}

func (s *Story) path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

func (s *Story) plan() plan.Plan {
	sh := func(script string) []string { return []string{"/bin/busybox", "sh", "-c", script} }
	collect := func(dir, nonce string) []string {
		return []string{"/usr/bin/attest-verify", "collect", "--nonce", nonce, "--output", plan.Out + "/" + dir}
	}
	return plan.Plan{
		Early: []plan.Command{
			{Name: "upload", Argv: []string{"/usr/bin/diglim-upload", "add", Lists}},
			{Name: "status", Argv: []string{"/usr/bin/diglim-upload", "status"}},
		},
		Commands: []plan.Command{
			{Name: "hello", Argv: []string{Hello}},
			{Name: "collect", Argv: collect("before", s.NonceBefore)},
			{Name: "change", Argv: sh("printf x >> " + Hello)},
			{Name: "hello-again", Argv: []string{Hello}},
			{Name: "watch", Argv: sh("timeout 2 diglim-upload watch --since boot")},
			{Name: "collect-again", Argv: collect("after", s.NonceAfter)},
			{Name: "enforce", Argv: []string{"/usr/bin/diglim-upload", "replace", "--mode", "enforce", Lists}},
			{Name: Denied, Argv: sh(Hello)},
			{Name: "status-again", Argv: []string{"/usr/bin/diglim-upload", "status"}},
		},
	}
}

// Missing returns the names of the Debian packages that must be installed for
// the guest's part of the story.
func Missing() []string {
	missing := vm.Missing()
	for _, p := range []struct{ name, debian string }{
		{"rpmbuild", "rpm"}, {"gpg", "gnupg"}, {"/bin/busybox", "busybox-static"},
	} {
		if _, err := exec.LookPath(p.name); err != nil {
			missing = append(missing, p.debian)
		}
	}
	return missing
}

// Build builds the three programs.
func (s *Story) Build(ctx context.Context) error {
	for _, name := range []string{"diglim-gen", "diglim-upload", "attest-verify"} {
		if err := vm.Build(ctx, s.path("bin", name), "diglim/cmd/"+name); err != nil {
			return err
		}
	}
	return nil
}

// Package builds the programs and packs and signs all that the guest needs.
func (s *Story) Package(ctx context.Context) error {
	if err := s.Build(ctx); err != nil {
		return err
	}
	if err := vm.Build(ctx, s.path("stage", "hello"), "diglim/test/vm/story/hello"); err != nil {
		return err
	}
	boot, err := vm.InitFiles(ctx, s.path("stage"), s.Kernel, s.plan())
	if err != nil {
		return err
	}
	p, err := rpmbuild.New(ctx, s.path("packages"), s.path("vendor.asc"), "rsa3072")
	if err != nil {
		return err
	}
	err = errors.Join(
		p.Pack(ctx, "guest-boot", boot...),
		p.Pack(ctx, "busybox", vm.File{Name: "bin/busybox", Mode: 0o755, Path: "/bin/busybox"}),
		p.Pack(ctx, "diglim",
			vm.File{Name: "usr/bin/diglim-upload", Mode: 0o755, Path: s.path("bin", "diglim-upload")},
			vm.File{Name: "usr/bin/attest-verify", Mode: 0o755, Path: s.path("bin", "attest-verify")},
			vm.File{Name: "etc/diglim/keys/vendor.asc", Mode: 0o644, Path: s.path("vendor.asc")}),
		p.Pack(ctx, "hello", vm.File{Name: "usr/bin/hello", Mode: 0o755, Path: s.path("stage", "hello")}))
	return errors.Join(err, p.Close())
}

// Boot installs the packages and the lists in an initramfs and on a disk, and
// plays the guest's part of the story.
func (s *Story) Boot(ctx context.Context) error {
	initramfs, disk := s.path("initramfs"), s.path("root")
	packages, err := filepath.Glob(s.path("packages", "*.rpm"))
	if err != nil {
		return err
	}
	for _, pkg := range packages {
		if err := errors.Join(install(pkg, initramfs), install(pkg, disk)); err != nil {
			return err
		}
	}
	for _, root := range []string{initramfs, disk} {
		if err := os.CopyFS(filepath.Join(root, Lists), os.DirFS(s.path("lists"))); err != nil {
			return err
		}
	}
	files, err := tree(initramfs)
	if err != nil {
		return err
	}
	m := vm.Machine{
		Kernel: s.Kernel, Initrd: s.path("initrd"), Disk: s.path("disk"), TPM: true, Memory: 768,
		// On a ramfs, unlike on a tmpfs, IMA's policy measures the initramfs too.
		Cmdline: "ima_policy=tcb rootfstype=ramfs",
	}
	if err := vm.WriteArchive(m.Initrd, files); err != nil {
		return err
	}
	if err := vm.WriteDisk(ctx, m.Disk, disk, 128<<20); err != nil {
		return err
	}
	result, err := vm.Boot(ctx, m)
	if err != nil {
		return err
	}
	return s.keep(result)
}

// keep saves what the guest left.
func (s *Story) keep(r vm.Result) error {
	p := s.plan()
	for _, c := range append(p.Early, p.Commands...) {
		output, exit, err := r.Command(c.Name)
		if err != nil {
			return err
		}
		s.Runs = append(s.Runs, Run{c.Name, c.Argv, output, exit})
	}
	b, err := json.MarshalIndent(s.Told, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("told.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	if err := os.MkdirAll(s.path("evidence"), 0o755); err != nil {
		return err
	}
	if log, err := r.KernelLog(); err != nil {
		return err
	} else if err := os.WriteFile(s.path("kernel.log"), []byte(log), 0o644); err != nil {
		return err
	}
	return errors.Join(
		os.Rename(filepath.Join(r.Out, "before"), s.path("evidence", "before")),
		os.Rename(filepath.Join(r.Out, "after"), s.path("evidence", "after")))
}

// Load returns a story whose guest has played its part.
func Load(dir string) (*Story, error) {
	s := &Story{Dir: dir}
	b, err := os.ReadFile(s.path("told.json"))
	if err != nil {
		return nil, err
	}
	return s, json.Unmarshal(b, &s.Told)
}

// install unpacks a package's payload below root.
func install(pkg, root string) error {
	f, err := os.Open(pkg)
	if err != nil {
		return err
	}
	defer f.Close()
	rpm, err := rpmutils.ReadRpm(f)
	if err != nil {
		return fmt.Errorf("%s: %w", pkg, err)
	}
	if err := rpm.ExpandPayload(root); err != nil {
		return fmt.Errorf("%s: %w", pkg, err)
	}
	files, err := rpm.Header.GetFiles()
	if err != nil {
		return fmt.Errorf("%s: %w", pkg, err)
	}
	for _, f := range files { // ExpandPayload leaves permissions to us
		if err := os.Chmod(filepath.Join(root, f.Name()), fs.FileMode(f.Mode()).Perm()); err != nil {
			return err
		}
	}
	return nil
}

// tree returns the regular files below a directory, for an archive.
func tree(dir string) ([]vm.File, error) {
	var files []vm.File
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files = append(files, vm.File{Name: name, Mode: info.Mode().Perm(), Path: path})
		return nil
	})
	return files, err
}
