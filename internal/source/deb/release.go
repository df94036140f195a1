package deb

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"diglim/internal/digest"
	"diglim/internal/keyring"
	"diglim/internal/unpack"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

// maxRelease is the limit on a Release file in bytes; Debian's has 150 KiB.
const maxRelease = 32 << 20

// A Release is what a suite says of itself.
type Release struct {
	Origin, Label, Suite, Codename, Version string

	Date          time.Time // zero if it does not say
	ValidUntil    time.Time // zero if it does not end
	Components    []string
	Architectures []string

	byHash      bool // indices are also there under names that do not change
	allSeparate bool // packages for all architectures are in no other's index
	indices     map[string]index
}

// index is a file that a Release vouches for.
type index struct {
	size   int64 // bytes
	sha256 digest.Digest
}

// parseRelease reads a Release file.
func parseRelease(b []byte) (Release, error) {
	r := Release{allSeparate: true, indices: make(map[string]index)}
	seen := make(map[string]bool)
	ended := false
	for l, err := range lines(bytes.NewReader(b)) {
		if err != nil {
			return Release{}, err
		}
		if l.field == "" {
			ended = ended || len(seen) > 0
			continue
		}
		if ended {
			return Release{}, fmt.Errorf("line %d: a second stanza", l.number)
		}
		if !l.continues {
			if seen[l.field] {
				return Release{}, fmt.Errorf("line %d: %s %w", l.number, l.field, errTwice)
			}
			seen[l.field] = true
		}
		if err := r.set(l); err != nil {
			return Release{}, fmt.Errorf("line %d: %s: %w", l.number, l.field, err)
		}
	}
	if !seen["sha256"] {
		return Release{}, errors.New("no SHA256 of anything")
	}
	if !slices.Contains(r.Architectures, "all") {
		r.allSeparate = false
	}
	return r, nil
}

func (r *Release) set(l line) (err error) {
	if l.continues != (l.field == "sha256") {
		return nil // of all other fields the first line counts, of that one the rest
	}
	switch l.field {
	case "origin":
		r.Origin = l.value()
	case "label":
		r.Label = l.value()
	case "suite":
		r.Suite = l.value()
	case "codename":
		r.Codename = l.value()
	case "version":
		r.Version = l.value()
	case "date":
		r.Date, err = parseTime(l.value())
	case "valid-until":
		r.ValidUntil, err = parseTime(l.value())
	case "components":
		r.Components = strings.Fields(l.value())
	case "architectures":
		r.Architectures = strings.Fields(l.value())
	case "acquire-by-hash":
		r.byHash = l.value() == "yes"
	case "no-support-for-architecture-all":
		r.allSeparate = !slices.Contains(strings.Fields(l.value()), "Packages")
	case "sha256":
		return r.addIndex(l.value())
	}
	return err
}

// addIndex takes over "DIGEST SIZE PATH", if it is an index of packages.
func (r *Release) addIndex(s string) error {
	fields := strings.Fields(s)
	if len(fields) != 3 {
		return fmt.Errorf("%.128q is not DIGEST SIZE PATH", s)
	}
	name, err := unpack.Path(fields[2])
	if err != nil {
		return err
	}
	if base, _, _ := strings.Cut(path.Base(name), "."); base != "Packages" {
		return nil
	}
	d, err := digest.FromHex(digest.SHA256, []byte(fields[0]))
	if err != nil {
		return err
	}
	size, err := strconv.ParseUint(fields[1], 10, 63)
	if err != nil {
		return fmt.Errorf("size %.32q is not a number", fields[1])
	}
	i := index{int64(size), d}
	if other, there := r.indices[name[1:]]; there && other != i {
		return fmt.Errorf("%q %w, and different", name[1:], errTwice)
	}
	r.indices[name[1:]] = i
	return nil
}

// parseTime reads a time as RFC 5322 has it, which is in UTC.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{"Mon, _2 Jan 2006 15:04:05 UTC", "Mon, _2 Jan 2006 15:04:05 GMT", "Mon, _2 Jan 2006 15:04:05 -0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%.64q is not a time as in %q", s, "Sat, 10 Feb 2024 11:07:25 UTC")
}

// verifyInRelease proves a cleartext message and returns what is signed of it.
// Nothing may stand before or behind that: somebody could take it for signed.
func verifyInRelease(b []byte, keys *keyring.Keyring, policy keyring.Policy) ([]byte, keyring.Signer, error) {
	block, after := clearsign.Decode(b)
	if block == nil || !bytes.HasPrefix(b, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) || block.ArmoredSignature.Type != "PGP SIGNATURE" {
		return nil, keyring.Signer{}, fmt.Errorf("%w: not a cleartext message", keyring.ErrMalformed)
	}
	if len(bytes.TrimSpace(after)) > 0 {
		return nil, keyring.Signer{}, fmt.Errorf("%w: %d bytes behind the signed message", keyring.ErrMalformed, len(after))
	}
	signer, err := keyring.OneOf(block.ArmoredSignature.Body, func(sig []byte) (keyring.Signer, error) {
		return keys.VerifyText(block.Bytes, sig, policy)
	})
	return block.Plaintext, signer, err
}
