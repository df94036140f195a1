package main

import (
	"errors"
	"fmt"

	"diglim/internal/cli"
	"diglim/internal/kernel/diglim"

	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	var t target
	var jsonOut bool
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "say which interface the kernel has, and what it knows",
		Args:  cobra.NoArgs,
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&jsonOut, "json", false, "answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		i, undo, err := t.open()
		defer func() { err = errors.Join(err, undo()) }()
		if err != nil {
			return err
		}
		c, err := i.Count()
		if err != nil {
			return err
		}
		if jsonOut {
			return cli.WriteJSON(cmd.OutOrStdout(), struct {
				Interface string        `json:"interface"`
				Digests   diglim.Counts `json:"digests"`
			}{"diglim", c})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "interface  diglim (DIGLIM v3)\nlists      %s\ndigests    %s of files, %s of parsers, %s of metadata\n",
			cli.Count(c.Lists), cli.Count(c.File), cli.Count(c.Parser), cli.Count(c.Metadata))
		return err
	}
	return cmd
}
