package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/durable"
	"diglim/internal/keyring"
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

// generator makes one list of one package.
type generator struct {
	keys   *keyring.Keyring
	trust  trust
	format digestlist.Format
	layout layout
}

// generated is what became of one package.
type generated struct {
	path  string
	name  string // of the list
	list  []byte
	proof source.Proof // zero if the package is unsigned and that is allowed
	err   error

	digests int
}

func (g *generated) unsigned() bool { return g.err == nil && g.proof.Signature == nil }

func rpmCommand() *cobra.Command {
	var (
		g       generator
		layout  layoutFlags
		output  string
		format  string
		jobs    int
		jsonOut bool
	)
	cmd := &cobra.Command{
		Use:   "rpm [flags] PACKAGE|DIR...",
		Short: "make digest lists of RPM package files",
		Long: `Reads the headers of RPM packages (of all *.rpm files below a directory), never
their payload, and writes one list a package: 0-file_list-FORMAT-NAME-VERSION-RELEASE.ARCH

Format rpm is the header itself with the vendor's signature behind it: whoever
reads the list can check it again. Format compact is the bare digests, as a
kernel with DIGLIM v3 takes them, or openEuler's with --dialect openeuler; the
signature is checked now and then lost.

A package that is refused does not stop the others.`,
		Args: cobra.MinimumNArgs(1),
	}
	layout.flags(cmd)
	g.trust.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&output, "output", "o", ".", "write the lists to this `directory`")
	f.StringVar(&format, "format", "rpm", "format of the lists: rpm or compact")
	f.IntVarP(&jobs, "jobs", "j", runtime.NumCPU(), "read this many packages at a time")
	f.BoolVar(&jsonOut, "json", false, "say what was done as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if g.layout, err = layout.parse(); err != nil {
			return err
		}
		g.format = digestlist.Format(format)
		if g.format != digestlist.FormatRPM && g.format != digestlist.FormatCompact {
			return fmt.Errorf("format %q is not known: rpm and compact are", format)
		}
		if jobs < 1 {
			return fmt.Errorf("%d jobs: there must be one", jobs)
		}
		if g.keys, err = g.trust.load(cmd.ErrOrStderr()); err != nil {
			return err
		}
		files, problems := rpmfile.Find(args)
		s, err := g.all(files, problems, output, jobs, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		if jsonOut {
			err = cli.WriteJSON(cmd.OutOrStdout(), s)
		} else {
			err = s.writeText(cmd.OutOrStdout(), output)
		}
		if err != nil {
			return err
		}
		return cli.Exit(s.Exit)
	}
	return cmd
}

// one makes the list of one package. It uses buf if that is large enough.
func (g *generator) one(path string, buf []byte) generated {
	r := generated{path: path}
	r.err = func() error {
		p, err := rpmfile.Read(path, buf)
		if err != nil {
			return err
		}
		r.proof, err = source.Prove(p, g.keys, g.trust.policy())
		if err != nil && (!errors.Is(err, source.ErrUnsigned) || !g.trust.allowUnsigned) {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := g.encode(&r, p.Header); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}()
	r.proof.Signature = slices.Clone(r.proof.Signature) // buf is used again
	return r
}

func (g *generator) encode(r *generated, h rpmhdr.Header) error {
	name, err := digestlist.NameFor(h, g.format)
	if err != nil {
		return err
	}
	r.name = name.String()
	mutable, immutable, err := digestlist.FromHeader(h)
	if err != nil {
		return err
	}
	r.digests = len(mutable.Digests) + len(immutable.Digests)
	if g.format == digestlist.FormatRPM {
		r.list = digestlist.AppendRPM(nil, digestlist.RPM{Header: h, Signature: r.proof.Signature})
		return nil
	}
	r.list, err = digestlist.AppendCompact(nil, g.layout.dialect, g.layout.endian, []digestlist.Block{mutable, immutable})
	return err
}

// all makes the lists of all files and writes them to a directory. Its error
// is one that stops everything.
func (g *generator) all(files []string, problems []error, output string, jobs int, stderr io.Writer) (*summary, error) {
	s := &summary{Format: string(g.format), Packages: []packageSummary{}, Signers: map[string]*signerSummary{}}
	for _, err := range problems {
		s.fail(stderr, err)
	}
	dir, err := durable.Open(output)
	if err != nil {
		return nil, err
	}
	type origin struct {
		path string
		list digest.Digest
	}
	from := make(map[string]origin) // by list name
	results := inOrder(files, jobs, func() func(string) generated {
		buf := make([]byte, 64<<10)
		return func(path string) generated { return g.one(path, buf) }
	})
	for r := range results {
		this := origin{r.path, digest.Sum(digest.SHA256, r.list)}
		if other, taken := from[r.name]; r.err == nil && taken && other.list != this.list {
			r.err = fmt.Errorf("%s: %w %s: %s", r.path, errClash, r.name, other.path)
		}
		if r.err != nil {
			s.fail(stderr, r.err)
			s.Packages = append(s.Packages, packageSummary{Package: r.path, Error: r.err.Error()})
			continue
		}
		from[r.name] = this
		changed, err := dir.Write(r.name, r.list)
		if err != nil {
			// A full or read-only disk: the next list would fail as well.
			return nil, errors.Join(err, dir.Close())
		}
		s.add(r, changed)
	}
	return s, dir.Close()
}

// summary is what a run did, and is printed as it stands under --json.
type summary struct {
	Format    string                    `json:"format"`
	New       int                       `json:"new"`       // lists written
	Unchanged int                       `json:"unchanged"` // lists that were there already
	Digests   int                       `json:"digests"`
	Unsigned  int                       `json:"unsigned"` // packages taken without a signature
	Weak      int                       `json:"weak"`     // packages taken on a weak signature
	Failed    int                       `json:"failed"`
	Signers   map[string]*signerSummary `json:"signers"` // by key fingerprint
	Packages  []packageSummary          `json:"packages"`
	Exit      int                       `json:"exit"`
}

type signerSummary struct {
	KeyID    string `json:"key_id"`
	UserID   string `json:"user_id"`
	Keyring  string `json:"keyring"` // file that the key came from
	Packages int    `json:"packages"`
}

type packageSummary struct {
	Package string `json:"package"`
	List    string `json:"list,omitempty"`
	Digests int    `json:"digests"`
	Signer  string `json:"signer,omitempty"` // key fingerprint
	Signed  string `json:"signed,omitempty"` // RFC 3339
	Hash    string `json:"hash,omitempty"`   // of the signature
	Weak    bool   `json:"weak,omitempty"`
	Error   string `json:"error,omitempty"`
}

func (s *summary) fail(stderr io.Writer, err error) {
	s.Failed++
	s.Exit = cli.Worse(s.Exit, codeFor(err))
	fmt.Fprintf(stderr, "refused: %s\n", cli.Text(err.Error()))
}

func (s *summary) add(r generated, changed bool) {
	if changed {
		s.New++
	} else {
		s.Unchanged++
	}
	s.Digests += r.digests
	p := packageSummary{Package: r.path, List: r.name, Digests: r.digests}
	if r.unsigned() {
		s.Unsigned++
		s.Packages = append(s.Packages, p)
		return
	}
	p.Signer, p.Signed, p.Hash, p.Weak = r.proof.Fingerprint, r.proof.Time.UTC().Format("2006-01-02T15:04:05Z"), r.proof.Hash.String(), r.proof.Weak
	s.Packages = append(s.Packages, p)
	if p.Weak {
		s.Weak++
	}
	by := s.Signers[p.Signer]
	if by == nil {
		by = &signerSummary{KeyID: fmt.Sprintf("%016x", r.proof.KeyID), UserID: r.proof.UserID, Keyring: r.proof.Source}
		s.Signers[p.Signer] = by
	}
	by.Packages++
}

func (s *summary) writeText(w io.Writer, output string) error {
	lists := s.New + s.Unchanged
	var err error
	print := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format, args...)
		}
	}
	print("wrote %s with %s to %s (%s new, %s unchanged)\n", cli.Plural(lists, "list"), cli.Plural(s.Digests, "digest"),
		cli.Text(output), cli.Count(s.New), cli.Count(s.Unchanged))
	byUse := slices.SortedFunc(maps.Values(s.Signers), func(a, b *signerSummary) int {
		if a.Packages != b.Packages {
			return b.Packages - a.Packages
		}
		return strings.Compare(a.KeyID, b.KeyID)
	})
	for _, by := range byUse {
		print("  %7s signed by %s %s\n", cli.Count(by.Packages), by.KeyID, cli.Text(by.UserID))
	}
	if s.Unsigned > 0 {
		print("  %7s UNSIGNED, taken because of --allow-unsigned\n", cli.Count(s.Unsigned))
	}
	if s.Weak > 0 {
		print("  %7s of them on WEAK signatures, taken because of --allow-weak\n", cli.Count(s.Weak))
	}
	if s.Failed > 0 {
		print("refused %s\n", cli.Count(s.Failed))
	}
	return err
}
