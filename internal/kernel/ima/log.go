package ima

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/tpm/imalog"
)

// measurements follows IMA's log, from where it stopped reading, and remembers
// the digest lists. The log names a file by its path: it cannot tell one from
// another with the same path and content that was there before.
type measurements struct {
	path string
	file *os.File
	seen map[measurement]bool
	algs map[digest.Algorithm]bool // of the digests seen
}

type measurement struct {
	path   string
	digest digest.Digest
}

// listMark is in the name of every list that this kernel is given.
const listMark = "_list-" + string(digestlist.FormatCompact) + "-"

// maxLog is the limit on what is read of the log at a time, in bytes.
const maxLog = 256 << 20

// has tells whether the log has a file with this content.
func (m *measurements) has(path string, content []byte) (bool, error) {
	if err := m.follow(); err != nil {
		return false, fmt.Errorf("IMA log: %w", err)
	}
	for alg := range m.algs {
		if alg.Available() && m.seen[measurement{path, digest.Sum(alg, content)}] {
			return true, nil
		}
	}
	return false, nil
}

// follow reads what is new in the log. What one read to the end returns starts
// and ends with an entry.
func (m *measurements) follow() error {
	if m.file == nil {
		f, err := os.Open(m.path)
		if err != nil {
			return err
		}
		m.file, m.seen, m.algs = f, map[measurement]bool{}, map[digest.Algorithm]bool{}
	}
	log, err := io.ReadAll(io.LimitReader(m.file, maxLog+1))
	if err != nil {
		return err
	}
	if len(log) > maxLog {
		return fmt.Errorf("more than %d bytes", maxLog)
	}
	// The file that all kernels have: SHA-1, in the order of this machine.
	layout := imalog.Layout{Hash: digest.SHA1, BigEndian: binary.NativeEndian.Uint16([]byte{0, 1}) == 1}
	for e, err := range imalog.Entries(bytes.NewReader(log), layout) {
		if err != nil {
			return err
		}
		if e.Known && !e.Violation && !e.Verity && bytes.Contains(e.Path, []byte(listMark)) {
			m.seen[measurement{string(e.Path), e.Digest}] = true
			m.algs[e.Digest.Algorithm()] = true
		}
	}
	return nil
}

func (m *measurements) close() error {
	if m.file == nil {
		return nil
	}
	err := m.file.Close()
	m.file = nil
	return err
}
