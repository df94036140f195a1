// Package corpus finds the real data that tests run over: packages, keys,
// logs and quotes that others made. It is not part of the repository.
package corpus

import (
	"bufio"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Path returns the path of a file or directory of the corpus. Where there is
// no corpus the test is skipped, but with CI=true it fails; so it does where
// there is one that lacks the file.
func Path(t testing.TB, name ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{root(t)}, name...)...)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the corpus lacks it: %v", err)
	}
	return path
}

// Read returns the content of a file of the corpus.
func Read(t testing.TB, name ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(Path(t, name...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Manifest returns what the corpus says of its files of one topic, by path.
func Manifest(t testing.TB, topic string) map[string]string {
	t.Helper()
	f, err := os.Open(Path(t, "MANIFEST.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	what := make(map[string]string)
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if fields := strings.Split(s.Text(), "\t"); len(fields) > 4 && fields[0] == topic {
			what[fields[1]] = fields[4]
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if len(what) == 0 {
		t.Fatalf("the corpus lists nothing of topic %s", topic)
	}
	return what
}

var update = flag.Bool("update", false, "rewrite what tests compare with, in testdata")

// Updating reports whether the test is to rewrite what it compares with, in
// testdata.
func Updating() bool { return *update }

// Table compares the rows of a table, one a line, with those in a file below
// testdata, so that a change shows. With the flag -update it rewrites the file.
func Table(t testing.TB, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := string(b)
	if got == want {
		return
	}
	for name, rows := range map[string][2]string{"new in": {got, want}, "missing from": {want, got}} {
		for row := range strings.Lines(rows[0]) {
			if !strings.Contains("\n"+rows[1], "\n"+row) {
				t.Errorf("%s %s: %s", name, path, row)
			}
		}
	}
	t.Errorf("%s says otherwise; see what changed, then run the test with -update", path)
}

func root(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("DIGLIM_CORPUS")
	if dir == "" {
		dir = filepath.Join(moduleRoot(t), "..", "shared", "data")
	}
	if _, err := os.Stat(filepath.Join(dir, "MANIFEST.tsv")); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no corpus: %v", err)
		}
		t.Skipf("no corpus of real data (set DIGLIM_CORPUS): %v", err)
	}
	return dir
}

func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}
