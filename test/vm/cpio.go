package vm

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// A File is a regular file, a directory or a symbolic link for an archive.
type File struct {
	Name string      // slash-separated, without a leading slash
	Mode fs.FileMode // permissions, and fs.ModeDir or fs.ModeSymlink
	Data []byte      // content, or target of a symbolic link
	Path string      // where to read Data from, if it is not given
}

// The types of files in a cpio header (cpio(5), "New ASCII Format").
const (
	cpioDir     = 0o040000
	cpioRegular = 0o100000
	cpioSymlink = 0o120000
)

// WriteCPIO writes a newc archive of files, as the kernel unpacks an initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst). Directories on
// the way to a file are added. The same files give the same bytes: everything
// belongs to root, has no time and goes in the order of names.
func WriteCPIO(w io.Writer, files []File) error {
	byName := map[string]File{}
	for _, f := range files {
		if f.Name != path.Clean(f.Name) || strings.HasPrefix(f.Name, "/") || strings.HasPrefix(f.Name, "..") {
			return fmt.Errorf("cpio: bad name %q", f.Name)
		}
		if _, ok := byName[f.Name]; ok {
			return fmt.Errorf("cpio: two files %q", f.Name)
		}
		byName[f.Name] = f
	}
	for _, f := range files {
		for dir := path.Dir(f.Name); dir != "."; dir = path.Dir(dir) {
			if _, ok := byName[dir]; !ok {
				byName[dir] = File{Name: dir, Mode: fs.ModeDir | 0o755}
			}
		}
	}
	// A directory's name sorts before the names of what it holds.
	sorted := slices.SortedFunc(maps.Values(byName), func(a, b File) int { return cmp.Compare(a.Name, b.Name) })

	for i, f := range sorted {
		if f.Data == nil && f.Path != "" {
			data, err := os.ReadFile(f.Path)
			if err != nil {
				return fmt.Errorf("cpio: %w", err)
			}
			f.Data = data
		}
		if err := writeEntry(w, i+1, f); err != nil {
			return fmt.Errorf("cpio: %s: %w", f.Name, err)
		}
	}
	return writeEntry(w, 0, File{Name: "TRAILER!!!"})
}

func writeEntry(w io.Writer, ino int, f File) error {
	mode := uint32(f.Mode.Perm())
	links := 1
	switch f.Mode.Type() {
	case 0:
		mode |= cpioRegular
	case fs.ModeDir:
		mode |= cpioDir
		links = 2
	case fs.ModeSymlink:
		mode |= cpioSymlink
	default:
		return fmt.Errorf("cannot archive a %v", f.Mode)
	}

	var b bytes.Buffer
	b.WriteString("070701")
	// ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor
	// rdevminor namesize check
	for _, field := range []uint32{uint32(ino), mode, 0, 0, uint32(links), 0, uint32(len(f.Data)), 0, 0, 0, 0, uint32(len(f.Name) + 1), 0} {
		fmt.Fprintf(&b, "%08X", field)
	}
	b.WriteString(f.Name)
	b.WriteByte(0)
	align(&b)
	b.Write(f.Data)
	align(&b)
	_, err := w.Write(b.Bytes())
	return err
}

// align pads to the four bytes that names and contents start at.
func align(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
