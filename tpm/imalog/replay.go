package imalog

import (
	"bytes"

	"diglim/internal/digest"
)

// A Replay repeats what IMA did to one PCR and remembers when it had the
// value that was quoted. Make one with NewReplay.
type Replay struct {
	bank          digest.Algorithm
	value, quoted digest.Digest
	ones          digest.Digest // what a violation extends
	padded        bool
	added         int
	proven        int // added when value was last quoted's, -1 if it never was
}

// NewReplay starts at a value of the PCR and is to arrive at the quoted one;
// both are of one algorithm, the bank's, which must be Available.
func NewReplay(start, quoted digest.Digest) *Replay {
	bank := quoted.Algorithm()
	r := &Replay{
		bank:   bank,
		value:  start,
		quoted: quoted,
		proven: -1,
	}
	r.ones, _ = digest.New(bank, bytes.Repeat([]byte{0xff}, bank.Size()))
	r.look()
	return r
}

// Pad makes the replay that of a kernel before 5.8, which extended all banks
// with the SHA-1 hash of the template data, filled up with zeros: what such a
// PCR proves is as strong as SHA-1. It returns r.
func (r *Replay) Pad() *Replay {
	r.padded = true
	return r
}

// Zero is the value that PCRs 0 to 15 have after a reset.
func Zero(bank digest.Algorithm) digest.Digest {
	d, _ := digest.New(bank, make([]byte, bank.Size())) // the zero Digest if bank is not valid
	return d
}

// Add extends the PCR with an entry, whichever PCR it claims: with the bank's
// hash of the template data, or for a violation with all ones (ima_queue.c,
// ima_add_template_entry). It reports whether the PCR then has the quoted
// value.
func (r *Replay) Add(e *Entry) bool {
	switch {
	case e.Violation:
		r.value.Extend(&r.ones)
	case r.padded:
		value := e.hashed(digest.SHA1).Append(make([]byte, 0, digest.MaxSize))
		by, _ := digest.New(r.bank, value[:r.bank.Size()])
		r.value.Extend(&by)
	default:
		r.value.Extend(e.hashed(r.bank))
	}
	r.added++
	return r.look()
}

// Extend extends the PCR by a digest of the bank that another log has. It is no
// entry, and reports what Add does.
func (r *Replay) Extend(d digest.Digest) bool {
	r.value.Extend(&d)
	return r.look()
}

func (r *Replay) look() bool {
	if !r.value.Equal(&r.quoted) {
		return false
	}
	r.proven = r.added
	return true
}

// Value is the value of the PCR so far.
func (r *Replay) Value() digest.Digest { return r.value }

// Proven is how many of the entries added the quoted value covers: the length
// of the longest prefix that arrives at it. It is false if none does. True
// with 0 entries means that the PCR was never extended.
func (r *Replay) Proven() (entries int, ok bool) {
	return max(r.proven, 0), r.proven >= 0
}
