package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"runtime/debug"
	"strings"
	"syscall"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/keyring"
	"diglim/internal/source"
	"diglim/internal/source/deb"
	"diglim/internal/source/plain"

	"github.com/spf13/cobra"
)

// indexMemory is the soft limit on memory in bytes while indices are read.
// Those of Debian 12 take some 30 MB.
const indexMemory = 40 << 20

func debCommand() *cobra.Command {
	var g generator
	var src deb.Source
	var expired bool
	var only []string
	var aptLists string
	cmd := &cobra.Command{
		Use:   "deb [flags] URL|DIR|FILE.deb...",
		Short: "make digest lists of Debian packages",
		Long: `Reads a suite of a Debian archive. The archive's signature (InRelease, or
Release.gpg), which must be by a key of the keyrings, proves the indices, these
the packages, and the digests of their files are computed from the packages as
they are read. A package file by itself carries no proof: with --apt-lists one
that apt has fetched is proved by the suites that apt knows, and others need
--allow-unsigned.

Files that are run and that a package does not install are listed too: the
scripts that dpkg and debconf run, as they lie in /var/lib/dpkg/info.

Debian's headers have no digests to hand on: the lists are compact or tlv.`,
		Args: cobra.MinimumNArgs(1),
	}
	g.flags(cmd, "compact")
	f := cmd.Flags()
	f.StringVar(&src.Suite, "suite", "", "the suite, below dists: bookworm, bookworm-updates, ...")
	f.StringArrayVar(&src.Components, "component", nil, "only this component, e.g. main (repeatable)")
	f.StringVar(&src.Architecture, "arch", "amd64", "packages for this architecture, and for all")
	f.StringArrayVar(&only, "package", nil, "only packages of this name, a pattern such as linux-image-* (repeatable)")
	f.StringVar(&aptLists, "apt-lists", "", "prove package files by the lists of apt in this `directory`: /var/lib/apt/lists")
	f.BoolVar(&expired, "allow-expired", false, "take a suite whose Valid-Until has passed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := g.prepare(cmd.ErrOrStderr()); err != nil {
			return err
		}
		for _, pattern := range only {
			if _, err := path.Match(pattern, ""); err != nil {
				return fmt.Errorf("package %q: %w", pattern, err)
			}
		}
		o := deb.Options{Policy: g.trust.policy(), AllowUnsigned: g.trust.allowUnsigned, AllowExpired: expired}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		if isPackageFile(args[0]) {
			read, err := debFileReader(ctx, aptLists, g.keys, o, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			var works []work
			for _, path := range args {
				works = append(works, work{origin: path, read: func([]byte) (found, error) { return read(path) }})
			}
			return g.run(cmd, works, nil)
		}
		if aptLists != "" {
			return errors.New("--apt-lists is for package files, and an archive has its own")
		}
		if len(args) > 1 {
			return errors.New("one archive at a time, or package files")
		}
		src.Location = args[0]
		restore := limitIndexMemory()
		suite, err := deb.Open(ctx, src, g.keys, o)
		restore()
		if err != nil {
			return &cli.ExitError{Code: codeFor(err), Err: err}
		}
		if suite.Expired {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: the suite is no longer valid, taken because of --allow-expired\n")
		}
		return g.run(cmd, suiteWorks(ctx, suite, only), nil)
	}
	return cmd
}

// limitIndexMemory is for the time in which indices are read, each in one go.
// They leave much garbage behind: rather collect it more often than let the
// process grow by it.
func limitIndexMemory() (restore func()) {
	limit := debug.SetMemoryLimit(-1)
	debug.SetMemoryLimit(min(limit, indexMemory))
	return func() { debug.SetMemoryLimit(limit) }
}

func isPackageFile(arg string) bool {
	info, err := os.Stat(arg)
	return strings.HasSuffix(arg, ".deb") && (err != nil || !info.IsDir()) && !strings.Contains(arg, "://")
}

// suiteWorks is the packages of a suite whose names match one of the patterns,
// or all of them.
func suiteWorks(ctx context.Context, suite *deb.Suite, only []string) []work {
	proof := source.Proof{Signer: suite.Signer}
	var works []work
	for _, p := range suite.Packages() {
		if !matches(p.Name, only) {
			continue
		}
		works = append(works, work{origin: p.String(), read: func([]byte) (found, error) {
			files, err := suite.Files(ctx, p)
			return found{list: list{label: p.String(), entries: debFiles(files)}, proof: proof}, err
		}})
	}
	return works
}

func matches(name string, patterns []string) bool {
	for _, pattern := range patterns {
		if ok, _ := path.Match(pattern, name); ok { // patterns are checked
			return true
		}
	}
	return len(patterns) == 0
}

// debFileReader returns what reads a package file: one that apt's lists vouch
// for, if their directory is given, or else one that nobody does.
func debFileReader(ctx context.Context, aptLists string, keys *keyring.Keyring, o deb.Options, stderr io.Writer) (func(path string) (found, error), error) {
	if aptLists == "" {
		return func(path string) (found, error) {
			p, files, err := deb.ReadFile(path, o)
			return found{list: list{label: p.String(), entries: debFiles(files)}}, err
		}, nil
	}
	if o.AllowUnsigned {
		return nil, errors.New("--apt-lists proves packages, and --allow-unsigned takes those without proof")
	}
	restore := limitIndexMemory()
	lists, err := deb.OpenLists(ctx, aptLists, keys, o)
	restore()
	if err != nil {
		return nil, err
	}
	for _, err := range lists.Skipped {
		fmt.Fprintf(stderr, "warning: left out: %s\n", cli.Text(err.Error()))
	}
	return func(path string) (found, error) {
		p, files, signer, err := lists.ReadFile(path)
		return found{list: list{label: p.String(), entries: debFiles(files)}, proof: source.Proof{Signer: signer}}, err
	}, nil
}

// debFiles says which files of a package are never changed. Debian's shared
// libraries cannot be run, and root may write them; they are code all the same.
func debFiles(files []plain.File) []listEntry {
	entries := plainFiles(files, digestlist.File)
	for i, f := range files {
		dir, base := path.Split(f.Path)
		library := strings.HasSuffix(base, ".so") || strings.Contains(base, ".so.")
		if library && f.Size != 0 && strings.Contains(dir, "/lib") {
			entries[i].modifiers |= digestlist.Immutable
		}
	}
	return entries
}

// plainFiles returns what a list says of files.
func plainFiles(files []plain.File, typ digestlist.Type) []listEntry {
	entries := make([]listEntry, len(files))
	for i, f := range files {
		entries[i] = listEntry{typ: typ, digest: f.Digest, path: f.Path}
		if f.IsImmutable() {
			entries[i].modifiers = digestlist.Immutable
		}
	}
	return entries
}
