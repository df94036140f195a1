package attest

import (
	"sync"

	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm/imalog"
)

// A Fleet judges hosts by one policy, as Judge does, and remembers which entries
// it found nothing to say against: hosts of one kind have mostly the same, and
// then neither their hashes are made again, nor is their file looked up, nor a
// signature verified. An entry is the same only if all of its data is. It is
// safe for concurrent use. The policy must stay as it is.
type Fleet struct {
	policy *policy.Policy

	mu   sync.RWMutex
	good map[entryKey]*goodEntry
	size int // bytes, as remember counts them
}

// MaxRemembered is how much a Fleet remembers, in bytes. When it is more, all of
// it is forgotten.
const MaxRemembered = 64 << 20

// NewFleet makes a Fleet that remembers nothing yet.
func NewFleet(pol *policy.Policy) *Fleet {
	return &Fleet{policy: pol, good: map[entryKey]*goodEntry{}}
}

// Judge is the verdict that the function Judge would give.
func (f *Fleet) Judge(ev Evidence, ch Challenge) Verdict { return judgeHost(ev, ch, f.policy, f) }

// An entryKey is all that what an entry says depends on.
type entryKey struct {
	template  string
	bigEndian bool
	data      string
}

// A goodEntry is what is known of an entry that is about a known file.
type goodEntry struct {
	entryKey
	hash    digest.Digest // of the data, as wide as in the log that it was in
	sum     digest.Digest // of the data, by the bank's algorithm
	path    Path
	sources []policy.Source
	next    *goodEntry // that came after it: hosts of one kind mostly have them in the same order
}

// is reports whether it is all of that entry.
func (g *goodEntry) is(e *imalog.Entry, bigEndian bool) bool {
	return g != nil && g.data == string(e.Data) && g.template == e.Template && g.bigEndian == bigEndian
}

// recall notes what is remembered of entries. A nil Fleet remembers nothing.
func (f *Fleet) recall(r *reading, batch []imalog.Entry, bigEndian bool) {
	if f == nil {
		return
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	for i := range batch {
		e := &batch[i]
		g := r.recalled.next
		if !g.is(e, bigEndian) {
			g = f.good[entryKey{e.Template, bigEndian, string(e.Data)}]
		}
		if g == nil {
			continue
		}
		r.recalled = g
		if g.hash.Equal(&e.Hash) { // not so in a violation, or a log of another width
			r.looks[i].remembered = g
		}
	}
}

// remember notes that there is nothing to be said against an entry.
func (f *Fleet) remember(r *reading, e *imalog.Entry, bigEndian bool, sources []policy.Source) {
	if f == nil {
		return
	}
	const fixed = 512 // bytes of key, value and sources, about
	g := &goodEntry{
		entryKey: entryKey{e.Template, bigEndian, string(e.Data)},
		hash:     e.Hash,
		sum:      e.Sum(r.policy.Bank),
		path:     Path(e.Path),
		sources:  sources,
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.size > MaxRemembered {
		clear(f.good)
		f.size = 0
	}
	f.size += fixed + len(e.Data) + len(e.Path)
	f.good[g.entryKey] = g
	if r.recalled.next == nil {
		r.recalled.next = g
	}
	r.recalled = g
}
