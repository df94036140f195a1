package digestlist

import (
	"bytes"
	"errors"
	"fmt"

	"diglim/internal/modsig"
	"diglim/rpmhdr"
)

// An RPM list is the main header of a package, as it is, with the signature
// over it behind it.
type RPM struct {
	Header    rpmhdr.Header
	Signature []byte // an OpenPGP packet over Header.Signed(); nil if there is none
}

// ErrSignatureType says that a list is signed, but not by OpenPGP.
var ErrSignatureType = errors.New("the appended signature is not OpenPGP")

// ParseRPM reads an rpm list. What it returns aliases b.
func ParseRPM(b []byte) (RPM, error) {
	payload, sig, err := modsig.Split(b)
	if err != nil && !errors.Is(err, modsig.ErrNone) {
		return RPM{}, err
	}
	if err == nil && sig.Type != modsig.PGP {
		return RPM{}, ErrSignatureType
	}
	h, err := rpmhdr.Parse(payload)
	if err != nil {
		return RPM{}, err
	}
	return RPM{h, sig.Bytes}, nil
}

// AppendRPM appends an rpm list to b. Without a signature there is no trailer.
func AppendRPM(b []byte, l RPM) []byte {
	b = append(b, l.Header.Signed()...)
	if l.Signature == nil {
		return b
	}
	return modsig.Append(b, modsig.Signature{Type: modsig.PGP, Bytes: l.Signature})
}

// FromHeader returns the digests of a package's files: those that are changed
// in the normal course of things, then the immutable ones. Either can be empty.
// Files without a digest, ghosts and what is not a regular file are left out.
// Digests stand in header order, as the original rpm_parser has them.
func FromHeader(h rpmhdr.Header) (mutable, immutable Block, err error) {
	mutable = Block{Type: File}
	immutable = Block{Type: File, Modifiers: Immutable}
	for f, err := range h.Files() {
		if err != nil {
			return Block{}, Block{}, err
		}
		if !Listed(f) {
			continue
		}
		b := &mutable
		if IsImmutable(f) {
			b = &immutable
		}
		b.Algorithm = f.Digest.Algorithm()
		b.Digests = append(b.Digests, f.Digest)
	}
	return mutable, immutable, nil
}

// Listed reports whether a list vouches for the file.
func Listed(f rpmhdr.File) bool {
	return f.IsRegular() && !f.IsGhost() && !f.Digest.IsZero()
}

// IsImmutable is the rule of the original rpm_parser, decided for each file by
// itself: it can be run, or written by nobody, and has content; or it lies
// where the kernel, sudo or the dynamic linker look for code.
func IsImmutable(f rpmhdr.File) bool {
	if (f.Mode&0o111 != 0 || f.Mode&0o222 == 0) && f.Size != 0 {
		return true
	}
	in := func(dir string) bool { return bytes.Contains(f.Dir, []byte(dir)) }
	// depmod rewrites /lib/modules/*/modules.*
	return in("/lib/modules") && !bytes.HasPrefix(f.Base, []byte("modules.")) ||
		in("/lib/firmware") || in("/usr/libexec/sudo") || in("/usr/lib64/") || in("/lib64/")
}

// NameFor returns the name of the list file of a package.
func NameFor(h rpmhdr.Header, format Format) (Name, error) {
	nevra, err := h.NEVRA()
	if err != nil {
		return Name{}, err
	}
	n := Name{0, File, format, nevra.String()}
	if err := n.Check(); err != nil {
		return Name{}, fmt.Errorf("package %q: %w", nevra, err)
	}
	return n, nil
}
