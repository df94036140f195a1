package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"diglim/internal/attest"
	"diglim/internal/cli"
	"diglim/internal/evidence"
)

// What people are shown at most; JSON has all.
const (
	maxPackaged = 3  // packages that have another file under an unknown one's path
	maxUnproven = 10 // entries that the quote does not cover
)

// writeText prints the verdict for people: the result, what stands against
// it, what is only to be known, what speaks for it.
func (a *answer) writeText(w io.Writer, verbose bool) error {
	b := bufio.NewWriter(w)
	fmt.Fprint(b, strings.ToUpper(a.Outcome.String()))
	if a.Evidence != "" {
		fmt.Fprintf(b, "   %s", cli.Text(a.Evidence))
	}
	fmt.Fprintf(b, "   %s of %s proved", cli.Count(a.Proven), logEntries(a.Entries))
	if tail := a.Entries - a.Proven; tail > 0 {
		fmt.Fprintf(b, ", %s not covered by the quote", cli.Count(tail))
	}
	if a.Quoted {
		fmt.Fprintf(b, ", reset %d", a.Resets)
		if a.SinceLast != "" {
			fmt.Fprintf(b, ", %s since it was last seen", a.SinceLast)
		}
	}
	fmt.Fprintln(b)
	for _, notes := range []bool{false, true} {
		for _, f := range a.Findings {
			if (f.Leaves == attest.Trusted) == notes {
				writeFinding(b, f)
			}
		}
	}
	fmt.Fprintln(b)
	packages := map[string]bool{}
	ruled, signed := 0, 0
	for _, k := range a.Known {
		switch {
		case k.Sources[0].Reason != "":
			ruled++
		case k.Sources[0].List == "" && k.Sources[0].Signer != "":
			signed++
		}
		if p := k.Sources[0].Package; p != "" {
			packages[p] = true
		}
	}
	if a.Omitted.Findings > 0 {
		fmt.Fprintf(b, "  and       %s more\n", cli.Plural(a.Omitted.Findings, "finding"))
	}
	least := ""
	if a.Omitted.Known > 0 {
		least = "at least "
	}
	fmt.Fprintf(b, "  known     %s from %s%s", logEntries(len(a.Known)+a.Omitted.Known), least, cli.Plural(len(packages), "package"))
	if ruled > 0 {
		fmt.Fprintf(b, ", %s by the policy's own word", cli.Count(ruled))
	}
	if signed > 0 {
		fmt.Fprintf(b, ", %s by their signature", cli.Count(signed))
	}
	fmt.Fprintln(b)
	if n := len(a.Firmware); n > 0 {
		fmt.Fprintf(b, "  firmware  its log explains %s:", cli.Plural(n, "PCR"))
		for _, r := range a.Firmware {
			fmt.Fprintf(b, " %d", r.PCR)
		}
		fmt.Fprintln(b)
	}
	if a.Booted != nil {
		fmt.Fprintf(b, "  booted    %s", cli.Text(a.Booted.Image))
		if len(a.Booted.Phases) > 0 {
			fmt.Fprintf(b, ", reached %s", strings.Join(a.Booted.Phases, ", "))
		}
		fmt.Fprintln(b)
	}
	if a.Lists.Unsigned > 0 {
		fmt.Fprintf(b, "  caution   %s that nobody signed believed\n", cli.Plural(a.Lists.Unsigned, "list"))
	}
	if verbose {
		for _, k := range a.Known {
			from := k.Sources[0].Package
			switch {
			case k.Sources[0].Reason != "":
				from = "the policy: " + k.Sources[0].Reason
			case from == "" && k.Sources[0].List == "":
				from = "signed by " + k.Sources[0].Signer
			case from == "":
				from = "a digest list"
			}
			fmt.Fprintf(b, "  known     entry %s   %s   %s   %s\n", cli.Count(k.Entry), k.Path, k.Digest, cli.Text(from))
		}
		for _, s := range a.Stated {
			fmt.Fprintf(b, "  measured  PCR %-2d  %s\n", s.PCR, cli.Text(s.Text))
		}
	}
	for i, m := range a.Unproven {
		if i == maxUnproven {
			fmt.Fprintf(b, "  unproven  and %s more\n", cli.Count(len(a.Unproven)-i+a.Omitted.Unproven))
			break
		}
		fmt.Fprintf(b, "  unproven  entry %s   %s\n", cli.Count(m.Entry), m.Path)
	}
	for _, f := range a.Findings {
		if f.Code == attest.NoKey {
			fmt.Fprintf(b, "hint: give the key that was kept when the host was enrolled with --ak, e.g. its %s\n", evidence.AKFile)
		}
	}
	return b.Flush()
}

func logEntries(n int) string {
	if n == 1 {
		return "1 log entry"
	}
	return cli.Count(n) + " log entries"
}

func writeFinding(w io.Writer, f attest.Finding) {
	about := "evidence"
	if f.Entry > 0 {
		about = "entry " + cli.Count(f.Entry)
	}
	if f.Event > 0 {
		about = "event " + cli.Count(f.Event)
	}
	fmt.Fprintf(w, "\n  %-12s", about)
	if f.Entry > 0 {
		fmt.Fprintf(w, "  %s", f.Path)
		if !f.Digest.IsZero() {
			fmt.Fprintf(w, "   %s", f.Digest)
		}
		fmt.Fprintf(w, "\n  %-12s", "")
	}
	fmt.Fprintf(w, "  %s", cli.Text(f.Why))
	if f.Code == attest.UnknownFile && len(f.Packaged) == 0 {
		fmt.Fprint(w, ", and no known package has a file of that name")
	}
	if f.Unproven {
		fmt.Fprint(w, " (unproven)")
	}
	fmt.Fprintf(w, "   [%s]\n", f.Code)
	if !f.Expected.IsZero() {
		fmt.Fprintf(w, "  %-12s  expected %s\n", "", f.Expected)
	}
	for i, p := range f.Packaged {
		if i == maxPackaged {
			fmt.Fprintf(w, "  %-12s  and %s\n", "", cli.Plural(len(f.Packaged)-i, "other package"))
			break
		}
		fmt.Fprintf(w, "  %-12s  %s has another file there: %s\n", "", cli.Text(p.Package), p.Digest)
	}
}
