package measure

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"diglim/internal/digest"
	"diglim/internal/measured"
	"diglim/tpm/imalog"
)

// maxLog is the limit on what is read of IMA's log at a time, in bytes.
const maxLog = 256 << 20

// A Log follows IMA's log, and keeps what of it is about this.
type Log struct {
	file  *os.File
	seen  map[string][]digest.Digest // by name, of those that were measured into pcr
	pcr   int                        // 0 before the first
	count map[int]int                // entries by PCR
	own   []imalog.Entry             // those on PCRs that can be measured into
}

func openLog(securityfs string) (*Log, error) {
	f, err := os.Open(filepath.Join(securityfs, "ima/binary_runtime_measurements"))
	if err != nil {
		return nil, fmt.Errorf("IMA log: %w", err)
	}
	return &Log{file: f, seen: map[string][]digest.Digest{}, count: map[int]int{}}, nil
}

// Follow reads what is new. What one read to the end returns starts and ends
// with an entry.
func (l *Log) Follow() error {
	log, err := io.ReadAll(io.LimitReader(l.file, maxLog+1))
	if err == nil && len(log) > maxLog {
		err = fmt.Errorf("more than %d bytes", maxLog)
	}
	if err != nil {
		return fmt.Errorf("IMA log: %w", err)
	}
	// The file that all kernels have: SHA-1, in the order of this machine.
	layout := imalog.Layout{Hash: digest.SHA1, BigEndian: binary.NativeEndian.Uint16([]byte{0, 1}) == 1}
	for e, err := range imalog.Entries(bytes.NewReader(log), layout) {
		if err != nil {
			return fmt.Errorf("IMA log: %w", err)
		}
		l.count[e.PCR]++
		if measured.CheckPCR(e.PCR) == nil {
			own := *e
			own.Data = bytes.Clone(e.Data) // the next batch has its place
			l.own = append(l.own, own)
		}
		name, ours := measured.Name(string(e.Path))
		if !ours || !e.Known || e.Violation || e.Template != "ima-ng" {
			continue
		}
		if name == measured.PolicyName && l.pcr == 0 && measured.CheckPCR(e.PCR) == nil {
			l.pcr = e.PCR
		}
		if e.PCR == l.pcr {
			l.seen[name] = append(l.seen[name], e.Digest)
		}
	}
	return nil
}

// PCR is the one that was measured into since the boot, or false if none was.
func (l *Log) PCR() (int, bool) { return l.pcr, l.pcr != 0 }

// Count is how many entries the log has for a PCR.
func (l *Log) Count(pcr int) int { return l.count[pcr] }

// Sums are a bank's hashes of the entries for a PCR, in order.
func (l *Log) Sums(pcr int, bank digest.Algorithm) (sums []digest.Digest) {
	for i := range l.own {
		if l.own[i].PCR == pcr {
			sums = append(sums, l.own[i].Sum(bank))
		}
	}
	return sums
}

// has reports whether a file was measured.
func (l *Log) has(name string, content []byte) bool {
	return slices.ContainsFunc(l.seen[name], func(d digest.Digest) bool {
		return d.Algorithm().Available() && digest.Sum(d.Algorithm(), content) == d
	})
}

// Close closes the log.
func (l *Log) Close() error { return l.file.Close() }
