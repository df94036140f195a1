package attest

import (
	"bytes"
	"fmt"
	"slices"

	"diglim/internal/policy"
	"diglim/internal/uki"
	"diglim/tpm"
	"diglim/tpm/eventlog"
)

// A Booted is the unified kernel image that PCR 11 shows was started.
type Booted struct {
	Image  string   `json:"image"`  // name in the policy
	Phases []string `json:"phases"` // of the boot, that systemd measured since
}

// image wants PCR 11 to have a value that one of the policy's images makes, with
// systemd's phases of the boot after it. No log takes part: the value is
// predicted from the image alone.
func (j *judge) image() {
	if len(j.policy.Images) == 0 {
		return
	}
	p := tpm.PCR{Bank: j.policy.Bank, Index: uki.PCR}
	quoted, ok := j.pcrs.Value(p.Bank, p.Index)
	if !ok {
		j.find(Finding{Code: PCRNotQuoted, Leaves: CouldNotTell, Why: p.String() + " is not quoted"})
		return
	}
	for _, image := range j.policy.Images {
		for _, value := range image.Values {
			for phases, value := range uki.Phases(value) {
				if value == quoted {
					j.verdict.Booted = &Booted{Image: image.Name, Phases: append([]string{}, phases...)}
					return
				}
			}
		}
	}
	j.find(Finding{Code: UnexpectedImage, Leaves: NotTrusted, Digest: quoted,
		Why: p.String() + " has no value that a kernel image of the policy makes, in any phase of the boot"})
}

// actions are what a firmware says on PCR 4 besides what it starts (PC Client
// Platform Firmware Profile, section 10.4.4).
var actions = []string{"Calling EFI Application from Boot Option", "Returning from EFI Application from Boot Option", "BOOT ATTEMPTS OMITTED"}

// started wants everything that the firmware's log says was started to be what the
// policy names, if it names any, and one of these to be there. Every event on PCR
// 4 counts, whatever it is called and wherever it stands: what once was started,
// has been measured, and nothing takes that away again.
//
// A kernel that GRUB is to start comes after GRUB and nothing else: what else starts
// it can give it any command line, and measures it nowhere.
func (j *judge) started(l *eventlog.Log, explained []bool) {
	if len(j.policy.Started) == 0 || !explained[policy.BootLoaderPCR] {
		return
	}
	any := false  // GRUB, where it is to be that
	grub := false // was started last, but for kernels
	for i := range l.Events {
		e := &l.Events[i]
		d, _ := e.Digest(j.policy.Bank)
		data, _ := e.Proven(j.policy.Bank)
		_, kernel := j.policy.Kernels[d]
		switch name, known := j.policy.Started[d]; {
		case e.PCR != policy.BootLoaderPCR || e.Type == eventlog.NoAction:
		case e.Separates(j.policy.Bank) || slices.Contains(actions, string(data)):
			grub = false // it has returned to the firmware
		case kernel && !grub:
			j.find(Finding{Code: OtherBootLoader, Leaves: NotTrusted, Event: e.Number, Digest: d,
				Why: fmt.Sprintf("event %d on PCR %d is of the kernel %s, and it was not GRUB that started it", e.Number, e.PCR, name)})
			return
		case known:
			grub = kernel || j.policy.GRUB[d]
			any = any || grub || len(j.policy.GRUB) == 0
			j.state(Statement{PCR: e.PCR, Event: e.Number, Text: name})
		default:
			j.find(Finding{Code: OtherBootLoader, Leaves: NotTrusted, Event: e.Number, Digest: d,
				Why: fmt.Sprintf("event %d, %s on PCR %d, is of nothing that the policy lets the firmware start", e.Number, e.Type, e.PCR)})
			return // one is as bad as all
		}
	}
	if !any {
		what := "nothing that it started"
		if len(j.policy.GRUB) > 0 {
			what = "no GRUB of the policy"
		}
		j.find(Finding{Code: OtherBootLoader, Leaves: NotTrusted, Why: fmt.Sprintf("the firmware measured %s to PCR %d", what, policy.BootLoaderPCR)})
	}
}

// commandLine wants the first event of PCR 9 to be a kernel command line that
// the policy has, and the second its initramfs, if the policy has one.
//
// The kernel's EFI stub measures both before anything else of the system runs.
// Later events could be by whoever has taken the system over, who can call them
// what he likes: only that they are the first proves what they are.
func (j *judge) commandLine(l *eventlog.Log, explained []bool) {
	if len(j.policy.CommandLines) == 0 || !explained[policy.StubPCR] {
		return // with a finding
	}
	var first []*eventlog.Event
	for i := range l.Events {
		if e := &l.Events[i]; e.PCR == policy.StubPCR && e.Type != eventlog.NoAction && len(first) < 2 {
			first = append(first, e)
		}
	}
	if len(first) == 0 {
		j.find(Finding{Code: CommandLineUnclear, Leaves: CouldNotTell, Why: fmt.Sprintf("no event on PCR %d says what the kernel command line was", policy.StubPCR)})
		return
	}
	d, _ := first[0].Digest(j.policy.Bank)
	line := ""
	for _, allowed := range j.policy.CommandLines {
		if eventlog.MeasuredLoadOptions(j.policy.Bank, allowed) == d {
			line = allowed
		}
	}
	switch {
	case line != "":
		j.state(Statement{PCR: policy.StubPCR, Event: first[0].Number, Text: line})
	case bytes.Contains(first[0].Data, []byte(eventlog.LoadOptions)):
		j.find(Finding{Code: OtherCommandLine, Leaves: NotTrusted, Event: first[0].Number, Digest: d, Why: "the kernel was started with another command line than the policy has"})
		return
	default:
		j.find(Finding{Code: CommandLineUnclear, Leaves: CouldNotTell, Event: first[0].Number, Digest: d,
			Why: fmt.Sprintf("PCR %d does not begin with the kernel command line: a boot loader measures to it, or the kernel is too old to", policy.StubPCR)})
		return
	}
	if len(j.policy.Initrds) == 0 {
		return
	}
	if len(first) == 2 {
		d, _ = first[1].Digest(j.policy.Bank)
		if _, ok := j.policy.Initrds[d]; ok {
			return
		}
	}
	j.find(Finding{Code: OtherInitrd, Leaves: NotTrusted, Digest: d, Why: fmt.Sprintf("the second event on PCR %d is no initramfs that the policy has", policy.StubPCR)})
}
