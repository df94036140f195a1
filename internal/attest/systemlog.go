package attest

import (
	"errors"
	"fmt"

	"diglim/internal/digest"
	"diglim/tpm/cel"
	"diglim/tpm/eventlog"
)

// A Statement is what an event or a record on a PCR that the logs explain says.
// Its hash is what the PCR was extended with.
type Statement struct {
	PCR    int    `json:"pcr"`
	Event  int    `json:"event,omitempty"`  // of the firmware's log
	Record int    `json:"record,omitempty"` // of systemd's log, or of diglim's
	Text   string `json:"text"`
}

// maxStated and maxStatement bound what a verdict repeats of logs: statements,
// and bytes of one.
const (
	maxStated    = 256
	maxStatement = 4 << 10
)

func (j *judge) state(s Statement) {
	if len(j.verdict.Stated) < maxStated && len(s.Text) <= maxStatement {
		j.verdict.Stated = append(j.verdict.Stated, s)
	}
}

// laterRecords are what the running system measured to each PCR, in order.
type laterRecords [len(eventlog.Registers{})][]cel.Record

// systemLog reads a log of the running system. What is wrong with it is found.
func (j *judge) systemLog(name string, log []byte) (records laterRecords, err error) {
	all, err := cel.Parse(log)
	if err != nil {
		j.find(Finding{Code: Malformed, Leaves: CouldNotTell, Why: name + ": " + err.Error()})
	}
	for _, r := range all {
		if _, ok := r.Digest(j.policy.Bank); ok && r.PCR >= 0 {
			records[r.PCR] = append(records[r.PCR], r)
		}
	}
	return records, err
}

// later are the records of both logs. Nothing says in which order those about one
// PCR were made: systemd's are taken for the first.
func (j *judge) later(ev Evidence) (records laterRecords, err error) {
	records, err = j.systemLog("systemd's log", ev.Systemd)
	for pcr, added := range j.added {
		records[pcr] = append(records[pcr], added...)
	}
	return records, errors.Join(err, j.addedErr)
}

// arrive returns the records that lead from a value of a PCR to the quoted one,
// and whether any do. Those after them were measured after the quote.
func (l *laterRecords) arrive(pcr int, value, quoted digest.Digest) ([]cel.Record, bool) {
	for i := range l[pcr] {
		if value == quoted {
			return l[pcr][:i], true
		}
		by, _ := l[pcr][i].Digest(value.Algorithm()) // later takes no others
		value = digest.Sum(value.Algorithm(), value.Bytes(), by.Bytes())
	}
	return l[pcr], value == quoted
}

// separator is what systemd ends the firmware's part of a PCR with.
const separator = "os-separator"

// records judges what the running system measured to a PCR that is explained. To
// those of the firmware, and of GRUB, it has nothing to add but systemd's separator,
// once: else whoever extends one by hand could write a record of it, and what GRUB
// measured could be hidden among the records.
func (j *judge) records(pcr int, records []cel.Record) {
	separated := false
	unknown := 0
	for i, r := range records {
		text, proven := r.Text(j.policy.Bank)
		if proven {
			j.state(Statement{PCR: pcr, Record: r.Number, Text: text})
		}
		if pcr >= platformPCRs && !j.isOfGRUB(pcr) {
			if f, ok := j.used(&records[i]); ok && r.Type == cel.Diglim && unknown < maxUnknown { // one is as bad as all
				unknown++
				j.find(f)
			}
			continue
		}
		if !proven || text != separator || separated {
			d, _ := r.Digest(j.policy.Bank)
			j.find(Finding{Code: LateEvent, Leaves: NotTrusted, Digest: d,
				Why: fmt.Sprintf("record %d of the running system's log extends PCR %d, which is the firmware's or the boot loader's", r.Number, pcr)})
			return
		}
		separated = true
	}
}
