// Package policy says what a host should be. The zero Policy rejects every
// host.
package policy

import (
	"fmt"
	"slices"
	"time"

	"diglim/internal/digest"
	"diglim/tpm"
	"diglim/tpm/eventlog"
)

// IMAPCR is the PCR that IMA extends unless it is told otherwise
// (CONFIG_IMA_MEASURE_PCR_IDX).
const IMAPCR = 10

// A Policy is what a host is judged by.
type Policy struct {
	Bank  digest.Algorithm // bank of the PCRs that count
	PCR   int              // the PCR that measured files extend
	Known Files            // what may have been measured
	// Verity are fs-verity digests of what may have been measured. They are a
	// set apart: such a digest is of a descriptor, and nobody's content.
	Verity Files

	// Signers are the keys whose signatures in the log make files known. There is
	// nothing between all that a key ever signed and nothing of it: old versions
	// are known too, unless they are denied.
	Signers []*Signer

	// IMAPolicy are the digests of the IMA policies that are expected, of each in
	// several algorithms. If it is not empty, the log has to prove one of them.
	IMAPolicy map[digest.Digest]bool

	// Denied are digests that no list makes good, with the reason.
	Denied map[digest.Digest]string
	// Firmware are the PCRs whose quoted values the firmware's log has to
	// explain. Of a PCR that is not among them nothing is said.
	Firmware []int

	// Events are events of types that the specification does not have, which
	// the log may have on a PCR of Firmware, with the reason.
	Events map[Event]string

	// SecureBoot wants the log, which has to explain PCR 7, to say that Secure
	// Boot was on.
	SecureBoot bool

	// Images are the unified kernel images that may be started; without any, no
	// word is said of PCR 11.
	Images []Image

	// Started are the hashes of what the firmware may start, the images among
	// them, and what they are; the log has to explain PCR 4 then. Without any, no
	// word is said of what was started.
	Started map[digest.Digest]string

	// GRUB are those of Started that are GRUB, which measures what it is told and
	// what it reads before it starts a kernel. With any of them the log has to explain
	// PCRs 4, 8 and 9; GRUB may be told Commands and nothing else, and may read known
	// files, Kernels and Initrds.
	GRUB     map[digest.Digest]bool
	Commands Commands
	// Kernels are those of Started that GRUB alone may start, and the digests of their
	// files, with the reason.
	Kernels map[digest.Digest]string

	// CommandLines are the kernel command lines that the kernel's EFI stub may
	// have measured to PCR 9, which the log has to explain. Initrds are the
	// digests of the initramfs that it measured after that, or that GRUB read after
	// the kernel, with the reason.
	CommandLines []string
	Initrds      map[digest.Digest]string

	// ReportViolations makes violations (a file was written while it was
	// measured, so that nobody knows what was read) something to report and
	// no reason for distrust; ReportUnknown does the same for unknown files.
	ReportViolations bool
	ReportUnknown    bool

	// ReportPadded does the same for kernels before 5.8, which extend every
	// bank with SHA-1 and zeros. Without it their logs are no proof.
	ReportPadded bool

	Quoted      []tpm.PCR     // must be quoted
	Extended    []tpm.PCR     // must be quoted, and not have the value they had at reset
	Expected    []Expectation // must be quoted, and have one of these values
	MinFirmware uint64        // oldest firmware version of a TPM
	NamedKey    bool          // the attestation key must be known by its public area

	Serial uint64    // of the policy; one with a lower serial is older
	From   time.Time // the policy is valid from then on, if it is not zero
	Until  time.Time // and before then, if it is not zero
}

// ValidAt reports whether the policy is valid at a time. At the zero time only
// one that is always valid is.
func (p *Policy) ValidAt(now time.Time) bool {
	if p.From.IsZero() && p.Until.IsZero() {
		return true
	}
	return !now.IsZero() && !now.Before(p.From) && (p.Until.IsZero() || now.Before(p.Until))
}

// An Event is a kind of event in the firmware's log.
type Event struct {
	PCR  int
	Type eventlog.Type
}

// An Image is a unified kernel image.
type Image struct {
	Name   string
	Values []digest.Digest // of PCR 11 when its kernel starts: uki.Image.Values
}

// An Expectation is the values that a PCR may have.
type Expectation struct {
	PCR    tpm.PCR
	Values []digest.Digest
	Reason string
}

// Digests is the number of different digests that p knows, of either kind.
func (p *Policy) Digests() int { return p.Known.Len() + p.Verity.Len() }

// BootLoaderPCR is the PCR that the firmware measures what it starts into.
const BootLoaderPCR = 4

// SecureBootPCR is the PCR that the firmware measures its Secure Boot settings
// into (PC Client Platform Firmware Profile section 2.3.4).
const SecureBootPCR = 7

// StubPCR is the PCR that the kernel's EFI stub measures its command line and the
// initramfs into.
const StubPCR = 9

// CommandPCR and FilePCR are the PCRs that GRUB measures what it is told and the
// files that it reads into (GRUB_STRING_PCR and GRUB_BINARY_PCR in its include/grub/tpm.h).
const (
	CommandPCR = 8
	FilePCR    = 9
)

// Rejects reports whether p can trust no host at all: there is none, it has
// no bank or a PCR that no host has, it wants Secure Boot, a boot loader, a command
// line or an initramfs and not what proves it, it wants the kernel to be started both by
// GRUB and by its EFI stub alone, or it knows no file and no key that signs files.
func (p *Policy) Rejects() bool {
	if p == nil || !p.Bank.Available() || p.Digests() == 0 && len(p.Signers) == 0 || p.whatStarts() != "" {
		return true
	}
	explained := func(pcr int) bool { return slices.Contains(p.Firmware, pcr) }
	if p.SecureBoot && !explained(SecureBootPCR) || len(p.Started) > 0 && !explained(BootLoaderPCR) || len(p.CommandLines) > 0 && !explained(StubPCR) {
		return true
	}
	none := func(pcr int) bool { return pcr < 0 || pcr >= tpm.PCRCount }
	return none(p.PCR) || slices.ContainsFunc(p.Firmware, none)
}

// whatStarts is what is wrong with what p says of GRUB, of the kernel and of the
// initramfs; empty if it goes together.
func (p *Policy) whatStarts() string {
	explained := func(pcr int) bool { return slices.Contains(p.Firmware, pcr) }
	grub := len(p.GRUB) > 0
	switch {
	case !grub && (!p.Commands.IsZero() || len(p.Kernels) > 0):
		return `"grub-command" and "kernel" need "grub", which says what has measured them`
	case !grub && len(p.Initrds) > 0 && len(p.CommandLines) == 0:
		return `"initramfs" needs "kernel-command-line" or "grub", whose measurement comes before it`
	case grub && p.Commands.IsZero():
		return `"grub" needs "grub-command": there is nothing that GRUB may be told`
	case grub && !(explained(BootLoaderPCR) && explained(CommandPCR) && explained(FilePCR)):
		return fmt.Sprintf(`"grub" needs "firmware-log" with PCRs %d, %d and %d`, BootLoaderPCR, CommandPCR, FilePCR)
	case grub && len(p.CommandLines) > 0:
		return `where GRUB starts the kernel, the command line is a "grub-command"; "kernel-command-line" is for kernels that firmware or systemd-boot start`
	}
	return ""
}

// A Source says where a known digest comes from. But for There, it is for the
// reader of a verdict, and no decision depends on it.
type Source struct {
	Package string `json:"package,omitempty"` // none if the file is the list itself
	List    string `json:"list,omitempty"`    // file name of the digest list
	Path    string `json:"path,omitempty"`    // of the file in the package
	Signer  string `json:"signer,omitempty"`  // of the list, or without one of the file itself
	Reason  string `json:"reason,omitempty"`  // that the policy gives for a file of no package
	There   bool   `json:"-"`                 // known at Path only
}
