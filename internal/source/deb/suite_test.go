package deb

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"diglim/internal/fetch"
	"diglim/internal/keyring"
	"diglim/internal/rpmtest"
	"diglim/internal/unpack"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

func TestSuite(t *testing.T) {
	old, current := rpmtest.NewKey(t, "old", nil), rpmtest.NewKey(t, "current", rpmtest.Ed25519)
	a := newTestArchive(t)
	a.add("whole", "1:2.0-1", "amd64", wholeTar(t))
	a.add("other", "2", "all", tarball(t, regular("./x", "x")))
	a.add("other", "1", "all", tarball(t, regular("./y", "y")))
	a.add("foreign", "1", "arm64", tarball(t))
	a.signed(old, current)
	ctx := context.Background()

	server := httptest.NewServer(http.FileServer(http.Dir(a.dir)))
	defer server.Close()
	for _, src := range []Source{
		a.source(),
		{Location: a.dir + "/", Suite: "test", Components: []string{"main"}, Architecture: "amd64"},
		{Location: a.dir + "/dists/test", Architecture: "amd64"},
		{Location: "file://" + a.dir, Suite: "test", Architecture: "amd64"},
		{Location: server.URL + "/", Suite: "test", Architecture: "amd64"},
		{Location: server.URL + "/dists/test/", Architecture: "amd64"},
	} {
		var read atomic.Int64
		s, err := Open(ctx, src, ring(t, current), Options{Progress: func(n int) { read.Add(int64(n)) }})
		if err != nil {
			t.Errorf("%+v: %v", src, err)
			continue
		}
		if s.Signer.KeyID != current.PrimaryKey.KeyId || s.Unsigned || s.Expired || s.Release.Origin != "Test" || !s.Release.Date.Equal(signedAt) {
			t.Errorf("%+v: %+v", src, s)
		}
		var names []string
		for _, p := range s.Packages() {
			names = append(names, p.String())
		}
		if want := []string{"other_1_all", "other_2_all", "whole_1:2.0-1_amd64"}; !reflect.DeepEqual(names, want) {
			t.Fatalf("%+v: %q", src, names)
		}
		before := read.Load()
		whole := s.Packages()[2]
		files, err := s.Files(ctx, whole)
		if err != nil || !reflect.DeepEqual(files, wholeFiles()) {
			t.Errorf("%+v: %+v, %v", src, files, err)
		}
		if got := read.Load() - before; before == 0 || got != whole.Size {
			t.Errorf("%+v: progress of %d, then %d bytes for %d", src, before, got, whole.Size)
		}
	}
}

// Release with a signature beside it, armored or not; and none at all.
func TestDetachedSignature(t *testing.T) {
	key, other := rpmtest.NewKey(t, "key", nil), rpmtest.NewKey(t, "other", nil)
	a := newTestArchive(t)
	a.add("p", "1", "all", tarball(t, regular("x", "x")))
	release := a.release()
	a.write("dists/test/Release", release)
	var armored bytes.Buffer
	w, err := armor.Encode(&armored, "PGP SIGNATURE", nil)
	if err != nil {
		t.Fatal(err)
	}
	binary := bytes.Join([][]byte{rpmtest.Sign(t, other, release, signedAt, nil), rpmtest.Sign(t, key, release, signedAt, nil)}, nil)
	w.Write(binary)
	w.Close()
	open := func(o Options) (*Suite, error) {
		return Open(context.Background(), a.source(), ring(t, key), o)
	}
	if _, err := open(Options{}); !errors.Is(err, ErrUnsigned) {
		t.Errorf("unsigned: %v", err)
	}
	if s, err := open(Options{AllowUnsigned: true}); err != nil || !s.Unsigned || len(s.Packages()) != 1 {
		t.Errorf("unsigned, allowed: %+v, %v", s, err)
	}
	for name, sig := range map[string][]byte{"armored": armored.Bytes(), "binary": binary} {
		a.write("dists/test/Release.gpg", sig)
		s, err := open(Options{})
		if err != nil || s.Signer.KeyID != key.PrimaryKey.KeyId || s.Unsigned {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	for name, c := range map[string]struct {
		sig  []byte
		want error
	}{
		"by another key":       {rpmtest.Sign(t, other, release, signedAt, nil), keyring.ErrUnknownKey},
		"of something else":    {rpmtest.Sign(t, key, release[1:], signedAt, nil), keyring.ErrBad},
		"nothing":              {nil, keyring.ErrMalformed},
		"text":                 {[]byte("signed, honestly"), keyring.ErrMalformed},
		"a key":                {rpmtest.Public(t, key), keyring.ErrMalformed},
		"cut":                  {binary[:len(binary)-1], keyring.ErrMalformed},
		"armored nothing":      {[]byte("-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n"), keyring.ErrMalformed},
		"too many, good after": {append(bytes.Repeat(rpmtest.Sign(t, other, release, signedAt, nil), keyring.MaxSignatures), binary...), keyring.ErrUnknownKey},
	} {
		a.write("dists/test/Release.gpg", c.sig)
		// What is signed, but not well, is not unsigned.
		for _, o := range []Options{{}, {AllowUnsigned: true}} {
			if s, err := open(o); !errors.Is(err, c.want) || !strings.Contains(err.Error(), "Release.gpg") {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
		}
	}
}

// Wrong versions of a right InRelease: each must be refused.
func TestInReleaseRefusals(t *testing.T) {
	key, other := rpmtest.NewKey(t, "key", nil), rpmtest.NewKey(t, "other", nil)
	a := newTestArchive(t)
	a.add("p", "1", "all", tarball(t, regular("x", "x")))
	good := string(cleartext(t, a.release(), key))
	const unsigned = "Origin: Mallory\n\n"
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"other text":         {strings.Replace(good, "Origin: Test", "Origin: Tset", 1), keyring.ErrBad},
		"a line more":        {strings.Replace(good, "Origin:", "Label: x\nOrigin:", 1), keyring.ErrBad},
		"a line less":        {strings.Replace(good, "Suite: test\n", "", 1), keyring.ErrBad},
		"an empty line":      {strings.Replace(good, "SHA256:", "\nSHA256:", 1), keyring.ErrBad},
		"text before":        {unsigned + good, keyring.ErrMalformed},
		"a line before":      {"\n" + good, keyring.ErrMalformed},
		"text behind":        {good + unsigned, keyring.ErrMalformed},
		"another behind":     {good + good, keyring.ErrMalformed},
		"text in the header": {strings.Replace(good, "\n\n", "\n"+unsigned, 1), keyring.ErrMalformed},
		"text before the signature": {strings.Replace(good, "-----BEGIN PGP SIGNATURE-----", "\n"+unsigned+"-----BEGIN PGP SIGNATURE-----", 1),
			keyring.ErrBad},
		"not signed":         {string(a.release()), keyring.ErrMalformed},
		"nothing":            {"", keyring.ErrMalformed},
		"by another key":     {string(cleartext(t, a.release(), other)), keyring.ErrUnknownKey},
		"a signature of it":  {string(rpmtest.Sign(t, key, a.release(), signedAt, nil)), keyring.ErrMalformed},
		"cut":                {good[:len(good)/2], keyring.ErrMalformed},
		"cut at the end":     {strings.TrimSuffix(good, "-----END PGP SIGNATURE-----\n"), keyring.ErrMalformed},
		"a key for the sign": {strings.ReplaceAll(good, "PGP SIGNATURE", "PGP PUBLIC KEY BLOCK"), keyring.ErrMalformed},
	} {
		a.write("dists/test/InRelease", []byte(c.text))
		for _, o := range []Options{{}, {AllowUnsigned: true}} {
			s, err := Open(context.Background(), a.source(), ring(t, key), o)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), "InRelease") {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
		}
	}
	// White space at the ends of lines is not part of what is signed, and not of
	// what is read either.
	a.write("dists/test/InRelease", []byte(strings.Replace(good, "Origin: Test\n", "Origin: Test \t\r\n", 1)))
	if s, err := Open(context.Background(), a.source(), ring(t, key), Options{}); err != nil || s.Release.Origin != "Test" {
		t.Errorf("white space: %+v, %v", s, err)
	}
}

// What is signed can be wrong all the same, or not what was asked for.
func TestSuiteRefusals(t *testing.T) {
	key := rpmtest.NewKey(t, "key", nil)
	for _, c := range []struct {
		name string
		make func(a *testArchive, src *Source)
		want error
		text string
	}{
		{"another suite", func(a *testArchive, src *Source) {
			a.lies["Suite: test"], a.lies["Codename: probe"] = "Suite: stable", "Codename: bookworm"
		}, ErrMismatch, `suite "stable"`},
		{"expired", func(a *testArchive, src *Source) { a.fields = "Valid-Until: Sat, 08 Feb 2020 10:00:00 UTC\n" }, ErrExpired, "2020-02-08"},
		{"expiry is none", func(a *testArchive, src *Source) { a.fields = "Valid-Until: never\n" }, nil, "line 7: valid-until"},
		{"fields twice", func(a *testArchive, src *Source) { a.fields = "Suite: test\n" }, nil, "line 7: suite is there twice"},
		{"another architecture", func(a *testArchive, src *Source) { src.Architecture = "s390x" }, nil, `"s390x" is none of amd64 arm64`},
		{"no architecture", func(a *testArchive, src *Source) { src.Architecture = "" }, nil, "none of amd64 arm64"},
		{"one without an index", func(a *testArchive, src *Source) { src.Architecture = "arm64" }, nil, "no index main/binary-arm64/Packages"},
		{"another component", func(a *testArchive, src *Source) { src.Components = []string{"main", "contrib"} }, nil, `"contrib" is none of main`},
		{"suite climbs", func(a *testArchive, src *Source) { src.Suite = "../test" }, nil, "cannot be one"},
		{"no suite of that name", func(a *testArchive, src *Source) { src.Suite = "best" }, os.ErrNotExist, "dists/best"},
		{"scheme", func(a *testArchive, src *Source) { src.Location = "ftp://localhost/debian" }, nil, `scheme "ftp"`},
		{"no location", func(a *testArchive, src *Source) { src.Location = "" }, nil, "no archive"},
		{"index entry", func(a *testArchive, src *Source) { a.lies["main/source/Sources"] = "" }, nil, "DIGEST SIZE PATH"},
		{"index entry climbs", func(a *testArchive, src *Source) { a.lies["main/source/Sources"] = "../../Packages" }, nil, "climbs"},
		{"no index at all", func(a *testArchive, src *Source) { a.lies["SHA256:"] = "MD5Sum:" }, nil, "no SHA256"},
	} {
		a := newTestArchive(t)
		a.add("p", "1", "all", tarball(t, regular("x", "x")))
		src := a.source()
		c.make(a, &src)
		a.signed(key)
		s, err := Open(context.Background(), src, ring(t, key), Options{})
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %+v, %v", c.name, s, err)
		}
	}
	a := newTestArchive(t)
	a.fields = "Valid-Until: Sat,  8 Feb 2020 10:00:00 +0000\n"
	a.add("p", "1", "all", tarball(t))
	a.signed(key)
	if s, err := Open(context.Background(), a.source(), ring(t, key), Options{AllowExpired: true}); err != nil || !s.Expired || s.Release.ValidUntil.Day() != 8 {
		t.Errorf("expired, allowed: %+v, %v", s, err)
	}
}

// An index that is not the one that was signed is refused, in whichever way.
func TestIndexRefusals(t *testing.T) {
	key := rpmtest.NewKey(t, "key", nil)
	index := "dists/test/main/binary-amd64/Packages"
	for name, c := range map[string]struct {
		change func(t *testing.T, a *testArchive)
		want   error
		text   string
	}{
		"missing":   {func(t *testing.T, a *testArchive) { os.Remove(filepath.Join(a.dir, index+".xz")) }, os.ErrNotExist, "Packages.xz"},
		"another":   {func(t *testing.T, a *testArchive) { flip(t, filepath.Join(a.dir, index+".xz"), -20) }, ErrMismatch, "sha256:"},
		"shorter":   {func(t *testing.T, a *testArchive) { cut(t, filepath.Join(a.dir, index+".xz")) }, ErrMismatch, "bytes"},
		"longer":    {func(t *testing.T, a *testArchive) { a.write(index+".xz", make([]byte, 1<<20)) }, nil, "more than"},
		"not plain": {func(t *testing.T, a *testArchive) { a.write(index+".xz", nil) }, ErrMismatch, "0 bytes"},
		"a directory": {func(t *testing.T, a *testArchive) {
			os.Remove(filepath.Join(a.dir, index+".xz"))
			a.write(index+".xz/x", nil)
		}, nil, "not a regular file"},
		"sizes that lie": {func(t *testing.T, a *testArchive) {
			a.lies[fmt.Sprintf("%8d main/binary-amd64/Packages\n", a.index.Len())] = fmt.Sprintf("%8d main/binary-amd64/Packages\n", a.index.Len()-1)
			a.signed(key)
		}, ErrMismatch, "unpacks to another Packages"},
		"too large": {func(t *testing.T, a *testArchive) {
			b := bytes.Split(a.release(), []byte("main/binary-amd64/Packages.xz"))
			fields := strings.Fields(string(b[0]))
			a.lies[fields[len(fields)-1]+" main/binary-amd64/Packages.xz"] = "99999999999 main/binary-amd64/Packages.xz"
			a.signed(key)
		}, nil, "the limit is"},
	} {
		a := newTestArchive(t)
		a.add("p", "1", "all", tarball(t, regular("x", "x")))
		a.signed(key)
		c.change(t, a)
		s, err := Open(context.Background(), a.source(), ring(t, key), Options{})
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), index+".xz") {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[(at+len(b))%len(b)] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-1); err != nil {
		t.Fatal(err)
	}
}

// What is wrong with one package is said of that package, and the others are
// read all the same.
func TestPackagesThatAreWrong(t *testing.T) {
	key := rpmtest.NewKey(t, "key", nil)
	a := newTestArchive(t)
	data := tarball(t, regular("x", "x"))
	a.add("good", "1", "all", data)
	a.add("digest", "1", "all", data, "SHA256: ", "SHA256: 0", "\nDescription", "x\nDescription")
	a.add("weak", "1", "all", data, "SHA256: ", "SHA1: ")
	a.add("sizeless", "1", "all", data, "Size: ", "Installed-Size: ")
	a.add("large", "1", "all", data, "Size: ", "Size: 9999999999999999")
	a.add("two", "1", "all", data, "Size: ", "Size: 1\nSize: ")
	a.add("climbing", "1", "all", data, "pool/", "../../pool/")
	a.add("misnamed", "1", "all", data, "Package: misnamed", "Package: another")
	a.add("shorter", "1", "all", data)
	a.add("longer", "1", "all", data)
	a.add("changed", "1", "all", data)
	a.add("gone", "1", "all", data)
	a.add("strange", "1", "all", data, "Version: 1", "Version: ../1")
	a.addFile("nodeb", "1", "all", []byte("no package"))
	a.add("hostile", "1", "all", tarball(t, regular("../x", "x")))
	a.signed(key)
	cut(t, filepath.Join(a.dir, "pool/shorter_1_all.deb"))
	a.write("pool/longer_1_all.deb", append(newDeb(t, "longer", "1", "all", data), 0))
	flip(t, filepath.Join(a.dir, "pool/changed_1_all.deb"), 30) // so that it is no package any more
	if err := os.Remove(filepath.Join(a.dir, "pool/gone_1_all.deb")); err != nil {
		t.Fatal(err)
	}
	s, err := Open(context.Background(), a.source(), ring(t, key), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]struct {
		err  error
		text string
	}{
		"good": {}, "digest": {nil, "sha256"}, "weak": {nil, "no size or no SHA256"}, "sizeless": {nil, "no size"}, "large": {nil, "size"}, "two": {nil, "twice"},
		"climbing": {nil, "climbs"}, "another": {ErrMismatch, "calls itself misnamed_1_all"}, "shorter": {ErrMismatch, "bytes"}, "longer": {ErrMismatch, "more bytes"},
		"changed": {ErrMismatch, "sha256:"}, "gone": {os.ErrNotExist, "gone_1_all.deb"}, "strange": {nil, "cannot be one"}, "nodeb": {nil, "ar magic"}, "hostile": {nil, "climbs"},
	}
	if len(s.Packages()) != len(want) {
		t.Errorf("%d packages, want %d", len(s.Packages()), len(want))
	}
	for _, p := range s.Packages() {
		w, expected := want[p.Name]
		files, err := s.Files(context.Background(), p)
		switch {
		case !expected:
			t.Errorf("%s is there", p)
		case w.text == "":
			if err != nil || len(files) != 1 {
				t.Errorf("%s: %v, %v", p, files, err)
			}
		case err == nil || !strings.HasPrefix(err.Error(), p.Name+"_") || !strings.Contains(err.Error(), w.text) || w.err != nil && !errors.Is(err, w.err):
			t.Errorf("%s: %v, %v", p, files, err)
		}
	}
}

// Packages are read at the same time, and one that nobody vouches for not at
// all.
func TestFilesAtATime(t *testing.T) {
	key := rpmtest.NewKey(t, "key", nil)
	a := newTestArchive(t)
	for i := range 20 {
		a.add(fmt.Sprintf("p%d", i), "1", "all", tarball(t, regular(fmt.Sprint("file", i), strings.Repeat("x", 1000*i))))
	}
	a.signed(key)
	server := httptest.NewServer(http.FileServer(http.Dir(a.dir)))
	defer server.Close()
	src := a.source()
	src.Location = server.URL
	s, err := Open(context.Background(), src, ring(t, key), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, p := range s.Packages() {
		wg.Go(func() {
			files, err := s.Files(context.Background(), p)
			if err != nil || len(files) != 1 || files[0].Path != "/file"+p.Name[1:] {
				t.Errorf("%s: %v, %v", p, files, err)
			}
		})
	}
	wg.Wait()
	other := s.Packages()[0]
	other.SHA256 = sha("another")
	if files, err := s.Files(context.Background(), other); err == nil || !strings.Contains(err.Error(), "no such package") {
		t.Errorf("%v, %v", files, err)
	}
}

// A flat archive has all in one directory.
func TestFlatArchive(t *testing.T) {
	key := rpmtest.NewKey(t, "key", nil)
	a := newTestArchive(t)
	deb := newDeb(t, "flat", "1", "amd64", tarball(t, regular("x", "x")))
	d := sha(string(deb))
	packages := fmt.Sprintf("Package: flat\nVersion: 1\nArchitecture: amd64\nFilename: ./flat.deb\nSize: %d\nSHA256: %s", len(deb), d.Hex())
	a.write("flat.deb", deb)
	a.write("Packages.gz", gz([]byte(packages)))
	is := sha(string(gz([]byte(packages))))
	a.write("InRelease", cleartext(t, fmt.Appendf(nil, "Date: Sat, 01 Feb 2020 10:00:00 UTC\nSHA256:\n %s %d Packages.gz\n", is.Hex(), len(gz([]byte(packages)))), key))
	for arch, n := range map[string]int{"": 1, "amd64": 1, "arm64": 0} {
		s, err := Open(context.Background(), Source{Location: a.dir, Architecture: arch}, ring(t, key), Options{})
		if err != nil || len(s.Packages()) != n {
			t.Errorf("%q: %+v, %v", arch, s, err)
			continue
		}
		for _, p := range s.Packages() {
			if files, err := s.Files(context.Background(), p); err != nil || len(files) != 1 {
				t.Errorf("%v, %v", files, err)
			}
		}
	}
}

// hostile is a server that misbehaves the first times that it is asked for a
// package.
type hostile struct {
	files  http.Handler
	asked  atomic.Int64
	times  int64
	answer func(w http.ResponseWriter, r *http.Request, size int)
	deb    []byte
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/pool/") && h.asked.Add(1) <= h.times {
		h.answer(w, r, len(h.deb))
		return
	}
	h.files.ServeHTTP(w, r)
}

// What a server does wrong is made good by asking again, but not for ever.
func TestHostileServer(t *testing.T) {
	key := rpmtest.NewKey(t, "key", nil)
	a := newTestArchive(t)
	deb := newDeb(t, "p", "1", "all", wholeTar(t))
	a.addFile("p", "1", "all", deb)
	a.signed(key)
	half := func(w http.ResponseWriter, r *http.Request, size int) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		w.Write(deb[:size/2])
	}
	released := make(chan struct{})
	stall := func(w http.ResponseWriter, r *http.Request, size int) {
		w.Write(deb[:10])
		w.(http.Flusher).Flush()
		<-released
	}
	status := func(code int) func(http.ResponseWriter, *http.Request, int) {
		return func(w http.ResponseWriter, r *http.Request, size int) { w.WriteHeader(code) }
	}
	for name, c := range map[string]struct {
		times  int64
		answer func(w http.ResponseWriter, r *http.Request, size int)
		want   error
		text   string // of the error, none if it must work
		asked  int64
	}{
		"cut once":           {1, half, nil, "", 2},
		"cut always":         {99, half, nil, "unexpected EOF", attempts},
		"cut without a size": {2, func(w http.ResponseWriter, r *http.Request, size int) { w.Write(deb[:5]); w.(http.Flusher).Flush() }, nil, "", 3},
		"hung up":            {2, func(w http.ResponseWriter, r *http.Request, size int) { panic(http.ErrAbortHandler) }, nil, "", 3},
		"stalls once":        {1, stall, nil, "", 2},
		"stalls always":      {99, stall, fetch.ErrStalled, "stalled for", attempts},
		"silent":             {99, func(w http.ResponseWriter, r *http.Request, size int) { <-released }, fetch.ErrStalled, "stalled for", attempts},
		"busy twice":         {2, status(http.StatusServiceUnavailable), nil, "", 3},
		"busy always":        {99, status(http.StatusTooManyRequests), nil, "429", attempts},
		"not there":          {99, status(http.StatusNotFound), os.ErrNotExist, "404 Not Found", 1},
		"forbidden":          {99, status(http.StatusForbidden), nil, "403 Forbidden", 1},
		"200 for a range": {2, func(w http.ResponseWriter, r *http.Request, size int) {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			if r.Header.Get("Range") == "" {
				w.Write(deb[:size/2])
			} else {
				w.Write(deb)
			}
		}, nil, "", 2},
		"another range": {2, func(w http.ResponseWriter, r *http.Request, size int) {
			if r.Header.Get("Range") == "" {
				half(w, r, size)
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", size-1, size))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(deb)
		}, nil, "another range", 2},
		"a range unasked": {1, func(w http.ResponseWriter, r *http.Request, size int) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", size-1, size))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(deb)
		}, nil, "206", 1},
		"more than there is": {1, func(w http.ResponseWriter, r *http.Request, size int) {
			w.Write(deb)
			w.Write(make([]byte, 1<<20))
		}, ErrMismatch, "more bytes", 1},
		"something else": {1, func(w http.ResponseWriter, r *http.Request, size int) {
			w.Write(bytes.Repeat([]byte{'x'}, size))
		}, ErrMismatch, "sha256:", 1},
		"an endless page": {1, func(w http.ResponseWriter, r *http.Request, size int) {
			for range 1 << 16 {
				if _, err := w.Write([]byte("<p>please log in</p>")); err != nil {
					return
				}
			}
		}, ErrMismatch, "more bytes", 1},
		"packed once more": {1, func(w http.ResponseWriter, r *http.Request, size int) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(gz(deb))
		}, ErrMismatch, "sha256:", 2},
	} {
		h := &hostile{files: http.FileServer(http.Dir(a.dir)), times: c.times, answer: c.answer, deb: deb}
		server := httptest.NewServer(h)
		o := fetch.Options{Tries: attempts, Pause: time.Microsecond, Timeout: 5 * time.Second}
		if errors.Is(c.want, fetch.ErrStalled) || strings.Contains(name, "stalls") {
			o.Timeout = 50 * time.Millisecond
		}
		archive, err := fetch.New(server.URL, o)
		if err != nil {
			t.Fatal(err)
		}
		s, err := open(context.Background(), archive, "dists/test", "test", a.source(), ring(t, key), Options{})
		if err != nil {
			t.Fatal(err)
		}
		files, err := s.Files(context.Background(), s.Packages()[0])
		switch {
		case c.text == "" && (err != nil || len(files) == 0):
			t.Errorf("%s: %v", name, err)
		case c.text != "" && (err == nil || !strings.Contains(err.Error(), c.text) || !strings.HasPrefix(err.Error(), "p_1_all: ") || c.want != nil && !errors.Is(err, c.want)):
			t.Errorf("%s: %v, %v", name, files, err)
		}
		if asked := h.asked.Load(); asked != c.asked {
			t.Errorf("%s: asked %d times, want %d", name, asked, c.asked)
		}
		server.CloseClientConnections()
		if strings.Contains(c.text, "stalled") || strings.Contains(name, "stalls") {
			continue // its handlers wait until the end
		}
		server.Close()
	}
	close(released)
}

// A caller that has enough is not kept waiting.
func TestCancel(t *testing.T) {
	key := rpmtest.NewKey(t, "key", nil)
	a := newTestArchive(t)
	a.add("p", "1", "all", wholeTar(t))
	a.signed(key)
	ctx, cancel := context.WithCancel(context.Background())
	h := &hostile{files: http.FileServer(http.Dir(a.dir)), times: 99, answer: func(w http.ResponseWriter, r *http.Request, size int) {
		cancel()
		<-r.Context().Done()
	}}
	server := httptest.NewServer(h)
	defer server.Close()
	for _, location := range []string{server.URL, a.dir} {
		src := a.source()
		src.Location = location
		s, err := Open(context.Background(), src, ring(t, key), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if files, err := s.Files(ctx, s.Packages()[0]); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, %v", location, files, err)
		}
	}
}

// Indices are read under the names that do not change, where there are any: an
// archive that is renewed while it is read is still one suite.
func TestByHash(t *testing.T) {
	key := rpmtest.NewKey(t, "key", nil)
	a := newTestArchive(t)
	a.add("p", "1", "all", wholeTar(t))
	a.fields = "Acquire-By-Hash: yes\n"
	a.signed(key)
	open := func() (*Suite, error) { return Open(context.Background(), a.source(), ring(t, key), Options{}) }
	if _, err := open(); err != nil {
		t.Errorf("not there: %v", err)
	}
	index := filepath.Join(a.dir, "dists/test/main/binary-amd64")
	b, err := os.ReadFile(filepath.Join(index, "Packages.xz"))
	if err != nil {
		t.Fatal(err)
	}
	a.write("dists/test/main/binary-amd64/by-hash/SHA256/"+sha(string(b)).Hex(), b)
	a.write("dists/test/main/binary-amd64/Packages.xz", []byte("the next one"))
	if s, err := open(); err != nil || len(s.Packages()) != 1 {
		t.Errorf("renewed: %v", err)
	}
	a.write("dists/test/main/binary-amd64/by-hash/SHA256/"+sha(string(b)).Hex(), []byte("another"))
	if _, err := open(); !errors.Is(err, ErrMismatch) {
		t.Errorf("under a wrong name: %v", err)
	}
}

func FuzzPackage(f *testing.F) {
	control := controlTar(f, "test", "1", "amd64")
	data := tarball(f, regular("./a", "x"), tar.Header{Typeflag: tar.TypeLink, Name: "./b", Linkname: "./a"}, regular(longName, "y"))
	format := arMember{"debian-binary", []byte("2.0\n")}
	f.Add(ar(format, arMember{"control.tar", control}, arMember{"data.tar", data}))
	f.Add(ar(format, arMember{"control.tar.gz", gz(control)}, arMember{"data.tar.xz", xz(f, data)}))
	f.Add(ar(format, arMember{"control.tar.zst", zst(f, control)}, arMember{"_x", nil}, arMember{"data.tar.gz", gz(data)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, files, err := readPackage(bytes.NewReader(b))
		if err != nil {
			if files != nil || p != (Package{}) {
				t.Errorf("%v, and %s with %v", err, p, files)
			}
			return
		}
		if !isName(p.Name) || !isName(p.Version) || !isName(p.Architecture) {
			t.Errorf("%s", p)
		}
		for _, file := range files {
			if path, err := unpack.Path(file.Path[1:]); err != nil || path != file.Path || file.Digest.IsZero() || file.Size < 0 {
				t.Errorf("%+v", file)
			}
		}
	})
}

func FuzzAR(f *testing.F) {
	f.Add(ar(arMember{"a", []byte("odd")}, arMember{"b/", []byte("even")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &arReader{r: bytes.NewReader(b)}
		if a.start() != nil {
			return
		}
		end := int64(len(arMagic))
		for {
			name, size, err := a.next()
			if err != nil {
				if err == io.EOF && a.off != int64(len(b)) {
					t.Errorf("ends at %d of %d", a.off, len(b))
				}
				return
			}
			if end += arHeaderSize; a.off != end || size < 0 || len(name) > 16 {
				t.Fatalf("%q of %d bytes at %d", name, size, a.off)
			}
			content, err := io.ReadAll(a)
			if err == nil && (int64(len(content)) != size || !bytes.Equal(content, b[end:end+size])) {
				t.Fatalf("%q: %d of %d bytes", name, len(content), size)
			}
			end += size + size%2
		}
	})
}

func FuzzPackages(f *testing.F) {
	a := newTestArchive(f)
	a.add("a", "1:2~3", "all", nil)
	a.add("b", "1", "amd64", nil, "Description:", "Provides: x,\n y\nDescription:")
	f.Add([]byte(a.index.String()))
	f.Add([]byte("Package: x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		packages, err := parsePackages(bytes.NewReader(b))
		if err != nil && packages != nil {
			t.Errorf("%v and %d packages", err, len(packages))
		}
		for _, p := range packages {
			if p.Name == "" || p.bad == nil && (p.missing(0) != nil || p.Size < 0 || !isName(p.Version) || strings.HasPrefix(p.Filename, "/") || strings.HasPrefix(p.Filename, "..")) {
				t.Errorf("%+v", p)
			}
		}
	})
}

func FuzzRelease(f *testing.F) {
	a := newTestArchive(f)
	a.fields = "Valid-Until: Sat, 08 Feb 2020 10:00:00 UTC\nNo-Support-for-Architecture-all: Packages\nDescription: x\n y\n"
	f.Add(a.release())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRelease(b)
		if err != nil {
			return
		}
		for name, i := range r.indices {
			if path, err := unpack.Path(name); err != nil || path[1:] != name || i.sha256.IsZero() || i.size < 0 {
				t.Errorf("%q: %+v", name, i)
			}
		}
		if paths, err := r.packed([]string{""}); err == nil && len(paths) != 1 {
			t.Errorf("%q", paths)
		}
	})
}

// FuzzInRelease looks for text that is taken for signed and is not.
func FuzzInRelease(f *testing.F) {
	key := rpmtest.NewKey(f, "key", nil)
	keys := ring(f, key)
	const text = "Origin: Test\nSuite: test\n- dash"
	f.Add([]byte("before"), []byte("behind"), []byte("inside"), uint16(60))
	f.Fuzz(func(t *testing.T, before, behind, inside []byte, at uint16) {
		good := cleartext(t, []byte(text), key)
		i := min(int(at), len(good))
		b := bytes.Join([][]byte{before, good[:i], inside, good[i:], behind}, nil)
		signed, _, err := verifyInRelease(b, keys, keyring.Policy{})
		if err == nil && string(signed) != text {
			t.Errorf("%q is taken for signed, of %q", signed, b)
		}
	})
}
