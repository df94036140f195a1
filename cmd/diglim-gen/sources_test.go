package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"diglim/internal/corpus"
	"diglim/internal/unpack"
)

// gen runs the command and returns what it said.
func gen(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(args, &out, &errs); code != want {
		t.Errorf("diglim-gen %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, &out, &errs)
	}
	return out.String(), errs.String()
}

// writeAll writes files below a new directory.
func writeAll(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// program skips the test where a program is missing; with CI=true it fails.
func program(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// Databases of real systems: every package that the distribution signed gives
// its list, and the database is as it was.
func TestDatabases(t *testing.T) {
	for _, c := range []struct {
		file, name string
		args       []string
		lists      int
	}{
		{"centos7-plain/Packages.xz", "Packages", []string{"--keyring", "KEYS"}, 144},
		{"centos8-sqlite/rpmdb.sqlite.xz", "rpmdb.sqlite", []string{"--keyring", "rpmdb"}, 517},
		{"sle15-bci/Packages.db.xz", "Packages.db", []string{"--keyring", "KEYS"}, 35},
		{"centos5-plain/Packages.xz", "Packages", []string{"--keyring", "KEYS", "--allow-weak"}, 110},
	} {
		t.Run(c.file, func(t *testing.T) {
			keys := corpus.Path(t, "keys")
			r, err := unpack.New(unpack.XZ, bytes.NewReader(corpus.Read(t, "rpmdb", c.file)), 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			dir := writeAll(t, map[string][]byte{"var/lib/rpm/" + c.name: data})
			args := append([]string{"rpmdb", "--root", dir, "--output", filepath.Join(dir, "lists")}, c.args...)
			for i := range args {
				args[i] = strings.Replace(args[i], "KEYS", keys, 1)
			}
			out, _ := gen(t, 0, args...)
			if want := fmt.Sprintf("wrote %d lists", c.lists); !strings.HasPrefix(out, want) {
				t.Errorf("%s\nwant %s", out, want)
			}
			lists, err := filepath.Glob(filepath.Join(dir, "lists", "*"))
			if err != nil || len(lists) != c.lists {
				t.Fatalf("%d lists, %v", len(lists), err)
			}
			if len(c.args) == 2 && c.args[1] == "KEYS" {
				gen(t, 0, append([]string{"verify", "--keyring", keys}, lists...)...)
			}
			if after, err := os.ReadFile(filepath.Join(dir, "var/lib/rpm", c.name)); err != nil || !bytes.Equal(after, data) {
				t.Errorf("the database was changed: %v", err)
			}
			if entries, err := os.ReadDir(filepath.Join(dir, "var/lib/rpm")); err != nil || len(entries) != 1 {
				t.Errorf("beside the database: %v, %v", entries, err)
			}
		})
	}
}

// A repository made by createrepo_c gives the lists that its packages give,
// over HTTP and as a directory.
func TestRepository(t *testing.T) {
	program(t, "createrepo_c")
	dir := writeAll(t, fixtures(t))
	if out, err := exec.Command("createrepo_c", "-q", filepath.Join(dir, "good")).CombinedOutput(); err != nil {
		t.Fatalf("createrepo_c: %v\n%s", err, out)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(dir, "good"))))
	defer server.Close()
	keys := filepath.Join(dir, "keys")

	_, stderr := gen(t, 1, "repo", "--keyring", keys, "--output", filepath.Join(dir, "none"), server.URL)
	if !strings.Contains(stderr, "not signed") {
		t.Errorf("an unsigned repository: %s", stderr)
	}
	gen(t, 0, "rpm", "--keyring", keys, "--output", filepath.Join(dir, "want"), filepath.Join(dir, "good"))
	for name, location := range map[string]string{"http": server.URL, "directory": filepath.Join(dir, "good")} {
		got := filepath.Join(dir, name)
		out, stderr := gen(t, 0, "repo", "--keyring", keys, "--allow-unsigned-repo", "--output", got, location)
		if !strings.HasPrefix(out, "wrote 2 lists") || !strings.Contains(stderr, "nobody signed the list of packages") {
			t.Errorf("%s: %s%s", name, out, stderr)
		}
		if out, _ := gen(t, 0, "diff", filepath.Join(dir, "want"), got); strings.Contains(out, "added") {
			t.Errorf("%s: %s", name, out)
		}
	}
	gen(t, 1, "repo", "--keyring", filepath.Join(dir, "other.gpg"), "--allow-unsigned-repo", "--output", filepath.Join(dir, "none"), server.URL)
	server.Close()
	gen(t, 2, "repo", "--keyring", keys, "--allow-unsigned-repo", "--output", filepath.Join(dir, "none"), filepath.Join(dir, "keys"))
}

// A Debian package by itself proves nothing, and can be listed all the same.
func TestDebianPackage(t *testing.T) {
	program(t, "dpkg-deb")
	dir := writeAll(t, map[string][]byte{
		"p/DEBIAN/control":                      []byte("Package: hello\nVersion: 1:2.0~rc1-1\nArchitecture: amd64\nMaintainer: x <x@example.org>\nDescription: x\n"),
		"p/usr/bin/hello":                       []byte("#!/bin/sh\n"),
		"p/usr/lib/x86_64-linux-gnu/libhi.so.1": []byte("code"),
		"p/usr/share/doc/hello/README":          []byte("read me"),
	})
	if err := os.Chmod(filepath.Join(dir, "p/usr/bin/hello"), 0o755); err != nil {
		t.Fatal(err)
	}
	pkg := filepath.Join(dir, "hello.deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-b", filepath.Join(dir, "p"), pkg).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	lists := filepath.Join(dir, "lists")
	gen(t, 2, "deb", "--output", lists, pkg)
	_, stderr := gen(t, 1, "deb", "--keyring", writeAll(t, fixtures(t))+"/keys", "--output", lists, pkg)
	if !strings.Contains(stderr, "no signature") {
		t.Errorf("a lone package: %s", stderr)
	}
	gen(t, 0, "deb", "--allow-unsigned", "--output", lists, pkg)
	out, _ := gen(t, 0, "show", filepath.Join(lists, "0-file_list-compact-hello_1:2.0~rc1-1_amd64"))
	if !strings.Contains(out, "1 digest, modifiers 0") || !strings.Contains(out, "2 digests, modifiers 1 (immutable)") {
		t.Errorf("show: %s", out)
	}
	gen(t, 2, "deb", "--allow-unsigned", "--format", "rpm", "--output", lists, pkg)
}
