package vm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Loaders is a directory with the boot loaders of Debian, as their packages have
// them: shim, which Microsoft signed, and GRUB, which Debian did.
//
// Lists of packages that are older than the mirror are renewed once, by root.
func Loaders(ctx context.Context) (string, error) {
	dir, err := loaders(ctx)
	if err != nil && os.Geteuid() == 0 {
		if _, updated := run(ctx, "", "apt-get", "-q", "update"); updated == nil {
			dir, err = loaders(ctx)
		}
	}
	return dir, err
}

func loaders(ctx context.Context) (string, error) {
	unlock, err := lockCache()
	if err != nil {
		return "", err
	}
	defer unlock()
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "build", "vm", "loaders")
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	tree, done, err := download(ctx, "shim-signed", "grub-efi-amd64-signed")
	if err != nil {
		return "", err
	}
	defer done()
	return dir, os.Rename(tree, dir)
}

// Paths of what WriteGRUB writes, in the system partition, where GRUB looks for its
// settings; and those of the first two below Loaders.
const (
	Shim       = "EFI/BOOT/BOOTX64.EFI"
	GRUB       = "EFI/BOOT/grubx64.efi"
	GRUBConfig = "EFI/debian/grub.cfg"
	Vmlinuz    = "vmlinuz"
	InitrdImg  = "initrd.img"

	DebianShim = "usr/lib/shim/shimx64.efi.signed"
	DebianGRUB = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
)

// WriteGRUB writes a system partition from which shim starts GRUB, and GRUB the
// kernel of a machine, by the settings that are given.
func WriteGRUB(ctx context.Context, dir string, m Machine, settings string) error {
	loaders, err := Loaders(ctx)
	if err != nil {
		return err
	}
	config := filepath.Join(dir, GRUBConfig)
	if err := errors.Join(os.MkdirAll(filepath.Dir(config), 0o755), os.WriteFile(config, []byte(settings), 0o644)); err != nil {
		return err
	}
	for name, from := range map[string]string{
		Shim: filepath.Join(loaders, DebianShim), GRUB: filepath.Join(loaders, DebianGRUB),
		Vmlinuz: m.Kernel.image(), InitrdImg: m.Initrd,
	} {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o644)); err != nil {
			return err
		}
	}
	return nil
}
