// Package rpmdb reads the headers of installed packages out of rpm's database:
// SQLite, ndb, and Berkeley DB, as far as rpm uses them.
//
// The database is opened read-only and never locked, changed, or repaired, and
// nothing is written beside it: it may be on a medium that cannot be written
// to, or be evidence. The price is that rpm is not kept from changing it
// meanwhile, which Close notices. So rpm's own libraries are of no use here,
// and nor are those that read such files for their friends: a database below
// the root of an image is hostile input. The three readers here look at the one
// table that has headers, with bounds checked, and at nothing else.
//
// What is read is bytes. That they are the header of a package, and whose, is
// for rpmhdr and a keyring to say.
package rpmdb

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diglim/internal/wire"
	"diglim/rpmhdr"
)

// maxRecords is the limit on headers in a database. The largest distribution
// has some 70,000 packages.
const maxRecords = 1 << 18

// dirs are where distributions keep the database: SUSE and Fedora since 36;
// all others; ostree.
var dirs = []string{"usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm"}

// names are what rpm calls the file that has the headers, by backend.
var names = []string{"rpmdb.sqlite", "Packages.db", "Packages"}

// A DB is an open database. It is safe for concurrent use.
type DB struct {
	path    string
	files   []*os.File
	opened  []fs.FileInfo // of files, when they were opened
	store   store
	records []Record
}

// A Record is one header in a database.
type Record struct {
	Key uint32 // the number that rpm gave to the header

	// Where it is. What a page is, and what an offset, the store knows.
	page, offset, size uint32
}

// A store is one of rpm's formats.
type store interface {
	index() ([]Record, error)                           // in any order
	read(r Record, buf []byte) (blob []byte, err error) // blob can be buf
}

// Find opens the database of the system below root, which must be the only one
// there. Symbolic links that lead out of root are not followed.
func Find(root string) (*DB, error) { return find(root, dirs) }

// Open opens a database: a file, or the only one in a directory.
func Open(path string) (*DB, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return find(path, []string{"."})
	}
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return open(root, filepath.Base(path))
}

func find(dir string, below []string) (*DB, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var found []string
	var infos []fs.FileInfo
	var failed error
	for _, d := range below {
		for _, name := range names {
			path := filepath.Join(d, name)
			info, err := root.Stat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", filepath.Join(dir, path), err))
				continue
			}
			// one directory is often a link to another
			if !slices.ContainsFunc(infos, func(o fs.FileInfo) bool { return os.SameFile(o, info) }) {
				found, infos = append(found, path), append(infos, info)
			}
		}
	}
	switch len(found) {
	case 0:
		if failed != nil {
			return nil, failed
		}
		return nil, fmt.Errorf("%s: no rpm database (%s) in %s", dir, strings.Join(names, ", "), strings.Join(below, ", "))
	case 1:
		return open(root, found[0])
	}
	return nil, fmt.Errorf("%s: more than one rpm database: %s and %s", dir, found[0], found[1])
}

// open opens the database of that name below root.
func open(root *os.Root, name string) (*DB, error) {
	db := &DB{path: filepath.Join(root.Name(), name)}
	if err := db.open(root, name); err != nil {
		for _, f := range db.files {
			f.Close()
		}
		return nil, fmt.Errorf("%s: %w", db.path, err)
	}
	return db, nil
}

func (db *DB) open(root *os.Root, name string) error {
	main, err := db.file(root, name)
	if err != nil {
		return err
	}
	// what SQLite leaves beside a database, if it leaves anything
	var beside [2]file
	for i, suffix := range []string{"-wal", "-journal"} {
		beside[i], err = db.file(root, name+suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return db.load(main, beside[0], beside[1])
}

// load finds the headers in the file main.
func (db *DB) load(main, wal, journal file) error {
	head, err := main.bytes("rpm database", 0, headSize)
	if err != nil {
		return err
	}
	switch {
	case bytes.HasPrefix(head, []byte(sqliteMagic)):
		db.store, err = openSQLite(main, wal, journal)
	case binary.LittleEndian.Uint32(head) == ndbMagic:
		db.store = &ndb{main}
	case binary.LittleEndian.Uint32(head[bdbMagicAt:]) == bdbMagic:
		db.store, err = openBDB(main, binary.LittleEndian)
	case binary.BigEndian.Uint32(head[bdbMagicAt:]) == bdbMagic:
		db.store, err = openBDB(main, binary.BigEndian)
	default:
		err = errors.New("not an rpm database: neither SQLite nor ndb nor Berkeley DB")
	}
	if err != nil {
		return err
	}
	if db.records, err = db.store.index(); err != nil {
		return err
	}
	slices.SortFunc(db.records, func(a, b Record) int { return cmp.Compare(a.Key, b.Key) })
	for i := 1; i < len(db.records); i++ {
		if db.records[i].Key == db.records[i-1].Key {
			return fmt.Errorf("header %d twice", db.records[i].Key)
		}
	}
	return nil
}

// headSize is how many bytes tell which format a file has, all of which are
// larger.
const headSize = 32

// file opens a file of the database.
func (db *DB) file(root *os.Root, name string) (file, error) {
	info, err := root.Stat(name)
	if err != nil {
		return file{}, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for a writer
		return file{}, errors.New("not a regular file")
	}
	f, err := root.Open(name)
	if err != nil {
		return file{}, err
	}
	db.files = append(db.files, f)
	if info, err = f.Stat(); err != nil {
		return file{}, err
	}
	db.opened = append(db.opened, info)
	return file{f, info.Size()}, nil
}

// Path is the path of the file that has the headers.
func (db *DB) Path() string { return db.path }

// Records returns what the database has, by key. The slice is the caller's.
func (db *DB) Records() []Record { return slices.Clone(db.records) }

// Read reads a stored header, as rpmhdr.ParseStored takes it. It uses buf if
// that is large enough.
func (db *DB) Read(r Record, buf []byte) ([]byte, error) {
	b, err := db.store.read(r, buf[:0])
	if err != nil {
		return nil, fmt.Errorf("%s: header %d: %w", db.path, r.Key, err)
	}
	return b, nil
}

// ErrChanged says that a database was written to while it was read.
var ErrChanged = errors.New("the database was changed while it was read")

// Close closes the database. If its error is ErrChanged what was read is from
// before the change, from after it, or from neither.
func (db *DB) Close() error {
	var errs []error
	for i, f := range db.files {
		now, err := f.Stat()
		if was := db.opened[i]; err == nil && (now.Size() != was.Size() || !now.ModTime().Equal(was.ModTime())) {
			err = fmt.Errorf("%s: %w", f.Name(), ErrChanged)
		}
		errs = append(errs, err, f.Close())
	}
	return errors.Join(errs...)
}

// A file is read in pieces, all of which must be in it. The zero file is none.
type file struct {
	r    io.ReaderAt
	size int64
}

// read reads len(b) bytes.
func (f file) read(record string, b []byte, at int64) error {
	if at < 0 || at > f.size || int64(len(b)) > f.size-at {
		return &wire.Error{Record: record, Offset: at, Err: fmt.Errorf("%w: %d bytes wanted, the file has %d in all", wire.ErrShort, len(b), f.size)}
	}
	if _, err := f.r.ReadAt(b, at); err != nil {
		return &wire.Error{Record: record, Offset: at, Err: err}
	}
	return nil
}

// bytes reads n bytes into memory of its own. The n is the reader's, not the
// file's.
func (f file) bytes(record string, at int64, n int) ([]byte, error) {
	b := make([]byte, n)
	if err := f.read(record, b, at); err != nil {
		return nil, err
	}
	return b, nil
}

// room returns n bytes, of buf if it has them. A header can neither be larger
// than rpm allows nor than the file that it is in.
func (f file) room(buf []byte, n int64) ([]byte, error) {
	if n < 0 || n > rpmhdr.MaxStored || n > f.size {
		return nil, fmt.Errorf("%d bytes of header in a file of %d, the limit is %d", n, f.size, rpmhdr.MaxStored)
	}
	return slices.Grow(buf[:0], int(n))[:n], nil
}
