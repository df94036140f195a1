package imalog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// formats are the templates that have a name (ima_template.c,
// builtin_templates). One that has none is called by its format.
var formats = map[string]string{
	"ima":        "d|n",
	"ima-ng":     "d-ng|n-ng",
	"ima-ngv2":   "d-ngv2|n-ng",
	"ima-sig":    "d-ng|n-ng|sig",
	"ima-sigv2":  "d-ngv2|n-ng|sig",
	"ima-buf":    "d-ng|n-ng|buf",
	"ima-modsig": "d-ng|n-ng|sig|d-modsig|modsig",
	"evm-sig":    "d-ng|n-ng|evmsig|xattrnames|xattrlengths|xattrvalues|iuid|igid|imode",
}

// maxFields is the kernel's TEMPLATE_NUM_FIELDS_MAX.
const maxFields = 15

// A field reads what one field of a template says into an entry. It is a
// 32-bit length and as many bytes (ima_template_lib.c).
type field func(*Entry, *wire.Reader)

// fieldsOf are the fields by their identifiers (ima_template.c,
// supported_fields).
var fieldsOf = map[string]field{
	"d":            readD,
	"d-ng":         readDNG,
	"d-ngv2":       readDNGv2,
	"d-modsig":     readDModsig,
	"n":            func(e *Entry, r *wire.Reader) { readName(e, r, legacyName+1) },
	"n-ng":         func(e *Entry, r *wire.Reader) { readName(e, r, MaxPath) },
	"sig":          func(e *Entry, r *wire.Reader) { e.Signature = r.Bytes(r.Count("bytes of signature", MaxSignature)) },
	"modsig":       func(e *Entry, r *wire.Reader) { e.Appended = r.Bytes(r.Count("bytes of appended signature", MaxData)) },
	"buf":          func(e *Entry, r *wire.Reader) { e.Buffer = r.Bytes(r.Count("bytes of buffer", MaxData)) },
	"evmsig":       func(e *Entry, r *wire.Reader) { e.EVM = r.Bytes(r.Count("bytes of EVM signature", MaxSignature)) },
	"xattrnames":   func(e *Entry, r *wire.Reader) { e.XattrNames = r.Bytes(r.Count("bytes of attribute names", MaxData)) },
	"xattrlengths": readXattrLengths,
	"xattrvalues":  func(e *Entry, r *wire.Reader) { e.XattrValues = r.Bytes(r.Count("bytes of attribute values", MaxData)) },
	"iuid":         func(e *Entry, r *wire.Reader) { e.UID = readID(r) },
	"igid":         func(e *Entry, r *wire.Reader) { e.GID = readID(r) },
	"imode":        readMode,
}

// families are the fields of which a template that is understood has one at
// most: with two digests or two names nobody can say which is the file's.
var families = map[string]string{"d-ng": "d", "d-ngv2": "d", "n-ng": "n"}

// identifiers are those of the fields of a template.
func identifiers(template string) []string {
	format, ok := formats[template]
	if !ok {
		format = template
	}
	return strings.Split(format, "|")
}

// grammar returns the fields of a template, and whether it is understood. The
// data of one that is not has a length all the same.
func grammar(template string) ([]field, bool) {
	ids := identifiers(template)
	if len(ids) > maxFields {
		return nil, false
	}
	var fields []field
	var seen []string
	for _, id := range ids {
		family := id
		if f, ok := families[id]; ok {
			family = f
		}
		read, ok := fieldsOf[id]
		if !ok || slices.Contains(seen, family) {
			return nil, false
		}
		seen = append(seen, family)
		fields = append(fields, read)
	}
	return fields, true
}

// readD reads a d field: a digest without its algorithm, which is SHA-1 or, by
// its size, MD5 (ima_eventdigest_init allows no other).
func readD(e *Entry, r *wire.Reader) {
	at := r.Offset()
	value := r.Bytes(r.Count("bytes of digest", digest.SHA1.Size()))
	if r.Err() != nil {
		return
	}
	alg := digest.SHA1
	if len(value) == digest.MD5.Size() {
		alg = digest.MD5
	}
	take(r, at, alg, value, &e.Digest)
}

// readDNG reads a d-ng field: "sha256:", NUL, digest.
func readDNG(e *Entry, r *wire.Reader) {
	at := r.Offset()
	tagged(r, at, r.Bytes(r.Count("bytes of digest", MaxAlgorithm+digest.MaxSize)), &e.Digest)
}

// readDNGv2 reads a d-ngv2 field: "ima:" or "verity:", then as d-ng.
func readDNGv2(e *Entry, r *wire.Reader) {
	at := r.Offset()
	kind, field, _ := bytes.Cut(r.Bytes(r.Count("bytes of digest", MaxAlgorithm+digest.MaxSize)), []byte(":"))
	e.Verity = string(kind) == "verity"
	if !e.Verity && string(kind) != "ima" {
		r.FailAt(at, errors.New("digest that is neither ima nor verity"))
	}
	tagged(r, at, field, &e.Digest)
}

// readDModsig reads a d-modsig field: as d-ng, and empty for a file without an
// appended signature.
func readDModsig(e *Entry, r *wire.Reader) {
	at := r.Offset()
	if field := r.Bytes(r.Count("bytes of digest", MaxAlgorithm+digest.MaxSize)); len(field) > 0 {
		tagged(r, at, field, &e.Unsigned)
	}
}

// tagged takes "sha256:", NUL, digest out of a field that began at offset at.
func tagged(r *wire.Reader, at int64, field []byte, to *digest.Digest) {
	if r.Err() != nil {
		return
	}
	const usual = "sha256:\x00"
	if len(field) >= len(usual) && string(field[:len(usual)]) == usual {
		take(r, at, digest.SHA256, field[len(usual):], to)
		return
	}
	i := bytes.IndexByte(field, ':')
	if i < 0 || i+1 == len(field) || field[i+1] != 0 {
		r.FailAt(at, errors.New("digest without the name of its algorithm"))
		return
	}
	alg, err := algorithm(field[:i])
	if err != nil {
		r.FailAt(at, err)
		return
	}
	take(r, at, alg, field[i+2:], to)
}

func take(r *wire.Reader, at int64, alg digest.Algorithm, value []byte, to *digest.Digest) {
	if err := to.Set(alg, value); err != nil {
		r.FailAt(at, err)
	}
}

// algorithm is digest.ByName without a string made for the other usual name.
func algorithm(name []byte) (digest.Algorithm, error) {
	if string(name) == "sha1" {
		return digest.SHA1, nil
	}
	return digest.ByName(string(name))
}

// readName reads a name with the NUL at its end.
func readName(e *Entry, r *wire.Reader, limit int) {
	at := r.Offset()
	name := r.Bytes(r.Count("bytes of path", limit))
	if r.Err() != nil {
		return
	}
	i := bytes.IndexByte(name, 0)
	if i < 1 || i != len(name)-1 {
		r.FailAt(at, errors.New("path is empty, or without the one NUL at its end"))
		return
	}
	e.Path = name[:i:i]
}

func readXattrLengths(e *Entry, r *wire.Reader) {
	at := r.Offset()
	n := r.Count("bytes of attribute lengths", MaxData)
	if n%4 != 0 {
		r.FailAt(at, fmt.Errorf("attribute lengths of %d bytes, which is no multiple of 4", n))
	}
	list := r.Sub("", n)
	for list.Len() > 0 {
		e.XattrSizes = append(e.XattrSizes, list.U32())
	}
}

// readID reads a user or group number, which older kernels wrote in 2 bytes.
func readID(r *wire.Reader) uint32 {
	at := r.Offset()
	switch n := r.Count("bytes of an id", 4); n {
	case 2:
		return uint32(r.U16())
	case 4:
		return r.U32()
	default:
		r.FailAt(at, fmt.Errorf("id of %d bytes, neither 2 nor 4", n))
		return 0
	}
}

func readMode(e *Entry, r *wire.Reader) {
	at := r.Offset()
	if n := r.Count("bytes of a mode", 2); n != 2 {
		r.FailAt(at, fmt.Errorf("mode of %d bytes, must be 2", n))
	}
	e.Mode = r.U16()
}
