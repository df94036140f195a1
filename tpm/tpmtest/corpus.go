package tpmtest

import (
	"os"
	"path/filepath"
	"testing"
)

// Corpus returns the directory of real data on a topic: below DIGLIM_CORPUS,
// else below ../shared/data of the repository. Without it the test is
// skipped, and with CI=true it fails.
func Corpus(t testing.TB, topic string) string {
	t.Helper()
	root := os.Getenv("DIGLIM_CORPUS")
	if root == "" {
		root = filepath.Join(repository(t), "../shared/data")
	}
	dir := filepath.Join(root, topic)
	if _, err := os.Stat(dir); err != nil {
		Missing(t, "corpus: "+err.Error()+"; set DIGLIM_CORPUS")
	}
	return dir
}

// Missing skips a test for want of something; with CI=true it fails.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// Read reads a file that must be there.
func Read(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func repository(t testing.TB) string {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("no go.mod above the test's directory")
	return ""
}
