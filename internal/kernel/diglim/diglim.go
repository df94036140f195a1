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
	"strings"
	"time"

	"diglim/digestlist"
	"diglim/internal/modsig"

	"golang.org/x/sys/unix"
)

// Dir is the interface's directory below the mount point of securityfs.
const Dir = "integrity/diglim"

// maxUpload is the limit on one upload in bytes. The kernel copies a list with
// kmalloc, which gives 4 MiB at most, with a NUL behind it and, where IMA
// measures the list, the rest of a log record around it.
const maxUpload = 4<<20 - 4096

// maxName is what the kernel's buffer for a securityfs name leaves for
// "<algorithm>-<digest in hex>-<label>.ascii".
const maxName = 255

// An Op is what is done with a list.
type Op int

// The operations.
const (
	Add Op = iota
	Del
)

func (o Op) file() string { return [...]string{"digest_list_add", "digest_list_del"}[o] }

// ErrNotThere says that the kernel has no DIGLIM.
var ErrNotThere = errors.New("the kernel has no DIGLIM")

// An Interface is an open interface.
type Interface struct {
	dir   string
	write func(path string, data []byte) error // one open, one write(2), one close

	// maxLabel is the longest label, in bytes, for which the kernel's names of
	// the list's files are not cut.
	maxLabel int
}

// Open finds the interface below the mount point of securityfs. The kernel
// command line (of /proc/cmdline) tells how long names may get.
func Open(securityfs, cmdline string) (*Interface, error) {
	i := &Interface{dir: filepath.Join(securityfs, Dir), write: writeOnce, maxLabel: maxLabel(cmdline)}
	if _, err := os.Stat(filepath.Join(i.dir, Add.file())); err != nil {
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

// A List is one list file, read.
type List struct {
	Path    string // absolute, as the kernel is to open it
	Format  digestlist.Format
	Content []byte
}

func (l List) label() string { return filepath.Base(l.Path) }

// A Result says what an upload did.
type Result struct {
	Digests int  // in the list
	Done    bool // false if the kernel had (or had not) the list already
}

// Apply adds or deletes a list. A list that is there already, or gone already,
// is no error.
//
// A compact list goes by its path, so that the kernel reads the file itself and
// IMA can measure and appraise it, unless buffered asks for its content or it
// is too large for one upload. An rpm list is converted, the files that are
// never changed apart from the others, as the original rpm_parser does.
func (i *Interface) Apply(op Op, l List, buffered bool) (Result, error) {
	if err := i.checkLabel(l.label()); err != nil {
		return Result{}, err
	}
	lists, err := l.blocks()
	if err != nil {
		return Result{}, err
	}
	var r Result
	for _, blocks := range lists {
		for _, b := range blocks {
			r.Digests += len(b.Digests)
		}
	}
	if l.Format == digestlist.FormatCompact && !buffered && len(l.Content) <= maxUpload {
		if strings.ContainsAny(l.Path, "\n\x00") || !filepath.IsAbs(l.Path) {
			return Result{}, fmt.Errorf("the kernel takes absolute paths without newlines")
		}
		r.Done, err = i.upload(op, []byte(l.Path))
		return r, err
	}
	for _, blocks := range lists {
		parts, err := digestlist.SplitCompact(blocks, maxUpload)
		if err != nil {
			return r, err
		}
		for _, part := range parts {
			b, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, part)
			if err != nil {
				return r, err
			}
			// The kernel uses a label once, but keeps it if the upload fails early.
			if err := i.write(filepath.Join(i.dir, "digest_list_label"), append([]byte(l.label()), 0)); err != nil {
				return r, fmt.Errorf("label: %w", err)
			}
			done, err := i.upload(op, b)
			if err != nil {
				return r, err
			}
			r.Done = r.Done || done
		}
	}
	return r, nil
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

// blocks returns the list's digests, as one upload each. An empty list is an
// error: the kernel refuses it, or worse, takes it and oopses over it later.
func (l List) blocks() ([][]digestlist.Block, error) {
	switch l.Format {
	case digestlist.FormatCompact:
		payload, _, err := modsig.Split(l.Content)
		if err != nil && !errors.Is(err, modsig.ErrNone) {
			return nil, err
		}
		blocks, err := digestlist.ParseCompact(digestlist.V3, digestlist.LittleEndian, payload)
		if err == nil && len(blocks) == 0 {
			err = errors.New("empty list")
		}
		return [][]digestlist.Block{blocks}, err
	case digestlist.FormatRPM:
		rpm, err := digestlist.ParseRPM(l.Content)
		if err != nil {
			return nil, err
		}
		mutable, immutable, err := digestlist.FromHeader(rpm.Header)
		return [][]digestlist.Block{{mutable}, {immutable}}, err
	}
	return nil, fmt.Errorf("format %q cannot be uploaded", l.Format)
}

// upload writes one list, or one path, and says whether that changed anything.
func (i *Interface) upload(op Op, data []byte) (bool, error) {
	err := i.write(filepath.Join(i.dir, op.file()), data)
	switch {
	case op == Add && errors.Is(err, unix.EEXIST), op == Del && errors.Is(err, unix.ENOENT):
		return false, nil
	case errors.Is(err, unix.EPERM) && op == Del:
		return false, fmt.Errorf("%w (IMA measured or appraised the list when it was added, and not now)", err)
	case errors.Is(err, unix.ENOENT):
		return false, fmt.Errorf("%w (the kernel finds no such file, or IMA gave the list no digest)", err)
	case errors.Is(err, unix.ETXTBSY):
		return false, fmt.Errorf("%w (somebody has the list open for writing)", err)
	}
	return err == nil, err
}

// busyTimeout is how long to wait while another process holds the interface.
const busyTimeout = 10 * time.Second

// writeOnce opens a control file, writes data with a single write(2), and
// closes it. The kernel takes one list a write, at position 0, so a short write
// must not be continued; os.File would. While another process has one of the
// control files open, open says EBUSY.
func writeOnce(path string, data []byte) error {
	deadline := time.Now().Add(busyTimeout)
	pause := time.Millisecond
	var fd int
	for {
		var err error
		fd, err = unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			break
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return &fs.PathError{Op: "open", Path: path, Err: err}
		}
		time.Sleep(pause)
		pause = min(2*pause, 100*time.Millisecond)
	}
	n, err := unix.Write(fd, data)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Write(fd, data)
	}
	if err == nil && n != len(data) {
		err = fmt.Errorf("the kernel took %d of %d bytes", n, len(data))
	}
	if err != nil {
		err = &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return errors.Join(err, unix.Close(fd))
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
