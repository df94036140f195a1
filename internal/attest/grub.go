package attest

import (
	"bytes"
	"fmt"
	"path"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm/eventlog"
)

// grub wants everything that GRUB measured to be what the policy lets it do: what it
// was told (PCR 8), and what it read (PCR 9).
//
// GRUB measures all of it before the kernel starts. Who takes the system over later
// can measure more, and can take nothing away: so every event counts, and what is
// not known once was not known at all. That it was GRUB which started the kernel
// PCR 4 shows, and that nothing was added later the boot aggregate.
func (j *judge) grub(l *eventlog.Log, explained []bool) {
	if len(j.policy.GRUB) == 0 || !explained[policy.CommandPCR] || !explained[policy.FilePCR] {
		return
	}
	j.read(l, j.told(l))
}

// isOfGRUB reports whether a PCR is one to which the policy has GRUB measure.
func (j *judge) isOfGRUB(pcr int) bool {
	return len(j.policy.GRUB) > 0 && (pcr == policy.CommandPCR || pcr == policy.FilePCR)
}

// told judges what GRUB was told, and returns the digests by which a kernel measures
// such a text, if it is its command line.
func (j *judge) told(l *eventlog.Log) map[digest.Digest]string {
	lines := map[digest.Digest]string{}
	events, unknown := 0, 0
	for i := range l.Events {
		e := &l.Events[i]
		if e.PCR != policy.CommandPCR || e.Type == eventlog.NoAction {
			continue
		}
		events++
		measured, ok := e.Measured(j.policy.Bank)
		text := string(bytes.TrimSuffix(measured, []byte{0}))
		if ok && j.policy.Commands.Has(text) {
			for _, d := range eventlog.MeasuredByGRUB(j.policy.Bank, text) {
				lines[d] = text
			}
			continue
		}
		why := fmt.Sprintf("GRUB was told what the policy does not have: %.200q", text)
		if !ok {
			why = "GRUB was told something else than its log says"
		}
		if unknown++; unknown <= maxUnknown { // one is as bad as all
			d, _ := e.Digest(j.policy.Bank)
			j.find(Finding{Code: OtherCommand, Leaves: NotTrusted, Event: e.Number, Digest: d, Why: why})
		}
	}
	if events == 0 {
		j.find(Finding{Code: GRUBUnclear, Leaves: CouldNotTell, Why: fmt.Sprintf("GRUB measured nothing that it was told to PCR %d", policy.CommandPCR)})
	}
	return lines
}

// read judges what GRUB read. A kernel whose EFI stub measures its command line,
// which has to be one of lines, and its initramfs does so after that.
//
// GRUB starts the last kernel that it read. What it reads after that it gives to the
// kernel, which goes on without an initramfs if that is none: so only initramfs of
// the policy may come there, and one has to if it has any.
func (j *judge) read(l *eventlog.Log, lines map[digest.Digest]string) {
	var events []*eventlog.Event
	files := map[digest.Digest]bootFile{} // a log may have a digest often, and a digest many sources
	kernel, unknown := -1, 0
	for i := range l.Events {
		e := &l.Events[i]
		if e.PCR != policy.FilePCR || e.Type == eventlog.NoAction {
			continue
		}
		d, _ := e.Digest(j.policy.Bank)
		if _, seen := files[d]; !seen {
			files[d] = j.bootFile(d)
		}
		if files[d].kernel {
			kernel = len(events)
		}
		events = append(events, e)
	}
	given := false // an initramfs to the kernel
	for i, e := range events {
		d, _ := e.Digest(j.policy.Bank)
		initrd, isInitrd := j.policy.Initrds[d]
		line, isLine := lines[d]
		last := kernel >= 0 && i > kernel
		found := Finding{Leaves: NotTrusted, Event: e.Number, Digest: d}
		switch file, denied := j.policy.Denied[d]; {
		case denied:
			found.Code, found.Why = DeniedFile, "GRUB read a file that the policy denies: "+file
		case isInitrd:
			given = given || last
			j.state(Statement{PCR: e.PCR, Event: e.Number, Text: initrd})
			continue
		case isLine:
			j.state(Statement{PCR: e.PCR, Event: e.Number, Text: line})
			continue
		case last:
			given = true // with a finding
			found.Code, found.Why = OtherInitrd, "what GRUB read after the kernel is no initramfs that the policy has"
		case files[d].known:
			j.state(Statement{PCR: e.PCR, Event: e.Number, Text: files[d].name})
			continue
		default:
			found.Code, found.Why = OtherBootFile, "GRUB read a file that is in no list and that the policy does not have"
		}
		if unknown++; unknown <= maxUnknown { // one is as bad as all
			j.find(found)
		}
	}
	switch {
	case unknown > 0 && kernel < 0: // it may be among these
	case kernel < 0:
		j.find(Finding{Code: GRUBUnclear, Leaves: CouldNotTell, Why: fmt.Sprintf("no event on PCR %d is of a kernel", policy.FilePCR)})
	case !given && len(j.policy.Initrds) > 0:
		j.find(Finding{Code: OtherInitrd, Leaves: NotTrusted, Why: "GRUB read no initramfs after the kernel"})
	}
}

// A bootFile is what is known of a file that GRUB read. What GRUB calls it nothing
// proves.
type bootFile struct {
	known, kernel bool
	name          string
}

// bootFile looks a file up. A kernel is one of the policy, or a file that a list calls
// vmlinuz, which is the word of who signed the list. What is known at one path only
// is not known.
func (j *judge) bootFile(d digest.Digest) bootFile {
	if name, ok := j.policy.Kernels[d]; ok {
		return bootFile{true, true, name}
	}
	f := bootFile{}
	for _, s := range j.policy.Known.Find(d) {
		kernel := strings.HasPrefix(path.Base(s.Path), "vmlinuz")
		if !s.There && (!f.known || kernel && !f.kernel) {
			f = bootFile{true, kernel, named(s)}
		}
	}
	return f
}

// named is a source in a few words.
func named(s policy.Source) string {
	switch {
	case s.Reason != "":
		return s.Reason
	case s.Package != "":
		return s.Path + " of " + s.Package
	}
	return s.Path
}
