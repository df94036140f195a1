package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"diglim/digestlist"
	"diglim/internal/rpmtest"
)

// A run that is killed, at whatever moment, leaves whole lists only, of before
// or of after.
func TestKilled(t *testing.T) {
	key := rpmtest.NewKey(t, "vendor", rpmtest.Ed25519)
	dir := writeAll(t, map[string][]byte{"key.gpg": rpmtest.Public(t, key)})
	const packages = 60
	valid := map[string]bool{} // contents that a list may have
	for _, version := range []string{"old", "new"} {
		for i := range packages {
			p := rpmtest.Package{Name: fmt.Sprintf("p%d", i), Algo: 8, Files: []rpmtest.File{rpmtest.Regular("/bin/p", 0o755, strings.Repeat(version, i+1))}}
			p.Extra = []rpmtest.Entry{rpmtest.String(6000, strings.Repeat(version, 5000))}
			file := p.File(rpmtest.Signatures{RSA: rpmtest.Sign(t, key, p.Header(), rpmtest.Made.AddDate(1, 0, 0), nil)})
			path := filepath.Join(dir, version, p.Name+".rpm")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, file, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		gen(t, 0, "rpm", "--keyring", filepath.Join(dir, "key.gpg"), "--output", filepath.Join(dir, version+"-lists"), filepath.Join(dir, version))
		for _, content := range contents(t, filepath.Join(dir, version+"-lists")) {
			valid[content] = true
		}
	}
	if len(valid) != 2*packages {
		t.Fatalf("%d different lists", len(valid))
	}

	// The test's own binary is the command, when it is called so.
	command := filepath.Join(dir, "diglim-gen")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, command); err != nil {
		t.Fatal(err)
	}
	lists := filepath.Join(dir, "lists")
	killed := 0
	for round := range 60 {
		version := []string{"old", "new"}[round%2]
		cmd := exec.Command(command, "rpm", "--keyring", filepath.Join(dir, "key.gpg"), "--output", lists, filepath.Join(dir, version))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(10+rand.IntN(60))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		if cmd.Wait() != nil {
			killed++
		}
		timer.Stop()
		for name, content := range contents(t, lists) {
			if !valid[content] {
				t.Fatalf("round %d: %s has %d bytes that no run writes", round, name, len(content))
			}
		}
	}
	t.Logf("%d of 60 runs were killed", killed)
	if killed < 20 {
		t.Errorf("only %d of 60 runs were killed", killed)
	}
	gen(t, 0, "rpm", "--keyring", filepath.Join(dir, "key.gpg"), "--output", lists, filepath.Join(dir, "new"))
	if got := contents(t, lists); len(got) != packages {
		t.Errorf("%d lists after a run that was not killed", len(got))
	}
}

// contents returns the lists in a directory, if there is one yet.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	lists := map[string]string{}
	for _, e := range entries {
		if _, _, err := digestlist.KnownName(e.Name()); err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		lists[e.Name()] = string(b)
	}
	return lists
}
