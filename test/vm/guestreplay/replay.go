package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	diglim     = "/sys/kernel/security/integrity/diglim"
	loadedName = "digest_lists_loaded"
	loaded     = diglim + "/" + loadedName
	imaLog     = "/sys/kernel/security/ima/binary_runtime_measurements"
	work       = "/tmp/d" // where the recorded cases have their files
)

// A replay writes the outcome of cases. The first failure to make a case, as
// opposed to a refusal by the kernel, sticks.
type replay struct {
	out      *bufio.Writer
	scenario string
	err      error
}

// fail notes that a case could not be made.
func (r *replay) fail(err error) {
	if r.err == nil && err != nil {
		r.err = err
	}
}

// row prints a case in which list, if any, was written.
func (r *replay) row(id string, list []byte, res result, observed string) {
	n, errno := res.columns()
	_, err := fmt.Fprintf(r.out, "%s/%s\t%s\t%s\t%s\t%s\n", r.scenario, id, describe(list), n, errno, escape(observed))
	r.fail(err)
}

// change prints a case with what op changed.
func (r *replay) change(id string, list []byte, op func() result) result {
	before := r.state()
	res := op()
	r.row(id, list, res, before.changes(r.state()))
	return res
}

// A result is the return value of a system call, or the error number.
type result struct {
	n   int
	err error
}

func (res result) columns() (n, errno string) {
	var e unix.Errno
	switch {
	case res.err == nil:
		return fmt.Sprint(res.n), "-"
	case errors.As(res.err, &e):
		return "-1", unix.ErrnoName(e)
	}
	return "-1", res.err.Error()
}

func (res result) String() string {
	n, errno := res.columns()
	return n + " " + errno
}

// A state is what the interface and IMA show.
type state struct {
	counts string // as in P0 F1 M0 L1
	files  []string
	ima    []byte
}

func (r *replay) state() state {
	var s state
	var n [4]int
	text, err := os.ReadFile(diglim + "/digests_count")
	r.fail(err)
	_, err = fmt.Sscanf(string(text), "Parser digests: %d\nFile digests: %d\nMetadata digests: %d\nDigest list digests: %d\n", &n[0], &n[1], &n[2], &n[3])
	r.fail(err)
	s.counts = fmt.Sprintf("P%d F%d M%d L%d", n[0], n[1], n[2], n[3])

	entries, err := os.ReadDir(loaded)
	r.fail(err)
	for _, e := range entries {
		s.files = append(s.files, e.Name())
	}
	s.ima, err = os.ReadFile(imaLog)
	r.fail(err)
	return s
}

// changes says what is different in t. Files are in the order of their names.
func (s state) changes(t state) string {
	out := []string{"count unchanged"}
	if s.counts != t.counts {
		out[0] = "count " + s.counts + " -> " + t.counts
	}
	had := map[string]bool{}
	for _, name := range s.files {
		had[name] = true
	}
	for _, name := range t.files {
		if !had[name] {
			out = append(out, "+"+shortName(name))
		}
		delete(had, name)
	}
	for _, name := range s.files {
		if had[name] {
			out = append(out, "-"+shortName(name))
		}
	}
	if bytes.Equal(s.ima, t.ima) {
		out = append(out, "IMA log unchanged")
	} else {
		out = append(out, "IMA log changed")
	}
	return strings.Join(out, "; ")
}

// shortName abbreviates the digest in a loaded file's name, and a long label.
func shortName(name string) string {
	algo, rest, _ := strings.Cut(name, "-")
	digest, label, _ := strings.Cut(rest, "-")
	if len(label) > 60 {
		label = fmt.Sprintf("%s..%s(%d chars)", label[:8], label[len(label)-10:], len(label))
	}
	return algo + "-" + digest[:8] + "..-" + label
}

// describe names the bytes of a list.
func describe(list []byte) string {
	if len(list) <= 16 {
		return fmt.Sprintf("%x", list)
	}
	digest := sha256.Sum256(list)
	return fmt.Sprintf("%x..(%d bytes, sha256 %x)", list[:16], len(list), digest[:4])
}

// escape makes s fit for a field of the table.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c == '\\':
			b.WriteString(`\\`)
		case c == '\n':
			b.WriteString(`\n`)
		case c < 0x20 || c >= 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// loadedFile returns the path of the binary file of a list.
func loadedFile(list []byte, name string) string {
	return filepath.Join(loaded, fmt.Sprintf("sha256-%x-%s", sha256.Sum256(list), name))
}
