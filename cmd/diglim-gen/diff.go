package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/cobracli"
	"diglim/internal/digest"

	"github.com/spf13/cobra"
)

func diffCommand() *cobra.Command {
	var jsonOut bool
	var flags layoutFlags
	cmd := &cobra.Command{
		Use:   "diff [flags] A B",
		Short: "show what differs between two lists, or two directories of lists",
		Long: `Compares what lists say, not how: two lists of different formats are equal if
their digests are. Signatures are not looked at. Where both sides say of a file
where it is, or whether it is immutable, a difference in that is one too.

In directories, lists belong together that are of the same package; of a package
that is in each once, in another version, it is said what changed.

Exit code: 0 if there is no difference, 1 if there is one, 2 if a list could not
be read.`,
		Args: cobra.ExactArgs(2),
	}
	flags.flags(cmd)
	cmd.Flags().BoolVar(&jsonOut, "json", false, "answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		layout, err := flags.parse()
		if err != nil {
			return err
		}
		var sides [2]map[string]list
		unread := false
		if isDir(args[0]) != isDir(args[1]) {
			return errors.New("a list and a directory: two of one kind are compared")
		}
		for i, arg := range args {
			var errs []error
			if sides[i], errs = readSide(arg, layout); len(errs) > 0 {
				unread = true
				for _, err := range errs {
					fmt.Fprintf(cmd.ErrOrStderr(), "error: %s\n", cli.Text(err.Error()))
				}
			}
		}
		d := compare(sides[0], sides[1])
		d.Equal = d.Equal && !unread
		if jsonOut {
			err = cobracli.WriteJSON(cmd.OutOrStdout(), d)
		} else {
			err = d.writeText(cmd.OutOrStdout())
		}
		switch {
		case err != nil:
			return err
		case unread:
			return cli.Exit(cli.Unknown)
		case !d.Equal:
			return cli.Exit(cli.No)
		}
		return nil
	}
	return cmd
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// readSide reads one side of a comparison: the lists of a directory by what
// they are about, or one list. What could not be read is in errs.
func readSide(path string, layout layout) (lists map[string]list, errs []error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, []error{err}
	}
	files := []string{path}
	if info.IsDir() {
		names, err := digestlist.ReadDir(path)
		if err != nil {
			return nil, []error{err}
		}
		files = files[:0]
		for _, name := range names {
			files = append(files, filepath.Join(path, name))
		}
	}
	lists = make(map[string]list)
	for _, file := range files {
		l, err := readList(file, layout)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !info.IsDir() {
			return map[string]list{"": l}, nil
		}
		// One package may have several lists, of files and of metadata.
		if other, ok := lists[l.label]; ok {
			l.entries = append(other.entries, l.entries...)
			l.flags = l.flags && other.flags
		}
		lists[l.label] = l
	}
	return lists, errs
}

func readList(path string, layout layout) (list, error) {
	b, format, err := digestlist.ReadFile(path)
	if err != nil {
		return list{}, err
	}
	l, err := parseList(b, format, layout)
	if err != nil {
		return list{}, fmt.Errorf("%s: %w", path, err)
	}
	if l.label == "" {
		l.label = filepath.Base(path)
		if n, _, err := digestlist.KnownName(l.label); err == nil {
			l.label = n.Label
		}
	}
	return l, nil
}

// difference is what differs between A and B, and is printed as it stands
// under --json.
type difference struct {
	Equal   bool          `json:"equal"`
	Added   []wholeList   `json:"added"`   // in B only
	Removed []wholeList   `json:"removed"` // in A only
	Changed []changedList `json:"changed"`
	Digests struct {      // of all lists
		Added   int `json:"added"`
		Removed int `json:"removed"`
		Changed int `json:"changed"`
	} `json:"digests"`
}

type wholeList struct {
	Package string `json:"package"`
	Digests int    `json:"digests"`
}

type changedList struct {
	From    string          `json:"from"` // package of A
	To      string          `json:"to"`   // package of B
	Added   []diffDigest    `json:"added"`
	Removed []diffDigest    `json:"removed"`
	Changed []changedDigest `json:"changed"` // another digest under the same path, or another flag
}

type diffDigest struct {
	Digest    digest.Digest `json:"digest"`
	Path      string        `json:"path,omitempty"`
	Type      string        `json:"type"`
	Immutable bool          `json:"immutable"`
}

type changedDigest struct {
	From diffDigest `json:"from"`
	To   diffDigest `json:"to"`
}

// compare returns what differs between two sides.
func compare(a, b map[string]list) difference {
	d := difference{Equal: true, Added: []wholeList{}, Removed: []wholeList{}, Changed: []changedList{}}
	pairs, onlyA, onlyB := pair(a, b)
	for _, label := range onlyA {
		d.Removed = append(d.Removed, wholeList{label, len(a[label].entries)})
		d.Digests.Removed += len(a[label].entries)
	}
	for _, label := range onlyB {
		d.Added = append(d.Added, wholeList{label, len(b[label].entries)})
		d.Digests.Added += len(b[label].entries)
	}
	for _, p := range pairs {
		x, y := a[p[0]], b[p[1]]
		c := compareLists(x, y)
		if len(c.Added)+len(c.Removed)+len(c.Changed) == 0 && p[0] == p[1] {
			continue
		}
		d.Changed = append(d.Changed, c)
		d.Digests.Added += len(c.Added)
		d.Digests.Removed += len(c.Removed)
		d.Digests.Changed += len(c.Changed)
	}
	d.Equal = len(d.Added)+len(d.Removed)+len(d.Changed) == 0
	return d
}

// pair returns which lists belong together: those of one label, and those of
// two labels that are the only ones left of a package on either side.
func pair(a, b map[string]list) (pairs [][2]string, onlyA, onlyB []string) {
	left := make(map[string][2][]string) // by package name
	for i, side := range []map[string]list{a, b} {
		other := []map[string]list{b, a}[i]
		for _, label := range slices.Sorted(maps.Keys(side)) {
			if _, both := other[label]; both {
				if i == 0 {
					pairs = append(pairs, [2]string{label, label})
				}
				continue
			}
			l := left[packageName(label)]
			l[i] = append(l[i], label)
			left[packageName(label)] = l
		}
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		if l := left[name]; len(l[0]) == 1 && len(l[1]) == 1 {
			pairs = append(pairs, [2]string{l[0][0], l[1][0]})
		} else {
			onlyA, onlyB = append(onlyA, l[0]...), append(onlyB, l[1]...)
		}
	}
	slices.SortFunc(pairs, func(x, y [2]string) int { return strings.Compare(x[0], y[0]) })
	return pairs, onlyA, onlyB
}

// packageName is "name.arch" of a label NAME-VERSION-RELEASE.ARCH, and any
// other label itself.
func packageName(label string) string {
	dot := strings.LastIndexByte(label, '.')
	if dot < 0 {
		return label
	}
	fields := strings.Split(label[:dot], "-")
	if len(fields) < 3 {
		return label
	}
	return strings.Join(fields[:len(fields)-2], "-") + label[dot:]
}

func compareLists(a, b list) changedList {
	c := changedList{From: a.label, To: b.label, Added: []diffDigest{}, Removed: []diffDigest{}, Changed: []changedDigest{}}
	flags, paths := a.flags && b.flags, hasPaths(a) && hasPaths(b)
	counts := func(l list) map[diffDigest]int {
		n := make(map[diffDigest]int)
		for _, e := range l.entries {
			d := diffDigest{Digest: e.digest, Type: e.typ.String(), Path: e.path, Immutable: e.modifiers&digestlist.Immutable != 0}
			if !flags {
				d.Immutable = false
			}
			if !paths {
				d.Path = ""
			}
			n[d]++
		}
		return n
	}
	inA, inB := counts(a), counts(b)
	for d, n := range inA {
		for range n - inB[d] {
			c.Removed = append(c.Removed, d)
		}
	}
	for d, n := range inB {
		for range n - inA[d] {
			c.Added = append(c.Added, d)
		}
	}
	slices.SortFunc(c.Removed, compareDigests)
	slices.SortFunc(c.Added, compareDigests)
	c.match(func(d diffDigest) diffDigest { return diffDigest{Digest: d.Digest, Path: d.Path, Type: d.Type} })
	if paths {
		c.match(func(d diffDigest) diffDigest { return diffDigest{Path: d.Path, Type: d.Type} })
	}
	return c
}

// match turns what was removed and, the same but for what the key leaves out,
// added again into a change.
func (c *changedList) match(key func(diffDigest) diffDigest) {
	added := make(map[diffDigest][]diffDigest)
	for _, d := range c.Added {
		added[key(d)] = append(added[key(d)], d)
	}
	taken := make(map[diffDigest]int)
	c.Removed = slices.DeleteFunc(c.Removed, func(d diffDigest) bool {
		found := added[key(d)]
		if len(found) == 0 {
			return false
		}
		c.Changed = append(c.Changed, changedDigest{d, found[0]})
		added[key(d)] = found[1:]
		taken[found[0]]++
		return true
	})
	c.Added = slices.DeleteFunc(c.Added, func(d diffDigest) bool {
		taken[d]--
		return taken[d] >= 0
	})
}

func hasPaths(l list) bool {
	return !slices.ContainsFunc(l.entries, func(e listEntry) bool { return e.path == "" })
}

func compareDigests(x, y diffDigest) int {
	return cmp.Or(strings.Compare(x.Path, y.Path), x.Digest.Compare(y.Digest), strings.Compare(x.Type, y.Type))
}

func (d *difference) writeText(w io.Writer) error {
	var errs []error
	print := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format, args...)
		errs = append(errs, err)
	}
	for _, p := range d.Removed {
		print("- %s   %s\n", cli.Text(p.Package), cli.Plural(p.Digests, "digest"))
	}
	for _, p := range d.Added {
		print("+ %s   %s\n", cli.Text(p.Package), cli.Plural(p.Digests, "digest"))
	}
	for _, c := range d.Changed {
		if c.From == c.To {
			print("~ %s\n", cli.Text(c.From))
		} else {
			print("~ %s -> %s\n", cli.Text(c.From), cli.Text(c.To))
		}
		for _, x := range c.Removed {
			print("    - %s\n", x.text())
		}
		for _, x := range c.Added {
			print("    + %s\n", x.text())
		}
		for _, x := range c.Changed {
			print("    ~ %s -> %s\n", x.From.text(), x.To.text())
		}
	}
	if d.Equal {
		print("no difference\n")
	} else {
		print("lists: %s removed, %s added, %s changed; digests: %s removed, %s added, %s changed\n",
			cli.Count(len(d.Removed)), cli.Count(len(d.Added)), cli.Count(len(d.Changed)),
			cli.Count(d.Digests.Removed), cli.Count(d.Digests.Added), cli.Count(d.Digests.Changed))
	}
	return errors.Join(errs...)
}

func (d diffDigest) text() string {
	text := d.Digest.String()
	if d.Type != digestlist.File.String() {
		text = d.Type + " " + text
	}
	if d.Immutable {
		text += " immutable"
	}
	if d.Path != "" {
		text += " " + cli.Text(d.Path)
	}
	return text
}
