package attest

import (
	"math"
	"slices"

	"diglim/internal/measured"
	"diglim/internal/policy"
	"diglim/tpm/cel"
)

// usedFile is what a record says, and false if that is not what was measured.
func (j *judge) usedFile(r *cel.Record) (measured.Content, bool) {
	text, proven := r.Text(j.policy.Bank)
	if !proven {
		return measured.Content{}, false
	}
	c, err := measured.ParseContent([]byte(text))
	return c, err == nil
}

// used is what there is to say of a record, and false if that is nothing: the
// file may be in a list that the host did not have yet.
func (j *judge) used(r *cel.Record) (Finding, bool) {
	c, said := j.usedFile(r)
	f := Finding{Code: UnknownFile, Leaves: NotTrusted, Record: r.Number, Path: Path(c.Path), Digest: c.Digest,
		Why: "it was used, and the host had it in no list"}
	if j.policy.ReportUnknown {
		f.Leaves = Trusted
	}
	if !said {
		f.Why = "a file was used that the host had in no list, and what the record says of it was not measured"
		return f, true
	}
	if reason, denied := j.policy.Denied[c.Digest]; denied && !c.Digest.IsZero() {
		f.Code, f.Leaves, f.Why = DeniedFile, NotTrusted, "denied by the policy: "+reason
		return f, true
	}
	query := []policy.Query{{Digest: &c.Digest, Path: []byte(c.Path)}}
	if !c.Digest.IsZero() {
		j.policy.Known.KnowAll(query)
	}
	return f, !query[0].Known
}

// atEnd is behind all entries.
const atEnd = math.MaxInt

// catchUp replays what diglim-upload added to a chain's PCR before IMA added
// entry number next, from 1. Each record says how many entries there were.
func (r *reading) catchUp(c *chain, next int) {
	for len(c.used) > 0 {
		record := &c.used[0]
		if content, said := r.usedFile(record); said && content.After >= next {
			return
		}
		c.used = c.used[1:]
		if f, ok := r.used(record); ok {
			c.open.worst = min(c.open.worst, f.Leaves)
			if r.keep(len(f.Path) + len(f.Why)) {
				c.open.findings = append(c.open.findings, f)
			} else {
				c.open.omitted.Findings++
			}
		}
		by, _ := record.Digest(r.policy.Bank)
		if c.replay != nil && c.replay.Extend(by) {
			c.prove()
		}
	}
}

// finish replays what diglim-upload added after all entries, and on PCRs that IMA
// has none for, unless the firmware's log goes before it there.
func (r *reading) finish() {
	for pcr, records := range r.added {
		if r.chains[pcr] == nil && len(records) > 0 && !slices.Contains(r.policy.Firmware, pcr) {
			r.chains[pcr] = r.newChain(pcr)
		}
		if c := r.chains[pcr]; c != nil {
			r.catchUp(c, atEnd)
		}
	}
}
