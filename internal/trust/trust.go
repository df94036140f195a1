// Package trust proves digest lists with the keys of a directory, where no
// kernel does it: rpm lists by OpenPGP, compact and tlv lists by the signature
// that scripts/sign-file appends.
package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"
	"diglim/internal/keyring"
	"diglim/internal/modsig"
)

// maxKeyFile is the limit on a file of keys in bytes, maxCertificates that on
// what is taken of all files.
const (
	maxKeyFile      = 16 << 20
	maxCertificates = 1000
)

// The ways in which a list can fail to prove, beside those of keyring.Verify.
// Test with errors.Is.
var (
	ErrUnsigned       = errors.New("not signed")
	ErrMalformed      = errors.New("malformed PKCS#7 signature")
	ErrUnknownCert    = errors.New("signed by an unknown certificate")
	ErrNotMatching    = errors.New("PKCS#7 signature does not match")
	errWrongSignature = errors.New("the appended signature is of another kind")
)

// A Ring is the keys of a directory. It is safe for concurrent use. The zero
// Ring trusts nothing.
type Ring struct {
	keys   keyring.Keyring
	certs  []certificate
	files  [][sha256.Size]byte // digests of those that hold a key
	anchor [sha256.Size]byte

	// Skipped says which files hold no key that can be used, and why.
	Skipped []error
}

// Load reads all files below a directory: OpenPGP keys, armored or binary, and
// X.509 certificates, PEM or DER. A directory that is not there is the error
// fs.ErrNotExist; one without keys is none, and trusts nothing.
//
// seen is given the content of each file before it is read for keys, with its
// path below the directory, in the order of fs.WalkDir; its error ends it all.
//
// Certificates are trusted as they stand, as those in a kernel's keyring are:
// neither their issuers nor their dates are looked at.
func Load(dir string, seen func(name string, data []byte) error) (*Ring, error) {
	r := &Ring{}
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	// With a separator behind it a link to a directory is followed.
	err := filepath.WalkDir(dir+string(filepath.Separator), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := readKeys(name)
		if err == nil {
			if err := seen(below(dir, name), data); err != nil {
				return err
			}
			err = r.add(name, data)
		}
		if err != nil {
			r.Skipped = append(r.Skipped, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.Skipped = append(r.Skipped, r.keys.Skipped...)
	r.seal()
	return r, nil
}

// below returns the path below a directory of what was found there.
func below(dir, name string) string {
	return strings.TrimPrefix(name, filepath.Clean(dir)+string(filepath.Separator))
}

func readKeys(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for a writer
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("%s: more than %d bytes", name, maxKeyFile)
	}
	return data, err
}

// add adds what is in a file: certificates if it has the label of one or begins
// with a DER sequence, which no OpenPGP packet does, and OpenPGP keys otherwise.
func (r *Ring) add(name string, data []byte) error {
	const sequence = 0x30
	var certs []certificate
	switch {
	case bytes.Contains(data, []byte("-----BEGIN CERTIFICATE-----")):
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "CERTIFICATE" {
				continue
			}
			c, err := parseCertificate(block.Bytes)
			if err != nil {
				return fmt.Errorf("%s: certificate %d: %w", name, len(certs), err)
			}
			certs = append(certs, c)
		}
		if len(certs) == 0 {
			return fmt.Errorf("%s: damaged PEM", name)
		}
	case len(data) > 0 && data[0] == sequence:
		c, err := parseCertificate(data)
		if err != nil {
			return fmt.Errorf("%s: certificate: %w", name, err)
		}
		certs = append(certs, c)
	default:
		if err := r.keys.Add(name, data); err != nil {
			return err
		}
	}
	if len(r.certs)+len(certs) > maxCertificates {
		return fmt.Errorf("%s: more than %d certificates", name, maxCertificates)
	}
	r.certs = append(r.certs, certs...)
	r.files = append(r.files, sha256.Sum256(data))
	return nil
}

// seal makes the anchor.
func (r *Ring) seal() {
	slices.SortFunc(r.files, func(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) })
	r.files = slices.Compact(r.files)
	if len(r.files) == 0 {
		return
	}
	h := sha256.New()
	for _, sum := range r.files {
		h.Write(sum[:])
	}
	h.Sum(r.anchor[:0])
}

// Anchor names the keys: SHA-256 over the sorted SHA-256 digests of the files
// that hold one, each file once. It is zero of a Ring without any.
func (r *Ring) Anchor() [sha256.Size]byte { return r.anchor }

// Empty reports whether the Ring trusts nothing.
func (r *Ring) Empty() bool { return len(r.files) == 0 }

// An Entry is a digest that a list vouches for.
type Entry struct {
	Kind   set.Kind
	Digest digest.Digest
}

// Prove appends the digests of a list to entries if a key of the Ring vouches
// for the list, and otherwise returns entries as they are and why. Of a compact
// list without a signature only those can be had that somebody else vouches
// for: from the image that the boot loader loaded, as kernel.InInitramfs tells.
//
// Digests of metadata are left out.
func (r *Ring) Prove(entries []Entry, file []byte, format digestlist.Format, initramfs bool) ([]Entry, error) {
	if format == digestlist.FormatRPM {
		return r.proveRPM(entries, file)
	}
	payload, sig, err := modsig.Split(file)
	switch {
	case errors.Is(err, modsig.ErrNone) && initramfs && format == digestlist.FormatCompact:
	case errors.Is(err, modsig.ErrNone):
		return entries, ErrUnsigned
	case err != nil:
		return entries, err
	case sig.Type != modsig.PKCS7:
		return entries, errWrongSignature
	default:
		if err := verifyPKCS7(payload, sig.Bytes, r.certs); err != nil {
			return entries, err
		}
	}
	switch format {
	case digestlist.FormatCompact:
		blocks, err := parseCompact(payload)
		if err != nil {
			return entries, err
		}
		for _, b := range blocks {
			kind, ok := kinds[b.Type]
			if !ok {
				continue
			}
			for _, d := range b.Digests {
				entries = append(entries, Entry{kind, d})
			}
		}
		return entries, nil
	case digestlist.FormatTLV:
		list, err := digestlist.ParseTLV(payload)
		if err != nil {
			return entries, err
		}
		for _, e := range list.Entries {
			entries = append(entries, Entry{set.Content, e.Digest})
		}
		return entries, nil
	}
	return entries, fmt.Errorf("format %q cannot be uploaded", format)
}

// kinds are what the gate asks for. It does not ask for metadata.
var kinds = map[digestlist.Type]set.Kind{digestlist.File: set.Content, digestlist.Parser: set.Parser, digestlist.Verity: set.Verity}

// parseCompact reads a list of dialect v3 or bpf: what both have a number for
// has the same in both.
func parseCompact(payload []byte) ([]digestlist.Block, error) {
	blocks, err := digestlist.ParseCompact(digestlist.V3, digestlist.LittleEndian, payload)
	if err != nil {
		if blocks, err := digestlist.ParseCompact(digestlist.BPF, digestlist.LittleEndian, payload); err == nil {
			return blocks, nil
		}
	}
	return blocks, err
}

func (r *Ring) proveRPM(entries []Entry, file []byte) ([]Entry, error) {
	list, err := digestlist.ParseRPM(file)
	if err != nil {
		return entries, err
	}
	if list.Signature == nil {
		return entries, ErrUnsigned
	}
	if _, err := r.keys.Verify(list.Header.Signed(), list.Signature, keyring.Policy{}); err != nil {
		return entries, err
	}
	n := len(entries)
	for f, err := range list.Header.Files() {
		if err != nil {
			return entries[:n], err
		}
		if digestlist.Listed(f) {
			entries = append(entries, Entry{set.Content, f.Digest})
		}
	}
	return entries, nil
}
