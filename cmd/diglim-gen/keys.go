package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"diglim/internal/cli"
	"diglim/internal/cobracli"
	"diglim/internal/keyring"

	"github.com/spf13/cobra"
)

// shownKey is a key as keys prints it.
type shownKey struct {
	KeyID       string `json:"key_id"`
	Fingerprint string `json:"fingerprint"`
	Primary     string `json:"primary,omitempty"` // fingerprint, of a subkey
	UserID      string `json:"user_id"`
	Keyring     string `json:"keyring"` // file that the key came from
	Version     int    `json:"version"`
	Algorithm   string `json:"algorithm"`
	Created     string `json:"created"`           // RFC 3339
	Expires     string `json:"expires,omitempty"` // RFC 3339; none: never
	Revoked     bool   `json:"revoked"`
	Trusted     string `json:"trusted"`          // yes, earlier (expired since), no
	Reason      string `json:"reason,omitempty"` // why not yes
}

// shownKeys is what keys prints.
type shownKeys struct {
	Keys    []shownKey `json:"keys"`
	Skipped []string   `json:"skipped"` // files and keys that are not used at all
}

func keysCommand() *cobra.Command {
	var jsonOut bool
	cmd := &cobra.Command{
		Use:   "keys [flags] KEYRING...",
		Short: "show which keys of keyrings would be trusted",
		Long: `Prints the keys and subkeys in files and directories, and whether a signature
that they make now would be taken, or why not. A key that has expired vouches
for what it signed before; a revoked key for nothing.

Exit code: 0 if some key would be trusted, 1 if none would be.`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().BoolVar(&jsonOut, "json", false, "show as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		keys, err := keyring.Load(args...)
		if err != nil {
			return err
		}
		s := shownKeys{Keys: []shownKey{}, Skipped: []string{}}
		code := cli.No
		for _, info := range keys.Keys(time.Now()) {
			if info.Unfit == nil || info.Earlier {
				code = cli.Yes
			}
			s.Keys = append(s.Keys, showKey(info))
		}
		for _, err := range keys.Skipped {
			s.Skipped = append(s.Skipped, err.Error())
		}
		if jsonOut {
			err = cobracli.WriteJSON(cmd.OutOrStdout(), s)
		} else {
			err = s.writeText(cmd.OutOrStdout(), cmd.ErrOrStderr())
		}
		if err != nil {
			return err
		}
		return cli.Exit(code)
	}
	return cmd
}

func showKey(k keyring.KeyInfo) shownKey {
	s := shownKey{
		KeyID:       fmt.Sprintf("%016x", k.KeyID),
		Fingerprint: k.Fingerprint,
		Primary:     k.Primary,
		UserID:      k.UserID,
		Keyring:     k.Source,
		Version:     k.Version,
		Algorithm:   k.Algorithm,
		Created:     k.Created.UTC().Format(time.RFC3339),
		Revoked:     k.Revoked,
		Trusted:     "yes",
	}
	if !k.Expires.IsZero() {
		s.Expires = k.Expires.UTC().Format(time.RFC3339)
	}
	if k.Unfit != nil {
		s.Trusted, s.Reason = "no", strings.ReplaceAll(k.Unfit.Error(), "openpgp: ", "")
		if k.Earlier {
			s.Trusted = "earlier"
		}
	}
	return s
}

func (s *shownKeys) writeText(stdout, stderr io.Writer) error {
	for _, k := range s.Keys {
		var b strings.Builder
		if k.Primary == "" {
			fmt.Fprintf(&b, "%s   %s   %s\n", k.KeyID, cli.Text(k.UserID), cli.Text(k.Keyring))
		} else {
			fmt.Fprintf(&b, "  subkey %s\n", k.KeyID)
		}
		fmt.Fprintf(&b, "    %s, version %d, made %s, ", k.Algorithm, k.Version, k.Created[:len("2006-01-02")])
		if k.Expires == "" {
			b.WriteString("never expires")
		} else {
			fmt.Fprintf(&b, "expires %s", k.Expires[:len("2006-01-02")])
		}
		if k.Revoked {
			b.WriteString(", REVOKED")
		}
		fmt.Fprintf(&b, "\n    fingerprint %s\n    ", k.Fingerprint)
		switch k.Trusted {
		case "yes":
			b.WriteString("trusted\n")
		case "earlier":
			fmt.Fprintf(&b, "trusted for what it signed earlier: %s\n", cli.Text(k.Reason))
		default:
			fmt.Fprintf(&b, "NOT TRUSTED: %s\n", cli.Text(k.Reason))
		}
		if _, err := io.WriteString(stdout, b.String()); err != nil {
			return err
		}
	}
	for _, reason := range s.Skipped {
		fmt.Fprintf(stderr, "warning: keyring: %s\n", cli.Text(reason))
	}
	return nil
}
