package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/keyring"
	"diglim/internal/rpmtest"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/klauspost/compress/zstd"
)

// tool returns the path of a program of another project. Where it is missing
// the test is skipped, but with CI=true it fails.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

// member is one of an ar archive.
type arMember struct {
	name string
	data []byte
}

func ar(members ...arMember) []byte {
	b := []byte(arMagic)
	for _, m := range members {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		b = append(b, m.data...)
		if len(m.data)%2 != 0 {
			b = append(b, '\n')
		}
	}
	return b
}

// tarball writes headers, with the content that stands in their Uname.
func tarball(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		data := h.Uname
		h.Uname = ""
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func regular(name, data string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Uname: data}
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		panic(err)
	}
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func zst(t testing.TB, b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

func xz(t testing.TB, b []byte) []byte {
	cmd := exec.Command(tool(t, "xz"), "-c", "--lzma2=dict=64KiB")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func controlTar(t testing.TB, name, version, arch string) []byte {
	return tarball(t, tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		regular("./control", fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nDescription: test\n more\n", name, version, arch)))
}

// newDeb makes a package with that data.tar.
func newDeb(t testing.TB, name, version, arch string, data []byte) []byte {
	t.Helper()
	return ar(arMember{"debian-binary", []byte("2.0\n")}, arMember{"control.tar.gz", gz(controlTar(t, name, version, arch))}, arMember{"data.tar.gz", gz(data)})
}

// testArchive is an archive in a directory, with one suite, "test".
type testArchive struct {
	t      testing.TB
	dir    string
	fields string // of Release, besides those that there must be
	lies   map[string]string
	debs   map[string][]byte // by file name
	index  strings.Builder
}

func newTestArchive(t testing.TB) *testArchive {
	return &testArchive{t: t, dir: t.TempDir(), lies: map[string]string{}, debs: map[string][]byte{}}
}

func (a *testArchive) write(name string, data []byte) {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		a.t.Fatal(err)
	}
}

// add adds a package with that data.tar; what the index says of it can be lies.
func (a *testArchive) add(name, version, arch string, data []byte, lies ...string) {
	a.t.Helper()
	a.addFile(name, version, arch, newDeb(a.t, name, version, arch, data), lies...)
}

func (a *testArchive) addFile(name, version, arch string, deb []byte, lies ...string) {
	path := fmt.Sprintf("pool/%s_%s_%s.deb", name, strings.ReplaceAll(version, ":", "%3a"), arch)
	a.write(path, deb)
	s := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nFilename: %s\nSize: %d\nSHA256: %x\nDescription: test\n\n", name, version, arch, path, len(deb), sha256.Sum256(deb))
	a.index.WriteString(strings.NewReplacer(lies...).Replace(s))
}

// release writes the index and returns the Release file.
func (a *testArchive) release() []byte {
	plain := []byte(a.index.String())
	b := []byte("Origin: Test\nSuite: test\nCodename: probe\nDate: Sat, 01 Feb 2020 10:00:00 UTC\nArchitectures: amd64 arm64\nComponents: main\n" + a.fields + "SHA256:\n")
	for _, f := range []struct {
		name string
		data []byte
	}{{"main/binary-amd64/Packages", plain}, {"main/binary-amd64/Packages.xz", xz(a.t, plain)}, {"main/binary-amd64/Packages.gz", gz(plain)}, {"main/source/Sources", nil}} {
		b = fmt.Appendf(b, " %x %8d %s\n", sha256.Sum256(f.data), len(f.data), f.name)
		a.write("dists/test/"+f.name, f.data)
	}
	for from, to := range a.lies {
		b = bytes.Replace(b, []byte(from), []byte(to), 1)
	}
	return b
}

// signed writes InRelease, signed by all keys.
func (a *testArchive) signed(keys ...*openpgp.Entity) *testArchive {
	a.t.Helper()
	a.write("dists/test/InRelease", cleartext(a.t, a.release(), keys...))
	return a
}

func (a *testArchive) source() Source {
	return Source{Location: a.dir, Suite: "test", Architecture: "amd64"}
}

var signedAt = time.Date(2020, 2, 1, 10, 0, 0, 0, time.UTC)

// cleartext signs as GnuPG does: without the last line's end.
func cleartext(t testing.TB, text []byte, keys ...*openpgp.Entity) []byte {
	t.Helper()
	var private []*packet.PrivateKey
	for _, e := range keys {
		private = append(private, e.PrivateKey)
	}
	var b bytes.Buffer
	w, err := clearsign.EncodeMulti(&b, private, rpmtest.Config(signedAt, nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.TrimSuffix(text, []byte("\n"))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), '\n')
}

func ring(t testing.TB, keys ...*openpgp.Entity) *keyring.Keyring {
	t.Helper()
	k := &keyring.Keyring{}
	for _, e := range keys {
		if err := k.Add("test", rpmtest.Public(t, e)); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func sha(data string) digest.Digest { return digest.Sum(digest.SHA256, []byte(data)) }
