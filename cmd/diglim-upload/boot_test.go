//go:build !nobpf && (amd64 || arm64)

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"
)

// fileMachine is a machine of files in the working directory.
func fileMachine() machine {
	return machine{
		initramfs: "initramfs", cmdline: "cmdline", kmsg: "kmsg",
		early: func() (bool, error) {
			_, err := os.Stat("initramfs")
			return err == nil, nil
		},
		powerOff: func() error { return os.WriteFile("off", nil, 0o600) },
	}
}

func writeTree(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(root, name)
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode)); err != nil {
			t.Fatal(err)
		}
	}
}

// What can become code is listed, whatever it is called, and nothing else.
func TestListInitramfs(t *testing.T) {
	root := t.TempDir()
	listed := map[string]string{
		"init":                         "#!/bin/sh\n",
		"usr/bin/again":                "#!/bin/sh\n", // another file of the same content
		"lib/libc.so.6":                "\x7fELF library",
		"usr/lib/modules/6.1/a.ko.xz":  "compressed",
		"lib/firmware/card/blob":       "firmware",
		"var/lib/dracut/hooks/a b.sh ": "#!/bin/sh\necho\n",
	}
	writeTree(t, root, listed)
	writeTree(t, root, map[string]string{"etc/fstab": "none", "empty": "", "short": "\x7fE", "usr/share/lib/modules/x": "x"})
	// dracut makes equal files one: another name of firmware, of no program.
	if err := errors.Join(os.Symlink("/etc/passwd", filepath.Join(root, "lib/link")),
		os.Link(filepath.Join(root, "lib/firmware/card/blob"), filepath.Join(root, "another"))); err != nil {
		t.Fatal(err)
	}

	list, err := listInitramfs(root, digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := digestlist.ParseCompact(digestlist.V3, digestlist.LittleEndian, list)
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) != 2 || blocks[0].Type != digestlist.Parser || len(blocks[0].Digests) != 1 || blocks[1].Type != digestlist.File {
		t.Fatalf("blocks are %v", blocks)
	}
	got := map[digest.Digest]bool{}
	for _, d := range blocks[1].Digests {
		got[d] = true
	}
	if len(blocks[1].Digests) != 5 {
		t.Errorf("%d digests, want 5", len(blocks[1].Digests))
	}
	for name, content := range listed {
		if !got[digest.Sum(digest.SHA256, []byte(content))] {
			t.Errorf("%s is not listed", name)
		}
	}

	// The same files elsewhere, made in another order, give the same list.
	again := t.TempDir()
	for name, content := range listed {
		writeTree(t, again, map[string]string{name: content})
	}
	if other, err := listInitramfs(again, digest.SHA256); err != nil || !bytes.Equal(list, other) {
		t.Errorf("another list of the same files, %v", err)
	}
}

// The system to come is this one, and each of its files in turn is in no list.
func TestCheckSystem(t *testing.T) {
	const init = "/bin/sh"
	everything := closure{knownChecker: knownChecker{&set.Image{}, digest.SHA256}, root: "/", seen: map[string]bool{}}
	everything.dirs = everything.libraryDirs("/etc/ld.so.conf", maxIncludes)
	if err := everything.follow(init); err != nil {
		t.Fatal(err)
	}
	if len(everything.missing) < 3 {
		t.Fatalf("%s needs %q: a loader and a library at least", init, everything.missing)
	}
	build := func(but string) *set.Image {
		var b set.Builder
		for place := range everything.seen {
			data, err := os.ReadFile(place)
			if err != nil {
				t.Fatal(err)
			}
			if place == but {
				continue
			}
			if err := b.Add(set.Content, digest.Sum(digest.SHA256, data)); err != nil {
				t.Fatal(err)
			}
		}
		m, err := b.Build(set.Header{Generation: 1, Loaded: time.Now(), Mode: set.Enforce})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for place := range everything.seen {
		x := closure{knownChecker: knownChecker{build(place), digest.SHA256}, root: "/", dirs: everything.dirs, seen: map[string]bool{}}
		if err := x.follow(init); err != nil || len(x.missing) != 1 {
			t.Errorf("without %s %q is missing, %v", place, x.missing, err)
		}
	}
}

// A root that somebody else has made leads to its own files only.
func TestCheckSystemLinks(t *testing.T) {
	root := t.TempDir()
	writeTree(t, root, map[string]string{
		"usr/bin/tool":                      "#!/usr/bin/sh\n",
		"usr/bin/sh":                        "#! \n",
		"usr/lib/systemd/systemd":           "#!/usr/bin/tool -x\n",
		"usr/lib/systemd/generators/one":    "#!/nowhere\n",
		"usr/lib/systemd/system/not.target": "[Unit]\n",
		"etc/ld.so.conf":                    "/first # not this\ninclude conf.d/*.conf\n",
		"etc/conf.d/b.conf":                 "/third\n",
		"etc/conf.d/a.conf":                 "/second\ninclude /etc/ld.so.conf\n",
	})
	for link, to := range map[string]string{"sbin": "usr/bin", "bin": "/usr/bin", "usr/bin/init": "../../../../usr/lib/systemd/systemd"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	c := knownChecker{&set.Image{}, digest.SHA256}
	err := c.checkSystem(root, "/sbin/init")
	const want = "4 of 4 files that the system to come cannot do without are in no list: /sbin/init, /usr/bin/tool, /usr/bin/sh, /usr/lib/systemd/generators/one"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	x := closure{root: root}
	dirs := x.libraryDirs("/etc/ld.so.conf", maxIncludes)
	if len(dirs) < 3 || dirs[0] != "/first" || dirs[1] != "/second" || dirs[len(dirs)-1] != "/third" {
		t.Errorf("library directories %q", dirs)
	}
}
