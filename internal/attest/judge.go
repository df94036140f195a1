// Package attest judges a host by its evidence. Judge is the whole of it: it
// reads no file, no clock and no network, and the same arguments give the same
// verdict.
package attest

import (
	"cmp"
	"fmt"
	"slices"

	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm"
	"diglim/tpm/imalog"
)

// Evidence is what a host says about itself, byte for byte. An empty field is
// missing.
type Evidence struct {
	Quote     []byte // TPMS_ATTEST
	Signature []byte // TPMT_SIGNATURE
	PCRs      []byte // PCR values, in either form of tpm2_quote -o
	IMALog    []byte // binary_runtime_measurements, of any bank

	// AK is the key that the host says is its own. Without a key in the
	// challenge the quote is verified with it, to find what else is wrong: a
	// host that passes has proved only that it has some key.
	AK []byte
}

// Judge says whether the host that answered the challenge is what the policy
// wants it to be. It finds all that it can, not the first thing only: without
// a good quote the log is still read and what it holds is reported, unproven.
func Judge(ev Evidence, ch Challenge, pol *policy.Policy) Verdict {
	if pol.Rejects() {
		return Verdict{Findings: []Finding{{Code: PolicyRejects, Why: "the policy knows no file"}}}
	}
	j := judge{policy: pol}
	j.current(ch)
	j.quote(ev, ch)
	j.replay(ev.IMALog)
	j.entries(ev.IMALog)
	j.explain()
	return j.conclude()
}

type judge struct {
	policy  *policy.Policy
	pcrs    *tpm.PCRs // nil until the quote is verified
	chains  map[int]*chain
	verdict Verdict
}

// A chain is what the log says about one PCR.
type chain struct {
	replay  *imalog.Replay // nil if the PCR is not quoted
	entries int            // in the log
	proven  int            // of them, from the first, covered by the quote
	judged  int            // of them, so far
}

func (j *judge) find(f Finding) { j.verdict.Findings = append(j.verdict.Findings, f) }

// replay finds out how much of the log the quote covers. Every PCR that the
// log names is replayed on its own.
func (j *judge) replay(log []byte) {
	j.chains = map[int]*chain{j.policy.PCR: j.newChain(j.policy.PCR)}
	if len(log) == 0 {
		return // found missing
	}
	whole := true
	for e, err := range imalog.Entries(log) {
		if err != nil {
			j.find(Finding{Code: Malformed, Leaves: CouldNotTell, Why: "IMA log: " + err.Error()})
			whole = false
			break
		}
		c := j.chains[e.PCR]
		if c == nil {
			c = j.newChain(e.PCR)
			j.chains[e.PCR] = c
		}
		c.entries++
		j.verdict.Entries++
		if c.replay != nil {
			c.replay.Add(e)
		}
	}
	for pcr := range tpm.PCRCount {
		if c := j.chains[pcr]; c != nil {
			j.covered(pcr, c, whole)
		}
	}
}

func (j *judge) newChain(pcr int) *chain {
	if quoted, ok := j.pcrs.Value(j.policy.Bank, pcr); ok {
		return &chain{replay: imalog.NewReplay(quoted)}
	}
	return &chain{}
}

// covered says what came of replaying a PCR. A log that is not whole may lack
// the entries that would have arrived at the quoted value.
func (j *judge) covered(pcr int, c *chain, whole bool) {
	if pcr != j.policy.PCR {
		j.find(Finding{Code: SecondPCR, Leaves: Trusted, Why: fmt.Sprintf("%d entries are on PCR %d, not %d", c.entries, pcr, j.policy.PCR)})
	}
	if j.pcrs == nil {
		return // the quote's finding says it all
	}
	if c.replay == nil {
		j.find(Finding{Code: PCRNotQuoted, Leaves: CouldNotTell, Why: fmt.Sprintf("PCR %d of the %s bank is not quoted", pcr, j.policy.Bank)})
		return
	}
	quoted, _ := j.pcrs.Value(j.policy.Bank, pcr)
	proven, ok := c.replay.Proven()
	switch {
	case !ok && whole:
		j.find(Finding{Code: DoesNotReplay, Leaves: NotTrusted, Expected: quoted,
			Why: fmt.Sprintf("none of the log's %d entries on PCR %d arrives at the quoted value: entries are missing, added or changed", c.entries, pcr)})
	case ok && proven == 0 && pcr == j.policy.PCR:
		j.find(Finding{Code: NotExtended, Leaves: NotTrusted, Expected: quoted,
			Why: fmt.Sprintf("PCR %d was never extended: nothing was measured", pcr)})
	}
	c.proven = proven
	j.verdict.Proven += proven
}

// entries judges what the log says, entry by entry.
func (j *judge) entries(log []byte) {
	aggregate, files := false, false
	for e, err := range imalog.Entries(log) {
		if err != nil {
			break // found by replay
		}
		c := j.chains[e.PCR]
		c.judged++
		proven := c.judged <= c.proven
		if proven && e.PCR == j.policy.PCR && e.Known && !e.Violation {
			aggregate = aggregate || isAggregate(e)
			files = files || !isAggregate(e)
		}
		j.entry(e, proven)
	}
	if j.chains[j.policy.PCR].proven == 0 {
		return
	}
	if !aggregate {
		j.find(Finding{Code: NoAggregate, Leaves: CouldNotTell, Why: "no proven entry says what the host was booted with"})
	}
	if !files {
		j.find(Finding{Code: NothingMeasured, Leaves: CouldNotTell, Why: "no proven entry is about a file: IMA has no policy that measures"})
	}
}

// entry judges one entry. What is found in one that the quote does not cover
// is reported, and decides nothing.
func (j *judge) entry(e *imalog.Entry, proven bool) {
	found := func(code Code, leaves Outcome, expected digest.Digest, why string) {
		if !proven {
			leaves = Trusted
		}
		j.find(Finding{Code: code, Leaves: leaves, Unproven: !proven, Entry: e.Number,
			Path: Path(e.Path), Digest: e.Digest, Expected: expected, Why: why})
	}
	none := digest.Digest{}
	if !e.Known {
		found(UnknownTemplate, CouldNotTell, none, fmt.Sprintf("template %s is not understood", e.Template))
	}
	if e.Violation {
		leaves := NotTrusted
		if j.policy.ReportViolations {
			leaves = Trusted
		}
		if proven {
			j.verdict.Violations++
		}
		found(Violation, leaves, none, "the file was written while it was measured; no PCR covers the path")
		if e.Known && e.Digest != zero(e.Digest.Algorithm()) {
			found(ViolationData, NotTrusted, none, "a violation has no digest, this one was given one")
		}
		return
	}
	if !e.Authentic() {
		found(WrongHash, NotTrusted, digest.Sum(e.Hash.Algorithm(), e.Data), "the template hash is not that of the template data")
	}
	if !e.Known {
		return
	}
	if isAggregate(e) {
		switch want, ok := j.bootAggregate(e.Digest.Algorithm()); {
		case j.pcrs == nil: // the quote's finding says it all
		case !ok:
			found(NoAggregatePCRs, CouldNotTell, none, fmt.Sprintf("the PCRs that it was made of are not quoted in the %s bank", e.Digest.Algorithm()))
		case want != e.Digest:
			found(WrongAggregate, NotTrusted, want, "the quoted PCRs make another boot aggregate")
		}
		return
	}
	if reason, denied := j.policy.Denied[e.Digest]; denied {
		found(DeniedFile, NotTrusted, none, "denied by the policy: "+reason)
	}
	sources := j.policy.Find(e.Digest, string(e.Path))
	if len(sources) == 0 {
		leaves := NotTrusted
		if j.policy.ReportUnknown {
			leaves = Trusted
		}
		found(UnknownFile, leaves, none, "in no list")
	}
	m := Measured{e.Number, Path(e.Path), e.Digest, some(sources, string(e.Path))}
	switch {
	case !proven:
		j.verdict.Unproven = append(j.verdict.Unproven, m)
	case len(sources) > 0:
		j.verdict.Known = append(j.verdict.Known, m)
	}
}

// some returns a few of the sources: first those that have the file where it
// was measured.
func some(sources []policy.Source, path string) []policy.Source {
	few := []policy.Source{}
	for _, there := range []bool{true, false} {
		for _, s := range sources {
			if len(few) < MaxSources && (s.Path == path) == there {
				few = append(few, s)
			}
		}
	}
	return few
}

// isAggregate reports whether an entry is IMA's first, about the boot. A file
// that is called so is judged like it, and has the wrong digest.
func isAggregate(e *imalog.Entry) bool { return string(e.Path) == "boot_aggregate" }

// bootAggregate is the hash over the quoted PCRs 0 to 9 of the bank with the
// same algorithm, for SHA-1 over 0 to 7 (ima_crypto.c,
// ima_calc_boot_aggregate_tfm). It is false if one of them is not quoted.
func (j *judge) bootAggregate(alg digest.Algorithm) (digest.Digest, bool) {
	n := 10
	if alg == digest.SHA1 {
		n = 8
	}
	if !alg.Available() {
		return digest.Digest{}, false
	}
	h := alg.Hash()
	for i := range n {
		value, ok := j.pcrs.Value(alg, i)
		if !ok {
			return digest.Digest{}, false
		}
		h.Write(value.Bytes())
	}
	return digest.Of(alg, h), true
}

func zero(alg digest.Algorithm) digest.Digest {
	d, _ := digest.New(alg, make([]byte, alg.Size())) // alg was parsed, so it is valid
	return d
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

// conclude is the verdict: the best outcome that all findings leave.
func (j *judge) conclude() Verdict {
	j.verdict.Outcome = Trusted
	for _, f := range j.verdict.Findings {
		j.verdict.Outcome = min(j.verdict.Outcome, f.Leaves)
	}
	return j.verdict
}
