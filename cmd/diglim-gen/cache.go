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
	"syscall"
	"time"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/durable"
	"diglim/internal/source"
)

// A cache remembers packages that were proved, by where they lie and by what
// the file system says of them, and the lists that were made of them. It is as
// trustworthy as the place where it lies: keep it where the lists are kept from
// being changed too.
//
// The file is text: a line that says what it is for, a line a package, and the
// SHA-256 of all of them, so that a damaged one is noticed.
type cache struct {
	key     string // keyring and flags that it holds for
	old     map[string]cached
	current []string // lines, as they will be saved
	changed bool     // since it was loaded
}

type cached struct {
	line              string // as it stands in the file
	stamp, list, size string // size is the list's listStamp
	proof             source.Proof
	digests           int
	unsigned          bool
}

const cacheMagic = "diglim-gen cache 1"

// fileStamp is what changes when a file does: size, times and inode. "" if
// there is no such file.
func fileStamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d.%d", info.Size(), info.ModTime().UnixNano(), st.Ctim.Nano(), st.Ino)
}

// fingerprint is what a proof depends on besides the package: keys and flags.
func (g *generator) fingerprint() string {
	var b strings.Builder
	for _, k := range g.keys.Keys(time.Unix(0, 0)) {
		fmt.Fprintf(&b, "%s %v %v\n", k.Fingerprint, k.Expires.Unix(), k.Revoked)
	}
	fmt.Fprintf(&b, "%v %v %v %v %v %v", g.trust.allowUnsigned, g.trust.allowWeak, g.fmt, g.parsed, g.iface, g.choose)
	return digest.Sum(digest.SHA256, []byte(b.String())).Hex()
}

// loadCache reads a cache. Its error says why it is of no use, which is no
// reason to stop: the cache returned is empty then.
func loadCache(path, key string) (*cache, error) {
	c := &cache{key: key, old: map[string]cached{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	end := bytes.LastIndexByte(bytes.TrimSuffix(b, []byte("\n")), '\n') + 1
	if string(bytes.TrimSpace(b[end:])) != digest.Sum(digest.SHA256, b[:end]).Hex() {
		return c, fmt.Errorf("%s is damaged", path)
	}
	lines := strings.Split(strings.TrimSuffix(string(b[:end]), "\n"), "\n")
	switch {
	case !strings.HasPrefix(lines[0], cacheMagic+" "):
		return c, fmt.Errorf("%s is not a cache of this program", path)
	case lines[0] != cacheMagic+" "+key:
		return c, fmt.Errorf("%s is of another keyring or other flags", path)
	}
	for _, line := range lines[1:] {
		origin, entry, err := parseCached(line)
		if err != nil {
			return &cache{key: key, old: map[string]cached{}}, fmt.Errorf("%s: %w", path, err)
		}
		c.old[origin] = entry
	}
	return c, nil
}

// parseCached reads a line: stamp, list, its size, digests, signature time,
// hash, version, weak, key id, fingerprint, user id and source quoted, origin
// quoted.
func parseCached(line string) (origin string, c cached, err error) {
	f := strings.Split(line, "\t")
	if len(f) != 13 {
		return "", c, errors.New("a line without its fields")
	}
	c = cached{line: line, stamp: f[0], list: f[1], size: f[2], unsigned: f[9] == ""}
	var seconds int64
	var errs [7]error
	c.digests, errs[0] = strconv.Atoi(f[3])
	seconds, errs[1] = strconv.ParseInt(f[4], 10, 64)
	if !c.unsigned {
		c.proof.Hash, errs[2] = digest.ByName(f[5])
		c.proof.Version, errs[3] = strconv.Atoi(f[6])
		c.proof.KeyID, errs[4] = strconv.ParseUint(f[8], 16, 64)
	}
	c.proof.Signer.Time, c.proof.Weak, c.proof.Fingerprint = time.Unix(seconds, 0), f[7] == "weak", f[9]
	c.proof.UserID, errs[5] = strconv.Unquote(f[10])
	c.proof.Source, errs[6] = strconv.Unquote(f[11])
	origin, err = strconv.Unquote(f[12])
	return origin, c, errors.Join(append(errs[:], err)...)
}

// get fills m from the cache, if the package is as it was and its list is
// where it was put. A nil cache has nothing.
func (c *cache) get(m *made, output string) bool {
	if c == nil || m.stamp == "" {
		return false
	}
	e, ok := c.old[m.origin]
	if !ok || e.stamp != m.stamp {
		return false
	}
	info, err := os.Lstat(filepath.Join(output, e.list))
	if err != nil || !info.Mode().IsRegular() || listStamp(info) != e.size {
		return false
	}
	name, _, err := digestlist.KnownName(e.list)
	if err != nil {
		return false
	}
	m.cached = true
	m.label, m.name, m.digests, m.proof, m.unsigned = name.Label, e.list, e.digests, e.proof, e.unsigned
	return true
}

// put remembers a package whose list is in place.
func (c *cache) put(m made, output string) {
	if c == nil || m.stamp == "" {
		return
	}
	if m.cached {
		c.current = append(c.current, c.old[m.origin].line)
		return
	}
	if m.list == nil {
		return
	}
	c.changed = true
	info, err := os.Lstat(filepath.Join(output, m.name))
	if err != nil {
		return // then it is proved again the next time
	}
	weak := "strong"
	if m.proof.Weak {
		weak = "weak"
	}
	c.current = append(c.current, strings.Join([]string{
		m.stamp, m.name, listStamp(info), strconv.Itoa(m.digests),
		strconv.FormatInt(m.proof.Time.Unix(), 10), m.proof.Hash.String(), strconv.Itoa(m.proof.Version), weak,
		strconv.FormatUint(m.proof.KeyID, 16), m.proof.Fingerprint, strconv.Quote(m.proof.UserID), strconv.Quote(m.proof.Source), strconv.Quote(m.origin),
	}, "\t"))
}

// listStamp is what changes when a list is touched.
func listStamp(info fs.FileInfo) string {
	return fmt.Sprintf("%d.%d", info.Size(), info.ModTime().UnixNano())
}

// save writes the cache of this run.
func (c *cache) save(path string) error {
	if !c.changed && len(c.current) == len(c.old) {
		return nil
	}
	slices.Sort(c.current)
	text := cacheMagic + " " + c.key + "\n" + strings.Join(c.current, "\n")
	if len(c.current) > 0 {
		text += "\n"
	}
	text += digest.Sum(digest.SHA256, []byte(text)).Hex() + "\n"
	dir, err := durable.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	_, err = dir.Write(filepath.Base(path), []byte(text))
	return errors.Join(err, dir.Close())
}
