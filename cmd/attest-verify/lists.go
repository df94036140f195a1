package main

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/keyring"
	"diglim/internal/modsig"
	"diglim/internal/policy"
	"diglim/rpmhdr"
)

var errUnsigned = errors.New("not signed")

// lists is what was made of a directory of digest lists.
type lists struct {
	Accepted int           `json:"accepted"`
	Unsigned int           `json:"unsigned"` // of those accepted, only because the user said so
	Weak     int           `json:"weak"`     // of those accepted, only because the user said so
	Refused  []refusedList `json:"refused"`

	known  policy.Files
	verity policy.Files // fs-verity digests, which are none of files
}

// imaHashes are the algorithms that IMA may digest files by, of those that
// nobody has broken.
var imaHashes = [...]digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512}

type refusedList struct {
	List  string `json:"list"`
	Error string `json:"error"`
}

// trust says which lists to believe.
type trust struct {
	keys          *keyring.Keyring
	allowUnsigned bool
	allowWeak     bool
}

// loadLists reads the digest lists of directories, each in the order of their
// names. A list that is not believed makes no file known, and does not keep
// the others from it.
func loadLists(t trust, dirs ...string) (*lists, error) {
	l := &lists{Refused: []refusedList{}}
	for _, dir := range dirs {
		names, err := digestlist.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if err := l.add(dir, name, t); err != nil {
				l.Refused = append(l.Refused, refusedList{name, err.Error()})
				continue
			}
			l.Accepted++
		}
	}
	return l, nil
}

func (l *lists) add(dir, name string, t trust) error {
	b, format, err := digestlist.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	if format == digestlist.FormatRPM {
		err = l.addRPM(name, b, t)
	} else {
		err = l.addBare(name, format, b, t)
	}
	if err != nil {
		return err
	}
	// Nobody but the list itself says what it hashes to, in whichever algorithm
	// IMA uses.
	for _, form := range forms(format, b) {
		for _, alg := range imaHashes {
			l.known.Add(digest.Sum(alg, form), policy.Source{List: name})
		}
	}
	return nil
}

// forms are what IMA measures of a list on a host that uploads it: the file, for
// the uploader reads it; without its signature, where a kernel takes the file;
// what DIGLIM is told instead; and the compact lists that diglim-gen makes of an
// rpm list, for kernels that read no other.
func forms(format digestlist.Format, b []byte) [][]byte {
	all := [][]byte{b}
	if list, _, err := modsig.Split(b); err == nil && len(list) > 0 {
		all = append(all, list)
	}
	uploads, err := digestlist.Uploads(format, b)
	if err != nil {
		return all // a list of another dialect, that DIGLIM takes no part of
	}
	add := func(d digestlist.Dialect, blocks []digestlist.Block) {
		// An error is of digests that the dialect has no number for.
		form, err := digestlist.AppendCompact(nil, d, digestlist.LittleEndian, blocks)
		if err == nil && !slices.ContainsFunc(all, func(have []byte) bool { return bytes.Equal(have, form) }) {
			all = append(all, form)
		}
	}
	for _, blocks := range uploads {
		add(digestlist.V3, blocks)
	}
	if format == digestlist.FormatRPM {
		add(digestlist.V3, slices.Concat(uploads...))
		add(digestlist.OpenEuler, slices.Concat(uploads...))
	}
	return all
}

func (l *lists) addRPM(name string, b []byte, t trust) error {
	list, err := digestlist.ParseRPM(b)
	if err != nil {
		return err
	}
	nevra, err := list.Header.NEVRA()
	if err != nil {
		return err
	}
	var signer keyring.Signer
	switch {
	case list.Signature != nil:
		signer, err = t.keys.Verify(list.Header.Signed(), list.Signature, keyring.Policy{AllowWeak: t.allowWeak})
		if err != nil {
			return err
		}
	case !t.allowUnsigned:
		return errUnsigned
	}
	var files []rpmhdr.File // all of them or, if one is bad, none
	for f, err := range list.Header.Files() {
		if err != nil {
			return err
		}
		if digestlist.Listed(f) {
			files = append(files, f)
		}
	}
	for _, f := range files {
		l.known.Add(f.Digest, policy.Source{Package: nevra.String(), List: name, Path: f.Path(), Signer: signer.UserID})
	}
	if list.Signature == nil {
		l.Unsigned++
	}
	if signer.Weak {
		l.Weak++
	}
	return nil
}

// addBare takes a compact or tlv list, which carries no signature of a vendor.
func (l *lists) addBare(name string, format digestlist.Format, b []byte, t trust) error {
	b, _, err := modsig.Split(b)
	if err != nil && !errors.Is(err, modsig.ErrNone) {
		return err
	}
	source := policy.Source{List: name}
	dialect := digestlist.V3
	if n, of, err := digestlist.KnownName(name); err == nil {
		source.Package = n.Label
		if of == digestlist.InterfaceBPF {
			dialect = digestlist.BPF
		}
	}
	var files, verity []digestlist.TLVEntry
	if format == digestlist.FormatTLV {
		list, err := digestlist.ParseTLV(b)
		if err != nil {
			return err
		}
		files = list.Entries
	} else {
		blocks, err := digestlist.ParseCompact(dialect, digestlist.LittleEndian, b)
		if err != nil {
			return err
		}
		for _, block := range blocks {
			to := &files
			switch block.Type {
			case digestlist.Metadata:
				continue // of what a file is called and may do, not of what is in it
			case digestlist.Verity:
				to = &verity
			}
			for _, d := range block.Digests {
				*to = append(*to, digestlist.TLVEntry{Digest: d})
			}
		}
	}
	if !t.allowUnsigned {
		return fmt.Errorf("%w: a %s list carries no signature of a vendor", errUnsigned, format)
	}
	for _, v := range verity {
		l.verity.Add(v.Digest, source)
	}
	for _, f := range files {
		source.Path = f.Path
		l.known.Add(f.Digest, source)
	}
	l.Unsigned++
	return nil
}
