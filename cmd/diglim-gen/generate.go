package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/durable"
	"diglim/internal/keyring"
	"diglim/internal/source"
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
	origin string // in messages: a path, or what the source calls it
	stamp  string // changes whenever the package does; "" if that cannot be told
	read   func(buf []byte) (found, error)
}

// A found is what a source reads of one package: a header that is yet to be
// proved, or files that the source itself has proved.
type found struct {
	rpm *rpmhdr.Package // nil if there is no header

	label string // of the list
	files []foundFile
	proof source.Proof
}

type foundFile struct {
	path      string
	digest    digest.Digest
	immutable bool
}

// A made is what became of one package.
type made struct {
	origin, stamp string
	label         string // known even of most packages that are refused
	name          string // of the list
	list          []byte // nil if there is nothing to write
	cached        bool   // the cache vouches for the list that is there
	blocks        []digestlist.Block
	digests       int
	proof         source.Proof // zero if the package is unsigned and that is allowed
	unsigned      bool
	err           error
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
	f.StringVar(&g.names, "names", "", "name lists as this `interface` wants it: diglim, openeuler or digest-cache")
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
	switch {
	case g.names != "":
		if g.iface, err = digestlist.ParseInterface(g.names); err != nil {
			return err
		}
	case g.fmt == digestlist.FormatTLV:
		g.iface = digestlist.InterfaceDigestCache
	case g.parsed.dialect == digestlist.OpenEuler:
		g.iface = digestlist.InterfaceOpenEuler
	default:
		g.iface = digestlist.InterfaceDIGLIM
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
		err = cli.WriteJSON(cmd.OutOrStdout(), s)
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
	s := newSummary(g.fmt)
	for _, err := range problems {
		s.fail(stderr, err)
	}
	if g.cacheIn != "" {
		var err error
		if g.cache, err = loadCache(g.cacheIn, g.fingerprint()); err != nil {
			fmt.Fprintf(stderr, "warning: cache: %v: everything is proved anew\n", err)
		}
	}
	dir, err := durable.Open(g.output)
	if err != nil {
		return nil, err
	}
	results := inOrder(works, g.jobs, func() func(work) made {
		buf := make([]byte, 64<<10)
		return func(w work) made { return g.one(w, buf) }
	})
	progress := newProgress(stderr, len(works))
	o := &output{dir: dir, merge: g.merge != "", from: map[string]string{}, labels: map[string]bool{}}
	for m := range results {
		progress.step()
		if m.err == nil && !o.merge {
			m.err = o.clash(m)
		}
		o.add(m)
		if m.err != nil {
			progress.clear()
			s.fail(stderr, m.err)
			s.Packages = append(s.Packages, packageSummary{Package: m.origin, Error: m.err.Error()})
			continue
		}
		changed := false
		if m.list != nil && g.merge == "" {
			if changed, err = dir.Write(m.name, m.list); err != nil {
				// A full or read-only disk: the next list would fail as well.
				return nil, errors.Join(err, dir.Close())
			}
		}
		g.cache.put(m, g.output)
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
	return s, errors.Join(err, dir.Close())
}

// one makes the list of one package. It uses buf if that is large enough.
func (g *generator) one(w work, buf []byte) made {
	m := made{origin: w.origin, stamp: w.stamp}
	if g.cache.get(&m, g.output) {
		return m
	}
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
	m.proof, m.label = f.proof, f.label
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
			f.files, err = headerFiles(f.rpm.Header)
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

// headerFiles returns the files of a header that a list is to have.
func headerFiles(h rpmhdr.Header) ([]foundFile, error) {
	var files []foundFile
	for f, err := range h.Files() {
		if err != nil {
			return nil, err
		}
		if digestlist.Listed(f) {
			files = append(files, foundFile{f.Path(), f.Digest, digestlist.IsImmutable(f)})
		}
	}
	return files, nil
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
		f.files = slices.DeleteFunc(f.files, func(f foundFile) bool { return !f.immutable })
	}
	if g.fmt != digestlist.FormatRPM {
		m.digests = len(f.files)
	}
	switch {
	case g.fmt == digestlist.FormatRPM:
		if f.rpm == nil {
			return errors.New("not an RPM package: its list can be compact or tlv")
		}
		m.list = digestlist.AppendRPM(nil, digestlist.RPM{Header: f.rpm.Header, Signature: m.proof.Signature})
	case m.digests == 0:
		// Packages without files are common, and kernels refuse empty lists.
	case g.fmt == digestlist.FormatCompact:
		m.blocks = blocks(g.listType, f.files)
		m.list, err = digestlist.AppendCompact(nil, g.parsed.dialect, g.parsed.endian, m.blocks)
	case g.fmt == digestlist.FormatTLV:
		m.blocks = blocks(g.listType, f.files)
		m.list, err = appendTLV(f.files)
	}
	return err
}

// blocks sorts files into one block a kind: what changes before what does not,
// each by algorithm.
func blocks(t digestlist.Type, files []foundFile) []digestlist.Block {
	var all []digestlist.Block
	for _, modifiers := range []digestlist.Modifiers{0, digestlist.Immutable} {
		for _, f := range files {
			if f.immutable != (modifiers == digestlist.Immutable) {
				continue
			}
			i := slices.IndexFunc(all, func(b digestlist.Block) bool {
				return b.Modifiers == modifiers && b.Algorithm == f.digest.Algorithm()
			})
			if i < 0 {
				i = len(all)
				all = append(all, digestlist.Block{Type: t, Modifiers: modifiers, Algorithm: f.digest.Algorithm()})
			}
			all[i].Digests = append(all[i].Digests, f.digest)
		}
	}
	return all
}

func appendTLV(files []foundFile) ([]byte, error) {
	var l digestlist.TLV
	for _, f := range files {
		l.Algorithm = f.digest.Algorithm() // AppendTLV refuses another one among them
		l.Entries = append(l.Entries, digestlist.TLVEntry{Digest: f.digest, Path: f.path})
	}
	return digestlist.AppendTLV(nil, l)
}

// An output is the directory of lists, and what is known to belong there.
type output struct {
	dir    *durable.Dir
	from   map[string]string // by list name: the package that it was made of
	merge  bool
	merged []digestlist.Block // if that is wanted
	labels map[string]bool    // of all packages that there are, refused ones too
	lost   int                // packages whose label could not be found out
}

// clash refuses a second package of a list's name, unless its list is the same.
func (o *output) clash(m made) error {
	other, taken := o.from[m.name]
	if !taken || m.list == nil {
		return nil
	}
	same, err := o.dir.Holds(m.name, m.list)
	if err == nil && !same {
		err = fmt.Errorf("%s: %w %s: %s", m.origin, errClash, m.name, other)
	}
	return err
}

func (o *output) add(m made) {
	if m.label == "" {
		o.lost++
	}
	o.labels[m.label] = true
	if m.err == nil {
		o.from[m.name] = m.origin
		if o.merge {
			o.merged = append(o.merged, m.blocks...)
		}
	}
}

// writeMerged writes one list of all digests: each once, sorted, so that its
// bytes depend on what is in it alone.
func (g *generator) writeMerged(o *output, s *summary) error {
	if len(o.merged) == 0 {
		return errEmpty
	}
	var merged []digestlist.Block
	for _, b := range o.merged {
		i := slices.IndexFunc(merged, func(m digestlist.Block) bool {
			return m.Modifiers == b.Modifiers && m.Algorithm == b.Algorithm
		})
		if i < 0 {
			i = len(merged)
			merged = append(merged, digestlist.Block{Type: b.Type, Modifiers: b.Modifiers, Algorithm: b.Algorithm})
		}
		merged[i].Digests = append(merged[i].Digests, b.Digests...)
	}
	slices.SortFunc(merged, func(a, b digestlist.Block) int {
		if a.Modifiers != b.Modifiers {
			return int(a.Modifiers) - int(b.Modifiers)
		}
		return int(a.Algorithm) - int(b.Algorithm)
	})
	var tlv []foundFile
	for i := range merged {
		slices.SortFunc(merged[i].Digests, digest.Digest.Compare)
		merged[i].Digests = slices.Compact(merged[i].Digests)
		for _, d := range merged[i].Digests {
			tlv = append(tlv, foundFile{digest: d})
		}
	}
	name, err := g.name(g.merge)
	if err != nil {
		return err
	}
	var list []byte
	if g.fmt == digestlist.FormatTLV {
		list, err = appendTLV(tlv)
	} else {
		list, err = digestlist.AppendCompact(nil, g.parsed.dialect, g.parsed.endian, merged)
	}
	if err != nil {
		return err
	}
	changed, err := o.dir.Write(name, list)
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
