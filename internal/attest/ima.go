package attest

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm"
	"diglim/tpm/cel"
	"diglim/tpm/imalog"
)

// A reading is what the IMA log comes to, read and replayed in one way. The log
// is read once: what its entries come to is open until their PCR arrives at
// the quoted value, and then it is proven.
type reading struct {
	*judge
	padded  bool
	from    *Checkpoint // where the log is continued from; nil for the boot
	skip    int         // entries before that, which the log has too
	again   []int       // where in a trimmed log the checkpoint may be
	chains  [tpm.PCRCount]*chain
	entries int
	err     error  // that ended the log
	kept    int    // bytes of findings and measured files
	refused int    // entries with signatures that are not what they say
	looks   []look // of a batch
	queries []policy.Query
	// The last entry that the fleet had, or an empty one.
	recalled *goodEntry
}

// A chain is what the log says about one PCR.
type chain struct {
	replay       *imalog.Replay // nil if the PCR is not quoted
	entries      int            // in the log
	aggregate    bool           // the first of them is the boot aggregate
	forged       bool           // one of them is not what was hashed
	last         digest.Digest  // of the last proven one's data
	differs      bool           // the PCR was another when the checkpoint was made
	used         []cel.Record   // that diglim-upload added, and not replayed yet
	proven, open ledger
}

// A ledger is what entries came to.
type ledger struct {
	entries    int
	worst      Outcome // that their findings leave
	findings   []Finding
	measured   []Measured
	omitted    Omitted // Unproven are the unknown files among the findings
	violations int
	aggregate  bool // a boot aggregate is among them
	files      bool // something else is
	policy     bool // an IMA policy that is expected is
}

func (l *ledger) add(m ledger) {
	l.entries += m.entries
	l.worst = min(l.worst, m.worst)
	l.findings = join(l.findings, m.findings)
	l.measured = join(l.measured, m.measured)
	l.omitted.Findings += m.omitted.Findings
	l.omitted.Known += m.omitted.Known
	l.omitted.Unproven += m.omitted.Unproven
	l.violations += m.violations
	l.aggregate = l.aggregate || m.aggregate
	l.files = l.files || m.files
	l.policy = l.policy || m.policy
}

// join is append, but for the one that is empty.
func join[T any](a, b []T) []T {
	if len(a) == 0 {
		return b
	}
	return append(a, b...)
}

// ima judges the IMA log. In which way it is to be read does not stand in it:
// the way that arrives at the quoted value is the right one.
func (j *judge) ima(log io.ReaderAt) {
	var layouts []imalog.Layout
	var text bool
	var err error
	if log != nil {
		log, text, err = imalog.Binary(log)
	}
	if text {
		j.find(Finding{Code: TextLog, Leaves: Trusted, Why: "the log was read from text, which has lost some names and numbers; the binary one has all"})
	}
	if log != nil && err == nil {
		layouts, err = imalog.Layouts(log)
	}
	switch {
	case err != nil:
		r := j.newReading(false, nil, 0)
		r.err = err
		r.report()
		return
	case len(layouts) == 0:
		j.find(Finding{Code: Missing, Leaves: CouldNotTell, Why: "IMA log missing"})
		return
	}
	var first *reading
	for _, padded := range []bool{false, true} {
		if padded && j.policy.Bank == digest.SHA1 {
			break
		}
		for _, l := range layouts {
			r := j.newReading(padded, nil, 0)
			r.read(log, l)
			if r.arrives() {
				r.report()
				return
			}
			if first == nil || first.chains[j.policy.PCR].differs && !r.chains[j.policy.PCR].differs {
				first = r // where the log holds the checkpoint it was read rightly, as far as that
			}
			if j.pcrs == nil {
				break // there is nothing to arrive at
			}
		}
	}
	if r := j.resume(log, layouts[0], first); r != nil {
		r.report()
		return
	}
	first.report()
}

// resume reads a trimmed log from the checkpoint on, wherever that is in it. It
// is nil if that does not arrive either.
func (j *judge) resume(log io.ReaderAt, layout imalog.Layout, trimmed *reading) *reading {
	if j.last == nil || trimmed.chains[j.policy.PCR].aggregate {
		return nil
	}
	slices.Reverse(trimmed.again) // where nothing was measured since, any place arrives: the last one is right
	for _, skip := range append(trimmed.again, 0) {
		for _, padded := range []bool{false, true} {
			r := j.newReading(padded, j.last, skip)
			if r.read(log, layout); r.arrives() {
				return r
			}
		}
	}
	return nil
}

func (j *judge) newReading(padded bool, from *Checkpoint, skip int) *reading {
	r := &reading{judge: j, padded: padded, from: from, skip: skip, recalled: &goodEntry{}}
	r.chains[j.policy.PCR] = r.newChain(j.policy.PCR)
	return r
}

// maxAgain is in how many places of a trimmed log the checkpoint is looked for.
const maxAgain = 16

// read reads the log to its end, or to its first error.
func (r *reading) read(log io.ReaderAt, layout imalog.Layout) {
	for batch, err := range imalog.Batches(log, layout) {
		if err != nil {
			r.err = err
			break
		}
		r.batch(batch, layout.BigEndian)
	}
	r.finish()
}

// batch judges and replays entries.
func (r *reading) batch(batch []imalog.Entry, bigEndian bool) {
	r.look(batch, bigEndian)
	for i := range batch {
		e := &batch[i]
		c := r.chains[e.PCR]
		if c == nil {
			c = r.newChain(e.PCR)
			r.chains[e.PCR] = c
		}
		if e.PCR == r.policy.PCR && r.skip > 0 {
			r.skip--
			continue // judged when it was proven
		}
		r.catchUp(c, c.entries+1)
		r.entries++
		c.entries++
		c.open.entries++
		if c.entries == 1 {
			c.aggregate = isAggregate(e)
		}
		good := r.entry(c, e, r.looks[i])
		if c.replay == nil {
			continue
		}
		if c.replay.Add(e) {
			c.prove()
			c.last = e.Sum(r.policy.Bank)
		}
		if good != nil {
			r.fleet.remember(r, e, bigEndian, good)
		}
		if e.PCR == r.policy.PCR && r.last != nil && r.from == nil {
			r.compare(c, e)
		}
	}
}

// A look is what is known of an entry before it is judged.
type look struct {
	known      bool       // its file is in a list
	remembered *goodEntry // there is nothing to be said against it
}

// look looks a batch up, side by side.
func (r *reading) look(batch []imalog.Entry, bigEndian bool) {
	r.looks, r.queries = r.looks[:0], r.queries[:0]
	for range batch {
		r.looks = append(r.looks, look{})
	}
	r.fleet.recall(r, batch, bigEndian)
	for i := range batch {
		if e := &batch[i]; r.looks[i].remembered == nil {
			r.queries = append(r.queries, policy.Query{Digest: &e.Digest, Path: e.Path})
		}
	}
	r.policy.Known.KnowAll(r.queries)
	queries := r.queries
	for i := range batch {
		e, l := &batch[i], &r.looks[i]
		if l.remembered != nil {
			continue
		}
		l.known, queries = queries[0].Known, queries[1:]
		if e.Verity {
			l.known = r.policy.Verity.Knows(e.Digest, e.Path)
		}
	}
}

// compare looks for the checkpoint in a log that is not continued from it.
func (r *reading) compare(c *chain, e *imalog.Entry) {
	if c.entries == r.last.Entries {
		c.differs = c.replay.Value() != r.last.Value
	}
	if !c.aggregate && len(r.again) < maxAgain && e.Sum(r.policy.Bank) == r.last.Last {
		r.again = append(r.again, c.entries)
	}
}

// prove makes what was open proven: the PCR has the quoted value.
func (c *chain) prove() {
	c.proven.add(c.open)
	c.open = ledger{worst: Trusted}
}

func (r *reading) newChain(pcr int) *chain {
	c := &chain{used: r.added[pcr], proven: ledger{worst: Trusted}, open: ledger{worst: Trusted}}
	if quoted, ok := r.pcrs.Value(r.policy.Bank, pcr); ok {
		start := imalog.Zero(r.policy.Bank)
		if r.from != nil && pcr == r.policy.PCR {
			start = r.from.Value
		}
		c.replay = imalog.NewReplay(start, quoted)
		if r.padded {
			c.replay.Pad()
		}
	}
	return c
}

// arrives reports whether the PCR that files are measured to had the quoted
// value.
func (r *reading) arrives() bool {
	c := r.chains[r.policy.PCR]
	if c.replay == nil {
		return false
	}
	_, ok := c.replay.Proven()
	return ok
}

// What a finding, a measured file, and one of its sources take at most, in
// bytes, besides the text in them.
const (
	itemSize   = 256
	sourceSize = 64
)

// room reports whether there is room for one thing more, with that many bytes
// of its own.
func (r *reading) room(size int) bool { return r.kept+itemSize+size <= MaxKept }

// keep takes that room, if it is there.
func (r *reading) keep(size int) bool {
	if !r.room(size) {
		return false
	}
	r.kept += itemSize + size
	return true
}

// report makes the reading the verdict's.
func (r *reading) report() {
	v := &r.verdict
	v.Entries = r.entries
	if r.err != nil {
		r.find(Finding{Code: Malformed, Leaves: CouldNotTell, Why: "IMA log: " + r.err.Error()})
	}
	var findings []Finding
	for pcr, c := range r.chains {
		if c == nil {
			continue
		}
		r.covered(pcr, c)
		v.Proven += c.proven.entries
		v.Violations += c.proven.violations
		v.Outcome = min(v.Outcome, c.proven.worst)
		findings = slices.Grow(join(findings, c.proven.findings), len(c.open.findings))
		v.Unproven = slices.Grow(v.Unproven, len(c.open.findings))
		for _, f := range c.open.findings {
			f.Leaves, f.Unproven = Trusted, true // it decides nothing
			findings = append(findings, f)
			if f.Code.unknown() && f.Entry > 0 {
				v.Unproven = append(v.Unproven, Measured{f.Entry, f.Path, f.Digest, []policy.Source{}})
			}
		}
		v.Known = join(v.Known, c.proven.measured)
		v.Unproven = join(v.Unproven, c.open.measured)
		v.Omitted.Findings += c.proven.omitted.Findings + c.open.omitted.Findings
		v.Omitted.Known += c.proven.omitted.Known
		v.Omitted.Unproven += c.open.omitted.Known + c.open.omitted.Unproven
		// What is in the verdict now need not be held twice.
		c.proven.findings, c.open.findings, c.proven.measured, c.open.measured = nil, nil, nil, nil
	}
	slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(a.Entry, b.Entry) })
	byEntry := func(a, b Measured) int { return cmp.Compare(a.Entry, b.Entry) }
	slices.SortFunc(v.Known, byEntry)
	slices.SortFunc(v.Unproven, byEntry)
	v.Findings = join(v.Findings, findings)
	r.progress()
	c := r.chains[r.policy.PCR]
	if c.proven.entries == 0 {
		return
	}
	if r.padded {
		leaves := CouldNotTell
		if r.policy.ReportPadded {
			leaves = Trusted
		}
		r.find(Finding{Code: PaddedSHA1, Leaves: leaves, Why: fmt.Sprintf("the kernel extends the %s bank with SHA-1 and zeros: what it proves is as strong as SHA-1", r.policy.Bank)})
	}
	if r.from != nil {
		return // both were proven when the checkpoint was made
	}
	if !c.proven.aggregate {
		r.find(Finding{Code: NoAggregate, Leaves: CouldNotTell, Why: "no proven entry says what the host was booted with"})
	}
	if !c.proven.files && !r.foreseen() {
		r.find(Finding{Code: NothingMeasured, Leaves: CouldNotTell, Why: "no proven entry is about a file: IMA has no policy that measures"})
	}
	if len(r.policy.IMAPolicy) > 0 && !c.proven.policy {
		r.find(Finding{Code: NoIMAPolicy, Leaves: CouldNotTell, Why: "no proven entry has an IMA policy that is expected"})
	}
}

// foreseen reports whether files are proven on another PCR that has a value which
// the policy expects: lists, of a host that measures nothing else.
func (r *reading) foreseen() bool {
	for pcr, c := range r.chains {
		if c != nil && c.proven.files && r.expectation(pcr) != nil {
			return true
		}
	}
	return false
}

// progress compares what is proven with the checkpoint, and makes the next. A
// kernel extends the PCR when it logs an entry: what was in the log when it was
// last read is proven by every later quote.
func (r *reading) progress() {
	c := r.chains[r.policy.PCR]
	if !r.arrives() {
		return
	}
	next := Checkpoint{AK: r.ak, PCR: r.policy.PCR, Resets: r.verdict.Resets, Entries: c.proven.entries, Seen: c.entries, Last: c.last}
	next.Value, _ = r.pcrs.Value(r.policy.Bank, r.policy.PCR)
	if r.from != nil {
		next.Entries += r.from.Entries
		next.Seen += r.from.Entries
		if c.proven.entries == 0 {
			next.Last = r.from.Last
		}
		r.find(Finding{Code: Continued, Leaves: Trusted, Why: fmt.Sprintf("the log was trimmed, and continues what was proven before, up to entry %d of the boot", r.from.Entries)})
	}
	r.next = &next
	switch last := r.last; {
	case last == nil:
	case c.differs || next.Entries < last.Entries:
		r.find(Finding{Code: NotTheLast, Leaves: NotTrusted, Expected: last.Value,
			Why: fmt.Sprintf("the log is not the one that was proven before: PCR %d had another value after %d entries of the same boot", r.policy.PCR, last.Entries)})
	case next.Entries < last.Seen:
		r.find(Finding{Code: NotProgressed, Leaves: NotTrusted,
			Why: fmt.Sprintf("the log had %d entries when it was last read, and the quote still proves no more than %d", last.Seen, next.Entries)})
	}
}

// covered says what came of replaying a PCR. A log that is not whole may lack
// the entries that would have arrived at the quoted value.
func (r *reading) covered(pcr int, c *chain) {
	if pcr != r.policy.PCR {
		why := fmt.Sprintf("entries on PCR %d, not %d: %d", pcr, r.policy.PCR, c.entries)
		if c.entries == 0 {
			why = fmt.Sprintf("no entries on PCR %d, but records of diglim's log", pcr)
		}
		r.find(Finding{Code: SecondPCR, Leaves: Trusted, Why: why})
	}
	if r.pcrs == nil {
		return // the quote's finding says it all
	}
	if c.replay == nil {
		r.find(Finding{Code: PCRNotQuoted, Leaves: CouldNotTell, Why: fmt.Sprintf("PCR %d of the %s bank is not quoted", pcr, r.policy.Bank)})
		return
	}
	quoted, _ := r.pcrs.Value(r.policy.Bank, pcr)
	proven, ok := c.replay.Proven()
	state := c.state(pcr == r.policy.PCR, ok, r.last)
	if pcr == r.policy.PCR && (ok || r.err == nil) {
		r.verdict.Log = state
	}
	switch {
	case !ok && r.err == nil:
		r.find(Finding{Code: DoesNotReplay, Leaves: NotTrusted, Expected: quoted,
			Why: fmt.Sprintf("none of the log's %d entries on PCR %d arrives at the quoted value: %s", c.entries, pcr, state.why())})
	case ok && proven == 0 && pcr == r.policy.PCR && r.from == nil:
		r.find(Finding{Code: NotExtended, Leaves: NotTrusted, Expected: quoted,
			Why: fmt.Sprintf("PCR %d was never extended: nothing was measured", pcr)})
	}
}

// state is the word for a log, of which one PCR's entries are looked at.
// last, if it is not nil, is how far an earlier log arrived.
func (c *chain) state(first, arrives bool, last *Checkpoint) LogState {
	switch {
	case arrives && c.open.entries == 0:
		return UpToQuote
	case arrives:
		return AheadOfQuote
	case c.forged, first && c.aggregate && last != nil && c.differs:
		return Tampered
	case first && !c.aggregate:
		return Trimmed
	}
	return BehindQuote
}
