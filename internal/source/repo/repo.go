// Package repo reads the headers of the packages in a repository, as
// createrepo_c makes one: from a web server, or from a directory.
//
// Three things are checked, each by itself. The list of packages, primary.xml,
// is what repomd.xml says; repomd.xml is what somebody signed whose key the
// caller has been given, not one that lies beside it; and each header is of
// the package that the list says. So nobody between can leave packages out, or
// give an old one for a new one. What a header says is still for its own
// signature to prove (source.Prove).
//
// Everything that comes from outside has a limit, in bytes and in time.
package repo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"diglim/internal/fetch"
	"diglim/internal/keyring"
	"diglim/internal/unpack"
	"diglim/internal/wire"
	"diglim/rpmhdr"
)

// ErrUnsigned says that there is no signature over the list of packages.
var ErrUnsigned = errors.New("the repository is not signed (no repomd.xml.asc)")

// maxHead is the limit on what stands before a package's payload, in bytes.
const maxHead = 256 << 20

// maxTries limits how often a repository that changes is read, and how often a
// file is asked for.
const maxTries = 4

// Names below a repository.
const (
	repomdName    = "repodata/repomd.xml"
	signatureName = "repodata/repomd.xml.asc"
)

// Options say how to read a repository. The zero Options are good ones.
type Options struct {
	Policy        keyring.Policy
	AllowUnsigned bool // take a repository without a signature; a bad one is refused still

	Timeout     time.Duration // for a server to send nothing, or to be slow; 0 is 30 s
	Pause       time.Duration // before a second try, doubled for each one after; 0 is 1 s
	Connections int           // that Fetch is called on at a time; 0 is 8

	// Progress is called while Open reads the list of packages, with how much of
	// it is there. The total is 0 if nobody says. It is called from Open alone.
	Progress func(read, total int64)
}

// A Repo is a repository whose list of packages has been read. It is safe for
// concurrent use.
type Repo struct {
	origin   *fetch.Origin
	options  Options
	packages []Package
	signer   keyring.Signer
}

// A Package is what the repository's metadata says of one.
type Package struct {
	rpmhdr.NEVRA
	Location string // below the repository

	size       int64 // of the file in bytes, 0 if unknown
	start, end int64 // of the main header in it
	err        error // what is wrong with it
}

// Open reads the list of packages of a repository: a URL of scheme http, https
// or file, or a directory. Without a good signature by one of the keys its
// error wraps ErrUnsigned or an error of package keyring. A repository
// that is changed while it is read is read again.
func Open(ctx context.Context, location string, keys *keyring.Keyring, o Options) (*Repo, error) {
	from, err := fetch.New(location, fetch.Options{
		Tries:       maxTries,
		Pause:       cmp.Or(o.Pause, time.Second),
		Timeout:     cmp.Or(o.Timeout, 30*time.Second),
		Connections: cmp.Or(o.Connections, 8),
		Escaped:     true,
	})
	if err != nil {
		return nil, err
	}
	r := &Repo{origin: from, options: o}
	repomd, err := r.origin.ReadAll(ctx, repomdName, maxRepomd)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		err := r.load(ctx, repomd, keys)
		if err == nil {
			return r, nil
		}
		if try == maxTries || ctx.Err() != nil {
			return nil, err
		}
		again, failed := r.origin.ReadAll(ctx, repomdName, maxRepomd)
		if failed != nil || bytes.Equal(again, repomd) {
			return nil, err
		}
		repomd = again
	}
}

// Packages returns the packages of the repository, in the order of their
// locations. The slice is the caller's.
func (r *Repo) Packages() []Package { return slices.Clone(r.packages) }

// Signer says who signed the list of packages, and whether anybody did.
func (r *Repo) Signer() (keyring.Signer, bool) { return r.signer, r.signer.KeyID != 0 }

// Where says what to call a package in messages: its URL, or its path.
func (r *Repo) Where(p Package) string {
	if p.Location == "" {
		return r.origin.Where(repomdName) + ": " + p.String()
	}
	return r.origin.Where(p.Location)
}

// Fetch reads a package up to its payload, and nothing more of it: by a single
// request, if it does not have to be tried again. It uses buf if that is large
// enough. The header is what the metadata says it is: of a package of that
// name, version and architecture, and of that size.
func (r *Repo) Fetch(ctx context.Context, p Package, buf []byte) (rpmhdr.Package, error) {
	head, err := r.fetch(ctx, p, buf)
	if err != nil {
		return rpmhdr.Package{}, fmt.Errorf("%s: %w", r.Where(p), err)
	}
	return head, nil
}

func (r *Repo) fetch(ctx context.Context, p Package, buf []byte) (rpmhdr.Package, error) {
	if p.err != nil {
		return rpmhdr.Package{}, fmt.Errorf("metadata: %w", p.err)
	}
	d := r.open(ctx, p.Location, p.end, p.size)
	defer d.Close()
	b, err := readGrowing(d, p.end, buf)
	if err != nil {
		return rpmhdr.Package{}, err
	}
	head, err := rpmhdr.ParsePackage(b)
	if err != nil {
		return rpmhdr.Package{}, err
	}
	if start := head.Size - int64(len(head.Header.Signed())); head.Size != p.end || start != p.start {
		return rpmhdr.Package{}, fmt.Errorf("its header is from %d to %d, the metadata says from %d to %d", start, head.Size, p.start, p.end)
	}
	nevra, err := head.Header.NEVRA()
	if err != nil {
		return rpmhdr.Package{}, err
	}
	if !same(p.NEVRA, nevra) {
		return rpmhdr.Package{}, fmt.Errorf("it is %v (epoch %d), the metadata says %v (epoch %d)", nevra, nevra.Epoch, p.NEVRA, p.Epoch)
	}
	return head, nil
}

// readGrowing reads n bytes. Memory grows as they come, not as they are
// promised, and by so much that the old and the new are not twice as large.
func readGrowing(r io.Reader, n int64, buf []byte) ([]byte, error) {
	const first = 256 << 10
	buf = slices.Grow(buf[:0], int(min(n, first)))
	for {
		have := len(buf)
		buf = buf[:min(int64(cap(buf)), n)]
		if _, err := io.ReadFull(r, buf[have:]); err != nil {
			return nil, err
		}
		if int64(len(buf)) == n {
			return buf, nil
		}
		larger := make([]byte, len(buf), min(n, 8*int64(len(buf))))
		copy(larger, buf)
		buf = larger
	}
}

// open opens a file for its first end bytes, or all if end is 0. It must have
// the size that the metadata says, unless that is 0.
func (r *Repo) open(ctx context.Context, name string, end, size int64) *fetch.File {
	return r.origin.Open(ctx, fetch.Request{Name: name, End: end, Size: size, Check: func(is int64) error {
		if size > 0 && is != size {
			return fmt.Errorf("%d bytes, the metadata says %d", is, size)
		}
		if is < end {
			return fmt.Errorf("%w: %d bytes wanted, there are %d", wire.ErrShort, end, is)
		}
		return nil
	}})
}

// load reads what a repomd.xml stands for.
func (r *Repo) load(ctx context.Context, repomd []byte, keys *keyring.Keyring) error {
	var err error
	if r.signer, err = r.verify(ctx, repomd, keys); err != nil {
		return fmt.Errorf("%s: %w", r.origin.Where(repomdName), err)
	}
	list, err := parseRepomd(repomd)
	if err != nil {
		return fmt.Errorf("%s: %w", r.origin.Where(repomdName), err)
	}
	if r.packages, err = r.readPrimary(ctx, list); err != nil {
		return fmt.Errorf("%s: %w", r.origin.Where(list.href), err)
	}
	slices.SortFunc(r.packages, func(a, b Package) int {
		return cmp.Or(strings.Compare(a.Location, b.Location), strings.Compare(a.String(), b.String()))
	})
	for i := 1; i < len(r.packages); i++ {
		if at := r.packages[i].Location; at != "" && at == r.packages[i-1].Location {
			return fmt.Errorf("%s: two packages at %s", r.origin.Where(list.href), at)
		}
	}
	return nil
}

// verify checks the detached signature of repomd.xml.
func (r *Repo) verify(ctx context.Context, repomd []byte, keys *keyring.Keyring) (keyring.Signer, error) {
	asc, err := r.origin.ReadAll(ctx, signatureName, maxSignature)
	if errors.Is(err, fs.ErrNotExist) {
		if r.options.AllowUnsigned {
			return keyring.Signer{}, nil
		}
		return keyring.Signer{}, ErrUnsigned
	}
	if err != nil {
		return keyring.Signer{}, err
	}
	signer, err := keys.VerifyFile(repomd, asc, r.options.Policy)
	if err != nil {
		return keyring.Signer{}, fmt.Errorf("repomd.xml.asc: %w", err)
	}
	return signer, nil
}

// readPrimary reads a primary.xml while it comes. Only when all of it has come,
// and is what it should be, is anything of it returned.
func (r *Repo) readPrimary(ctx context.Context, list primary) ([]Package, error) {
	d := r.open(ctx, list.href, 0, list.size)
	defer d.Close()
	sum := list.digest.Algorithm().Hash()
	limit := cmp.Or(list.size, maxPrimary)
	in := &counted{r: io.TeeReader(io.LimitReader(d, limit+1), sum), total: list.size, progress: r.options.Progress}

	packages, err := unpackPrimary(in, list)
	if in.err != nil { // which to a decoder is one of its own
		return nil, in.err
	}
	if err != nil {
		return nil, err
	}
	// a decoder need not look behind the end of what it decodes
	if _, err := io.Copy(io.Discard, in); err != nil {
		return nil, err
	}
	switch {
	case in.n > limit:
		return nil, fmt.Errorf("more than %d bytes", limit)
	case list.size > 0 && in.n != list.size:
		return nil, fmt.Errorf("%d bytes, repomd.xml says %d", in.n, list.size)
	case !bytes.Equal(sum.Sum(nil), list.digest.Bytes()):
		return nil, fmt.Errorf("its checksum is not the %v that repomd.xml says", list.digest)
	}
	return packages, nil
}

func unpackPrimary(r io.Reader, list primary) ([]Package, error) {
	_, format, err := unpack.BySuffix(list.href)
	if err != nil {
		return nil, err
	}
	xml, err := unpack.New(format, r, cmp.Or(list.openSize, maxPrimaryOpen))
	if err != nil {
		return nil, err
	}
	defer xml.Close()
	return parsePrimary(xml)
}

// counted counts what is read.
type counted struct {
	r        io.Reader
	n, total int64
	progress func(read, total int64)
	err      error // the first but io.EOF
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.progress != nil {
		c.progress(c.n, c.total)
	}
	if err != nil && err != io.EOF && c.err == nil {
		c.err = err
	}
	return n, err
}
