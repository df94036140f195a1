package source_test

import (
	"errors"
	"strings"
	"testing"

	"diglim/internal/digest"
	"diglim/internal/keyring"
	"diglim/internal/rpmtest"
	"diglim/internal/source"
	"diglim/rpmhdr"
)

// Parsing checks one digest of a header; proving checks them all, however good
// the signature is.
func TestProveChecksAllDigests(t *testing.T) {
	key := rpmtest.NewKey(t, "vendor", rpmtest.Ed25519)
	var keys keyring.Keyring
	if err := keys.Add("vendor", rpmtest.Public(t, key)); err != nil {
		t.Fatal(err)
	}
	header := rpmtest.Package{Name: "p", Files: []rpmtest.File{rpmtest.Regular("/p", 0o644, "p")}, Algo: 8}.Header()
	sig := rpmtest.Sign(t, key, header, rpmtest.Made.AddDate(1, 0, 0), nil)
	for _, c := range []struct {
		sha1 string
		want error
	}{
		{digest.Sum(digest.SHA1, header).Hex(), nil},
		{strings.Repeat("0", 40), rpmhdr.ErrDigest},
	} {
		p, err := rpmhdr.ParsePackage(rpmtest.Join(rpmtest.Header(rpmtest.RegionSignatures, rpmtest.Bin(268, sig),
			rpmtest.String(269, c.sha1), rpmtest.String(273, digest.Sum(digest.SHA256, header).Hex())), header))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := source.Prove(p, &keys, keyring.Policy{}); !errors.Is(err, c.want) {
			t.Errorf("SHA-1 %s: %v, want %v", c.sha1, err, c.want)
		}
	}
}
