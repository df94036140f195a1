package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"diglim/internal/attest"
	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/evidence"
	"diglim/internal/keyring"
	"diglim/internal/policy"
	"diglim/tpm"

	"github.com/spf13/cobra"
)

type check struct {
	lists         string
	keyrings      []string
	allowUnsigned bool
	allowWeak     bool
	nonce, ak     string
	last          string
	violations    string
	json, verbose bool

	quote, signature, pcrs, ima string // single files
}

func checkCommand() *cobra.Command {
	var c check
	cmd := &cobra.Command{
		Use:   "check --lists DIR --keyring FILE|DIR --nonce HEX --ak FILE [flags] [EVIDENCE]",
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
	f.StringVar(&c.lists, "lists", "", "`directory` of digest lists")
	f.StringArrayVar(&c.keyrings, "keyring", nil, "believe lists signed by the OpenPGP keys in this `file` or directory (repeatable)")
	f.BoolVar(&c.allowUnsigned, "allow-unsigned", false, "believe lists that nobody signed too")
	f.BoolVar(&c.allowWeak, "allow-weak", false, "believe list signatures over MD5 and SHA-1 too")
	f.StringVar(&c.nonce, "nonce", "", "what the host was asked, in `hex`")
	f.StringVar(&c.ak, "ak", "", "the host's attestation key: `file` with a TPMT_PUBLIC, TPM2B_PUBLIC, PEM public key or X.509 certificate")
	f.StringVar(&c.last, "last", "", "`file` that keeps what the host's TPM was last seen to be; made the first time")
	f.StringVar(&c.violations, "violations", "deny", "violations in the IMA log: deny, or report and go on")
	f.BoolVar(&c.json, "json", false, "answer as JSON")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "name the known files too, and the packages that they came from")
	f.StringVar(&c.quote, "quote", "", "quote `file`, instead of the evidence's "+evidence.QuoteFile)
	f.StringVar(&c.signature, "signature", "", "signature `file`, instead of the evidence's "+evidence.SignatureFile)
	f.StringVar(&c.pcrs, "pcrs", "", "PCR values `file`, instead of the evidence's "+evidence.PCRsFile)
	f.StringVar(&c.ima, "ima-log", "", "IMA log `file`, instead of the evidence's "+evidence.IMAFile)
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
	a.Unproven = append([]attest.Measured{}, a.Unproven...)
	return cli.WriteJSON(w, a)
}

// run fills the answer. The error is about what the user gave, not about what
// the host did.
func (c *check) run(args []string, a *answer) error {
	pol := policy.Policy{Bank: digest.SHA256, PCR: policy.IMAPCR}
	switch c.violations {
	case "deny":
	case "report":
		pol.ReportViolations = true
	default:
		return fmt.Errorf("violations %q: deny and report are known", c.violations)
	}
	if c.nonce == "" {
		return cli.Hint(errors.New("no nonce: nothing would say that the evidence is fresh"),
			"give with --nonce what the host was asked; the %s that it sent is not that", evidence.NonceFile)
	}
	var ch attest.Challenge
	var err error
	if ch.Nonce, err = parseNonce(c.nonce, 1); err != nil {
		return err
	}
	if c.ak != "" {
		if ch.AK, err = readFile(c.ak, maxSmall); err != nil {
			return fmt.Errorf("attestation key: %w", err)
		}
	}
	if c.last != "" {
		ch.Now = time.Now().UTC()
		if ch.Last, err = readLast(c.last); err != nil {
			return err
		}
	}
	ev, err := c.evidence(args, tpm.PCR{Bank: pol.Bank, Index: pol.PCR})
	if err != nil {
		return err
	}
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
	a.Verdict = attest.Judge(ev, ch, &pol)
	if c.last != "" && a.Seen != nil {
		return writeLast(c.last, a.Seen)
	}
	return nil
}

// evidence reads the bundle, and instead of parts of it single files. What is
// not in the bundle is missing evidence, for Judge to say; a file that was named
// must be there.
func (c *check) evidence(args []string, pcr tpm.PCR) (attest.Evidence, error) {
	var ev attest.Evidence
	if len(args) == 1 {
		b, err := readBundle(args[0])
		if err != nil {
			return ev, fmt.Errorf("evidence: %w", err)
		}
		ev = b.For(pcr)
	}
	for _, part := range []struct {
		to         *[]byte
		path, name string
		limit      int64
	}{
		{&ev.Quote, c.quote, evidence.QuoteFile, maxSmall},
		{&ev.Signature, c.signature, evidence.SignatureFile, maxSmall},
		{&ev.PCRs, c.pcrs, evidence.PCRsFile, maxSmall},
		{&ev.IMALog, c.ima, evidence.IMAFile, maxLog},
	} {
		if part.path == "" {
			if len(args) == 0 {
				return ev, cli.Hint(fmt.Errorf("no %s", part.name), "give the evidence, or --quote, --signature, --pcrs and --ima-log")
			}
			continue
		}
		b, err := readFile(part.path, part.limit)
		if err != nil {
			return ev, fmt.Errorf("evidence: %w", err)
		}
		*part.to = b
	}
	ev.Quote, ev.Signature = evidence.Attest(ev.Quote), evidence.Signature(ev.Signature)
	return ev, nil
}

// readBundle reads an evidence directory, or evidence in one file.
func readBundle(path string) (*evidence.Bundle, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		b, err := readFile(path, maxLog)
		if err != nil {
			return nil, err
		}
		bundle, err := evidence.Parse(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return bundle, nil
	}
	files := map[string][]byte{}
	for name, limit := range map[string]int64{
		evidence.QuoteFile: maxSmall, evidence.SignatureFile: maxSmall, evidence.PCRsFile: maxSmall,
		evidence.AKFile: maxSmall, evidence.IMAFile: maxLog,
	} {
		b, err := readFile(filepath.Join(path, name), limit)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[name] = b
	}
	return evidence.FromFiles(files), nil
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
