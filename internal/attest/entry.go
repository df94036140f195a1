package attest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm"
	"diglim/tpm/imalog"
)

// entry judges one entry. Whether it is proven is open yet. If there is nothing
// to be said against it, whatever else is in the log, and it is not remembered
// yet, it returns by which sources its file is known.
func (r *reading) entry(c *chain, e *imalog.Entry, l look) (good []policy.Source) {
	if g := l.remembered; g != nil {
		e.Recall(g.sum)
		c.open.files = true
		r.list(c, Measured{e.Number, g.path, e.Digest, g.sources})
		return nil
	}
	clean := true
	found := func(code Code, leaves Outcome, expected digest.Digest, why string) {
		clean = false
		c.open.worst = min(c.open.worst, leaves)
		if !r.keep(len(e.Path) + len(why)) {
			c.open.omitted.Findings++
			if code.unknown() {
				c.open.omitted.Unproven++
			}
			return
		}
		c.open.findings = append(c.open.findings, Finding{Code: code, Leaves: leaves, Entry: e.Number,
			Path: Path(e.Path), Digest: e.Digest, Expected: expected, Why: why})
	}
	none := digest.Digest{}
	understood := e.Known && !e.Digest.IsZero() && len(e.Path) > 0 && digestFirst(e.Template)
	if !understood {
		found(UnknownTemplate, CouldNotTell, none, fmt.Sprintf("template %s is not understood", e.Template))
	}
	if e.Violation {
		leaves := NotTrusted
		if r.policy.ReportViolations {
			leaves = Trusted
		}
		c.open.violations++
		found(Violation, leaves, none, "the file was written while it was measured; no PCR covers the path")
		if understood && e.Digest != imalog.Zero(e.Digest.Algorithm()) {
			c.forged = true
			found(ViolationData, NotTrusted, none, "a violation has no digest, this one was given one")
		}
		return nil
	}
	if !e.Authentic(r.policy.Bank) {
		c.forged = true
		found(WrongHash, NotTrusted, e.Sum(e.Hash.Algorithm()), "the template hash is not that of the template data")
	}
	if !understood {
		return nil
	}
	if isAggregate(e) {
		c.open.aggregate = true
		switch want, ok := r.bootAggregate(e.Digest.Algorithm()); {
		case r.pcrs == nil: // the quote's finding says it all
		case len(r.policy.GRUB) > 0 && e.Digest.Algorithm() == digest.SHA1:
			found(NoAggregatePCRs, CouldNotTell, none, "it is of PCRs 0 to 7 alone, so that nothing shows what was added later to PCRs 8 and 9, where GRUB measures")
		case !ok:
			found(NoAggregatePCRs, CouldNotTell, none, fmt.Sprintf("the PCRs that it was made of are not quoted in the %s bank", e.Digest.Algorithm()))
		case want != e.Digest:
			found(WrongAggregate, NotTrusted, want, "the quoted PCRs make another boot aggregate")
		}
		return nil
	}
	c.open.files = true
	if reason, denied := r.policy.Denied[e.Digest]; denied {
		found(DeniedFile, NotTrusted, none, "denied by the policy: "+reason)
	}
	if len(r.policy.IMAPolicy) > 0 {
		expected := r.policy.IMAPolicy[e.Digest] && !e.Verity
		if !expected && isPolicyEvent(e) {
			found(WrongIMAPolicy, NotTrusted, none, "IMA was given a policy that is none of those expected")
			return nil
		}
		c.open.policy = c.open.policy || expected
	}
	var sources []policy.Source
	if !l.known {
		sources = r.vouched(e)
	}
	if l.known || sources != nil {
		sources = r.know(c, e, sources)
		if !clean || r.policy.IMAPolicy[e.Digest] {
			return nil
		}
		return sources
	}
	if sources = r.predicted(c, e.PCR); sources != nil {
		r.know(c, e, sources)
		return nil // of another PCR, or after this value, it would not be
	}
	code, why := r.unknown(e)
	leaves := NotTrusted
	if r.policy.ReportUnknown {
		leaves = Trusted
	}
	found(code, leaves, none, why)
	return nil
}

// predicted is why the entries of a chain are known that lead to its quoted value:
// it is one that the policy expects, which says what all of them are. What comes
// after it is another matter. It is nil if it is not so.
func (r *reading) predicted(c *chain, pcr int) []policy.Source {
	x := r.expectation(pcr)
	if x == nil {
		return nil
	}
	if _, arrived := c.replay.Proven(); arrived {
		return nil
	}
	return []policy.Source{{Reason: cmp.Or(x.Reason, "the policy expects this value of "+x.PCR.String())}}
}

// expectation is the policy's for the quoted value of a PCR, in the bank that
// decides; nil if it has none.
func (j *judge) expectation(pcr int) *policy.Expectation {
	quoted, ok := j.pcrs.Value(j.policy.Bank, pcr)
	if !ok {
		return nil
	}
	for i, x := range j.policy.Expected {
		if x.PCR == (tpm.PCR{Bank: j.policy.Bank, Index: pcr}) && slices.Contains(x.Values, quoted) {
			return &j.policy.Expected[i]
		}
	}
	return nil
}

// digestFirst reports whether the fields of a template begin with the digest of
// the file, as those of all that the kernel has do. No hash covers the name of a
// template: by another name, what somebody put into a buffer, an attribute or an
// appended signature would be read as the digest.
func digestFirst(template string) bool {
	first, _, custom := strings.Cut(template, "|")
	return !custom || slices.Contains([]string{"d", "d-ng", "d-ngv2"}, first)
}

// know notes that the file of an entry is known, by these sources; if there are
// none, by those in the lists. It returns them, or none if there is no room.
func (r *reading) know(c *chain, e *imalog.Entry, sources []policy.Source) []policy.Source {
	files := &r.policy.Known
	if e.Verity {
		files = &r.policy.Verity
	}
	// Most of a large log finds no room, and its sources are not asked for.
	if !r.room(len(e.Path) + sourceSize) {
		c.open.omitted.Known++
		return nil
	}
	if sources == nil {
		sources = files.Some(e.Digest, e.Path, MaxSources)
	}
	if !r.list(c, Measured{e.Number, Path(e.Path), e.Digest, sources}) {
		return nil
	}
	return sources
}

// list adds a known file to those of the verdict, if there is room.
func (r *reading) list(c *chain, m Measured) bool {
	if !r.keep(len(m.Path) + len(m.Sources)*sourceSize) {
		c.open.omitted.Known++
		return false
	}
	if known := c.open.measured; len(known) == cap(known) {
		c.open.measured = slices.Grow(known, len(known)+1) // append alone grows by a quarter, and copies all time and again
	}
	c.open.measured = append(c.open.measured, m)
	return true
}

// vouched is by whose signature the file of an entry is known, or whose key it
// is. It is nil if it is nobody's.
func (r *reading) vouched(e *imalog.Entry) []policy.Source {
	if s := r.signer(e); s != nil {
		return []policy.Source{{Signer: s.Name}}
	}
	if s := r.keyOf(loadedKey(e)); s != nil {
		return []policy.Source{{Signer: s.Name, Reason: "a signing key of the policy"}}
	}
	return nil
}

// unknown says what is known of an unknown file.
func (r *reading) unknown(e *imalog.Entry) (Code, string) {
	if cert := loadedKey(e); cert != nil {
		return UnknownKey, fmt.Sprintf("the key of %q, which the policy does not have, was loaded into this keyring", cert.Subject)
	}
	why := "in no list"
	if e.Verity {
		why = "its fs-verity digest is in no list of such digests"
	}
	if e.Template == "ima-buf" && isListEvent(string(e.Path)) {
		why = "it is called a digest list that a kernel was asked to take or drop, and is none that is believed; refused ones are logged too"
	}
	return UnknownFile, why + r.whose(e)
}

// isPolicyEvent reports whether a kernel measured its IMA policy as it stands
// (critical data, ima_measure_loaded_policy in ima_policy.c). A policy that was
// read from a file is a file in the log, and nothing says what it was read for.
func isPolicyEvent(e *imalog.Entry) bool {
	return e.Template == "ima-buf" && strings.HasPrefix(string(e.Path), "ima_policy")
}

// isListEvent reports whether DIGLIM calls what it measures so (critical data,
// security/integrity/diglim/fs.c).
func isListEvent(name string) bool {
	return slices.ContainsFunc([]string{"add_file_", "add_buffer_", "del_file_", "del_buffer_"}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
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
