// Package source holds what all sources of package headers share: how a header
// becomes one that a trusted key vouches for.
package source

import (
	"errors"
	"fmt"

	"diglim/internal/keyring"
	"diglim/rpmhdr"
)

// ErrUnsigned says that there is no signature to check.
var ErrUnsigned = errors.New("no header signature")

// Proof is what a good signature says of a header. Only Prove makes one.
type Proof struct {
	keyring.Signer
	Signature []byte // the packet that proved it
}

// Prove checks the digests of a package's header that parsing has left
// unchecked, and the signatures over it until one is good; the first that is
// counts, as rpm has it. Without any the error is ErrUnsigned. Otherwise it is
// the first signature's, and what the others were for too.
func Prove(p rpmhdr.Package, keys *keyring.Keyring, policy keyring.Policy) (Proof, error) {
	if err := p.CheckDigests(); err != nil {
		return Proof{}, err
	}
	sigs, err := p.HeaderSignatures()
	if err != nil {
		return Proof{}, err
	}
	var failed []error
	for _, s := range sigs {
		signer, err := keys.Verify(p.Header.Signed(), s.Packet, policy)
		if err == nil {
			return Proof{signer, s.Packet}, nil
		}
		failed = append(failed, fmt.Errorf("tag %d: %w", s.Tag, err))
	}
	if len(failed) > 0 {
		return Proof{}, &notProved{failed}
	}
	payload, err := p.PayloadSignatures()
	if err != nil {
		return Proof{}, err
	}
	if len(payload) > 0 {
		return Proof{}, fmt.Errorf("%w (the one over header and payload says nothing without the payload)", ErrUnsigned)
	}
	return Proof{}, ErrUnsigned
}

// notProved is several reasons on one line.
type notProved struct{ errs []error }

func (e *notProved) Error() string {
	text := e.errs[0].Error()
	for _, err := range e.errs[1:] {
		text += "; " + err.Error()
	}
	return text
}

func (e *notProved) Unwrap() []error { return e.errs }
