package plain

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"diglim/internal/digest"
)

// tool returns the path of a program of another project. Where it is missing
// the test is skipped, but with CI=true it fails.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

func write(t testing.TB, path string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tree/b", "tree/a/z", "tree/a.b", "tree/ü", "other/x"} {
		write(t, filepath.Join(dir, name), []byte(name), 0o644)
	}
	if err := os.Symlink("../other", filepath.Join(dir, "tree/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("b", filepath.Join(dir, "tree/alias")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("tree", filepath.Join(dir, "arg")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "tree/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	tree := []string{"tree/a.b", "tree/a/z", "tree/b", "tree/ü"}
	t.Chdir(dir)
	for _, c := range []struct {
		args []string
		want []string
		errs []string
	}{
		{[]string{"tree"}, tree, nil},
		{[]string{"arg"}, tree, nil},
		{[]string{"tree/", "./tree/b", dir + "/tree/a"}, tree, nil},
		{[]string{"tree/alias"}, []string{"tree/b"}, nil},
		{[]string{"missing", "other", "empty", "tree/pipe"}, []string{"other/x"}, []string{"missing: no such file", "empty: no regular files", "tree/pipe: not a regular"}},
	} {
		var want []string
		for _, name := range c.want {
			want = append(want, filepath.Join(dir, name))
		}
		got, errs := Find(c.args)
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q", c.args, got)
		}
		if len(errs) != len(c.errs) {
			t.Errorf("%q: %v", c.args, errs)
			continue
		}
		for i, err := range errs {
			if !strings.Contains(err.Error(), c.errs[i]) {
				t.Errorf("%q: %v", c.args, err)
			}
		}
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		data string
		mode os.FileMode
		bits uint32
	}{
		{"plain", "abc", 0o640, 0o640},
		{"empty", "", 0o755, 0o755},
		{"set", "abc", 0o755 | os.ModeSetuid | os.ModeSetgid | os.ModeSticky, 0o7755},
	} {
		path := filepath.Join(dir, c.name)
		write(t, path, []byte(c.data), c.mode)
		for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512, digest.SHA3_256, digest.SHA1} {
			want := File{Path: path, Mode: c.bits, Size: int64(len(c.data)), Digest: digest.Sum(alg, []byte(c.data))}
			if f, err := Read(path, alg); f != want || err != nil {
				t.Errorf("%s: %+v, %v", c.name, f, err)
			}
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "missing"), "/dev/null"} {
		if f, err := Read(path, digest.SHA256); err == nil {
			t.Errorf("%s: %+v", path, f)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error is %v", path, err)
		}
	}
	// The kernel makes up what is in there; its size is not what stat says.
	if f, err := Read("/proc/self/status", digest.SHA256); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Errorf("/proc/self/status: %+v, %v", f, err)
	}
}

// Each file is judged by itself: what the tools before did wrong.
func TestIsImmutable(t *testing.T) {
	for _, c := range []struct {
		path string
		mode uint32
		size int64
		want bool
	}{
		{"/usr/bin/sh", 0o755, 1, true},
		{"/usr/bin/sh", 0o755, 0, false},
		{"/etc/passwd", 0o644, 1, false}, // also after an immutable one
		{"/etc/shadow", 0o400, 1, true},
		{"/etc/empty", 0o400, 0, false},
		{"/x", 0o4644, 1, false},
		{"/x", 0o001, 1, true},
		{"/lib/modules/6.1/kernel/x.ko", 0o644, 1, true},
		{"/usr/lib/modules/6.1/x.ko", 0o644, 0, true},
		{"/image/root/lib/modules/6.1/x.ko", 0o644, 1, true},
		{"/lib/modules/6.1/modules.dep", 0o644, 1, false},
		{"/lib/modules/6.1/modules.d/x.ko", 0o644, 1, true},
		{"/lib/modules.conf", 0o644, 1, false},
		{"/lib/modules-load.d/x.conf", 0o644, 1, false},
		{"/lib/modules", 0o644, 1, false},
		{"/lib/firmware/a/b.bin", 0o644, 1, true},
		{"/lib/firmware-tools", 0o644, 1, false},
	} {
		f := File{Path: c.path, Mode: c.mode, Size: c.size}
		if f.IsImmutable() != c.want {
			t.Errorf("%s %o, %d bytes: %t", c.path, c.mode, c.size, !c.want)
		}
	}
}

func TestZeroPage(t *testing.T) {
	const want = "sha256:ad7facb2586fc6e966c004d7d1d16b024f5805ff7cb47c7a85dabd8b48892ca7"
	if d := ZeroPage(digest.SHA256); d.String() != want {
		t.Errorf("%s", d)
	}
}

// The digest is what the kernel's own tool prints, also where a level of the
// tree ends.
func TestVerityAsFsverity(t *testing.T) {
	fsverity := tool(t, "fsverity")
	dir := t.TempDir()
	random := make([]byte, 4096)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		perBlock := verityBlock / alg.Size()
		for _, size := range []int{
			0, 1, verityBlock - 1, verityBlock, verityBlock + 1, 2 * verityBlock,
			(perBlock - 1) * verityBlock, perBlock * verityBlock, perBlock*verityBlock + 1, 2*perBlock*verityBlock + 77,
			perBlock*perBlock*verityBlock - 5, perBlock * perBlock * verityBlock, perBlock*perBlock*verityBlock + 1,
		} {
			path := filepath.Join(dir, "file")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			for at := 0; at < size; at += 1 << 20 { // mostly holes
				part := random[:min(len(random), size-at)]
				if _, err := f.WriteAt(part, int64(at)); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(f.Truncate(int64(size)), f.Close()); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(fsverity, "digest", "--hash-alg="+alg.String(), path).Output()
			if err != nil {
				t.Fatal(err)
			}
			file, err := ReadVerity(path, alg)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%s %s\n", file.Digest, path); got != string(out) {
				t.Errorf("%d bytes: %s, fsverity: %s", size, got, out)
			}
		}
	}
	if _, err := ReadVerity(filepath.Join(dir, "file"), digest.SHA1); err == nil {
		t.Error("a SHA-1 digest is made")
	}
}

// The empty file's digest is that of a descriptor of zeros but for its first
// fields, fixed here for where there is no fsverity.
func TestVerityEmpty(t *testing.T) {
	const want = "sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"
	if d, err := Verity(bytes.NewReader(nil), digest.SHA256); err != nil || d.String() != want {
		t.Errorf("%s, %v", d, err)
	}
}

// A file of any size takes the same memory.
func TestMemoryOfLargeFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large")
	const size = 300 << 20
	write(t, path, nil, 0o644)
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func() error{
		"digest":    func() error { _, err := Read(path, digest.SHA256); return err },
		"fs-verity": func() error { _, err := ReadVerity(path, digest.SHA256); return err },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := read(); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
			t.Errorf("%s: %d bytes allocated", name, used)
		}
	}
}

func TestReadErrorsAreReported(t *testing.T) {
	broken := io.MultiReader(strings.NewReader("070701"), errReader{})
	if _, err := Initramfs(broken, digest.SHA256); !errors.Is(err, errBroken) {
		t.Errorf("initramfs: %v", err)
	}
	if _, err := Verity(errReader{}, digest.SHA256); !errors.Is(err, errBroken) {
		t.Errorf("fs-verity: %v", err)
	}
}

var errBroken = errors.New("broken")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errBroken }
