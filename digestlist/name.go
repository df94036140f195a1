package digestlist

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Format is how the content of a list file is laid out.
type Format string

// The formats that a file name can declare.
const (
	FormatRPM     Format = "rpm"     // an RPM header with its signature
	FormatCompact Format = "compact" // digests for the kernel; see Dialect
)

// A Name is the name of a list file, "0-file_list-rpm-bash-5.2.37-1.fc42.x86_64".
// The kernel and the original tools look at the third field alone; the position
// is for who wants an order.
type Name struct {
	Position int
	Type     Type
	Format   Format
	Label    string // what the list is about, mostly a package
}

// NameMax is the longest file name in bytes that Linux file systems take.
const NameMax = 255

// String returns the file name.
func (n Name) String() string {
	return fmt.Sprintf("%d-%s_list-%s-%s", n.Position, n.Type, n.Format, n.Label)
}

// Check says whether the name can be that of a file: the label comes from a
// package, which may call itself anything.
func (n Name) Check() error {
	s := n.String()
	switch {
	case n.Label == "":
		return errors.New("list name without a label")
	case len(s) > NameMax:
		return fmt.Errorf("list name of %d bytes, the limit is %d", len(s), NameMax)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '/' {
			return fmt.Errorf("list name %q: byte %#02x cannot be in it", s, s[i])
		}
	}
	return nil
}

// ParseName reads a list file's name, without its directory.
func ParseName(file string) (Name, error) {
	fields := strings.SplitN(file, "-", 4)
	if len(fields) != 4 {
		return Name{}, fmt.Errorf("%q is not POSITION-TYPE_list-FORMAT-LABEL", file)
	}
	position, err := strconv.ParseUint(fields[0], 10, 31)
	if err != nil {
		return Name{}, fmt.Errorf("%q does not start with a position", file)
	}
	kind, ok := strings.CutSuffix(fields[1], "_list")
	if !ok {
		return Name{}, fmt.Errorf("%q: %q is not TYPE_list", file, fields[1])
	}
	typ, err := ParseType(kind)
	if err != nil {
		return Name{}, fmt.Errorf("%q: %w", file, err)
	}
	format := Format(fields[2])
	if format != FormatRPM && format != FormatCompact {
		return Name{}, fmt.Errorf("%q: format %q is not known", file, format)
	}
	n := Name{int(position), typ, format, fields[3]}
	return n, n.Check()
}

// CompareNames orders list files: by the number in front, then by bytes. A
// name without a number comes last.
func CompareNames(a, b string) int {
	position := func(s string) uint64 {
		digits := s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			return 1<<64 - 1
		}
		return n
	}
	return cmp.Or(cmp.Compare(position(a), position(b)), strings.Compare(a, b))
}
