package diglim

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/kernel/upload"

	"golang.org/x/sys/unix"
)

// Actions are what IMA did to a list when it was added, a bit mask.
type Actions uint8

// The actions.
const (
	Measured  Actions = 1 << iota
	Appraised         // by a hash
	AppraisedSignature
)

// A Name is what the kernel calls a loaded list: "sha256-9f2c…-0-file_list-compact-p".
type Name struct {
	Digest digest.Digest
	Label  string // the name of the list's file
}

func (n Name) String() string {
	return fmt.Sprintf("%s-%s-%s", n.Digest.Algorithm(), n.Digest.Hex(), n.Label)
}

// ParseName reads what String prints.
func ParseName(s string) (Name, error) {
	fields := strings.SplitN(s, "-", 3)
	if len(fields) != 3 {
		return Name{}, fmt.Errorf("%q is not ALGORITHM-DIGEST-NAME", s)
	}
	alg, err := digest.ByName(fields[0])
	if err != nil {
		return Name{}, fmt.Errorf("%q: %w", s, err)
	}
	d, err := digest.FromHex(alg, []byte(fields[1]))
	if err != nil {
		return Name{}, fmt.Errorf("%q: %w", s, err)
	}
	return Name{d, fields[2]}, nil
}

// A Holder is a list that holds a digest.
type Holder struct {
	Name      Name
	Type      digestlist.Type
	Modifiers digestlist.Modifiers
	Actions   Actions
}

// A Loaded is a list that the kernel has.
type Loaded struct {
	Name    Name
	Size    int64 // in bytes, without a signature
	Actions Actions
}

// An Answer is what the kernel knows of a digest: nothing, if it is zero.
type Answer struct {
	Holders []Holder // a list is here once for each time that it holds the digest
	List    *Loaded  // the list that it is the digest of
}

// maxAnswer is the limit on an answer in bytes: some 100,000 lists with the
// digest.
const maxAnswer = 32 << 20

// Query asks for a digest.
//
// The kernel compares a digest of any length with what is left from the query
// before, so only a whole one is written. The query is for everybody to read
// afterwards; none can come between, as the file stays open.
func (i *Interface) Query(d digest.Digest) (Answer, error) {
	if d.IsZero() {
		return Answer{}, errors.New("query for no digest")
	}
	path := filepath.Join(i.dir, "digest_query")
	text, err := i.ask(path, []byte(d.Algorithm().String()+"-"+d.Hex()))
	if err != nil {
		return Answer{}, err
	}
	a, err := ParseAnswer(d, text)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// ask writes a query and reads the answer. One read(2) returns lines of one
// type only, so it goes on until there is nothing.
func ask(path string, query []byte) (answer []byte, err error) {
	fd, err := upload.Open(path, unix.O_RDWR)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := upload.Write(fd, query); err != nil {
		if errors.Is(err, unix.ENOENT) {
			err = fmt.Errorf("the kernel does not know the algorithm of %s", query)
		}
		return nil, &fs.PathError{Op: "write", Path: path, Err: err}
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && len(answer)+n > maxAnswer:
			err = fmt.Errorf("answer of more than %d bytes", maxAnswer)
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return answer, nil
		}
		answer = append(answer, buf[:n]...)
	}
}

// What the kernel says after a list's name, for a list with the digest and for
// the list that it is the digest of. The algorithm must be the one asked for.
const (
	holderFormat = "version: 1, algo: %s, type: %d, modifiers: %d, count: %d, datalen: %d"
	listFormat   = "type: 3, size: %d"
)

// ParseAnswer reads the lines that are the answer to a query for d.
func ParseAnswer(d digest.Digest, text []byte) (Answer, error) {
	var a Answer
	offset := 0
	for line := range strings.Lines(string(text)) {
		if err := a.line(d, strings.TrimSuffix(line, "\n")); err != nil {
			return Answer{}, fmt.Errorf("offset %d: %w", offset, err)
		}
		offset += len(line)
	}
	return a, nil
}

func (a *Answer) line(d digest.Digest, line string) error {
	// A name given by path may have anything in it.
	at := strings.LastIndex(line, " (actions: ")
	if at < 0 {
		return fmt.Errorf("%q is no answer", line)
	}
	name, err := ParseName(line[:at])
	if err != nil {
		return err
	}
	var actions Actions
	_, rest, _ := strings.Cut(line[at:], ": ")
	said, rest, _ := strings.Cut(rest, "): ")
	if _, err := fmt.Sscan(said, &actions); err != nil {
		return fmt.Errorf("%q is no answer", line)
	}

	var size int64
	if _, err := fmt.Sscanf(rest, listFormat, &size); err == nil && rest == fmt.Sprintf(listFormat, size) {
		if name.Digest != d || a.List != nil {
			return fmt.Errorf("%q is no answer to %s", line, d)
		}
		a.List = &Loaded{name, size, actions}
		return nil
	}
	alg := d.Algorithm().String()
	var typ, count, length uint32
	var modifiers digestlist.Modifiers
	format := strings.Replace(holderFormat, "%s", alg, 1)
	if _, err := fmt.Sscanf(rest, format, &typ, &modifiers, &count, &length); err != nil ||
		rest != fmt.Sprintf(holderFormat, alg, typ, modifiers, count, length) || typ > 2 {
		return fmt.Errorf("%q is no answer to %s", line, d)
	}
	a.Holders = append(a.Holders, Holder{name, digestlist.Parser + digestlist.Type(typ), modifiers, actions})
	return nil
}
