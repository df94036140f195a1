package plain

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"diglim/internal/digest"

	"github.com/klauspost/compress/zstd"
)

// entry is a member to be written, and what its header is to say other than
// the truth.
type entry struct {
	name  string
	mode  uint32
	data  string
	inode uint32
	links uint32
	lie   map[string]uint32 // size, namesize, check
}

func file(name, data string) entry { return entry{name: name, mode: 0o100644, data: data} }

// newc writes an archive with its trailer.
func newc(entries ...entry) []byte {
	return archive(cpioNewc, append(entries, entry{name: cpioTrailer})...)
}

func archive(magic string, entries ...entry) []byte {
	var b bytes.Buffer
	for i, e := range entries {
		number := func(field string, n uint32) {
			if lie, ok := e.lie[field]; ok {
				n = lie
			}
			fmt.Fprintf(&b, "%08X", n)
		}
		if e.inode == 0 {
			e.inode = uint32(i + 1)
		}
		sum := uint32(0)
		if magic == cpioCRC {
			for _, c := range []byte(e.data) {
				sum += uint32(c)
			}
		}
		b.WriteString(magic)
		for _, n := range []uint32{e.inode, e.mode, 0, 0, max(1, e.links), 0} {
			number("", n)
		}
		number("size", uint32(len(e.data)))
		for range 4 {
			number("", 0)
		}
		number("namesize", uint32(len(e.name)+1))
		number("check", sum)
		b.WriteString(e.name)
		b.WriteByte(0)
		pad(&b)
		b.WriteString(e.data)
		pad(&b)
	}
	return b.Bytes()
}

func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}

func want(path string, mode uint32, data string) File {
	return File{Path: path, Mode: mode, Size: int64(len(data)), Digest: digest.Sum(digest.SHA256, []byte(data)), ELF: strings.HasPrefix(data, elf.ELFMAG)}
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func zst(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(b, nil)
}

func xz(t testing.TB, b []byte) []byte {
	cmd := exec.Command(tool(t, "xz"), "-c", "--check=crc32", "--lzma2=dict=64KiB")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestInitramfs(t *testing.T) {
	a, b := newc(file("a", "one")), newc(file("usr/b", "three"))
	both := []File{want("/a", 0o644, "one"), want("/usr/b", 0o644, "three")}
	zeros := make([]byte, 512)
	for _, c := range []struct {
		name  string
		image []byte
		want  []File
	}{
		{"one archive", newc(file("usr/b", "three"), file("./a", "one")), both},
		{"absolute names", newc(file("/usr/b", "three"), file("/a", "one")), both},
		{"crc", archive(cpioCRC, file("a", "one"), file("usr/b", "three"), entry{name: cpioTrailer}), both},
		{"two archives", join(a, b), both},
		{"zeros between", join(a, zeros, b, zeros), both},
		{"then gzip", join(a, gz(b)), both},
		{"then xz", join(a, zeros, xz(t, b)), both},
		{"then zstd", join(a, zeros, zst(b), zeros), both},
		{"gzip, then plain", join(gz(a), make([]byte, -len(gz(a))&3), b), both},
		{"all three", join(gz(a), zst(b), xz(t, newc(file("c", "")))), []File{both[0], want("/c", 0o644, ""), both[1]}},
		{"two in one stream", zst(join(a, zeros, b)), both},
		{"the later one counts", join(newc(file("a", "old"), file("usr/b", "three")), a), both},
		{"a file removed", join(newc(file("x", "old"), file("a", "one")), newc(entry{name: "x", mode: 0o120777, data: "a"}), b), both},
		{"not regular", newc(
			entry{name: ".", mode: 0o040755}, entry{name: "dev/null", mode: 0o020666}, entry{name: "link", mode: 0o120777, data: "a"},
			entry{name: "pipe", mode: 0o010666}, file("a", "one"), file("usr/b", "three"), entry{name: "link2", mode: 0o120777, data: "/x"}), both},
		{"code", newc(file("a", elf.ELFMAG+"and so on"), file("b", elf.ELFMAG[:3])), []File{want("/a", 0o644, elf.ELFMAG+"and so on"), want("/b", 0o644, elf.ELFMAG[:3])}},
		{"modes", newc(entry{name: "a", mode: 0o104755, data: "x"}), []File{want("/a", 0o4755, "x")}},
		{"hard links, content last", newc(
			entry{name: "a", mode: 0o100755, inode: 7, links: 2},
			entry{name: "b", mode: 0o100755, inode: 7, links: 2, data: "shared"}),
			[]File{want("/a", 0o755, "shared"), want("/b", 0o755, "shared")}},
		{"hard links, content first", newc(
			entry{name: "a", mode: 0o100755, inode: 7, links: 2, data: "shared"},
			entry{name: "b", mode: 0o100755, inode: 7, links: 2}),
			[]File{want("/a", 0o755, "shared"), want("/b", 0o755, "shared")}},
		{"inode numbers start anew", join(
			newc(entry{name: "a", mode: 0o100644, inode: 7, links: 2, data: "one"}),
			newc(entry{name: "usr/b", mode: 0o100644, inode: 7, links: 2, data: "three"})), both},
		{"written over through one of two names", newc(
			entry{name: "a", mode: 0o100644, inode: 7, links: 2, data: "old"},
			entry{name: "b", mode: 0o100644, inode: 7, links: 2},
			file("a", "new")),
			[]File{want("/a", 0o644, "new"), want("/b", 0o644, "new")}},
		{"long name", newc(file(strings.Repeat("x", maxCPIOName-1), "")), []File{want("/"+strings.Repeat("x", maxCPIOName-1), 0o644, "")}},
	} {
		got, err := Initramfs(bytes.NewReader(c.image), digest.SHA256)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

// Contents finds what is asked for, in whatever part and under whatever name.
func TestContents(t *testing.T) {
	image := join(newc(file("a", "one")), gz(newc(
		entry{name: "b", mode: 0o100644, inode: 7, links: 2},
		entry{name: "c", mode: 0o100644, inode: 7, links: 2, data: "shared"}, file("d", "other"))))
	got := map[string]string{}
	wanted := []digest.Digest{want("", 0, "one").Digest, want("", 0, "shared").Digest, want("", 0, "missing").Digest}
	contents, err := Contents(bytes.NewReader(image), wanted)
	for d, content := range contents {
		got[d.Hex()[:4]] = string(content)
	}
	expected := map[string]string{wanted[0].Hex()[:4]: "one", wanted[1].Hex()[:4]: "shared", wanted[2].Hex()[:4]: ""}
	if err != nil || !reflect.DeepEqual(got, expected) {
		t.Errorf("Contents = %v, %v, want %v", got, err, expected)
	}
	if _, err := Contents(bytes.NewReader(image[:len(image)-9]), wanted); err == nil {
		t.Error("no error for half an image")
	}
}

func TestInitramfsRefusals(t *testing.T) {
	good := newc(file("a", "content"))
	lie := func(field string, n uint32) []byte {
		e := file("a", "content")
		e.lie = map[string]uint32{field: n}
		return newc(e)
	}
	name := func(s string) []byte { return newc(file(s, "")) }
	for _, c := range []struct {
		name  string
		image []byte
		text  string
	}{
		{"nothing", nil, "no cpio archive"},
		{"zeros", make([]byte, 4096), "no cpio archive"},
		{"nothing, in zstd", join(gz(nil), zst(nil)), "no cpio archive"},
		{"text", []byte("#!/bin/sh\n"), "neither cpio nor compressed"},
		{"lz4", []byte("\x02\x21\x4c\x18 and so on"), "lz4"},
		{"bzip2", []byte("BZh91AY&SY"), "bzip2"},
		{"old cpio", []byte("070707" + strings.Repeat("0", 200)), "magic"},
		{"no trailer", archive(cpioNewc, file("a", "x")), "ends early"},
		{"no trailer, in gzip", gz(archive(cpioNewc, file("a", "x"))), "gzip: cpio header: offset 116"},
		{"junk behind", join(good, []byte("junk")), "part 2 at offset 244"},
		{"junk behind, in gzip", gz(join(good, []byte("junk"))), "offset 244: input ends early"},
		{"not aligned", join(good, []byte{0}, good), "multiple of 4"},
		{"size too large", lie("size", 0xffffffff), "content of \"a\": offset 112: input ends early"},
		{"size too small", lie("size", 1), "magic"},
		{"size off by two", lie("size", 9), "magic"},
		{"name of 0", lie("namesize", 0), "name of 0 bytes"},
		{"name of 4 GiB", lie("namesize", 0xffffffff), "name of 4294967295 bytes"},
		{"name of 4097", name(strings.Repeat("x", maxCPIOName)), "name of 4097 bytes"},
		{"name without end", lie("namesize", 1), "ends at byte"},
		{"name too long", lie("namesize", 4), "ends at byte"},
		{"wrong checksum", archive(cpioCRC, entry{name: "a", mode: 0o100644, data: "x", lie: map[string]uint32{"check": 1}}), "checksum"},
		{"climbs", name("a/../../etc/shadow"), "climbs"},
		{"newline", name("a\nb"), "control characters"},
		{"NUL", name("a\x00b"), "ends at byte"},
		{"no name", name(""), "root"},
		{"signed number", bytes.Replace(good, []byte("000081A4"), []byte("+00081A4"), 1), "hexadecimal"},
	} {
		got, err := Initramfs(bytes.NewReader(c.image), digest.SHA256)
		if err == nil {
			t.Errorf("%s: %+v", c.name, got)
		} else if !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, image := range [][]byte{good, gz(good), zst(good), xz(t, good)} {
		for i := range image {
			if got, err := Initramfs(bytes.NewReader(image[:i]), digest.SHA256); err == nil {
				t.Fatalf("cut at %d of %d: %+v", i, len(image), got)
			}
		}
	}
}

// What GNU cpio packs, in each way to pack it, is what lies on the disk.
func TestAsGNUCpio(t *testing.T) {
	cpio := tool(t, "cpio")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "usr/bin/sh"), []byte("#!"), 0o755)
	write(t, filepath.Join(dir, "usr/bin/su"), bytes.Repeat([]byte("su"), 70_001), 0o755|os.ModeSetuid)
	write(t, filepath.Join(dir, "etc/empty"), nil, 0o600)
	write(t, filepath.Join(dir, "etc/ümlaut"), []byte("x"), 0o444)
	if err := os.Link(filepath.Join(dir, "usr/bin/su"), filepath.Join(dir, "usr/bin/another")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("usr/bin", filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	paths, errs := Find([]string{dir})
	if len(errs) > 0 || len(paths) != 5 {
		t.Fatal(paths, errs)
	}
	var disk []File
	for _, path := range paths {
		f, err := Read(path, digest.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		f.Path = strings.TrimPrefix(path, dir)
		disk = append(disk, f)
	}
	for _, format := range []string{"newc", "crc"} {
		cmd := exec.Command("sh", "-c", `find . | "$0" --quiet -o -H "$1"`, cpio, format)
		cmd.Dir = dir
		image, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for name, pack := range map[string]func([]byte) []byte{
			"plain": func(b []byte) []byte { return b }, "gzip": gz, "zstd": zst, "xz": func(b []byte) []byte { return xz(t, b) },
		} {
			got, err := Initramfs(bytes.NewReader(pack(image)), digest.SHA256)
			if err != nil || !reflect.DeepEqual(got, disk) {
				t.Errorf("%s, %s: %+v, %v", format, name, got, err)
			}
		}
	}
}

// A small image that unpacks to much, in content or in number, is refused
// before it takes much memory.
func TestInitramfsMemory(t *testing.T) {
	fast := func(b *bytes.Buffer) *gzip.Writer {
		w, err := gzip.NewWriterLevel(b, gzip.BestSpeed)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	var many bytes.Buffer
	w := fast(&many)
	for i := range maxImageFiles + 2 {
		w.Write(archive(cpioNewc, file(fmt.Sprintf("%08d", i), "")))
	}
	w.Close()
	var links bytes.Buffer
	w = fast(&links)
	for i := range maxImageFiles + 2 {
		w.Write(archive(cpioNewc, entry{name: "a", mode: 0o100644, links: 2, inode: uint32(i + 1)}))
	}
	w.Close()
	var paths bytes.Buffer
	w = fast(&paths)
	for i := range maxImagePaths/maxCPIOName + 300 {
		w.Write(archive(cpioNewc, file(fmt.Sprintf("%s%08d", strings.Repeat("x", 4000), i), "")))
	}
	w.Close()
	for name, c := range map[string]struct {
		image []byte
		text  string
	}{
		"files": {many.Bytes(), "more than 262144 files"},
		"links": {links.Bytes(), "hard links"},
		"paths": {paths.Bytes(), "paths of more than"},
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		_, err := Initramfs(bytes.NewReader(c.image), digest.SHA256)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
		if used := after.HeapSys - before.HeapSys; after.HeapSys > before.HeapSys && used > 128<<20 {
			t.Errorf("%s: %d bytes of heap", name, used)
		}
	}
}

func FuzzInitramfs(f *testing.F) {
	links := newc(entry{name: "a", mode: 0o100755, inode: 7, links: 2}, entry{name: "b", mode: 0o100755, inode: 7, links: 2, data: "shared"})
	for _, image := range [][]byte{
		newc(file("a", "one")), archive(cpioCRC, file("a", "one"), entry{name: cpioTrailer}), links,
		join(newc(file("a", "one")), make([]byte, 512), gz(links)), zst(links), xz(f, links),
		newc(entry{name: "l", mode: 0o120777, data: "a"}, entry{name: "d", mode: 0o040755}),
	} {
		f.Add(image)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := Initramfs(bytes.NewReader(b), digest.SHA256)
		if err != nil {
			if files != nil {
				t.Errorf("files and an error: %v", err)
			}
			return
		}
		for i, f := range files {
			if !strings.HasPrefix(f.Path, "/") || strings.Contains(f.Path, "/../") || f.Digest.IsZero() || f.Mode&^0o7777 != 0 {
				t.Errorf("%+v", f)
			}
			if i > 0 && files[i-1].Path >= f.Path {
				t.Errorf("%q before %q", files[i-1].Path, f.Path)
			}
		}
	})
}
