package evidence

import (
	"encoding/binary"
	"errors"
	"fmt"

	"diglim/internal/digest"
	"diglim/internal/wire"
	"diglim/tpm"
)

// Field numbers of go-tpm-tools' messages (proto/attest.proto, tpm.proto).
const (
	attestationKey      = 1 // Attestation.ak_pub, a TPMT_PUBLIC
	attestationQuotes   = 2 // Attestation.quotes
	attestationEventLog = 3 // Attestation.event_log

	quoteAttest    = 1 // Quote.quote
	quoteSignature = 2 // Quote.raw_sig
	quotePCRs      = 3 // Quote.pcrs

	pcrsHash   = 1 // PCRs.hash, a TPM_ALG_ID
	pcrsValues = 2 // PCRs.pcrs, a map

	mapKey   = 1
	mapValue = 2
)

// Types on the wire (Protocol Buffers, Encoding).
const (
	protoVarint  = 0
	protoFixed64 = 1
	protoBytes   = 2
	protoFixed32 = 5
)

// maxQuotes is more than a TPM has banks.
const maxQuotes = 16

// parseAttestation reads go-tpm-tools' Attestation message: a quote a bank.
func parseAttestation(b []byte) (*Bundle, error) {
	bundle := &Bundle{Format: "go-tpm-tools"}
	err := message(wire.New("Attestation", binary.LittleEndian, b), func(field int, _ uint64, r *wire.Reader) error {
		switch field {
		case attestationKey:
			bundle.AK = r.Rest()
		case attestationEventLog:
			bundle.Firmware = r.Rest()
		case attestationQuotes:
			if len(bundle.Quotes) == maxQuotes {
				return fmt.Errorf("more than %d quotes", maxQuotes)
			}
			q, err := parseQuote(r)
			bundle.Quotes = append(bundle.Quotes, q)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(bundle.Quotes) == 0 {
		return nil, errors.New("no quote in the attestation")
	}
	return bundle, nil
}

func parseQuote(r *wire.Reader) (q Quote, err error) {
	values := tpm.Values{}
	err = message(r, func(field int, _ uint64, r *wire.Reader) error {
		switch field {
		case quoteAttest:
			q.Attest = r.Rest()
		case quoteSignature:
			q.Signature = r.Rest()
		case quotePCRs:
			return parsePCRs(r, values)
		}
		return nil
	})
	if err != nil {
		return Quote{}, err
	}
	q.PCRs, err = serialize(q.Attest, values)
	return q, err
}

func parsePCRs(r *wire.Reader, values tpm.Values) error {
	var bank digest.Algorithm
	return message(r, func(field int, number uint64, r *wire.Reader) (err error) {
		switch field {
		case pcrsHash:
			if number > 0xffff {
				return fmt.Errorf("bank %#x", number)
			}
			bank, err = digest.ByTPM(uint16(number))
			return err
		case pcrsValues:
			pcr := tpm.PCR{Bank: bank}
			var value []byte
			if err := message(r, func(field int, number uint64, r *wire.Reader) error {
				switch field {
				case mapKey:
					if number >= tpm.PCRCount {
						return fmt.Errorf("PCR %d", number)
					}
					pcr.Index = int(number)
				case mapValue:
					value = r.Rest()
				}
				return nil
			}); err != nil {
				return err
			}
			if _, twice := values[pcr]; twice {
				return fmt.Errorf("%s: a second time", pcr)
			}
			values[pcr], err = digest.New(bank, value)
		}
		return err
	})
}

// message calls f for every field of a message, with its number or, where it
// is a string of bytes, with a reader of them. What f does not want it leaves.
func message(r *wire.Reader, f func(field int, number uint64, data *wire.Reader) error) error {
	for r.Len() > 0 {
		at := r.Offset()
		tag := varint(r)
		var number uint64
		var data *wire.Reader
		switch tag & 7 {
		case protoVarint:
			number = varint(r)
		case protoFixed64:
			number = r.U64()
		case protoFixed32:
			number = uint64(r.U32())
		case protoBytes:
			n := varint(r)
			if n > uint64(r.Len()) {
				r.Failf("a field of %d bytes, %d are left", n, r.Len())
			} else {
				data = r.Sub("Attestation", int(n))
			}
		default:
			r.FailAt(at, fmt.Errorf("field of type %d", tag&7))
		}
		if r.Err() != nil {
			break
		}
		if data == nil {
			data = wire.New("Attestation", binary.LittleEndian, nil)
		}
		if err := f(int(tag>>3), number, data); err != nil {
			if inner := (*wire.Error)(nil); errors.As(err, &inner) {
				return err // says where already
			}
			r.FailAt(at, err)
		}
	}
	return r.Err()
}

// varint reads a number of 7 bits a byte, at most 64 of them.
func varint(r *wire.Reader) (v uint64) {
	for shift := 0; ; shift += 7 {
		b := r.U8()
		if shift == 63 && b > 1 {
			r.Failf("a number of more than 64 bits")
			return 0
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
}
