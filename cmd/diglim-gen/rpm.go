package main

import (
	"diglim/internal/source/rpmfile"

	"github.com/spf13/cobra"
)

func rpmCommand() *cobra.Command {
	var g generator
	cmd := &cobra.Command{
		Use:   "rpm [flags] PACKAGE|DIR...",
		Short: "make digest lists of RPM package files",
		Long: `Reads the headers of RPM packages (of all *.rpm files below a directory), never
their payload, and writes one list a package: 0-file_list-FORMAT-NAME-VERSION-RELEASE.ARCH

Format rpm is the header itself with the vendor's signature behind it: whoever
reads the list can check it again. Format compact is the bare digests, as a
kernel with DIGLIM v3 takes them, or openEuler's with --dialect openeuler; tlv is
digests with paths, for the digest cache. The signature is checked now, and lost
in both.

A package that is refused does not stop the others.`,
		Args: cobra.MinimumNArgs(1),
	}
	g.flags(cmd, "rpm")
	cmd.Flags().StringVar(&g.cacheIn, "cache", "", "remember in this `file` what was proved, and do not prove it again")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := g.prepare(cmd.ErrOrStderr()); err != nil {
			return err
		}
		files, problems := rpmfile.Find(args)
		works := make([]work, len(files))
		for i, file := range files {
			works[i] = fileWork(file)
		}
		return g.run(cmd, works, problems)
	}
	return cmd
}

// fileWork is the work that one package file is.
func fileWork(file rpmfile.File) work {
	return work{origin: file.Path, stamp: file.Stamp, read: func(buf []byte) (found, error) {
		p, used, err := file.Read(buf)
		f := found{rpm: &p}
		if cap(used) > cap(buf) { // it was made for this package, and is nobody else's
			f.own = used
		}
		return f, err
	}}
}
