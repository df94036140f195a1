package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diglim/internal/attest"
	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm"

	"github.com/spf13/cobra"
)

type policyInit struct {
	output, ak string
	lists      listFlags
}

func policyInitCommand() *cobra.Command {
	var p policyInit
	cmd := &cobra.Command{
		Use:   "init --output FILE --lists DIR --keyring FILE|DIR [--ak FILE] EVIDENCE",
		Short: "write a first policy from a host's evidence",
		Long: `Verifies the evidence's quote, looks every file of the IMA log up in the digest
lists, and writes a policy that asks of a host what this one shows. What nobody
can know from evidence stands in it as a comment, and is said at the end: whether
the host was good, whose the key is, what the files are that no list has.

The policy is for hosts of the same kind: PCR values differ between kinds of
firmware.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return p.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&p.output, "output", "", "write the policy to this `file`, which must be new")
	f.StringVar(&p.ak, "ak", "", "the host's attestation key, to be named in the policy: `file` in a form that check takes")
	p.lists.add(cmd)
	return cmd
}

func (p *policyInit) run(cmd *cobra.Command, path string) (err error) {
	if p.output == "" {
		return errors.New("no file for the policy: give --output")
	}
	asked := p.lists.policy()
	bundle, done, err := readBundle(path)
	if err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	defer func() { err = errors.Join(err, done()) }()
	ev := bundle.For(tpm.PCR{Bank: asked.Bank, Index: asked.PCR})
	ak := ev.AK
	if p.ak != "" {
		if ak, err = readFile(p.ak, maxSmall); err != nil {
			return fmt.Errorf("attestation key: %w", err)
		}
	}
	pcrs, q, err := verified(ev, ak)
	if err != nil {
		return fmt.Errorf("evidence: %s: %w", path, err)
	}
	l, err := knownFiles(asked)
	if err != nil {
		return err
	}
	// Judged as strictly as can be, to see what the evidence shows.
	for i := range platformPCRs {
		if _, ok := pcrs.Value(asked.Bank, i); ok {
			asked.Firmware = append(asked.Firmware, i)
			asked.SecureBoot = i == policy.SecureBootPCR
		}
	}
	g := readGRUB(ev.Firmware, asked.Bank)
	if g != nil && g.quoted(pcrs, asked.Bank) {
		g.ask(asked)
	}
	v := attest.Judge(ev, attest.Challenge{Nonce: q.Nonce, AK: ak}, &asked.Policy)
	if v.Proven == 0 {
		return cli.Hint(fmt.Errorf("evidence: %s: no entry of the log is proven", path), "attest-verify check says what is wrong with it")
	}
	w := writer{dir: filepath.Dir(p.output)}
	w.policy(p, asked, pcrs, q, v, g)
	if _, err := policy.ParseFile(w.Bytes()); err != nil {
		return fmt.Errorf("the policy that was made: %w", err)
	}
	if err := writeOnce(p.output, w.Bytes()); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "wrote %s: %s known of %s proven, %s from %s\n", cli.Text(p.output),
		cli.Count(len(v.Known)), logEntries(v.Proven), cli.Plural(asked.Digests(), "digest"), cli.Plural(l.Accepted, "list"))
	for _, unknown := range w.unknown {
		fmt.Fprintf(out, "not known: %s\n", unknown)
	}
	return nil
}

// verified verifies the quote of evidence by its own nonce: that it is fresh
// nobody can say.
func verified(ev attest.Evidence, ak []byte) (*tpm.PCRs, *tpm.Quote, error) {
	if len(ak) == 0 {
		return nil, nil, cli.Hint(errors.New("no attestation key"), "give it with --ak")
	}
	key, err := tpm.ParsePublic(ak)
	if err != nil {
		return nil, nil, err
	}
	q, err := tpm.ParseQuote(ev.Quote)
	if err != nil {
		return nil, nil, err
	}
	sig, err := tpm.ParseSignature(ev.Signature)
	if err != nil {
		return nil, nil, err
	}
	values, err := tpm.ParseValues(ev.PCRs, q.Selection)
	if err != nil {
		return nil, nil, err
	}
	pcrs, err := q.Verify(sig, key, q.Nonce, values)
	return pcrs, q, err
}

// writeOnce writes a file that must be new.
func writeOnce(path string, b []byte) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return cli.Hint(errors.Join(fmt.Errorf("%s is there already", path), err), "a policy that somebody worked on is never written over")
	}
	return writeFile(path, b)
}

const platformPCRs = 8 // PCRs 0 to 7 are the firmware's

// steady are PCRs that change when the firmware or its settings for Secure Boot
// do, and seldom else (PC Client Platform Firmware Profile section 2.3.4). The
// others change with every boot loader and kernel, or with what is plugged in.
const steady = 1<<0 | 1<<2 | 1<<7

// maxUnknown is how many unknown files a first policy lists: with more, lists
// are missing, not rules.
const maxUnknown = 100

// A writer writes a policy, and collects what it could not know.
type writer struct {
	bytes.Buffer
	dir     string // that the policy's paths are relative to
	unknown []string
}

func (w *writer) line(format string, args ...any) {
	fmt.Fprintf(w, format, args...)
	w.WriteByte('\n')
}

// ask writes a remark, and keeps it for the user to be told.
func (w *writer) ask(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.unknown = append(w.unknown, text)
	w.line("# not known: %s", text)
}

// path is a path as it stands in the policy.
func (w *writer) path(p string) string {
	if !filepath.IsAbs(p) {
		if rel, err := filepath.Rel(w.dir, p); err == nil {
			p = rel
		}
	}
	if strings.ContainsAny(p, " \t\"#") || cli.Text(p) != p {
		return fmt.Sprintf("%q", p)
	}
	return p
}

func (w *writer) policy(p *policyInit, asked *policy.File, pcrs *tpm.PCRs, q *tpm.Quote, v attest.Verdict, g *grubBoot) {
	w.line("# A first policy, from the evidence of one host. Read it before you rely on it.")
	w.line("policy 1")
	w.line("serial 1")
	w.line("")
	w.ask("whether the host was good when it collected the evidence, and when that was")
	w.line("")
	w.line("ima %s:%d", asked.Bank, asked.PCR)
	for _, dir := range asked.Lists {
		w.line("lists %s", w.path(dir))
	}
	for _, k := range asked.Keyrings {
		w.line("keyring %s", w.path(k))
	}
	if asked.AllowUnsigned {
		w.line("unsigned-lists accept")
	}
	if asked.AllowWeak {
		w.line("weak-signatures accept")
	}
	w.line("")
	w.key(p.ak, v)
	w.line("")
	w.boot(asked.Bank, pcrs, q)
	w.line("")
	if w.firmware(asked.Firmware, v) && g != nil {
		w.line("")
		if g.quoted(pcrs, asked.Bank) {
			w.grub(g, v)
		} else {
			w.ask("what GRUB did: PCRs %d, %d and %d are not all quoted", policy.BootLoaderPCR, policy.CommandPCR, policy.FilePCR)
		}
	}
	w.line("")
	w.files(v)
}

func (w *writer) key(ak string, v attest.Verdict) {
	w.ask("whether the attestation key is in a TPM of yours, which is for enrolment to prove")
	switch {
	case ak == "":
		w.line("# The quote is signed with the key that came with it. Keep that key, if you know")
		w.line("# that it is this host's, and name it here or with --ak:")
		w.line("# ak FILE")
	default:
		w.line("ak %s", w.path(ak))
	}
	if v.Name != "" {
		w.line("ak-attributes required")
	} else {
		w.ask("what the attestation key may sign: it came without its TPM public area")
	}
}

func (w *writer) boot(bank digest.Algorithm, pcrs *tpm.PCRs, q *tpm.Quote) {
	for _, s := range q.Selection {
		var indices []string
		for i := range tpm.PCRCount {
			if s.Mask&(1<<i) != 0 {
				indices = append(indices, fmt.Sprint(i))
			}
		}
		if len(indices) == 0 { // a bank that the TPM has not allocated
			continue
		}
		w.line("quoted %s:%s", s.Bank, strings.Join(indices, ","))
	}
	var extended, missing []string
	values := map[int]digest.Digest{}
	for i := range platformPCRs {
		value, ok := pcrs.Value(bank, i)
		switch {
		case !ok:
			missing = append(missing, fmt.Sprint(i))
		case attest.NeverExtended(value):
			w.ask("what the host was booted with: %s was never extended, so that anybody could have extended it", tpm.PCR{Bank: bank, Index: i})
		default:
			extended = append(extended, fmt.Sprint(i))
			values[i] = value
		}
	}
	if len(missing) > 0 {
		w.ask("what the host was booted with: PCRs %s of the %s bank are not quoted", strings.Join(missing, ","), bank)
	}
	if len(extended) > 0 {
		w.line("extended %s:%s", bank, strings.Join(extended, ","))
		w.line("# The values of this host. Those that are comments change with every boot loader,")
		w.line("# kernel or setting; several values may stand in one statement.")
	}
	for i := range platformPCRs {
		value, ok := values[i]
		if !ok {
			continue
		}
		comment := ""
		if steady&(1<<i) == 0 {
			comment = "# "
		}
		w.line("%spcr %s:%d %s %q", comment, bank, i, value.Hex(), meaning[i])
	}
	w.line("tpm-firmware at-least %#016x", q.Firmware)
}

// firmware writes what the firmware's log shows of the PCRs that were asked for,
// and returns whether it explains them.
func (w *writer) firmware(asked []int, v attest.Verdict) bool {
	var explained []string
	for _, r := range v.Firmware {
		explained = append(explained, fmt.Sprint(r.PCR))
	}
	bad, secureBoot := "", "whether Secure Boot was on: nothing proven says so"
	on := slices.ContainsFunc(v.Firmware, func(r attest.Register) bool { return r.PCR == policy.SecureBootPCR })
	for _, f := range v.Findings {
		switch f.Code {
		case attest.FirmwareDiffers, attest.FirmwareBank, attest.UnknownEvent, attest.LateEvent:
			bad = f.Why
		case attest.Missing, attest.Malformed:
			bad = f.Why // the quote is good and the log is proven, so that it is the firmware's
		case attest.NoSecureBoot:
			on, secureBoot = false, "whether Secure Boot should be on: it was off"
		case attest.SecureBootState:
			on, secureBoot = false, "whether Secure Boot was on: "+f.Why
		}
	}
	if bad == "" && (len(explained) == 0 || len(explained) < len(asked)) {
		bad = "its log does not explain every PCR"
	}
	if bad != "" {
		w.ask("what the firmware did: %s", bad)
		w.line("# firmware-log 0-7")
		w.line("# secure-boot required")
		return false
	}
	w.line("firmware-log %s", strings.Join(explained, ","))
	if !on {
		w.ask("%s", secureBoot)
		w.line("# secure-boot required")
		return true
	}
	w.line("secure-boot required")
	return true
}

// meaning is what a PCR is for (PC Client Platform Firmware Profile section
// 2.3.4).
var meaning = [platformPCRs]string{
	"firmware", "settings of the firmware", "option ROMs", "settings of option ROMs",
	"boot loader", "settings of the boot loader and partitions", "power states", "Secure Boot keys and settings",
}

func (w *writer) files(v attest.Verdict) {
	w.line("violations deny")
	w.line("unknown-files deny")
	files, violations := 0, map[attest.Path]bool{}
	for _, f := range v.Findings {
		switch {
		case f.Unproven:
		case f.Code == attest.Violation && !violations[f.Path]:
			violations[f.Path] = true
			w.ask("who writes %s while others read it: a violation, which is a reason for distrust", f.Path)
		case f.Code == attest.UnknownFile:
			if files++; files > maxUnknown {
				continue
			}
			w.ask("what %s is, entry %d of the log: it is in no list", f.Path, f.Entry)
			w.line("# file %s at %q \"REASON\"", f.Digest, string(f.Path))
		}
	}
	if files > maxUnknown {
		w.ask("what %s more are: lists seem to be missing", cli.Plural(files-maxUnknown, "file"))
	}
}
