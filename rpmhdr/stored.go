package rpmhdr

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"diglim/internal/wire"
)

// ErrKey says that an entry of an rpm database is an OpenPGP key that somebody
// imported. rpm keeps those among the packages, under the name gpg-pubkey.
var ErrKey = errors.New("a public key, not a package")

// MaxStored is the limit on a stored header in bytes.
const MaxStored = storedIntro + MaxEntries*entrySize + MaxData

// storedIntro is what stands before the index of a stored header: the number
// of entries and the size of the data store.
const storedIntro = 8

// keyName is the name of the entries that are keys.
const keyName = "gpg-pubkey"

// Tags of stored headers that packages do not have.
const (
	tagSigPGP      Tag = 259  // sigPGP, merged
	tagSigGPG      Tag = 262  // sigGPG, merged
	tagPubkeys     Tag = 266  // of a key: it, base64
	tagDescription Tag = 1005 // of a key: it, armored
)

// merged says what the entries of a signature header are that rpm merged into
// the main one, as far as this package reads them (rpm's lib/package.c,
// headerMergeLegacySigs).
func merged(t Tag) (Tag, bool) {
	switch t {
	case sigDSA, sigRSA, sigSHA1, sigSHA256, sigOpenPGP, sigSHA3_256:
		return t, true
	case tagSigPGP:
		return sigPGP, true
	case tagSigGPG:
		return sigGPG, true
	}
	return 0, false
}

// ParseStored reads a header as an rpm database stores it, and makes of it what
// it was in the package: Header is the immutable region and nothing else,
// Signatures is what is left of the signature header. A header digest is
// checked, as ParsePackage does. The error of an entry that is a key is ErrKey.
//
// When rpm installs a package it adds entries to the header: the signatures,
// the time, the states of files. They stand behind those of the region, and so
// does their data, so the region's offsets hold as they are. Nothing vouches
// for them: they can add a signature, and never replace what the region says.
//
// Signatures aliases b, and its Signed is empty. Header is a copy.
func ParseStored(b []byte) (Package, error) {
	p, _, err := readStored(b)
	return p, err
}

// StoredKeys returns the OpenPGP keys of an entry of an rpm database, armored
// or binary, and none of a package.
func StoredKeys(b []byte) ([][]byte, error) {
	_, keys, err := readStored(b)
	if errors.Is(err, ErrKey) {
		return storedKeys(keys)
	}
	return nil, err
}

// readStored reads a stored header. Where the error is ErrKey it returns the
// header that has the key.
func readStored(b []byte) (Package, Header, error) {
	const record = "stored rpm header"
	r := wire.New(record, binary.BigEndian, b)
	il := r.Count("index entries", MaxEntries)
	dl := r.Count("bytes of data", MaxData)
	h := Header{index: r.Bytes(il * entrySize), data: r.Bytes(dl)}
	if err := r.Finish(); err != nil {
		return Package{}, Header{}, err
	}
	fail := func(err error) (Package, Header, error) {
		return Package{}, Header{}, &wire.Error{Record: record, Offset: storedIntro, Err: err}
	}
	if il == 0 {
		return fail(errors.New("no entries"))
	}
	if e := h.entry(0); e.tag != tagHeaderImmutable {
		// rpm 4.0 stored keys like that
		key, err := h.pick(0, func(t Tag) (Tag, bool) { return t, t == tagName || t == tagPubkeys || t == tagDescription })
		if name, _ := key.text(tagName); err == nil && string(name) == keyName {
			return Package{}, key, ErrKey
		}
		return fail(fmt.Errorf("no immutable region: the first entry is tag %d", e.tag))
	}
	var p Package
	region, err := h.region()
	if err != nil {
		return fail(err)
	}
	p.Header, err = parse("region of stored rpm header", region, 0, tagHeaderImmutable)
	if err != nil {
		return Package{}, Header{}, err
	}
	if p.Signatures, err = h.pick(p.Header.entries(), merged); err != nil {
		return fail(err)
	}
	if err := p.checkDigest(); err != nil {
		return Package{}, Header{}, err
	}
	name, err := p.Header.text(tagName)
	if err != nil {
		return Package{}, Header{}, fmt.Errorf("rpm header: %w", err)
	}
	if string(name) == keyName && !p.signed() {
		return Package{}, p.Header, ErrKey
	}
	return p, Header{}, nil
}

// region returns the header that the immutable region of a stored one was: with
// magic, and without what stands behind it. How much that is only the region
// knows: its entry points at its trailer, which ends it, and says how long its
// index is. The rest of it is for parse to check.
func (h Header) region() ([]byte, error) {
	at := int64(h.entry(0).offset)
	if at+entrySize > int64(len(h.data)) {
		return nil, fmt.Errorf("region trailer at %d, the data ends at %d", at, len(h.data))
	}
	data := h.data[:at+entrySize]
	trailer := Header{index: data[at:]}.entry(0)
	n := -int64(int32(trailer.offset))
	if n < entrySize || n > int64(len(h.index)) || n%entrySize != 0 {
		return nil, fmt.Errorf("the region trailer speaks of %d bytes of index, there are %d", n, len(h.index))
	}
	index := h.index[:n]
	b := make([]byte, 0, introSize+len(index)+len(data))
	b = append(b, headerMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(index)/entrySize))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	b = append(b, index...)
	return append(b, data...), nil
}

// pick returns a header of the entries from the given one on that are wanted,
// by the tags that they are wanted under. Only those are checked.
func (h Header) pick(from int, wanted func(Tag) (Tag, bool)) (Header, error) {
	picked := Header{data: h.data}
	for i := from; i < h.entries(); i++ {
		e := h.entry(i)
		tag, ok := wanted(e.tag)
		if !ok {
			continue
		}
		if _, twice := picked.find(tag); twice {
			return Header{}, fmt.Errorf("tag %d twice", e.tag)
		}
		if e.count == 0 || e.count > MaxData || int64(e.offset) > int64(len(h.data)) {
			return Header{}, fmt.Errorf("tag %d: count %d, data at %d", e.tag, e.count, int32(e.offset))
		}
		if err := checkData(e, h.data[e.offset:]); err != nil {
			return Header{}, fmt.Errorf("tag %d: %w", e.tag, err)
		}
		picked.index = binary.BigEndian.AppendUint32(picked.index, uint32(tag))
		picked.index = append(picked.index, h.index[i*entrySize+4:(i+1)*entrySize]...)
	}
	return picked, nil
}

// signed reports whether there is a signature of any kind, good or bad.
func (p Package) signed() bool {
	for _, tag := range []Tag{sigOpenPGP, sigRSA, sigDSA, sigPGP, sigGPG} {
		if _, ok := p.Signatures.find(tag); ok {
			return true
		}
	}
	return false
}

// storedKeys returns the keys in the header of an entry that is a key. The
// armored text is the whole key; what stands in its stead where it is missing
// can have more than one.
func storedKeys(h Header) ([][]byte, error) {
	if e, ok := h.find(tagDescription); ok && (e.typ == typeString || e.typ == typeI18NString) {
		first := strings{h.data[e.offset:], 1}
		return [][]byte{first.next()}, nil
	}
	texts, err := h.texts(tagPubkeys)
	if err != nil {
		return nil, fmt.Errorf("rpm header: %w", err)
	}
	if texts.n == 0 || texts.n > maxSignatures {
		return nil, fmt.Errorf("rpm header: tag %d: %d keys", tagPubkeys, texts.n)
	}
	var keys [][]byte
	for texts.n > 0 {
		key, err := base64.StdEncoding.AppendDecode(nil, texts.next())
		if err != nil {
			return nil, fmt.Errorf("rpm header: tag %d: %w", tagPubkeys, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}
