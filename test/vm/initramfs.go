package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Dracut makes an initramfs for k with dracut(8), with its module diglim, others
// of its modules, and drivers for a virtual disk.
//
// Nothing is installed: what lies in usr and etc below over is laid over this
// machine's /usr and /etc, in a mount namespace of its own. WriteModules puts
// the drivers there.
func Dracut(ctx context.Context, k Kernel, over, image string, modules ...string) error {
	return makeInitramfs(ctx, k, over, "dracut", "--quiet", "--force", "--no-hostonly", "--no-hostonly-cmdline",
		"--compress", "gzip -1", "--tmpdir", filepath.Dir(image),
		"--modules", strings.Join(append(modules, "diglim", "base", "rootfs-block", "udev-rules"), " "), "--drivers", "virtio_pci virtio_blk", image, k.Release)
}

// InitramfsTools makes an initramfs for k with mkinitramfs(8), as Dracut does.
func InitramfsTools(ctx context.Context, k Kernel, over, image string) error {
	const conf = "/etc/initramfs-tools/initramfs.conf"
	text, err := os.ReadFile(conf)
	if err != nil {
		return err
	}
	// The last assignment counts.
	text = append(text, "\nMODULES=list\nCOMPRESS=gzip\nCOMPRESSLEVEL=1\n"...)
	path := filepath.Join(over, conf)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	modules := filepath.Join(filepath.Dir(path), "modules")
	if err := errors.Join(os.WriteFile(path, text, 0o644), os.WriteFile(modules, []byte("virtio_pci\nvirtio_blk\n"), 0o644)); err != nil {
		return err
	}
	return makeInitramfs(ctx, k, over, "mkinitramfs", "-o", image, k.Release)
}

func makeInitramfs(ctx context.Context, k Kernel, over string, command ...string) error {
	// Both look for the kernel's configuration.
	lay := fmt.Sprintf(`set -e
for dir in usr etc; do mount -t overlay none -o lowerdir=%s/$dir:/$dir /$dir; done
mount -t overlay none -o lowerdir=%s/boot:/boot /boot
exec "$@"`, over, k.Dir)
	_, err := run(ctx, "", "unshare", append([]string{"--map-root-user", "--mount", "sh", "-c", lay, "sh"}, command...)...)
	return err
}

// WriteModules writes those of k's modules to dir/usr/lib/modules that a virtual
// disk needs, as the kernel's package has them.
func WriteModules(ctx context.Context, k Kernel, dir string) error {
	from := filepath.Join(k.Dir, "lib/modules", k.Release)
	to := filepath.Join(dir, "usr/lib/modules", k.Release)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(rel, "kernel") && !isDiskModule(d.Name()) {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	})
	if err != nil {
		return err
	}
	// depmod looks below lib.
	if err := os.Symlink("usr/lib", filepath.Join(dir, "lib")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	_, err = run(ctx, "", "depmod", "-b", dir, k.Release)
	return err
}

func isDiskModule(name string) bool {
	name, _, _ = strings.Cut(name, ".ko")
	for _, m := range diskModules {
		if m == name {
			return true
		}
	}
	return false
}
