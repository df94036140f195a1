package durable

import (
	"os"
	"path/filepath"
	"testing"
	"time"
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

// What a killed run left is swept out; what another run is writing is not.
func TestLeftovers(t *testing.T) {
	path := t.TempDir()
	for name, age := range map[string]time.Duration{".tmp-old": 2 * time.Hour, ".tmp-new": 0, "old": 2 * time.Hour, ".hidden": 2 * time.Hour} {
		file := filepath.Join(path, name)
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-age)
		if err := os.Chtimes(file, when, when); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(path); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
	if _, err := os.Stat(filepath.Join(path, ".tmp-old")); err == nil {
		t.Error(".tmp-old is still there")
	}
}

func TestHoldsAndRemove(t *testing.T) {
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Write("file", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for data, want := range map[string]bool{"x": true, "y": false, "": false} {
		if got, err := d.Holds("file", []byte(data)); got != want || err != nil {
			t.Errorf("Holds(%q) = %v, %v", data, got, err)
		}
	}
	if err := d.Remove("file"); err != nil {
		t.Error(err)
	}
	if got, err := d.Holds("file", []byte("x")); got || err != nil {
		t.Errorf("after Remove: %v, %v", got, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func onlyFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 1 || entries[0].Name() != "file" {
		t.Errorf("directory holds %v, %v", entries, err)
	}
}
