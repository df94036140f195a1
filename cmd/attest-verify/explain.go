package main

import (
	"fmt"

	"diglim/internal/attest"
	"diglim/internal/cli"

	"github.com/spf13/cobra"
)

func explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [CODE]",
		Short: "say what a finding's code means, and what to do about it",
		Long: `Says what the code means that check prints in brackets behind a finding. Without
one it lists all codes.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				for _, c := range attest.Codes() {
					if _, err := fmt.Fprintln(cmd.OutOrStdout(), c); err != nil {
						return err
					}
				}
				return nil
			}
			meaning, remedy, ok := attest.Explain(attest.Code(args[0]))
			if !ok {
				return cli.Hint(fmt.Errorf("no finding has the code %q", args[0]), "attest-verify explain lists all codes")
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n", meaning, remedy)
			return err
		},
	}
}
