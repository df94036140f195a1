// Package measured defines what a machine measures into a PCR of its choice at
// boot, so that the value of that PCR is known before: what is measured, in which
// order, as which IMA log entry, and what that makes of the PCR. It does nothing
// of it: package kernel/measure does, and a verifier computes the same.
// docs/formats/measured.md is the definition in words.
package measured

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"diglim/internal/digest"
)

// UID owns a file while it is measured: the rule of IMA's policy goes by it.
// It is of those that systemd gives to nobody and advises against
// (https://systemd.io/UIDS-GIDS, "HERE BE LIONS").
const UID = 3333333333

// Dir is where files are while they are measured, and so what their paths in
// IMA's log begin with.
const Dir = "/run/diglim/measured"

// The names of what is measured, below Dir.
const (
	PolicyName  = "ima-policy"    // the text of Policy
	ConfigName  = "config"        // the text of a Config
	ProgramName = "diglim-upload" // the program that does it
)

// KeyName is the name of a file of the keyring, as it lies below the keyring's
// directory. They are measured directory by directory, as fs.WalkDir goes.
func KeyName(name string) string { return "keys/" + name }

// ListName is the name of a digest list with that file name. They are measured
// in the order in which they go to the kernel.
func ListName(file string) string { return "lists/" + file }

// Path is the path by which IMA logs what has that name.
func Path(name string) string { return Dir + "/" + name }

// UsualPCR is the one to measure into unless there are reasons for another.
const UsualPCR = 12

// CheckPCR says why nothing can be measured into a PCR: 0 to 7 are the firmware's,
// 10 is IMA's, 11 systemd-stub's, 15 systemd's, and those above can be reset.
func CheckPCR(pcr int) error {
	if pcr < 8 || pcr > 14 || pcr == 10 || pcr == 11 {
		return fmt.Errorf("nothing can be measured into PCR %d: 8, 9, 12, 13 and 14 are possible", pcr)
	}
	return nil
}

// A Config is the settings that are in force after the lists.
type Config struct {
	Interface string // that the lists go to: bpf, diglim or ima
	PCR       int

	// Of the gate; empty for the other interfaces.
	Mode  string   // log or enforce
	Scope []string // rules, as scope.Format writes them
	Lock  bool
}

// Text is what is measured of a Config: a name and a value a line.
//
//	interface bpf
//	pcr 12
//	mode enforce
//	scope log path=/usr/local    (a line for each rule)
//	lock yes
//
// The last three are of the gate alone.
func (c Config) Text() []byte {
	b := fmt.Appendf(nil, "interface %s\npcr %d\n", c.Interface, c.PCR)
	if c.Mode == "" {
		return b
	}
	b = fmt.Appendf(b, "mode %s\n", c.Mode)
	for _, rule := range c.Scope {
		b = fmt.Appendf(b, "scope %s\n", rule)
	}
	lock := "no"
	if c.Lock {
		lock = "yes"
	}
	return fmt.Appendf(b, "lock %s\n", lock)
}

// TemplateData is the data of the entry that IMA logs for a file, template
// ima-ng (ima_template_lib.c): two fields, each behind its length in 32 bits,
//
//	the digest's algorithm, ":", NUL, digest | path, NUL
//
// in the byte order of a little-endian machine. The digest is of the algorithm
// that IMA hashes files with (ima_hash=, SHA-256 as a rule).
func TemplateData(path string, d digest.Digest) []byte {
	alg := d.Algorithm()
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(alg.String())+2+alg.Size()))
	b = append(append(b, alg.String()...), ":\x00"...)
	b = d.Append(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(path)+1))
	return append(append(b, path...), 0)
}

// A File is one that was measured.
type File struct {
	Name   string        // below Dir
	Digest digest.Digest // of its content, by IMA's algorithm
}

// A Sequence is the files that a machine measures in one boot, in order. The
// zero Sequence is the start of the boot.
type Sequence struct {
	files []File
	seen  map[File]bool
}

// Add measures a file, which changes nothing if it was measured before.
func (s *Sequence) Add(f File) {
	if s.seen[f] {
		return
	}
	if s.seen == nil {
		s.seen = map[File]bool{}
	}
	s.seen[f] = true
	s.files = append(s.files, f)
}

// Files are those added, each once.
func (s *Sequence) Files() []File { return slices.Clone(s.files) }

// Extend is the value that the PCR then has if it had that value at the start,
// as a kernel since 5.8 extends it: each bank with its own hash of the template
// data. start says which bank; its algorithm must be Available.
func (s *Sequence) Extend(start digest.Digest) digest.Digest {
	for _, f := range s.files {
		start = extend(start, digest.Sum(start.Algorithm(), TemplateData(Path(f.Name), f.Digest)))
	}
	return start
}

// extend is TPM2_PCR_Extend.
func extend(value, with digest.Digest) digest.Digest {
	return digest.Sum(value.Algorithm(), value.Bytes(), with.Bytes())
}

// Name is the name of what IMA logged by a path, or false if it is nothing that
// was measured by this package's rules.
func Name(path string) (name string, ok bool) { return strings.CutPrefix(path, Dir+"/") }
