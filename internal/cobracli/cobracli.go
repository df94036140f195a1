// Package cobracli runs commands made with cobra so that they end, and speak of
// errors, as internal/cli has it.
package cobracli

import (
	"encoding/json"
	"io"

	"diglim/internal/cli"

	"github.com/spf13/cobra"
)

// Run runs a command and returns its exit code.
func Run(root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.Version = cli.Version()
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return cli.Finish(root.Execute(), stderr)
}

// WriteJSON writes v as people and jq read it.
func WriteJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
