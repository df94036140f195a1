// Package imalog reads the measurement log of Linux IMA in its binary form
// (securityfs ima/binary_runtime_measurements) and replays it.
//
// The format is that of ima_measurements_show in the kernel's
// security/integrity/ima/ima_fs.c:
//
//	u32 PCR | template hash | u32 length, template name | u32 length, template data
//
// The template "ima" of old has no length in front of its data: a 20-byte
// digest, a 32-bit length and a name.
//
// Two things a log does not say of itself, its Layout: which algorithm made
// the template hashes (SHA-1 in the log everybody knows; kernels since 6.10
// offer one log a bank), and the byte order of its integers (the host's,
// unless it was booted with ima_canonical_fmt). Layouts finds those that are
// possible; the one that arrives at the quoted PCR is the right one.
package imalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// Limits on what an entry may contain, in bytes.
const (
	MaxTemplate  = 255     // template name or format
	MaxData      = 1 << 20 // template data
	MaxAlgorithm = 24      // type and hash algorithm in a d-ngv2 field, with ":" and NUL
	MaxPath      = 4096    // PATH_MAX, with NUL
	MaxSignature = 1 << 16 // security.ima is an extended attribute: XATTR_SIZE_MAX
	MaxEntry     = 4 + digest.MaxSize + 4 + MaxTemplate + 4 + MaxData
	maxPCR       = 23
)

// windowSize is how much of a log is looked at at a time, in bytes, unless an
// entry is larger: what was read is parsed while a processor's caches have it. It
// is more than a first entry about the boot needs.
const windowSize = 64 << 10

// Sizes of the template "ima". Its hash is over the digest and the name filled
// up with zeros to one byte more (IMA_EVENT_NAME_LEN_MAX in ima.h).
const (
	legacyDigest = 20
	legacyName   = 255
)

// An Entry is one measurement. Its slices are good until the next one is read.
type Entry struct {
	Number    int   // counts from 1
	Offset    int64 // of the entry in the log
	PCR       int   // that the entry claims to have extended
	Hash      digest.Digest
	Template  string
	Data      []byte // what Hash is the hash of; for template "ima" not as it stands in the log
	Violation bool   // Hash is all zeros: the PCR was extended with all ones

	// Known says that every field of the template is one of those below. The
	// fields that the template does not have are zero.
	Known       bool
	Digest      digest.Digest // d, d-ng, d-ngv2: of the file
	Verity      bool          // Digest is that of fs-verity, which is no digest of the content
	Path        []byte        // n, n-ng: without its NUL; any other byte may occur
	Signature   []byte        // sig: value of security.ima, or of security.evm; see ParseSignature
	Buffer      []byte        // buf: what was measured itself
	Appended    []byte        // modsig: PKCS #7
	Unsigned    digest.Digest // d-modsig: of the file without Appended
	EVM         []byte        // evmsig: value of security.evm
	XattrNames  []byte        // xattrnames: separated by "|"
	XattrSizes  []uint32      // xattrlengths
	XattrValues []byte        // xattrvalues: one after the other
	UID, GID    uint32        // iuid, igid
	Mode        uint16        // imode

	sum    digest.Digest // of Data, if summed
	own    digest.Digest // of Data, by Hash's algorithm where that is another
	summed bool
	rare   bool // it may have fields other than digest, path and signature
}

// Authentic reports whether Hash is the hash of Data. In a violation it is
// not: no PCR covers a violation's data. The bank's hash, which is wanted next, is
// made on the way.
func (e *Entry) Authentic(bank digest.Algorithm) bool {
	alg := e.Hash.Algorithm()
	switch {
	case e.Violation:
		return false
	case alg == bank || e.summed:
		return e.hashed(alg).Equal(&e.Hash)
	}
	digest.SetSums(&e.own, alg, &e.sum, bank, e.Data)
	e.summed = true
	return e.own.Equal(&e.Hash)
}

// Sum is the hash of Data, which is computed once for an algorithm that is
// asked for time and again: Data must stay as it is. The algorithm must be
// Available.
func (e *Entry) Sum(alg digest.Algorithm) digest.Digest { return *e.hashed(alg) }

// Recall spares e to compute a Sum: sum must be what it would be.
func (e *Entry) Recall(sum digest.Digest) { e.sum, e.summed = sum, true }

func (e *Entry) hashed(alg digest.Algorithm) *digest.Digest {
	if !e.summed || e.sum.Algorithm() != alg {
		e.sum.SetSum(alg, e.Data)
		e.summed = true
	}
	return &e.sum
}

// A Layout is what one has to know to read a log.
type Layout struct {
	Hash      digest.Algorithm // of the template hashes
	BigEndian bool
}

func (l Layout) String() string {
	if l.BigEndian {
		return l.Hash.String() + ", big-endian"
	}
	return l.Hash.String() + ", little-endian"
}

func (l Layout) order() binary.ByteOrder {
	if l.BigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// Layouts returns the layouts by which a log's first entry can be read, those
// first by which its template hash is right. It is nearly always one. That
// nothing can be read is an error; an empty log has no layout and no error.
func Layouts(log io.ReaderAt) ([]Layout, error) {
	head := make([]byte, windowSize)
	n, err := log.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if n == 0 {
		return nil, nil
	}
	var right, possible []Layout
	for _, bigEndian := range []bool{false, true} {
		for _, alg := range []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512} {
			l := Layout{alg, bigEndian}
			p := newParser(l, head[:n])
			var e Entry
			p.next(&e)
			switch {
			case p.Err() == nil && e.Authentic(alg):
				right = append(right, l)
			case p.named: // what follows the name may still be cut or bad: Entries will say
				possible = append(possible, l)
			}
		}
	}
	if len(right)+len(possible) == 0 {
		return nil, &wire.Error{Record: "entry 1", Err: errors.New("not an IMA log: no template name after the hash")}
	}
	return append(right, possible...), nil
}

// Entries yields the entries of a log in order. An error ends it; it is a
// *wire.Error that says which entry, and where, or what log returned. An empty
// log has no entries and no error.
//
// It takes two MaxEntry of memory at most, and much less where entries are small,
// whatever the log's size. The entry yielded is reused for the next one.
func Entries(log io.ReaderAt, l Layout) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		for batch, err := range Batches(log, l) {
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range batch {
				if !yield(&batch[i], nil) {
					return
				}
			}
		}
	}
}

// batchLen is how many entries a batch has at most.
const batchLen = 16

// Batches is Entries, but yields several at a time, for who has to wait for
// memory when he looks up each alone. What is yielded is reused for the next
// batch. Before an error come the entries before it.
func Batches(log io.ReaderAt, l Layout) iter.Seq2[[]Entry, error] {
	return func(yield func([]Entry, error) bool) {
		w := window{log: log}
		p := newParser(l, nil)
		var batch [batchLen]Entry
		for {
			n := 0
			for n < batchLen && p.Len() > 0 {
				if p.next(&batch[n]); p.Err() != nil {
					break
				}
				if n++; p.rare {
					break // it has memory that the parser has once
				}
			}
			if n > 0 && !yield(batch[:n], nil) {
				return
			}
			left := p.Len()
			if err := p.Err(); err != nil {
				left = w.from(batch[n].Offset)
				if !errors.Is(err, wire.ErrShort) || w.end || left >= MaxEntry {
					yield(nil, p.located(err))
					return
				}
				p.number-- // it may be whole when more is in sight
			} else if left > 0 {
				continue
			}
			if w.end {
				return
			}
			if err := w.slide(left); err != nil {
				yield(nil, err)
				return
			}
			p.Reset(w.buf, w.at)
		}
	}
}

// A window is the part of a log that is in memory.
type window struct {
	log io.ReaderAt
	buf []byte
	at  int64 // offset of buf in the log
	end bool  // buf goes up to the end of the log
}

// from is how many bytes of the window are at that offset of the log and behind it.
func (w *window) from(offset int64) int { return int(w.at + int64(len(w.buf)) - offset) }

// slide drops all but the last left bytes, fewer than MaxEntry, and reads on.
func (w *window) slide(left int) error {
	w.at += int64(len(w.buf) - left)
	buf := w.buf[:cap(w.buf)]
	if size := max(windowSize, min(2*left, MaxEntry)); len(buf) < size {
		buf = make([]byte, size)
	}
	copy(buf, w.buf[len(w.buf)-left:])
	n, err := w.log.ReadAt(buf[left:], w.at+int64(left))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	w.end = err != nil
	w.buf = buf[:left+n]
	return nil
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
	*wire.Reader
	Layout
	number   int
	named    bool         // the current entry's template has a name
	template string       // of the current entry
	fields   []field      // of template
	known    bool         // all of them are
	rare     bool         // template has fields other than digest, path and signature, or is of old
	sizes    []uint32     // of the current entry
	data     *wire.Reader // of the current entry
	legacy   [legacyDigest + legacyName + 1]byte
}

func newParser(l Layout, b []byte) parser {
	return parser{Reader: wire.New("", l.order(), b), Layout: l, data: wire.New("", l.order(), nil)}
}

// located puts the entry's number into an error.
func (p *parser) located(err error) error {
	var at *wire.Error
	if !errors.As(err, &at) {
		return err
	}
	return &wire.Error{Record: fmt.Sprintf("entry %d", p.number), Offset: at.Offset, Err: at.Err}
}

func (p *parser) next(e *Entry) {
	p.number++
	if e.rare { // to clear all fields takes as long as to read those of most templates
		*e = Entry{}
	}
	e.Number = p.number
	e.Offset = p.Offset()
	e.Data, e.Path, e.Signature, e.Verity, e.summed = nil, nil, nil, false, false
	p.named = false
	pcr := p.U32()
	if pcr > maxPCR {
		p.FailAt(e.Offset, fmt.Errorf("PCR %d, the last is %d", pcr, maxPCR))
	}
	e.PCR = int(pcr)
	hash := p.Bytes(p.Hash.Size())
	at := p.Offset()
	name := p.Bytes(p.Count("bytes of template name", MaxTemplate))
	if p.Err() != nil {
		return
	}
	if len(name) == 0 || !printable(name) {
		p.FailAt(at, fmt.Errorf("bad template name %q", name))
		return
	}
	p.named = true
	e.Violation = zero(hash)
	if err := e.Hash.Set(p.Hash, hash); err != nil {
		p.FailAt(e.Offset, err)
		return
	}
	if string(name) != p.template {
		p.template = string(name)
		p.fields, p.known = grammar(p.template)
		switch p.template {
		case "ima-ng", "ima-ngv2", "ima-sig", "ima-sigv2":
			p.rare = false
		default:
			p.rare = true
		}
	}
	e.Template, e.Known, e.rare = p.template, p.known, p.rare
	if p.rare {
		e.Digest = digest.Digest{} // the others have one
	}
	if e.Template == "ima" {
		p.old(e)
		return
	}
	n := p.Count("bytes of template data", MaxData)
	start := p.Offset()
	e.Data = p.Bytes(n)
	if p.Err() != nil || !e.Known {
		return
	}
	p.data.Reset(e.Data, start)
	if p.rare {
		e.XattrSizes = p.sizes[:0]
	}
	for _, read := range p.fields {
		read(e, p.data)
	}
	if p.rare {
		p.sizes = e.XattrSizes
	}
	if err := p.data.Finish(); err != nil {
		var bad *wire.Error
		errors.As(err, &bad) // Finish returns nothing else
		p.FailAt(bad.Offset, bad.Err)
	}
}

// old reads the data of template "ima".
func (p *parser) old(e *Entry) {
	sum := p.Bytes(legacyDigest)
	at := p.Offset()
	name := p.Bytes(p.Count("bytes of name", legacyName))
	if p.Err() != nil {
		return
	}
	if len(name) == 0 || bytes.IndexByte(name, 0) >= 0 {
		p.FailAt(at, errors.New("path is empty, or has a NUL"))
		return
	}
	clear(p.legacy[:])
	copy(p.legacy[:], sum)
	copy(p.legacy[legacyDigest:], name)
	e.Data = p.legacy[:]
	e.Digest, _ = digest.New(digest.SHA1, sum)
	e.Path = name
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
