package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Series are the kernel series that tests run on: the one of the Debian
// release and the one of its backports.
var Series = [...]string{"6.1", "6.12"}

// A Kernel is a Debian cloud kernel with its modules and headers, unpacked
// below build/vm.
type Kernel struct {
	Release string // as uname -r prints it
	Dir     string // root of the unpacked packages
}

// metaPackages returns the packages that depend on the newest image and the
// newest headers of a series. The release's own series goes without a number.
func metaPackages(series string) (image, headers string) {
	if series == Series[0] {
		return "linux-image-cloud-amd64", "linux-headers-cloud-amd64"
	}
	return "linux-image-" + series + "-cloud-amd64", "linux-headers-" + series + "-cloud-amd64"
}

// Fetch finds the newest cloud kernel of a series in apt's package lists, and
// downloads and unpacks it with its headers, unless that has been done before.
// Lists that are older than the mirror are renewed once, by root.
func Fetch(ctx context.Context, series string) (Kernel, error) {
	k, err := fetch(ctx, series)
	if err != nil && os.Geteuid() == 0 {
		if _, updated := run(ctx, "", "apt-get", "-q", "update"); updated == nil {
			k, err = fetch(ctx, series)
		}
	}
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel %s: %w", series, err)
	}
	return k, nil
}

func fetch(ctx context.Context, series string) (Kernel, error) {
	metaImage, metaHeaders := metaPackages(series)
	image, err := dependency(ctx, metaImage, "linux-image-"+series+".")
	if err != nil {
		return Kernel{}, err
	}
	headers, err := dependency(ctx, metaHeaders, "linux-headers-"+series+".")
	if err != nil {
		return Kernel{}, err
	}
	release := strings.TrimPrefix(image, "linux-image-")
	if headers != "linux-headers-"+release {
		return Kernel{}, fmt.Errorf("%s and %s do not belong together\nhint: apt-get update", image, headers)
	}

	unlock, err := lockCache()
	if err != nil {
		return Kernel{}, err
	}
	defer unlock()

	root, err := Root()
	if err != nil {
		return Kernel{}, err
	}
	k := Kernel{Release: release, Dir: filepath.Join(root, "build", "vm", release)}
	if _, err := os.Stat(k.Dir); err == nil {
		return k, nil
	}
	common, err := dependency(ctx, headers, "linux-headers-"+strings.TrimSuffix(release, "-cloud-amd64")+"-common")
	if err != nil {
		return Kernel{}, err
	}
	kbuild, err := dependency(ctx, headers, "linux-kbuild-")
	if err != nil {
		return Kernel{}, err
	}
	if err := unpack(ctx, k, image, headers, common, kbuild); err != nil {
		return Kernel{}, err
	}
	return k, nil
}

// dependency returns the package that pkg depends on and whose name starts
// with prefix.
func dependency(ctx context.Context, pkg, prefix string) (string, error) {
	out, err := run(ctx, "", "apt-cache", "depends", "--important", pkg)
	if err != nil {
		return "", fmt.Errorf("%w\nhint: apt-get update", err)
	}
	for line := range strings.Lines(out) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && strings.HasPrefix(name, prefix) {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s depends on no %s*\nhint: apt-get update", pkg, prefix)
}

// unpack downloads the packages and unpacks them. k.Dir appears only when it is
// complete.
func unpack(ctx context.Context, k Kernel, packages ...string) error {
	tree, done, err := download(ctx, packages...)
	if err != nil {
		return err
	}
	defer done()

	// The headers' only absolute path is that of the common headers. Make it
	// relative, so that the repository can be moved.
	makefile := filepath.Join(tree, "usr/src/linux-headers-"+k.Release, "Makefile")
	text, err := os.ReadFile(makefile)
	if err != nil {
		return err
	}
	moved := strings.ReplaceAll(string(text), "/usr/src/", "$(dir $(lastword $(MAKEFILE_LIST)))../")
	if err := os.WriteFile(makefile, []byte(moved), 0o644); err != nil {
		return err
	}
	return os.Rename(tree, k.Dir)
}

// download downloads packages and unpacks them into a directory in build/vm, which
// is locked. done removes what the caller has not moved away.
func download(ctx context.Context, packages ...string) (tree string, done func(), err error) {
	root, err := Root()
	if err != nil {
		return "", nil, err
	}
	// The cache is locked: what is there already was left by one that died.
	tmp := filepath.Join(root, "build", "vm", ".fetch")
	if err := os.RemoveAll(tmp); err != nil {
		return "", nil, err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", nil, err
	}
	done = func() { os.RemoveAll(tmp) }
	defer func() {
		if err != nil {
			done()
		}
	}()

	// As root, apt would download as a user who cannot write here.
	args := append([]string{"-q", "-o", "APT::Sandbox::User=root", "download"}, packages...)
	if _, err := run(ctx, tmp, "apt-get", args...); err != nil {
		return "", nil, fmt.Errorf("%w\nhint: apt-get update", err)
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return "", nil, err
	}
	if len(debs) != len(packages) {
		return "", nil, fmt.Errorf("%d packages downloaded, %d wanted", len(debs), len(packages))
	}
	tree = filepath.Join(tmp, "tree")
	for _, deb := range debs {
		if _, err := run(ctx, "", "dpkg", "-x", deb, tree); err != nil {
			return "", nil, err
		}
	}
	return tree, done, nil
}

// lockCache keeps other processes from changing build/vm.
func lockCache() (unlock func(), err error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, "build", "vm")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// image returns the path of the kernel image.
func (k Kernel) image() string {
	return filepath.Join(k.Dir, "boot", "vmlinuz-"+k.Release)
}

// Module returns the object file of one of the kernel's modules. It reports
// fs.ErrNotExist if the kernel has no such module, because it is built in or
// not at all.
func (k Kernel) Module(ctx context.Context, name string) ([]byte, error) {
	var found string
	err := filepath.WalkDir(filepath.Join(k.Dir, "lib/modules", k.Release, "kernel"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := d.Name(); base == name+".ko" || base == name+".ko.xz" {
			found = path
			return fs.SkipAll
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case found == "":
		return nil, fmt.Errorf("kernel %s: module %s: %w", k.Release, name, fs.ErrNotExist)
	case strings.HasSuffix(found, ".xz"):
		out, err := run(ctx, "", "xz", "-dc", found)
		return []byte(out), err
	}
	return os.ReadFile(found)
}

// diskModules are what a kernel may need for a disk, in the order to load them.
// ext4 is built into the cloud kernels.
var diskModules = []string{
	"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
}

// disk returns those of the diskModules that the kernel has.
func (k Kernel) disk(ctx context.Context) ([]File, error) {
	var files []File
	for _, name := range diskModules {
		data, err := k.Module(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, File{Name: "modules/" + name + ".ko", Mode: 0o644, Data: data})
	}
	return files, nil
}

// BuildModule builds the out-of-tree modules whose sources are in dir, in a copy
// below build/vm, and returns the path of the named one's object file.
func (k Kernel) BuildModule(ctx context.Context, dir, name string) (string, error) {
	unlock, err := lockCache()
	if err != nil {
		return "", err
	}
	defer unlock()

	work := k.Dir + "-" + filepath.Base(dir)
	if err := copyChanged(work, dir); err != nil {
		return "", err
	}
	kdir := filepath.Join(k.Dir, "usr/src/linux-headers-"+k.Release)
	if _, err := run(ctx, work, "make", "KDIR="+kdir, "modules"); err != nil {
		return "", err
	}
	object := filepath.Join(work, name+".ko")
	_, err = os.Stat(object)
	return object, err
}

// copyChanged copies the files of a flat directory. Files that are the same
// already keep their time, so that make has nothing to do.
func copyChanged(dst, src string) error {
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(src, e.Name()))
		if err != nil {
			return err
		}
		path := filepath.Join(dst, e.Name())
		if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
			continue
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
