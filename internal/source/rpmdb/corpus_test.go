package rpmdb_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"diglim/internal/corpus"
	"diglim/internal/keyring"
	"diglim/internal/source"
	"diglim/internal/source/rpmdb"
	"diglim/rpmhdr"

	"github.com/xi2/xz"
)

// unpacked returns the path of a database of the corpus, unpacked.
func unpacked(t *testing.T, path string) string {
	t.Helper()
	name, isXZ := strings.CutSuffix(corpus.Path(t, path), ".xz")
	if !isXZ {
		return name
	}
	in, err := os.Open(name + ".xz")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r, err := xz.NewReader(in, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), filepath.Base(name)))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, r); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

var (
	keyIDs      = regexp.MustCompile(`\b[0-9a-f]{16}\b`)
	headerCount = regexp.MustCompile(`headers (\d+),`)
)

// Every header of every database of the corpus becomes what it was in its
// package, and its signature is good. The table in testdata says what became
// of each database, so that a change shows.
func TestCorpus(t *testing.T) {
	keys, err := keyring.Load(corpus.Path(t, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	manifest := corpus.Manifest(t, "rpmdb")
	rows := []string{"database\theaders\tkeys\tproved\tweak only\tothers\n"}
	for _, path := range slices.Sorted(maps.Keys(manifest)) {
		db, err := rpmdb.Open(unpacked(t, path))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		var isKey, proved, weak int
		others := map[string]int{}
		var buf []byte
		for _, r := range db.Records() {
			blob, err := db.Read(r, buf)
			if err != nil {
				t.Error(err)
				continue
			}
			buf = blob
			p, err := rpmhdr.ParseStored(blob)
			if errors.Is(err, rpmhdr.ErrKey) {
				isKey++
				found, err := rpmhdr.StoredKeys(blob)
				if err == nil && len(found) == 0 {
					err = errors.New("no key")
				}
				for _, k := range found {
					err = errors.Join(err, new(keyring.Keyring).Add("key", k))
				}
				if err != nil {
					t.Errorf("%s: header %d: %v", path, r.Key, err)
				}
				continue
			}
			if err == nil {
				_, err = source.Prove(p, keys, keyring.Policy{})
				if err != nil && !errors.Is(err, source.ErrUnsigned) {
					if _, weakErr := source.Prove(p, keys, keyring.Policy{AllowWeak: true}); weakErr == nil {
						weak++
						continue
					}
				}
			}
			if err != nil {
				others[keyIDs.ReplaceAllString(err.Error(), "ID")]++
				continue
			}
			proved++
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if want := headerCount.FindStringSubmatch(manifest[path]); want != nil && want[1] != fmt.Sprint(len(db.Records())) {
			t.Errorf("%s: %d headers, another reader found %s", path, len(db.Records()), want[1])
		}
		var why []string
		for _, reason := range slices.Sorted(maps.Keys(others)) {
			why = append(why, fmt.Sprintf("%d: %s", others[reason], reason))
		}
		rows = append(rows, fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%s\n", path, len(db.Records()), isKey, proved, weak, strings.Join(why, "; ")))
	}
	corpus.Table(t, "testdata/corpus.tsv", strings.Join(rows, ""))
}
