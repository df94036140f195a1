package deb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/unpack"
)

const (
	// maxLine is the limit on a line of control data in bytes. The longest in a
	// distribution, a list of what a package provides, has some 75 KiB.
	maxLine = 512 << 10

	maxPackages = 1 << 18  // of an index; Debian has 65,000
	maxPackage  = 64 << 30 // bytes of a package file
	maxName     = 255      // bytes of a package's name, version or architecture
)

// A line is one of control data (deb822(5)).
type line struct {
	number    int    // from 1
	field     string // in lower case; empty where a stanza ends
	text      []byte // without white space around it; until the next line is read
	continues bool   // the field of the line before
}

// value is the text, to be kept. Of most lines nothing is.
func (l line) value() string { return string(l.text) }

// fieldNames are those seen so far, in lower case: an index has a million
// fields of some forty names.
type fieldNames map[string]string

// maxFieldNames bounds those that are kept.
const maxFieldNames = 256

func (n fieldNames) lower(name []byte) string {
	known, ok := n[string(name)]
	if !ok {
		known = strings.ToLower(string(name))
		if len(n) < maxFieldNames {
			n[string(name)] = known
		}
	}
	return known
}

// lines reads control data of any number of stanzas, each of which ends with a
// line without a field. An error is the last thing that it yields.
func lines(r io.Reader) iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		in, names := bufio.NewReaderSize(r, maxLine), fieldNames{}
		for l := (line{number: 1}); ; l.number++ {
			b, err := in.ReadSlice('\n')
			if err == bufio.ErrBufferFull {
				err = fmt.Errorf("line %d: more than %d bytes", l.number, maxLine)
			}
			if err == nil || err == io.EOF {
				if malformed := l.read(bytes.TrimRight(b, " \t\r\n"), names); malformed != nil {
					err = malformed
				}
			}
			if err != nil && err != io.EOF {
				yield(line{}, err)
				return
			}
			if !yield(l, nil) {
				return
			}
			if err == io.EOF {
				if l.field != "" {
					yield(line{number: l.number}, nil)
				}
				return
			}
		}
	}
}

// read takes in what is on the next line.
func (l *line) read(b []byte, names fieldNames) error {
	if len(b) == 0 {
		l.field, l.text, l.continues = "", nil, false
		return nil
	}
	if b[0] == ' ' || b[0] == '\t' {
		if l.field == "" {
			return fmt.Errorf("line %d: continues no field", l.number)
		}
		l.text, l.continues = bytes.TrimLeft(b, " \t"), true
		return nil
	}
	name, value, found := bytes.Cut(b, []byte(":"))
	ok := found && len(name) > 0 && name[0] != '-' && name[0] != '#'
	for _, c := range name {
		ok = ok && c > ' ' && c < 0x7f
	}
	if !ok {
		return fmt.Errorf("line %d: %.64q is not NAME: VALUE", l.number, b)
	}
	l.field, l.text, l.continues = names.lower(name), bytes.TrimLeft(value, " \t"), false
	return nil
}

// A Package is one that an index names, and vouches for by its digest.
type Package struct {
	Name         string
	Version      string
	Architecture string
	Filename     string // in the archive; of a lone package, its path
	Size         int64  // bytes
	SHA256       digest.Digest

	bad error // why what the index says of it is no use
}

// String returns NAME_VERSION_ARCHITECTURE, as package files are called.
func (p Package) String() string { return p.Name + "_" + p.Version + "_" + p.Architecture }

// set takes over a field of a package's stanza. A field that is there twice, or
// is none that can be used, makes the package bad.
func (p *Package) set(l line) {
	var err error
	switch l.field {
	case "package":
		err = setName(&p.Name, l)
	case "version":
		err = setName(&p.Version, l)
	case "architecture":
		err = setName(&p.Architecture, l)
	case "filename":
		var path string
		if path, err = unpack.Path(l.value()); err == nil && p.Filename != "" {
			err = errTwice
		} else if err == nil {
			p.Filename = path[1:]
		}
	case "size":
		var n uint64
		if n, err = strconv.ParseUint(l.value(), 10, 63); err != nil || n == 0 || n > maxPackage {
			err = fmt.Errorf("%.32q is not between 1 and %d", l.text, int64(maxPackage))
		} else if p.Size != 0 {
			err = errTwice
		} else {
			p.Size = int64(n)
		}
	case "sha256":
		var d digest.Digest
		if d, err = digest.FromHex(digest.SHA256, l.text); err == nil && !p.SHA256.IsZero() {
			err = errTwice
		} else if err == nil {
			p.SHA256 = d
		}
	}
	if err != nil && p.bad == nil {
		p.bad = fmt.Errorf("line %d: %s: %w", l.number, l.field, err)
	}
}

var errTwice = errors.New("is there twice")

func setName(name *string, l line) error {
	if *name != "" {
		return errTwice
	}
	if !isName(l.value()) {
		return fmt.Errorf("%.64q cannot be one", l.text)
	}
	*name = l.value()
	return nil
}

// isName reports whether s can be a package's name, version or architecture:
// any of these that Debian's policy allows (sections 5.6.1, 5.6.12), and
// nothing that means something in a path.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("+-.:~_", c) >= 0) {
			return false
		}
	}
	return 0 < len(s) && len(s) <= maxName && s[0] != '.' && s[0] != '-'
}

// parsePackages reads an index of packages. What it says of one package can be
// of no use (Package.bad); what is no index is an error.
func parsePackages(r io.Reader) ([]Package, error) {
	var packages []Package
	var p Package
	start := 0 // line
	for l, err := range lines(r) {
		if err != nil {
			return nil, err
		}
		if l.field != "" {
			if start == 0 {
				start = l.number
			}
			p.set(l)
			continue
		}
		if start == 0 {
			continue
		}
		if p.bad == nil {
			p.bad = p.missing(start)
		}
		if p.Name == "" {
			return nil, fmt.Errorf("line %d: a package without a name: %w", start, p.bad)
		}
		if len(packages) == maxPackages {
			return nil, fmt.Errorf("line %d: more than %d packages", start, maxPackages)
		}
		packages = append(packages, p)
		p, start = Package{}, 0
	}
	return packages, nil
}

func (p *Package) missing(line int) error {
	switch {
	case p.Name == "" || p.Version == "" || p.Architecture == "":
		return fmt.Errorf("line %d: no name, version or architecture", line)
	case p.Filename == "":
		return fmt.Errorf("line %d: no file name", line)
	case p.Size == 0 || p.SHA256.IsZero():
		return fmt.Errorf("line %d: no size or no SHA256", line)
	}
	return nil
}
