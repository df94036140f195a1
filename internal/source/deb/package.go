package deb

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/fetch"
	"diglim/internal/source/plain"
	"diglim/internal/unpack"
)

// Limits on a package. Debian's largest has 1.4 GB and unpacks to 3 GB, the one
// with most files has some 100,000.
const (
	maxFormat  = 64       // bytes of debian-binary
	maxControl = 64 << 20 // bytes of control.tar, unpacked
	maxFiles   = 1 << 18  // members of data.tar that are no directories
	maxPaths   = 32 << 20 // bytes of all their paths

	// What data.tar may unpack to: so much, and so many times its own size.
	// Zeros come to 1,000 times theirs with gzip, to 7,000 times with xz.
	maxData  = 64 << 30
	minData  = 256 << 20
	maxRatio = 500
)

// readPackage reads a binary package (deb(5)) to its end, and returns what it
// says of itself and the regular files that it installs, in its own order:
// the scripts that dpkg runs, then the others.
func readPackage(r io.Reader) (Package, []plain.File, error) {
	var p Package
	var scripts, files []plain.File
	a := &arReader{r: r}
	if err := a.start(); err != nil {
		return Package{}, nil, unexpected(err)
	}
	// The members that there must be, in this order; others in between and
	// behind have names with an underscore first.
	stages := []string{"debian-binary", "control.tar", "data.tar"}
	for {
		name, size, err := a.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return Package{}, nil, err
		}
		if strings.HasPrefix(name, "_") && len(stages) < 3 {
			continue
		}
		base, format, err := unpack.BySuffix(name)
		if err != nil {
			return Package{}, nil, fmt.Errorf("%.16q: %w", name, err)
		}
		if len(stages) == 0 || base != stages[0] || len(stages) == 3 && format != unpack.None {
			return Package{}, nil, fmt.Errorf("member %q at offset %d: expected %s", name, a.off-arHeaderSize, expected(stages))
		}
		stages = stages[1:]
		switch base {
		case "debian-binary":
			err = readFormat(a, size)
		case "control.tar":
			p, scripts, err = readControl(a, format)
		case "data.tar":
			files, err = readData(a, format, size)
		}
		if err != nil {
			return Package{}, nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(stages) > 0 {
		return Package{}, nil, fmt.Errorf("ends without %s", stages[0])
	}
	return p, append(scripts, files...), nil
}

func expected(stages []string) string {
	if len(stages) == 0 {
		return "no other"
	}
	return stages[0]
}

// unexpected is err, where there is nothing but more is to come.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readFormat checks the version of the format: 2, and whatever minor one.
func readFormat(r io.Reader, size int64) error {
	if size > maxFormat {
		return fmt.Errorf("%d bytes, the limit is %d", size, maxFormat)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if version, _, ok := bytes.Cut(b, []byte("\n")); !ok || !bytes.HasPrefix(version, []byte("2.")) {
		return fmt.Errorf("version %q of the format, must be 2", b)
	}
	return nil
}

// scripts are those of control.tar that are run: by dpkg (deb-preinst(5) and
// so on), and config by debconf (debconf-devel(7)).
var scripts = []string{"preinst", "postinst", "prerm", "postrm", "config"}

// infoDir is where dpkg keeps what it has of control.tar. It runs scripts of a
// package that is yet to be unpacked from another directory.
const infoDir = "/var/lib/dpkg/info/"

// readControl returns the name, version and architecture in the file control
// of control.tar, and the scripts, as dpkg installs them.
func readControl(r io.Reader, format unpack.Format) (Package, []plain.File, error) {
	u, err := unpack.New(format, r, maxControl)
	if err != nil {
		return Package{}, nil, err
	}
	defer u.Close()
	c := control{seen: make(map[string]bool)}
	t := tar.NewReader(u)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = c.member(h, t)
		}
		if err != nil {
			return Package{}, nil, err
		}
	}
	p := c.pkg
	if p.Name == "" || p.Version == "" || p.Architecture == "" {
		return Package{}, nil, errors.New("control: no name, version or architecture")
	}
	prefix := infoDir + p.Name
	if c.coinstallable { // pkg_infodb_get_file() in dpkg's lib/dpkg/db-fsys-files.c
		prefix += ":" + p.Architecture
	}
	for i, f := range c.scripts {
		c.scripts[i].Path = prefix + "." + f.Path
	}
	return p, c.scripts, rest(u)
}

// control is what has been read of control.tar.
type control struct {
	pkg           Package
	coinstallable bool         // Multi-Arch: same
	scripts       []plain.File // named as in control.tar
	seen          map[string]bool
}

func (c *control) member(h *tar.Header, r io.Reader) error {
	path, err := unpack.Path(h.Name)
	if err != nil {
		return err
	}
	name := path[1:]
	if name != "control" && !slices.Contains(scripts, name) {
		return nil
	}
	if c.seen[name] || h.Typeflag != tar.TypeReg {
		return fmt.Errorf("%s: there twice, or not a regular file", name)
	}
	c.seen[name] = true
	if name != "control" {
		hash := digest.SHA256.Hash()
		n, err := io.Copy(hash, r)
		c.scripts = append(c.scripts, plain.File{Path: name, Mode: uint32(h.Mode) & 0o7777, Size: n, Digest: digest.Of(digest.SHA256, hash)})
		return err
	}
	for l, err := range lines(r) {
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		switch l.field {
		case "package", "version", "architecture":
			c.pkg.set(l)
		case "multi-arch":
			c.coinstallable = l.value() == "same"
		}
	}
	if c.pkg.bad != nil {
		return fmt.Errorf("control: %w", c.pkg.bad)
	}
	return nil
}

// rest reads what is behind the end of a tar archive: zeros, to the end.
func rest(r io.Reader) error {
	b := make([]byte, 32<<10)
	for {
		n, err := r.Read(b)
		if len(bytes.Trim(b[:n], "\x00")) > 0 {
			return errors.New("bytes behind the end of the archive")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readData returns the regular files in data.tar, which has that size.
func readData(r io.Reader, format unpack.Format, size int64) ([]plain.File, error) {
	limit := max(minData, min(size, maxData/maxRatio)*maxRatio)
	u, err := unpack.New(format, r, limit)
	if err != nil {
		return nil, err
	}
	defer u.Close()
	d := data{tar: tar.NewReader(u), members: make(map[string]int), hash: digest.SHA256.Hash(), buf: make([]byte, 64<<10), left: limit}
	for {
		h, err := d.tar.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = d.member(h)
		}
		if err != nil {
			return nil, err
		}
	}
	return d.files, rest(u)
}

// data is what has been read of data.tar.
type data struct {
	tar     *tar.Reader
	files   []plain.File
	members map[string]int // by path: which file; other than a file, -1
	paths   int            // bytes of all paths
	left    int64          // bytes that files may still have
	hash    hash.Hash
	buf     []byte
}

func (d *data) member(h *tar.Header) error {
	path, err := unpack.Path(h.Name)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		return nil
	}
	if _, there := d.members[path]; there {
		return fmt.Errorf("%q is there twice", path)
	}
	if d.paths += len(path); len(d.members) == maxFiles || d.paths > maxPaths {
		return fmt.Errorf("more than %d members, or paths of more than %d bytes", maxFiles, maxPaths)
	}
	d.members[path] = -1
	switch h.Typeflag {
	case tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return nil
	case tar.TypeLink:
		target, err := unpack.Path(h.Linkname)
		if err != nil {
			return fmt.Errorf("%q: hard link: %w", path, err)
		}
		i, there := d.members[target]
		if !there || target == path {
			return fmt.Errorf("%q: hard link to %q, which is not before it", path, target)
		}
		if i >= 0 {
			f := d.files[i]
			f.Path = path
			d.add(f)
		}
		return nil
	case tar.TypeReg:
	default:
		return fmt.Errorf("%q: type %q is not supported", path, h.Typeflag)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") { // holes unpack to anything out of nothing
			return fmt.Errorf("%q: sparse files are not supported", path)
		}
	}
	if d.left -= h.Size; d.left < 0 {
		return fmt.Errorf("%q: %w", path, unpack.ErrLimit)
	}
	d.hash.Reset()
	n, err := io.CopyBuffer(d.hash, d.tar, d.buf)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	d.add(plain.File{Path: path, Mode: uint32(h.Mode) & 0o7777, Size: n, Digest: digest.Of(digest.SHA256, d.hash)})
	return nil
}

func (d *data) add(f plain.File) {
	d.members[f.Path] = len(d.files)
	d.files = append(d.files, f)
}

// prove reads a package and proves it: that it has the size and the digest that
// the index says. What is wrong with one that is not as the index says is just
// that, not what its bytes look like.
func prove(p Package, r io.Reader) ([]plain.File, error) {
	sum := &summed{r: io.LimitReader(r, p.Size+1), hash: digest.SHA256.Hash()}
	is, files, readErr := readPackage(sum)
	if _, err := io.Copy(io.Discard, sum); err != nil {
		return nil, err
	}
	if sum.size != p.Size {
		return nil, fmt.Errorf("%w: %s, %d in the index", ErrMismatch, sizeText(sum.size, p.Size), p.Size)
	}
	if d := digest.Of(digest.SHA256, sum.hash); d != p.SHA256 {
		return nil, fmt.Errorf("%w: %s, %s in the index", ErrMismatch, d, p.SHA256)
	}
	if readErr != nil {
		return nil, readErr
	}
	if is.String() != p.String() {
		return nil, fmt.Errorf("%w: it calls itself %s", ErrMismatch, is)
	}
	return files, nil
}

// sizeText says how many bytes were read, of which there was a limit.
func sizeText(read, limit int64) string {
	if read > limit {
		return "more bytes"
	}
	return fmt.Sprintf("%d bytes", read)
}

// A summed reader takes the digest of what is read through it.
type summed struct {
	r    io.Reader
	hash hash.Hash
	size int64
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.hash.Write(p[:n])
	s.size += int64(n)
	return n, err
}

// ReadFile reads a lone package file. Nothing vouches for that: without
// Options.AllowUnsigned the error is ErrUnsigned.
func ReadFile(path string, o Options) (Package, []plain.File, error) {
	if !o.AllowUnsigned {
		return Package{}, nil, fmt.Errorf("%s: %w: a package by itself has none, its archive does", path, ErrUnsigned)
	}
	return readFile(path)
}

func readFile(path string) (Package, []plain.File, error) {
	f, err := fetch.OpenFile(path)
	if err != nil {
		return Package{}, nil, err
	}
	defer f.Close()
	sum := &summed{r: f, hash: digest.SHA256.Hash()}
	p, files, err := readPackage(sum)
	if err != nil {
		return Package{}, nil, fmt.Errorf("%s: %w", path, err)
	}
	p.Filename, p.Size, p.SHA256 = path, sum.size, digest.Of(digest.SHA256, sum.hash)
	return p, files, nil
}
