package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"diglim/internal/attest"
	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/keyring"
	"diglim/internal/policy"
	"diglim/tpm/eventlog"

	"github.com/spf13/cobra"
)

type check struct {
	lists         string
	keyrings      []string
	allowUnsigned bool
	allowWeak     bool
	nonce, ak     string
	violations    string
	padded        string
	firmware      string
	secureBoot    bool
	checkpoint    string
	json, verbose bool

	quote, signature, pcrs, ima, bios string // single files
}

func checkCommand() *cobra.Command {
	var c check
	cmd := &cobra.Command{
		Use:   "check --lists DIR --keyring FILE|DIR --nonce HEX --ak FILE [flags] [EVIDENCE_DIR]",
		Short: "judge a host's evidence",
		Long: `Verifies the quote with the host's attestation key and the nonce that the host
was given, replays the IMA log up to what was quoted, and looks every measured
file up in the digest lists. Only lists that a key of the keyrings signed count.

Nonce and key are the verifier's own: those in the evidence prove nothing. To
enrol a host, keep the ak.pub that it collected when you knew it to be good.
Entries after the quoted state are reported as unproven.`,
		Args: cobra.MaximumNArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&c.lists, "lists", "", "`directory` of digest lists")
	f.StringArrayVar(&c.keyrings, "keyring", nil, "believe lists signed by the OpenPGP keys in this `file` or directory (repeatable)")
	f.BoolVar(&c.allowUnsigned, "allow-unsigned", false, "believe lists that nobody signed too")
	f.BoolVar(&c.allowWeak, "allow-weak", false, "believe list signatures over MD5 and SHA-1 too")
	f.StringVar(&c.nonce, "nonce", "", "what the host was asked, in `hex`")
	f.StringVar(&c.ak, "ak", "", "the host's attestation key: `file` with a TPMT_PUBLIC, TPM2B_PUBLIC or PEM public key")
	f.StringVar(&c.violations, "violations", "deny", "violations in the IMA log: deny, or report and go on")
	f.StringVar(&c.padded, "padded", "deny", "PCRs that a kernel before 5.8 extends with SHA-1 filled up with zeros: deny, or report and go on")
	f.StringVar(&c.firmware, "firmware", "", "`PCRs` whose values the firmware log has to explain, e.g. 0-7,9")
	f.BoolVar(&c.secureBoot, "secure-boot", false, "want Secure Boot to be on; needs 7 among the PCRs of --firmware")
	f.StringVar(&c.checkpoint, "checkpoint", "", "`file` that says how far this host's log was proven, written when it is trusted")
	f.BoolVar(&c.json, "json", false, "answer as JSON")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "name the known files too, and the packages that they came from")
	f.StringVar(&c.quote, "quote", "", "quote `file`, instead of the evidence's "+quoteFile)
	f.StringVar(&c.signature, "signature", "", "signature `file`, instead of the evidence's "+signatureFile)
	f.StringVar(&c.pcrs, "pcrs", "", "PCR values `file`, instead of the evidence's "+pcrsFile)
	f.StringVar(&c.ima, "ima-log", "", "IMA log `file`, instead of the evidence's "+imaFile)
	f.StringVar(&c.bios, "firmware-log", "", "firmware log `file`, instead of the evidence's "+firmwareFile)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a := answer{}
		err := c.run(args, &a)
		for _, r := range a.refused() {
			fmt.Fprintf(cmd.ErrOrStderr(), "refused: %s: %s\n", cli.Text(r.List), cli.Text(r.Error))
		}
		if a.Lists != nil && a.Lists.Unsigned > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s that nobody signed believed, because of --allow-unsigned\n", cli.Plural(a.Lists.Unsigned, "list"))
		}
		if a.Lists != nil && a.Lists.Weak > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s with a weak signature believed, because of --allow-weak\n", cli.Plural(a.Lists.Weak, "list"))
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

// answer is what check prints as JSON.
type answer struct {
	Evidence string `json:"evidence,omitempty"`
	attest.Verdict
	Lists *lists `json:"lists,omitempty"`
	Error string `json:"error,omitempty"`
}

func (a *answer) refused() []refusedList {
	if a.Lists == nil {
		return nil
	}
	return a.Lists.Refused
}

// writeJSON prints empty arrays where there is nothing, never null.
func (a *answer) writeJSON(w io.Writer) error {
	a.Findings = append([]attest.Finding{}, a.Findings...)
	a.Known = append([]attest.Measured{}, a.Known...)
	a.Firmware = append([]attest.Register{}, a.Firmware...)
	a.Unproven = append([]attest.Measured{}, a.Unproven...)
	return cli.WriteJSON(w, a)
}

// run fills the answer. The error is about what the user gave, not about what
// the host did.
func (c *check) run(args []string, a *answer) (err error) {
	pol := policy.Policy{Bank: digest.SHA256, PCR: policy.IMAPCR}
	for _, choice := range []struct {
		name, value string
		report      *bool
	}{{"violations", c.violations, &pol.ReportViolations}, {"padded", c.padded, &pol.ReportPadded}} {
		switch choice.value {
		case "deny":
		case "report":
			*choice.report = true
		default:
			return fmt.Errorf("%s %q: deny and report are known", choice.name, choice.value)
		}
	}
	if c.bios != "" && c.firmware == "" {
		return cli.Hint(errors.New("a firmware log, and no PCR that it has to explain"), "give them with --firmware, e.g. 0-7")
	}
	if c.firmware != "" {
		if pol.Firmware, err = parsePCRs(c.firmware); err != nil {
			return err
		}
	}
	if pol.SecureBoot = c.secureBoot; c.secureBoot && !slices.Contains(pol.Firmware, 7) {
		return cli.Hint(errors.New("the firmware log is not to explain PCR 7, to which Secure Boot is measured"), "give --firmware 0-7 too")
	}
	if c.nonce == "" {
		return cli.Hint(errors.New("no nonce: nothing would say that the evidence is fresh"),
			"give with --nonce what the host was asked; the %s that it sent is not that", nonceFile)
	}
	var ch attest.Challenge
	if ch.Nonce, err = parseNonce(c.nonce, 1); err != nil {
		return err
	}
	if c.ak != "" {
		if ch.AK, err = readFile(c.ak, maxSmall); err != nil {
			return fmt.Errorf("attestation key: %w", err)
		}
	}
	ev, err := c.evidence(args, pol.Firmware)
	if err != nil {
		return err
	}
	log, done, err := c.imaLog(args)
	if err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	defer func() { err = errors.Join(err, done()) }()
	ev.IMALog = log
	if len(args) == 1 {
		a.Evidence = args[0]
	}
	if a.Lists, err = c.loadLists(); err != nil {
		return err
	}
	pol.Known = a.Lists.known
	if pol.Known.Len() == 0 {
		return cli.Hint(errors.New("lists: no list is believed"), "the lists need a signature by a key given with --keyring")
	}
	if c.checkpoint != "" {
		if ch.Checkpoint, err = readCheckpoint(c.checkpoint); err != nil {
			return err
		}
	}
	a.Verdict = attest.Judge(ev, ch, &pol)
	if c.checkpoint != "" && a.Verdict.Checkpoint != nil {
		return writeCheckpoint(c.checkpoint, a.Verdict.Checkpoint)
	}
	return nil
}

// evidence reads the files, the firmware's log if PCRs want it. One that is not
// there is missing evidence, for Judge to say; one that was named must be there.
func (c *check) evidence(args []string, pcrs []int) (attest.Evidence, error) {
	var ev attest.Evidence
	for _, part := range []struct {
		to          *[]byte
		named, name string
		limit       int64
	}{
		{&ev.Quote, c.quote, quoteFile, maxSmall},
		{&ev.Signature, c.signature, signatureFile, maxSmall},
		{&ev.PCRs, c.pcrs, pcrsFile, maxSmall},
		{&ev.Firmware, c.bios, firmwareFile, eventlog.MaxLog},
		{&ev.AK, "", akFile, maxSmall},
	} {
		path := part.named
		if path == "" && part.name == firmwareFile && len(pcrs) == 0 {
			continue
		}
		if path == "" {
			if len(args) == 0 && part.name == akFile {
				continue // only a directory has one
			}
			if len(args) == 0 {
				return ev, notGiven(part.name)
			}
			path = filepath.Join(args[0], part.name)
		}
		b, err := readFile(path, part.limit)
		if err != nil && (part.named != "" || !errors.Is(err, fs.ErrNotExist)) {
			return ev, fmt.Errorf("evidence: %w", err)
		}
		*part.to = b
	}
	return ev, nil
}

func notGiven(name string) error {
	return cli.Hint(fmt.Errorf("no %s", name), "give an evidence directory, or --quote, --signature, --pcrs, --ima-log, and for --firmware --firmware-log")
}

// imaLog opens the IMA log. It is nil if the evidence has none.
func (c *check) imaLog(args []string) (log io.ReaderAt, done func() error, err error) {
	path := c.ima
	if path == "" {
		if len(args) == 0 {
			return nil, nil, notGiven(imaFile)
		}
		path = filepath.Join(args[0], imaFile)
	}
	log, done, err = openLog(path)
	if errors.Is(err, fs.ErrNotExist) && c.ima == "" {
		return nil, func() error { return nil }, nil
	}
	return log, done, err
}

func (c *check) loadLists() (*lists, error) {
	if c.lists == "" {
		return nil, cli.Hint(errors.New("no digest lists: no file would be known"), "give their directory with --lists")
	}
	t := trust{keys: &keyring.Keyring{}, allowUnsigned: c.allowUnsigned, allowWeak: c.allowWeak}
	if len(c.keyrings) > 0 {
		var err error
		if t.keys, err = keyring.Load(c.keyrings...); err != nil {
			return nil, fmt.Errorf("keyring: %w", err)
		}
	} else if !c.allowUnsigned {
		return nil, cli.Hint(errors.New("no keyring: no list would be believed"), "give the vendor's public keys with --keyring, e.g. --keyring /etc/pki/rpm-gpg")
	}
	l, err := loadLists(c.lists, t)
	if err != nil {
		return nil, fmt.Errorf("lists: %w", err)
	}
	return l, nil
}
