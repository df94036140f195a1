package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/durable"
	"diglim/internal/evidence"
	"diglim/internal/kernel"
	"diglim/tpm"

	"github.com/spf13/cobra"
)

const (
	imaLog      = kernel.Securityfs + "/ima/binary_runtime_measurements"
	firmwareLog = kernel.Securityfs + "/tpm0/binary_bios_measurements"
	systemdLog  = "/run/log/systemd/tpm2-measure.log"
	diglimLog   = "/run/log/diglim/measure.cel"
)

const (
	minNonce = 16 // bytes: what no two sessions have in common
	maxNonce = 64 // what a TPM takes at most
)

type collection struct {
	output, device  string
	nonce, pcrs     string
	banks           []string
	separate        bool
	keyType         string
	ima, firmware   string
	systemd, diglim string
	selected        tpm.Selection // in every bank
	challenge       []byte
	files           map[string][]byte
}

func collectCommand() *cobra.Command {
	var c collection
	cmd := &cobra.Command{
		Use:   "collect --output DIR [--nonce HEX] [flags]",
		Short: "collect this host's evidence: a quote and the logs of what was measured",
		Long: `Has the TPM quote PCRs of all its banks in answer to the nonce, then copies
the logs of IMA, of the firmware, of systemd and of diglim-upload. The attestation key is a primary key of the endorsement hierarchy: the
same TPM makes the same key every time, and its public half, ak.pub, is what the
verifier enrolls once.

Without --nonce the host makes one up, and a quote that answers it proves to
nobody else that it is fresh.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&c.output, "output", "", "write the evidence to this `directory`, which must be new or empty")
	f.StringVar(&c.nonce, "nonce", "", "the verifier's challenge, in `hex`, 16 to 64 bytes")
	f.StringVar(&c.pcrs, "pcrs", "0-15", "PCRs to quote, e.g. 0-7,10")
	f.StringArrayVar(&c.banks, "bank", nil, "quote this `bank`, such as sha256, and not all that the TPM has (repeatable)")
	f.BoolVar(&c.separate, "separate", false, "make a quote a bank, for a TPM or a verifier that takes no more")
	f.StringVar(&c.device, "device", "/dev/tpmrm0", "TPM device, or unix socket of a software TPM")
	f.StringVar(&c.keyType, "key-type", "rsa", "attestation key: rsa (2048, RSASSA) or ecc (P-256, ECDSA)")
	f.StringVar(&c.ima, "ima-log", imaLog, "IMA log to copy")
	f.StringVar(&c.firmware, "firmware-log", firmwareLog, "firmware log to copy, if there is one")
	f.StringVar(&c.systemd, "systemd-log", systemdLog, "log of systemd's measurements to copy, if there is one")
	f.StringVar(&c.diglim, "diglim-log", diglimLog, "log of diglim-upload's measurements to copy, if there is one")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if err := c.prepare(); err != nil {
			return err
		}
		if c.ima == imaLog || c.firmware == firmwareLog {
			undo, err := kernel.EnsureMounted()
			defer func() { err = errors.Join(err, undo()) }()
			if err != nil {
				return cli.Hint(err, "run this as root")
			}
		}
		if err := c.collect(); err != nil {
			return err
		}
		if err := writeNew(c.output, c.files); err != nil {
			return err
		}
		return c.report(cmd)
	}
	return cmd
}

// prepare reads the flags.
func (c *collection) prepare() (err error) {
	if c.output == "" {
		return errors.New("no directory for the evidence: give --output")
	}
	indices, err := tpm.ParseIndices(c.pcrs)
	if err != nil {
		return err
	}
	var mask uint32
	for _, i := range indices {
		mask |= 1 << i
	}
	c.selected = tpm.Selection{{Mask: mask}} // of all banks, if none is named
	for i, name := range c.banks {
		bank, err := digest.ByName(name)
		if _, ok := bank.TPM(); err != nil || !ok {
			return fmt.Errorf("bank %q: no TPM has such a one", name)
		}
		if slices.Index(c.banks, name) < i {
			return fmt.Errorf("bank %s is asked for twice", name)
		}
		if i == 0 {
			c.selected = nil
		}
		c.selected = append(c.selected, tpm.BankSelection{Bank: bank, Mask: mask})
	}
	if c.nonce == "" {
		c.challenge = make([]byte, 32)
		rand.Read(c.challenge) // never fails
		return nil
	}
	c.challenge, err = parseNonce(c.nonce, minNonce)
	return err
}

// parseNonce reads the one form of a nonce: hexadecimal. What is collected
// answers a long one; what is checked may answer what another tool was asked.
func parseNonce(text string, least int) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	if len(b) < least || len(b) > maxNonce {
		return nil, fmt.Errorf("nonce of %d bytes, must be %d to %d", len(b), least, maxNonce)
	}
	return b, nil
}

// collect quotes, then reads the logs: in this order the log may be ahead of
// the quote, and is never behind it.
func (c *collection) collect() (err error) {
	t, err := openTPM(c.device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	unlock, err := lockShared(c.systemd)
	if err != nil {
		return fmt.Errorf("systemd's log: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if len(c.banks) == 0 {
		banks, err := activeBanks(t)
		if err != nil {
			return err
		}
		mask := c.selected[0].Mask
		c.selected = nil
		for _, bank := range banks {
			c.selected = append(c.selected, tpm.BankSelection{Bank: bank, Mask: mask})
		}
	}
	selections, names := []tpm.Selection{c.selected}, []string{evidence.QuoteName}
	if c.separate {
		selections, names = nil, nil
		for _, one := range c.selected {
			selections, names = append(selections, tpm.Selection{one}), append(names, evidence.BankName(one.Bank))
		}
	}
	q, err := quote(t, c.keyType, c.challenge, selections...)
	if err != nil {
		return err
	}
	c.files = map[string][]byte{
		evidence.AKFile:    q.public,
		evidence.AKPEMFile: q.pem,
		evidence.NonceFile: []byte(hex.EncodeToString(c.challenge) + "\n"),
	}
	for i, one := range q.each {
		c.files[names[i]+evidence.QuoteSuffix] = one.attest
		c.files[names[i]+evidence.SignatureSuffix] = one.signature
		c.files[names[i]+evidence.PCRsSuffix] = one.values
	}
	if c.files[evidence.IMAFile], err = readFile(c.ima, maxLog); err != nil {
		return cli.Hint(fmt.Errorf("IMA log: %w", err), "boot with ima_policy=tcb, or say where the log is with --ima-log")
	}
	for _, log := range []struct {
		what, path, usual, name string
	}{
		{"firmware log", c.firmware, firmwareLog, evidence.FirmwareFile},
		{"systemd's log", c.systemd, systemdLog, evidence.SystemdFile},
		{"diglim's log", c.diglim, diglimLog, evidence.DiglimFile},
	} {
		b, err := readFile(log.path, evidence.Limit(log.name))
		switch {
		case err == nil:
			c.files[log.name] = b
		case log.path != log.usual || !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%s: %w", log.what, err)
		}
	}
	return nil
}

// writeNew makes a directory with the files in it, all or none: written and
// synced under another name, then renamed.
func writeNew(dir string, files map[string][]byte) (err error) {
	dir = filepath.Clean(dir)
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return cli.Hint(fmt.Errorf("%s is not empty", dir), "evidence is never mixed: give a new directory")
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temporary))
		}
	}()
	if err := os.Chmod(temporary, 0o755); err != nil {
		return err
	}
	d, err := durable.Open(temporary)
	if err != nil {
		return err
	}
	for name, data := range files {
		if _, err := d.Write(name, data); err != nil {
			return errors.Join(err, d.Close())
		}
	}
	if err := d.Close(); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // it is empty
		return err
	}
	if err := os.Rename(temporary, dir); err != nil {
		return err
	}
	return durable.Sync(filepath.Dir(dir))
}

func (c *collection) report(cmd *cobra.Command) error {
	var banks []string
	for _, b := range c.selected {
		banks = append(banks, b.Bank.String())
	}
	copied := ""
	for _, log := range []struct{ what, name string }{
		{"firmware log", evidence.FirmwareFile}, {"systemd's log", evidence.SystemdFile}, {"diglim's log", evidence.DiglimFile},
	} {
		if b, ok := c.files[log.name]; ok {
			copied += fmt.Sprintf(", %s of %s bytes", log.what, cli.Count(len(b)))
		} else if log.name == evidence.FirmwareFile {
			copied += ", no firmware log"
		}
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "wrote %s: quote over PCRs %s (%s), IMA log of %s bytes%s\n",
		cli.Text(c.output), c.pcrs, strings.Join(banks, ", "), cli.Count(len(c.files[evidence.IMAFile])), copied)
	if err == nil && c.nonce == "" {
		_, err = fmt.Fprintln(cmd.ErrOrStderr(), "warning: the nonce is this host's own: nobody else can tell that the quote is fresh")
	}
	return err
}
