// Package attest judges a host by its evidence. Judge is the whole of it: it
// reads nothing but its arguments, no clock and no network, and the same
// arguments give the same verdict.
package attest

import (
	"bytes"
	"cmp"
	"io"
	"slices"

	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm"
)

// Evidence is what a host says about itself, byte for byte. An empty field is
// missing.
type Evidence struct {
	Quote     []byte // TPMS_ATTEST
	Signature []byte // TPMT_SIGNATURE
	PCRs      []byte // PCR values, in either form of tpm2_quote -o

	// IMALog is binary_runtime_measurements, of any bank. It may be larger than
	// memory: what is judged of it is judged in the one reading that proves it,
	// so that nothing depends on its being the same when it is read again. It may
	// also be ascii_runtime_measurements, of at most imalog.MaxText bytes.
	IMALog io.ReaderAt

	Firmware []byte // binary_bios_measurements; wanted only by a policy that names PCRs of it

	// What the running system measured after the firmware, package cel: systemd
	// and the tools of digest lists. Neither is ever missing: many systems
	// measure nothing.
	Systemd, Diglim []byte

	// AK is the key that the host says is its own. Without a key in the
	// challenge the quote is verified with it, to find what else is wrong: a
	// host that passes has proved only that it has some key.
	AK []byte
}

// Judge says whether the host that answered the challenge is what the policy
// wants it to be. It finds all that it can, not the first thing only: without
// a good quote the log is still read and what it holds is reported, unproven.
func Judge(ev Evidence, ch Challenge, pol *policy.Policy) Verdict {
	return judgeHost(ev, ch, pol, nil)
}

func judgeHost(ev Evidence, ch Challenge, pol *policy.Policy, fleet *Fleet) Verdict {
	if pol.Rejects() {
		return Verdict{Findings: []Finding{{Code: PolicyRejects, Why: "the policy can trust no host; attest-verify policy check says why"}}}
	}
	j := judge{policy: pol, fleet: fleet, last: ch.Checkpoint}
	j.verdict.Outcome = Trusted
	j.current(ch)
	j.quote(ev, ch)
	// Half a record at its end was being written, or whoever wrote it was killed: the
	// PCR has it not.
	whole := bytes.LastIndexByte(ev.Diglim, '\n') + 1
	j.added, j.addedErr = j.systemLog("diglim's log", ev.Diglim[:whole])
	j.firmware(ev)
	j.ima(ev.IMALog)
	j.explain()
	if j.verdict.Outcome == Trusted {
		j.verdict.Checkpoint = j.next
	}
	return j.verdict
}

type judge struct {
	policy *policy.Policy
	fleet  *Fleet        // nil if there is none
	pcrs   *tpm.PCRs     // nil until the quote is verified
	ak     digest.Digest // tpm.Key.ID of the key that verified it
	last   *Checkpoint   // of this key and boot, once the quote is verified; nil if there is none
	next   *Checkpoint   // for the verdict, if it is good

	// What diglim-upload added to PCRs: files that were in no list of the host, and
	// were used all the same. addedErr ended its log.
	added    laterRecords
	addedErr error
	verdict  Verdict
}

// find adds a finding. A verdict is as good as the worst of them leaves.
func (j *judge) find(f Finding) {
	j.verdict.Findings = append(j.verdict.Findings, f)
	j.verdict.Outcome = min(j.verdict.Outcome, f.Leaves)
}

// explain tells for unknown files what packages have under that name.
func (j *judge) explain() {
	packaged := map[Path][]Packaged{}
	for _, f := range j.verdict.Findings {
		if f.Code == UnknownFile && f.Path != "" {
			packaged[f.Path] = nil
		}
	}
	if len(packaged) == 0 {
		return
	}
	wanted := func(path []byte) bool {
		_, ok := packaged[Path(path)]
		return ok
	}
	for d, s := range j.policy.Known.At(wanted) {
		packaged[Path(s.Path)] = append(packaged[Path(s.Path)], Packaged{d, s})
	}
	for _, have := range packaged {
		slices.SortFunc(have, func(a, b Packaged) int {
			return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.List, b.List), a.Digest.Compare(b.Digest))
		})
	}
	for i, f := range j.verdict.Findings {
		if f.Code == UnknownFile {
			j.verdict.Findings[i].Packaged = packaged[f.Path]
		}
	}
}
