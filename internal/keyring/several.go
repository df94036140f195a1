package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// MaxSignatures bounds the signatures over one file: each costs a public-key
// operation.
const MaxSignatures = 32

// VerifyFile checks signed by the content of a signature file, armored or
// binary, that can hold several: as OneOf does.
func (k *Keyring) VerifyFile(signed, file []byte, policy Policy) (Signer, error) {
	var r io.Reader = bytes.NewReader(file)
	if bytes.HasPrefix(bytes.TrimSpace(file), []byte("-----BEGIN ")) {
		block, err := armor.Decode(r)
		if err != nil {
			return Signer{}, fmt.Errorf("%w: armor: %w", ErrMalformed, err)
		}
		if block.Type != "PGP SIGNATURE" {
			return Signer{}, fmt.Errorf("%w: armor: it is a %s", ErrMalformed, block.Type)
		}
		r = block.Body
	}
	return OneOf(r, func(sig []byte) (Signer, error) { return k.Verify(signed, sig, policy) })
}

// OneOf reads signature packets and tries them until one is good: who changes
// keys signs with the old and the new one for a while. All packets must be
// whole, and no more than MaxSignatures. Without a good one the error is that of
// the first, but one by a key that is trusted says more than those by others.
func OneOf(r io.Reader, verify func(sig []byte) (Signer, error)) (Signer, error) {
	sigs, err := packets(r)
	if err != nil {
		return Signer{}, err
	}
	failed := fmt.Errorf("%w: there is none", ErrMalformed)
	for i, sig := range sigs[:min(len(sigs), MaxSignatures)] {
		signer, err := verify(sig)
		if err == nil && len(sigs) > MaxSignatures {
			return Signer{}, fmt.Errorf("%w: more than %d signatures", ErrMalformed, MaxSignatures)
		}
		if err == nil {
			return signer, nil
		}
		if i == 0 || errors.Is(failed, ErrUnknownKey) {
			failed = err
		}
	}
	return Signer{}, failed
}

// packets returns OpenPGP packets one by one, each as it stands alone, and at
// most one more than MaxSignatures.
func packets(r io.Reader) ([][]byte, error) {
	var all [][]byte
	reader := packet.NewOpaqueReader(io.LimitReader(r, (MaxSignatures+1)*maxSignature))
	for len(all) <= MaxSignatures {
		p, err := reader.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		var b bytes.Buffer
		if err := p.Serialize(&b); err != nil {
			return nil, err
		}
		all = append(all, b.Bytes())
	}
	return all, nil
}
