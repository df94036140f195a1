package deb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/fetch"
	"diglim/internal/keyring"
	"diglim/internal/source/plain"
	"diglim/internal/unpack"
)

// Lists are the suites that apt on this machine knows, as they were when it
// last looked (apt-get update). They prove package files that apt has fetched,
// wherever these lie.
type Lists struct {
	// Skipped are the errors for suites that vouch for nothing: their signature,
	// their age, or one of their indices is not good.
	Skipped []error

	vouched map[digest.Digest]vouched // by the digest of a package file
}

type vouched struct {
	Package
	signer keyring.Signer
}

// OpenLists reads the directory that apt keeps its lists in, /var/lib/apt/lists,
// and proves what lies there. A suite without a good signature is left out, for
// others may have all that is asked for. An index may be compressed otherwise
// than the archive has it: it is proved by what it unpacks to.
func OpenLists(ctx context.Context, dir string, keys *keyring.Keyring, o Options) (*Lists, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	a, err := fetch.New(dir, fetch.Options{})
	if err != nil {
		return nil, err
	}
	l := &Lists{vouched: make(map[digest.Digest]vouched)}
	var last string
	for _, e := range entries {
		prefix, ok := strings.CutSuffix(e.Name(), "Release")
		if prefix = strings.TrimSuffix(prefix, "In"); !ok || prefix == last {
			continue
		}
		last = prefix
		s := &Suite{archive: a}
		if err := s.readRelease(ctx, prefix, keys, o); err != nil {
			l.Skipped = append(l.Skipped, err)
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(s.Release.indices)) {
			if path.Base(name) != "Packages" {
				continue
			}
			if err := l.readIndex(dir, prefix, name, s); err != nil {
				l.Skipped = append(l.Skipped, err)
			}
		}
	}
	return l, nil
}

// readIndex takes over an index that apt has of a suite, if it has it.
func (l *Lists) readIndex(dir, prefix, name string, s *Suite) error {
	for _, suffix := range append(suffixes, ".lz4", ".bz2") {
		at := filepath.Join(dir, prefix+listName(name)+suffix)
		f, err := fetch.OpenFile(at)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		defer f.Close()
		_, format, err := unpack.BySuffix(at)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		packages, is, err := unpackIndex(format, f)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if is != s.Release.indices[name] {
			return fmt.Errorf("%s: %w: %d bytes, %s", at, ErrMismatch, is.size, is.sha256)
		}
		for _, p := range packages {
			if p.bad == nil {
				l.vouched[p.SHA256] = vouched{p, s.Signer}
			}
		}
		return nil
	}
	return nil
}

// listName is what apt makes of a path in an archive (URItoFileName in apt's
// apt-pkg/contrib/strutl.cc).
func listName(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case c == '/':
			b.WriteByte('_')
		case c <= ' ' || c >= 0x7f || strings.IndexByte("\\|{}[]<>\"^~_=!@#$%&*", c) >= 0:
			fmt.Fprintf(&b, "%%%02x", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// ReadFile reads a package file, proves that it is one that a suite vouches for
// and returns the regular files that it installs, and who signed the suite. The
// error is ErrUnsigned if none does.
func (l *Lists) ReadFile(path string) (Package, []plain.File, keyring.Signer, error) {
	p, files, err := readFile(path)
	if err != nil {
		return Package{}, nil, keyring.Signer{}, err
	}
	v, there := l.vouched[p.SHA256]
	switch {
	case !there:
		err = fmt.Errorf("%s: %w: no suite that apt has lists of vouches for %s, %s", path, ErrUnsigned, p, p.SHA256)
	case v.Size != p.Size || v.String() != p.String():
		err = fmt.Errorf("%s: %w: it calls itself %s, the index %s", path, ErrMismatch, p, v)
	}
	return p, files, v.signer, err
}
