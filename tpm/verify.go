package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"math/big"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// A Signature is a TPMT_SIGNATURE (Part 2 section 11.3.4) by RSASSA, RSAPSS or
// ECDSA.
type Signature struct {
	Hash digest.Algorithm

	scheme uint16
	rsa    []byte
	r, s   []byte
}

// ParseSignature reads a TPMT_SIGNATURE as TPM2_Quote returns it and
// tpm2_quote -s stores it. Other schemes and unknown hashes are ErrAlgorithm,
// anything else wrong is ErrMalformed.
func ParseSignature(b []byte) (*Signature, error) {
	r := wire.New("signature", binary.BigEndian, b)
	s := &Signature{scheme: r.U16()}
	hash := r.U16()
	switch s.scheme {
	case algRSASSA, algRSAPSS:
		s.rsa = sized(r, "RSA signature", maxRSABits/8)
	case algECDSA:
		s.r, s.s = sized(r, "ECDSA r", maxCoordinate), sized(r, "ECDSA s", maxCoordinate)
	default:
		if len(b) > 0 && b[0] == 0x30 { // a DER sequence of r and s
			return nil, fmt.Errorf("%w: signature: a bare one of ECDSA, which does not say by what hash; a TPMT_SIGNATURE is wanted (tpm2_quote without -f plain)", ErrMalformed)
		}
		if r.Err() == nil {
			return nil, fmt.Errorf("%w: signature scheme %#04x", ErrAlgorithm, s.scheme)
		}
	}
	if err := r.Finish(); err != nil {
		return nil, malformed(err)
	}
	var err error
	if s.Hash, err = digest.ByTPM(hash); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAlgorithm, err)
	}
	return s, nil
}

// PCRs are values that a TPM vouched for. Only Quote.Verify makes them; the
// zero PCRs has none.
type PCRs struct {
	values Values
}

// Value returns a PCR's value, and whether the quote covers it. index is 0 to
// 23.
func (p *PCRs) Value(bank digest.Algorithm, index int) (digest.Digest, bool) {
	if p == nil {
		return digest.Digest{}, false
	}
	d, ok := p.values[PCR{bank, index}]
	return d, ok
}

// Verify proves that the TPM that holds the key quoted exactly the claimed
// PCR values in answer to nonce, which must not be empty. The error is one of
// this package's, for the first step that fails.
func (q *Quote) Verify(sig *Signature, key *Key, nonce []byte, claimed Values) (*PCRs, error) {
	if err := key.verify(sig, q.attest); err != nil {
		return nil, err
	}
	if len(nonce) == 0 || subtle.ConstantTimeCompare(nonce, q.Nonce) != 1 {
		return nil, ErrNonce
	}
	if len(claimed) != q.Selection.Len() {
		return nil, fmt.Errorf("%w: %d values, %d quoted", ErrSelection, len(claimed), q.Selection.Len())
	}
	// The hash is the signature's, whatever the banks are (Part 3, TPM2_Quote).
	h := sig.Hash.Hash()
	values := make(Values, len(claimed))
	for p := range q.Selection.All() {
		d, ok := claimed[p]
		if !ok || d.Algorithm() != p.Bank {
			return nil, fmt.Errorf("%w: no value for %s", ErrSelection, p)
		}
		values[p] = d
		h.Write(d.Bytes())
	}
	if !bytes.Equal(h.Sum(nil), q.PCRDigest) {
		return nil, ErrPCRDigest
	}
	return &PCRs{values}, nil
}

// verify checks a signature over message.
func (k *Key) verify(sig *Signature, message []byte) error {
	if k == nil {
		return fmt.Errorf("%w: no key", ErrKey)
	}
	switch sig.Hash {
	case digest.SHA256, digest.SHA384, digest.SHA512:
	default:
		return fmt.Errorf("%w: signature hash %s", ErrAlgorithm, sig.Hash)
	}
	if k.scheme != 0 && (k.scheme != sig.scheme || k.hash != sig.Hash) {
		return fmt.Errorf("%w: the key signs with scheme %#04x and %s, this is %#04x and %s",
			ErrSignature, k.scheme, k.hash, sig.scheme, sig.Hash)
	}
	sum := digest.Sum(sig.Hash, message).Bytes()
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		if sig.scheme == algRSASSA && rsa.VerifyPKCS1v15(key, sig.Hash.Crypto(), sum, sig.rsa) == nil ||
			sig.scheme == algRSAPSS && rsa.VerifyPSS(key, sig.Hash.Crypto(), sum, sig.rsa, nil) == nil {
			return nil
		}
	case *ecdsa.PublicKey:
		// ecdsa.Verify wants 0 < r, s < the order of the curve.
		if sig.scheme == algECDSA &&
			ecdsa.Verify(key, sum, new(big.Int).SetBytes(sig.r), new(big.Int).SetBytes(sig.s)) {
			return nil
		}
	}
	return ErrSignature
}
