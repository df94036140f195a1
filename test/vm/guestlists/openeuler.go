package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"diglim/digestlist"
	"diglim/internal/kernel"
	"diglim/internal/kernel/ima"
	"diglim/internal/kernel/upload"
	"diglim/internal/modsig"

	"golang.org/x/sys/unix"
)

// Where files are: IMA's policy tcb measures what root reads, but not on tmpfs.
const (
	measuredDir   = "/lists"
	unmeasuredDir = "/tmp/lists"
)

const (
	addFile = "digest_list_data"
	delFile = "digest_list_data_del"
)

// forMeasurement and forBoth are what the command line says, and the parameter
// of the module that stands for it.
var (
	forMeasurement = use{"ima_digest_list_pcr=11", "1"}
	forBoth        = use{"ima_digest_list_pcr=11 ima_appraise_digest_list=digest", "3"}
)

type use struct{ cmdline, actions string }

// A module is the stand-in, loaded.
type module struct{ path string }

func (m module) load(u use) error {
	f, err := os.Open(m.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "actions="+u.actions, 0); err != nil {
		return fmt.Errorf("load %s: %w", m.path, err)
	}
	return nil
}

func (m module) unload() error {
	if err := unix.DeleteModule("openeuler", unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("unload openeuler: %w", err)
	}
	return nil
}

// parameter reads one of the module's parameters.
func (m module) parameter(name string) (int, error) {
	b, err := os.ReadFile("/sys/module/openeuler/parameters/" + name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// A listCase is a list for the package, and for the kernel itself.
type listCase struct {
	id      string
	use     use
	dir     string
	name    string
	content []byte
	ima     []byte // security.ima
	evm     []byte // security.evm
}

func openEulerCases(out io.Writer, path string) error {
	m := module{path}
	for _, dir := range []string{measuredDir, unmeasuredDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	cases, err := listCases()
	if err != nil {
		return err
	}
	for _, c := range cases {
		if err := c.run(out, m); err != nil {
			return fmt.Errorf("%s: %w", c.id, err)
		}
	}
	return errors.Join(callCases(out, m), wholeStory(out, m))
}

// signature looks like security.ima with one; there is no key to verify it.
func signature(typ byte) []byte {
	return append([]byte{typ, 2, 4, 0xeb, 0x10, 0xb4, 0x64, 0, 4}, "sig!"...)
}

func listCases() ([]listCase, error) {
	const file, parser, metadata = "0-file_list-compact-p", "0-parser_list-compact-p", "0-metadata_list-compact-p"
	var errs []error
	compact := func(d digestlist.Dialect, e digestlist.Endian, blocks ...digestlist.Block) []byte {
		b, err := digestlist.AppendCompact(nil, d, e, blocks)
		errs = append(errs, err)
		return b
	}
	const little, big, v3, own = digestlist.LittleEndian, digestlist.BigEndian, digestlist.V3, digestlist.OpenEuler
	files, parsers, meta := block(digestlist.File, "a", "b"), block(digestlist.Parser, "a", "b"), block(digestlist.Metadata, "a", "b")
	good := compact(own, little, files)
	edit := func(offset int, value byte) []byte {
		b := bytes.Clone(good)
		b[offset] = value
		return b
	}
	odd := files
	odd.Modifiers = 2
	signed := modsig.Append(bytes.Clone(good), modsig.Signature{Type: modsig.PKCS7, Bytes: []byte("sig")})
	m, b := forMeasurement, forBoth
	cases := []listCase{
		{"good", m, measuredDir, file, good, signature(3), nil},
		{"good parsers", m, measuredDir, parser, compact(own, little, parsers), signature(3), nil},
		{"good metadata and files", m, measuredDir, metadata, compact(own, little, meta, files), signature(3), nil},
		{"reserved byte", m, measuredDir, file, edit(1, 7), signature(3), nil},
		{"unmeasured", m, unmeasuredDir, file, good, signature(3), nil},
		{"unsigned for measurement", m, measuredDir, file, good, nil, nil},
		{"unsigned", b, measuredDir, file, good, nil, nil},
		{"portable signature alone", b, measuredDir, file, good, nil, signature(5)},
		{"signed, no rule to be read", b, measuredDir, file, good, signature(3), nil},
		{"unsigned and unmeasured", b, unmeasuredDir, file, good, nil, nil},
		{"v3 files", m, measuredDir, file, compact(v3, little, files), signature(3), nil},
		{"v3 parsers", m, measuredDir, parser, compact(v3, little, parsers), signature(3), nil},
		{"v3 metadata", m, measuredDir, metadata, compact(v3, little, meta), signature(3), nil},
		{"big-endian", m, measuredDir, file, compact(own, big, files), signature(3), nil},
		{"modifiers", m, measuredDir, file, compact(own, little, odd), signature(3), nil},
		{"appended signature", m, measuredDir, file, signed, signature(3), nil},
		{"cut", m, measuredDir, file, good[:len(good)-1], signature(3), nil},
		{"version", m, measuredDir, file, edit(0, 2), signature(3), nil},
		{"type", m, measuredDir, file, edit(2, 4), signature(3), nil},
		{"algorithm", m, measuredDir, file, edit(6, 20), signature(3), nil},
		{"length", m, measuredDir, file, edit(12, 63), signature(3), nil},
		{"empty", m, measuredDir, file, nil, signature(3), nil},
		{"name", m, measuredDir, "list", good, signature(3), nil},
	}
	return cases, errors.Join(errs...)
}

// write makes the list's file.
func (c listCase) write() (path string, err error) {
	path = filepath.Join(c.dir, c.name)
	if err := os.RemoveAll(path); err != nil {
		return "", err
	}
	if err := os.WriteFile(path, c.content, 0o644); err != nil {
		return "", err
	}
	for name, value := range map[string][]byte{"security.ima": c.ima, "security.evm": c.evm} {
		if value == nil {
			continue
		}
		if err := unix.Setxattr(path, name, value, 0); err != nil {
			return "", fmt.Errorf("set %s: %w", name, err)
		}
	}
	return path, nil
}

// run gives the list to the package, and to a kernel of its own itself. Columns:
// done, error, writes, digests, actions; errno, digests, actions.
func (c listCase) run(out io.Writer, m module) error {
	path, err := c.write()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%s", c.id); err != nil {
		return err
	}
	for _, offer := range []func() (string, error){
		func() (string, error) {
			done, err := applyFile(kernel.Securityfs, c.use, upload.Add, path)
			if err != nil && done {
				return "", fmt.Errorf("done, and %w", err)
			}
			writes, countErr := m.parameter("writes")
			return fmt.Sprintf("%t\t%s\t%d", done, told(err), writes), countErr
		},
		func() (string, error) {
			_, err := raw(control(addFile), unix.O_WRONLY, []byte(path))
			return errno(err), nil
		},
	} {
		if err := m.load(c.use); err != nil {
			return err
		}
		came, err := offer()
		have, haveErr := m.have()
		if err := errors.Join(err, haveErr, m.unload()); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "\t%s\t%s", came, have); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(out)
	return err
}

func control(name string) string { return filepath.Join(kernel.Securityfs, ima.Dir, name) }

// have says how many digests the kernel has, and what it uses lists for.
func (m module) have() (string, error) {
	b, err := os.ReadFile(control("digests_count"))
	if err != nil {
		return "", err
	}
	actions, err := m.parameter("actions")
	return fmt.Sprintf("%s\t%d", strings.TrimSpace(string(b)), actions), err
}

// applyFile does what the uploader does with one list.
func applyFile(securityfs string, u use, op upload.Op, path string) (done bool, err error) {
	i, err := ima.Open(securityfs, u.cmdline)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	content, format, err := digestlist.ReadFile(path)
	if err != nil {
		return false, err
	}
	r, err := i.Apply(op, upload.List{Path: path, Format: format, Content: content}, false)
	return r.Done, err
}

// callCases are system calls whose outcome is known. Columns: result, errno.
func callCases(out io.Writer, m module) (err error) {
	if err := m.load(forMeasurement); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.unload()) }()
	good, err := digestlist.AppendCompact(nil, digestlist.OpenEuler, digestlist.LittleEndian, []digestlist.Block{block(digestlist.File, "a", "b")})
	if err != nil {
		return err
	}
	c := listCase{dir: measuredDir, name: "0-file_list-compact-calls", content: good}
	path, err := c.write()
	if err != nil {
		return err
	}
	write := func(file, data string) func() (int, error) {
		return func() (int, error) { return raw(control(file), unix.O_WRONLY, []byte(data)) }
	}
	opened := func(flags int) func() (int, error) {
		return func() (int, error) { return raw(control(addFile), flags, []byte(path)) }
	}
	for _, call := range []struct {
		id   string
		call func() (int, error)
	}{
		{"open to read", opened(unix.O_RDONLY)},
		{"open to read and write", opened(unix.O_RDWR)},
		{"write at 1", func() (int, error) {
			fd, err := unix.Open(control(addFile), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return -1, err
			}
			defer unix.Close(fd)
			return unix.Pwrite(fd, []byte(path), 1)
		}},
		{"two at a time", func() (int, error) {
			fd, err := unix.Open(control(delFile), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return -1, err
			}
			defer unix.Close(fd)
			return raw(control(addFile), unix.O_WRONLY, []byte(path))
		}},
		{"64 MiB", func() (int, error) { return raw(control(addFile), unix.O_WRONLY, make([]byte, 64<<20)) }},
		{"a list itself", write(addFile, string(good))},
		{"nothing", write(addFile, "")},
		{"relative path", write(addFile, path[1:])},
		{"no such file", write(addFile, "/lists/none")},
		{"directory", write(addFile, measuredDir)},
		{"open for writing", func() (int, error) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return -1, err
			}
			defer f.Close()
			return write(addFile, path)()
		}},
		{"path with a newline", write(addFile, path+"\n")},
		{"path with a NUL", write(addFile, path+"\x00rest")},
		{"del", write(delFile, path)},
		{"del to the last", write(delFile, path)},
		{"del of nothing", write(delFile, path)},
	} {
		n, callErr := call.call()
		have, err := m.have()
		if err != nil {
			return err
		}
		if callErr != nil {
			n = -1
		}
		if _, err := fmt.Fprintf(out, "%s\t%d\t%s\t%s\n", call.id, n, errno(callErr), have); err != nil {
			return err
		}
	}
	return nil
}

// wholeStory adds and deletes a list, with rules that say that IMA appraises it;
// and shows that a list switched off stays off. The rules are a plain file: a
// stock kernel knows no func=DIGEST_LIST_CHECK, and this one lets nobody read
// its own.
func wholeStory(out io.Writer, m module) (err error) {
	if err := m.load(forBoth); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.unload()) }()
	const securityfs = "/tmp/securityfs"
	dir := filepath.Join(securityfs, ima.Dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{addFile, delFile, "digests_count", "binary_runtime_measurements"} {
		if err := os.Symlink(control(name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	rules := "appraise func=DIGEST_LIST_CHECK appraise_type=imasig\n"
	if err := os.WriteFile(filepath.Join(dir, "policy"), []byte(rules), 0o644); err != nil {
		return err
	}
	content, err := digestlist.AppendCompact(nil, digestlist.OpenEuler, digestlist.LittleEndian, []digestlist.Block{block(digestlist.File, "a", "b")})
	if err != nil {
		return err
	}
	signed := listCase{dir: measuredDir, name: "0-file_list-compact-signed", content: content, ima: signature(3)}
	path, err := signed.write()
	if err != nil {
		return err
	}
	unsigned := listCase{dir: unmeasuredDir, name: "0-file_list-compact-raw", content: content}
	bad, err := unsigned.write()
	if err != nil {
		return err
	}
	for _, step := range []struct {
		id   string
		step func() error
	}{
		{"story add", func() error { _, err := applyFile(securityfs, forBoth, upload.Add, path); return err }},
		{"story del", func() error { _, err := applyFile(securityfs, forBoth, upload.Del, path); return err }},
		{"story raw", func() error { _, err := raw(control(addFile), unix.O_WRONLY, []byte(bad)); return err }},
		{"story add when off", func() error { _, err := applyFile(securityfs, forBoth, upload.Add, path); return err }},
	} {
		stepErr := step.step()
		have, err := m.have()
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\t%s\t%s\n", step.id, told(stepErr), have); err != nil {
			return err
		}
	}
	return nil
}
