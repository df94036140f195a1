package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"diglim/internal/digest"
	"diglim/tpm"
)

// A Clause is one thing that a policy says, for people.
type Clause struct {
	About   string // one word
	Text    string
	Caution bool // it lets something pass that the strictest policy does not
}

// Words says in words what a policy file asks of a host, what it lets pass, and
// what it does not ask for.
func (f *File) Words() []Clause {
	var c []Clause
	say := func(about, format string, args ...any) {
		c = append(c, Clause{About: about, Text: fmt.Sprintf(format, args...)})
	}
	caution := func(about, format string, args ...any) {
		c = append(c, Clause{About: about, Text: fmt.Sprintf(format, args...), Caution: true})
	}
	if !f.Bank.Available() {
		say("rejects", "every host: no statement \"ima\" says which PCR measured files extend")
	} else {
		say("log", "what is in the log up to the value of %s", tpm.PCR{Bank: f.Bank, Index: f.PCR})
	}
	if !f.From.IsZero() {
		say("valid", "from %s on, in UTC", f.From.Format(time.DateOnly))
	}
	if f.Until.IsZero() {
		caution("valid", "for ever: an old copy of this policy stays good; \"valid-until\" ends it")
	} else {
		say("valid", "before %s, in UTC", f.Until.Format(time.DateOnly))
	}
	if f.Serial > 0 {
		say("serial", "%d: check --last refuses a lower one from then on", f.Serial)
	}
	if f.Bank == digest.SHA1 {
		caution("log", "SHA-1 collisions can be made: this bank proves little")
	}
	if f.AK == "" {
		say("key", "given to check with --ak")
	} else {
		say("key", "the quote is signed with %q", f.AK)
	}
	if f.NamedKey {
		say("key", "known by its TPM public area: it signs nothing but what its TPM made")
	} else {
		caution("key", "one given as PEM or certificate is believed to sign nothing but what its TPM made; \"ak-attributes required\" wants it shown")
	}
	for _, dir := range f.Lists {
		say("lists", "files in the digest lists in %q", dir)
	}
	switch {
	case len(f.Lists) == 0 && len(f.Files) == 0 && len(f.SigningKeys) == 0:
		say("rejects", "every host: no statement \"lists\", \"file\" or \"signing-key\" makes a file known")
	case len(f.Lists) > 0 && len(f.Keyrings) > 0:
		say("signers", "the keys in %s", quoted(f.Keyrings))
	case len(f.Lists) > 0 && !f.AllowUnsigned:
		say("rejects", "every list: no statement \"keyring\" says whose signature counts")
	}
	if f.AllowUnsigned {
		caution("signers", "lists that nobody signed are believed")
	}
	if f.AllowWeak {
		caution("signers", "signatures over MD5 and SHA-1 are believed")
	}
	for _, path := range f.SigningKeys {
		caution("signed", "every file that the keys in %q ever signed is known, in versions of any age, where IMA logs the signature", path)
	}
	for _, r := range f.Files {
		if r.Path != "" {
			say("file", "%s at %q only: %s", r.Digest, r.Path, r.Reason)
		} else {
			say("file", "%s: %s", r.Digest, r.Reason)
		}
	}
	for _, d := range slices.SortedFunc(maps.Keys(f.Denied), digest.Digest.Compare) {
		say("deny", "%s, whoever lists it: %s", d, f.Denied[d])
	}
	if f.ReportUnknown {
		caution("unknown", "a file in no list is reported, and the host trusted all the same")
	} else {
		say("unknown", "a file in no list is a reason for distrust")
	}
	if f.ReportViolations {
		caution("violation", "a file written while it was measured is reported, and the host trusted all the same")
	} else {
		say("violation", "a file written while it was measured is a reason for distrust")
	}
	if len(f.IMAPolicies) > 0 {
		say("measures", "by the IMA policy in %s: the log has to prove that such a file was read", quoted(f.IMAPolicies))
	}
	if f.ReportPadded {
		caution("padded", "PCRs of a kernel before 5.8, as strong as SHA-1, are reported, and the host trusted all the same")
	}
	if len(f.Quoted) > 0 {
		say("quote", "covers %s", pcrs(f.Quoted))
	}
	if len(f.Extended) > 0 {
		say("boot", "was measured into each of %s", pcrs(f.Extended))
	} else {
		caution("boot", "that the firmware measured it is not asked for; \"extended sha256:0-7\" asks")
	}
	for _, x := range f.Expected {
		reason := ""
		if x.Reason != "" {
			reason = ": " + x.Reason
		}
		if len(x.Values) == 1 {
			say("boot", "%s has the value %s%s", x.PCR, x.Values[0].Hex(), reason)
		} else {
			say("boot", "%s has one of %d values%s", x.PCR, len(x.Values), reason)
		}
	}
	if len(f.Expected) == 0 {
		caution("boot", "with other firmware, boot loader or kernel passes; \"pcr\" says what values are expected")
	}
	if len(f.Policy.Firmware) > 0 {
		say("boot", "is explained by the firmware's log in PCRs %s", strings.Trim(fmt.Sprint(f.Policy.Firmware), "[]"))
	} else {
		caution("boot", "the firmware's log is not looked at; \"firmware-log 0-7\" has it explain the PCRs")
	}
	byPCR := func(a, b Event) int { return cmp.Or(cmp.Compare(a.PCR, b.PCR), cmp.Compare(a.Type, b.Type)) }
	for _, e := range slices.SortedFunc(maps.Keys(f.Events), byPCR) {
		caution("boot", "with an event of %s on PCR %d passes: %s", e.Type, e.PCR, f.Events[e])
	}
	switch {
	case f.SecureBoot && !slices.Contains(f.Policy.Firmware, SecureBootPCR):
		say("rejects", "every host: \"secure-boot required\" needs \"firmware-log\" with PCR %d", SecureBootPCR)
	case f.SecureBoot:
		say("boot", "had Secure Boot on, by the firmware's log")
	default:
		caution("boot", "without Secure Boot passes")
	}
	for _, path := range f.UKIs {
		say("boot", "by the kernel image %q, by PCR 11", path)
	}
	if len(f.UKIs) > 1 {
		say("boot", "by one of these %d images", len(f.UKIs))
	}
	switch {
	case len(f.CommandLines) > 0 && !slices.Contains(f.Policy.Firmware, StubPCR):
		say("rejects", "every host: \"kernel-command-line\" needs \"firmware-log\" with PCR %d", StubPCR)
	}
	// What is in files is not known yet.
	named := f.Policy
	for _, path := range f.GRUBs {
		named.GRUB = map[digest.Digest]bool{{}: true}
		say("boot", "by way of GRUB %q", path)
	}
	for _, path := range f.KernelFiles {
		named.Kernels = map[digest.Digest]string{{}: path}
		say("boot", "may have the kernel %q, started by GRUB", path)
	}
	for _, path := range f.Initramfses {
		named.Initrds = map[digest.Digest]string{{}: path}
		say("boot", "may have the initramfs %q", path)
	}
	if wrong := named.whatStarts(); wrong != "" {
		say("rejects", "every host: %s", wrong)
	}
	if n := f.Commands.Len(); n > 0 {
		texts := "texts"
		if n == 1 {
			texts = "text"
		}
		say("boot", "has GRUB told nothing but %d %s, and reading nothing but known files, by its measurements in PCRs %d and %d", n, texts, CommandPCR, FilePCR)
	}
	for _, text := range f.Commands.Wild() {
		caution("boot", "with what * and ** stand for in %q passes", text)
	}
	if len(named.GRUB) > 0 && len(named.Initrds) == 0 {
		caution("boot", "without an initramfs passes where GRUB reads none; \"initramfs\" wants one of those that it names")
	}
	for _, line := range f.CommandLines {
		say("boot", "may have the kernel command line %q", line)
	}
	for _, d := range slices.SortedFunc(maps.Keys(f.Initrds), digest.Digest.Compare) {
		say("boot", "may have the initramfs %s: %s", d, f.Initrds[d])
	}
	for _, path := range f.BootLoaders {
		say("boot", "by way of the boot loader %q", path)
	}
	for _, d := range slices.SortedFunc(maps.Keys(f.Started), digest.Digest.Compare) {
		_, kernel := f.Kernels[d]
		switch {
		case kernel:
			say("boot", "may have the kernel %s, started by GRUB: %s", d, f.Started[d])
		case f.GRUB[d]:
			say("boot", "by way of GRUB %s: %s", d, f.Started[d])
		default:
			say("boot", "by way of %s: %s", d, f.Started[d])
		}
	}
	known := slices.ContainsFunc(f.Expected, func(x Expectation) bool {
		return x.PCR.Index == BootLoaderPCR || x.PCR.Index == SecureBootPCR
	})
	switch started := len(f.UKIs)+len(f.BootLoaders)+len(f.GRUBs)+len(f.Started) > 0; {
	case started && slices.Contains(f.Policy.Firmware, BootLoaderPCR):
		say("boot", "by nothing else, by the firmware's log on PCR %d", BootLoaderPCR)
	case len(f.BootLoaders)+len(f.Started) > 0:
		say("rejects", "every host: \"boot-loader\" needs \"firmware-log\" with PCR %d", BootLoaderPCR)
	case (started || len(f.CommandLines) > 0) && !known:
		caution("boot", "by anything else passes, which can extend PCRs from 8 on by hand; \"firmware-log\" with PCR %d says what the firmware started", BootLoaderPCR)
	}
	if f.MinFirmware > 0 {
		say("tpm", "has firmware %#016x or later", f.MinFirmware)
	} else {
		caution("tpm", "of any firmware version passes")
	}
	return c
}

func quoted(words []string) string {
	var q []string
	for _, w := range words {
		q = append(q, fmt.Sprintf("%q", w))
	}
	return strings.Join(q, ", ")
}

func pcrs(list []tpm.PCR) string {
	var s []string
	for _, p := range list {
		s = append(s, fmt.Sprintf("%s:%d", p.Bank, p.Index))
	}
	return strings.Join(s, " ")
}
