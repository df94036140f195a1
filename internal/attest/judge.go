// Package attest judges a host by its evidence. Judge is the whole of it: it
// reads nothing but its arguments, no clock and no network, and the same
// arguments give the same verdict.
package attest

import (
	"cmp"
	"errors"
	"io"
	"slices"

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
	// so that nothing depends on its being the same when it is read again.
	IMALog io.ReaderAt

	Firmware []byte // binary_bios_measurements; wanted only by a policy that names PCRs of it

	// AK is the key that the host says is its own. Without a key in the
	// challenge the quote is verified with it, to find what else is wrong: a
	// host that passes has proved only that it has some key.
	AK []byte
}

// A Challenge is what the verifier knows by itself. Neither may come with the
// evidence: a nonce proves freshness only to who chose it, and a key whose it
// is only to who enrolled it.
type Challenge struct {
	Nonce []byte
	AK    []byte // public key: TPMT_PUBLIC, TPM2B_PUBLIC or PEM

	// Checkpoint is that of the last verdict about this host, if there is one.
	Checkpoint *Checkpoint
}

// Judge says whether the host that answered the challenge is what the policy
// wants it to be. It finds all that it can, not the first thing only: without
// a good quote the log is still read and what it holds is reported, unproven.
func Judge(ev Evidence, ch Challenge, pol *policy.Policy) Verdict {
	if pol.Rejects() {
		return Verdict{Findings: []Finding{{Code: PolicyRejects, Why: "the policy knows no file"}}}
	}
	j := judge{policy: pol, last: ch.Checkpoint}
	j.verdict.Outcome = Trusted
	j.quote(ev, ch)
	j.firmware(ev.Firmware)
	j.ima(ev.IMALog)
	j.explain()
	if j.verdict.Outcome == Trusted {
		j.verdict.Checkpoint = j.next
	}
	return j.verdict
}

type judge struct {
	policy  *policy.Policy
	pcrs    *tpm.PCRs   // nil until the quote is verified
	last    *Checkpoint // of this boot, once the quote is verified; nil if there is none
	next    *Checkpoint // for the verdict, if it is good
	verdict Verdict
}

// find adds a finding. A verdict is as good as the worst of them leaves.
func (j *judge) find(f Finding) {
	j.verdict.Findings = append(j.verdict.Findings, f)
	j.verdict.Outcome = min(j.verdict.Outcome, f.Leaves)
}

// quote verifies the quote and fills pcrs if all of it is right.
func (j *judge) quote(ev Evidence, ch Challenge) {
	if len(ch.Nonce) == 0 {
		j.find(Finding{Code: NoNonce, Leaves: CouldNotTell, Why: "no nonce given: nothing says that the evidence is fresh"})
	}
	ak := ch.AK
	if len(ak) == 0 {
		j.find(Finding{Code: NoKey, Leaves: CouldNotTell, Why: "no AK given: nothing says whose evidence it is"})
		ak = ev.AK
	}
	var key *tpm.Key
	var err error
	if len(ak) > 0 {
		key, err = tpm.ParsePublic(ak)
		j.refused(err)
	}
	for _, part := range []struct {
		name  string
		bytes []byte
	}{{"quote", ev.Quote}, {"signature", ev.Signature}, {"PCR values", ev.PCRs}} {
		if len(part.bytes) == 0 {
			j.find(Finding{Code: Missing, Leaves: CouldNotTell, Why: part.name + " missing"})
		}
	}
	var q *tpm.Quote
	var sig *tpm.Signature
	var values tpm.Values
	if len(ev.Quote) > 0 {
		q, err = tpm.ParseQuote(ev.Quote)
		j.refused(err)
	}
	if len(ev.Signature) > 0 {
		sig, err = tpm.ParseSignature(ev.Signature)
		j.refused(err)
	}
	if len(ev.PCRs) > 0 && q != nil {
		values, err = tpm.ParseValues(ev.PCRs, q.Selection)
		j.refused(err)
	}
	// A missing log does not keep the quote from being verified.
	if q == nil || sig == nil || values == nil || key == nil || len(ch.Nonce) == 0 {
		return
	}
	if j.pcrs, err = q.Verify(sig, key, ch.Nonce, values); err != nil {
		j.refused(err)
		return
	}
	if j.last != nil && (j.last.Resets != q.ResetCount || j.last.Value.Algorithm() != j.policy.Bank || j.last.PCR != j.policy.PCR) {
		j.last = nil // of another boot, or about something else
	}
	j.verdict.Quoted = true
	j.verdict.Clock, j.verdict.Resets, j.verdict.Restarts = q.Clock, q.ResetCount, q.RestartCount
}

// refused turns an error of package tpm into a finding.
func (j *judge) refused(err error) {
	if err == nil {
		return
	}
	for _, c := range []struct {
		err    error
		code   Code
		leaves Outcome
	}{
		{tpm.ErrNotQuote, NotAQuote, NotTrusted},
		{tpm.ErrAlgorithm, WeakAlgorithm, NotTrusted},
		{tpm.ErrKey, KeyNotSuitable, NotTrusted},
		{tpm.ErrSignature, BadSignature, NotTrusted},
		{tpm.ErrNonce, WrongNonce, NotTrusted},
		{tpm.ErrSelection, OtherPCRs, NotTrusted},
		{tpm.ErrPCRDigest, WrongPCRs, NotTrusted},
		{tpm.ErrMalformed, Malformed, CouldNotTell},
	} {
		if errors.Is(err, c.err) {
			j.find(Finding{Code: c.code, Leaves: c.leaves, Why: err.Error()})
			return
		}
	}
	j.find(Finding{Code: Malformed, Leaves: CouldNotTell, Why: err.Error()})
}

// explain tells for unknown files what packages have under that name.
func (j *judge) explain() {
	packaged := map[Path][]Packaged{}
	for _, f := range j.verdict.Findings {
		if f.Code == UnknownFile {
			packaged[f.Path] = nil
		}
	}
	if len(packaged) == 0 {
		return
	}
	for d, sources := range j.policy.Known.All() {
		for _, s := range sources {
			if have, ok := packaged[Path(s.Path)]; ok {
				packaged[Path(s.Path)] = append(have, Packaged{d, s})
			}
		}
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
