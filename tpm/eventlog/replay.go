package eventlog

import (
	"bytes"
	"slices"

	"diglim/internal/digest"
)

// A Register is what a log makes of one PCR.
type Register struct {
	Start, Value digest.Digest
	Events       int // that extended it
}

// Registers are all PCRs of a bank.
type Registers [pcrCount]Register

// Start is the value of a PCR after a reset that was no dynamic launch (PC
// Client Platform TPM Profile, section 4.6.2): PCRs 17 to 22 have all ones,
// PCR 0 has the locality from which the TPM was started in its last byte, the
// others are zero. bank must be valid.
func Start(bank digest.Algorithm, pcr, locality int) digest.Digest {
	value := make([]byte, bank.Size())
	switch {
	case pcr >= 17 && pcr <= 22:
		value = bytes.Repeat([]byte{0xff}, bank.Size())
	case pcr == 0:
		value[len(value)-1] = byte(locality)
	}
	d, _ := digest.New(bank, value) // of the bank's size
	return d
}

// Replay returns what every PCR of a bank comes to, those without events too.
// It is false if the log has no such bank, or the program cannot compute it.
//
// An event without a digest for the bank does not extend it.
func (l *Log) Replay(bank digest.Algorithm) (registers Registers, ok bool) {
	if !bank.Available() || !slices.Contains(l.Banks, bank) {
		return registers, false
	}
	for i := range registers {
		registers[i].Start = Start(bank, i, l.Locality)
		registers[i].Value = registers[i].Start
	}
	buf := make([]byte, 0, 2*bank.Size())
	for i := range l.Events {
		e := &l.Events[i]
		d, ok := e.Digest(bank)
		if e.Type == NoAction || !ok {
			continue
		}
		r := &registers[e.PCR]
		buf = d.Append(r.Value.Append(buf[:0]))
		r.Value = digest.Sum(bank, buf)
		r.Events++
	}
	return registers, true
}
