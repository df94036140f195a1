// Package tpm reads what a TPM 2.0 says about itself (a quote, its signature,
// the key, the PCR values that go with it) and proves it.
//
// Parsing gives structure, never trust. PCR values that may be relied upon
// are a *PCRs, and only Quote.Verify makes one.
//
// Structures are those of the TPM 2.0 Library Specification, Part 2.
package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// What can be wrong with a quote; test for them with errors.Is.
var (
	ErrMalformed = errors.New("malformed")
	ErrNotQuote  = errors.New("not a quote")
	ErrAlgorithm = errors.New("algorithm not accepted")
	ErrKey       = errors.New("key not suitable")
	ErrSignature = errors.New("signature does not match")
	ErrNonce     = errors.New("nonce does not match")
	ErrSelection = errors.New("PCR values are not those selected")
	ErrPCRDigest = errors.New("PCR values do not match the quote")
)

const (
	generatedValue = 0xff544347 // TPM_GENERATED_VALUE, Part 2 section 6.2
	stAttestQuote  = 0x8018     // TPM_ST_ATTEST_QUOTE, Part 2 section 6.9

	maxName   = 2 + digest.MaxSize // TPM2B_NAME: algorithm and digest
	maxNonce  = 2 + digest.MaxSize // TPM2B_DATA: sizeof(TPMT_HA)
	maxDigest = digest.MaxSize     // TPM2B_DIGEST
)

// A Quote is a TPMS_ATTEST of type quote as it was parsed. Nothing in it is
// trusted.
type Quote struct {
	Nonce     []byte // extraData: the challenge that the quote answers
	Signer    []byte // qualified name of the signing key
	State            // of the TPM when it quoted
	Selection Selection
	PCRDigest []byte // hash of the selected values, by the signature's hash

	attest []byte
}

// ParseQuote reads a TPMS_ATTEST (Part 2 section 10.12.12) as TPM2_Quote
// returns it and tpm2_quote -m stores it, without a length in front. Anything
// but exactly one quote is refused: ErrNotQuote for another magic or type, and
// for a quote of a TPM 1.2, else ErrMalformed. The quote aliases attest.
func ParseQuote(attest []byte) (*Quote, error) {
	if isTPM12(attest) {
		return nil, fmt.Errorf("%w of a TPM 2.0 but of a TPM 1.2, whose SHA-1 proves nothing any more", ErrNotQuote)
	}
	r := wire.New("quote", binary.BigEndian, attest)
	magic, kind := r.U32(), r.U16()
	if r.Err() == nil && (magic != generatedValue || kind != stAttestQuote) {
		return nil, fmt.Errorf("%w: magic %#08x, type %#04x", ErrNotQuote, magic, kind)
	}
	q := &Quote{attest: attest}
	q.Signer = sized(r, "name", maxName)
	q.Nonce = sized(r, "nonce", maxNonce)
	q.Clock, q.ResetCount, q.RestartCount = r.U64(), r.U32(), r.U32()
	safe := r.U8()
	if safe > 1 {
		r.Failf("clock safe is %d, neither 0 nor 1", safe)
	}
	q.Safe = safe == 1
	q.Firmware = r.U64()
	q.Selection = parseSelection(r)
	q.PCRDigest = sized(r, "PCR digest", maxDigest)
	if err := r.Finish(); err != nil {
		return nil, malformed(err)
	}
	// What was understood is all that was signed.
	if again, err := q.Append(nil); err != nil || !bytes.Equal(again, attest) {
		return nil, fmt.Errorf("%w: quote: not as a TPM encodes it", ErrMalformed)
	}
	return q, nil
}

// isTPM12 recognizes TPM_QUOTE_INFO and TPM_QUOTE_INFO2 (TPM Main Part 2
// sections 11.3 and 11.4).
func isTPM12(b []byte) bool {
	return bytes.HasPrefix(b, []byte("\x01\x01\x00\x00QUOT")) || bytes.HasPrefix(b, []byte("\x00\x36QUT2"))
}

// Append appends the quote as a TPMS_ATTEST. A bank that has no TPM number is
// an error.
func (q *Quote) Append(b []byte) ([]byte, error) {
	be := binary.BigEndian
	b = be.AppendUint32(b, generatedValue)
	b = be.AppendUint16(b, stAttestQuote)
	b = appendSized(b, q.Signer)
	b = appendSized(b, q.Nonce)
	b = be.AppendUint64(b, q.Clock)
	b = be.AppendUint32(b, q.ResetCount)
	b = be.AppendUint32(b, q.RestartCount)
	safe := byte(0)
	if q.Safe {
		safe = 1
	}
	b = append(b, safe)
	b = be.AppendUint64(b, q.Firmware)
	b = be.AppendUint32(b, uint32(len(q.Selection)))
	for _, s := range q.Selection {
		id, ok := s.Bank.TPM()
		if !ok {
			return nil, fmt.Errorf("%w: no TPM number for bank %s", ErrAlgorithm, s.Bank)
		}
		b = be.AppendUint16(b, id)
		b = append(b, selectSize, byte(s.Mask), byte(s.Mask>>8), byte(s.Mask>>16))
	}
	return appendSized(b, q.PCRDigest), nil
}

func appendSized(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
}

// sized reads a TPM2B: a 16-bit length and as many bytes.
func sized(r *wire.Reader, what string, limit int) []byte {
	at := r.Offset()
	n := int(r.U16())
	if n > limit {
		r.FailAt(at, fmt.Errorf("%s of %d bytes, the limit is %d", what, n, limit))
	}
	return r.Bytes(n)
}

func malformed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}
