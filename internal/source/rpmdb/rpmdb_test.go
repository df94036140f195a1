package rpmdb_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/adler32"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"diglim/internal/rpmtest"
	"diglim/internal/source/rpmdb"
	"diglim/rpmhdr"
)

// headers are what the databases of these tests store, by key: ones that fit
// on a page, and ones that take many.
func headers() map[uint32][]byte {
	all := map[uint32][]byte{}
	for key, files := range map[uint32]int{1: 0, 2: 3, 5: 40, 7: 200, 300: 1} {
		p := rpmtest.Package{Name: fmt.Sprintf("hello%d", key), Algo: 8}
		for i := range files {
			p.Files = append(p.Files, rpmtest.Regular(fmt.Sprintf("/usr/bin/file%d", i), 0o755, fmt.Sprint(i)))
		}
		all[key] = rpmtest.Stored(p.Header(), rpmtest.Int32s(1008, 1_700_000_000))
	}
	return all
}

func keys(all map[uint32][]byte) []uint32 {
	var keys []uint32
	for k := range all {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// ndb makes a database of that format.
func ndb(all map[uint32][]byte) []byte {
	const page = 4096
	u32 := binary.LittleEndian.AppendUint32
	slots := u32(u32(u32(u32([]byte("RpmP"), 0), 7), 1), 301)
	slots = append(slots, make([]byte, 12)...)
	blobs := []byte{}
	for _, key := range keys(all) {
		blob := append(u32(u32(u32([]byte("BlbS"), key), 7), uint32(len(all[key]))), all[key]...)
		for (len(blob)+12)%16 != 0 {
			blob = append(blob, 0)
		}
		sum := adler32.Checksum(blob)
		blob = append(u32(u32(blob, sum), uint32(len(all[key]))), "BlbE"...)
		slots = u32(u32(u32(append(slots, "Slot"...), key), uint32(page+len(blobs))/16), uint32(len(blob)/16))
		blobs = append(blobs, blob...)
	}
	for len(slots) < page {
		slots = append(append(slots, "Slot"...), make([]byte, 12)...)
	}
	return append(slots, blobs...)
}

// bdb makes a database of that format, with pages of 512 bytes and one pair on
// each hash page but the first, which has two.
func bdb(all map[uint32][]byte, order binary.AppendByteOrder) []byte {
	const size, head = 512, 26
	var pages [][]byte
	page := func(kind byte) []byte {
		p := make([]byte, size)
		order2(order).PutUint32(p[8:], uint32(len(pages)))
		p[25] = kind
		pages = append(pages, p)
		return p
	}
	meta := page(8)
	order2(order).PutUint32(meta[12:], 0x61561)
	order2(order).PutUint32(meta[16:], 9)
	order2(order).PutUint32(meta[20:], size)
	var hash []byte
	var n, end int
	put := func(item []byte) {
		end -= len(item)
		copy(hash[end:], item)
		order2(order).PutUint16(hash[head+2*n:], uint16(end))
		n++
		order2(order).PutUint16(hash[20:], uint16(n))
	}
	hash, n, end = page(13), 0, size
	put(append([]byte{1}, order.AppendUint32(nil, 0)...)) // rpm's counter
	put(append([]byte{1}, order.AppendUint32(nil, 300)...))
	for i, key := range keys(all) {
		if i > 0 {
			hash, n, end = page(2), 0, size
		}
		put(append([]byte{1}, order.AppendUint32(nil, key)...))
		blob := all[key]
		if len(blob) < 400 {
			put(append([]byte{1}, blob...))
			continue
		}
		put(order.AppendUint32(order.AppendUint32([]byte{3, 0, 0, 0}, uint32(len(pages))), uint32(len(blob))))
		for len(blob) > 0 {
			p := page(7)
			k := copy(p[head:], blob)
			blob = blob[k:]
			order2(order).PutUint16(p[22:], uint16(k))
			if len(blob) > 0 {
				order2(order).PutUint32(p[16:], uint32(len(pages)))
			}
		}
	}
	order2(order).PutUint32(meta[32:], uint32(len(pages)-1))
	return bytes.Join(pages, nil)
}

// order2 is the other half of a byte order.
func order2(o binary.AppendByteOrder) binary.ByteOrder { return o.(binary.ByteOrder) }

// sqlite makes a database of that format with SQLite's own shell. The
// statements run before the headers are put in.
func sqlite(t testing.TB, path string, all map[uint32][]byte, statements ...string) {
	t.Helper()
	const create = "CREATE TABLE IF NOT EXISTS 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,blob BLOB NOT NULL);"
	script := append(statements, create, "BEGIN;")
	for _, key := range keys(all) {
		script = append(script, fmt.Sprintf("INSERT INTO Packages VALUES (%d, x'%s');", key, hex.EncodeToString(all[key])))
	}
	shell(t, path, append(script, "COMMIT;")...)
}

func shell(t testing.TB, path string, statements ...string) {
	t.Helper()
	cmd := exec.Command(program(t, "sqlite3"), path)
	cmd.Stdin = strings.NewReader(strings.Join(statements, "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sqlite3: %v: %s", err, out)
	}
}

// program finds a program of a Debian package that test/install-deps installs.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("not installed (test/install-deps): %v", err)
	}
	return path
}

func write(t testing.TB, path string, b []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// read reads all headers of a database, by key.
func read(path string) (all map[uint32][]byte, err error) {
	db, err := rpmdb.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	all = map[uint32][]byte{}
	for _, r := range db.Records() {
		if all[r.Key], err = db.Read(r, nil); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func same(t *testing.T, name, path string, want map[uint32][]byte) {
	t.Helper()
	got, err := read(path)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if !slices.Equal(keys(got), keys(want)) {
		t.Errorf("%s: headers %v, want %v", name, keys(got), keys(want))
	}
	for key := range want {
		if !bytes.Equal(got[key], want[key]) {
			t.Errorf("%s: header %d is not what was stored", name, key)
		}
	}
}

func TestFormats(t *testing.T) {
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"ndb":                       ndb(headers()),
		"Berkeley DB":               bdb(headers(), binary.LittleEndian),
		"Berkeley DB of a big host": bdb(headers(), binary.BigEndian),
		"empty ndb":                 ndb(nil),
	} {
		want := headers()
		if strings.HasPrefix(name, "empty") {
			want = nil
		}
		same(t, name, write(t, filepath.Join(dir, name), b), want)
	}
}

func TestSQLite(t *testing.T) {
	dir := t.TempDir()
	many := headers()
	for i := range uint32(3000) { // so that the table is a tree of more than one level
		many[1000+i] = []byte(fmt.Sprint("no header ", i))
	}
	for name, statements := range map[string][]string{
		"pages of 512":   {"PRAGMA page_size=512;"},
		"pages of 4096":  {"PRAGMA page_size=4096;"},
		"pages of 64K":   {"PRAGMA page_size=65536;"},
		"vacuumed":       {"PRAGMA auto_vacuum=FULL;", "CREATE TABLE a(b); INSERT INTO a VALUES (zeroblob(100000)); DROP TABLE a;"},
		"not first":      {"CREATE TABLE a(b); CREATE INDEX c ON a(b); CREATE VIEW v AS SELECT * FROM a;"},
		"WAL, then none": {"PRAGMA journal_mode=WAL;"},
	} {
		path := filepath.Join(dir, name)
		sqlite(t, path, many, statements...)
		same(t, name, path, many)
	}
}

// A write-ahead log that rpm has left behind is read along, without a trace.
func TestWAL(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rpmdb.sqlite")
	all := headers()
	sqlite(t, path, all, "PRAGMA page_size=512;", "PRAGMA journal_mode=WAL;")
	// One that stops without an end leaves its log, as rpm does when it is killed.
	more := map[uint32][]byte{400: all[5], 401: all[7]}
	kill := "PRAGMA wal_autocheckpoint=0;"
	for _, key := range keys(more) {
		kill += fmt.Sprintf("INSERT INTO Packages VALUES (%d, x'%s');", key, hex.EncodeToString(more[key]))
	}
	copies := filepath.Join(dir, "copies")
	kill += "DELETE FROM Packages WHERE hnum = 2;\n.shell mkdir " + copies + " && cp " + path + "* " + copies + "\n"
	shell(t, path, kill)
	copied := filepath.Join(copies, "rpmdb.sqlite")
	if err := os.Remove(copied + "-shm"); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(copied + "-wal")
	if err != nil || len(before) == 0 {
		t.Fatalf("no log: %v", err)
	}
	want := headers()
	delete(want, 2)
	want[400], want[401] = more[400], more[401]
	same(t, "log", copied, want)
	if names, _ := filepath.Glob(copied + "*"); len(names) != 2 {
		t.Errorf("reading left traces: %v", names)
	}
	wal := func(b []byte) string {
		p := write(t, filepath.Join(t.TempDir(), "rpmdb.sqlite"), mustRead(t, copied))
		write(t, p+"-wal", b)
		return p
	}
	without := headers() // what the database has without the log
	same(t, "empty log", wal(nil), without)
	same(t, "log of an older database", wal(append([]byte{1}, before[1:]...)), without)
	stale := bytes.Clone(before)
	stale[16] ^= 1 // the salt, with which the checksum of the start is wrong
	same(t, "stale log", wal(stale), without)
	// Cut anywhere, it counts up to the last transaction that is whole.
	last := want
	for n := len(before) - 1; n > len(before)-600; n -= 100 {
		got, err := read(wal(before[:n]))
		if err != nil {
			t.Errorf("log of %d bytes: %v", n, err)
		}
		last = got
	}
	if _, there := last[2]; !there || last[401] == nil {
		t.Error("a transaction that was cut off counts, or one that was not does not")
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What rpm itself has put into a database, and says is in it.
func TestSameAsRPM(t *testing.T) {
	rpm := program(t, "rpm")
	dir := t.TempDir()
	p := rpmtest.Package{Name: "hello", Algo: 8, Files: []rpmtest.File{rpmtest.Regular("/usr/bin/hello", 0o755, "x")}}
	list := rpmtest.Package{Name: "alpha", Algo: 8}
	var export []byte
	for _, h := range [][]byte{p.Header(), list.Header()} {
		stored := rpmtest.Stored(h, rpmtest.Int32s(1008, 1))
		export = append(append(export, h[:8]...), stored...)
	}
	imported := exec.Command("rpmdb", "--dbpath", dir, "--define", "_db_backend sqlite", "--importdb")
	imported.Stdin = bytes.NewReader(export)
	if out, err := imported.CombinedOutput(); err != nil {
		t.Fatalf("rpmdb --importdb: %v: %s", err, out)
	}
	out, err := exec.Command(rpm, "--dbpath", dir, "-qa", "--qf", "%{DBINSTANCE} %{NVRA}\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(dir)
	if err != nil {
		t.Fatal(err)
	}
	var text string
	for _, key := range keys(got) {
		p, err := rpmhdr.ParseStored(got[key])
		if err != nil {
			t.Fatal(err)
		}
		nevra, err := p.Header.NEVRA()
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("%d %s\n", key, nevra)
	}
	lines := strings.SplitAfter(string(out), "\n")
	slices.Sort(lines)
	if want := strings.Join(lines, ""); text != want || !strings.Contains(want, "hello-1.0-1") {
		t.Errorf("%q, rpm says %q", text, want)
	}
}

func TestFind(t *testing.T) {
	b := ndb(headers())
	for name, c := range map[string]struct {
		files map[string]string // content, or target of a link
		want  string            // path, or part of the error
	}{
		"SUSE":                {map[string]string{"usr/lib/sysimage/rpm/Packages.db": string(b)}, "usr/lib/sysimage/rpm/Packages.db"},
		"with a link":         {map[string]string{"usr/lib/sysimage/rpm/Packages.db": string(b), "var/lib/rpm": "->../../usr/lib/sysimage/rpm"}, "usr/lib/sysimage/rpm/Packages.db"},
		"link to nowhere":     {map[string]string{"usr/share/rpm/Packages": string(b), "var/lib/rpm": "->/usr/lib/sysimage/rpm"}, "usr/share/rpm/Packages"},
		"classic":             {map[string]string{"var/lib/rpm/Packages": string(b)}, "var/lib/rpm/Packages"},
		"none":                {map[string]string{"var/lib/dpkg/status": ""}, "no rpm database"},
		"two":                 {map[string]string{"var/lib/rpm/Packages": string(b), "var/lib/rpm/Packages.db": string(b)}, "more than one"},
		"link out of root":    {map[string]string{"var/lib/rpm": "->/etc"}, "escapes"},
		"file out of root":    {map[string]string{"var/lib/rpm/Packages": "->../../../../../../../../../../../../etc/passwd"}, "escapes"},
		"directory as a file": {map[string]string{"var/lib/rpm/Packages/x": ""}, "not a regular file"},
		"noise":               {map[string]string{"var/lib/rpm/Packages": strings.Repeat("x", 100)}, "not an rpm database"},
		"empty":               {map[string]string{"var/lib/rpm/Packages": ""}, "input ends early"},
	} {
		root := t.TempDir()
		for path, content := range c.files {
			target, isLink := strings.CutPrefix(content, "->")
			path = filepath.Join(root, path)
			if !isLink {
				write(t, path, []byte(content))
				continue
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		}
		db, err := rpmdb.Find(root)
		if err != nil {
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), root) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			continue
		}
		if want := filepath.Join(root, c.want); db.Path() != want {
			t.Errorf("%s: %s, want %s", name, db.Path(), want)
		}
		db.Close()
	}
}

func TestChangedWhileRead(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "Packages.db"), ndb(headers()))
	db, err := rpmdb.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, append(ndb(headers()), 0))
	if err := db.Close(); !errors.Is(err, rpmdb.ErrChanged) || !strings.Contains(err.Error(), path) {
		t.Errorf("Close = %v", err)
	}
}

// hostile are databases with one thing wrong each, and what must be said of it.
func hostile() map[string][2]string {
	goodNDB, goodBDB := ndb(headers()), bdb(headers(), binary.LittleEndian)
	patch := func(b []byte, at int, v ...byte) string { b = bytes.Clone(b); copy(b[at:], v); return string(b) }
	blob := int(binary.LittleEndian.Uint32(goodNDB[32+8:])) * 16
	// the page of the last hash item, whose header has overflow pages behind it
	var chain int
	for at := 512; at < len(goodBDB); at += 512 {
		if goodBDB[at+25] == 7 && goodBDB[at+16] != 0 {
			chain = at
			break
		}
	}
	self := byte(chain / 512)
	return map[string][2]string{
		"ndb version":             {patch(goodNDB, 4, 1), "version 1"},
		"ndb 2^32-1 pages":        {patch(goodNDB, 12, 255, 255, 255, 255), "pages of slots, the limit is 1024"},
		"ndb pages past slots":    {patch(goodNDB, 12, 2), "ndb slot: offset 4096: no slot magic"},
		"ndb slot magic":          {patch(goodNDB, 32, 0), "ndb slot: offset 32: no slot magic"},
		"ndb key twice":           {patch(goodNDB, 32+4, 2), "header 2 twice"},
		"ndb key of another":      {patch(goodNDB, 32+4, 9), "it is of header 1"},
		"ndb block past the end":  {patch(goodNDB, 32+8, 255, 255, 255, 255), "input ends early"},
		"ndb 2^32-1 blocks":       {patch(goodNDB, 32+12, 255, 255, 255, 255), "bytes of header in a file of"},
		"ndb no blocks":           {patch(goodNDB, 32+12, 0), "input ends early"},
		"ndb fewer blocks":        {patch(goodNDB, 32+12, goodNDB[32+12]-1), "the slot has"},
		"ndb blob magic":          {patch(goodNDB, blob, 0), "no blob magic"},
		"ndb blob of 2^32-1":      {patch(goodNDB, blob+12, 255, 255, 255, 255), "4294967295 bytes take"},
		"ndb changed":             {patch(goodNDB, blob+100, goodNDB[blob+100]^1), "checksum does not match"},
		"ndb tail":                {patch(goodNDB, len(goodNDB)-1, 0), "no blob tail"},
		"bdb pages of 0":          {patch(goodBDB, 20, 0, 0), "pages of 0 bytes"},
		"bdb pages of 513":        {patch(goodBDB, 20, 1), "pages of 513 bytes"},
		"bdb encrypted":           {patch(goodBDB, 24, 1), "not a plain hash table"},
		"bdb of another kind":     {patch(goodBDB, 25, 9), "not a plain hash table"},
		"bdb with checksums":      {patch(goodBDB, 26, 1), "not a plain hash table"},
		"bdb in parts":            {patch(goodBDB, 36, 2), "not a plain hash table"},
		"bdb 2^32-1 pages":        {patch(goodBDB, 32, 255, 255, 255, 255), "4294967295 of 512 bytes is the last"},
		"bdb odd items":           {patch(goodBDB, 512+20, 3), "3 items"},
		"bdb 65,534 items":        {patch(goodBDB, 512+20, 254, 255), "65534 items"},
		"bdb item over the index": {patch(goodBDB, 512+26, 1, 0), "item 0 at 1"},
		"bdb item past the page":  {patch(goodBDB, 512+26, 255, 255), "item 0 at 65535"},
		"bdb items out of order":  {patch(goodBDB, 512+28, 255, 1), "item 1 at 511"},
		"bdb key off the page":    {patch(goodBDB, 512+507, 3), "the key is not a number"},
		"bdb chain to itself":     {patch(goodBDB, chain+16, self, 0, 0, 0), "Berkeley DB overflow page"},
		"bdb chain cut":           {patch(goodBDB, chain+16, 0, 0, 0, 0), "the next page is 0 after"},
		"bdb chain past the end":  {patch(goodBDB, chain+16, 255, 255, 255, 255), "input ends early"},
		"bdb chain elsewhere":     {patch(goodBDB, chain+16, 1, 0, 0, 0), "page of type 13"},
		"bdb empty page in chain": {patch(goodBDB, chain+22, 0, 0), "0 bytes of header on it"},
		"bdb too much on a page":  {patch(goodBDB, chain+22, 255, 255), "65535 bytes of header on it"},
		"bdb duplicates":          {strings.ReplaceAll(string(goodBDB), "\x03\x00\x00\x00", "\x02\x00\x00\x00"), "item of type 2"},
	}
}

func TestHostile(t *testing.T) {
	for name, c := range hostile() {
		path := write(t, filepath.Join(t.TempDir(), "Packages"), []byte(c[0]))
		if _, err := read(path); err == nil || !strings.Contains(err.Error(), c[1]) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", name, err, c[1])
		}
	}
}

func TestHostileSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rpmdb.sqlite")
	sqlite(t, path, headers(), "PRAGMA page_size=512;")
	good := mustRead(t, path)
	patch := func(at int, v ...byte) []byte { b := bytes.Clone(good); copy(b[at:], v); return b }
	u16 := func(at int) int { return int(binary.BigEndian.Uint16(good[at:])) }
	table := 512 // first page of rows
	for good[table] != 13 || u16(table+3) < 2 {
		table += 512
	}
	row := table + u16(table+8)
	schema := u16(100 + 8)
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"pages of 513":         {patch(16, 2, 1), "pages of 513 bytes"},
		"version 3":            {patch(19, 3), "read version 3"},
		"reserved":             {patch(20, 100), "100 bytes of each page reserved"},
		"UTF-16":               {patch(59, 2), "text encoding 2"},
		"header only":          {good[:100], "the tree of pages has no end"},
		"an index":             {patch(table, 10), "page of type 10 in a table"},
		"65,535 cells":         {patch(table+3, 255, 255), "SQLite"},
		"cell past the page":   {patch(table+8, 255, 255), "SQLite cell"},
		"cell twice":           {patch(table+10, good[table+8], good[table+9]), "after others"},
		"row of 2^63 bytes":    {patch(row, 255, 255, 255, 255, 255, 255, 255, 255, 255), "SQLite"},
		"no table":             {bytes.ReplaceAll(good, []byte("Packages"), []byte("Packaged")), "no table Packages"},
		"a view":               {bytes.Replace(good, []byte("tablePackages"), []byte("views1234567x"), 1), "no table Packages"},
		"schema row elsewhere": {patch(100+8, 0, 0), "SQLite"},
		"schema columns":       {patch(schema+2, 127), "SQLite row"},
	} {
		path := write(t, filepath.Join(t.TempDir(), "rpmdb.sqlite"), c.b)
		if _, err := read(path); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	write(t, path+"-journal", []byte("\xd9\xd5\x05\xf9\x20\xa1\x63\xd7 and so on"))
	if _, err := read(path); err == nil || !strings.Contains(err.Error(), "-journal") {
		t.Errorf("a hot journal: %v", err)
	}
	write(t, path+"-journal", make([]byte, 512))
	same(t, "cold journal", path, headers())
}

// A database cut or changed anywhere gives its headers, or fewer, or an error:
// no panic, no endless chain, and no memory that it does not have.
func TestCutAndChanged(t *testing.T) {
	good := map[string][]byte{"ndb": ndb(headers()), "bdb": bdb(headers(), binary.LittleEndian)}
	path := filepath.Join(t.TempDir(), "rpmdb.sqlite")
	if _, err := exec.LookPath("sqlite3"); err == nil || os.Getenv("CI") == "true" {
		sqlite(t, path, headers(), "PRAGMA page_size=512;")
		good["sqlite"] = mustRead(t, path)
	}
	for name, b := range good {
		whole, err := readBytes(b, nil)
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(b); n += 97 {
			if got, err := readBytes(b[:n], nil); err == nil && len(got) == len(whole) {
				t.Errorf("%s: the first %d of %d bytes are as good as all", name, n, len(b))
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		reads := 0
		for at := 0; at < len(b); at += 1 + at/100 {
			for _, v := range []byte{0, 1, 0x80, 0xff} {
				changed := bytes.Clone(b)
				changed[at] ^= v
				_, _ = readBytes(changed, nil)
				reads++
			}
		}
		runtime.ReadMemStats(&after)
		if used := (after.TotalAlloc - before.TotalAlloc) / uint64(reads); used > 64*uint64(len(b)) {
			t.Errorf("%s: %d bytes allocated to read %d", name, used, len(b))
		}
	}
}
