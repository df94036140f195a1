package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"diglim/digestlist"
	"diglim/internal/corpus"
	"diglim/internal/keyring"
	"diglim/internal/source/rpmfile"
)

// Every package of the corpus gives a list, or is refused for a stated reason.
// The table in testdata says which, so that a change shows.
func TestCorpus(t *testing.T) {
	keys, err := keyring.Load(corpus.Path(t, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	manifest := corpus.Manifest(t, "rpm")
	var rows []string
	for path, what := range manifest {
		file := corpus.Path(t, path)
		strict, weak := prover(keys, false).one(fileWork(rpmfile.At(file)), nil), prover(keys, true).one(fileWork(rpmfile.At(file)), nil)
		checkAgainstGPG(t, path, what, strict, weak)
		row := filepath.Base(path) + "\t" + describe(strict, file)
		if strict.err != nil && weak.err == nil {
			row += "\t--allow-weak: " + describe(weak, file)
		}
		rows = append(rows, row)
	}
	slices.Sort(rows)
	corpus.Table(t, "testdata/corpus.tsv", strings.Join(rows, "\n")+"\n")
}

func describe(g made, file string) string {
	if g.err != nil {
		return strings.TrimPrefix(g.err.Error(), file+": ")
	}
	return fmt.Sprintf("%s, %d digests, version %d %s signature of %016x", g.name, g.digests, g.proof.Version, g.proof.Hash, g.proof.KeyID)
}

// gpgGood finds what gpg said of the header signatures.
var gpgGood = regexp.MustCompile(`gpg: .*\b26[78]=(GOODSIG|EXPKEYSIG)`)

// notGood are packages that gpg calls signed by an expired key, and which are
// refused: the key had expired when it signed.
var notGood = []string{"rpm/rpm__hello-2.0-1.x86_64-signed-with-subkey.rpm"}

// checkAgainstGPG compares with what gpg says: a good signature is proved, on
// --allow-weak if it is weak; nothing else is, but for what gpg cannot read.
func checkAgainstGPG(t *testing.T, path, what string, strict, weak made) {
	t.Helper()
	good := gpgGood.MatchString(what) && !slices.Contains(notGood, path)
	beyondGPG := strings.Contains(what, "OPENPGP278") || strings.Contains(what, "GENERATED here")
	if good && weak.err != nil {
		t.Errorf("%s: gpg says good: %v", path, weak.err)
	}
	if good && strict.err != nil && !errors.Is(strict.err, keyring.ErrWeak) {
		t.Errorf("%s: refused for something else than weakness: %v", path, strict.err)
	}
	if !good && !beyondGPG && weak.err == nil {
		t.Errorf("%s: gpg does not say good, and it is proved", path)
	}
}

// Keys made to fool a verifier, one at a time: rpm's own test cases.
func TestHostileKeys(t *testing.T) {
	for _, c := range []struct {
		key, pkg string
		want     error
	}{
		{"rpm__alice.asc", "rpm__hello-2.0-1.x86_64-signed-with-subkey.rpm", nil},
		{"rpm__alice-expired-subkey.asc", "rpm__hello-2.0-1.x86_64-signed-with-subkey.rpm", keyring.ErrKeyNotGood},
		{"rpm__rpm.org-rsa-2048-test.pub", "rpm__hello-2.0-1.x86_64-signed.rpm", nil},
		{"rpm__rpm.org-rsa-2048-test.pub", "rpm__hello-2.0-1.x86_64-v3-signed.rpm", nil},
		{"rpm__rpm.org-ed25519-test.pub", "rpm__hello-2.0-1.x86_64-signed.rpm", keyring.ErrUnknownKey},
		{"rpm__keyidcollision1.pub", "rpm__hello-2.0-1.x86_64-signed.rpm", keyring.ErrUnknownKey},
		// its primary key is the honest one, and what it says of itself holds
		{"rpm__type-confusion.asc", "rpm__hello-2.0-1.x86_64-signed.rpm", nil},
	} {
		keys, err := keyring.Load(corpus.Path(t, "keys", "test", c.key))
		if err != nil {
			t.Errorf("%s: %v", c.key, err)
			continue
		}
		if r := prover(keys, false).one(fileWork(rpmfile.At(corpus.Path(t, "rpm", c.pkg))), nil); !errors.Is(r.err, c.want) {
			t.Errorf("%s with %s: %v, want %v", c.pkg, c.key, r.err, c.want)
		}
	}
}

// prover makes rpm lists of what the keys prove.
func prover(keys *keyring.Keyring, weak bool) *generator {
	return &generator{keys: keys, trust: trust{allowWeak: weak}, fmt: digestlist.FormatRPM, iface: digestlist.InterfaceDIGLIM,
		choose: "all", listType: digestlist.File}
}
