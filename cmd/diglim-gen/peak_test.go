package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"diglim/internal/rpmtest"
)

// peakCommand is diglim-gen that says on its last line of standard error how
// much memory it took at most, in KiB (VmHWM, proc(5)).
const peakCommand = "diglim-gen-peak"

func peakMain() {
	code := run(os.Args[1:], os.Stdout, os.Stderr)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	fmt.Fprintf(os.Stderr, "%s\n", regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)[1])
	os.Exit(code)
}

// A header of 100 MB is in memory once, whatever is done with it to write an
// rpm list.
func TestPeakMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes a package of 100 MB")
	}
	key := rpmtest.NewKey(t, "vendor", rpmtest.Ed25519)
	p := rpmtest.Package{Name: "large", Algo: 8, Extra: []rpmtest.Entry{rpmtest.Bin(6000, bytes.Repeat([]byte("large"), 18<<20))}}
	for i := range 50_000 {
		p.Files = append(p.Files, rpmtest.Regular(fmt.Sprintf("/usr/share/large/%d/file-%d", i%100, i), 0o644, "x"))
	}
	header := p.Header()
	dir := writeAll(t, map[string][]byte{
		"key.gpg":   rpmtest.Public(t, key),
		"large.rpm": rpmtest.PackageFile(header, rpmtest.Signatures{RSA: rpmtest.Sign(t, key, header, rpmtest.Made.AddDate(1, 0, 0), nil)}),
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := filepath.Join(dir, peakCommand)
	if err := os.Symlink(self, command); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command, "rpm", "--keyring", filepath.Join(dir, "key.gpg"), "--output", filepath.Join(dir, "lists"), filepath.Join(dir, "large.rpm"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	peak, err := strconv.Atoi(lines[len(lines)-1])
	if err != nil {
		t.Fatal(err)
	}
	ratio := float64(peak<<10) / float64(len(header))
	t.Logf("%d bytes of header, %d KiB of memory: %.2f", len(header), peak, ratio)
	if ratio > 1.3 {
		t.Errorf("it takes %.2f times the header", ratio)
	}
	for _, list := range contents(t, filepath.Join(dir, "lists")) {
		if !strings.HasPrefix(list, string(header)) {
			t.Errorf("a list of %d bytes is not the header of %d", len(list), len(header))
		}
	}
}
