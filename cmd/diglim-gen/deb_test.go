package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/rpmtest"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

// A package that apt has fetched is proved by the lists that apt has, where it
// lies, and its scripts are in the list; others are refused.
func TestAptLists(t *testing.T) {
	program(t, "dpkg-deb")
	key := rpmtest.NewKey(t, "archive", nil)
	const postinst = "#!/bin/sh\nexit 0\n"
	build := func(name string) (path string, stanza string) {
		control := "Package: " + name + "\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
		tree := writeAll(t, map[string][]byte{"DEBIAN/control": []byte(control), "DEBIAN/postinst": []byte(postinst), "usr/share/" + name: []byte(name)})
		if err := os.Chmod(filepath.Join(tree, "DEBIAN/postinst"), 0o755); err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(t.TempDir(), "fetched.deb")
		if out, err := exec.Command("dpkg-deb", "--build", tree, path).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return path, fmt.Sprintf("%sFilename: pool/%s.deb\nSize: %d\nSHA256: %x\n\n", control, name, len(b), sha256.Sum256(b))
	}
	good, index := build("good")
	stray, _ := build("stray")
	release := fmt.Sprintf("Suite: test\nArchitectures: amd64\nComponents: main\nSHA256:\n %x %d main/binary-amd64/Packages", sha256.Sum256([]byte(index)), len(index))
	var signed bytes.Buffer
	w, err := clearsign.Encode(&signed, key.PrivateKey, rpmtest.Config(time.Now(), nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(release)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := writeAll(t, map[string][]byte{
		"key.gpg": rpmtest.Public(t, key), "out/.keep": nil,
		"lists/site_dists_test_InRelease":                  signed.Bytes(),
		"lists/site_dists_test_main_binary-amd64_Packages": []byte(index),
	})
	lists, out := filepath.Join(dir, "lists"), filepath.Join(dir, "out")
	args := []string{"deb", "--keyring", filepath.Join(dir, "key.gpg"), "--apt-lists", lists, "--output", out}

	said, _ := gen(t, 0, append(args, good)...)
	if !strings.Contains(said, "1 signed by ") {
		t.Error(said)
	}
	list := filepath.Join(out, "0-file_list-compact-good_1_all")
	shown, _ := gen(t, 0, "show", list)
	for _, content := range []string{postinst, "good"} {
		if d := digest.Sum(digest.SHA256, []byte(content)); !strings.Contains(shown, d.String()) {
			t.Errorf("%q is not in\n%s", content, shown)
		}
	}
	if _, said := gen(t, 1, append(args, good, stray)...); !strings.Contains(said, "stray_1_all") || strings.Contains(said, "good") {
		t.Error(said)
	}
	if _, said := gen(t, 2, append(args, "--allow-unsigned", good)...); !strings.Contains(said, "--allow-unsigned") {
		t.Error(said)
	}
	if _, said := gen(t, 2, append(args, dir)...); !strings.Contains(said, "--apt-lists is for package files") {
		t.Error(said)
	}
	if err := os.WriteFile(filepath.Join(lists, "site_dists_test_main_binary-amd64_Packages"), []byte(index+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, said := gen(t, 1, append(args, good)...); !strings.Contains(said, "warning: left out: ") || !strings.Contains(said, "not what was signed") {
		t.Error(said)
	}
}
