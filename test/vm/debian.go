package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// debianPackages are what a Debian system has here besides its minimal base.
const debianPackages = "systemd-sysv,udev,login,kmod,apt,initramfs-tools,busybox,xz-utils,zstd"

// A Debian is a system that debootstrap made, and what it was made of.
type Debian struct {
	Root string // of the system, without the following
	Debs string // directory with the packages
	Apt  string // directory with apt's lists of the suite that they are from
}

// Bootstrap makes a Debian system below build/vm, of the release and from the
// archive that apt here uses, unless that has been done before. It takes root.
func Bootstrap(ctx context.Context) (Debian, error) {
	archive, release, err := debianArchive(ctx)
	if err != nil {
		return Debian{}, err
	}
	unlock, err := lockCache()
	if err != nil {
		return Debian{}, err
	}
	defer unlock()
	root, err := Root()
	if err != nil {
		return Debian{}, err
	}
	// The name is what it was made of: whatever else lies there is another.
	dir := filepath.Join(root, "build", "vm", "debian-"+release+"-"+strings.ReplaceAll(debianPackages, ",", "-"))
	d := Debian{Root: filepath.Join(dir, "root"), Debs: filepath.Join(dir, "debs"), Apt: filepath.Join(dir, "lists")}
	if _, err := os.Stat(dir); err == nil {
		return d, nil
	}
	tmp := filepath.Join(filepath.Dir(dir), ".bootstrap") // the cache is locked: one that died left it
	if err := os.RemoveAll(tmp); err != nil {
		return Debian{}, err
	}
	defer os.RemoveAll(tmp)
	system := filepath.Join(tmp, "root")
	if err := os.MkdirAll(system, 0o755); err != nil {
		return Debian{}, err
	}
	if _, err := run(ctx, tmp, "debootstrap", "--variant=minbase", "--include="+debianPackages, release, system, archive); err != nil {
		return Debian{}, err
	}
	for from, to := range map[string]string{"var/cache/apt/archives": "debs", "var/lib/apt/lists": "lists"} {
		from = filepath.Join(system, from)
		if err := errors.Join(os.Rename(from, filepath.Join(tmp, to)), os.MkdirAll(filepath.Join(from, "partial"), 0o755)); err != nil {
			return Debian{}, err
		}
	}
	for _, name := range []string{"usr/share/doc", "usr/share/locale", "usr/share/man"} {
		if err := os.RemoveAll(filepath.Join(system, name)); err != nil {
			return Debian{}, err
		}
	}
	return d, os.Rename(tmp, dir)
}

// debianArchive returns the URL of the archive that apt here has Debian from,
// and the release.
func debianArchive(ctx context.Context) (archive, release string, err error) {
	out, err := run(ctx, "", "apt-get", "indextargets", "--format", "$(LABEL) $(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) == 4 && f[0] == "Debian" && !strings.Contains(f[1], "-") && f[2] == "main" {
			return f[3], f[1], nil
		}
	}
	return "", "", errors.New("apt has no lists of Debian\nhint: apt-get update")
}

// PackageFiles returns the paths of the packages that the system is made of.
func (d Debian) PackageFiles() ([]string, error) {
	debs, err := filepath.Glob(filepath.Join(d.Debs, "*.deb"))
	if err == nil && len(debs) == 0 {
		err = fmt.Errorf("%s: no packages", d.Debs)
	}
	slices.Sort(debs)
	return debs, err
}

// Copy copies the system to a directory, which must be there.
func (d Debian) Copy(ctx context.Context, dir string) error {
	_, err := run(ctx, "", "cp", "-a", "--reflink=auto", d.Root+"/.", dir)
	return err
}
