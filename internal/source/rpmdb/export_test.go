package rpmdb

import "bytes"

// OpenBytes opens a database that is in memory, with its write-ahead log.
func OpenBytes(main, wal []byte) (*DB, error) {
	db := &DB{path: "memory"}
	return db, db.load(inMemory(main), inMemory(wal), file{})
}

func inMemory(b []byte) file { return file{bytes.NewReader(b), int64(len(b))} }
