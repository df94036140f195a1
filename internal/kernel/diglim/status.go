package diglim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Status is what the kernel has. It is put together from many files: if
// somebody uploads meanwhile, it is of no single moment.
type Status struct {
	Counts   Counts
	Lists    []Loaded // in the order of their names
	Orphans  []Orphan
	Attempts Attempts
}

// An Orphan is the name of a list that is not loaded under it. The kernel makes
// one when a list is added again under another name, and when such a list is
// then deleted under one of the two.
//
// As long as it is there, deleting the list of that name deletes the list that
// it shows, and adding one with its content fails or changes nothing.
type Orphan struct {
	Name Name
	Of   string // the name of the list that it shows; empty if that is gone
}

// Attempts is how many uploads IMA has logged. They are attempts: the record is
// written before the list is looked at, never for what IMA logged before, and
// stays when the list goes. What is loaded cannot be told from them.
type Attempts struct {
	Add int `json:"add"`
	Del int `json:"del"`
}

// Status asks for everything.
func (i *Interface) Status() (Status, error) {
	var s Status
	var err error
	if s.Counts, err = i.Count(); err != nil {
		return Status{}, err
	}
	names, err := i.names()
	if err != nil {
		return Status{}, err
	}
	for _, n := range names {
		answer, err := i.Query(n.Digest)
		switch {
		case err != nil:
			return Status{}, err
		case answer.List == nil:
			s.Orphans = append(s.Orphans, Orphan{Name: n})
		case answer.List.Name != n:
			s.Orphans = append(s.Orphans, Orphan{n, answer.List.Name.Label})
		default:
			s.Lists = append(s.Lists, *answer.List)
		}
	}
	s.Attempts, err = readAttempts(filepath.Join(i.securityfs, "ima/ascii_runtime_measurements"))
	return s, err
}

// names returns what the files of loaded lists are called; nil if there is no
// such directory. Each list has two: the list, and its text.
func (i *Interface) names() ([]Name, error) {
	dir := filepath.Join(i.dir, "digest_lists_loaded")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := []Name{}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[e.Name()] = true
	}
	for _, e := range entries {
		// The kernel cuts the end of a text file's name where it has to.
		if dot := strings.LastIndexByte(e.Name(), '.'); dot >= 0 && there[e.Name()[:dot]] && strings.HasPrefix(".ascii", e.Name()[dot:]) {
			continue
		}
		n, err := ParseName(e.Name())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b Name) int { return strings.Compare(a.String(), b.String()) })
	return names, nil
}

// readAttempts counts the uploads in IMA's log. Without IMA there are none.
func readAttempts(path string) (Attempts, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Attempts{}, nil
	}
	if err != nil {
		return Attempts{}, err
	}
	defer f.Close()
	return countAttempts(f)
}

// countAttempts reads a log in its text form. A line has the whole list in it,
// at the end: only its start is kept.
func countAttempts(log io.Reader) (a Attempts, err error) {
	r := bufio.NewReaderSize(log, 1024) // the fields before the list take less
	for {
		line, err := r.ReadSlice('\n')
		// PCR, template hash, template, digest, event
		if f := strings.SplitN(strings.TrimLeft(string(line), " "), " ", 6); len(f) > 4 && f[2] == "ima-buf" {
			switch event := f[4]; {
			case strings.HasPrefix(event, "add_file_"), strings.HasPrefix(event, "add_buffer_"):
				a.Add++
			case strings.HasPrefix(event, "del_file_"), strings.HasPrefix(event, "del_buffer_"):
				a.Del++
			}
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return Attempts{}, err
		}
	}
}
