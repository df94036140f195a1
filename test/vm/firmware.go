package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// A TestKey is the key that Debian's test firmware trusts for all there is:
// platform key, key exchange key and signature database.
type TestKey struct {
	Key  string // PEM, without a passphrase
	Cert string // PEM
}

// WriteTestKey writes the firmware's test key, which the package ovmf brings
// along with a passphrase everybody knows, to dir.
func WriteTestKey(ctx context.Context, dir string) (*TestKey, error) {
	k := &TestKey{Key: filepath.Join(dir, "test.key"), Cert: "/usr/share/ovmf/PkKek-1-snakeoil.pem"}
	_, err := run(ctx, "", "openssl", "rsa", "-passin", "pass:snakeoil", "-in", "/usr/share/ovmf/PkKek-1-snakeoil.key", "-out", k.Key)
	return k, err
}

// prepare signs a copy of the kernel image in dir. It returns the copy's path
// and qemu's arguments for the firmware.
func (k *TestKey) prepare(ctx context.Context, dir, image string) (signed string, args []string, err error) {
	signed = filepath.Join(dir, "vmlinuz")
	if err := k.sign(ctx, image, signed); err != nil {
		return "", nil, err
	}
	args, err = writeFirmware(dir, testVariables)
	return signed, args, err
}

// Variables of the firmware as it is delivered: with the test key, and with those
// that PCs have, Microsoft's.
const (
	testVariables = "OVMF_VARS_4M.snakeoil.fd"
	pcVariables   = "OVMF_VARS_4M.ms.fd"
)

// writeFirmware returns qemu's arguments for the firmware, whose variables, to which
// it writes, are in dir.
func writeFirmware(dir, name string) (args []string, err error) {
	const firmware = "/usr/share/OVMF/"
	variables, err := os.ReadFile(firmware + name)
	if err != nil {
		return nil, err
	}
	vars := filepath.Join(dir, "vars.fd")
	if err := os.WriteFile(vars, variables, 0o600); err != nil {
		return nil, err
	}
	return []string{
		"-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + firmware + "OVMF_CODE_4M.secboot.fd",
		"-drive", "if=pflash,unit=1,format=raw,file=" + vars,
	}, nil
}

// prepareDisk puts the image on a disk that qemu makes of a directory, under the
// name that firmware looks for (UEFI section 3.5.1.1). It returns qemu's arguments
// for the disk and the firmware.
func (k *TestKey) prepareDisk(dir, image string) (disk, args []string, err error) {
	boot := filepath.Join(dir, "esp", "EFI", "BOOT")
	if err := os.MkdirAll(boot, 0o755); err != nil {
		return nil, nil, err
	}
	data, err := os.ReadFile(image)
	if err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(boot, "BOOTX64.EFI"), data, 0o644); err != nil {
		return nil, nil, err
	}
	args, err = writeFirmware(dir, testVariables)
	return systemPartition(filepath.Join(dir, "esp")), args, err
}

// systemPartition is qemu's arguments for a disk that it makes of a directory, and
// that the firmware boots from.
func systemPartition(dir string) []string {
	return []string{
		"-drive", "if=none,id=esp,format=raw,readonly=on,file=fat:" + dir,
		"-device", "virtio-blk-pci,drive=esp,bootindex=0,addr=0x10", // behind the disk, which is the guest's first
	}
}

func (k *TestKey) sign(ctx context.Context, image, signed string) error {
	_, err := run(ctx, "", "sbsign", "--key", k.Key, "--cert", k.Cert, "--output", signed, image)
	return err
}

// stub is that of systemd, of the package systemd-boot-efi.
const stub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

// Addresses of the sections of a unified kernel image, far enough apart.
const (
	osrelAt   = 0x100000
	cmdlineAt = 0x200000
	linuxAt   = 0x2000000
	initrdAt  = 0x4000000
)

// WriteUKI writes a unified kernel image, signed: systemd's stub with the kernel,
// the initramfs and the command line of a machine in it.
func (k *TestKey) WriteUKI(ctx context.Context, path string, m Machine) error {
	dir, err := os.MkdirTemp("", "uki-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	osrel, line := filepath.Join(dir, "osrel"), filepath.Join(dir, "cmdline")
	if err := os.WriteFile(osrel, []byte("ID=guest\nVERSION_ID="+m.Kernel.Release+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(line, []byte(Cmdline(m.Cmdline)), 0o644); err != nil {
		return err
	}
	var args []string
	for _, s := range []struct {
		name, file string
		at         int
	}{{".osrel", osrel, osrelAt}, {".cmdline", line, cmdlineAt}, {".linux", m.Kernel.image(), linuxAt}, {".initrd", m.Initrd, initrdAt}} {
		args = append(args, "--add-section", s.name+"="+s.file, "--change-section-vma", fmt.Sprintf("%s=%#x", s.name, s.at))
	}
	unsigned := filepath.Join(dir, "unsigned")
	if _, err := run(ctx, "", "objcopy", append(args, stub, unsigned)...); err != nil {
		return err
	}
	return k.sign(ctx, unsigned, path)
}
