package imalog

import (
	"bytes"
	"hash"

	"diglim/internal/digest"
)

// A Replay repeats what IMA did to one PCR and remembers when it had the
// value that was quoted. Make one with NewReplay.
type Replay struct {
	hash   hash.Hash // of the bank
	quoted []byte
	ones   []byte // what a violation extends
	value  []byte // of the PCR so far
	buf    []byte
	added  int
	proven int // added when value was last quoted's, -1 if it never was
}

// NewReplay starts at zero, the value that PCRs 0 to 15 have after a reset.
// quoted is the value to arrive at; its algorithm is the bank's and must be
// Available.
func NewReplay(quoted digest.Digest) *Replay {
	size := quoted.Algorithm().Size()
	r := &Replay{
		hash:   quoted.Algorithm().Hash(),
		quoted: quoted.Bytes(),
		ones:   bytes.Repeat([]byte{0xff}, size),
		value:  make([]byte, size),
		buf:    make([]byte, 0, size),
		proven: -1,
	}
	r.look()
	return r
}

// Add extends the PCR with an entry, whichever PCR it claims: with the bank's
// hash of the template data, or for a violation with all ones (ima_queue.c,
// ima_add_template_entry).
//
// Kernels before 5.8 padded the SHA-1 hash with zeros for the other banks;
// those PCRs are not arrived at.
func (r *Replay) Add(e *Entry) {
	extend := r.ones
	if !e.Violation {
		r.hash.Reset()
		r.hash.Write(e.Data)
		extend = r.hash.Sum(r.buf)
	}
	r.hash.Reset()
	r.hash.Write(r.value)
	r.hash.Write(extend)
	r.value = r.hash.Sum(r.value[:0])
	r.added++
	r.look()
}

func (r *Replay) look() {
	if bytes.Equal(r.value, r.quoted) {
		r.proven = r.added
	}
}

// Proven is how many of the entries added the quoted value covers: the length
// of the longest prefix that arrives at it. It is false if none does. True
// with 0 entries means that the PCR was never extended.
func (r *Replay) Proven() (entries int, ok bool) {
	return max(r.proven, 0), r.proven >= 0
}
