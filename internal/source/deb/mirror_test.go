package deb

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"diglim/internal/fetch"
	"diglim/internal/keyring"
)

const debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// configured returns the sources of apt on this machine that Debian's own keys
// are trusted for.
func configured(t *testing.T) []Source {
	t.Helper()
	var found []Source
	add := func(uris, suites, components []string) {
		for _, uri := range uris {
			for _, suite := range suites {
				if !strings.HasSuffix(suite, "/") && strings.HasPrefix(uri, "http") {
					found = append(found, Source{Location: uri, Suite: suite, Components: components})
				}
			}
		}
	}
	files, _ := filepath.Glob("/etc/apt/sources.list.d/*")
	for _, file := range append(files, "/etc/apt/sources.list") {
		b, err := os.ReadFile(file)
		if err != nil || filepath.Ext(file) != ".list" && filepath.Ext(file) != ".sources" {
			continue // apt does not read it either
		}
		var text bytes.Buffer
		for line := range bytes.Lines(b) {
			if !bytes.HasPrefix(line, []byte("#")) {
				text.Write(line)
			}
		}
		if strings.HasSuffix(file, ".list") {
			for line := range strings.Lines(text.String()) {
				f := strings.Fields(line)
				// One line can have options; Debian's images of that kind have none.
				if len(f) > 3 && f[0] == "deb" && f[1][0] != '[' && strings.Contains(f[1], "debian") {
					add(f[1:2], f[2:3], f[3:])
				}
			}
			continue
		}
		fields := make(map[string][]string)
		for l, err := range lines(&text) {
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if l.field != "" {
				fields[l.field] = append(fields[l.field], strings.Fields(l.value())...)
				continue
			}
			if slices.Contains(fields["signed-by"], debianKeyring) && slices.Contains(fields["types"], "deb") {
				add(fields["uris"], fields["suites"], fields["components"])
			}
			clear(fields)
		}
	}
	return found
}

// missing ends a test for what it needs: by a skip, but with CI=true as a
// failure.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// The archive that this machine installs from, by the keys that it trusts: the
// digests of packages are those of the files that dpkg unpacks.
func TestMirror(t *testing.T) {
	if testing.Short() {
		t.Skip("it fetches some 15 MB")
	}
	dpkg := tool(t, "dpkg-deb")
	sources := configured(t)
	if len(sources) == 0 {
		missing(t, "apt has no source here with %s", debianKeyring)
	}
	keys, err := keyring.Load(debianKeyring)
	if err != nil {
		missing(t, "%v", err)
	}
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Head(strings.TrimRight(sources[0].Location, "/") + "/dists/" + sources[0].Suite + "/InRelease")
	if err != nil {
		missing(t, "%v", err)
	}
	resp.Body.Close()
	out, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		t.Fatal(err)
	}
	architecture := strings.TrimSpace(string(out))

	compared, setid, suites := 0, 0, 0
	for _, src := range sources {
		src.Architecture = architecture
		s, err := Open(t.Context(), src, keys, Options{})
		if err != nil {
			t.Errorf("%s: %v", src.Suite, err)
			continue
		}
		if s.Unsigned || s.Signer.KeyID == 0 || s.Release.Date.IsZero() || s.Release.Codename != src.Suite && s.Release.Suite != src.Suite {
			t.Errorf("%s: %+v", src.Suite, s)
		}
		suites++
		for _, p := range s.Packages() {
			if p.bad != nil {
				t.Errorf("%s: %s: %v", src.Suite, p, p.bad)
			}
		}
		t.Logf("%s: %d packages, signed by %016x on %s", src.Suite, len(s.Packages()), s.Signer.KeyID, s.Signer.Time.Format(time.DateOnly))
		for _, p := range few(s.Packages()) {
			files, err := s.Files(t.Context(), p)
			if err != nil {
				t.Error(err)
				continue
			}
			dir := t.TempDir()
			root := filepath.Join(dir, "root")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "package.deb")
			download(t, s, p, path)
			if out, err := exec.Command("sh", "-c", `"$0" --fsys-tarfile "$1" | tar -xp -C "$2" && "$0" --control "$1" "$2/DEBIAN"`, dpkg, path, root).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			same(t, p.String(), files, onDisk(t, root, infoName(t, path)))
			for _, f := range files {
				if f.Mode&0o6000 != 0 {
					setid++
				}
			}
			compared += len(files)
		}
		// Debian's keys are for Debian; any other key proves nothing of it.
		if _, err := Open(t.Context(), src, &keyring.Keyring{}, Options{AllowUnsigned: true}); err == nil {
			t.Errorf("%s: proved by no key at all", src.Suite)
		}
	}
	if suites == 0 || compared < 100 || setid == 0 {
		t.Errorf("%d suites, %d files compared, %d of them set-id", suites, compared, setid)
	}
}

// infoName is what dpkg calls the files of a package that it keeps for itself.
func infoName(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("dpkg-deb", "--show", "--showformat", "${Multi-Arch} ${Package} ${Architecture}", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(out))
	if f[0] == "same" {
		return f[1] + ":" + f[2]
	}
	return f[len(f)-2]
}

// few picks packages: some by name, that have hard links, set-id programs and
// programs at all, and the smallest that there are.
func few(packages []Package) []Package {
	var picked []Package
	for _, name := range []string{"hostname", "perl-base", "passwd", "mount", "tzdata-legacy"} {
		if i := slices.IndexFunc(packages, func(p Package) bool { return p.Name == name && p.Size < 4<<20 }); i >= 0 {
			picked = append(picked, packages[i])
		}
	}
	small := slices.Clone(packages)
	slices.SortFunc(small, func(p, q Package) int { return int(p.Size - q.Size) })
	for _, p := range small {
		if len(picked) < 8 && p.Size > 3000 {
			picked = append(picked, p)
		}
	}
	return picked
}

func download(t *testing.T, s *Suite, p Package, path string) {
	t.Helper()
	r := s.archive.Open(t.Context(), fetch.Request{Name: p.Filename, Size: p.Size})
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
