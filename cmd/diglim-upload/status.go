package main

import (
	"errors"
	"flag"
	"fmt"
	"io"

	"diglim/internal/cli"
	"diglim/internal/digest"
)

// askCommand is a command that asks the interface and changes nothing.
func askCommand(g gateway, name, args string, ask func(s session, args []string, jsonOut bool, stdout io.Writer) error) *cli.Command {
	t := target{gate: g}
	var jsonOut bool
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	t.flags(f)
	f.BoolVar(&jsonOut, "json", false, "answer as JSON")
	return &cli.Command{Name: name, Args: args, Flags: f, Run: func(args []string, stdout, stderr io.Writer) (err error) {
		s, err := t.open()
		defer func() { err = errors.Join(err, s.close()) }()
		if err != nil {
			return err
		}
		return ask(s, args, jsonOut, stdout)
	}}
}

func statusCommand(g gateway) *cli.Command {
	cmd := askCommand(g, "status", "", func(s session, _ []string, jsonOut bool, stdout io.Writer) error {
		r, err := s.status()
		if err != nil {
			return err
		}
		if jsonOut {
			return cli.WriteObject(stdout, append(r.object(), s.passedOver()), true)
		}
		if err := r.text(stdout); err != nil {
			return err
		}
		for _, p := range s.passed {
			if _, err := fmt.Fprintf(stdout, "not %-6s %s\n", p.name, p.why); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.Short = "say which interface the kernel has, and what it knows"
	return cmd
}

func queryCommand(g gateway) *cli.Command {
	cmd := askCommand(g, "query", "ALGORITHM:HEX...", func(s session, args []string, jsonOut bool, stdout io.Writer) error {
		var digests []digest.Digest
		for _, arg := range args {
			d, err := digest.Parse(arg)
			if err != nil {
				return err
			}
			digests = append(digests, d)
		}
		code := cli.Yes
		for _, d := range digests {
			a, err := s.query(d)
			if err != nil {
				return err
			}
			if len(a) == 0 {
				code = cli.No
			}
			if jsonOut {
				err = cli.WriteObject(stdout, cli.Object{
					{Name: "interface", Value: s.name}, {Name: "digest", Value: d.String()},
					{Name: "known", Value: len(a) > 0}, {Name: "as", Value: []string(a)}}, false)
			} else {
				err = a.text(d, stdout)
			}
			if err != nil {
				return err
			}
		}
		return cli.Exit(code)
	})
	cmd.Short = "ask whether the kernel knows a digest"
	cmd.Long = "Asks whether the kernel knows digests. Exit code 1 if it does not know one of them."
	return cmd
}

func (a answer) text(d digest.Digest, w io.Writer) (err error) {
	if len(a) == 0 {
		_, err = fmt.Fprintf(w, "%s  not known\n", d)
	}
	for _, as := range a {
		_, err = fmt.Fprintf(w, "%s  %s\n", d, cli.Text(as))
	}
	return err
}

func countCommand(g gateway) *cli.Command {
	cmd := askCommand(g, "count", "", func(s session, _ []string, jsonOut bool, stdout io.Writer) error {
		n, err := s.count()
		if err != nil {
			return err
		}
		if jsonOut {
			return cli.WriteObject(stdout, cli.Object{{Name: "interface", Value: s.name}, {Name: "digests", Value: n}}, true)
		}
		_, err = fmt.Fprintln(stdout, n)
		return err
	})
	cmd.Short = "say how many digests the kernel knows"
	return cmd
}
