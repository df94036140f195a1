package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"diglim/internal/attest"
	"diglim/internal/cli"
	"diglim/internal/evidence"
	"diglim/internal/policy"
	"diglim/tpm"

	"github.com/spf13/cobra"
)

type check struct {
	policy        string
	lists         listFlags
	nonce, ak     string
	last          string
	violations    string
	padded        string
	firmware      string
	secureBoot    bool
	checkpoint    string
	checkpointKey string
	json, verbose bool

	quote, signature, pcrs, ima, bios string // single files
}

func checkCommand() *cobra.Command {
	var c check
	cmd := &cobra.Command{
		Use:   "check --policy FILE | --lists DIR --keyring FILE|DIR --nonce HEX --ak FILE [flags] [EVIDENCE]",
		Short: "judge a host's evidence",
		Long: `Verifies the quote with the host's attestation key and the nonce that the host
was given, replays the IMA log up to what was quoted, and looks every measured
file up in the digest lists. Only lists that a key of the keyrings signed count.

EVIDENCE is a directory that "collect" made, a tar of one, the quote string of
Keylime's agent, the JSON of go-attestation or the Attestation message of
go-tpm-tools.

Nonce and key are the verifier's own: those in the evidence prove nothing. To
enrol a host, keep the ak.pub that it collected when you knew it to be good.
Entries after the quoted state are reported as unproven.

With --last the TPM's counters and firmware version are compared with those of
the last time, and kept for the next: a reboot, a suspend, a loss of power and
TPM2_Clear are told from old evidence and from a TPM that was put back.`,
		Args: cobra.MaximumNArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&c.policy, "policy", "", "policy `file`, instead of --lists and what goes with it")
	c.lists.add(cmd)
	f.StringVar(&c.nonce, "nonce", "", "what the host was asked, in `hex`")
	f.StringVar(&c.ak, "ak", "", "the host's attestation key: `file` with a TPMT_PUBLIC, TPM2B_PUBLIC, public key or X.509 certificate (PEM or DER)")
	f.StringVar(&c.last, "last", "", "`file` that keeps what the host's TPM was last seen to be; made the first time")
	f.StringVar(&c.violations, "violations", "deny", "violations in the IMA log: deny, or report and go on")
	f.StringVar(&c.padded, "padded", "deny", "PCRs that a kernel before 5.8 extends with SHA-1 filled up with zeros: deny, or report and go on")
	f.StringVar(&c.firmware, "firmware", "", "`PCRs` whose values the firmware log has to explain, e.g. 0-7,9")
	f.BoolVar(&c.secureBoot, "secure-boot", false, "want Secure Boot to be on; needs 7 among the PCRs of --firmware")
	f.StringVar(&c.checkpoint, "checkpoint", "", "`file` that says how far this host's log was proven, written when it is trusted")
	f.StringVar(&c.checkpointKey, "checkpoint-key", "", "`file` with the key that shows that a checkpoint is this program's, made the first time; the checkpoint's name and .key, if not given")
	f.BoolVar(&c.json, "json", false, "answer as JSON")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "name the known files too, and the packages that they came from")
	f.StringVar(&c.quote, "quote", "", "quote `file`, instead of the evidence's "+evidence.QuoteFile)
	f.StringVar(&c.signature, "signature", "", "signature `file`, instead of the evidence's "+evidence.SignatureFile)
	f.StringVar(&c.pcrs, "pcrs", "", "PCR values `file`, instead of the evidence's "+evidence.PCRsFile)
	f.StringVar(&c.ima, "ima-log", "", "IMA log `file`, instead of the evidence's "+evidence.IMAFile)
	f.StringVar(&c.bios, "firmware-log", "", "firmware log `file`, instead of the evidence's "+evidence.FirmwareFile)
	for _, instead := range []string{"lists", "keyring", "allow-unsigned", "allow-weak", "violations", "padded", "firmware", "secure-boot"} {
		cmd.MarkFlagsMutuallyExclusive("policy", instead)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a := answer{}
		err := c.run(args, &a)
		for _, r := range a.refused() {
			fmt.Fprintf(cmd.ErrOrStderr(), "refused: %s: %s\n", cli.Text(r.List), cli.Text(r.Error))
		}
		if a.Lists != nil && a.Lists.Unsigned > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s that nobody signed believed, because of %s\n", cli.Plural(a.Lists.Unsigned, "list"), c.because("--allow-unsigned"))
		}
		if a.Lists != nil && a.Lists.Weak > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s with a weak signature believed, because of %s\n", cli.Plural(a.Lists.Weak, "list"), c.because("--allow-weak"))
		}
		if err != nil {
			if c.json {
				a.Outcome, a.Error = attest.CouldNotTell, err.Error()
				err = errors.Join(err, a.writeJSON(cmd.OutOrStdout()))
			}
			return err
		}
		if c.json {
			err = a.writeJSON(cmd.OutOrStdout())
		} else {
			err = a.writeText(cmd.OutOrStdout(), c.verbose)
		}
		if err != nil {
			return err
		}
		return cli.Exit(map[attest.Outcome]int{attest.Trusted: cli.Yes, attest.NotTrusted: cli.No, attest.CouldNotTell: cli.Unknown}[a.Outcome])
	}
	return cmd
}

// because says who lets something pass: a flag, or the policy.
func (c *check) because(flag string) string {
	if c.policy != "" {
		return "the policy"
	}
	return flag
}

// asked is the policy that the flags make or name.
func (c *check) asked() (f *policy.File, err error) {
	if c.policy != "" {
		return readPolicy(c.policy)
	}
	f = c.lists.policy()
	for _, choice := range []struct {
		name, value string
		report      *bool
	}{{"violations", c.violations, &f.ReportViolations}, {"padded", c.padded, &f.ReportPadded}} {
		switch choice.value {
		case "deny":
		case "report":
			*choice.report = true
		default:
			return nil, fmt.Errorf("%s %q: deny and report are known", choice.name, choice.value)
		}
	}
	if c.firmware != "" {
		if f.Firmware, err = tpm.ParseIndices(c.firmware); err != nil {
			return nil, err
		}
		if slices.Contains(f.Firmware, f.PCR) {
			return nil, cli.Hint(fmt.Errorf("PCR %d is what IMA extends: no firmware's log explains it", f.PCR), "give --firmware 0-9, for example")
		}
	}
	if f.SecureBoot = c.secureBoot; c.secureBoot && !slices.Contains(f.Firmware, policy.SecureBootPCR) {
		return nil, cli.Hint(errors.New("the firmware log is not to explain PCR 7, to which Secure Boot is measured"), "give --firmware 0-7 too")
	}
	return f, nil
}

// run fills the answer. The error is about what the user gave, not about what
// the host did.
func (c *check) run(args []string, a *answer) (err error) {
	pol, err := c.asked()
	if err != nil {
		return err
	}
	if c.bios != "" && len(pol.Firmware) == 0 {
		return cli.Hint(errors.New("a firmware log, and no PCR that it has to explain"), "give them with --firmware, e.g. 0-7, or in the policy")
	}
	if c.nonce == "" {
		return cli.Hint(errors.New("no nonce: nothing would say that the evidence is fresh"),
			"give with --nonce what the host was asked; the %s that it sent is not that", evidence.NonceFile)
	}
	if c.checkpointKey == "" {
		c.checkpointKey = c.checkpoint + ".key"
	} else if c.checkpoint == "" {
		return errors.New("--checkpoint-key without --checkpoint")
	}
	if c.last != "" && filepath.Clean(c.last) == filepath.Clean(c.checkpoint) {
		return errors.New("--last and --checkpoint are the same file")
	}
	var ch attest.Challenge
	if ch.Nonce, err = parseNonce(c.nonce, 1); err != nil {
		return err
	}
	switch {
	case c.ak != "" && pol.AK != "":
		return fmt.Errorf("the policy has the attestation key %s; --ak would be another", pol.AK)
	case c.ak == "":
		c.ak = pol.AK
	}
	if c.ak != "" {
		if ch.AK, err = readFile(c.ak, maxSmall); err != nil {
			return fmt.Errorf("attestation key: %w", err)
		}
	}
	ev, done, err := c.evidence(args, pol)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if len(args) == 1 {
		a.Evidence = args[0]
	}
	before := heap()
	if a.Lists, err = knownFiles(pol); err != nil {
		return err
	}
	// What a host hands in may make much garbage, which is not to heap up.
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(judgeMemory + max(0, heap()-before)))
	if pol.Bank.Available() { // else it rejects every host
		if err := predictImages(pol); err != nil {
			return err
		}
	}
	// Two checks of one host at once take turns: each judges by what the one
	// before it kept, so that no older state replaces a newer one.
	for _, kept := range []struct{ what, path string }{{"last state", c.last}, {"checkpoint", c.checkpoint}} {
		if kept.path == "" {
			continue
		}
		unlock, e := lock(kept.path)
		if e != nil {
			return fmt.Errorf("%s: %w", kept.what, e)
		}
		defer func() { err = errors.Join(err, unlock()) }()
	}
	if c.last != "" {
		if ch.Last, err = readLast(c.last); err != nil {
			return err
		}
	}
	if c.checkpoint != "" {
		if ch.Checkpoint, err = readCheckpoint(c.checkpoint, c.checkpointKey); err != nil {
			return err
		}
	}
	ch.Now = time.Now().UTC()
	a.Verdict = attest.Judge(ev, ch, &pol.Policy)
	if c.last != "" && a.Seen != nil {
		err = writeLast(c.last, a.Seen)
	}
	if c.checkpoint != "" && a.Verdict.Checkpoint != nil {
		err = errors.Join(err, writeCheckpoint(c.checkpoint, c.checkpointKey, a.Verdict.Checkpoint))
	}
	return err
}

// judgeMemory is how much memory judging takes without need, besides the lists.
const judgeMemory = 44 << 20

func heap() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// evidence reads the bundle, and instead of parts of it single files. What is
// not in the bundle is missing evidence, for Judge to say; a file that was named
// must be there. The IMA log stays open until done is called.
func (c *check) evidence(args []string, pol *policy.File) (ev attest.Evidence, done func() error, err error) {
	done = func() error { return nil }
	if len(args) == 1 {
		var b *evidence.Bundle
		if b, done, err = readBundle(args[0]); err != nil {
			return ev, nil, fmt.Errorf("evidence: %w", err)
		}
		ev = b.For(tpm.PCR{Bank: pol.Bank, Index: pol.PCR})
	}
	for _, part := range []struct {
		to         *[]byte
		path, name string
		limit      int64
	}{
		{&ev.Quote, c.quote, evidence.QuoteFile, maxSmall},
		{&ev.Signature, c.signature, evidence.SignatureFile, maxSmall},
		{&ev.PCRs, c.pcrs, evidence.PCRsFile, maxSmall},
		{&ev.Firmware, c.bios, evidence.FirmwareFile, evidence.Limit(evidence.FirmwareFile)},
	} {
		if part.path == "" {
			if len(args) == 0 && (part.name != evidence.FirmwareFile || len(pol.Firmware) > 0) {
				return ev, nil, notGiven(part.name)
			}
			continue
		}
		b, err := readFile(part.path, part.limit)
		if err != nil {
			return ev, nil, errors.Join(fmt.Errorf("evidence: %w", err), done())
		}
		*part.to = b
	}
	ev.Quote, ev.Signature = evidence.Attest(ev.Quote), evidence.Signature(ev.Signature)
	switch {
	case c.ima != "":
		log, doneLog, err := openLog(c.ima)
		if err != nil {
			return ev, nil, errors.Join(fmt.Errorf("evidence: %w", err), done())
		}
		doneBundle := done
		ev.IMALog, done = log, func() error { return errors.Join(doneLog(), doneBundle()) }
	case len(args) == 0:
		return ev, nil, notGiven(evidence.IMAFile)
	}
	return ev, done, nil
}

func notGiven(name string) error {
	return cli.Hint(fmt.Errorf("no %s", name), "give the evidence, or --quote, --signature, --pcrs, --ima-log, and for --firmware --firmware-log")
}

// readBundle reads an evidence directory, or evidence in one file. The IMA log
// stays open until done is called: it may be larger than memory.
func readBundle(path string) (b *evidence.Bundle, done func() error, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.IsDir() {
		file, done, err := openLog(path)
		if err != nil {
			return nil, nil, err
		}
		if b, err = evidence.Read(file, file.Size()); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("%s: %w", path, err), done())
		}
		return b, done, nil
	}
	done = func() error { return nil }
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, nil, err
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if name := e.Name(); evidence.Known(name) && name != evidence.IMAFile && name != evidence.IMATextFile {
			if files[name], err = readPart(path, name); err != nil {
				return nil, nil, err
			}
		}
	}
	b = evidence.FromFiles(files)
	log, doneLog, err := openLogIn(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, done, nil
	}
	b.IMALog = log
	return b, doneLog, err
}
