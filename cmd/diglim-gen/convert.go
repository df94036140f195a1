package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/durable"
	"diglim/internal/keyring"
	"diglim/internal/modsig"
	"diglim/rpmhdr"

	"github.com/spf13/cobra"
)

var errEmpty = errors.New("no digests in it")

func convertCommand() *cobra.Command {
	var (
		c            converter
		from, to     layoutFlags
		certs        []string
		format, kind string
		output       string
	)
	cmd := &cobra.Command{
		Use:   "convert --to FORMAT --output DIR [flags] LIST...",
		Short: "write lists in another format",
		Long: `Writes the digests of rpm, compact and tlv lists as compact or tlv lists. Where a
list has a signature it is checked, because the new one has none: that of an rpm
list with --keyring, an appended one with --cert. An rpm list without is refused
unless --allow-unsigned.

Lists are refused that the target cannot hold: compact lists hold digests of the
algorithms and types that the dialect has numbers for, tlv lists digests of
files, of one algorithm. What is dropped is what the target's kernel never asks
about: paths in compact lists, in tlv lists whether a file is immutable. Nothing
can be converted to rpm: a header is what its vendor has signed.

The new name follows the rules of the interface that reads the list.`,
		Args: cobra.MinimumNArgs(1),
	}
	c.trust.flags(cmd)
	to.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&from.dialect, "from-dialect", "v3", "dialect of the compact lists to convert: v3, openeuler or bpf")
	f.StringVar(&from.endian, "from-endian", "", "byte order of the compact lists to convert: little or big")
	f.StringArrayVar(&certs, "cert", nil, "trust the certificates in this `file` as signers of compact and tlv lists (repeatable)")
	f.StringVar(&format, "to", "", "format to convert to: compact or tlv")
	f.StringVar(&kind, "names", "", "name the lists for diglim, openeuler, bpf or digest-cache (default: by format and dialect)")
	f.StringVarP(&output, "output", "o", "", "write the lists to this `directory`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if c.format, err = digestlist.ParseFormat(format); err != nil {
			return err
		}
		if c.format == digestlist.FormatRPM {
			return errors.New("nothing converts to rpm: a header is what its vendor has signed")
		}
		if output == "" {
			return errors.New("--output is needed")
		}
		if c.from, err = from.parse(); err != nil {
			return fmt.Errorf("--from-dialect, --from-endian: %w", err)
		}
		if c.to, err = to.parse(); err != nil {
			return err
		}
		if c.names, err = namesFor(kind, c.format, c.to.dialect); err != nil {
			return err
		}
		if c.certs, err = readCertificates(certs...); err != nil {
			return err
		}
		c.keys = &keyring.Keyring{}
		if len(c.trust.keyrings) > 0 {
			if c.keys, err = c.trust.load(cmd.ErrOrStderr()); err != nil {
				return err
			}
		}
		dir, err := durable.Open(output)
		if err != nil {
			return err
		}
		code, written := cli.Yes, 0
		from := make(map[string]string) // list by new name
		for _, path := range args {
			name, list, err := c.convert(path)
			switch {
			case err != nil:
			case from[name] != "":
				err = fmt.Errorf("%s: %w %s: %s", path, errClash, name, from[name])
			case sameFile(path, filepath.Join(output, name)):
				err = fmt.Errorf("%s: the new list would replace it", path)
			}
			if err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "refused: %s\n", cli.Text(err.Error()))
				code = cli.Worse(code, codeFor(err))
				continue
			}
			from[name] = path
			if _, err := dir.Write(name, list); err != nil {
				return errors.Join(err, dir.Close())
			}
			written++
		}
		if err := dir.Close(); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "wrote %s to %s\n", cli.Plural(written, "list"), cli.Text(output)); err != nil {
			return err
		}
		return cli.Exit(code)
	}
	return cmd
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// namesFor returns whose rules names follow: those asked for, or those of
// whoever reads the format.
func namesFor(kind string, f digestlist.Format, d digestlist.Dialect) (digestlist.Interface, error) {
	switch {
	case kind != "":
		return digestlist.ParseInterface(kind)
	case f == digestlist.FormatTLV:
		return digestlist.InterfaceDigestCache, nil
	case d == digestlist.OpenEuler:
		return digestlist.InterfaceOpenEuler, nil
	case d == digestlist.BPF:
		return digestlist.InterfaceBPF, nil
	}
	return digestlist.InterfaceDIGLIM, nil
}

// converter makes lists of one format out of others.
type converter struct {
	verifier
	from, to layout // of compact lists
	format   digestlist.Format
	names    digestlist.Interface
}

func (c *converter) convert(path string) (name string, list []byte, err error) {
	b, format, err := digestlist.ReadFile(path)
	if err == nil {
		name, list, err = c.convertList(b, format, filepath.Base(path))
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	return name, list, err
}

func (c *converter) convertList(b []byte, format digestlist.Format, file string) (name string, list []byte, err error) {
	if err := c.prove(b, format, file); err != nil {
		return "", nil, err
	}
	l, err := parseList(b, format, c.from)
	if err != nil {
		return "", nil, err
	}
	n, _, err := digestlist.KnownName(file)
	if err != nil && format != digestlist.FormatRPM {
		return "", nil, fmt.Errorf("nothing to name the new list by: %w", err)
	}
	if format == digestlist.FormatRPM {
		n.Type, n.Label = digestlist.File, l.label
	}
	n.Format = c.format
	switch {
	case c.names == digestlist.InterfaceDigestCache && n.Position == 0:
		n.Position = digestlist.NoPosition // what stands first elsewhere for want of an order
	case c.names != digestlist.InterfaceDigestCache && n.Position == digestlist.NoPosition:
		n.Position = 0
	}
	if name, err = n.File(c.names); err != nil {
		return "", nil, err
	}
	if len(l.entries) == 0 {
		return "", nil, errEmpty
	}
	list, err = l.append(nil, c.format, c.to)
	return name, list, err
}

// prove checks the signature that conversion is going to lose.
func (c *converter) prove(b []byte, format digestlist.Format, file string) error {
	if format == digestlist.FormatRPM {
		_, err := c.verifyRPM(b, file)
		if errors.Is(err, errUnsigned) && c.trust.allowUnsigned {
			return nil
		}
		return err
	}
	if _, err := verifySigned(b, c.certs); err != nil && !errors.Is(err, modsig.ErrNone) {
		return err
	}
	return nil
}

// A list is what lists of all formats say.
type list struct {
	label   string // what it is about; of an rpm list, the package that it is of
	flags   bool   // whether it says what is immutable
	entries []listEntry
}

type listEntry struct {
	typ       digestlist.Type
	modifiers digestlist.Modifiers
	digest    digest.Digest
	path      string // "" if the format has none
}

// parseList reads a list without asking who signed it.
func parseList(b []byte, format digestlist.Format, layout layout) (list, error) {
	if format == digestlist.FormatRPM {
		return parseRPMList(b)
	}
	b, _, err := modsig.Split(b)
	if err != nil && !errors.Is(err, modsig.ErrNone) {
		return list{}, err
	}
	if format == digestlist.FormatTLV {
		t, err := digestlist.ParseTLV(b)
		if err != nil {
			return list{}, err
		}
		l := list{}
		for _, e := range t.Entries {
			l.entries = append(l.entries, listEntry{digestlist.File, 0, e.Digest, e.Path})
		}
		return l, nil
	}
	blocks, err := digestlist.ParseCompact(layout.dialect, layout.endian, b)
	if err != nil {
		return list{}, err
	}
	l := list{flags: true}
	for _, block := range blocks {
		for _, d := range block.Digests {
			l.entries = append(l.entries, listEntry{block.Type, block.Modifiers, d, ""})
		}
	}
	return l, nil
}

func parseRPMList(b []byte) (list, error) {
	r, err := digestlist.ParseRPM(b)
	if err != nil {
		return list{}, err
	}
	return headerList(r.Header)
}

// headerList returns what a package's header says, as rpm lists have it.
func headerList(h rpmhdr.Header) (list, error) {
	nevra, err := h.NEVRA()
	if err != nil {
		return list{}, err
	}
	l := list{label: nevra.String(), flags: true}
	for f, err := range h.Files() {
		if err != nil {
			return list{}, err
		}
		if !digestlist.Listed(f) {
			continue
		}
		var m digestlist.Modifiers
		if digestlist.IsImmutable(f) {
			m = digestlist.Immutable
		}
		l.entries = append(l.entries, listEntry{digestlist.File, m, f.Digest, f.Path()})
	}
	return l, nil
}

// blocks returns the entries by what they have in common, those that are not
// immutable first.
func (l *list) blocks() []digestlist.Block {
	var mutable, immutable []digestlist.Block
	for _, e := range l.entries {
		blocks := &mutable
		if e.modifiers&digestlist.Immutable != 0 {
			blocks = &immutable
		}
		at := -1
		for i, b := range *blocks {
			if b.Type == e.typ && b.Modifiers == e.modifiers && b.Algorithm == e.digest.Algorithm() {
				at = i
			}
		}
		if at < 0 {
			at = len(*blocks)
			*blocks = append(*blocks, digestlist.Block{Type: e.typ, Modifiers: e.modifiers, Algorithm: e.digest.Algorithm()})
		}
		(*blocks)[at].Digests = append((*blocks)[at].Digests, e.digest)
	}
	return append(mutable, immutable...)
}

// append appends the list in format compact or tlv.
func (l *list) append(b []byte, f digestlist.Format, to layout) ([]byte, error) {
	if f == digestlist.FormatTLV {
		return l.appendTLV(b)
	}
	return digestlist.AppendCompact(b, to.dialect, to.endian, l.blocks())
}

func (l *list) appendTLV(b []byte) ([]byte, error) {
	if len(l.entries) == 0 {
		return nil, errEmpty // and of no algorithm
	}
	t := digestlist.TLV{Algorithm: l.entries[0].digest.Algorithm()}
	for _, e := range l.entries {
		switch {
		case e.typ != digestlist.File:
			return nil, fmt.Errorf("a tlv list has no type %s", e.typ)
		case e.modifiers&^digestlist.Immutable != 0:
			return nil, fmt.Errorf("a tlv list has no modifiers %#x", e.modifiers)
		}
		t.Entries = append(t.Entries, digestlist.TLVEntry{Digest: e.digest, Path: e.path})
	}
	return digestlist.AppendTLV(b, t)
}
