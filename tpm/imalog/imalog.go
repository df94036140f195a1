// Package imalog reads the measurement log of Linux IMA in its binary form
// (securityfs ima/binary_runtime_measurements) and replays it.
//
// The format is that of ima_measurements_show in the kernel's
// security/integrity/ima/ima_fs.c, integers in little-endian order:
//
//	u32 PCR | template hash | u32 length, template name | u32 length, template data
//
// The template "ima" of old has no length in front of its data: a 20-byte
// digest, a 32-bit length and a name.
//
// The template hash is SHA-1 in the log everybody knows; kernels since 6.10
// offer one log a bank, with that bank's hash. Nothing in the file says which:
// it follows from where the first entry's template name starts.
package imalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// Limits on what an entry may contain, in bytes.
const (
	MaxTemplate  = 255     // template name or format
	MaxData      = 1 << 20 // template data
	MaxAlgorithm = 16      // hash algorithm name in a d-ng field, with ":" and NUL
	MaxPath      = 4096    // PATH_MAX, with NUL
	MaxSignature = 1 << 16 // security.ima is an extended attribute: XATTR_SIZE_MAX
	maxPCR       = 23
)

// Sizes of the template "ima". Its hash is over the digest and the name filled
// up with zeros to one byte more (IMA_EVENT_NAME_LEN_MAX in ima.h).
const (
	legacyDigest = 20
	legacyName   = 255
)

// An Entry is one measurement. Its slices alias the log.
type Entry struct {
	Number    int   // counts from 1
	Offset    int64 // of the entry in the log
	PCR       int   // that the entry claims to have extended
	Hash      digest.Digest
	Template  string
	Data      []byte // what Hash is the hash of; for template "ima" not as it stands in the log
	Violation bool   // Hash is all zeros: the PCR was extended with all ones

	// The fields of the data, for the templates ima-ng and ima-sig.
	Known     bool          // whether Template is one of them
	Digest    digest.Digest // of the file
	Path      []byte        // without its NUL; any other byte may occur
	Signature []byte        // value of security.ima; empty if none
}

// Authentic reports whether Hash is the hash of Data. In a violation it is
// not: no PCR covers a violation's data.
func (e *Entry) Authentic() bool {
	return !e.Violation && digest.Sum(e.Hash.Algorithm(), e.Data) == e.Hash
}

// Entries yields the entries of a log in order. An error ends it; it is a
// *wire.Error that says which entry, and where. An empty log has no entries
// and no error.
//
// The entry yielded is reused for the next one.
func Entries(log []byte) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		if len(log) == 0 {
			return
		}
		r := wire.New("entry 1", binary.LittleEndian, log)
		alg, err := hashOf(log)
		if err != nil {
			r.Fail(err)
			yield(nil, r.Err())
			return
		}
		p := parser{r: r, alg: alg}
		for r.Len() > 0 {
			p.next()
			if r.Err() != nil {
				yield(nil, p.located(r.Err()))
				return
			}
			if !yield(&p.entry, nil) {
				return
			}
		}
	}
}

// hashOf finds the template hash's algorithm: the one after which the first
// entry goes on with a length and a name of that many printable characters.
func hashOf(log []byte) (digest.Algorithm, error) {
	for _, alg := range []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512} {
		r := wire.New("", binary.LittleEndian, log)
		r.Bytes(4 + alg.Size())
		name := r.Bytes(r.Count("characters", MaxTemplate))
		if len(name) > 0 && printable(name) {
			return alg, nil
		}
	}
	return 0, errors.New("not an IMA log: no template name after the hash")
}

func printable(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

type parser struct {
	r     *wire.Reader
	alg   digest.Algorithm
	entry Entry
}

// located puts the entry's number into an error.
func (p *parser) located(err error) error {
	var at *wire.Error
	if !errors.As(err, &at) {
		return err
	}
	return &wire.Error{Record: fmt.Sprintf("entry %d", p.entry.Number), Offset: at.Offset, Err: at.Err}
}

func (p *parser) next() {
	r := p.r
	e := &p.entry
	*e = Entry{Number: e.Number + 1, Offset: r.Offset()}
	pcr := r.U32()
	if pcr > maxPCR {
		r.FailAt(e.Offset, fmt.Errorf("PCR %d, the last is %d", pcr, maxPCR))
	}
	e.PCR = int(pcr)
	hash := r.Bytes(p.alg.Size())
	e.Violation = zero(hash)
	at := r.Offset()
	name := r.Bytes(r.Count("bytes of template name", MaxTemplate))
	if r.Err() != nil {
		return
	}
	e.Hash, _ = digest.New(p.alg, hash) // of the right size, just read
	switch string(name) {
	case "ima-ng":
		e.Template, e.Known = "ima-ng", true
	case "ima-sig":
		e.Template, e.Known = "ima-sig", true
	case "ima":
		e.Template = "ima"
		e.Data = make([]byte, legacyDigest+legacyName+1)
		copy(e.Data, r.Bytes(legacyDigest))
		copy(e.Data[legacyDigest:], r.Bytes(r.Count("bytes of name", legacyName)))
		return
	default:
		if len(name) == 0 || !printable(name) {
			r.FailAt(at, fmt.Errorf("bad template name %q", name))
			return
		}
		e.Template = string(name)
	}
	n := r.Count("bytes of template data", MaxData)
	start := r.Offset()
	e.Data = r.Bytes(n)
	if r.Err() != nil || !e.Known {
		return
	}
	p.fields(start)
}

// fields reads template data, d-ng | n-ng and for ima-sig | sig, each with a
// 32-bit length in front (ima_template_lib.c). The cursor of the log takes the
// error.
func (p *parser) fields(start int64) {
	e, r := &p.entry, p.r
	f := wire.New("", binary.LittleEndian, e.Data).At(start)
	e.Digest = fileDigest(f, f.Bytes(f.Count("bytes of digest", MaxAlgorithm+digest.MaxSize)))
	at := f.Offset()
	path := f.Bytes(f.Count("bytes of path", MaxPath))
	if f.Err() == nil {
		if i := bytes.IndexByte(path, 0); i < 1 || i != len(path)-1 {
			f.FailAt(at, errors.New("path is empty, or without the one NUL at its end"))
		} else {
			e.Path = path[:i:i]
		}
	}
	if e.Template == "ima-sig" {
		e.Signature = f.Bytes(f.Count("bytes of signature", MaxSignature))
	}
	if err := f.Finish(); err != nil {
		var bad *wire.Error
		errors.As(err, &bad) // Finish returns nothing else
		r.FailAt(bad.Offset, bad.Err)
	}
}

// fileDigest reads a d-ng field: "sha256:", NUL, digest.
func fileDigest(f *wire.Reader, field []byte) digest.Digest {
	if f.Err() != nil {
		return digest.Digest{}
	}
	at := f.Offset() - int64(len(field))
	name, value, ok := bytes.Cut(field, []byte(":\x00"))
	if !ok {
		f.FailAt(at, errors.New("digest without the name of its algorithm"))
		return digest.Digest{}
	}
	alg, err := algorithm(name)
	if err != nil {
		f.FailAt(at, err)
		return digest.Digest{}
	}
	d, err := digest.New(alg, value)
	if err != nil {
		f.FailAt(at, err)
	}
	return d
}

// algorithm is digest.ByName without a string made for the usual names.
func algorithm(name []byte) (digest.Algorithm, error) {
	switch string(name) {
	case "sha256":
		return digest.SHA256, nil
	case "sha1":
		return digest.SHA1, nil
	}
	return digest.ByName(string(name))
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
