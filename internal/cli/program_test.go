package cli

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestProgram(t *testing.T) {
	for _, c := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"", 0, "what it does\n\nUsage:\n  prog COMMAND [flags]\n", ""},
		{"--help", 0, "  do         do it\n", ""},
		{"help", 0, "Commands:\n", ""},
		{"help do", 0, "Usage:\n  prog do [flags] FILE...\n", ""},
		{"do --help", 0, "      --to place               where to, a place (default here)\n", ""},
		{"do x -h", 0, "      --quick                  make haste\n", ""},
		{"--version", 0, "prog ", ""},
		{"do a --to there b --quick", 0, "[a b] there true\n", ""},
		{"do --to=there -- --quick a", 0, "[--quick a] there false\n", ""},
		{"do -to there a", 2, "", "error: flag -to is not known\nhint: prog do --help\n"},
		{"do --quick=false - a", 0, "[- a] here false\n", ""},
		{"do --quick=maybe a", 2, "", `error: flag --quick: "maybe": parse error`},
		{"do a --to", 2, "", "error: flag --to wants a value\n"},
		{"do", 2, "", "error: do wants FILE...\n"},
		{"none a", 2, "", "error: none takes no arguments, and not \"a\"\n"},
		{"none", 1, "", "error: no\n"},
		{"undo", 2, "", "error: command \"undo\" is not known\nhint: prog --help\n"},
		{"--quick", 2, "", "error: command \"--quick\" is not known\n"},
	} {
		var to string
		var quick bool
		flags := flag.NewFlagSet("do", flag.ContinueOnError)
		flags.StringVar(&to, "to", "here", "where to, a `place`")
		flags.BoolVar(&quick, "quick", false, "make haste")
		p := &Program{Name: "prog", Long: "what it does", Commands: []*Command{
			{Name: "do", Args: "FILE...", Short: "do it", Flags: flags, Run: func(args []string, stdout, _ io.Writer) error {
				_, err := fmt.Fprintln(stdout, args, to, quick)
				return err
			}},
			{Name: "none", Short: "nothing", Flags: flag.NewFlagSet("none", flag.ContinueOnError), Run: func([]string, io.Writer, io.Writer) error {
				return &ExitError{No, fmt.Errorf("no")}
			}},
		}}
		var stdout, stderr bytes.Buffer
		code := p.Run(slices.Collect(strings.FieldsSeq(c.args)), &stdout, &stderr)
		if code != c.code || !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("%q: exit %d\n%s%s", c.args, code, stdout.String(), stderr.String())
		}
	}
}
