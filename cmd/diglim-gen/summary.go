package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"diglim/digestlist"
	"diglim/internal/cli"
)

// summary is what a run did, and is printed as it stands under --json.
type summary struct {
	Format    string                    `json:"format"`
	New       int                       `json:"new"`       // lists written
	Unchanged int                       `json:"unchanged"` // lists that were there already
	Digests   int                       `json:"digests"`
	Empty     int                       `json:"empty"`    // packages with nothing to list, which have no list
	Cached    int                       `json:"cached"`   // packages that were proved in an earlier run
	Unsigned  int                       `json:"unsigned"` // packages taken without a signature
	Weak      int                       `json:"weak"`     // packages taken on a weak signature
	Failed    int                       `json:"failed"`
	Merged    string                    `json:"merged,omitempty"` // the one list
	Pruned    []string                  `json:"pruned,omitempty"` // lists removed
	Signers   map[string]*signerSummary `json:"signers"`          // by key fingerprint
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
	Package string    `json:"package"`
	List    string    `json:"list,omitempty"`
	Digests int       `json:"digests"`
	Signer  string    `json:"signer,omitempty"` // key fingerprint
	Signed  time.Time `json:"signed,omitzero"`  // UTC
	Hash    string    `json:"hash,omitempty"`   // of the signature
	Weak    bool      `json:"weak,omitempty"`
	Error   string    `json:"error,omitempty"`
}

// newSummary makes the summary of a run over that many packages.
func newSummary(format digestlist.Format, packages int) *summary {
	return &summary{Format: string(format), Packages: make([]packageSummary, 0, packages), Signers: map[string]*signerSummary{}}
}

func (s *summary) fail(stderr io.Writer, err error) {
	s.Failed++
	s.Exit = cli.Worse(s.Exit, codeFor(err))
	fmt.Fprintf(stderr, "refused: %s\n", cli.Text(err.Error()))
}

func (s *summary) add(m made, changed bool) {
	p := packageSummary{Package: m.origin, List: m.name, Digests: m.digests}
	switch {
	case m.known != nil:
		s.Cached++
		s.Unchanged++
	case m.list == nil:
		s.Empty++
		p.List = ""
	case changed:
		s.New++
	default:
		s.Unchanged++
	}
	s.Digests += m.digests
	if m.unsigned {
		s.Unsigned++
		s.Packages = append(s.Packages, p)
		return
	}
	p.Signer, p.Signed, p.Hash, p.Weak = m.proof.Fingerprint, m.proof.Time.UTC(), m.proof.Hash.String(), m.proof.Weak
	s.Packages = append(s.Packages, p)
	if p.Weak {
		s.Weak++
	}
	by := s.Signers[p.Signer]
	if by == nil {
		by = &signerSummary{KeyID: fmt.Sprintf("%016x", m.proof.KeyID), UserID: m.proof.UserID, Keyring: m.proof.Source}
		s.Signers[p.Signer] = by
	}
	by.Packages++
}

// mergedInto says that there is one list instead of those of the packages.
func (s *summary) mergedInto(name string, changed bool) {
	s.Merged, s.New, s.Unchanged = name, 0, 1
	if changed {
		s.New, s.Unchanged = 1, 0
	}
	for i := range s.Packages {
		if s.Packages[i].List != "" {
			s.Packages[i].List = name
		}
	}
}

func (s *summary) writeText(w io.Writer, output string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "wrote %s with %s to %s (%s new, %s unchanged)\n", cli.Plural(s.New+s.Unchanged, "list"), cli.Plural(s.Digests, "digest"),
		cli.Text(output), cli.Count(s.New), cli.Count(s.Unchanged))
	byUse := slices.SortedFunc(maps.Values(s.Signers), func(a, b *signerSummary) int {
		if a.Packages != b.Packages {
			return b.Packages - a.Packages
		}
		return strings.Compare(a.KeyID, b.KeyID)
	})
	for _, by := range byUse {
		fmt.Fprintf(&b, "  %7s signed by %s %s\n", cli.Count(by.Packages), by.KeyID, cli.Text(by.UserID))
	}
	for _, line := range []struct {
		n    int
		text string
	}{
		{s.Unsigned, "UNSIGNED: nobody vouches for them but you"},
		{s.Weak, "of them on WEAK signatures, taken because of --allow-weak"},
		{s.Empty, "have nothing to list, and so no list"},
		{s.Cached, "of them proved in an earlier run, by the cache"},
		{len(s.Pruned), "removed, their packages are gone"},
	} {
		if line.n > 0 {
			fmt.Fprintf(&b, "  %7s %s\n", cli.Count(line.n), line.text)
		}
	}
	if s.Failed > 0 {
		fmt.Fprintf(&b, "refused %s\n", cli.Count(s.Failed))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
