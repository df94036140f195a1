// Diglim-gen makes digest lists out of package headers that a trusted key has
// signed.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/cms"
	"diglim/internal/cobracli"
	"diglim/internal/keyring"
	"diglim/internal/modsig"
	"diglim/internal/source/deb"
	"diglim/internal/source/repo"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "diglim-gen",
		Short: "make digest lists out of signed package headers",
		Long: `diglim-gen takes the digests of a package's files from the package's own
header, whose vendor signature it checks, and writes them as a digest list.

Exit code: 0 if all went well, 1 if something was refused (no good signature),
2 if something could not be judged (missing, malformed).`,
	}
	root.AddCommand(rpmCommand(), rpmdbCommand(), repoCommand(), debCommand(), filesCommand())
	root.AddCommand(showCommand(), verifyCommand())
	root.AddCommand(signCommand())
	root.AddCommand(keysCommand(), convertCommand(), diffCommand())
	return cobracli.Run(root, args, stdout, stderr)
}

// trust is the flags that say whom to believe.
type trust struct {
	keyrings      []string
	allowUnsigned bool
	allowWeak     bool

	own bool // the source has keys, which were asked for and come later
}

func (t *trust) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&t.keyrings, "keyring", nil, "trust the OpenPGP keys in this `file` or directory (repeatable)")
	f.BoolVar(&t.allowUnsigned, "allow-unsigned", false, "take what carries no signature too")
	f.BoolVar(&t.allowWeak, "allow-weak", false, "take signatures over MD5 and SHA-1 too")
}

// load reads the keyrings, and says on stderr what of them it left out.
func (t *trust) load(stderr io.Writer) (*keyring.Keyring, error) {
	if len(t.keyrings) == 0 {
		if t.allowUnsigned || t.own {
			return &keyring.Keyring{}, nil
		}
		return nil, cli.Hint(errors.New("no keyring: nothing would be trusted"),
			"give the vendor's public keys with --keyring, e.g. --keyring /etc/pki/rpm-gpg")
	}
	keys, err := keyring.Load(t.keyrings...)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	for _, err := range keys.Skipped {
		fmt.Fprintf(stderr, "warning: keyring: %v\n", err)
	}
	return keys, nil
}

func (t *trust) policy() keyring.Policy { return keyring.Policy{AllowWeak: t.allowWeak} }

// layout is what the bytes of compact lists do not say of themselves.
type layout struct {
	dialect digestlist.Dialect
	endian  digestlist.Endian
}

// layoutFlags are the flags that a layout comes from.
type layoutFlags struct{ dialect, endian string }

func (l *layoutFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.dialect, "dialect", "v3", "dialect of compact lists: v3 (DIGLIM v3), openeuler or bpf (the gate)")
	cmd.Flags().StringVar(&l.endian, "endian", "", "byte order of compact lists in dialect openeuler, which is that of the machine that reads them: little or big")
}

func (l *layoutFlags) parse() (layout, error) {
	d, err := digestlist.ParseDialect(l.dialect)
	if err != nil {
		return layout{}, err
	}
	if l.endian == "" {
		if d == digestlist.OpenEuler {
			return layout{}, cli.Hint(errors.New("dialect openeuler has either byte order"),
				"say with --endian what the machines are that will read the lists: little (x86, arm64) or big (s390x)")
		}
		return layout{d, digestlist.LittleEndian}, nil
	}
	e, err := digestlist.ParseEndian(l.endian)
	if err == nil && d == digestlist.V3 && e != digestlist.LittleEndian {
		err = errors.New("dialect v3 is little-endian, on all machines")
	}
	return layout{d, e}, err
}

// codeFor is the exit code for an error about one package or list: refused, if
// its signature is why, and otherwise not to be judged.
func codeFor(err error) int {
	for _, refusal := range []error{
		deb.ErrUnsigned, deb.ErrExpired, deb.ErrMismatch, repo.ErrUnsigned,
		keyring.ErrMalformed, keyring.ErrUnknownKey, keyring.ErrKeyNotGood, keyring.ErrWeak, keyring.ErrBad, errUnsigned, errClash, errMisnamed,
		cms.ErrMalformed, cms.ErrUnknownCert, cms.ErrBad, modsig.ErrNone, errSigned,
	} {
		if errors.Is(err, refusal) {
			return cli.No
		}
	}
	return cli.Unknown
}
