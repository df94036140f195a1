package attest

import (
	"maps"
	"slices"
)

// Codes are all codes that a finding can have, sorted.
func Codes() []Code { return slices.Sorted(maps.Keys(explanations)) }

// Explain says what a code means and what can be done about it, and whether
// there is such a code.
func Explain(c Code) (meaning, remedy string, ok bool) {
	e, ok := explanations[c]
	return e.meaning, e.remedy, ok
}

// An explanation of a code: full sentences, for people.
type explanation struct{ meaning, remedy string }

var explanations = map[Code]explanation{
	PolicyRejects: {
		"The policy knows no file or no PCR bank, so that it cannot trust any host.",
		"Give digest lists that a key of the keyrings signed; policy check says what a policy file lacks."},
	PolicyNotValid: {
		"The policy says from when or until when it is valid, and it is not now: it expired, or it is for later.",
		"Get the current policy, and look at the clock of the machine that judges."},
	PolicyWentBack: {
		"This host was judged by a policy with a higher serial before: an old policy was put in its place.",
		"Get the current policy."},
	NoNonce: {
		"Nobody said what the host was asked. Without that, evidence of last year looks like evidence of today.",
		"Give the challenge that you sent to the host. The one that lies in the evidence is the host's word."},
	NoKey: {
		"No attestation key was given. The quote was verified with the key that came with it, which proves that the host has some key.",
		"Give the key that was kept when the host was enrolled."},
	Missing: {
		"A part of the evidence is not there.",
		"Collect the evidence again, all of it; look whether the IMA log exists on the host."},
	Malformed: {
		"A part of the evidence cannot be read, at the offset that is named: it was cut, or it is something else.",
		"Compare the file with that on the host, and the offset with docs/formats."},

	NotAQuote: {
		"What was signed is not a quote of a TPM 2.0: another magic number, another kind of attestation, or a TPM 1.2.",
		"Treat it as an attack if the host is yours. A key that signs arbitrary data can make bytes that look like a quote."},
	WeakAlgorithm: {
		"The signature uses a hash or a scheme that is not accepted: SHA-1, or none of RSASSA, RSAPSS and ECDSA.",
		"Make an attestation key with SHA-256 or better, and enrol it."},
	KeyNotSuitable: {
		"The attestation key may sign other things than what its TPM made: it is not restricted, not bound to its TPM, it decrypts as well, or its size or curve is not accepted.",
		"Make a restricted signing key, as collect does, and enrol it."},
	KeyAttributesUnknown: {
		"The attestation key was given as PEM or certificate, which does not say what it may do. Whether it is a restricted key of a TPM is the word of whoever enrolled it.",
		"Keep the TPM public area (ak.pub) instead; \"ak-attributes required\" in the policy wants it."},
	BadSignature: {
		"The signature is not by the given key over this quote: another host's key, or a changed quote.",
		"Look whether the key is this host's. If it is, the evidence was tampered with."},
	WrongNonce: {
		"The quote is good, but answers another challenge: it is old, or was made for somebody else.",
		"Ask again with a new nonce. If the host keeps answering the old one, it is not the TPM that answers."},
	OtherPCRs: {
		"The PCR values handed in are not of the PCRs that were signed: some are missing, some are too many, or they have other labels.",
		"Collect again. The values must be of exactly the PCRs in the quote."},
	WrongPCRs: {
		"The PCR values handed in do not have the digest that the TPM signed.",
		"Collect again: a PCR may have been extended between the quote and the reading. If it stays so, the values are made up."},
	UnexpectedPCR: {
		"A PCR has another value than the policy expects: other firmware, another boot loader, other settings.",
		"Find out what was updated. If it was you, add the new value to the policy's statement pcr, and drop the old one later."},
	BootNotMeasured: {
		"A PCR that the firmware must extend still has its value at reset. In a bank that the firmware does not know, anybody can make up a boot.",
		"Enable the bank in the firmware's setup, or quote one that the firmware extends."},
	PaddedSHA1: {
		"The kernel is older than 5.8: it extends every bank with SHA-1 hashes filled up with zeros, so that the PCR is as strong as SHA-1.",
		"Update the kernel. If that cannot be, --padded report or \"padded report\" in the policy believes it."},
	FirmwareDiffers: {
		"The firmware's log makes another value of a PCR than the quoted one: it is of another boot, was cut, or was changed.",
		"Read the log again, from securityfs. If it stays so, the log was tampered with, or something extended the PCR and did not log it."},
	FirmwareBank: {
		"The firmware's log has no digests of the bank that is judged.",
		"Judge by a bank that the firmware knows, or enable this one in its setup."},
	UnknownEvent: {
		"The firmware's log has an event of a type that the specification does not have, on a PCR that decides. Its meaning cannot be told.",
		"Find out what makes it: it may be a vendor's own, or one that should have been judged under another name. If it belongs there, a statement event in the policy lets that type pass on that PCR."},
	LateEvent: {
		"An event on a PCR of the firmware comes after the separator or after the hand-over to the system, or the running system says that it extended that PCR itself: what belongs there is over by then.",
		"Find out what made it; treat it as tampering if nobody can say."},
	NoSecureBoot: {
		"The firmware's log says, proven by PCR 7, that Secure Boot was off.",
		"Switch it on in the firmware's setup."},
	SecureBootState: {
		"Whether Secure Boot was on cannot be told: no proven event says so, more than one does, or the data of one that may be another word about it was changed.",
		"Look at the events on PCR 7 in the firmware's log."},
	SystemLogDiffers: {
		"The firmware's log, and what systemd or diglim-upload wrote down of their own measurements, make another value of a PCR than the quoted one.",
		"Collect again, the logs too. If it stays so, the logs were tampered with, or something extended the PCR and did not log it."},
	UnexpectedImage: {
		"PCR 11 does not have a value that a unified kernel image of the policy makes: another image was started, a later phase is not one of systemd's, or none was started at all.",
		"Find out what was started. If it was a new kernel, add a statement uki with it to the policy, and drop the old one later."},
	OtherBootLoader: {
		"The firmware's log, proven by PCR 4, has something that was started and that the policy does not name, or nothing that was started.",
		"Find out what the event is about. If it belongs there, add a statement boot-loader, with the file or the digest, uki for a kernel image, or kernel for one that GRUB starts."},
	OtherCommandLine: {
		"The kernel measured another command line than any that the policy has.",
		"Find out who changed it. If it was you, add a statement kernel-command-line to the policy."},
	CommandLineUnclear: {
		"The first event on PCR 9 is not the kernel's own measurement of its command line, so that nothing proves which it was.",
		"Start the kernel by its EFI stub, a unified kernel image or systemd-boot, or expect values of PCRs with the statement pcr."},
	OtherInitrd: {
		"The kernel measured, or GRUB read after the kernel, another initramfs than any that the policy has, or none.",
		"Find out who made it. If it was an update, add a statement initramfs with the new digest to the policy."},

	OtherCommand: {
		"GRUB carried out a command, or started the kernel with a command line, that is no statement grub-command of the policy: settings were changed, or somebody typed at its console. The same is said of an event on PCR 8 whose data is not what was measured.",
		"Find out who changed GRUB's settings. If it belongs there, add the text as a statement grub-command."},
	OtherBootFile: {
		"GRUB read a file, such as its settings, a module or a kernel, that is in no digest list and in no statement of the policy. Its name is in the log alone, and nothing proves it.",
		"Find out what has that digest. Add its package's list, or a statement kernel or file; for settings that change from boot to boot, such as grubenv, one for each content."},
	GRUBUnclear: {
		"The policy lets GRUB start the kernel, and it did not measure what it was told, or no kernel. A GRUB without its module tpm, and one that was built not to use PCR 8, do not.",
		"Look at the events on PCRs 8 and 9 in the firmware's log. A kernel is known by a list that calls it vmlinuz, or by a statement kernel."},

	TPMWentBack: {
		"The TPM's counters are behind those last seen, which no TPM does by itself: old evidence is being replayed, or a TPM in software was put back to a snapshot.",
		"Ask again with a new nonce. If a virtual machine was put back on purpose, judge it anew and start a new file for --last."},
	TPMCleared: {
		"The TPM's counters started over: somebody with the platform or lockout authorization cleared it. All that it had sealed is gone.",
		"Find out who did. Nothing has to be done for attestation if the key is still the same."},
	LastOfAnotherKey: {
		"The file of --last is about another attestation key, so that nothing can be compared: it is another host's, or this host has a new TPM or a new key.",
		"Give this host's file; after enrolling a new key, start a new one."},
	FirmwareTooOld: {
		"The TPM's firmware is older than the policy's minimum.",
		"Update the TPM's firmware, or look whether the minimum is for this kind of TPM."},
	FirmwareWentBack: {
		"The TPM's firmware is older than it was: somebody put an older version on it.",
		"Find out who did. After a downgrade on purpose, start a new file for --last."},

	PCRNotQuoted: {
		"A PCR that counts is not in the quote.",
		"Have the host quote it: collect takes a list of PCRs. Where the TPM has no SHA-256 bank, the statement ima of a policy names another."},
	NotExtended: {
		"The PCR that IMA extends still has its value at reset: nothing was measured, or IMA extends another PCR.",
		"Boot with an IMA policy that measures, such as ima_policy=tcb, and look at CONFIG_IMA_MEASURE_PCR_IDX."},
	DoesNotReplay: {
		"No part of the log gives the quoted value: entries are missing, added or changed, the log is of another boot, or it was read before the quote.",
		"Read the log after the quote. If it stays so, the log was tampered with."},
	SecondPCR: {
		"The log has entries on another PCR than the policy's: an IMA policy can say pcr= for a rule.",
		"Quote that PCR as well; entries on one that is not quoted prove nothing."},
	NoAggregate: {
		"No proven entry is IMA's first, which says what the host was booted with.",
		"Look whether the log was cut at its front."},
	NothingMeasured: {
		"The log has no entry about a file: IMA runs without a policy that measures.",
		"Boot with ima_policy=tcb, or load a policy."},

	TextLog: {
		"The IMA log was read from text. What the quote covers is as good as that of a binary log, for all is hashed anew; but text cannot say everything: a name with a newline in it, or a template that is not understood, ends it.",
		"Hand in binary_runtime_measurements, as collect does."},
	Continued: {
		"The log begins after the boot, and continues what was proven and judged before, by the checkpoint that was given.",
		"Nothing has to be done. Guard the checkpoint like the key: what came before it is not judged again."},
	NotProgressed: {
		"The entries that the quote did not cover the last time are still not covered: a host that keeps its PCR behind its log hides what it runs.",
		"Ask again with a new nonce. If the tail stays unproven, treat the host as one that is not trusted."},
	NotTheLast: {
		"In the same boot the log was proven to be another before: entries that were there are gone, or are others now.",
		"Treat it as tampering."},
	NotItsOwn: {
		"The checkpoint was made for another attestation key: it is another host's, or this host has a new key. Nothing was judged by it.",
		"Give this host's file; after enrolling a new key, start a new one."},

	WrongAggregate: {
		"IMA's first entry is not the hash over the quoted PCRs 0 to 9: the log or the PCRs are of another boot.",
		"Treat it as tampering, unless a PCR below 10 is extended after boot on this host (then quote right after boot)."},
	NoAggregatePCRs: {
		"The PCRs that IMA's first entry is made of are not in the quote, in the bank of its hash; or its hash is SHA-1, which leaves out PCRs 8 and 9, where the policy has GRUB measure.",
		"Quote PCRs 0 to 9 as well, in the bank that ima_hash names. For GRUB boot with ima_hash=sha256."},
	WrongHash: {
		"An entry's template hash is not that of its data: the entry was changed after it was measured.",
		"Treat it as tampering."},
	UnknownTemplate: {
		"An entry has a template that is not understood, or that does not begin with the file's digest, so that nothing can be said of what was measured: no hash covers the name of a template.",
		"Boot with ima_template=ima-ng or ima-sig."},
	UnknownFile: {
		"A file was measured whose digest is in no list that is believed: a file of no package, a changed one, or one of a package whose list is missing. An fs-verity digest and a file's are never taken for one another. A signature in the log counts if it is over that digest, by a key that a statement signing-key names.",
		"Look what package has a file there. Add its list; if no package can have it, a statement file in the policy makes its digest known."},
	UnknownKey: {
		"A key was loaded into a keyring of the kernel, and is not one of the policy's: what it signed may have been taken there.",
		"Find out who loaded it, and from where. If it belongs there, a statement signing-key makes it and all that it signs known, and a statement file the key alone."},
	WrongIMAPolicy: {
		"The kernel measured the IMA policy that it was given, and it is none that the statement ima-policy names: other files may be measured, or none.",
		"Find out what was changed in the host's IMA policy, and compare it with /sys/kernel/security/ima/policy on a host that is good."},
	NoIMAPolicy: {
		"No proven entry has the digest of an IMA policy that the statement ima-policy names: the host runs with another one or with the built-in ones, or its policy was written into the kernel and not read from a file.",
		"Have it loaded by its path, as systemd does, with a rule measure func=POLICY_CHECK in the policy that is there before."},
	DeniedFile: {
		"A file was measured that the policy denies, whoever lists it.",
		"Update the package, for the reason that the policy gives."},
	Violation: {
		"A file was open for writing while it was measured, or measured while it was written: nobody knows what was read.",
		"Look which program writes it. Logs and databases that root reads do it; IMA policy can leave them out."},
	ViolationData: {
		"A violation has no digest, and this one was given one: the entry is forged.",
		"Treat it as tampering."},
}
