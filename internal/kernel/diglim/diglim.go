// Package diglim speaks to a kernel patched with DIGLIM v3, through the files
// in /sys/kernel/security/integrity/diglim.
//
// That kernel trusts root to write sensible things: a label that is too long,
// or a signature trailer that claims more bytes than there are, makes it oops,
// and the thread that wrote takes its lock into the grave. So everything is
// checked here before the kernel sees it.
package diglim

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/kernel/upload"
	"diglim/internal/modsig"

	"golang.org/x/sys/unix"
)

// Dir is the interface's directory below the mount point of securityfs.
const Dir = "integrity/diglim"

// maxName is what the kernel's buffer for a securityfs name leaves for
// "<algorithm>-<digest in hex>-<label>.ascii".
const maxName = 255

// What an upload is, is the same for all interfaces.
type (
	Op     = upload.Op
	List   = upload.List
	Result = upload.Result
)

// The operations.
const (
	Add = upload.Add
	Del = upload.Del
)

func controlFile(op Op) string { return [...]string{"digest_list_add", "digest_list_del"}[op] }

// ErrNotThere says that the kernel has no DIGLIM.
var ErrNotThere = errors.New("the kernel has no DIGLIM")

// An Interface is an open interface.
type Interface struct {
	securityfs, dir string

	write func(path string, data []byte) error           // one open, one write(2), one close
	ask   func(path string, data []byte) ([]byte, error) // one open, one write(2), and what can be read then

	// loaded has the names of lists by their digests, with these algorithms, as
	// far as was seen. It only spares questions: others may upload, too.
	loaded     map[digest.Digest][]string
	algorithms []digest.Algorithm

	// maxLabel is the longest label, in bytes, for which the kernel's names of
	// the list's files are not cut.
	maxLabel int
}

// Open finds the interface below the mount point of securityfs. The kernel
// command line (of /proc/cmdline) tells how long names may get.
func Open(securityfs, cmdline string) (*Interface, error) {
	i := &Interface{securityfs: securityfs, dir: filepath.Join(securityfs, Dir), write: upload.WriteFile, ask: ask, maxLabel: maxLabel(cmdline)}
	if _, err := os.Stat(filepath.Join(i.dir, controlFile(upload.Add))); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: no %s", ErrNotThere, i.dir)
		}
		return nil, err
	}
	return i, nil
}

// maxLabel is 177 for the sha256 that IMA uses by default, 113 for sha512.
func maxLabel(cmdline string) int {
	longest := len("sha256") + 64
	for _, field := range strings.Fields(cmdline) {
		switch name, _ := strings.CutPrefix(field, "ima_hash="); {
		case name == field:
		case strings.HasSuffix(name, "512"):
			longest = len(name) + 128
		case strings.HasSuffix(name, "384"):
			longest = len(name) + 96
		}
	}
	return maxName - longest - len("-"+"-"+".ascii")
}

// Apply adds or deletes a list. A list that is there already, or gone already,
// is no error, and is not written: the kernel would log the attempt, and a
// failed one can hide the next from the log.
//
// A compact list goes by its path, so that the kernel reads the file itself and
// IMA can measure and appraise it, unless buffered asks for its content or it
// is too large for one upload. An rpm list is converted, the files that are
// never changed apart from the others, as the original rpm_parser does.
//
// The kernel knows a list by the digest of its content, and by the name of its
// file. A list whose content it has under another name is left alone, and the
// result says under which.
func (i *Interface) Apply(op Op, l List, buffered bool) (Result, error) {
	if err := i.checkLabel(l.Name()); err != nil {
		return Result{}, err
	}
	parts, err := digestlist.Uploads(l.Format, l.Content)
	if err != nil {
		return Result{}, err
	}
	var r Result
	for _, part := range parts {
		for _, b := range part {
			r.Digests += len(b.Digests)
		}
	}
	if l.Format == digestlist.FormatCompact && !buffered && len(l.Content) <= digestlist.MaxUpload {
		if strings.ContainsAny(l.Path, "\n\x00") || !filepath.IsAbs(l.Path) {
			return Result{}, fmt.Errorf("the kernel takes absolute paths without newlines")
		}
		contents := [][]byte{l.Content} // what IMA digests where it measures the file
		if payload, _, err := modsig.Split(l.Content); err == nil {
			contents = append(contents, payload)
		}
		err := i.apply(op, l.Name(), &r, func() error {
			return i.write(filepath.Join(i.dir, controlFile(op)), []byte(l.Path))
		}, contents...)
		return r, err
	}
	for _, part := range parts {
		b, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, part)
		if err != nil {
			return r, err
		}
		err = i.apply(op, l.Name(), &r, func() error {
			// The kernel uses a label once, but keeps it if the upload fails early.
			if err := i.write(filepath.Join(i.dir, "digest_list_label"), append([]byte(l.Name()), 0)); err != nil {
				return fmt.Errorf("label: %w", err)
			}
			return i.write(filepath.Join(i.dir, controlFile(op)), b)
		}, b)
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// apply writes one list, unless there is nothing to be done, and notes in r what
// that changed. The kernel has the list by the digest of one of contents.
func (i *Interface) apply(op Op, label string, r *Result, write func() error, contents ...[]byte) error {
	held, known, err := i.held(op, label, contents)
	switch {
	case err != nil:
		return err
	case held != "" && held != label:
		r.Elsewhere = held
		return nil
	case op == Add && held != "", op == Del && known && held == "":
		return nil
	}
	err = write()
	switch {
	case err == nil:
		r.Done = true
		i.note(op, label, contents)
	case op == Add && errors.Is(err, unix.EEXIST):
		return i.exists(label, r, contents)
	case op == Del && errors.Is(err, unix.ENOENT):
		return nil
	case op == Del && errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (IMA measured or appraised the list when it was added, and not now)", err)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w (the kernel finds no such file, or IMA gave the list no digest)", err)
	case errors.Is(err, unix.ETXTBSY):
		return fmt.Errorf("%w (somebody has the list open for writing)", err)
	}
	return err
}

// exists explains why the kernel says that a list exists.
func (i *Interface) exists(label string, r *Result, contents [][]byte) error {
	i.loaded = nil // the list may be the first with its algorithm
	held, known, err := i.held(Add, label, contents)
	switch {
	case err != nil:
		return err
	case known && held == "":
		return errors.New("not loaded, and cannot be under this name: files of it are left from when it was deleted under another")
	case held != label:
		r.Elsewhere = held
	}
	return nil
}

// held returns the name under which the kernel has a list with one of contents,
// empty if it has none. The kernel digests lists with the algorithm that IMA is
// set to; the names of what is loaded tell which. known is false if they do not.
func (i *Interface) held(op Op, label string, contents [][]byte) (name string, known bool, err error) {
	if len(i.loaded) == 0 {
		i.loaded, i.algorithms = nil, nil
		names, err := i.names()
		if err != nil || len(names) == 0 {
			return "", err == nil && names != nil, err
		}
		i.loaded = make(map[digest.Digest][]string, len(names))
		for _, n := range names {
			i.loaded[n.Digest] = append(i.loaded[n.Digest], n.Label)
			if alg := n.Digest.Algorithm(); !slices.Contains(i.algorithms, alg) {
				i.algorithms = append(i.algorithms, alg)
			}
		}
	}
	for _, alg := range i.algorithms {
		if !alg.Available() {
			return "", false, nil
		}
		for _, c := range contents {
			d := digest.Sum(alg, c)
			switch labels := i.loaded[d]; {
			case len(labels) == 0:
				continue
			case op == Del && len(labels) == 1 && labels[0] == label:
				return label, true, nil // if it is not, deleting it does no harm
			}
			answer, err := i.Query(d)
			if err != nil {
				return "", false, err
			}
			if answer.List != nil {
				return answer.List.Name.Label, true, nil
			}
		}
	}
	return "", true, nil
}

// note keeps in mind that a list was added or deleted. A list can have only one
// of the digests noted: the kernel is asked about what seems to be there.
func (i *Interface) note(op Op, label string, contents [][]byte) {
	for _, alg := range i.algorithms {
		if !alg.Available() {
			return
		}
		for _, c := range contents {
			d := digest.Sum(alg, c)
			if op == Add {
				i.loaded[d] = append(i.loaded[d], label)
			} else {
				i.loaded[d] = slices.DeleteFunc(i.loaded[d], func(l string) bool { return l == label })
			}
		}
	}
}

func (i *Interface) checkLabel(label string) error {
	if len(label) > i.maxLabel {
		return fmt.Errorf("name of %d bytes, this kernel takes %d", len(label), i.maxLabel)
	}
	for _, c := range []byte(label) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("byte %#02x in the name: the kernel takes printable ASCII without spaces", c)
		}
	}
	return nil
}

// Counts is how many digests the kernel knows, by type.
type Counts struct {
	Parser   int `json:"parser"`
	File     int `json:"file"`
	Metadata int `json:"metadata"`
	Lists    int `json:"lists"`
}

// Count reads digests_count.
func (i *Interface) Count() (Counts, error) {
	path := filepath.Join(i.dir, "digests_count")
	b, err := os.ReadFile(path)
	if err != nil {
		return Counts{}, err
	}
	var c Counts
	_, err = fmt.Fscanf(bytes.NewReader(b), "Parser digests: %d\nFile digests: %d\nMetadata digests: %d\nDigest list digests: %d\n",
		&c.Parser, &c.File, &c.Metadata, &c.Lists)
	if err != nil {
		return Counts{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Digests is how many digests the kernel knows, of all types; lists are not
// counted.
func (i *Interface) Digests() (int, error) {
	c, err := i.Count()
	return c.Parser + c.File + c.Metadata, err
}
