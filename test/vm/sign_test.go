package vm_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/modsig"
	"diglim/internal/source/plain"
	"diglim/test/vm"
	"diglim/test/vm/plan"
)

// What diglim-gen signs, the kernel's own check of PKCS#7 signatures takes;
// what it did not sign, or was changed, the kernel refuses.
func TestKernelTakesSignatures(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		dir, tree := t.TempDir(), t.TempDir()
		write := func(path string, data []byte) string {
			t.Helper()
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
			return path
		}
		gen, verity := filepath.Join(dir, "diglim-gen"), filepath.Join(tree, "guestverity")
		for output, pkg := range map[string]string{gen: "diglim/cmd/diglim-gen", verity: "diglim/test/vm/guestverity"} {
			if err := vm.Build(ctx, output, pkg); err != nil {
				t.Fatal(err)
			}
		}
		cert, keyFile, certFile := certificate(t, dir)
		write(filepath.Join(tree, "cert"), cert)

		// The kernel wants a signature over struct fsverity_formatted_digest.
		content := []byte("a file")
		write(filepath.Join(tree, "file"), content)
		d, err := plain.Verity(bytes.NewReader(content), digest.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		formatted := d.Append([]byte("FSVerity\x01\x00\x20\x00"))
		list := write(filepath.Join(dir, "0-file_list-compact-x"), formatted)
		if out, err := exec.CommandContext(ctx, gen, "sign", "--key", keyFile, "--cert", certFile, list).CombinedOutput(); err != nil {
			t.Fatalf("diglim-gen sign: %v\n%s", err, out)
		}
		signed, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		payload, sig, err := modsig.Split(signed)
		if err != nil || sig.Type != modsig.PKCS7 || !bytes.Equal(payload, formatted) {
			t.Fatalf("signed list: %v, %v", sig.Type, err)
		}
		write(filepath.Join(tree, "good"), sig.Bytes)
		changed := bytes.Clone(sig.Bytes)
		changed[len(changed)-1] ^= 1
		write(filepath.Join(tree, "changed"), changed)
		write(filepath.Join(tree, "cut"), sig.Bytes[:len(sig.Bytes)-1])

		p := plan.Plan{Commands: []plan.Command{{Name: "verity", Argv: []string{"/guestverity", "/cert", "/file", "/good", "/changed", "/cut"}}}}
		r, err := vm.Boot(ctx, writeMachine(t, ctx, k, p, tree))
		if err != nil {
			t.Fatal(err)
		}
		output, exit, err := r.Command("verity")
		if err != nil {
			t.Fatal(err)
		}
		if want := "/good good\n/changed EKEYREJECTED\n/cut EBADMSG\n"; exit != 0 || output != want {
			t.Errorf("exit code %d, output\n%swant\n%s", exit, output, want)
		}
	})
}

// certificate makes a key and its certificate, which it also returns in DER.
func certificate(t *testing.T, dir string) (der []byte, keyFile, certFile string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lists"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, SubjectKeyId: []byte("lists"),
	}
	der, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name *string
		file string
		pem  pem.Block
	}{{&keyFile, "key.pem", pem.Block{Type: "PRIVATE KEY", Bytes: private}}, {&certFile, "cert.pem", pem.Block{Type: "CERTIFICATE", Bytes: der}}} {
		*f.name = filepath.Join(dir, f.file)
		if err := os.WriteFile(*f.name, pem.EncodeToMemory(&f.pem), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return der, keyFile, certFile
}

// A machine with Secure Boot loads a module that diglim-gen signed by a key of
// its firmware, and not one that was changed or that nobody signed.
func TestKernelLoadsSignedModule(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		dir, tree := t.TempDir(), t.TempDir()
		gen := filepath.Join(dir, "diglim-gen")
		if err := vm.Build(ctx, gen, "diglim/cmd/diglim-gen"); err != nil {
			t.Fatal(err)
		}
		key, err := vm.WriteTestKey(ctx, dir)
		if err != nil {
			t.Fatal(err)
		}
		unsigned, err := os.ReadFile(buildModule(t, ctx, k).Path)
		if err != nil {
			t.Fatal(err)
		}
		module := filepath.Join(tree, "signed.ko")
		if err := os.WriteFile(module, unsigned, 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(ctx, gen, "sign", "--key", key.Key, "--cert", key.Cert, module).CombinedOutput(); err != nil {
			t.Fatalf("diglim-gen sign: %v\n%s", err, out)
		}
		signed, err := os.ReadFile(module)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(signed)
		changed[bytes.Index(changed, []byte("license=GPL"))] ^= 0x20
		busybox, err := os.ReadFile("/bin/busybox")
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{"unsigned.ko": unsigned, "changed.ko": changed, "busybox": busybox} {
			if err := os.WriteFile(filepath.Join(tree, name), data, 0o755); err != nil {
				t.Fatal(err)
			}
		}

		var p plan.Plan
		for _, name := range []string{"unsigned", "changed", "signed"} {
			p.Commands = append(p.Commands, plan.Command{Name: name, Argv: []string{"/busybox", "insmod", "/" + name + ".ko"}})
		}
		m := writeMachine(t, ctx, k, p, tree)
		m.SecureBoot = key
		r, err := vm.Boot(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		const rejected = int(syscall.EKEYREJECTED) // insmod's exit code is the errno
		for name, want := range map[string]int{"unsigned": rejected, "changed": rejected, "signed": 0} {
			if output, exit, err := r.Command(name); err != nil || exit != want {
				t.Errorf("%s: exit code %d, want %d\n%s%v", name, exit, want, output, err)
			}
		}
		if t.Failed() {
			log, _ := r.KernelLog()
			t.Log(log)
		}
	})
}
