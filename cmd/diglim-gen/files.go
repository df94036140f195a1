package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/source/plain"

	"github.com/spf13/cobra"
)

func filesCommand() *cobra.Command {
	var g generator
	var typ, alg, label string
	var initramfs, verity, zero bool
	cmd := &cobra.Command{
		Use:   "files --label NAME [flags] PATH...",
		Short: "make a digest list of files that no package vouches for",
		Long: `Hashes files, and all files below directories, and makes one list of them: of
the uploader itself (--type parser), of modules that were built here, of what is
in an initramfs image (--initramfs), of anything. Nobody signs such a list but
you: see "sign".

With --type verity the digests are those that the kernel has of files under
fs-verity, which cost it no reading; only the gate of diglim-upload knows such
lists. With --fsverity nothing is written: the files' fs-verity digests are printed, as
"fsverity digest" prints them.`,
	}
	g.flags(cmd, "compact")
	f := cmd.Flags()
	f.StringVar(&label, "label", "", "what the list is called after its format")
	f.StringVar(&typ, "type", "file", "what the digests are of: file, parser for programs that may upload lists, or verity for files under fs-verity (dialect bpf)")
	f.StringVar(&alg, "algorithm", "sha256", "hash algorithm")
	f.BoolVar(&initramfs, "initramfs", false, "the files are initramfs images: list what is in them")
	f.BoolVar(&zero, "zero-page", false, "list a 4 KiB page of zeros, too, which some loaders map")
	f.BoolVar(&verity, "fsverity", false, "print the files' fs-verity digests, and write no list")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := digest.ByName(alg)
		if err != nil {
			return err
		}
		if !a.Available() {
			return fmt.Errorf("%s cannot be computed here", a)
		}
		if verity {
			return printVerity(cmd, args, a)
		}
		if label == "" {
			return cli.Hint(errors.New("the list needs a name"), "give one with --label")
		}
		if g.listType, err = digestlist.ParseType(typ); err != nil {
			return err
		}
		read := plain.Read
		if g.listType == digestlist.Verity {
			if read = plain.ReadVerity; initramfs || zero {
				return errors.New("nothing in an initramfs is under fs-verity, and no page of zeros")
			}
		}
		g.trust.allowUnsigned = true // nobody signed them; there is nothing to trust
		if err := g.prepare(cmd.ErrOrStderr()); err != nil {
			return err
		}
		return g.run(cmd, []work{{origin: strings.Join(args, " "), read: func([]byte) (found, error) {
			files, err := readPlain(args, a, initramfs, read)
			entries := plainFiles(files, g.listType)
			if zero {
				entries = append(entries, listEntry{typ: g.listType, modifiers: digestlist.Immutable, digest: plain.ZeroPage(a)})
			}
			if err == nil && len(entries) == 0 {
				err = errors.New("no files")
			}
			return found{list: list{label: label, entries: entries}}, err
		}}}, nil)
	}
	return cmd
}

// readPlain hashes files and what is below directories, or what is in images.
func readPlain(args []string, alg digest.Algorithm, images bool, read func(string, digest.Algorithm) (plain.File, error)) ([]plain.File, error) {
	if images {
		var all []plain.File
		for _, path := range args {
			f, err := os.Open(path)
			if err != nil {
				return nil, err
			}
			files, err := plain.Initramfs(f, alg)
			if err = errors.Join(err, f.Close()); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			all = append(all, files...)
		}
		return all, nil
	}
	paths, errs := plain.Find(args)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	var all []plain.File
	for _, path := range paths {
		f, err := read(path, alg)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

func printVerity(cmd *cobra.Command, args []string, alg digest.Algorithm) error {
	paths, errs := plain.Find(args)
	for _, path := range paths {
		f, err := plain.ReadVerity(path, alg)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", f.Digest, cli.Text(path)); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}
