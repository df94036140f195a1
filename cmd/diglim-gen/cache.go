package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"diglim/internal/digest"
	"diglim/internal/durable"
	"diglim/internal/keyring"
	"diglim/internal/source/rpmfile"

	"golang.org/x/sys/unix"
)

// A cache remembers packages that were proved, by where they lie and by what
// the file system says of them, and the lists that were made of them. It is as
// trustworthy as the place where it lies: keep it where the lists are kept from
// being changed too.
//
// The file is text: a line that says what it is for, a line with the number of
// signers, a line a signer, a line a package, and the SHA-256 of all of them, so
// that a damaged one is noticed.
type cache struct {
	key     string // keyring and flags that it holds for
	prefix  string // of the names of lists; what follows is the label
	output  *os.File
	old     map[string]*cached // by origin
	current []*cached
	changed bool // since it was loaded
}

// A cached is one package.
type cached struct {
	origin  string
	file    rpmfile.Stamp
	name    string // of the list
	list    listStamp
	digests int
	signed  int64           // seconds since 1970
	signer  *keyring.Signer // without the time; nil if the package is unsigned
}

// A listStamp is what changes when a list is touched.
type listStamp struct{ size, modified int64 } // bytes; nanoseconds since 1970

const cacheMagic = "diglim-gen cache 2"

// fingerprint is what a proof depends on besides the package: keys and flags.
func (g *generator) fingerprint() string {
	var b strings.Builder
	for _, k := range g.keys.Keys(time.Unix(0, 0)) {
		fmt.Fprintf(&b, "%s %v %v\n", k.Fingerprint, k.Expires.Unix(), k.Revoked)
	}
	fmt.Fprintf(&b, "%v %v %v %v %v %v", g.trust.allowUnsigned, g.trust.allowWeak, g.fmt, g.parsed, g.iface, g.choose)
	return digest.Sum(digest.SHA256, []byte(b.String())).Hex()
}

// openCache reads the cache of a run, whose output directory is there. A cache
// that is of no use is no reason to stop: the reason is said, and the cache is
// empty then.
func (g *generator) openCache() (c *cache, useless error, err error) {
	c = &cache{key: g.fingerprint()}
	const label = "label"
	name, err := g.name(label)
	if err != nil {
		return nil, nil, err
	}
	c.prefix = strings.TrimSuffix(name, label)
	if c.output, err = os.Open(g.output); err != nil {
		return nil, nil, err
	}
	if useless = c.load(g.cacheIn); useless != nil {
		c.old = nil
	}
	return c, useless, nil
}

func (c *cache) load(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	end := bytes.LastIndexByte(bytes.TrimSuffix(b, []byte("\n")), '\n') + 1
	if string(bytes.TrimSpace(b[end:])) != digest.Sum(digest.SHA256, b[:end]).Hex() {
		return fmt.Errorf("%s is damaged", path)
	}
	head, text, _ := strings.Cut(string(b[:end]), "\n")
	switch {
	case !strings.HasPrefix(head, cacheMagic+" "):
		return fmt.Errorf("%s is not a cache of this program", path)
	case head != cacheMagic+" "+c.key:
		return fmt.Errorf("%s is of another keyring or other flags", path)
	}
	if err := c.parse(text); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// parse reads the lines behind the first.
func (c *cache) parse(text string) error {
	line, text, _ := strings.Cut(text, "\n")
	n, err := strconv.Atoi(line)
	if err != nil || n < 0 || n > strings.Count(text, "\n") {
		return errors.New("no number of signers")
	}
	signers := make([]*keyring.Signer, n)
	for i := range signers {
		line, text, _ = strings.Cut(text, "\n")
		if signers[i], err = parseSigner(line); err != nil {
			return err
		}
	}
	packages := make([]cached, strings.Count(text, "\n"))
	c.old = make(map[string]*cached, len(packages))
	for i := range packages {
		line, text, _ = strings.Cut(text, "\n")
		if err := packages[i].parse(line, c.prefix, signers); err != nil {
			return err
		}
		c.old[packages[i].origin] = &packages[i]
	}
	return nil
}

// parseSigner reads a line: hash, version, weak, key id, fingerprint, user id
// and source quoted.
func parseSigner(line string) (*keyring.Signer, error) {
	f := strings.Split(line, "\t")
	if len(f) != 7 {
		return nil, errors.New("a signer without its fields")
	}
	s := &keyring.Signer{Weak: f[2] == "weak", Fingerprint: f[4]}
	var errs [5]error
	s.Hash, errs[0] = digest.ByName(f[0])
	s.Version, errs[1] = strconv.Atoi(f[1])
	s.KeyID, errs[2] = strconv.ParseUint(f[3], 16, 64)
	s.UserID, errs[3] = strconv.Unquote(f[5])
	s.Source, errs[4] = strconv.Unquote(f[6])
	return s, errors.Join(errs[:]...)
}

func appendSigner(b []byte, s *keyring.Signer) []byte {
	weak := "strong"
	if s.Weak {
		weak = "weak"
	}
	return fmt.Appendf(b, "%s\t%d\t%s\t%x\t%s\t%q\t%q\n", s.Hash, s.Version, weak, s.KeyID, s.Fingerprint, s.UserID, s.Source)
}

// parse reads a line: numbers, of which the last is the signer's, from 1 and 0
// if there is none, then the list's name and origin, quoted.
func (p *cached) parse(line, prefix string, signers []*keyring.Signer) (err error) {
	var numbers [9]int64
	rest := line
	for i := range numbers {
		var field string
		field, rest, _ = strings.Cut(rest, "\t")
		if numbers[i], err = strconv.ParseInt(field, 10, 64); err != nil {
			return err
		}
	}
	name, origin, _ := strings.Cut(rest, "\t")
	if p.name, err = strconv.Unquote(name); err != nil || !strings.HasPrefix(p.name, prefix) {
		return fmt.Errorf("%s is not a list", name)
	}
	if p.origin, err = strconv.Unquote(origin); err != nil {
		return fmt.Errorf("package %s: %w", origin, err)
	}
	p.file = rpmfile.Stamp{Size: numbers[0], Modified: numbers[1], Changed: numbers[2], Inode: uint64(numbers[3])}
	p.list = listStamp{numbers[4], numbers[5]}
	p.digests, p.signed = int(numbers[6]), numbers[7]
	switch n := numbers[8]; {
	case n < 0 || n > int64(len(signers)):
		return fmt.Errorf("signer %d of %d", n, len(signers))
	case n > 0:
		p.signer = signers[n-1]
	}
	return nil
}

func (p *cached) append(b []byte, signer int) []byte {
	for _, n := range [...]int64{p.file.Size, p.file.Modified, p.file.Changed, int64(p.file.Inode),
		p.list.size, p.list.modified, int64(p.digests), p.signed, int64(signer)} {
		b = append(strconv.AppendInt(b, n, 10), '\t')
	}
	b = append(strconv.AppendQuote(b, p.name), '\t')
	return append(strconv.AppendQuote(b, p.origin), '\n')
}

// split looks works up. It returns for each what is known of it, if the package
// is as it was and its list is where it was put, and the works of which nothing
// is known. A nil cache knows nothing.
func (c *cache) split(works []work) (known []*cached, others []work) {
	known = make([]*cached, len(works))
	if c == nil || len(c.old) == 0 {
		return known, works
	}
	for i, w := range works {
		p := c.old[w.origin]
		if p != nil && w.stamp != (rpmfile.Stamp{}) && w.stamp == p.file {
			if list, ok := c.stampOf(p.name); ok && list == p.list {
				known[i] = p
				continue
			}
		}
		others = append(others, w)
	}
	return known, others
}

// stampOf stats a list.
func (c *cache) stampOf(name string) (listStamp, bool) {
	var st unix.Stat_t
	err := unix.Fstatat(int(c.output.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return listStamp{}, false
	}
	return listStamp{st.Size, st.Mtim.Nano()}, true
}

// made is what became of the package when it was proved.
func (c *cache) made(p *cached) made {
	m := made{origin: p.origin, stamp: p.file, label: strings.TrimPrefix(p.name, c.prefix), name: p.name, known: p, digests: p.digests, unsigned: p.signer == nil}
	if p.signer != nil {
		m.proof.Signer = *p.signer
		m.proof.Signer.Time = time.Unix(p.signed, 0)
	}
	return m
}

// put remembers a package whose list is in place.
func (c *cache) put(m made) {
	if c == nil || m.stamp == (rpmfile.Stamp{}) {
		return
	}
	if m.known != nil {
		c.current = append(c.current, m.known)
		return
	}
	if m.list == nil {
		return
	}
	c.changed = true
	list, ok := c.stampOf(m.name)
	if !ok {
		return // then it is proved again the next time
	}
	p := &cached{origin: m.origin, file: m.stamp, name: m.name, list: list, digests: m.digests}
	if !m.unsigned {
		signer := m.proof.Signer
		p.signed, signer.Time = signer.Time.Unix(), time.Time{}
		p.signer = &signer
	}
	c.current = append(c.current, p)
}

// save writes the cache of this run.
func (c *cache) save(path string) error {
	if !c.changed && len(c.current) == len(c.old) {
		return nil
	}
	slices.SortFunc(c.current, func(a, b *cached) int { return strings.Compare(a.origin, b.origin) })
	numbers := map[keyring.Signer]int{}
	var signers, packages []byte
	for _, p := range c.current {
		n := 0
		if p.signer != nil {
			if n = numbers[*p.signer]; n == 0 {
				n = len(numbers) + 1
				numbers[*p.signer] = n
				signers = appendSigner(signers, p.signer)
			}
		}
		packages = p.append(packages, n)
	}
	text := fmt.Appendf(nil, "%s %s\n%d\n%s%s", cacheMagic, c.key, len(numbers), signers, packages)
	text = fmt.Appendf(text, "%s\n", digest.Sum(digest.SHA256, text).Hex())
	dir, err := durable.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	_, err = dir.Write(filepath.Base(path), text)
	return errors.Join(err, dir.Close())
}

// close ends the cache's use of the output directory. A nil cache has none.
func (c *cache) close() error {
	if c == nil {
		return nil
	}
	return c.output.Close()
}
