package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// A Program is a program with commands, for where size counts: cobra and what
// it brings are three quarters of the size of a program that does little else.
type Program struct {
	Name     string
	Long     string // without the newline at its end
	Commands []*Command
}

// A Command is one of a program's commands.
type Command struct {
	Name  string
	Args  string // as the usage shows them: "" for none, "LIST|DIR..." for one or more
	Short string // one line
	Long  string // without the newline at its end; "" for no more than Short
	Flags *flag.FlagSet
	Run   func(args []string, stdout, stderr io.Writer) error
}

// Run runs the command that the arguments name and returns the exit code.
// Flags may stand anywhere behind the command, up to "--".
func (p *Program) Run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		return Finish(p.help(stdout), stderr)
	}
	name, args := args[0], args[1:]
	switch name {
	case "--help", "-h":
		return Finish(p.help(stdout), stderr)
	case "--version":
		_, err := fmt.Fprintf(stdout, "%s %s\n", p.Name, Version())
		return Finish(err, stderr)
	case "help":
		if len(args) == 0 {
			return Finish(p.help(stdout), stderr)
		}
		name, args = args[0], []string{"--help"}
	}
	for _, c := range p.Commands {
		if c.Name != name {
			continue
		}
		rest, err := ParseFlags(c.Flags, args)
		switch {
		case errors.Is(err, flag.ErrHelp):
			return Finish(c.help(p.Name, stdout), stderr)
		case err == nil && c.Args == "" && len(rest) > 0:
			err = fmt.Errorf("%s takes no arguments, and not %q", c.Name, rest[0])
		case err == nil && c.Args != "" && len(rest) == 0:
			err = fmt.Errorf("%s wants %s", c.Name, c.Args)
		}
		if err != nil {
			return Finish(Hint(err, "%s %s --help", p.Name, c.Name), stderr)
		}
		return Finish(c.Run(rest, stdout, stderr), stderr)
	}
	return Finish(Hint(fmt.Errorf("command %q is not known", name), "%s --help", p.Name), stderr)
}

// ParseFlags sets flags, and returns the arguments that are none. The standard
// library's Parse ends at the first of those.
func ParseFlags(flags *flag.FlagSet, args []string) (rest []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			return append(rest, args...), nil
		}
		if arg == "--help" || arg == "-h" {
			return nil, flag.ErrHelp
		}
		if len(arg) < 2 || arg[0] != '-' {
			rest = append(rest, arg)
			continue
		}
		name, value, has := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		f := flags.Lookup(name)
		if f == nil {
			return nil, fmt.Errorf("flag %s is not known", arg)
		}
		switch {
		case has:
		case isBool(f):
			value = "true"
		case len(args) == 0:
			return nil, fmt.Errorf("flag --%s wants a value", name)
		default:
			value, args = args[0], args[1:]
		}
		if err := flags.Set(name, value); err != nil {
			return nil, fmt.Errorf("flag --%s: %q: %w", name, value, err)
		}
	}
	return rest, nil
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

func (p *Program) help(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nUsage:\n  %s COMMAND [flags]\n\nCommands:\n", p.Long, p.Name)
	for _, c := range p.Commands {
		fmt.Fprintf(&b, "  %-10s %s\n", c.Name, c.Short)
	}
	fmt.Fprintf(&b, "\nFlags:\n  -h, --help      help for %s or a command\n      --version   say which version this is\n", p.Name)
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *Command) help(program string, w io.Writer) error {
	var b strings.Builder
	text := c.Long
	if text == "" {
		text = c.Short
	}
	fmt.Fprintf(&b, "%s\n\nUsage:\n  %s %s [flags]", text, program, c.Name)
	if c.Args != "" {
		fmt.Fprintf(&b, " %s", c.Args)
	}
	b.WriteString("\n\nFlags:\n")
	c.Flags.VisitAll(func(f *flag.Flag) {
		kind, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(&b, "      --%-22s %s", strings.TrimSpace(f.Name+" "+kind), usage)
		if f.DefValue != "" && !isBool(f) {
			fmt.Fprintf(&b, " (default %s)", f.DefValue)
		}
		b.WriteByte('\n')
	})
	fmt.Fprintf(&b, "  -h, --%-22s %s\n", "help", "help for "+c.Name)
	_, err := io.WriteString(w, b.String())
	return err
}
