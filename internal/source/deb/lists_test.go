package deb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"diglim/internal/keyring"
	"diglim/internal/rpmtest"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// aptLists copies an archive's suite as apt keeps it, with that suffix of its
// index.
func aptLists(t *testing.T, a *testArchive, dir, site, suffix string) {
	t.Helper()
	for from, to := range map[string]string{
		"InRelease": "InRelease", "main/binary-amd64/Packages" + suffix: "main_binary-amd64_Packages" + suffix,
	} {
		b, err := os.ReadFile(filepath.Join(a.dir, "dists/test", from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, site+"_dists_test_"+to), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func signedArchive(t *testing.T, name string, key *openpgp.Entity, fields string) *testArchive {
	a := newTestArchive(t)
	a.fields = fields
	a.add(name, "1", "amd64", wholeTar(t))
	return a.signed(key)
}

func (a *testArchive) pool(name string) string {
	return filepath.Join(a.dir, "pool", name+"_1_amd64.deb")
}

// Of the suites that apt knows each vouches for its packages, if a key does for
// it.
func TestLists(t *testing.T) {
	key, other := rpmtest.NewKey(t, "key", nil), rpmtest.NewKey(t, "other", rpmtest.Ed25519)
	good, unknown := signedArchive(t, "good", key, ""), signedArchive(t, "unknown", other, "")
	old, changed := signedArchive(t, "old", key, "Valid-Until: Sat, 08 Feb 2020 10:00:00 UTC\n"), signedArchive(t, "changed", key, "")
	packed := signedArchive(t, "packed", key, "")
	dir := t.TempDir()
	aptLists(t, good, dir, "good", "")
	aptLists(t, unknown, dir, "unknown", "")
	aptLists(t, old, dir, "old", "")
	aptLists(t, packed, dir, "packed", ".xz")
	changed.add("added", "1", "amd64", wholeTar(t))
	changed.release() // not signed
	aptLists(t, changed, dir, "changed", "")
	for _, name := range []string{"lock", "good_dists_test_main_dep11_Components-amd64.yml.gz", "other_dists_test_main_binary-amd64_Packages"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("noise"), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	l, err := OpenLists(t.Context(), dir, ring(t, key), Options{})
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(l.Skipped)
	for _, want := range []string{"changed_dists_test_main_binary-amd64_Packages: not what was signed", "old_dists_test_InRelease: expired", "unknown_dists_test_InRelease: "} {
		if len(l.Skipped) != 3 || !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
	for _, c := range []struct {
		path string
		err  error
	}{
		{good.pool("good"), nil}, {packed.pool("packed"), nil},
		{unknown.pool("unknown"), ErrUnsigned}, {old.pool("old"), ErrUnsigned},
		{changed.pool("changed"), ErrUnsigned}, {changed.pool("added"), ErrUnsigned},
	} {
		p, files, signer, err := l.ReadFile(c.path)
		if !errors.Is(err, c.err) || p.Version != "1" {
			t.Errorf("%s: %s, %v", c.path, p, err)
		}
		if err == nil && (len(files) != len(wholeFiles()) || signer.KeyID != key.PrimaryKey.KeyId) {
			t.Errorf("%s: %d files, signed by %x", c.path, len(files), signer.KeyID)
		}
	}
	if l, err = OpenLists(t.Context(), dir, ring(t, key), Options{AllowExpired: true}); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := l.ReadFile(old.pool("old")); err != nil {
		t.Error(err)
	}
	if _, err := OpenLists(t.Context(), filepath.Join(dir, "none"), &keyring.Keyring{}, Options{}); err == nil {
		t.Error("no directory, no error")
	}
}

// A package that is not, byte by byte, the one in the index is none of a suite's.
func TestListsAnotherPackage(t *testing.T) {
	key := rpmtest.NewKey(t, "key", nil)
	a := newTestArchive(t)
	a.add("good", "1", "amd64", wholeTar(t))
	a.add("liar", "1", "amd64", tarball(t, regular("x", "x")), "Package: liar", "Package: honest")
	a.signed(key)
	dir := t.TempDir()
	aptLists(t, a, dir, "a", ".gz")
	l, err := OpenLists(t.Context(), dir, ring(t, key), Options{})
	if err != nil || l.Skipped != nil {
		t.Fatal(err, l.Skipped)
	}
	if _, _, _, err := l.ReadFile(a.pool("liar")); !errors.Is(err, ErrMismatch) {
		t.Errorf("liar: %v", err)
	}
	if err := os.WriteFile(a.pool("good"), newDeb(t, "good", "1", "amd64", tarball(t, regular("y", "y"))), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := l.ReadFile(a.pool("good")); !errors.Is(err, ErrUnsigned) {
		t.Errorf("good: %v", err)
	}
}

// Names are made as apt makes them (URItoFileName).
func TestListName(t *testing.T) {
	for name, want := range map[string]string{
		"main/binary-amd64/Packages":             "main_binary-amd64_Packages",
		"non-free-firmware/binary-all/Packages":  "non-free-firmware_binary-all_Packages",
		"a_b/binary-amd64/Packages":              "a%5fb_binary-amd64_Packages",
		"with space~tilde/binary-amd64/Packages": "with%20space%7etilde_binary-amd64_Packages",
	} {
		if got := listName(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
