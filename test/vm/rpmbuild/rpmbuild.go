// Package rpmbuild builds packages with rpmbuild and signs them with rpmsign, as
// distributions do.
package rpmbuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"diglim/test/vm"
)

// vendor is who signs the packages.
const vendor = "Guest Vendor <vendor@example.org>"

// A Builder builds and signs packages with a key of its own.
type Builder struct {
	dir  string // where packages go
	work string // of rpmbuild and gpg; short, for gpg's sockets are in it
}

// New makes a vendor's key, of a kind that gpg knows (rsa3072), and writes its
// public half to keyFile. Packages will be written to dir.
func New(ctx context.Context, dir, keyFile, kind string) (*Builder, error) {
	work, err := os.MkdirTemp("", "rpm-")
	if err != nil {
		return nil, err
	}
	p := &Builder{dir, work}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if err := p.run(ctx, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", vendor, kind, "sign", "never"); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if err := p.run(ctx, "gpg", "--batch", "--quiet", "--armor", "--output", keyFile, "--export"); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close ends gpg's agent and removes the private key.
func (p *Builder) Close() error {
	return errors.Join(p.run(context.Background(), "gpgconf", "--kill", "all"), os.RemoveAll(p.work))
}

// A Package is what Build builds: files as they are, not stripped, not
// compressed further.
type Package struct {
	Name, Version string // the release is 1
	Files         []vm.File
	Tags          string // lines of the spec file, such as Requires: name
	Scripts       string // sections of the spec file, such as %post
}

const spec = `
%%global debug_package %%{nil}
%%global _build_id_links none
%%global __os_install_post %%{nil}
Name: %[1]s
Version: %[2]s
Release: 1
Summary: part of a test guest
License: Apache-2.0
AutoReqProv: no
%[3]s
%%description
Part of a test guest.
%%install
cp -a %%{_topdir}/stage/. %%{buildroot}/
%%files
%[4]s
%[5]s`

// Pack makes the package name-1.0-1 of files.
func (p *Builder) Pack(ctx context.Context, name string, files ...vm.File) error {
	return p.Build(ctx, Package{Name: name, Version: "1.0", Files: files})
}

// Build makes a package.
func (p *Builder) Build(ctx context.Context, pkg Package) error {
	stage := filepath.Join(p.work, "stage")
	if err := os.RemoveAll(stage); err != nil {
		return err
	}
	var list strings.Builder
	for _, f := range pkg.Files {
		path := filepath.Join(stage, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if f.Mode.Type() == fs.ModeSymlink {
			if err := os.Symlink(string(f.Data), path); err != nil {
				return err
			}
			fmt.Fprintf(&list, "/%s\n", f.Name)
			continue
		}
		if err := writeFile(path, f); err != nil {
			return err
		}
		fmt.Fprintf(&list, "%%attr(%o,root,root) /%s\n", f.Mode.Perm(), f.Name)
	}
	specFile := filepath.Join(p.work, pkg.Name+".spec")
	if err := os.WriteFile(specFile, fmt.Appendf(nil, spec, pkg.Name, pkg.Version, pkg.Tags, list.String(), pkg.Scripts), 0o644); err != nil {
		return err
	}
	return p.Spec(ctx, specFile)
}

// Spec makes the one package of a spec file. defines are macros, NAME VALUE.
func (p *Builder) Spec(ctx context.Context, specFile string, defines ...string) error {
	made := filepath.Join(p.dir, ".made") // on the same file system
	args := []string{"-bb", "--quiet"}
	for _, d := range append([]string{"_topdir " + p.work, "_rpmdir " + made,
		"_rpmfilename %{NVRA}.rpm", "_binary_payload w1.gzdio", "_buildhost build.example.org"}, defines...) {
		args = append(args, "--define", d)
	}
	if err := p.run(ctx, "rpmbuild", append(args, specFile)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(made, "*.rpm"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("rpmbuild made %v, %w", files, err)
	}
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		return err
	}
	// rpm's own idea of where gpg is differs from Debian's.
	if err := p.run(ctx, "rpmsign", "--define", "__gpg "+gpg, "--define", "_gpg_name "+vendor, "--addsign", files[0]); err != nil {
		return err
	}
	return os.Rename(files[0], filepath.Join(p.dir, filepath.Base(files[0])))
}

func writeFile(path string, f vm.File) error {
	if f.Path == "" {
		return os.WriteFile(path, f.Data, 0o644)
	}
	in, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// run runs a program with the builder's own GNUPGHOME. An error has all of
// what it wrote.
func (p *Builder) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+p.work, "HOME="+p.work)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}
