// Package ima speaks to a kernel with openEuler's IMA digest lists, through the
// files in /sys/kernel/security/ima.
//
// That kernel takes a list by its path alone, reads the file, and has IMA measure
// and appraise it. If IMA then did not measure it, or found no signature, the
// kernel does not refuse the list: it switches digest lists off for everything,
// until it is booted again (ima_check_measured_appraised in
// security/integrity/ima/ima_digest_list.c). A list with a fault is loaded up to
// the fault. And nothing in a list says which dialect it is of: a list of files
// for DIGLIM v3 gives each of the files the right to upload.
//
// So whatever the kernel would punish, or might, is refused here, before a byte
// is written. What cannot be found out counts as bad.
package ima

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"diglim/digestlist"
	"diglim/internal/kernel/upload"
	"diglim/internal/modsig"

	"golang.org/x/sys/unix"
)

// Dir is the interface's directory below the mount point of securityfs.
const Dir = "ima"

const countFile = "digests_count"

func controlFile(op upload.Op) string {
	return [...]string{"digest_list_data", "digest_list_data_del"}[op]
}

// measurePCR is what IMA extends (CONFIG_IMA_MEASURE_PCR_IDX), and not for
// digest lists.
const measurePCR = 10

var (
	// ErrNotThere says that the kernel has no digest lists of openEuler.
	ErrNotThere = errors.New("the kernel has no IMA digest lists")

	// ErrOff says that the kernel makes no use of digest lists.
	ErrOff = errors.New("IMA digest lists are off in this kernel")
)

// An Interface is an open interface.
type Interface struct {
	dir   string
	write func(path string, data []byte) error // one open, one write(2), one close
	xattr func(path, name string) ([]byte, error)

	endian   digestlist.Endian
	measure  bool // lists are used for measurement
	appraise bool // and for appraisal
	dbSize   int  // what the kernel keeps of digests, in bytes; below 0 if not known
	log      measurements
}

// What a digest takes in the kernel beside itself (struct ima_digest), and the
// least that one is, in bytes.
const (
	itemSize  = 28
	minDigest = 16
	maxDBSize = 64 << 20 // the kernel takes no larger ima_digest_db_size=
)

// Open finds the interface below the mount point of securityfs. The kernel
// command line (of /proc/cmdline) tells what lists are used for, and in which
// byte order they are.
func Open(securityfs, cmdline string) (*Interface, error) {
	i := &Interface{dir: filepath.Join(securityfs, Dir), write: upload.WriteFile, xattr: getxattr, endian: hostEndian(), dbSize: -1}
	i.log.path = filepath.Join(i.dir, "binary_runtime_measurements")
	if _, err := os.Stat(filepath.Join(i.dir, controlFile(upload.Add))); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: no %s", ErrNotThere, filepath.Join(i.dir, controlFile(upload.Add)))
		}
		return nil, err
	}
	for _, field := range strings.Fields(cmdline) {
		switch name, value, _ := strings.Cut(field, "="); name {
		case "ima_digest_list_pcr":
			pcr, err := strconv.ParseUint(strings.TrimPrefix(value, "+"), 10, 32)
			i.measure = i.measure || err == nil && pcr != measurePCR
		case "ima_appraise_digest_list":
			i.appraise = i.appraise || value == "digest" || value == "digest-nometadata"
		case "ima_digest_db_size":
			i.dbSize = parseSize(value)
		case "ima_canonical_fmt":
			i.endian = digestlist.LittleEndian
		}
	}
	return i, nil
}

// parseSize reads a size as the kernel's memparse does. It is below 0 for one
// that the kernel would not take.
func parseSize(s string) int {
	digits := strings.TrimRight(s, "KkMmGg")
	n, err := strconv.ParseInt(digits, 0, 32)
	switch suffix := s[len(digits):]; {
	case err != nil || len(suffix) > 1:
		return -1
	case suffix != "":
		n <<= 10 * (1 + strings.Index("KMG", strings.ToUpper(suffix)))
	}
	if n < 0 || n > maxDBSize {
		return -1
	}
	return int(n)
}

func hostEndian() digestlist.Endian {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return digestlist.LittleEndian
	}
	return digestlist.BigEndian
}

// Close closes what was opened to follow IMA's log.
func (i *Interface) Close() error { return i.log.close() }

// Apply adds a list to what the kernel knows, or takes it away. buffered must be
// false, and the list compact and of dialect openEuler: there is no other way.
//
// The kernel does not remember lists. It counts how often it was told of each
// digest, so a list added twice must be deleted twice, and one deleted that was
// never added takes digests of others away.
func (i *Interface) Apply(op upload.Op, l upload.List, buffered bool) (upload.Result, error) {
	if buffered || l.Format != digestlist.FormatCompact {
		return upload.Result{}, errors.New("this kernel takes compact lists of dialect openeuler, by path only")
	}
	if !i.measure && !i.appraise {
		return upload.Result{}, fmt.Errorf("%w: neither ima_digest_list_pcr= nor ima_appraise_digest_list= on its command line", ErrOff)
	}
	// IMA logs the path without links; and the kernel shall open what was looked at.
	path, err := filepath.EvalSymlinks(l.Path)
	if err != nil {
		return upload.Result{}, err
	}
	if strings.ContainsAny(path, "\n\x00") || !filepath.IsAbs(path) {
		return upload.Result{}, errors.New("the kernel takes absolute paths without newlines")
	}
	r := upload.Result{}
	if r.Digests, err = i.checkContent(l.Name(), l.Content); err != nil {
		return r, err
	}
	switch op {
	case upload.Add:
		if least := r.Digests * (itemSize + minDigest); i.dbSize >= 0 && least > i.dbSize {
			return r, fmt.Errorf("%d digests take %d bytes at least, and the kernel keeps %d (ima_digest_db_size=)", r.Digests, least, i.dbSize)
		}
	case upload.Del:
		if have, err := i.Digests(); err != nil || have == 0 {
			return r, err
		}
	}
	if err := i.checkIMA(path, l.Content); err != nil {
		return r, fmt.Errorf("%w; the kernel might switch digest lists off until it is booted again", err)
	}
	err = i.write(filepath.Join(i.dir, controlFile(op)), []byte(path))
	switch {
	case errors.Is(err, unix.EACCES) && i.appraise:
		err = fmt.Errorf("%w (IMA rejects the list's signature, or digest lists are off in this kernel)", err)
	case errors.Is(err, unix.EACCES):
		err = fmt.Errorf("%w (%w)", ErrOff, err)
	case errors.Is(err, unix.EINVAL):
		err = fmt.Errorf("%w (what stands before the fault was loaded)", err)
	}
	r.Done = err == nil
	return r, err
}

// checkContent says how many digests are in a list, or why it is none for this
// kernel.
func (i *Interface) checkContent(file string, content []byte) (digests int, err error) {
	name, err := digestlist.ParseName(digestlist.InterfaceOpenEuler, file)
	if err != nil {
		return 0, fmt.Errorf("%w: the name has to say what the list is of", err)
	}
	if len(content) > digestlist.MaxFile {
		return 0, fmt.Errorf("%d bytes, the limit is %d", len(content), digestlist.MaxFile)
	}
	if bytes.HasSuffix(content, []byte(modsig.Marker)) {
		return 0, errors.New("appended signature, which this kernel takes for digests: it wants security.ima")
	}
	blocks, err := digestlist.ParseCompact(digestlist.OpenEuler, i.endian, content)
	if err != nil {
		other := digestlist.LittleEndian + digestlist.BigEndian - i.endian
		if _, otherErr := digestlist.ParseCompact(digestlist.OpenEuler, other, content); otherErr == nil {
			return 0, fmt.Errorf("list in %s-endian byte order, this kernel reads %s-endian", other, i.endian)
		}
		return 0, err
	}
	of := false
	for n, b := range blocks {
		// Metadata lists may hold the digests of the files themselves, too.
		fits := b.Type == name.Type || b.Type == digestlist.File && name.Type == digestlist.Metadata
		switch {
		case !fits:
			return 0, fmt.Errorf("block %d: digests of type %s in a list of type %s by its name: a list of dialect v3?", n, b.Type, name.Type)
		case b.Modifiers&^digestlist.Immutable != 0:
			return 0, fmt.Errorf("block %d: modifiers %#x are not known", n, uint16(b.Modifiers))
		}
		of = of || b.Type == name.Type
		digests += len(b.Digests)
	}
	switch {
	case digests == 0:
		return 0, errors.New("empty list")
	case !of:
		return 0, fmt.Errorf("no digests of type %s in a list of that type by its name: a list of dialect v3?", name.Type)
	}
	return digests, nil
}

// checkIMA says why the kernel would switch digest lists off over a list, if it
// would.
func (i *Interface) checkIMA(path string, content []byte) error {
	imaSig, err := i.xattr(path, "security.ima")
	if err != nil {
		return err
	}
	evmSig, err := i.xattr(path, "security.evm")
	if err != nil {
		return err
	}
	if err := CheckSigned(imaSig, evmSig, content); err != nil {
		return fmt.Errorf("not signed: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return err
	}
	text, policyErr := os.ReadFile(filepath.Join(i.dir, "policy"))
	rules := parsePolicy(text)
	if i.appraise && !rules.do("appraise", int64(st.Type)) {
		return cannotTell("appraise", policyErr)
	}
	if i.measure && !rules.do("measure", int64(st.Type)) {
		// Whoever reads a file has it measured, by rules with func=FILE_CHECK. We
		// have read it, and the kernel asks no more than that it was measured.
		measured, err := i.log.has(path, content)
		if err != nil {
			return err
		}
		if !measured {
			return cannotTell("measure", policyErr)
		}
	}
	return nil
}

func cannotTell(action string, policyErr error) error {
	if policyErr != nil {
		return fmt.Errorf("nothing says that IMA would %s it: %w", action, policyErr)
	}
	return fmt.Errorf("no rule of IMA's policy says to %s it (func=DIGEST_LIST_CHECK)", action)
}

// getxattr returns the value of an extended attribute, nothing if there is none.
func getxattr(path, name string) ([]byte, error) {
	buf := make([]byte, 1<<16) // XATTR_SIZE_MAX
	n, err := unix.Getxattr(path, name, buf)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "getxattr " + name, Path: path, Err: err}
	}
	return slices.Clip(buf[:n]), nil
}

// Digests is how many digests the kernel knows, of all types.
func (i *Interface) Digests() (int, error) {
	path := filepath.Join(i.dir, countFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(string(b), "\n"))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: %q is no count", path, b)
	}
	return n, nil
}

// A Status is what can be found out about the interface.
type Status struct {
	Digests  int  `json:"digests"`  // of all types
	Measure  bool `json:"measure"`  // lists were to be used for measurement, at boot
	Appraise bool `json:"appraise"` // and for appraisal
}

// Status asks for everything. The kernel does not say whether it has switched
// lists off since it was booted, nor which ones it was given.
func (i *Interface) Status() (Status, error) {
	n, err := i.Digests()
	return Status{n, i.measure, i.appraise}, err
}
