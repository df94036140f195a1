package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime"
	"slices"
	"strings"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/cobracli"
	"diglim/internal/durable"
	"diglim/internal/keyring"
	"diglim/internal/modsig"
	"diglim/internal/source"
	"diglim/internal/source/rpmfile"
	"diglim/rpmhdr"

	"github.com/spf13/cobra"
)

var (
	errUnsigned = source.ErrUnsigned
	errClash    = errors.New("another package has the list name")
	errMisnamed = errors.New("the name is another package's")
)

// A work is one package, before anything of it has been read.
type work struct {
	origin string        // in messages: a path, or what the source calls it
	stamp  rpmfile.Stamp // zero if nothing tells when the package changes
	read   func(buf []byte) (found, error)
}

// A found is what a source reads of one package: a header that is yet to be
// proved, or files that the source itself has proved.
type found struct {
	rpm *rpmhdr.Package // nil if there is no header
	own []byte          // what rpm aliases, if it is not used again; else nil

	list  list // what a list of it is to say
	proof source.Proof
}

// A made is what became of one package.
type made struct {
	origin   string
	stamp    rpmfile.Stamp
	label    string      // known even of most packages that are refused
	name     string      // of the list
	list     []byte      // nil if there is nothing to write
	known    *cached     // the cache vouches for the list that is there
	entries  []listEntry // for --merge
	digests  int
	proof    source.Proof // zero if the package is unsigned and that is allowed
	unsigned bool
	err      error
}

// A generator makes lists of packages, whatever source they come from.
type generator struct {
	trust    trust
	layout   layoutFlags
	format   string
	names    string
	choose   string
	merge    string
	output   string
	cacheIn  string
	jobs     int
	prune    bool
	jsonOut  bool
	listType digestlist.Type // what the digests are of; File if not set

	keys   *keyring.Keyring
	fmt    digestlist.Format
	iface  digestlist.Interface
	parsed layout
	cache  *cache
}

// flags declares what all sources have in common.
func (g *generator) flags(cmd *cobra.Command, format string) {
	g.trust.flags(cmd)
	g.layout.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&g.output, "output", "o", ".", "write the lists to this `directory`")
	f.StringVar(&g.format, "format", format, "format of the lists: rpm, compact or tlv")
	f.StringVar(&g.names, "names", "", "name lists as this `interface` wants it: diglim, openeuler, bpf or digest-cache")
	f.StringVar(&g.choose, "select", "all", "list all files, or executable: those that are never changed")
	f.StringVar(&g.merge, "merge", "", "make one list of everything, with this `label`")
	f.BoolVar(&g.prune, "prune", false, "remove lists in the output directory whose package is gone")
	f.IntVarP(&g.jobs, "jobs", "j", runtime.NumCPU(), "read this many packages at a time")
	f.BoolVar(&g.jsonOut, "json", false, "say what was done as JSON")
}

// prepare reads the flags and the keyrings.
func (g *generator) prepare(stderr io.Writer) (err error) {
	if g.fmt, err = digestlist.ParseFormat(g.format); err != nil {
		return err
	}
	if g.parsed, err = g.layout.parse(); err != nil {
		return err
	}
	if g.iface, err = namesFor(g.names, g.fmt, g.parsed.dialect); err != nil {
		return err
	}
	switch {
	case g.choose != "all" && g.choose != "executable":
		return fmt.Errorf("select %q: all and executable are known", g.choose)
	case g.fmt == digestlist.FormatRPM && (g.choose != "all" || g.merge != ""):
		return errors.New("an rpm list is a package's header as it is: no --select, no --merge")
	case g.merge != "" && (g.prune || g.cacheIn != ""):
		return errors.New("--prune and --cache go by packages, and --merge makes one list of them all")
	case g.jobs < 1:
		return fmt.Errorf("%d jobs: there must be one", g.jobs)
	}
	if g.listType == 0 {
		g.listType = digestlist.File
	}
	g.keys, err = g.trust.load(stderr)
	return err
}

// run makes the lists and says what was done. Problems are what the source
// could not even begin with.
func (g *generator) run(cmd *cobra.Command, works []work, problems []error) error {
	s, err := g.all(works, problems, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if g.jsonOut {
		err = cobracli.WriteJSON(cmd.OutOrStdout(), s)
	} else {
		err = s.writeText(cmd.OutOrStdout(), g.output)
	}
	if err != nil {
		return err
	}
	return cli.Exit(s.Exit)
}

// all makes the lists and writes them to the output directory. Its error is
// one that stops everything.
func (g *generator) all(works []work, problems []error, stderr io.Writer) (*summary, error) {
	s := newSummary(g.fmt, len(works))
	for _, err := range problems {
		s.fail(stderr, err)
	}
	dir, err := durable.Open(g.output)
	if err != nil {
		return nil, err
	}
	if g.cacheIn != "" {
		var useless error
		if g.cache, useless, err = g.openCache(); err != nil {
			return nil, err
		}
		if useless != nil {
			fmt.Fprintf(stderr, "warning: cache: %v: everything is proved anew\n", useless)
		}
	}
	known, others := g.cache.split(works)
	next, stop := iter.Pull(inOrder(others, g.jobs, func() func(work) made {
		buf := make([]byte, 64<<10)
		return func(w work) made { return g.one(w, buf) }
	}))
	defer stop()
	progress := newProgress(stderr, len(works))
	o := &output{dir: dir, merge: g.merge != "", from: make(map[string]string, len(works)), labels: make(map[string]bool, len(works))}
	for _, p := range known {
		var m made
		if p != nil {
			m = g.cache.made(p)
		} else {
			m, _ = next() // there is one for each
		}
		progress.step()
		written := false
		if m.err == nil && !o.merge {
			written, m.err = o.clash(m)
		}
		o.add(m)
		if m.err != nil {
			progress.clear()
			s.fail(stderr, m.err)
			s.Packages = append(s.Packages, packageSummary{Package: m.origin, Error: m.err.Error()})
			continue
		}
		changed := false
		if m.list != nil && g.merge == "" && !written {
			if changed, err = dir.Write(m.name, m.list); err != nil {
				// A full or read-only disk: the next list would fail as well.
				return nil, errors.Join(err, dir.Close())
			}
		}
		g.cache.put(m)
		s.add(m, changed)
	}
	progress.clear()
	if g.merge != "" {
		err = g.writeMerged(o, s)
	}
	if err == nil && g.prune {
		err = g.pruneLists(o, s, stderr)
	}
	if err == nil && g.cache != nil {
		err = g.cache.save(g.cacheIn)
	}
	return s, errors.Join(err, dir.Close(), g.cache.close())
}

// one makes the list of one package. It uses buf if that is large enough.
func (g *generator) one(w work, buf []byte) made {
	m := made{origin: w.origin, stamp: w.stamp}
	if err := g.make(w, &m, buf); err != nil {
		m.err = err
		if !strings.HasPrefix(err.Error(), w.origin) {
			m.err = fmt.Errorf("%s: %w", w.origin, err)
		}
	}
	m.proof.Signature = slices.Clone(m.proof.Signature) // buf is used again
	return m
}

func (g *generator) make(w work, m *made, buf []byte) error {
	f, err := w.read(buf)
	if err != nil {
		return err
	}
	m.proof, m.label = f.proof, f.list.label
	if f.rpm != nil {
		nevra, err := f.rpm.Header.NEVRA()
		if err != nil {
			return err
		}
		m.label = nevra.String()
		m.proof, err = source.Prove(*f.rpm, g.keys, g.trust.policy())
		if err != nil && (!errors.Is(err, source.ErrUnsigned) || !g.trust.allowUnsigned) {
			return err
		}
		if g.fmt == digestlist.FormatRPM {
			m.digests, err = countFiles(f.rpm.Header)
		} else {
			f.list, err = headerList(f.rpm.Header)
		}
		if err != nil {
			return err
		}
	}
	m.unsigned = m.proof.KeyID == 0
	if m.name, err = g.name(m.label); err != nil {
		return err
	}
	return g.encode(m, f)
}

// name returns the file name of a list. The digest cache has positions only
// where somebody wants an order.
func (g *generator) name(label string) (string, error) {
	n := digestlist.Name{Type: g.listType, Format: g.fmt, Label: label}
	if g.iface == digestlist.InterfaceDigestCache {
		n.Position = digestlist.NoPosition
	}
	return n.File(g.iface)
}

// countFiles checks all files of a header, and counts those that a list has.
// The rpm list is the header itself: what is in it need not be copied out.
func countFiles(h rpmhdr.Header) (n int, err error) {
	for f, err := range h.Files() {
		if err != nil {
			return 0, err
		}
		if digestlist.Listed(f) {
			n++
		}
	}
	return n, nil
}

// encode makes the bytes of the list, in header order: the same package always
// gives the same list.
func (g *generator) encode(m *made, f found) (err error) {
	if g.choose == "executable" {
		f.list.entries = slices.DeleteFunc(f.list.entries, func(e listEntry) bool { return e.modifiers&digestlist.Immutable == 0 })
	}
	if g.fmt == digestlist.FormatRPM {
		if f.rpm == nil {
			return errors.New("not an RPM package: its list can be compact or tlv")
		}
		m.list = rpmList(f, m.proof.Signature)
		return nil
	}
	m.digests = len(f.list.entries)
	if g.merge != "" {
		m.entries = f.list.entries
	}
	if m.digests > 0 { // packages without files are common, and kernels refuse empty lists
		m.list, err = f.list.append(nil, g.fmt, g.parsed)
	}
	return err
}

// rpmList makes an rpm list. In a buffer of its own the header stays where it
// is: large headers are not in memory twice.
func rpmList(f found, sig []byte) []byte {
	l := digestlist.RPM{Header: f.rpm.Header, Signature: sig}
	header, size := int64(len(l.Header.Signed())), f.rpm.Size
	if f.own == nil {
		return digestlist.AppendRPM(make([]byte, 0, int(header)+len(sig)+modsig.TrailerSize), l)
	}
	if sig == nil {
		return f.own[size-header : size]
	}
	return modsig.Append(f.own[size-header:size], modsig.Signature{Type: modsig.PGP, Bytes: sig})
}

// An output is the directory of lists, and what is known to belong there.
type output struct {
	dir    *durable.Dir
	from   map[string]string // by list name: the package that it was made of
	merge  bool
	merged []listEntry     // if that is wanted
	labels map[string]bool // of all packages that there are, refused ones too
	lost   int             // packages whose label could not be found out
}

// clash refuses a second package of a list's name, unless its list is the same,
// which is then written already.
func (o *output) clash(m made) (written bool, err error) {
	other, taken := o.from[m.name]
	if !taken || m.list == nil {
		return false, nil
	}
	same, err := o.dir.Holds(m.name, m.list)
	if err == nil && !same {
		err = fmt.Errorf("%s: %w %s: %s", m.origin, errClash, m.name, other)
	}
	return same, err
}

func (o *output) add(m made) {
	if m.label == "" {
		o.lost++
	}
	o.labels[m.label] = true
	if m.err == nil {
		o.from[m.name] = m.origin
		o.merged = append(o.merged, m.entries...)
	}
}

// writeMerged writes one list of all digests: each once, sorted, so that its
// bytes depend on what is in it alone.
func (g *generator) writeMerged(o *output, s *summary) error {
	l := list{entries: o.merged}
	for i := range l.entries {
		l.entries[i].path = ""
	}
	slices.SortFunc(l.entries, func(a, b listEntry) int {
		return cmp.Or(cmp.Compare(a.modifiers, b.modifiers), a.digest.Compare(b.digest))
	})
	l.entries = slices.Compact(l.entries)
	if len(l.entries) == 0 {
		return errEmpty
	}
	name, err := g.name(g.merge)
	if err != nil {
		return err
	}
	b, err := l.append(nil, g.fmt, g.parsed)
	if err != nil {
		return err
	}
	changed, err := o.dir.Write(name, b)
	s.mergedInto(name, changed)
	return err
}

// pruneLists removes the lists of packages that are gone: those that are named
// as this run names them, and whose label no package has that was found, taken
// or refused. If a package could not even be named, none is removed: it may be
// the one.
func (g *generator) pruneLists(o *output, s *summary, stderr io.Writer) error {
	if o.lost > 0 {
		fmt.Fprintf(stderr, "warning: nothing was pruned: %s could not be read\n", cli.Plural(o.lost, "package"))
		return nil
	}
	entries, err := os.ReadDir(g.output)
	if err != nil {
		return err
	}
	for _, e := range entries {
		n, err := digestlist.ParseName(g.iface, e.Name())
		if err != nil || n.Format != g.fmt || n.Type != g.listType || n.Position > 0 || !e.Type().IsRegular() || o.labels[n.Label] {
			continue
		}
		if err := o.dir.Remove(e.Name()); err != nil {
			return err
		}
		s.Pruned = append(s.Pruned, e.Name())
	}
	return nil
}
