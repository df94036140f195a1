package main

import (
	"fmt"
	"path/filepath"

	"diglim/digestlist"
	"diglim/internal/cli"
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
}

func verifyCommand() *cobra.Command {
	var jsonOut bool
	var t trust
	cmd := &cobra.Command{
		Use:   "verify --keyring FILE|DIR [flags] LIST...",
		Short: "check the signatures of digest lists",
		Long: `Checks that each list is signed by a key of the keyrings, and that it is the
list of the package that its name says. An rpm list carries the vendor's
signature with it; a compact list carries none, and is refused.`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringArrayVar(&t.keyrings, "keyring", nil, "trust the OpenPGP keys in this `file` or directory (repeatable)")
	cmd.Flags().BoolVar(&t.allowWeak, "allow-weak", false, "take signatures over MD5 and SHA-1 too")
	cmd.Flags().BoolVar(&jsonOut, "json", false, "answer as JSON: an array of lists")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		keys, err := t.load(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		code := cli.Yes
		results := []verified{}
		for _, path := range args {
			signer, err := verify(path, keys, t.policy())
			v := verified{List: path, OK: err == nil, Weak: signer.Weak}
			if err != nil {
				v.Error = err.Error()
				code = cli.Worse(code, codeFor(err))
				fmt.Fprintf(cmd.ErrOrStderr(), "refused: %s\n", cli.Text(v.Error))
			} else {
				v.Signer = signerText(signer)
			}
			results = append(results, v)
			if err == nil && !jsonOut {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "good  %s   signed by %s\n", cli.Text(path), v.Signer); err != nil {
					return err
				}
			}
		}
		if jsonOut {
			if err := cli.WriteJSON(cmd.OutOrStdout(), results); err != nil {
				return err
			}
		}
		return cli.Exit(code)
	}
	return cmd
}

func verify(path string, keys *keyring.Keyring, policy keyring.Policy) (keyring.Signer, error) {
	b, format, err := digestlist.ReadFile(path)
	if err != nil {
		return keyring.Signer{}, err
	}
	if format != digestlist.FormatRPM {
		return keyring.Signer{}, fmt.Errorf("%s: %w: a compact list carries none", path, errUnsigned)
	}
	l, err := digestlist.ParseRPM(b)
	if err != nil {
		return keyring.Signer{}, fmt.Errorf("%s: %w", path, err)
	}
	if l.Signature == nil {
		return keyring.Signer{}, fmt.Errorf("%s: %w", path, errUnsigned)
	}
	signer, err := keys.Verify(l.Header.Signed(), l.Signature, policy)
	if err != nil {
		return keyring.Signer{}, fmt.Errorf("%s: %w", path, err)
	}
	name, err := digestlist.NameFor(l.Header, format)
	if err != nil {
		return keyring.Signer{}, fmt.Errorf("%s: %w", path, err)
	}
	// The position is the administrator's; the rest of the name is the package's.
	if declared, _, err := digestlist.KnownName(filepath.Base(path)); err == nil && declared.Label != name.Label {
		return keyring.Signer{}, fmt.Errorf("%s: %w: it is the list of %s", path, errMisnamed, name.Label)
	}
	return signer, nil
}
