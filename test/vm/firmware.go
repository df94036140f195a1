package vm

import (
	"context"
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
	const firmware = "/usr/share/OVMF/"
	signed = filepath.Join(dir, "vmlinuz")
	if _, err := run(ctx, "", "sbsign", "--key", k.Key, "--cert", k.Cert, "--output", signed, image); err != nil {
		return "", nil, err
	}
	// The firmware writes to its variables.
	variables, err := os.ReadFile(firmware + "OVMF_VARS_4M.snakeoil.fd")
	if err != nil {
		return "", nil, err
	}
	vars := filepath.Join(dir, "vars.fd")
	if err := os.WriteFile(vars, variables, 0o600); err != nil {
		return "", nil, err
	}
	return signed, []string{
		"-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + firmware + "OVMF_CODE_4M.secboot.fd",
		"-drive", "if=pflash,unit=1,format=raw,file=" + vars,
	}, nil
}
