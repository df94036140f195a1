package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/keyring"
	"diglim/internal/policy"
	"diglim/internal/uki"
	"diglim/tpm"

	"github.com/spf13/cobra"
)

const maxPolicy = 4 << 20 // bytes of a policy file

// listFlags are the flags that say which lists to believe.
type listFlags struct {
	dir           string
	keyrings      []string
	allowUnsigned bool
	allowWeak     bool
}

func (l *listFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&l.dir, "lists", "", "`directory` of digest lists")
	f.StringArrayVar(&l.keyrings, "keyring", nil, "believe lists signed by the OpenPGP keys in this `file` or directory (repeatable)")
	f.BoolVar(&l.allowUnsigned, "allow-unsigned", false, "believe lists that nobody signed too")
	f.BoolVar(&l.allowWeak, "allow-weak", false, "believe list signatures over MD5 and SHA-1 too")
}

// policy is what the flags say, with the PCR that IMA extends.
func (l *listFlags) policy() *policy.File {
	f := &policy.File{
		Policy:        policy.Policy{Bank: digest.SHA256, PCR: policy.IMAPCR},
		Keyrings:      l.keyrings,
		AllowUnsigned: l.allowUnsigned,
		AllowWeak:     l.allowWeak,
	}
	if l.dir != "" {
		f.Lists = []string{l.dir}
	}
	return f
}

// knownFiles reads the lists that a policy names, and makes known what they and
// the policy itself say.
func knownFiles(f *policy.File) (*lists, error) {
	if len(f.Lists) == 0 && len(f.Files) == 0 && len(f.SigningKeys) == 0 {
		return nil, cli.Hint(errors.New("no digest lists: no file would be known"), "give their directory with --lists, or in the policy")
	}
	t := trust{keys: &keyring.Keyring{}, allowUnsigned: f.AllowUnsigned, allowWeak: f.AllowWeak}
	if len(f.Keyrings) > 0 {
		var err error
		if t.keys, err = keyring.Load(f.Keyrings...); err != nil {
			return nil, fmt.Errorf("keyring: %w", err)
		}
	} else if len(f.Lists) > 0 && !f.AllowUnsigned {
		return nil, cli.Hint(errors.New("no keyring: no list would be believed"), "give the vendor's public keys with --keyring, e.g. --keyring /etc/pki/rpm-gpg")
	}
	l, err := loadLists(t, f.Lists...)
	if err != nil {
		return nil, fmt.Errorf("lists: %w", err)
	}
	f.Known, f.Verity = l.known, l.verity
	for _, r := range f.Files {
		f.Known.Add(r.Digest, r.Source())
	}
	for _, path := range f.SigningKeys {
		b, err := readFile(path, maxPolicy)
		if err != nil {
			return nil, fmt.Errorf("signing key: %w", err)
		}
		signers, err := policy.ParseSigners(path, b)
		if err != nil {
			return nil, fmt.Errorf("signing key: %s: %w", path, err)
		}
		f.Signers = append(f.Signers, signers...)
	}
	f.IMAPolicy = map[digest.Digest]bool{}
	for _, path := range f.IMAPolicies {
		b, err := readFile(path, maxPolicy)
		if err != nil {
			return nil, fmt.Errorf("IMA policy: %w", err)
		}
		for _, alg := range imaHashes {
			d := digest.Sum(alg, b)
			f.IMAPolicy[d] = true
			f.Known.Add(d, policy.Source{Reason: "the IMA policy that is expected"})
		}
	}
	if f.Digests() == 0 && len(f.Signers) == 0 {
		if len(l.Refused) == 0 {
			return l, cli.Hint(fmt.Errorf("lists: no digests in %s", strings.Join(f.Lists, ", ")), "diglim-gen makes them")
		}
		return l, cli.Hint(errors.New("lists: no list is believed"), "the lists need a signature by a key given with --keyring")
	}
	return l, nil
}

// predictImages computes what starting the kernel images and boot loaders of a
// policy measures.
func predictImages(f *policy.File) error {
	for _, path := range f.UKIs {
		values, started, err := predictImage(path, f.Bank)
		if err != nil {
			return fmt.Errorf("kernel image: %w", err)
		}
		f.Images = append(f.Images, policy.Image{Name: path, Values: values})
		if slices.Contains(f.Policy.Firmware, policy.BootLoaderPCR) {
			for _, d := range started {
				f.Started[d] = path
			}
		}
	}
	for _, path := range f.BootLoaders {
		d, err := hashImage(path, f.Bank)
		if err != nil {
			return fmt.Errorf("boot loader: %w", err)
		}
		f.Started[d] = path
		kernel, err := isKernel(path)
		switch {
		case err != nil:
			return fmt.Errorf("boot loader: %w", err)
		case kernel && len(f.GRUB)+len(f.GRUBs) > 0:
			return cli.Hint(fmt.Errorf("boot loader: %s: a kernel, which anything could start", path), "\"kernel\" names one that GRUB starts, and nothing else")
		}
	}
	for _, path := range f.GRUBs {
		d, err := hashImage(path, f.Bank)
		if err != nil {
			return fmt.Errorf("GRUB: %w", err)
		}
		f.StartGRUB(d, path)
	}
	for _, path := range f.KernelFiles {
		started, err := hashImage(path, f.Bank)
		if err != nil {
			return fmt.Errorf("kernel: %w", err)
		}
		read, err := hashFile(path, f.Bank)
		if err != nil {
			return fmt.Errorf("kernel: %w", err)
		}
		f.StartKernel(started, path)
		f.StartKernel(read, path)
	}
	for _, path := range f.Initramfses {
		d, err := hashFile(path, f.Bank)
		if err != nil {
			return fmt.Errorf("initramfs: %w", err)
		}
		f.Initrds[d] = path
	}
	return nil
}

// isKernel reports whether a file is a Linux kernel for x86 (HdrS, Documentation/arch/x86/boot.rst
// in the kernel).
func isKernel(path string) (kernel bool, err error) {
	err = withFile(path, func(file io.ReaderAt, size int64) error {
		magic := make([]byte, 4)
		_, err := file.ReadAt(magic, 0x202)
		kernel = string(magic) == "HdrS"
		if errors.Is(err, io.EOF) {
			err = nil // shorter than that
		}
		return err
	})
	return kernel, err
}

func hashFile(path string, bank digest.Algorithm) (d digest.Digest, err error) {
	err = withFile(path, func(file io.ReaderAt, size int64) error {
		h := bank.Hash()
		_, err := io.Copy(h, io.NewSectionReader(file, 0, size))
		d = digest.Of(bank, h)
		return err
	})
	return d, err
}

// predictImage returns the values of PCR 11 that a kernel image makes, and what it
// adds to PCR 4.
func predictImage(path string, bank digest.Algorithm) (values, started []digest.Digest, err error) {
	err = withFile(path, func(file io.ReaderAt, size int64) error {
		image, err := uki.Parse(file)
		if err != nil {
			return err
		}
		if values, err = image.Values(bank); err != nil {
			return err
		}
		started, err = image.Started(size, bank)
		return err
	})
	return values, started, err
}

func hashImage(path string, bank digest.Algorithm) (d digest.Digest, err error) {
	err = withFile(path, func(file io.ReaderAt, size int64) (err error) {
		d, err = uki.Authenticode(file, size, bank)
		return err
	})
	return d, err
}

// withFile opens a file for f. Errors name it.
func withFile(path string, f func(file io.ReaderAt, size int64) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil {
		if err = f(file, info.Size()); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	return errors.Join(err, file.Close())
}

// readPolicy reads a policy file. The paths in it are relative to it.
func readPolicy(path string) (*policy.File, error) {
	b, err := readFile(path, maxPolicy)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	f, err := policy.ParseFile(b)
	if err != nil {
		return nil, fmt.Errorf("policy: %s: %w", path, err)
	}
	there := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
	}
	there(&f.AK)
	for _, paths := range [][]string{f.Lists, f.Keyrings, f.SigningKeys, f.IMAPolicies, f.UKIs, f.BootLoaders, f.GRUBs, f.KernelFiles, f.Initramfses} {
		for i := range paths {
			there(&paths[i])
		}
	}
	return f, nil
}

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "write and explain policies",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("policy: check and init are known")
		},
	}
	cmd.AddCommand(policyCheckCommand(), policyInitCommand())
	return cmd
}

func policyCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "say in words what a policy asks of a host",
		Long: `Reads the policy and what it names, and says what it asks of a host, what it
lets pass and what it does not ask for.

Exit code: 0 the policy can trust a host, 1 it rejects every host, 2 it or a
file that it names cannot be read.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := readPolicy(args[0])
			if err != nil {
				return err
			}
			return explainPolicy(cmd.OutOrStdout(), args[0], f)
		},
	}
}

// explainPolicy says in words what the policy says, and what comes of what it
// names. Up to an error all of that is printed.
func explainPolicy(w io.Writer, path string, f *policy.File) error {
	b := bufio.NewWriter(w)
	for _, c := range f.Words() {
		if c.Caution {
			c.Text = "caution: " + c.Text
		}
		fmt.Fprintf(b, "%-10s %s\n", c.About, cli.Text(c.Text))
	}
	rejects, err := explainNamed(b, f)
	switch {
	case err != nil:
	case rejects || f.Rejects():
		fmt.Fprintf(b, "%s rejects every host\n", cli.Text(path))
		err = cli.Exit(cli.No)
	default:
		fmt.Fprintf(b, "%s can trust a host\n", cli.Text(path))
	}
	if flush := b.Flush(); flush != nil {
		return flush
	}
	return err
}

// explainNamed reads the files that the policy names, and says whether any of
// them, or the day, makes it reject every host.
func explainNamed(w io.Writer, f *policy.File) (rejects bool, err error) {
	if f.AK != "" {
		b, err := readFile(f.AK, maxSmall)
		if err != nil {
			return false, fmt.Errorf("attestation key: %w", err)
		}
		key, err := tpm.ParsePublic(b)
		if err != nil {
			return false, fmt.Errorf("attestation key: %s: %w", f.AK, err)
		}
		if f.NamedKey && key.Name() == nil {
			rejects = true
			fmt.Fprintf(w, "%-10s every host: %q comes without its TPM public area\n", "rejects", f.AK)
		}
	}
	if now := time.Now().UTC(); !f.ValidAt(now) {
		rejects = true
		fmt.Fprintf(w, "%-10s every host: it is not valid on %s\n", "rejects", now.Format(time.DateOnly))
	}
	if f.Bank.Available() {
		if err := predictImages(f); err != nil {
			return false, err
		}
	}
	if len(f.Lists)+len(f.Files)+len(f.SigningKeys) == 0 || len(f.Lists) > 0 && len(f.Keyrings) == 0 && !f.AllowUnsigned {
		return rejects, nil // nothing is known, as Words says
	}
	l, err := knownFiles(f)
	if err != nil {
		return false, err
	}
	fmt.Fprintf(w, "%-10s %s, %s believed, %s refused\n", "known", cli.Plural(f.Digests(), "digest"), cli.Plural(l.Accepted, "list"), cli.Count(len(l.Refused)))
	for _, s := range f.Signers {
		fmt.Fprintf(w, "%-10s what is signed by %s\n", "known", cli.Text(s.Name))
	}
	return rejects, nil
}
