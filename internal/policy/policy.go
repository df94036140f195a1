// Package policy says what a host should be. The zero Policy rejects every
// host.
package policy

import (
	"iter"
	"slices"

	"diglim/internal/digest"
)

// IMAPCR is the PCR that IMA extends unless it is told otherwise
// (CONFIG_IMA_MEASURE_PCR_IDX).
const IMAPCR = 10

// A Policy is what a host is judged by.
type Policy struct {
	Bank  digest.Algorithm // bank of the PCRs that count
	PCR   int              // the PCR that measured files extend
	Known Files            // what may have been measured

	// Firmware are the PCRs whose quoted values the firmware's log has to
	// explain. Of a PCR that is not among them nothing is said.
	Firmware []int

	// SecureBoot wants the log, which has to explain PCR 7, to say that Secure
	// Boot was on.
	SecureBoot bool

	// ReportViolations makes violations (a file was written while it was
	// measured, so that nobody knows what was read) something to report and
	// no reason for distrust.
	ReportViolations bool

	// ReportPadded does the same for kernels before 5.8, which extend every
	// bank with SHA-1 and zeros. Without it their logs are no proof.
	ReportPadded bool
}

const (
	maxPCR        = 23 // the last PCR that a TPM of a PC has
	secureBootPCR = 7
)

// Rejects reports whether p can trust no host at all: there is none, it has
// no bank or a PCR that no host has, it wants Secure Boot and not what proves
// it, or it knows no file.
func (p *Policy) Rejects() bool {
	if p == nil || !p.Bank.Available() || p.Known.Len() == 0 || p.SecureBoot && !slices.Contains(p.Firmware, secureBootPCR) {
		return true
	}
	none := func(pcr int) bool { return pcr < 0 || pcr > maxPCR }
	return none(p.PCR) || slices.ContainsFunc(p.Firmware, none)
}

// A Source says where a known digest comes from. It is for the reader of a
// verdict; no decision depends on it.
type Source struct {
	Package string `json:"package,omitempty"` // none if the file is the list itself
	List    string `json:"list"`              // file name of the digest list
	Path    string `json:"path,omitempty"`    // of the file in the package
	Signer  string `json:"signer,omitempty"`
}

// Files is a set of known files. A file is known by the algorithm and the
// value of its digest and by nothing else; its path is a label.
type Files struct {
	sources map[digest.Digest][]Source
}

// Add makes a file known. A digest may have several sources.
func (f *Files) Add(d digest.Digest, s Source) {
	if f.sources == nil {
		f.sources = make(map[digest.Digest][]Source)
	}
	f.sources[d] = append(f.sources[d], s)
}

// Find returns the sources of a digest; none if it is not known.
func (f *Files) Find(d digest.Digest) []Source { return f.sources[d] }

// Len is the number of different digests.
func (f *Files) Len() int { return len(f.sources) }

// All yields every digest with its sources, in no order.
func (f *Files) All() iter.Seq2[digest.Digest, []Source] {
	return func(yield func(digest.Digest, []Source) bool) {
		for d, s := range f.sources {
			if !yield(d, s) {
				return
			}
		}
	}
}
