package rpmdb_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"diglim/internal/corpus"
	"diglim/internal/source/rpmdb"
	"diglim/rpmhdr"
)

// readBytes reads a database, and its write-ahead log, from memory.
func readBytes(main, wal []byte) (map[uint32][]byte, error) {
	db, err := rpmdb.OpenBytes(main, wal)
	if err != nil {
		return nil, err
	}
	all := map[uint32][]byte{}
	for _, r := range db.Records() {
		if all[r.Key], err = db.Read(r, nil); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// FuzzRead has databases of SQLite among its seeds in testdata/fuzz, made by
//
//	go test -run TestSeeds -update
func FuzzRead(f *testing.F) {
	// Small ones: a fuzzer takes long to shrink what it has found in large ones.
	small := headers()
	delete(small, 5)
	delete(small, 7)
	f.Add(ndb(small), []byte(nil))
	f.Add(bdb(small, binary.LittleEndian), []byte(nil))
	f.Add(bdb(small, binary.BigEndian), []byte(nil))
	f.Fuzz(func(t *testing.T, main, wal []byte) {
		all, err := readBytes(main, wal)
		if err != nil {
			return
		}
		for _, blob := range all {
			if len(blob) > len(main)+len(wal) {
				t.Errorf("a header of %d bytes from %d", len(blob), len(main)+len(wal))
			}
			_, _ = rpmhdr.ParseStored(blob)
		}
	})
}

// The seeds of FuzzRead are databases that SQLite made.
func TestSeeds(t *testing.T) {
	seeds, err := filepath.Glob("testdata/fuzz/FuzzRead/sqlite-*")
	if err != nil || len(seeds) < 2 && !corpus.Updating() {
		t.Fatalf("seeds %v, %v", seeds, err)
	}
	if !corpus.Updating() {
		return
	}
	small := headers()
	delete(small, 7)
	delete(small, 5)
	path := filepath.Join(t.TempDir(), "rpmdb.sqlite")
	sqlite(t, path, small, "PRAGMA page_size=512;", "PRAGMA journal_mode=WAL;")
	writeSeed(t, "sqlite-plain", mustRead(t, path), nil)
	wal := filepath.Join(t.TempDir(), "wal")
	shell(t, path, "INSERT INTO Packages VALUES (9, zeroblob(100));", ".shell cp "+path+"-wal "+wal)
	writeSeed(t, "sqlite-wal", mustRead(t, path), mustRead(t, wal))
}

func writeSeed(t *testing.T, name string, main, wal []byte) {
	t.Helper()
	const dir = "testdata/fuzz/FuzzRead"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	seed := "go test fuzz v1\n[]byte(" + strconv.Quote(string(main)) + ")\n[]byte(" + strconv.Quote(string(wal)) + ")\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(seed), 0o644); err != nil {
		t.Fatal(err)
	}
}
