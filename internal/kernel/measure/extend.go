package measure

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"diglim/internal/digest"
	"diglim/internal/kernel/tpmextend"
	"diglim/internal/measured"
	"diglim/tpm/imalog"
)

// ErrNothing says that no PCR was measured into since the boot.
var ErrNothing = errors.New("nothing was measured since the boot")

// An Extender adds what was used without being known to the PCR that was
// measured into, and to a log of its own (measured.LogPath).
type Extender struct {
	root  string
	ima   *Log
	pcr   int
	banks []digest.Algorithm
	tpm   io.ReadWriteCloser
	log   *os.File
	next  int // number of the next record
	seen  map[file]bool
}

type file struct {
	path   string
	digest digest.Digest
}

// OpenExtender finds the PCR, and goes on with the log.
func OpenExtender(securityfs string) (*Extender, error) {
	tpm, err := tpmextend.Open()
	if err != nil {
		return nil, err
	}
	return openExtender("", securityfs, tpm)
}

func openExtender(root, securityfs string, tpm io.ReadWriteCloser) (x *Extender, err error) {
	x = &Extender{root: root, tpm: tpm, seen: map[file]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.Close())
		}
	}()
	if x.ima, err = openLog(securityfs); err != nil {
		return x, err
	}
	if err := x.ima.Follow(); err != nil {
		return x, err
	}
	var begun bool
	if x.pcr, begun = x.ima.PCR(); !begun {
		return x, ErrNothing
	}
	if x.banks, err = activeBanks(root); err != nil {
		return x, err
	}
	path := filepath.Join(root, measured.LogPath)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return x, err
	}
	if x.log, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		return x, err
	}
	text, err := io.ReadAll(io.LimitReader(x.log, measured.MaxLog+1))
	if err != nil {
		return x, err
	}
	// Of one that was killed while it wrote. The PCR has it not.
	if whole := bytes.LastIndexByte(text, '\n') + 1; whole < len(text) {
		text = text[:whole]
		if err := x.log.Truncate(int64(whole)); err != nil {
			return x, err
		}
	}
	records, err := measured.Records(text)
	if err != nil {
		return x, fmt.Errorf("%s: %w", path, err)
	}
	for _, r := range records {
		x.seen[file{r.Content.Path, r.Content.Digest}] = true
	}
	x.next = len(records)
	return x, x.finish(records)
}

// finish extends the PCR by the last record, if it was not: whoever wrote it was
// killed before.
func (x *Extender) finish(records []measured.Record) (err error) {
	if len(records) == 0 {
		return nil
	}
	unlock, err := lock(x.root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := x.ima.Follow(); err != nil {
		return err
	}
	bank := x.banks[0]
	value, err := readPCR(x.root, bank, x.pcr)
	if err != nil {
		return err
	}
	last := records[len(records)-1]
	without, err := measured.Replay(imalog.Zero(bank), x.ima.Sums(x.pcr, bank), records[:len(records)-1])
	if err != nil || without != value {
		return nil // it was, or somebody else has extended the PCR
	}
	return tpmextend.Extend(x.tpm, x.pcr, last.Digests)
}

// Add adds a file, once: first to the log, then to the PCR. So a log may have one
// record too many, if this is killed in between, until the next one is opened; and
// never one too few.
func (x *Extender) Add(path string, d digest.Digest) (err error) {
	f := file{path, d}
	if x.seen[f] {
		return nil
	}
	unlock, err := lock(x.root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := x.ima.Follow(); err != nil {
		return err
	}
	c := measured.Content{Path: path, Digest: d, After: x.ima.Count(x.pcr)}
	r := measured.NewRecord(x.next, x.pcr, c, x.banks)
	if _, err := x.log.Write(r.Append(nil)); err != nil {
		return err
	}
	if err := x.log.Sync(); err != nil {
		return err
	}
	x.next++
	x.seen[f] = true
	return tpmextend.Extend(x.tpm, x.pcr, r.Digests)
}

// Close closes what is open.
func (x *Extender) Close() error {
	err := x.tpm.Close()
	if x.ima != nil {
		err = errors.Join(err, x.ima.Close())
	}
	if x.log != nil {
		err = errors.Join(err, x.log.Close())
	}
	return err
}
