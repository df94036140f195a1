package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/cobracli"
	"diglim/internal/digest"
	"diglim/internal/keyring"
	"diglim/internal/modsig"

	"github.com/spf13/cobra"
)

// shown is a list as show prints it.
type shown struct {
	List      string       `json:"list"`
	Format    string       `json:"format"`
	Dialect   string       `json:"dialect,omitempty"`
	Package   string       `json:"package,omitempty"`
	Signature string       `json:"signature"` // none, unchecked, good, or why not
	Signer    string       `json:"signer,omitempty"`
	Blocks    []shownBlock `json:"blocks,omitempty"`  // of a compact list
	Files     []shownFile  `json:"files,omitempty"`   // of an rpm list
	Entries   []shownEntry `json:"entries,omitempty"` // of a tlv list
}

type shownBlock struct {
	Type      string          `json:"type"`
	Algorithm string          `json:"algorithm"`
	Immutable bool            `json:"immutable"`
	Modifiers uint16          `json:"modifiers"`
	Digests   []digest.Digest `json:"digests"`
}

type shownFile struct {
	Path      string        `json:"path"`
	Mode      string        `json:"mode"` // octal, with the type
	Size      uint64        `json:"size"`
	Digest    digest.Digest `json:"digest"`
	Immutable bool          `json:"immutable"`
}

type shownEntry struct {
	Digest digest.Digest `json:"digest"`
	Path   string        `json:"path,omitempty"`
}

func showCommand() *cobra.Command {
	var jsonOut bool
	var t trust
	cmd := &cobra.Command{
		Use:   "show [flags] LIST...",
		Short: "show what is in digest lists",
		Long: `Prints the digests of lists. The format is the one that the file name declares,
or else the one that the content has. With --keyring the signature of an rpm
list is checked, too; "verify" is the command whose exit code says so.`,
		Args: cobra.MinimumNArgs(1),
	}
	var flags layoutFlags
	flags.flags(cmd)
	cmd.Flags().BoolVar(&jsonOut, "json", false, "show as JSON: an array of lists")
	cmd.Flags().StringArrayVar(&t.keyrings, "keyring", nil, "check signatures with the keys in this `file` or directory (repeatable)")
	cmd.Flags().BoolVar(&t.allowWeak, "allow-weak", false, "take signatures over MD5 and SHA-1 too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		l, err := flags.parse()
		if err != nil {
			return err
		}
		var keys *keyring.Keyring
		if len(t.keyrings) > 0 {
			if keys, err = t.load(cmd.ErrOrStderr()); err != nil {
				return err
			}
		}
		code := cli.Yes
		lists := []shown{}
		for _, path := range args {
			s, err := show(path, l, keys, t.policy())
			if err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "error: %s\n", cli.Text(err.Error()))
				code = cli.Worse(code, cli.Unknown)
				continue
			}
			lists = append(lists, s)
		}
		if err := printShown(cmd.OutOrStdout(), lists, jsonOut); err != nil {
			return err
		}
		return cli.Exit(code)
	}
	return cmd
}

func show(path string, l layout, keys *keyring.Keyring, policy keyring.Policy) (shown, error) {
	b, format, err := digestlist.ReadFile(path)
	if err != nil {
		return shown{}, err
	}
	s := shown{List: path, Format: string(format), Signature: "none"}
	if format == digestlist.FormatRPM {
		err = s.rpm(b, keys, policy)
	} else {
		err = s.bare(b, format, l)
	}
	if err != nil {
		return shown{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func (s *shown) rpm(b []byte, keys *keyring.Keyring, policy keyring.Policy) error {
	l, err := digestlist.ParseRPM(b)
	if err != nil {
		return err
	}
	nevra, err := l.Header.NEVRA()
	if err != nil {
		return err
	}
	s.Package = nevra.String()
	if l.Signature != nil {
		s.Signature = "unchecked"
	}
	if keys != nil && l.Signature != nil {
		signer, err := keys.Verify(l.Header.Signed(), l.Signature, policy)
		s.Signature, s.Signer = "good", signerText(signer)
		if err != nil {
			s.Signature, s.Signer = err.Error(), ""
		}
	}
	for f, err := range l.Header.Files() {
		if err != nil {
			return err
		}
		if digestlist.Listed(f) {
			s.Files = append(s.Files, shownFile{f.Path(), fmt.Sprintf("%06o", f.Mode), f.Size, f.Digest, digestlist.IsImmutable(f)})
		}
	}
	return nil
}

func (s *shown) bare(b []byte, format digestlist.Format, l layout) error {
	b, _, err := modsig.Split(b)
	if err == nil {
		s.Signature = "unchecked"
	} else if !errors.Is(err, modsig.ErrNone) {
		return err
	}
	if format == digestlist.FormatTLV {
		list, err := digestlist.ParseTLV(b)
		for _, e := range list.Entries {
			s.Entries = append(s.Entries, shownEntry(e))
		}
		return err
	}
	s.Dialect = l.dialect.String()
	blocks, err := digestlist.ParseCompact(l.dialect, l.endian, b)
	for _, block := range blocks {
		s.Blocks = append(s.Blocks, shownBlock{
			block.Type.String(), block.Algorithm.String(), block.Modifiers&digestlist.Immutable != 0, uint16(block.Modifiers), block.Digests,
		})
	}
	return err
}

func signerText(s keyring.Signer) string {
	text := fmt.Sprintf("%016x %s on %s", s.KeyID, cli.Text(s.UserID), s.Time.UTC().Format("2006-01-02"))
	if s.Weak {
		text += fmt.Sprintf(" (WEAK: %s)", s.Hash)
	}
	return text
}

func printShown(w io.Writer, lists []shown, jsonOut bool) error {
	if jsonOut {
		return cobracli.WriteJSON(w, lists)
	}
	var errs []error
	print := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format, args...)
		errs = append(errs, err)
	}
	for _, s := range lists {
		if s.Format == string(digestlist.FormatRPM) {
			executable := 0
			for _, f := range s.Files {
				if f.Immutable {
					executable++
				}
			}
			print("%s   %s   %s, %s immutable\n", cli.Text(s.Package), s.signatureText(), cli.Plural(len(s.Files), "file"), cli.Count(executable))
			for _, f := range s.Files {
				print("  %s  %s  %s\n", f.Digest, f.Mode[2:], cli.Text(f.Path))
			}
			continue
		}
		if s.Format == string(digestlist.FormatTLV) {
			print("%s   tlv   %s   %s\n", cli.Text(filepath.Base(s.List)), s.signatureText(), cli.Plural(len(s.Entries), "file"))
			for _, e := range s.Entries {
				print("  %s  %s\n", e.Digest, cli.Text(e.Path))
			}
			continue
		}
		print("%s   compact, dialect %s   %s   %s\n", cli.Text(filepath.Base(s.List)), s.Dialect, s.signatureText(), cli.Plural(len(s.Blocks), "block"))
		for _, b := range s.Blocks {
			print("  %s, %s, %s, modifiers %d%s\n", b.Type, b.Algorithm, cli.Plural(len(b.Digests), "digest"), b.Modifiers,
				map[bool]string{true: " (immutable)"}[b.Immutable])
			for _, d := range b.Digests {
				print("    %s\n", d)
			}
		}
	}
	return errors.Join(errs...)
}

func (s *shown) signatureText() string {
	switch s.Signature {
	case "none":
		return "not signed"
	case "unchecked":
		if s.Format != string(digestlist.FormatRPM) {
			return "signature not checked"
		}
		return "signature not checked (no --keyring)"
	case "good":
		return "signed by " + s.Signer
	}
	return "NOT PROVED: " + s.Signature
}
