package digestlist

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Format is how the content of a list file is laid out.
type Format string

// The formats that a file name can declare.
const (
	FormatRPM     Format = "rpm"     // an RPM header with its signature
	FormatCompact Format = "compact" // digests for the kernel; see Dialect
	FormatTLV     Format = "tlv"     // digests and paths; see TLV
)

// ParseFormat reads the name of a format.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case FormatRPM, FormatCompact, FormatTLV:
		return f, nil
	}
	return "", fmt.Errorf("format %q is not known: rpm, compact and tlv are", s)
}

// An Interface is whose rules the name of a list file follows. The zero
// Interface is none, and refused.
type Interface uint8

// The interfaces.
const (
	InterfaceDIGLIM      Interface = iota + 1 // POSITION-TYPE_list-FORMAT-LABEL
	InterfaceOpenEuler                        // the same; has keys, and no tlv
	InterfaceDigestCache                      // [POSITION-]FORMAT-LABEL
	InterfaceBPF                              // as DIGLIM; has digests of fs-verity, and no metadata
)

// interfaces says what the interfaces are called, and what types of lists they
// have.
var interfaces = [...]struct {
	name  string
	types []Type
}{
	InterfaceDIGLIM:      {"diglim", []Type{Parser, File, Metadata}},
	InterfaceOpenEuler:   {"openeuler", []Type{Parser, File, Metadata, Key}},
	InterfaceDigestCache: {"digest-cache", []Type{File}},
	InterfaceBPF:         {"bpf", []Type{Parser, File, Verity}},
}

func (i Interface) valid() bool { return i != 0 && int(i) < len(interfaces) }

func (i Interface) String() string {
	if !i.valid() {
		return fmt.Sprintf("interface(%d)", uint8(i))
	}
	return interfaces[i].name
}

// ParseInterface reads what String prints.
func ParseInterface(s string) (Interface, error) {
	for i := InterfaceDIGLIM; i.valid(); i++ {
		if i.String() == s {
			return i, nil
		}
	}
	return 0, fmt.Errorf("interface %q is not known: diglim, openeuler, digest-cache and bpf are", s)
}

// A Name is what the name of a list file says: "0-file_list-rpm-bash-5.2.37-1.fc42.x86_64"
// to DIGLIM and openEuler, "rpm-bash-5.2.37-1.fc42.x86_64" to the digest cache.
// Kernels and the original tools look at the format alone; the position is for
// who wants an order.
type Name struct {
	Position int // NoPosition, to the digest cache alone
	Type     Type
	Format   Format
	Label    string // what the list is about, mostly a package
}

// NoPosition is the position in a name that starts with the format.
const NoPosition = -1

// NameMax is the longest file name in bytes that Linux file systems take.
const NameMax = 255

// String returns the file name as DIGLIM has it.
func (n Name) String() string {
	return fmt.Sprintf("%d-%s_list-%s-%s", n.Position, n.Type, n.Format, n.Label)
}

// Check is File for DIGLIM, without the name.
func (n Name) Check() error {
	_, err := n.File(InterfaceDIGLIM)
	return err
}

// File returns the file name for an interface. It is an error if that has no
// such lists, or if the name cannot be that of a file: the label comes from a
// package, which may call itself anything.
func (n Name) File(i Interface) (string, error) {
	s := n.String()
	if !i.valid() {
		return "", fmt.Errorf("list name for %s, which is not known", i)
	}
	has := slices.Contains(interfaces[i].types, n.Type)
	switch i {
	case InterfaceDIGLIM, InterfaceOpenEuler, InterfaceBPF:
		if n.Position < 0 {
			return "", fmt.Errorf("list name %q without a position", s)
		}
		if !has {
			return "", fmt.Errorf("list name %q: %s has no type %s", s, i, n.Type)
		}
		if n.Type == Verity && n.Format != FormatCompact {
			return "", fmt.Errorf("list name %q: %s has no type %s", s, n.Format, n.Type)
		}
		if n.Format == FormatTLV && i == InterfaceOpenEuler {
			return "", fmt.Errorf("list name %q: %s has no format tlv", s, i)
		}
		if strings.HasSuffix(s, ".sig") && i == InterfaceOpenEuler {
			return "", fmt.Errorf("list name %q: to %s .sig is a signature", s, i)
		}
	case InterfaceDigestCache:
		s = fmt.Sprintf("%s-%s", n.Format, n.Label)
		if n.Position >= 0 {
			s = fmt.Sprintf("%d-%s", n.Position, s)
		}
		if !has || n.Format == FormatCompact {
			return "", fmt.Errorf("list name %q: %s has no %s lists of type %s", s, i, n.Format, n.Type)
		}
	}
	if n.Label == "" {
		return "", errors.New("list name without a label")
	}
	if len(s) > NameMax {
		return "", fmt.Errorf("list name of %d bytes, the limit is %d", len(s), NameMax)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '/' {
			return "", fmt.Errorf("list name %q: byte %#02x cannot be in it", s, s[i])
		}
	}
	return s, nil
}

// ParseName reads a list file's name, without its directory, by the rules of
// an interface.
func ParseName(i Interface, file string) (Name, error) {
	n, err := splitName(i, file)
	if err != nil {
		return Name{}, fmt.Errorf("%q: %w", file, err)
	}
	if _, err := n.File(i); err != nil {
		return Name{}, err
	}
	return n, nil
}

func splitName(i Interface, file string) (n Name, err error) {
	if i == InterfaceDigestCache {
		n = Name{Position: NoPosition, Type: File}
		if file != "" && file[0] >= '0' && file[0] <= '9' {
			number, rest, _ := strings.Cut(file, "-")
			if n.Position, err = parsePosition(number); err != nil {
				return Name{}, err
			}
			file = rest
		}
		format, label, ok := strings.Cut(file, "-")
		if !ok {
			return Name{}, errors.New("not [POSITION-]FORMAT-LABEL")
		}
		n.Label = label
		n.Format, err = ParseFormat(format)
		return n, err
	}
	fields := strings.SplitN(file, "-", 4)
	if len(fields) != 4 {
		return Name{}, errors.New("not POSITION-TYPE_list-FORMAT-LABEL")
	}
	n.Label = fields[3]
	if n.Position, err = parsePosition(fields[0]); err != nil {
		return Name{}, err
	}
	kind, ok := strings.CutSuffix(fields[1], "_list")
	if !ok {
		return Name{}, fmt.Errorf("%q is not TYPE_list", fields[1])
	}
	if n.Type, err = ParseType(kind); err != nil {
		return Name{}, err
	}
	n.Format, err = ParseFormat(fields[2])
	return n, err
}

func parsePosition(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is not a position", s)
	}
	return int(n), nil
}

// KnownName reads a list file's name by the rules of the first interface that
// knows it. No name is one thing to one interface and another to the next.
func KnownName(file string) (Name, Interface, error) {
	var first error
	for i := InterfaceDIGLIM; i.valid(); i++ {
		n, err := ParseName(i, file)
		if err == nil {
			return n, i, nil
		}
		if first == nil {
			first = err
		}
	}
	return Name{}, 0, first
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
