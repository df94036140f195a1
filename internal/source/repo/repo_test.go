package repo

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"diglim/internal/corpus"
	"diglim/internal/fetch"
	"diglim/internal/keyring"
	"diglim/internal/rpmtest"
	"diglim/internal/source"
	"diglim/internal/wire"
	"diglim/rpmhdr"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/klauspost/compress/zstd"
)

// quick makes failing fast.
var quick = Options{Timeout: 2 * time.Second, Pause: time.Millisecond}

// A fixture is a repository in memory, with the keys it is signed with.
type fixture struct {
	files  map[string][]byte // by path below the repository
	key    *openpgp.Entity
	keys   *keyring.Keyring
	suffix string // of primary.xml
}

var signedAt = time.Date(2025, 3, 18, 12, 0, 0, 0, time.UTC)

// newFixture makes a repository of packages with these names.
func newFixture(t testing.TB, suffix string, names ...string) *fixture {
	t.Helper()
	f := &fixture{files: map[string][]byte{}, key: rpmtest.NewKey(t, "vendor", rpmtest.Ed25519), keys: &keyring.Keyring{}, suffix: suffix}
	if err := f.keys.Add("vendor.gpg", rpmtest.Public(t, f.key)); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		p := rpmtest.Package{Name: name, Algo: 8, Files: []rpmtest.File{rpmtest.Regular("/usr/bin/"+name, 0o755, name)}}
		sig := rpmtest.Sign(t, f.key, p.Header(), signedAt, nil)
		f.files["Packages/"+name+".rpm"] = append(p.File(rpmtest.Signatures{DSA: sig}), make([]byte, 100<<10)...)
	}
	f.list(t, f.primary(t))
	return f
}

// primary is the primary.xml of the packages that are there.
func (f *fixture) primary(t testing.TB) string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm">`)
	var paths []string
	for path := range f.files {
		if strings.HasSuffix(path, ".rpm") {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	slices.Reverse(paths) // Packages has them in order all the same
	for _, path := range paths {
		p, err := rpmhdr.ParsePackage(f.files[path])
		if err != nil {
			t.Fatal(err)
		}
		n, err := p.Header.NEVRA()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, `
<package type="rpm"><name>%s</name><arch>%s</arch><version epoch="%d" ver="%s" rel="%s"/>
  <description>a package &amp; more</description><size package="%d" installed="1"/><location href="%s"/>
  <format><rpm:header-range start="%d" end="%d"/><rpm:provides><rpm:entry name="x"/></rpm:provides></format>
</package>`, n.Name, n.Arch, n.Epoch, n.Version, n.Release, len(f.files[path]), path, p.Size-int64(len(p.Header.Signed())), p.Size)
	}
	return b.String() + "\n</metadata>\n"
}

// list puts a primary.xml into the repository, and what leads to it.
func (f *fixture) list(t testing.TB, primary string) {
	packed := pack(t, f.suffix, []byte(primary))
	name := fmt.Sprintf("repodata/%x-primary.xml%s", sha256.Sum256(packed), f.suffix)
	f.files[name] = packed
	f.sign(t, fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo">
  <data type="primary">
    <checksum type="sha256">%x</checksum><location href="%s"/><size>%d</size><open-size>%d</open-size>
  </data>
  <data type="primary_zck"><checksum type="sha256">00</checksum><location href="../x"/></data>
</repomd>
`, sha256.Sum256(packed), name, len(packed), len(primary)))
}

// sign puts a repomd.xml into the repository, and a signature over it.
func (f *fixture) sign(t testing.TB, repomd string) {
	f.files[repomdName] = []byte(repomd)
	f.files[signatureName] = armored(t, "PGP SIGNATURE", rpmtest.Sign(t, f.key, []byte(repomd), signedAt, nil))
}

// edit changes repomd.xml and signs it again.
func (f *fixture) edit(t testing.TB, old, new string) {
	t.Helper()
	b := strings.Replace(string(f.files[repomdName]), old, new, 1)
	if b == string(f.files[repomdName]) {
		t.Fatalf("no %q to replace", old)
	}
	f.sign(t, b)
}

// relist changes primary.xml and makes the rest fit.
func (f *fixture) relist(t testing.TB, old, new string) {
	t.Helper()
	was := f.primary(t)
	b := strings.Replace(was, old, new, 1)
	if b == was {
		t.Fatalf("no %q to replace", old)
	}
	f.list(t, b)
}

func armored(t testing.TB, kind string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := armor.Encode(&out, kind, nil)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func pack(t testing.TB, suffix string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch suffix {
	case ".gz":
		w = gzip.NewWriter(&out)
	case ".xz":
		cmd := exec.Command("xz", "-c", "-T1", "-0") // which every Debian has
		cmd.Stdin = bytes.NewReader(b)
		if b, err = cmd.Output(); err != nil {
			t.Fatalf("xz: %v", err)
		}
		return b
	case ".zst":
		w, err = zstd.NewWriter(&out)
	default:
		return b
	}
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// ServeHTTP serves the repository, with ranges.
func (f *fixture) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, ok := f.files[strings.TrimPrefix(r.URL.Path, "/repo/")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/repo"
}

// before answers requests for paths with that suffix itself, as long as it
// returns true.
func before(f http.Handler, suffix string, answer func(w http.ResponseWriter, r *http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, suffix) && answer(w, r) {
			return
		}
		f.ServeHTTP(w, r)
	})
}

func (f *fixture) dir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range f.files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fetchAll reads and proves all packages of a repository, several at a time,
// and returns their names in order.
func fetchAll(t testing.TB, r *Repo, keys *keyring.Keyring) ([]string, error) {
	t.Helper()
	packages := r.Packages()
	names, errs := make([]string, len(packages)), make([]error, len(packages))
	var wg sync.WaitGroup
	for i, p := range packages {
		wg.Go(func() {
			head, err := r.Fetch(t.Context(), p, nil)
			if err == nil {
				_, err = source.Prove(head, keys, keyring.Policy{})
			}
			names[i], errs[i] = p.Name, err
		})
	}
	wg.Wait()
	return names, errors.Join(errs...)
}

func TestRepo(t *testing.T) {
	for _, suffix := range []string{"", ".gz", ".xz", ".zst"} {
		f := newFixture(t, suffix, "zeta", "alpha", "mid~1+x")
		url, dir := serve(t, f), f.dir(t)
		for _, location := range []string{url, url + "/", dir, "file://" + dir} {
			r, err := Open(t.Context(), location, f.keys, quick)
			if err != nil {
				t.Errorf("%s%s: %v", location, suffix, err)
				continue
			}
			if s, ok := r.Signer(); !ok || s.KeyID != f.key.PrimaryKey.KeyId {
				t.Errorf("%s: signed by %+v", location, s)
			}
			names, err := fetchAll(t, r, f.keys)
			if got := strings.Join(names, " "); err != nil || got != "alpha mid~1+x zeta" {
				t.Errorf("%s%s: packages %s, %v", location, suffix, got, err)
			}
		}
	}
}

// One request a package, and not much more than its header: what a server that
// knows no ranges sends behind it is not read.
func TestOneRequest(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		f := newFixture(t, ".gz", "alpha")
		f.files["Packages/alpha.rpm"] = append(f.files["Packages/alpha.rpm"], make([]byte, 64<<20)...)
		f.list(t, f.primary(t))
		var requests, sent atomic.Int64
		url := serve(t, before(f, ".rpm", func(w http.ResponseWriter, r *http.Request) bool {
			requests.Add(1)
			if ranges {
				return false
			}
			b := f.files["Packages/alpha.rpm"]
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			for len(b) > 0 {
				n, err := w.Write(b[:min(len(b), 64<<10)])
				sent.Add(int64(n))
				if b = b[n:]; err != nil {
					break
				}
			}
			return true
		}))
		r, err := Open(t.Context(), url, f.keys, quick)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fetchAll(t, r, f.keys); err != nil {
			t.Error(err)
		}
		if requests.Load() != 1 || sent.Load() > 32<<20 {
			t.Errorf("%d requests, %d bytes", requests.Load(), sent.Load())
		}
	}
}

func TestSignature(t *testing.T) {
	other := rpmtest.NewKey(t, "other", rpmtest.Ed25519)
	for name, c := range map[string]struct {
		change  func(f *fixture)
		options Options
		want    error // nil if it is taken
	}{
		"good":   {func(f *fixture) {}, quick, nil},
		"binary": {func(f *fixture) { f.files[signatureName] = rpmtest.Sign(t, f.key, f.files[repomdName], signedAt, nil) }, quick, nil},
		"second of two is good": {func(f *fixture) {
			sigs := append(rpmtest.Sign(t, other, f.files[repomdName], signedAt, nil), rpmtest.Sign(t, f.key, f.files[repomdName], signedAt, nil)...)
			f.files[signatureName] = armored(t, "PGP SIGNATURE", sigs)
		}, quick, nil},
		"none":                  {func(f *fixture) { delete(f.files, signatureName) }, quick, ErrUnsigned},
		"none, which is fine":   {func(f *fixture) { delete(f.files, signatureName) }, Options{AllowUnsigned: true, Pause: 1}, nil},
		"bad":                   {func(f *fixture) { f.files[repomdName] = append(f.files[repomdName], '\n') }, quick, keyring.ErrBad},
		"bad, and none is fine": {func(f *fixture) { f.files[repomdName] = append(f.files[repomdName], '\n') }, Options{AllowUnsigned: true, Pause: 1}, keyring.ErrBad},
		"of another key": {func(f *fixture) {
			f.files[signatureName] = armored(t, "PGP SIGNATURE", rpmtest.Sign(t, other, f.files[repomdName], signedAt, nil))
			// a key lying in the repository proves nothing
			f.files["repodata/repomd.xml.key"] = armored(t, "PGP PUBLIC KEY BLOCK", rpmtest.Public(t, other))
		}, quick, keyring.ErrUnknownKey},
		"a key": {func(f *fixture) {
			f.files[signatureName] = armored(t, "PGP PUBLIC KEY BLOCK", rpmtest.Public(t, f.key))
		}, quick, errAny},
		"a key, binary":     {func(f *fixture) { f.files[signatureName] = rpmtest.Public(t, f.key) }, quick, keyring.ErrMalformed},
		"empty":             {func(f *fixture) { f.files[signatureName] = nil }, quick, keyring.ErrMalformed},
		"noise":             {func(f *fixture) { f.files[signatureName] = []byte("noise") }, quick, keyring.ErrMalformed},
		"armor without end": {func(f *fixture) { f.files[signatureName] = f.files[signatureName][:100] }, quick, errAny},
		"65 KiB":            {func(f *fixture) { f.files[signatureName] = make([]byte, 65<<10) }, quick, errAny},
		"33 signatures": {func(f *fixture) {
			f.files[signatureName] = bytes.Repeat(rpmtest.Sign(t, other, f.files[repomdName], signedAt, nil), 33)
		}, quick, errAny},
	} {
		f := newFixture(t, ".gz", "alpha")
		c.change(f)
		r, err := Open(t.Context(), serve(t, f), f.keys, c.options)
		if c.want == nil {
			if err != nil || len(r.Packages()) != 1 {
				t.Errorf("%s: %v", name, err)
			} else if _, signed := r.Signer(); signed == c.options.AllowUnsigned {
				t.Errorf("%s: signed: %v", name, signed)
			}
			continue
		}
		if err == nil || c.want != errAny && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	f := newFixture(t, ".gz", "alpha")
	if _, err := Open(t.Context(), serve(t, f), &keyring.Keyring{}, quick); !errors.Is(err, keyring.ErrUnknownKey) {
		t.Errorf("the empty keyring: %v", err)
	}
}

var errAny = errors.New("any error")

// Metadata with one thing wrong each, which stops everything.
func TestHostileMetadata(t *testing.T) {
	repomd := func(old, new string) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) { f.edit(t, old, new) }
	}
	number := func(element, value string) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) {
			start, end := "<"+element+">", "</"+element+">"
			_, rest, _ := strings.Cut(string(f.files[repomdName]), start)
			was, _, _ := strings.Cut(rest, end)
			f.edit(t, start+was+end, start+value+end)
		}
	}
	whole := func(primary string) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) { f.list(t, primary) }
	}
	primaryFile := func(f *fixture) string {
		for name := range f.files {
			if strings.Contains(name, "-primary.xml") {
				return name
			}
		}
		return ""
	}
	for name, c := range map[string]struct {
		change func(*testing.T, *fixture)
		want   string
	}{
		"no repomd":          {func(t *testing.T, f *fixture) { delete(f.files, repomdName) }, "repomd.xml: 404"},
		"large repomd":       {func(t *testing.T, f *fixture) { f.sign(t, strings.Repeat(" ", maxRepomd+1)) }, "more than 262144 bytes"},
		"repomd of noise":    {func(t *testing.T, f *fixture) { f.sign(t, "noise") }, "repomd.xml: offset"},
		"repomd of metadata": {func(t *testing.T, f *fixture) { f.sign(t, "<metadata/>") }, "repomd"},
		"repomd twice":       {repomd("</repomd>", "</repomd><repomd></repomd>"), "something follows"},
		"repomd, then text":  {repomd("</repomd>", "</repomd>x"), "something follows"},
		"no primary":         {repomd(`"primary"`, `"other"`), "0 data of type primary"},
		"two primaries":      {repomd(`"primary_zck"`, `"primary"`), "primary"},
		"no checksum":        {repomd("<checksum", "<checksums"), "repomd.xml"},
		"MD5":                {repomd("sha256", "md5"), `checksum of type "md5"`},
		"SHA-1":              {repomd("sha256", "sha"), `checksum of type "sha"`},
		"checksum of noise":  {repomd(`sha256">`, `sha256">x`), "sha256 digest of 65 hex digits"},
		"location with ..":   {repomd(`href="repodata/`, `href="../repodata/`), "climbs out"},
		"location with %2e":  {repomd(`href="repodata/`, `href="%2e%2e/repodata/`), "climbs out"},
		"absolute location":  {repomd(`href="repodata/`, `href="/repodata/`), "is absolute"},
		"another host":       {repomd(`href="repodata/`, `href="http://example.org/`), "not a plain path"},
		"another base":       {repomd(`<location href`, `<location xml:base="http://example.org" href`), "a base of its own"},
		"no such primary":    {func(t *testing.T, f *fixture) { delete(f.files, primaryFile(f)) }, "primary.xml.gz: 404"},
		"size less":          {repomd("<size>", "<size>1"), "the metadata says 1"},
		"size 0":             {number("size", "0"), "0 bytes, the limit is"},
		"size of 1 TB":       {number("size", "1000000000000"), "1000000000000 bytes, the limit is"},
		"size twice":         {repomd("<size>", "<size>1</size><size>"), "one size at most"},
		"size in words":      {repomd("<size>", "<size>x"), "repomd.xml: offset"},
		"opens to more":      {number("open-size", "10"), "limit of 10 bytes"},
		"another primary":    {func(t *testing.T, f *fixture) { b := f.files[primaryFile(f)]; b[4] ^= 1 }, "its checksum is not the sha256:"},
		"primary of noise": {func(t *testing.T, f *fixture) {
			n := primaryFile(f)
			f.files[n] = bytes.Repeat([]byte("x"), len(f.files[n]))
		}, "gzip"},
		"bytes behind primary": {func(t *testing.T, f *fixture) {
			n := primaryFile(f)
			b := append(f.files[n], "noise"...)
			f.files[n] = b
			f.sign(t, fmt.Sprintf(`<repomd><data type="primary"><checksum type="sha256">%x</checksum><location href="%s"/></data></repomd>`, sha256.Sum256(b), n))
		}, "gzip"},
		"bzip2":               {repomd(".xml.gz", ".xml.bz2"), "only gz, xz and zst"},
		"primary cut":         {whole("<metadata><package type='rpm'>"), "XML syntax error"},
		"primary empty":       {whole(" "), "no metadata in it"},
		"primary of rpms":     {whole("<rpms/>"), "must be metadata"},
		"primary twice":       {whole("<metadata/><metadata/>"), "must be metadata, and one"},
		"another encoding":    {whole(`<?xml version="1.0" encoding="latin1"?><metadata/>`), "encoding"},
		"deep":                {whole(strings.Repeat("<metadata>", 33)), "more than 32 elements"},
		"long text":           {whole("<metadata><x>" + strings.Repeat("x", maxToken+1)), "more than 1048576 bytes"},
		"long tag":            {whole("<metadata x='" + strings.Repeat("x", maxToken+1)), "more than 1048576 bytes"},
		"many attributes":     {whole("<metadata " + strings.Repeat("x='' ", maxToken/5+1)), "more than 1048576 bytes"},
		"long name":           {whole("<metadata><package type='rpm'><name>" + strings.Repeat("x", maxField+1) + "</name>"), "name of more than 4096 bytes"},
		"long version":        {whole("<metadata><package type='rpm'><version ver='" + strings.Repeat("x", maxField+1) + "'/>"), "version of more than 4096 bytes"},
		"entity":              {whole(`<!DOCTYPE x [<!ENTITY a "aaaa">]><metadata>&a;</metadata>`), "entity"},
		"two at one location": {func(t *testing.T, f *fixture) { f.relist(t, "Packages/beta.rpm", "Packages/alpha.rpm") }, "two packages at Packages/alpha.rpm"},
		"too many packages":   {whole("<metadata>" + strings.Repeat("<package></package>", maxPackages+1) + "</metadata>"), "more than 262144 packages"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, ".gz", "alpha", "beta")
			if strings.HasPrefix(name, "too many") || name == "deep" {
				f.suffix = ".zst"
			}
			c.change(t, f)
			url := serve(t, f)
			_, err := Open(t.Context(), url, f.keys, quick)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), url) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// Metadata with something wrong with one package, which is refused; the other
// is read.
func TestHostilePackages(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"another type":     {`type="rpm"><name>beta`, `type="deb"><name>beta`, `package of type "deb"`},
		"no name":          {"<name>beta</name>", "", "no full name"},
		"no version":       {`<version epoch="0"`, `<release epoch="0"`, "XML"},
		"epoch of noise":   {`epoch="0"`, `epoch="x"`, "epoch"},
		"location with ..": {"Packages/beta", "../beta", "climbs out"},
		".. inside":        {"Packages/beta", "Packages/../../beta", "climbs out"},
		"absolute":         {"Packages/beta", "/etc/beta", "is absolute"},
		"another host":     {"Packages/beta", "https://example.org/beta", "not a plain path"},
		"with a host":      {"Packages/beta", "//example.org/beta", "is absolute"},
		"escaped":          {"Packages/beta", "%2e%2e/beta", "climbs out"},
		"escaped slash":    {"Packages/beta", "..%2fbeta", "climbs out"},
		"escaped NUL":      {"Packages/beta", "a%00beta", "control characters"},
		"newline":          {"Packages/beta", "a&#10;beta", "control characters"},
		"backslashes":      {"Packages/beta", `..\beta`, "not a plain path"},
		"query":            {"beta.rpm", "beta.rpm?x", "not a plain path"},
		"fragment":         {"beta.rpm", "beta.rpm#x", "not a plain path"},
		"long":             {"Packages/beta", strings.Repeat("x", 64<<10), "the limit is 4095"},
		"base":             {`<location href="Packages/beta`, `<location xml:base="http://example.org/" href="Packages/beta`, "base of its own"},
		"no location":      {`<location href="Packages/beta.rpm"/>`, "", "no location"},
		"no range":         {"<rpm:header-range", "<rpm:other", "header-range"},
		"range of noise":   {`start="`, `start="x`, "is not a number"},
		"negative range":   {`start="`, `start="-`, "is not a number"},
		"huge range":       {`end="`, `end="9999999`, "the limit is"},
		"range of 2^64":    {`end="`, `end="99999999999999999999`, "is not a number"},
		"backward range":   {`end="`, `end="1" x="`, "header from"},
		"range elsewhere":  {`start="`, `start="1" x="`, "the metadata says from 1"},
		"no such file":     {"Packages/beta.rpm", "Packages/gamma.rpm", "404"},
		"another size":     {`size package="`, `size package="1`, "the metadata says 1"},
		"another package":  {"<name>beta", "<name>gamma", "it is beta-1.0-1.noarch"},
		"another version":  {`ver="1.0"`, `ver="1.1"`, "the metadata says beta-1.1-1.noarch"},
		"another epoch":    {`epoch="0"`, `epoch="1"`, "(epoch 1)"},
		"another arch":     {"noarch", "x86_64", "the metadata says beta-1.0-1.x86_64"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "", "alpha", "beta") // beta is listed first
			if name == "no version" {
				f.list(t, strings.Replace(f.primary(t), `<version epoch="0" ver="1.0" rel="1"/>`, "", 1))
				c.want = "no full name"
			} else {
				f.relist(t, c.old, c.new)
			}
			r, err := Open(t.Context(), serve(t, f), f.keys, quick)
			if err != nil {
				t.Fatal(err)
			}
			good := 0
			for _, p := range r.Packages() {
				_, err := r.Fetch(t.Context(), p, nil)
				if p.Location == "Packages/alpha.rpm" {
					if err != nil {
						t.Errorf("the other package: %v", err)
					}
					good++
				} else if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
			}
			if good != 1 {
				t.Errorf("%d good packages", good)
			}
		})
	}
}

// Servers that lie, stop, or are busy. A server that recovers is waited for.
func TestHostileServer(t *testing.T) {
	f := newFixture(t, ".gz", "alpha")
	b := f.files["Packages/alpha.rpm"]
	head, err := rpmhdr.ParsePackage(b)
	if err != nil {
		t.Fatal(err)
	}
	end := int(head.Size)
	partial := func(w http.ResponseWriter, contentRange string, body []byte) {
		w.Header().Set("Content-Range", contentRange)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(body)
	}
	cut := func(w http.ResponseWriter, body []byte, status int, header ...string) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write(body)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	right := fmt.Sprintf("bytes 0-%d/%d", end-1, len(b))
	for name, c := range map[string]struct {
		answer func(n int, w http.ResponseWriter, r *http.Request) bool
		want   string // part of the error, "" for none
	}{
		"503 twice": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n < 3 {
				w.WriteHeader(503)
			}
			return n < 3
		}, ""},
		"503 always": {func(n int, w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true }, "503 Service Unavailable (tried 4 times)"},
		"503 for an hour": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(503)
			return true
		}, "asks to come back in 1h"},
		"403": {func(n int, w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(403); return n < 2 }, "403 Forbidden"},
		"416": {func(n int, w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(416); return n < 2 }, "416"},
		"cut once": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 1 {
				cut(w, b[:100], 206, "Content-Range", right, "Content-Length", fmt.Sprint(end))
			}
			return false
		}, ""},
		"cut once, no ranges": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 1 {
				cut(w, b[:100], 200, "Content-Length", fmt.Sprint(len(b)))
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			_, _ = w.Write(b)
			return true
		}, ""},
		"cut always": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			cut(w, nil, 206, "Content-Range", right, "Content-Length", fmt.Sprint(end))
			return true
		}, "tried 4 times"},
		"closes": {func(n int, w http.ResponseWriter, r *http.Request) bool { panic(http.ErrAbortHandler) }, "tried 4 times"},
		"another range": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			partial(w, fmt.Sprintf("bytes 1-%d/%d", end, len(b)), b[1:end+1])
			return true
		}, `content range "bytes 1-`},
		"a shorter range": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			partial(w, fmt.Sprintf("bytes 0-%d/%d", end-2, len(b)), b[:end-1])
			return true
		}, "content range"},
		"a longer range": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			partial(w, fmt.Sprintf("bytes 0-%d/%d", end, len(b)), b[:end+1])
			return true
		}, "content range"},
		"no range": {func(n int, w http.ResponseWriter, r *http.Request) bool { partial(w, "", b[:end]); return true }, `content range ""`},
		"a range of words": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			partial(w, "bytes a-b/c", b[:end])
			return true
		}, "content range"},
		"of unknown size": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			partial(w, fmt.Sprintf("bytes 0-%d/*", end-1), b[:end])
			return true
		}, ""},
		"of another size": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			partial(w, fmt.Sprintf("bytes 0-%d/%d", end-1, len(b)+1), b[:end])
			return true
		}, "the metadata says"},
		"another package": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			x := bytes.ReplaceAll(b, []byte("alpha"), []byte("alphb"))
			partial(w, right, x[:end])
			return true
		}, "header digest does not match"},
		"short body": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			_, _ = w.Write(b[:end-1])
			return true
		}, "tried 4 times"},
		"short file": {func(n int, w http.ResponseWriter, r *http.Request) bool { _, _ = w.Write(b[:end-1]); return true }, "the metadata says"},
		"noise": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			partial(w, right, bytes.Repeat([]byte("x"), end))
			return true
		}, "not an RPM package"},
		"redirect": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 1 {
				return false
			}
			http.Redirect(w, r, r.URL.Path+"/../alpha.rpm", http.StatusFound)
			return true
		}, ""},
		"redirect in circles": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return true
		}, "more than 10 redirects"},
		"redirect to a file": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
			return true
		}, "unsupported protocol scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int64
			url := serve(t, before(f, "alpha.rpm", func(w http.ResponseWriter, r *http.Request) bool { return c.answer(int(n.Add(1)), w, r) }))
			r, err := Open(t.Context(), url, f.keys, quick)
			if err != nil {
				t.Fatal(err)
			}
			_, err = fetchAll(t, r, f.keys)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), url+"/Packages/alpha.rpm: ") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// A server that sends nothing, or next to nothing, is given up; so is one that
// the caller does not want to wait for.
func TestStalls(t *testing.T) {
	f := newFixture(t, ".gz", "alpha")
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"no answer": func(w http.ResponseWriter, r *http.Request) {},
		"half a body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(f.files["Packages/alpha.rpm"])))
			_, _ = w.Write(make([]byte, 10))
			_ = http.NewResponseController(w).Flush()
		},
	} {
		url := serve(t, before(f, ".rpm", func(w http.ResponseWriter, r *http.Request) bool {
			answer(w, r)
			<-r.Context().Done()
			return true
		}))
		r, err := Open(t.Context(), url, f.keys, Options{Timeout: 50 * time.Millisecond, Pause: 1})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Fetch(t.Context(), r.Packages()[0], nil)
		if !errors.Is(err, fetch.ErrStalled) || !strings.Contains(err.Error(), "alpha.rpm") {
			t.Errorf("%s: %v", name, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Fetch(ctx, r.Packages()[0], nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: cancelled: %v", name, err)
		}
	}
}

// A repository that is replaced between one request and the next is read again.
func TestChangesWhileRead(t *testing.T) {
	old, now := newFixture(t, ".gz", "alpha"), newFixture(t, ".gz", "alpha", "beta")
	now.key, now.keys = old.key, old.keys
	now.list(t, now.primary(t))
	for _, at := range []string{".asc", "primary.xml.gz"} {
		var current atomic.Pointer[fixture]
		current.Store(old)
		url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, at) {
				current.Store(now)
			}
			current.Load().ServeHTTP(w, r)
		}))
		r, err := Open(t.Context(), url, old.keys, quick)
		if err != nil || len(r.Packages()) != 2 {
			t.Errorf("changed at %s: %v", at, err)
		}
	}
	// and one that is never the same is given up
	var n atomic.Int64
	url := serve(t, before(old, "repomd.xml", func(w http.ResponseWriter, r *http.Request) bool {
		fmt.Fprintf(w, "<repomd>%d</repomd>", n.Add(1))
		return true
	}))
	if _, err := Open(t.Context(), url, old.keys, quick); !errors.Is(err, keyring.ErrBad) || n.Load() != maxTries {
		t.Errorf("%v after %d times", err, n.Load())
	}
}

// What is packed a thousandfold takes no more memory than what is not.
func TestBombs(t *testing.T) {
	for _, suffix := range []string{".gz", ".xz", ".zst"} {
		f := newFixture(t, suffix, "alpha")
		bomb := "<metadata>" + strings.Repeat("<!-- -->"+strings.Repeat(" ", 1000), 40_000) + "</metadata>"
		f.list(t, bomb)
		f.edit(t, fmt.Sprintf("<open-size>%d", len(bomb)), fmt.Sprintf("<open-size>%d", len(bomb)-1))
		dir := f.dir(t)
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Open(t.Context(), dir, f.keys, quick)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "limit of") {
			t.Errorf("%s: %v", suffix, err)
		}
		t.Logf("%s: %d bytes become %d, %d allocated in all", suffix, len(pack(t, suffix, []byte(bomb))), len(bomb), after.TotalAlloc-before.TotalAlloc)
		if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > 64<<20 {
			t.Errorf("%s: %d bytes held", suffix, held)
		}
	}
}

// A promise of 256 MiB costs what comes of it.
func TestPromisesAreNotAllocated(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readGrowing(strings.NewReader(strings.Repeat("x", 1000)), maxHead, nil)
	runtime.ReadMemStats(&after)
	if err == nil || after.TotalAlloc-before.TotalAlloc > 1<<20 {
		t.Errorf("%d bytes allocated, %v", after.TotalAlloc-before.TotalAlloc, err)
	}
	want := bytes.Repeat([]byte("0123456789"), 1<<20)
	for _, buf := range [][]byte{nil, make([]byte, 100), make([]byte, 20<<20)} {
		if got, err := readGrowing(bytes.NewReader(want), int64(len(want)), buf); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
}

func TestLocations(t *testing.T) {
	for location, want := range map[string]string{
		"ftp://example.org/":            "must be http, https or file",
		"http://":                       "must be http, https or file",
		"file://example.org/x":          "must be http, https or file",
		"http://example.org/?x=1":       "neither query nor fragment",
		"http://[":                      "parse",
		"/no/such/directory":            "/no/such/directory/repodata/repomd.xml",
		"http://u:secret@127.0.0.1:1/x": "http://u:xxxxx@127.0.0.1:1/x/repodata/repomd.xml",
	} {
		if _, err := Open(t.Context(), location, &keyring.Keyring{}, quick); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", location, err, want)
		}
	}
}

func TestLocalFiles(t *testing.T) {
	f := newFixture(t, "", "alpha")
	dir := f.dir(t)
	path := filepath.Join(dir, "Packages/alpha.rpm")
	if err := os.Truncate(path, 200); err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), dir, f.keys, quick)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fetch(t.Context(), r.Packages()[0], nil); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a short file: %v", err)
	}
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fetch(t.Context(), r.Packages()[0], nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	f.relist(t, fmt.Sprintf(`<size package="%d" installed="1"/>`, len(f.files["Packages/alpha.rpm"])), "")
	f.files["Packages/alpha.rpm"] = f.files["Packages/alpha.rpm"][:200]
	if r, err = Open(t.Context(), f.dir(t), f.keys, quick); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fetch(t.Context(), r.Packages()[0], nil); !errors.Is(err, wire.ErrShort) {
		t.Errorf("a short file of a size that nobody says: %v", err)
	}
}

// A repository that createrepo_c has made of real packages.
func TestCreaterepo(t *testing.T) {
	createrepo, err := exec.LookPath("createrepo_c")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("not installed (test/install-deps): %v", err)
	}
	dir := t.TempDir()
	want := 0
	for path := range corpus.Manifest(t, "rpm") {
		b := corpus.Read(t, path)
		if _, err := rpmhdr.ParsePackage(b); err != nil || len(b) > 1<<20 || want == 100 {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), b, 0o644); err != nil {
			t.Fatal(err)
		}
		want++
	}
	for _, kind := range []string{"gz", "xz"} {
		if out, err := exec.Command(createrepo, "--no-database", "--general-compress-type="+kind, dir).CombinedOutput(); err != nil {
			t.Fatalf("createrepo_c: %v: %s", err, out)
		}
		url := serve(t, http.StripPrefix("/repo", http.FileServer(http.Dir(dir))))
		var read int64
		r, err := Open(t.Context(), url, &keyring.Keyring{}, Options{AllowUnsigned: true, Pause: 1, Progress: func(n, total int64) {
			if n > total {
				t.Errorf("%d of %d bytes", n, total)
			}
			read = n
		}})
		if err != nil {
			t.Fatal(err)
		}
		packages := r.Packages()
		if len(packages) < want*9/10 || read == 0 {
			t.Errorf("%s: %d packages of %d, %d bytes", kind, len(packages), want, read)
		}
		for _, p := range packages {
			fetched, err := r.Fetch(t.Context(), p, nil)
			if err != nil {
				t.Error(err)
				continue
			}
			onDisk, err := rpmhdr.ParsePackage(mustRead(t, filepath.Join(dir, p.Location)))
			if err != nil || !bytes.Equal(onDisk.Header.Signed(), fetched.Header.Signed()) {
				t.Errorf("%s: another header: %v", p.Location, err)
			}
		}
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The seeds of FuzzRepomd and FuzzPrimary are what createrepo_c makes of the
// packages of a fixture: go test -run TestSeeds -update
func TestSeeds(t *testing.T) {
	if corpus.Updating() {
		dir := newFixture(t, "", "alpha", "beta").dir(t)
		if out, err := exec.Command("createrepo_c", "--no-database", "--general-compress-type=gz", dir).CombinedOutput(); err != nil {
			t.Fatalf("createrepo_c: %v: %s", err, out)
		}
		repomd := mustRead(t, filepath.Join(dir, repomdName))
		writeSeed(t, "FuzzRepomd", repomd)
		list, err := parseRepomd(repomd)
		if err != nil {
			t.Fatal(err)
		}
		r, err := gzip.NewReader(bytes.NewReader(mustRead(t, filepath.Join(dir, list.href))))
		if err != nil {
			t.Fatal(err)
		}
		primary, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		writeSeed(t, "FuzzPrimary", primary)
	}
	if seeds, err := filepath.Glob("testdata/fuzz/*/createrepo_c"); err != nil || len(seeds) != 2 {
		t.Errorf("seeds %v, %v", seeds, err)
	}
}

func writeSeed(t *testing.T, target string, b []byte) {
	t.Helper()
	path := filepath.Join("testdata/fuzz", target, "createrepo_c")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("go test fuzz v1\n[]byte("+strconv.Quote(string(b))+")\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func FuzzRepomd(f *testing.F) {
	f.Add(newFixture(f, ".gz", "alpha").files[repomdName])
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseRepomd(b)
		if err != nil {
			return
		}
		if p.digest.IsZero() || p.href == "" || strings.Contains("/"+p.href+"/", "/../") || p.href[0] == '/' || p.size < 0 || p.openSize < 0 {
			t.Errorf("%+v", p)
		}
	})
}

func FuzzPrimary(f *testing.F) {
	f.Add([]byte(newFixture(f, ".gz", "alpha", "beta").primary(f)))
	base, err := fetch.New("http://example.org/repo", fetch.Options{Escaped: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		packages, err := parsePrimary(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, p := range packages {
			if p.err != nil {
				continue
			}
			if p.Name == "" || p.start < 0 || p.start >= p.end || p.end > maxHead {
				t.Errorf("%+v", p)
			}
			u, err := url.Parse(base.Where(p.Location))
			if err != nil || u.Host != "example.org" || !strings.HasPrefix(u.Path, "/repo/") || strings.Contains(u.Path+"/", "/../") || u.RawQuery != "" {
				t.Errorf("%q leads to %v, %v", p.Location, u, err)
			}
		}
	})
}
