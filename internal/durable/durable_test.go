package durable

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		data    string
		changed bool
	}{{"one", true}, {"one", false}, {"two", true}, {"", true}, {"", false}} {
		changed, err := d.Write("file", []byte(c.data))
		if err != nil || changed != c.changed {
			t.Errorf("Write(%q) = %v, %v", c.data, changed, err)
		}
		if b, err := os.ReadFile(filepath.Join(path, "file")); err != nil || string(b) != c.data {
			t.Errorf("file holds %q, %v", b, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	onlyFile(t, path)
}

// A write that fails leaves the old file and nothing beside it.
func TestFailedWrite(t *testing.T) {
	path := t.TempDir()
	if err := os.Mkdir(filepath.Join(path, "file"), 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write("file", []byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
	if _, err := d.Write("missing/file", []byte("x")); err == nil {
		t.Error("a file was written into a directory that is not there")
	}
	onlyFile(t, path)
}

func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 1 || entries[0].Name() != "file" {
		t.Errorf("directory holds %v, %v", entries, err)
	}
}
