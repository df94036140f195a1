//go:build !nobpf && (amd64 || arm64)

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"diglim/internal/modsig"
	"diglim/internal/rpmtest"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// BenchmarkAdd is a Fedora server: 2,430 packages with 104,490 files, signed
// with RSA-4096, from the files to the image of the set.
func BenchmarkAdd(b *testing.B) {
	const lists, each = 2430, 43
	dir := b.TempDir()
	vendor := rpmtest.NewKey(b, "vendor", func(c *packet.Config) { c.Algorithm, c.RSABits = packet.PubKeyAlgoRSA, 4096 })
	now := time.Now().Add(-time.Hour)
	write := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	write("keys/vendor.gpg", rpmtest.Public(b, vendor))
	for i := range lists {
		p := rpmtest.Package{Name: fmt.Sprintf("p%d", i), Algo: 8}
		for j := range each {
			p.Files = append(p.Files, rpmtest.Regular(fmt.Sprintf("/usr/share/doc/package-%d/file-%d", i, j), 0o755, fmt.Sprint(i, j)))
		}
		h := p.Header()
		write(fmt.Sprintf("lists/0-file_list-rpm-p%d-1.0-1.noarch", i),
			modsig.Append(h, modsig.Signature{Type: modsig.PGP, Bytes: rpmtest.Sign(b, vendor, h, now, nil)}))
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	var rss int64
	var cpu time.Duration
	for b.Loop() {
		cmd := exec.Command(self, "replace", "--keyring", "keys", "lists")
		cmd.Args[0], cmd.Dir = "with-gate", dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		rss = max(rss, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	}
	b.ReportMetric(float64(rss)/1024, "MiB-RSS")
	b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
}

// The lean program is for an initramfs where every kilobyte counts, and neither
// takes long to start. docs/design/upload.md has what the bytes are spent on.
func TestBuilds(t *testing.T) {
	for _, c := range []struct {
		name, tags string
		limit      int64 // bytes
	}{{"lean", "nobpf", leanLimit}, {"full", "", fullLimit}} {
		path := filepath.Join(t.TempDir(), "diglim-upload")
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-tags="+c.tags, "-o", path, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > c.limit {
			t.Errorf("%s: %d bytes, the limit is %d", c.name, info.Size(), c.limit)
		}
		least := time.Hour
		for range 20 {
			cmd := exec.Command(path, "--version")
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			least = min(least, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		}
		t.Logf("%s: %d bytes, %v to start", c.name, info.Size(), least)
		if least > startLimit {
			t.Errorf("%s: %v of CPU to start, the limit is %v", c.name, least, startLimit)
		}
	}
}

const (
	leanLimit  = 2_600_000
	fullLimit  = 6_950_000             // 6,000,000 are wanted: docs/design/upload.md
	startLimit = 10 * time.Millisecond // 3 are wanted, of a machine that does nothing else
)
