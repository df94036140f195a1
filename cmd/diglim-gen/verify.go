package main

import (
	"crypto/x509"
	"fmt"
	"path/filepath"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/cobracli"
	"diglim/internal/keyring"

	"github.com/spf13/cobra"
)

// verified is what verify found out about one list.
type verified struct {
	List   string `json:"list"`
	OK     bool   `json:"ok"`
	Signer string `json:"signer,omitempty"`
	Weak   bool   `json:"weak,omitempty"`
	Error  string `json:"error,omitempty"`

	err error
}

func verifyCommand() *cobra.Command {
	var jsonOut bool
	var v verifier
	var certs []string
	cmd := &cobra.Command{
		Use:   "verify --keyring FILE|DIR [--cert FILE] [flags] LIST...",
		Short: "check the signatures of digest lists",
		Long: `Checks that each rpm list carries its vendor's signature, by a key of the
keyrings, and that it is the list of the package that its name says. A compact
or tlv list has to carry the appended signature that "sign" makes, by one of the
certificates; nothing says what package it is the list of.`,
		Args: cobra.MinimumNArgs(1),
	}
	f := cmd.Flags()
	f.StringArrayVar(&v.trust.keyrings, "keyring", nil, "trust the OpenPGP keys in this `file` or directory (repeatable)")
	f.BoolVar(&v.trust.allowWeak, "allow-weak", false, "take signatures over MD5 and SHA-1 too")
	f.StringArrayVar(&certs, "cert", nil, "trust the certificates in this `file`, PEM or DER, as signers of compact and tlv lists (repeatable)")
	f.BoolVar(&jsonOut, "json", false, "answer as JSON: an array of lists")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if v.certs, err = readCertificates(certs...); err != nil {
			return err
		}
		v.keys = &keyring.Keyring{}
		if len(v.trust.keyrings) > 0 || len(v.certs) == 0 {
			if v.keys, err = v.trust.load(cmd.ErrOrStderr()); err != nil {
				return err
			}
		}
		code := cli.Yes
		results := []verified{}
		for _, path := range args {
			r := v.verify(path)
			if r.err != nil {
				r.Error = r.err.Error()
				code = cli.Worse(code, codeFor(r.err))
				fmt.Fprintf(cmd.ErrOrStderr(), "refused: %s\n", cli.Text(r.Error))
			} else if !jsonOut {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "good  %s   signed by %s\n", cli.Text(path), r.Signer); err != nil {
					return err
				}
			}
			results = append(results, r)
		}
		if jsonOut {
			if err := cobracli.WriteJSON(cmd.OutOrStdout(), results); err != nil {
				return err
			}
		}
		return cli.Exit(code)
	}
	return cmd
}

// verifier knows whom to believe.
type verifier struct {
	trust trust
	keys  *keyring.Keyring
	certs []*x509.Certificate
}

func (v *verifier) verify(path string) verified {
	r := verified{List: path}
	r.err = func() error {
		b, format, err := digestlist.ReadFile(path)
		if err != nil {
			return err
		}
		if format != digestlist.FormatRPM {
			cert, err := verifySigned(b, v.certs)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			r.Signer = certText(cert)
			return nil
		}
		signer, err := v.verifyRPM(b, filepath.Base(path))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		r.Signer, r.Weak = signerText(signer), signer.Weak
		return nil
	}()
	r.OK = r.err == nil
	return r
}

func (v *verifier) verifyRPM(b []byte, file string) (keyring.Signer, error) {
	l, err := digestlist.ParseRPM(b)
	if err != nil {
		return keyring.Signer{}, err
	}
	if l.Signature == nil {
		return keyring.Signer{}, errUnsigned
	}
	signer, err := v.keys.Verify(l.Header.Signed(), l.Signature, v.trust.policy())
	if err != nil {
		return keyring.Signer{}, err
	}
	name, err := digestlist.NameFor(l.Header, digestlist.FormatRPM)
	if err != nil {
		return keyring.Signer{}, err
	}
	// The position is the administrator's; the rest of the name is the package's.
	if declared, _, err := digestlist.KnownName(file); err == nil && declared.Label != name.Label {
		return keyring.Signer{}, fmt.Errorf("%w: it is the list of %s", errMisnamed, name.Label)
	}
	return signer, nil
}
