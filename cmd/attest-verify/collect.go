package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"diglim/internal/cli"
	"diglim/internal/durable"
	"diglim/internal/evidence"
	"diglim/internal/kernel"
	"diglim/tpm"

	"github.com/spf13/cobra"
)

const (
	imaLog      = kernel.Securityfs + "/ima/binary_runtime_measurements"
	firmwareLog = kernel.Securityfs + "/tpm0/binary_bios_measurements"
)

const (
	minNonce = 16 // bytes: what no two sessions have in common
	maxNonce = 64 // what a TPM takes at most
)

type collection struct {
	output, device string
	nonce, pcrs    string
	keyType        string
	ima, firmware  string
	selected       []int
	challenge      []byte
	files          map[string][]byte
}

func collectCommand() *cobra.Command {
	var c collection
	cmd := &cobra.Command{
		Use:   "collect --output DIR [--nonce HEX] [flags]",
		Short: "collect this host's evidence: a quote, the IMA log, the firmware log",
		Long: `Has the TPM quote PCRs of the sha256 bank in answer to the nonce, then copies
the logs. The attestation key is a primary key of the endorsement hierarchy: the
same TPM makes the same key every time, and its public half, ak.pub, is what the
verifier enrolls once.

Without --nonce the host makes one up, and a quote that answers it proves to
nobody else that it is fresh.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&c.output, "output", "", "write the evidence to this `directory`, which must be new or empty")
	f.StringVar(&c.nonce, "nonce", "", "the verifier's challenge, in `hex`, 16 to 64 bytes")
	f.StringVar(&c.pcrs, "pcrs", "0-10", "PCRs to quote, e.g. 0-7,10")
	f.StringVar(&c.device, "device", "/dev/tpmrm0", "TPM device, or unix socket of a software TPM")
	f.StringVar(&c.keyType, "key-type", "rsa", "attestation key: rsa (2048, RSASSA) or ecc (P-256, ECDSA)")
	f.StringVar(&c.ima, "ima-log", imaLog, "IMA log to copy")
	f.StringVar(&c.firmware, "firmware-log", firmwareLog, "firmware log to copy, if there is one")
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
	if c.selected, err = tpm.ParseIndices(c.pcrs); err != nil {
		return err
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
	q, err := quote(t, c.keyType, c.challenge, c.selected)
	if err != nil {
		return err
	}
	c.files = map[string][]byte{
		evidence.QuoteFile:     q.attest,
		evidence.SignatureFile: q.signature,
		evidence.PCRsFile:      q.values,
		evidence.AKFile:        q.public,
		evidence.AKPEMFile:     q.pem,
		evidence.NonceFile:     []byte(hex.EncodeToString(c.challenge) + "\n"),
	}
	if c.files[evidence.IMAFile], err = readFile(c.ima, maxLog); err != nil {
		return cli.Hint(fmt.Errorf("IMA log: %w", err), "boot with ima_policy=tcb, or say where the log is with --ima-log")
	}
	firmware, err := readFile(c.firmware, maxLog)
	switch {
	case err == nil:
		c.files[evidence.FirmwareFile] = firmware
	case c.firmware != firmwareLog || !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("firmware log: %w", err)
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
	firmware := "no firmware log"
	if log, ok := c.files[evidence.FirmwareFile]; ok {
		firmware = fmt.Sprintf("firmware log of %s bytes", cli.Count(len(log)))
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "wrote %s: quote over PCRs %s (sha256), IMA log of %s bytes, %s\n",
		cli.Text(c.output), c.pcrs, cli.Count(len(c.files[evidence.IMAFile])), firmware)
	if err == nil && c.nonce == "" {
		_, err = fmt.Fprintln(cmd.ErrOrStderr(), "warning: the nonce is this host's own: nobody else can tell that the quote is fresh")
	}
	return err
}
