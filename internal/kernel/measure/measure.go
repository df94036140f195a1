// Package measure has IMA measure what package measured defines, on a kernel as
// it is: by one rule in IMA's policy, and files that belong to a user whom
// nobody is.
//
// Whatever is measured is looked up in IMA's log before anything is done with it:
// a rule of somebody else's that comes first, or a kernel that measures nothing, is an error.
package measure

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/measured"

	"golang.org/x/sys/unix"
)

var (
	// ErrTooLate says that the kernel takes no policy any more: it has one, and
	// that does not measure for us.
	ErrTooLate = errors.New("IMA has got its policy already")

	// ErrNot says that IMA did not measure what it was to measure.
	ErrNot = errors.New("IMA does not measure it: another rule comes first, or IMA is off")

	// ErrNoTPM says that nothing becomes of what IMA measures.
	ErrNoTPM = errors.New("IMA extends no TPM")
)

// A kernelFiles is where the kernel's files are, and what opens those that IMA
// is to measure. Tests have others.
type kernelFiles struct {
	root       string // in front of all paths but securityfs; "" is none
	securityfs string
	read       func(path string) error
	chown      func(f *os.File) error
}

func realFiles(securityfs string) kernelFiles {
	return kernelFiles{
		securityfs: securityfs,
		read: func(path string) error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			return f.Close()
		},
		chown: func(f *os.File) error { return f.Chown(measured.UID, -1) },
	}
}

// A Measurer measures into one PCR. While it is open nobody else does.
type Measurer struct {
	files  kernelFiles
	pcr    int
	log    *Log
	unlock func() error
}

// Open prepares to measure into a PCR. If nothing was measured since the boot it
// gives the kernel its policy first, in which the administrator's is, and
// measures that. PCR 0 is the one that was measured into since the boot; if there
// is none, the Measurer is nil, which measures nothing.
//
// cmdline is the kernel command line.
func Open(securityfs, cmdline string, pcr int) (*Measurer, error) {
	return open(realFiles(securityfs), cmdline, pcr)
}

func open(files kernelFiles, cmdline string, pcr int) (m *Measurer, err error) {
	log, err := openLog(files.securityfs)
	if err != nil {
		if pcr == 0 {
			return nil, nil // this kernel has no IMA, and was not asked for it
		}
		return nil, err
	}
	m = &Measurer{files: files, log: log}
	defer func() {
		if err != nil || m.pcr == 0 {
			err = errors.Join(err, m.Close())
			m = nil
		}
	}()
	if m.unlock, err = lock(files.root); err != nil {
		return m, err
	}
	if err := log.Follow(); err != nil {
		return m, err
	}
	had, begun := log.PCR()
	switch {
	case pcr == 0 && !begun:
		return m, nil
	case begun && pcr != 0 && pcr != had:
		return m, fmt.Errorf("PCR %d is what is measured into since the boot, and not %d", had, pcr)
	case begun:
		pcr = had
	}
	dir := files.root + measured.Dir
	if err := os.RemoveAll(dir); err != nil { // of one that was killed
		return m, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return m, err
	}
	m.pcr = pcr
	if !begun {
		text, err := m.givePolicy(cmdline)
		if err != nil {
			return m, err
		}
		if err := m.File(measured.PolicyName, text); err != nil {
			return m, err
		}
	}
	return m, m.checkTPM()
}

// PCR is the one that is measured into.
func (m *Measurer) PCR() int { return m.pcr }

// givePolicy gives the kernel its policy, and returns it.
func (m *Measurer) givePolicy(cmdline string) ([]byte, error) {
	path := measured.EarlyPolicy
	own, err := os.ReadFile(m.files.root + path)
	if errors.Is(err, fs.ErrNotExist) {
		path = measured.PolicyFile
		own, err = os.ReadFile(m.files.root + path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	text, err := measured.Policy(m.pcr, cmdline, own)
	if err != nil {
		return nil, fmt.Errorf("IMA policy %s: %w", path, err)
	}
	f, err := os.OpenFile(filepath.Join(m.files.securityfs, "ima/policy"), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrTooLate
	}
	if err != nil {
		return nil, err
	}
	// The kernel reads a rule a write, and puts them into force when the file is closed
	// and none was bad (ima_write_policy, ima_release_policy).
	for line := range bytes.Lines(text) {
		if _, err := f.Write(line); err != nil {
			if errors.Is(err, unix.EACCES) {
				err = fmt.Errorf("%w (this kernel takes a signed policy only)", err)
			}
			return nil, errors.Join(fmt.Errorf("IMA policy: %q: %w", bytes.TrimSpace(line), err), f.Close())
		}
	}
	return text, f.Close()
}

// checkTPM says so if nothing has become of what was measured. IMA goes on
// without a TPM if there was none when it began.
func (m *Measurer) checkTPM() error {
	dirs, err := bankDirs(m.files.root)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		value, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(m.pcr)))
		if err != nil {
			return err
		}
		if len(bytes.Trim(value, "0\n")) > 0 {
			return nil
		}
	}
	return ErrNoTPM
}

// File has IMA measure a file of that name (measured.PolicyName, and so on),
// if it was not measured before. A nil Measurer measures nothing.
func (m *Measurer) File(name string, content []byte) error {
	if m == nil || m.log.has(name, content) {
		return nil
	}
	path := m.files.root + measured.Path(name)
	if err := m.put(path, content); err != nil {
		return fmt.Errorf("measure %s: %w", name, err)
	}
	if err := m.log.Follow(); err != nil {
		return err
	}
	if !m.log.has(name, content) {
		return fmt.Errorf("measure %s: %w", name, ErrNot)
	}
	return nil
}

// put makes a file, has it measured and removes it. It must be new to IMA, and
// nobody may have it open for writing when it is opened for reading.
func (m *Measurer) put(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	_, err = f.Write(content)
	if err := errors.Join(err, m.files.chown(f), f.Close()); err != nil {
		return err
	}
	return m.files.read(path)
}

// Close ends it. A nil Measurer has nothing to end.
func (m *Measurer) Close() error {
	if m == nil {
		return nil
	}
	err := m.log.Close()
	if m.unlock != nil {
		if m.pcr != 0 {
			err = errors.Join(err, os.RemoveAll(m.files.root+measured.Dir))
		}
		err = errors.Join(err, m.unlock())
	}
	return err
}

// bankDirs are the directories in which the kernel tells the PCRs of a TPM 2.0's
// active banks. root is in front of the path of sysfs; "" is none.
func bankDirs(root string) ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(root, "/sys/class/tpm/tpm0", bankPrefix+"*"))
	if err == nil && len(dirs) == 0 {
		err = fmt.Errorf("%w: there is none of version 2.0", ErrNoTPM)
	}
	return dirs, err
}

const bankPrefix = "pcr-"

// readPCR returns the value of a PCR.
func readPCR(root string, bank digest.Algorithm, pcr int) (digest.Digest, error) {
	path := filepath.Join(root, "/sys/class/tpm/tpm0", bankPrefix+bank.String(), strconv.Itoa(pcr))
	text, err := os.ReadFile(path)
	if err != nil {
		return digest.Digest{}, err
	}
	d, err := digest.Parse(bank.String() + ":" + strings.ToLower(strings.TrimSpace(string(text))))
	if err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// activeBanks are the algorithms of the TPM's active banks.
func activeBanks(root string) ([]digest.Algorithm, error) {
	dirs, err := bankDirs(root)
	if err != nil {
		return nil, err
	}
	var banks []digest.Algorithm
	for _, dir := range dirs {
		bank, err := digest.ByName(filepath.Base(dir)[len(bankPrefix):])
		if err == nil && !bank.Available() {
			err = fmt.Errorf("algorithm %s is not there", bank)
		}
		if err != nil {
			return nil, fmt.Errorf("bank %s: %w", dir, err)
		}
		banks = append(banks, bank)
	}
	return banks, nil
}

// lock waits until nobody else measures: the order of the two logs of a PCR is
// in one of them.
func lock(root string) (unlock func() error, err error) {
	path := filepath.Join(root, filepath.Dir(measured.Dir), "measure.lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	// Not for reading: IMA would measure the empty file.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f.Close, nil
}
