// Package eventlog reads the log of a PC's firmware (securityfs
// tpm0/binary_bios_measurements) and replays it.
//
// The formats are those of the TCG PC Client Platform Firmware Profile: section
// 10.2.1 for TCG_PCR_EVENT, the log of SHA-1 alone, and section 10.2.2 for
// TCG_PCR_EVENT2, the crypto-agile log, which begins with a Spec ID event
// (section 10.4.5.1) in the older form. Integers are little-endian.
//
//	u32 PCR | u32 type | SHA-1 | u32 size, data
//	u32 PCR | u32 type | u32 count, count of (u16 algorithm, digest) | u32 size, data
//
// Of an event a PCR proves the digests, and nothing else: not the type, and
// the data only where it is what was hashed.
package eventlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// Limits on what a log may contain.
const (
	MaxLog        = 16 << 20 // bytes
	MaxEvents     = 1 << 16
	MaxData       = 4 << 20 // bytes of an event
	MaxAlgorithms = 16      // of the digests of an event
	maxDigest     = 128     // bytes, for algorithms that are not known
	pcrCount      = 24
	noPCR         = 0xffffffff // of events that are for no PCR
)

// ErrFull says that a log ends within an event at the size of the area that
// firmware commonly reserves for it: what came later was not logged.
var ErrFull = errors.New("the log is cut at 64 KiB, where the area reserved for it is full")

// areaSize is what the TCG ACPI specification asks firmware to reserve at
// least (section 7.1.2, log area minimum length).
const areaSize = 64 << 10

// A Log is a log as it was parsed. Nothing in it is trusted.
type Log struct {
	Size      int                // bytes
	Agile     bool               // it has a Spec ID event
	Banks     []digest.Algorithm // that the log has digests of, in its order; without those that are not known
	Events    []Event
	Locality  int      // from which the TPM was started: 0, 3 or 4
	Oddities  []Oddity // what firmware does and the specification does not have
	algorithm []algorithm
}

// An Event is one measurement, or with type NoAction a note.
type Event struct {
	Number  int   // counts from 1
	Offset  int64 // in the log
	PCR     int   // -1 for none, which only a note may have
	Type    Type
	Digests []digest.Digest // in the order of the log; one a bank at most
	Data    []byte          // aliases the log
}

// An Oddity is something that vendors do and the specification does not have.
type Oddity struct {
	Event  int // number
	Offset int64
	What   string
}

func (o Oddity) String() string {
	return fmt.Sprintf("event %d: offset %d: %s", o.Event, o.Offset, o.What)
}

// Digest returns an event's digest for a bank, and whether it has one.
func (e *Event) Digest(bank digest.Algorithm) (digest.Digest, bool) {
	for _, d := range e.Digests {
		if d.Algorithm() == bank {
			return d, true
		}
	}
	return digest.Digest{}, false
}

// Proven returns the event's data if it is what the bank's digest is of. Other
// data was not measured, and may say anything.
func (e *Event) Proven(bank digest.Algorithm) ([]byte, bool) {
	d, ok := e.Digest(bank)
	if !ok || !bank.Available() || e.Type == NoAction || digest.Sum(bank, e.Data) != d {
		return nil, false
	}
	return e.Data, true
}

// Hashed reports whether the bank's digest is that of data. What the log has in
// its place, and as the event's type, does not matter: who changed the log to
// hide an event could not change that.
func (e *Event) Hashed(bank digest.Algorithm, data []byte) bool {
	d, ok := e.Digest(bank)
	return ok && bank.Available() && e.Type != NoAction && digest.Sum(bank, data) == d
}

// Separates reports whether that is what ends what a firmware measures to a PCR:
// four bytes, all zeros or all ones. Any other four would say that it failed.
func (e *Event) Separates(bank digest.Algorithm) bool {
	return e.Hashed(bank, []byte{0, 0, 0, 0}) || e.Hashed(bank, []byte{0xff, 0xff, 0xff, 0xff})
}

// algorithm is one of those that the Spec ID event declares.
type algorithm struct {
	id   uint16
	size int
	bank digest.Algorithm // 0 if it is not known
}

// Parse reads a log. With an error, which is a *wire.Error that says which
// event and where, it returns the events before that.
//
// A crypto-agile log may be followed by padding, all zeros or all ones: that is
// an oddity. So is an event without the digest of a bank that others have.
func Parse(log []byte) (*Log, error) {
	l := &Log{Size: len(log)}
	if len(log) > MaxLog {
		return l, fmt.Errorf("firmware log of %d bytes, the limit is %d", len(log), MaxLog)
	}
	p := parser{Reader: wire.New("event 1", binary.LittleEndian, log), Log: l}
	if len(log) > 0 {
		p.first()
	}
	padding := len(log) // where it begins
	for padding > 0 && log[padding-1] == log[len(log)-1] && (log[padding-1] == 0 || log[padding-1] == 0xff) {
		padding--
	}
	for p.Len() > 0 {
		p.Record(fmt.Sprintf("event %d", p.number()))
		if int(p.Offset()) >= padding && l.Agile && p.Len() >= minEvent2 {
			p.odd(p.Offset(), fmt.Sprintf("%d bytes of padding", p.Len()))
			break
		}
		p.next()
	}
	err := p.Err()
	var at *wire.Error
	if len(log) == areaSize && errors.Is(err, wire.ErrShort) && errors.As(err, &at) {
		err = &wire.Error{Record: at.Record, Offset: at.Offset, Err: fmt.Errorf("%w: %w", ErrFull, at.Err)}
	}
	return l, err
}

type parser struct {
	*wire.Reader
	*Log
	spec    int  // events that Events does not have: the Spec ID event
	started bool // PCR 0 has been measured to, or the locality was noted
}

func (p *parser) number() int { return len(p.Events) + p.spec + 1 }

func (p *parser) odd(offset int64, what string) {
	p.Oddities = append(p.Oddities, Oddity{p.number(), offset, what})
}

const (
	minEvent2 = 16 // bytes of an event without digests and data
	specID    = "Spec ID Event03\x00"
	locality  = "StartupLocality\x00"
)

// first finds out which kind of log it is.
func (p *parser) first() {
	look := *p.Reader
	look.U32()
	kind := Type(look.U32())
	look.Bytes(digest.SHA1.Size())
	size := int(look.U32())
	if kind != NoAction || !bytes.HasPrefix(look.Bytes(size), []byte(specID)) {
		p.algorithm = []algorithm{{0, digest.SHA1.Size(), digest.SHA1}}
		p.Banks = []digest.Algorithm{digest.SHA1}
		return
	}
	p.Agile = true
	if pcr := p.U32(); pcr != 0 {
		p.odd(0, fmt.Sprintf("Spec ID event on PCR %d", pcr))
	}
	p.U32()
	if sum := p.Bytes(digest.SHA1.Size()); !zero(sum) {
		p.odd(0, "Spec ID event with a digest")
	}
	r := p.Sub("event 1", int(p.U32()))
	r.Bytes(len(specID))
	r.U32() // platform class
	r.U8()  // specification: minor version,
	r.U8()  // major version,
	r.U8()  // errata
	r.U8()  // size of UINTN
	n := r.Count("algorithms", MaxAlgorithms)
	for range n {
		at := r.Offset()
		a := algorithm{id: r.U16(), size: int(r.U16())}
		if r.Err() != nil {
			break
		}
		if slices.ContainsFunc(p.algorithm, func(b algorithm) bool { return b.id == a.id }) {
			r.FailAt(at, fmt.Errorf("algorithm %#04x twice", a.id))
		}
		bank, err := digest.ByTPM(a.id)
		switch {
		case err == nil && bank.Size() != a.size:
			r.FailAt(at, fmt.Errorf("%s digests of %d bytes, they have %d", bank, a.size, bank.Size()))
		case err == nil:
			a.bank = bank
			p.Banks = append(p.Banks, bank)
		case a.size == 0 || a.size > maxDigest:
			r.FailAt(at, fmt.Errorf("digests of %d bytes, the limit is %d", a.size, maxDigest))
		}
		p.algorithm = append(p.algorithm, a)
	}
	if n == 0 {
		r.Failf("no algorithm")
	}
	r.Bytes(int(r.U8())) // what the vendor has to say
	if err := r.Finish(); err != nil {
		var at *wire.Error
		errors.As(err, &at) // Finish returns nothing else
		p.FailAt(at.Offset, at.Err)
	}
	p.spec = 1
}

// next reads one event.
func (p *parser) next() {
	e := Event{Number: p.number(), Offset: p.Offset()}
	if e.Number > MaxEvents {
		p.Failf("more than %d events", MaxEvents)
		return
	}
	pcr := p.U32()
	e.Type = Type(p.U32())
	if p.Err() == nil && pcr >= pcrCount && !(pcr == noPCR && e.Type == NoAction) {
		p.FailAt(e.Offset, fmt.Errorf("PCR %d, the last is %d", pcr, pcrCount-1))
	}
	e.PCR = int(int32(pcr))
	if p.Agile {
		p.digests(&e)
	} else if sum := p.Bytes(digest.SHA1.Size()); sum != nil {
		d, _ := digest.New(digest.SHA1, sum) // of the right size, just read
		e.Digests = []digest.Digest{d}
	}
	e.Data = p.Bytes(p.Count("bytes of event data", MaxData))
	if p.Err() != nil {
		return
	}
	p.note(&e)
	p.Events = append(p.Events, e)
}

func (p *parser) digests(e *Event) {
	n := p.Count("digests", len(p.algorithm))
	var seen [MaxAlgorithms]bool
	if n > 0 {
		e.Digests = make([]digest.Digest, 0, n)
	}
	for range n {
		at := p.Offset()
		id := p.U16()
		i := slices.IndexFunc(p.algorithm, func(a algorithm) bool { return a.id == id })
		switch {
		case p.Err() != nil:
			return
		case i < 0:
			p.FailAt(at, fmt.Errorf("algorithm %#04x, which the Spec ID event has not", id))
			return
		case seen[i]:
			p.FailAt(at, fmt.Errorf("algorithm %#04x twice", id))
			return
		}
		seen[i] = true
		value := p.Bytes(p.algorithm[i].size)
		if value == nil || p.algorithm[i].bank == 0 {
			continue
		}
		d, _ := digest.New(p.algorithm[i].bank, value) // of the right size, as the Spec ID event was checked
		e.Digests = append(e.Digests, d)
	}
	if n < len(p.algorithm) && e.Type != NoAction {
		p.odd(e.Offset, fmt.Sprintf("%d digests of %d", n, len(p.algorithm)))
	}
}

// note looks for the locality from which the TPM was started (section
// 10.4.5.3). It is one note, and before all that is measured to PCR 0: the
// value that PCR 0 starts with does not change later.
func (p *parser) note(e *Event) {
	if e.Type != NoAction {
		p.started = p.started || e.PCR == 0
		return
	}
	if e.PCR < 0 {
		p.odd(e.Offset, "a note for no PCR")
	}
	if !bytes.HasPrefix(e.Data, []byte(locality)) {
		return
	}
	value := e.Data[len(locality):]
	late := p.started
	p.started = true
	if e.PCR != 0 || late || len(value) != 1 || value[0] != 0 && value[0] != 3 && value[0] != 4 {
		p.odd(e.Offset, "a note about the startup locality that is late, repeated or bad: not followed")
		return
	}
	p.Locality = int(value[0])
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
