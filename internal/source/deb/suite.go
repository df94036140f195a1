// Package deb takes the digests of the files in Debian packages from where
// their archive proves them: a trusted key signs the suite's Release file, that
// has the digest of each index of packages, an index that of each package, and
// a package's bytes are the files. Nothing is believed that does not hang on
// this chain by SHA-256.
package deb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"diglim/internal/digest"
	"diglim/internal/fetch"
	"diglim/internal/keyring"
	"diglim/internal/source/plain"
	"diglim/internal/unpack"
)

// What can be wrong with a suite or package other than its bytes and its
// signature. Test with errors.Is.
var (
	ErrUnsigned = errors.New("no signature")
	ErrExpired  = errors.New("expired")
	ErrMismatch = errors.New("not what was signed")
)

const (
	maxIndexFile = 64 << 20  // bytes of an index as it lies in the archive; it is held in memory
	maxIndex     = 512 << 20 // bytes of an index, unpacked
)

// How a transfer goes on when it is cut (fetch.Options).
const (
	attempts    = 6
	pause       = 500 * time.Millisecond
	patience    = 30 * time.Second
	connections = 16
)

// A Source says which packages are meant.
type Source struct {
	// Location is an archive: an http, https or file URL, or a directory. Without
	// a Suite it is that of a suite (ARCHIVE/dists/SUITE), or a flat archive, with
	// Release, Packages and packages in one directory.
	Location     string
	Suite        string   // as below dists: "bookworm", "bookworm-updates"
	Components   []string // all that there are, if empty
	Architecture string   // packages for all architectures come along; all, if empty and the archive is flat
}

// Options say what is accepted beyond the usual. The zero Options are strict.
type Options struct {
	Policy        keyring.Policy
	AllowUnsigned bool // suites without a signature, and lone packages
	AllowExpired  bool // suites past their Valid-Until

	// Progress is called with the number of bytes whenever some have been read
	// from the archive; several calls at a time. It can be nil.
	Progress func(bytes int)
}

// A Suite is a part of an archive that a trusted key vouches for.
type Suite struct {
	Release  Release
	Signer   keyring.Signer // zero if it is unsigned, and that is allowed
	Unsigned bool
	Expired  bool

	archive  *fetch.Origin
	packages []Package
}

// Open reads a suite and its indices, and proves them. What fails stops here,
// but for what an index says of a single package: that is Files' to report.
func Open(ctx context.Context, src Source, keys *keyring.Keyring, o Options) (*Suite, error) {
	location, dir, name, err := locate(src)
	if err != nil {
		return nil, err
	}
	a, err := fetch.New(location, fetch.Options{Tries: attempts, Pause: pause, Timeout: patience, Connections: connections, Progress: o.Progress})
	if err != nil {
		return nil, err
	}
	return open(ctx, a, dir, name, src, keys, o)
}

// locate returns where the archive is, where in it the suite, and what the
// suite must be called, if that is known.
func locate(src Source) (location, dir, name string, err error) {
	if src.Location == "" {
		return "", "", "", errors.New("no archive is named")
	}
	location = strings.TrimRight(src.Location, "/")
	if !strings.Contains(location, "://") {
		if location, err = filepath.Abs(src.Location); err != nil {
			return "", "", "", err
		}
	}
	name = strings.Trim(src.Suite, "/")
	if i := strings.LastIndex(location, "/dists/"); name == "" && i >= 0 {
		location, name = location[:i], location[i+len("/dists/"):]
	}
	if name == "" {
		return location, "", "", nil
	}
	if p, err := unpack.Path(name); err != nil || p[1:] != name {
		return "", "", "", fmt.Errorf("suite %q cannot be one", name)
	}
	return location, "dists/" + name, name, nil
}

func open(ctx context.Context, a *fetch.Origin, dir, name string, src Source, keys *keyring.Keyring, o Options) (*Suite, error) {
	s := &Suite{archive: a}
	prefix := ""
	if dir != "" {
		prefix = dir + "/"
	}
	if err := s.readRelease(ctx, prefix, keys, o); err != nil {
		return nil, err
	}
	release := a.Where(path.Join(dir, "Release"))
	if name != "" && name != s.Release.Suite && name != s.Release.Codename {
		return nil, fmt.Errorf("%s: %w: it is of suite %q, codename %q", release, ErrMismatch, s.Release.Suite, s.Release.Codename)
	}
	indices, err := s.Release.choose(src, dir == "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", release, err)
	}
	for _, i := range indices {
		packages, err := s.readIndex(ctx, dir, i)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.Where(path.Join(dir, i)), err)
		}
		s.packages = append(s.packages, slices.DeleteFunc(packages, func(p Package) bool {
			return p.bad == nil && src.Architecture != "" && p.Architecture != src.Architecture && p.Architecture != "all"
		})...)
	}
	slices.SortFunc(s.packages, comparePackages)
	s.packages = slices.CompactFunc(s.packages, func(p, q Package) bool { return comparePackages(p, q) == 0 && p.bad == nil && q.bad == nil })
	return s, nil
}

func comparePackages(p, q Package) int {
	if c := slices.Compare([]string{p.Name, p.Version, p.Architecture, p.Filename}, []string{q.Name, q.Version, q.Architecture, q.Filename}); c != 0 {
		return c
	}
	return p.SHA256.Compare(q.SHA256)
}

// Packages returns the packages, sorted by name, version (as text) and
// architecture.
func (s *Suite) Packages() []Package { return s.packages }

// Files reads one of the Packages, proves that it is what the suite vouches for,
// and returns the regular files that it installs, in its own order, with their
// SHA-256. The error names the package. Files can be called from several
// goroutines at a time.
func (s *Suite) Files(ctx context.Context, p Package) ([]plain.File, error) {
	files, err := s.files(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	return files, nil
}

func (s *Suite) files(ctx context.Context, p Package) ([]plain.File, error) {
	i, found := slices.BinarySearchFunc(s.packages, p, comparePackages)
	if !found {
		return nil, errors.New("the suite has no such package")
	}
	if p = s.packages[i]; p.bad != nil {
		return nil, fmt.Errorf("index: %w", p.bad)
	}
	f := s.archive.Open(ctx, fetch.Request{Name: p.Filename, Size: p.Size})
	defer f.Close()
	files, err := prove(p, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.archive.Where(p.Filename), err)
	}
	return files, nil
}

// readRelease reads InRelease, or Release with Release.gpg, whose names have
// that prefix, and proves it.
func (s *Suite) readRelease(ctx context.Context, prefix string, keys *keyring.Keyring, o Options) error {
	at := func(name string) string { return prefix + name }
	parse := func(name string, text []byte) error {
		r, err := parseRelease(text)
		if err != nil {
			return fmt.Errorf("%s: %w", s.archive.Where(at(name)), err)
		}
		s.Release = r
		if until := r.ValidUntil; !until.IsZero() && time.Now().After(until) {
			s.Expired = true
			if !o.AllowExpired {
				return fmt.Errorf("%s: %w on %s", s.archive.Where(at(name)), ErrExpired, until.Format(time.DateTime))
			}
		}
		return nil
	}
	b, err := s.archive.ReadAll(ctx, at("InRelease"), maxRelease)
	if err == nil {
		text, signer, err := verifyInRelease(b, keys, o.Policy)
		if err != nil {
			return fmt.Errorf("%s: %w", s.archive.Where(at("InRelease")), err)
		}
		s.Signer = signer
		return parse("InRelease", text)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if b, err = s.archive.ReadAll(ctx, at("Release"), maxRelease); err != nil {
		return err
	}
	sig, err := s.archive.ReadAll(ctx, at("Release.gpg"), maxRelease)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !o.AllowUnsigned {
			return fmt.Errorf("%s: %w", s.archive.Where(at("Release")), ErrUnsigned)
		}
		s.Unsigned = true
	case err != nil:
		return err
	default:
		if s.Signer, err = keys.VerifyFile(b, sig, o.Policy); err != nil {
			return fmt.Errorf("%s: %w", s.archive.Where(at("Release.gpg")), err)
		}
	}
	return parse("Release", b)
}

// choose returns the paths of the indices to read, each in the form that takes
// the least to fetch.
func (r Release) choose(src Source, flat bool) ([]string, error) {
	if flat {
		return r.packed([]string{""})
	}
	if !slices.Contains(r.Architectures, src.Architecture) {
		return nil, fmt.Errorf("architecture %q is none of %s", src.Architecture, strings.Join(r.Architectures, " "))
	}
	architectures := []string{src.Architecture}
	if r.allSeparate && src.Architecture != "all" {
		architectures = append(architectures, "all")
	}
	var dirs []string
	for _, c := range r.Components {
		// Debian's security archive calls its components updates/main, and keeps
		// them where others do.
		c = path.Base(c)
		if len(src.Components) > 0 && !slices.Contains(src.Components, c) {
			continue
		}
		for _, a := range architectures {
			dirs = append(dirs, c+"/binary-"+a+"/")
		}
	}
	for _, c := range src.Components {
		if !slices.ContainsFunc(r.Components, func(has string) bool { return path.Base(has) == c }) {
			return nil, fmt.Errorf("component %q is none of %s", c, strings.Join(r.Components, " "))
		}
	}
	return r.packed(dirs)
}

// packed returns the path of the index in each directory.
func (r Release) packed(dirs []string) ([]string, error) {
	var paths []string
	for _, dir := range dirs {
		i := slices.IndexFunc(suffixes, func(suffix string) bool {
			_, there := r.indices[dir+"Packages"+suffix]
			return there
		})
		if i < 0 {
			return nil, fmt.Errorf("it has no index %sPackages", dir)
		}
		paths = append(paths, dir+"Packages"+suffixes[i])
	}
	return paths, nil
}

var suffixes = []string{".xz", ".zst", ".gz", ""}

// readIndex reads an index and proves it, packed and unpacked.
func (s *Suite) readIndex(ctx context.Context, dir, name string) ([]Package, error) {
	packed := s.Release.indices[name]
	if packed.size > maxIndexFile {
		return nil, fmt.Errorf("%d bytes, the limit is %d", packed.size, maxIndexFile)
	}
	b, err := s.readPacked(ctx, dir, name, packed)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != packed.size {
		return nil, fmt.Errorf("%w: %d bytes, %d in Release", ErrMismatch, len(b), packed.size)
	}
	if d := digest.Sum(digest.SHA256, b); d != packed.sha256 {
		return nil, fmt.Errorf("%w: %s, %s in Release", ErrMismatch, d, packed.sha256)
	}
	base, format, err := unpack.BySuffix(name)
	if err != nil {
		return nil, err
	}
	packages, is, err := unpackIndex(format, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if plain, listed := s.Release.indices[base]; listed && is != plain {
		return nil, fmt.Errorf("%w: it unpacks to another %s", ErrMismatch, path.Base(base))
	}
	return packages, nil
}

// unpackIndex reads a packed index, and says what it is unpacked.
func unpackIndex(format unpack.Format, r io.Reader) ([]Package, index, error) {
	u, err := unpack.New(format, r, maxIndex)
	if err != nil {
		return nil, index{}, err
	}
	defer u.Close()
	sum := &summed{r: u, hash: digest.SHA256.Hash()}
	packages, err := parsePackages(sum)
	return packages, index{sum.size, digest.Of(digest.SHA256, sum.hash)}, err
}

// readPacked reads an index as it lies in the archive, under the name that does
// not change while it is read, if there is one.
func (s *Suite) readPacked(ctx context.Context, dir, name string, is index) ([]byte, error) {
	if s.Release.byHash {
		b, err := s.archive.ReadAll(ctx, path.Join(dir, path.Dir(name), "by-hash/SHA256", is.sha256.Hex()), is.size)
		if !errors.Is(err, fs.ErrNotExist) {
			return b, err
		}
	}
	return s.archive.ReadAll(ctx, path.Join(dir, name), is.size)
}
