package vm_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"diglim/test/vm"
)

func TestWriteCPIO(t *testing.T) {
	files := []vm.File{
		{Name: "etc/passwd", Mode: 0o640, Data: []byte("root\n")},
		{Name: "bin/sh", Mode: fs.ModeSymlink | 0o777, Data: []byte("busybox")},
		{Name: "etc.d", Mode: fs.ModeDir | 0o700},
		{Name: "init", Mode: 0o755, Path: "cpio_test.go"},
	}
	var archive bytes.Buffer
	if err := vm.WriteCPIO(&archive, files); err != nil {
		t.Fatal(err)
	}

	slices.Reverse(files)
	var again bytes.Buffer
	if err := vm.WriteCPIO(&again, files); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(archive.Bytes(), again.Bytes()) {
		t.Error("the order of files changes the archive")
	}

	cpio, err := exec.LookPath("cpio")
	if err != nil {
		const msg = "no cpio to read the archive with"
		if os.Getenv("CI") == "true" {
			t.Fatal(msg)
		}
		t.Skip(msg)
	}
	cmd := exec.Command(cpio, "-itvn", "--quiet")
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC"}
	cmd.Stdin = &archive
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line) // mode links uid gid size month day year name
		got = append(got, strings.Join(append([]string{f[0], f[2], f[3], f[7]}, f[8:]...), " "))
	}
	want := []string{
		"drwxr-xr-x 0 0 1970 bin",
		"lrwxrwxrwx 0 0 1970 bin/sh -> busybox",
		"drwxr-xr-x 0 0 1970 etc",
		"drwx------ 0 0 1970 etc.d",
		"-rw-r----- 0 0 1970 etc/passwd",
		"-rwxr-xr-x 0 0 1970 init",
	}
	if !slices.Equal(got, want) {
		t.Errorf("cpio lists\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWriteCPIORefuses(t *testing.T) {
	for _, files := range [][]vm.File{
		{{Name: "/init"}},
		{{Name: "../init"}},
		{{Name: "a//b"}},
		{{Name: ""}},
		{{Name: "a"}, {Name: "a"}},
		{{Name: "null", Mode: fs.ModeDevice}},
		{{Name: "none", Path: "no such file"}},
	} {
		if err := vm.WriteCPIO(&bytes.Buffer{}, files); err == nil {
			t.Errorf("%+v: no error", files)
		}
	}
}
