package rpmhdr

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// A Package is what stands before the payload of an RPM package file. It
// aliases the bytes that it was parsed from.
type Package struct {
	Signatures Header // the signature header; not signed itself
	Header     Header // the main header
	Size       int64  // bytes before the payload
}

const (
	leadSize    = 96
	leadSigType = 5 // RPMSIGTYPE_HEADERSIG, the only one left
)

var leadMagic = []byte{0xed, 0xab, 0xee, 0xdb}

// headLayout reads as much of a package's beginning as b holds, and returns
// where the main header starts and ends. End is 0 while b is too short to
// tell; start then says how many bytes are needed to go on.
func headLayout(b []byte) (start, end int, err error) {
	if len(b) < leadSize+introSize {
		return leadSize + introSize, 0, nil
	}
	r := wire.New("rpm lead", binary.BigEndian, b)
	magic := r.Bytes(len(leadMagic))
	r.Bytes(74) // versions, type, architecture, name, OS: obsolete, the headers have them
	sigType := r.U16()
	r.Bytes(16)
	switch {
	case !bytes.Equal(magic, leadMagic):
		r.FailAt(0, errors.New("not an RPM package"))
	case sigType != leadSigType:
		r.FailAt(78, fmt.Errorf("signature type %d, must be %d", sigType, leadSigType))
	}
	r.Record("rpm signature header")
	size := blobSize(r)
	if r.Err() != nil {
		return 0, 0, r.Err()
	}
	start = leadSize + (size+7)/8*8
	if len(b) < start+introSize {
		return start + introSize, 0, nil
	}
	r = wire.New("rpm header", binary.BigEndian, b[start:]).At(int64(start))
	size = blobSize(r)
	return start, start + size, r.Err()
}

// ParsePackage reads the beginning of a package file, which must reach to the
// end of the main header; what follows is ignored. Of the header digests that
// the signature header carries (SHA3-256, SHA-256, SHA-1) the first is checked;
// CheckDigests checks the others.
func ParsePackage(b []byte) (Package, error) {
	start, end, err := headLayout(b)
	if err != nil {
		return Package{}, err
	}
	if end == 0 || end > len(b) {
		return Package{}, &wire.Error{Record: "rpm package", Offset: int64(len(b)),
			Err: fmt.Errorf("%w: at least %d bytes wanted", wire.ErrShort, max(start, end))}
	}
	p := Package{Size: int64(end)}
	if p.Signatures, err = parse("rpm signature header", b[leadSize:start], leadSize, tagHeaderSignatures); err != nil {
		return Package{}, err
	}
	if p.Header, err = parse("rpm header", b[start:end], int64(start), tagHeaderImmutable); err != nil {
		return Package{}, err
	}
	return p, p.checkDigest()
}

// firstRead is how much ReadPackage asks for at first, in bytes: enough for
// the headers of nine packages of ten.
const firstRead = 32 << 10

// room is what a buffer has behind a header that is too large to be copied
// without need: a list ends in the signature that is in front of it here.
const room = 64 << 10

// ReadPackage reads a package of that many bytes from r, up to the payload. It
// uses buf if that is large enough, and otherwise allocates what the headers
// take, never more than the file has, and room for a signature behind them. It
// returns the buffer that it used; its first Size bytes are what the Package
// aliases.
func ReadPackage(r io.ReaderAt, size int64, buf []byte) (p Package, used []byte, err error) {
	want := min(size, firstRead)
	buf = buf[:cap(buf)]
	for read := 0; ; {
		if int64(len(buf)) < want {
			buf = append(make([]byte, 0, want+room), buf[:read]...)[:want]
		}
		n, err := r.ReadAt(buf[read:want], int64(read))
		read += n
		if err != nil && !errors.Is(err, io.EOF) {
			return Package{}, nil, err
		}
		start, end, err := headLayout(buf[:read])
		if err != nil {
			return Package{}, nil, err
		}
		need := int64(max(start, end))
		if end != 0 && end <= read || n == 0 || need > size {
			p, err := ParsePackage(buf[:read])
			return p, buf, err
		}
		want = need
	}
}

// headerDigests returns the digests that the signature header has of the
// header, the strongest first, and zero for those that it has not.
func (p Package) headerDigests() (ds [3]digest.Digest, err error) {
	for i, c := range [...]struct {
		tag Tag
		alg digest.Algorithm
	}{{sigSHA3_256, digest.SHA3_256}, {sigSHA256, digest.SHA256}, {sigSHA1, digest.SHA1}} {
		text, err := p.Signatures.text(c.tag)
		if err != nil {
			return ds, fmt.Errorf("rpm signature header: %w", err)
		}
		if text == nil {
			continue
		}
		if ds[i], err = digest.FromHex(c.alg, text); err != nil {
			return ds, fmt.Errorf("rpm signature header: tag %d: %w", c.tag, err)
		}
	}
	return ds, nil
}

// checkDigest checks the strongest header digest that there is.
func (p Package) checkDigest() error {
	ds, err := p.headerDigests()
	if err != nil {
		return err
	}
	for _, d := range ds {
		if !d.IsZero() {
			return p.checkAgainst(d)
		}
	}
	return nil
}

// CheckDigests checks the header digests that parsing has not: all but the
// strongest. To find damage that one is enough, and a header that nobody signed
// is no more to be believed with three digests than with one, for they are not
// signed either. What is to be trusted is held to all of them, as rpm does.
func (p Package) CheckDigests() error {
	ds, err := p.headerDigests()
	if err != nil {
		return err
	}
	checked := false
	for _, d := range ds {
		if d.IsZero() {
			continue
		}
		if checked {
			if err := p.checkAgainst(d); err != nil {
				return err
			}
		}
		checked = true
	}
	return nil
}

func (p Package) checkAgainst(want digest.Digest) error {
	if got := digest.Sum(want.Algorithm(), p.Header.Signed()); got != want {
		return fmt.Errorf("rpm header: %w: it is %s, the signature header says %s", ErrDigest, got, want)
	}
	return nil
}

// ErrDigest says that a header is not what its own digest says.
var ErrDigest = errors.New("header digest does not match")

// A Signature is an OpenPGP signature packet found in a signature header.
type Signature struct {
	Tag    Tag
	Packet []byte
}

// HeaderSignatures returns the signatures over Header.Signed(), in the order
// in which rpm prefers them: tag 278, 268, 267. None is no error.
func (p Package) HeaderSignatures() ([]Signature, error) {
	var sigs []Signature
	texts, err := p.Signatures.texts(sigOpenPGP)
	if err != nil {
		return nil, fmt.Errorf("rpm signature header: %w", err)
	}
	if texts.n > maxSignatures {
		return nil, fmt.Errorf("rpm signature header: tag %d: %d signatures, the limit is %d", sigOpenPGP, texts.n, maxSignatures)
	}
	for texts.n > 0 {
		packet, err := base64.StdEncoding.AppendDecode(nil, texts.next())
		if err != nil {
			return nil, fmt.Errorf("rpm signature header: tag %d: %w", sigOpenPGP, err)
		}
		sigs = append(sigs, Signature{sigOpenPGP, packet})
	}
	return p.appendBinary(sigs, sigRSA, sigDSA)
}

// PayloadSignatures returns the signatures over Header.Signed() with the
// payload behind it. They say nothing to who does not read the payload.
func (p Package) PayloadSignatures() ([]Signature, error) {
	return p.appendBinary(nil, sigPGP, sigGPG)
}

// maxSignatures bounds the signatures in one package: each costs a public-key
// operation.
const maxSignatures = 32

func (p Package) appendBinary(sigs []Signature, tags ...Tag) ([]Signature, error) {
	for _, tag := range tags {
		packet, err := p.Signatures.bytes(tag)
		if err != nil {
			return nil, fmt.Errorf("rpm signature header: %w", err)
		}
		if packet != nil {
			sigs = append(sigs, Signature{tag, packet})
		}
	}
	return sigs, nil
}
