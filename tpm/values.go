package tpm

import (
	"encoding/binary"
	"fmt"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// Values are PCR values that somebody claims. Quote.Verify finds out whether
// it is true.
type Values map[PCR]digest.Digest

// Sizes of the C structures that tpm2-tools dumps (tss2_tpm2_types.h). All
// integers in them are little-endian, all arrays have their full length.
const (
	dumpBank       = 8                // TPMS_PCR_SELECTION: u16 hash, u8 size, u8[4] bitmap, padding
	dumpDigest     = 2 + maxDigest    // TPM2B_DIGEST
	dumpListLen    = 8                // digests in a TPML_DIGEST
	maxDumpLists   = maxBanks * 3     // 24 PCRs a bank, 8 a list
	valuesRecord   = "PCR values"     // for errors
	dumpBitmapSize = dumpBank - 3 - 1 // u8[4], of which selectSize are used: what lies behind them is anything
)

// ParseValues reads the PCR file of tpm2_quote -o in either form. "serialized"
// is a dump of C structures: a TPML_PCR_SELECTION, a little-endian u32 count
// and as many TPML_DIGEST. "values" is nothing but the values, so that what
// they are is taken from the quote's selection sel.
func ParseValues(b []byte, sel Selection) (Values, error) {
	size := 0
	for p := range sel.All() {
		size += p.Bank.Size()
	}
	v, err := parseDump(b)
	if err != nil && len(b) == size && size > 0 {
		r := wire.New(valuesRecord, binary.LittleEndian, b)
		return takeValues(r, sel, func(p PCR) []byte { return r.Bytes(p.Bank.Size()) })
	}
	return v, err
}

func parseDump(b []byte) (Values, error) {
	r := wire.New(valuesRecord, binary.LittleEndian, b)
	banks := r.Count("PCR banks", maxBanks)
	table := r.Sub(valuesRecord, maxBanks*dumpBank)
	var sel Selection
	for range banks {
		at := table.Offset()
		alg, size, bitmap := table.U16(), table.U8(), table.Bytes(dumpBitmapSize)
		table.U8()
		if table.Err() == nil && size != selectSize {
			table.FailAt(at, fmt.Errorf("PCR bitmap %x of %d bytes, must be %d", bitmap, size, selectSize))
		}
		sel = appendBank(sel, table, at, alg, bitmap)
	}
	if err := table.Err(); err != nil {
		return nil, malformed(err)
	}
	var values [][]byte
	for range r.Count("digest lists", maxDumpLists) {
		n := r.Count("digests in a list", dumpListLen)
		for i := range dumpListLen {
			size, buf := int(r.U16()), r.Bytes(maxDigest)
			if i < n && size <= len(buf) {
				values = append(values, buf[:size])
			}
		}
	}
	if err := r.Finish(); err != nil {
		return nil, malformed(err)
	}
	if len(values) != sel.Len() {
		r.Failf("%d values for %d PCRs", len(values), sel.Len())
		return nil, malformed(r.Err())
	}
	return takeValues(r, sel, func(PCR) []byte {
		next := values[0]
		values = values[1:]
		return next
	})
}

// takeValues gives every selected PCR the next value.
func takeValues(r *wire.Reader, sel Selection, next func(PCR) []byte) (Values, error) {
	v := make(Values, sel.Len())
	for p := range sel.All() {
		d, err := digest.New(p.Bank, next(p))
		if err != nil {
			r.Failf("%s: %v", p, err)
			break
		}
		v[p] = d
	}
	if err := r.Finish(); err != nil {
		return nil, malformed(err)
	}
	return v, nil
}

// AppendValues appends the values that sel selects in the "serialized" form
// of tpm2_quote -o. A selected value that v lacks is an error.
func AppendValues(b []byte, sel Selection, v Values) ([]byte, error) {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(sel)))
	for i := range maxBanks {
		var bank [dumpBank]byte
		if i < len(sel) {
			id, ok := sel[i].Bank.TPM()
			if !ok {
				return nil, fmt.Errorf("%w: no TPM number for bank %s", ErrAlgorithm, sel[i].Bank)
			}
			binary.LittleEndian.PutUint16(bank[:], id)
			bank[2] = selectSize
			binary.LittleEndian.PutUint32(bank[3:], sel[i].Mask)
		}
		b = append(b, bank[:]...)
	}
	left := sel.Len()
	b = binary.LittleEndian.AppendUint32(b, uint32((left+dumpListLen-1)/dumpListLen))
	slot := 0
	for p := range sel.All() {
		d, ok := v[p]
		if !ok {
			return nil, fmt.Errorf("%w: no value for %s", ErrSelection, p)
		}
		if slot == 0 {
			b = binary.LittleEndian.AppendUint32(b, uint32(min(left, dumpListLen)))
		}
		b = appendDumpDigest(b, d.Bytes())
		slot, left = (slot+1)%dumpListLen, left-1
	}
	for ; slot > 0 && slot < dumpListLen; slot++ {
		b = appendDumpDigest(b, nil)
	}
	return b, nil
}

func appendDumpDigest(b, value []byte) []byte {
	var d [dumpDigest]byte
	binary.LittleEndian.PutUint16(d[:], uint16(len(value)))
	copy(d[2:], value)
	return append(b, d[:]...)
}
