package digestlist

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// MaxFile is the limit on a list file in bytes, which is the kernel's too
// (MAX_DIGEST_LIST_SIZE).
const MaxFile = 64<<20 - 1

// ReadFile reads a list file and finds out its format, by FormatOf.
func ReadFile(path string) ([]byte, Format, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for a writer
		return nil, "", fmt.Errorf("%s: not a regular file", path)
	}
	if info.Size() > MaxFile {
		return nil, "", fmt.Errorf("%s: %d bytes, the limit is %d", path, info.Size(), MaxFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}
	return b, FormatOf(filepath.Base(path), b), nil
}

// FormatOf returns the format of a list: the one that the name of its file
// declares, or for any other name the one that it starts like.
func FormatOf(file string, content []byte) Format {
	if name, _, err := KnownName(file); err == nil {
		return name.Format
	}
	return sniff(content)
}

// sniff tells formats apart by their first byte: of an RPM header's magic, of
// the field number of a tlv list, of the version of a compact block.
func sniff(b []byte) Format {
	switch {
	case len(b) > 0 && b[0] == 0x8e:
		return FormatRPM
	case len(b) > 0 && b[0] == 0:
		return FormatTLV
	}
	return FormatCompact
}

// ReadDir returns the names of the files in a directory of lists, in the order
// in which lists are taken. Hidden files are none.
func ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, CompareNames)
	return names, nil
}
