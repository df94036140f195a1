package main

import (
	"fmt"
	"os/signal"
	"syscall"

	"diglim/internal/cli"
	"diglim/internal/source/repo"

	"github.com/spf13/cobra"
)

func repoCommand() *cobra.Command {
	var g generator
	var unsignedRepo bool
	cmd := &cobra.Command{
		Use:   "repo [flags] URL|DIR",
		Short: "make digest lists of the packages in an RPM repository",
		Long: `Reads a repository's list of packages, whose signature (repomd.xml.asc) must be
by a key of the keyrings, and then the header of each package: by one ranged
request, never the payload. The vendor's signature of each header is what proves
it.

URLs are http, https or file.`,
		Args: cobra.ExactArgs(1),
	}
	g.flags(cmd, "rpm")
	cmd.Flags().BoolVar(&unsignedRepo, "allow-unsigned-repo", false, "take a list of packages that nobody signed: the packages prove themselves, that none is missing or old nobody does")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := g.prepare(cmd.ErrOrStderr()); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		r, err := repo.Open(ctx, args[0], g.keys, repo.Options{
			Policy: g.trust.policy(), AllowUnsigned: unsignedRepo || g.trust.allowUnsigned, Connections: g.jobs})
		if err != nil {
			return &cli.ExitError{Code: codeFor(err), Err: err}
		}
		if _, signed := r.Signer(); !signed {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s: nobody signed the list of packages\n", cli.Text(args[0]))
		}
		var works []work
		for _, p := range r.Packages() {
			works = append(works, work{origin: r.Where(p), read: func(buf []byte) (found, error) {
				head, err := r.Fetch(ctx, p, buf)
				return found{rpm: &head}, err
			}})
		}
		return g.run(cmd, works, nil)
	}
	return cmd
}
