package attest

import (
	"fmt"

	"diglim/internal/policy"
	"diglim/tpm/eventlog"
)

const (
	platformPCRs  = 8 // PCRs 0 to 7 are the firmware's, and each has its separator
	secureBootPCR = 7

	// nearlyFull is a size in bytes, up to which a log may have been cut between
	// two events because the 64 KiB reserved for it were full.
	nearlyFull = 60 << 10
	full       = 64 << 10
)

// firmware compares every PCR that the policy names with what the firmware's
// log makes of it, whether the log has events for it or not, and what the logs of
// the running system add.
//
// That a log replays says that it is the log of this boot, not that it was the
// right boot: whoever extends a PCR can write that into the log. What an event
// is called decides nothing; its data counts where it is what was hashed.
func (j *judge) firmware(ev Evidence) {
	if len(j.policy.Firmware) == 0 {
		return
	}
	if len(ev.Firmware) == 0 {
		j.find(Finding{Code: Missing, Leaves: CouldNotTell, Why: "firmware log missing"})
		return
	}
	l, err := eventlog.Parse(ev.Firmware)
	if err != nil {
		j.find(Finding{Code: Malformed, Leaves: CouldNotTell, Why: "firmware log: " + err.Error()})
	}
	registers, ok := l.Replay(j.policy.Bank)
	if !ok {
		j.find(Finding{Code: FirmwareBank, Leaves: CouldNotTell, Why: fmt.Sprintf("the firmware log has no %s digests", j.policy.Bank)})
		return
	}
	later, errLater := j.later(ev)
	if j.pcrs == nil {
		return // the quote's finding says it all
	}
	var explained [len(eventlog.Registers{})]bool
	for _, pcr := range j.policy.Firmware {
		r := registers[pcr]
		quoted, ok := j.pcrs.Value(j.policy.Bank, pcr)
		records, arrives := later.arrive(pcr, r.Value, quoted)
		switch {
		case !ok:
			j.find(Finding{Code: PCRNotQuoted, Leaves: CouldNotTell, Why: fmt.Sprintf("PCR %d of the %s bank is not quoted", pcr, j.policy.Bank)})
		case pcr < platformPCRs && quoted == r.Start:
			j.find(Finding{Code: NotExtended, Leaves: NotTrusted, Digest: quoted, Why: fmt.Sprintf("PCR %d was never extended: no firmware measured the boot", pcr)})
		case arrives:
			explained[pcr] = true
			j.verdict.Firmware = append(j.verdict.Firmware, Register{PCR: pcr, Value: quoted, Events: r.Events, Records: len(records)})
			j.records(pcr, records)
		case err != nil || errLater != nil: // a log that is not whole may lack what arrives at the value
		case len(later[pcr]) > 0:
			why := fmt.Sprintf("the firmware log's %d events on PCR %d make another value than the quoted one, and so do the %d records of the system's logs after them", r.Events, pcr, len(later[pcr]))
			j.find(Finding{Code: SystemLogDiffers, Leaves: NotTrusted, Digest: r.Value, Expected: quoted, Why: why})
		default:
			why := fmt.Sprintf("the firmware log's %d events on PCR %d make another value than the quoted one", r.Events, pcr)
			if l.Size > nearlyFull && l.Size <= full {
				why += "; it is nearly 64 KiB, where many firmwares stop to log"
			}
			j.find(Finding{Code: FirmwareDiffers, Leaves: NotTrusted, Digest: r.Value, Expected: quoted, Why: why})
		}
	}
	j.events(l, explained[:])
	if j.policy.SecureBoot && explained[secureBootPCR] {
		j.secureBoot(l)
	}
	j.started(l, explained[:])
	j.commandLine(l, explained[:])
	j.grub(l, explained[:])
}

// maxUnknown is how many kinds of unknown events, by PCR and type, are found.
const maxUnknown = 64

// events looks for what does not belong into the PCRs that are explained. Of
// each kind the first of a PCR is found, of unknown events the first of a type
// too. Such an event proves nothing against a host: vendors have their own. But
// what it was, only who knows the vendor can tell.
func (j *judge) events(l *eventlog.Log, explained []bool) {
	unknown := map[policy.Event]bool{}
	denied := 0
	var separated, late [platformPCRs]bool
	booted := false
	for i := range l.Events {
		e := &l.Events[i]
		if e.Type == eventlog.NoAction || e.PCR < 0 || !explained[e.PCR] {
			continue
		}
		if text, ok := e.Text(j.policy.Bank); ok && e.PCR >= platformPCRs {
			j.state(Statement{PCR: e.PCR, Event: e.Number, Text: text})
		}
		found := func(code Code, leaves Outcome, why string) {
			d, _ := e.Digest(j.policy.Bank)
			j.find(Finding{Code: code, Leaves: leaves, Event: e.Number, Digest: d, Why: fmt.Sprintf("event %d, %s on PCR %d, %s", e.Number, e.Type, e.PCR, why)})
		}
		if kind := (policy.Event{PCR: e.PCR, Type: e.Type}); !e.Type.Known() && !unknown[kind] {
			reason, allowed := j.policy.Events[kind]
			switch {
			case allowed:
				unknown[kind] = true
				found(UnknownEvent, Trusted, "is of no type that the specification has; the policy lets it pass: "+reason)
			case denied < maxUnknown: // one is as bad as all
				unknown[kind] = true
				denied++
				found(UnknownEvent, CouldNotTell, "is of no type that the specification has")
			}
		}
		if e.PCR >= platformPCRs {
			continue // the system's own
		}
		separator := e.Separates(j.policy.Bank)
		switch {
		case late[e.PCR]:
		case booted:
			late[e.PCR] = true
			found(LateEvent, NotTrusted, "comes after the firmware handed over to the system")
		case separated[e.PCR] && onlyBefore[e.PCR] && !separator:
			late[e.PCR] = true
			found(LateEvent, NotTrusted, "comes after the separator, which ends what the firmware measures")
		}
		separated[e.PCR] = separated[e.PCR] || separator
		booted = booted || e.Hashed(j.policy.Bank, []byte("Exit Boot Services Returned with Success"))
	}
}

// onlyBefore are the PCRs to which nothing is measured after their separator.
// (The specification says so of PCR 1 too, and most firmwares do otherwise.)
var onlyBefore = [platformPCRs]bool{0: true, 2: true, 3: true, 6: true}

// secureBoot wants exactly one word about Secure Boot, and that it is on.
func (j *judge) secureBoot(l *eventlog.Log) {
	switch on, err := l.SecureBoot(j.policy.Bank); {
	case err != nil:
		j.find(Finding{Code: SecureBootState, Leaves: CouldNotTell, Why: err.Error()})
	case !on:
		j.find(Finding{Code: NoSecureBoot, Leaves: NotTrusted, Why: "Secure Boot was off"})
	}
}
