package main

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/cms"
	"diglim/internal/durable"
	"diglim/internal/modsig"

	"github.com/spf13/cobra"
)

var errSigned = errors.New("already signed")

func signCommand() *cobra.Command {
	var key, cert, hash string
	cmd := &cobra.Command{
		Use:   "sign --key FILE --cert FILE LIST...",
		Short: "append a signature to compact and tlv lists",
		Long: `Appends to each list a signature that the kernel checks as it checks those of
modules: what the kernel's scripts/sign-file appends, PKCS#7 without signed
attributes. The certificate is not in it: the kernel looks for it in its
keyrings, and verify in what --cert names.

A list that is signed already is refused, and so is an rpm list, whose signature
is the vendor's. The file is replaced in one step.`,
		Args: cobra.MinimumNArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "sign with the private key in this PEM `file`: RSA or ECDSA")
	f.StringVar(&cert, "cert", "", "certificate of the key, PEM or DER; the kernel's certs/signing_key.pem is a `file` for both")
	f.StringVar(&hash, "hash", "sha256", "sign over this hash: sha256, sha384 or sha512")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := newSigner(key, cert, hash)
		if err != nil {
			return err
		}
		code := cli.Yes
		for _, path := range args {
			if err := s.sign(path); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "refused: %s\n", cli.Text(err.Error()))
				code = cli.Worse(code, codeFor(err))
				continue
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "signed  %s   by %s\n", cli.Text(path), certText(s.cert)); err != nil {
				return err
			}
		}
		return cli.Exit(code)
	}
	return cmd
}

// signer appends signatures to lists.
type signer struct {
	key  crypto.Signer
	cert *x509.Certificate
	hash crypto.Hash
}

func newSigner(keyFile, certFile, hash string) (*signer, error) {
	if keyFile == "" || certFile == "" {
		return nil, errors.New("--key and --cert are needed")
	}
	s := &signer{hash: cms.Hashes[hash]}
	if s.hash == 0 {
		return nil, fmt.Errorf("hash %q is not known: sha256, sha384 and sha512 are", hash)
	}
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	if s.key, err = cms.ParseKey(text); err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	certs, err := readCertificates(certFile)
	if err != nil {
		return nil, err
	}
	s.cert = certs[0]
	// Whether they belong together is to be known before the first list.
	if _, err := cms.Sign(nil, s.key, s.cert, s.hash); err != nil {
		return nil, fmt.Errorf("%s, %s: %w", keyFile, certFile, err)
	}
	return s, nil
}

func (s *signer) sign(path string) error {
	b, format, err := digestlist.ReadFile(path)
	if err != nil {
		return err
	}
	_, _, err = modsig.Split(b)
	switch {
	case err == nil:
		return fmt.Errorf("%s: %w", path, errSigned)
	case !errors.Is(err, modsig.ErrNone):
		return fmt.Errorf("%s: %w", path, err)
	case format == digestlist.FormatRPM:
		return fmt.Errorf("%s: an rpm list is signed by its vendor or not at all", path)
	case len(b) == 0:
		return fmt.Errorf("%s: empty list", path)
	}
	sig, err := cms.Sign(b, s.key, s.cert, s.hash)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	dir, err := durable.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	signed := modsig.Append(bytes.Clone(b), modsig.Signature{Type: modsig.PKCS7, Bytes: sig})
	_, err = dir.Write(filepath.Base(path), signed)
	return errors.Join(err, dir.Close())
}

// verifySigned checks the appended signature of a compact or tlv list.
func verifySigned(b []byte, certs []*x509.Certificate) (*x509.Certificate, error) {
	payload, sig, err := modsig.Split(b)
	switch {
	case err != nil:
		return nil, err
	case sig.Type != modsig.PKCS7:
		return nil, fmt.Errorf("%w: not PKCS#7", cms.ErrMalformed)
	}
	return cms.Verify(payload, sig.Bytes, certs)
}

func readCertificates(files ...string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		c, err := cms.ParseCertificates(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		certs = append(certs, c...)
	}
	return certs, nil
}

func certText(cert *x509.Certificate) string {
	return fmt.Sprintf("%s, serial number %x", cli.Text(cert.Subject.String()), cert.SerialNumber)
}
