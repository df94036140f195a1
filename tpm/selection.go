package tpm

import (
	"fmt"
	"iter"
	"math/bits"
	"strconv"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

const (
	// PCRCount is the number of PCRs in a bank (PC Client Platform TPM
	// Profile section 4.6).
	PCRCount = 24

	// maxBanks is the TSS's TPM2_NUM_PCR_BANKS.
	maxBanks = 16

	selectSize = PCRCount / 8 // bytes of a bank's bitmap
)

// A PCR names one register.
type PCR struct {
	Bank  digest.Algorithm
	Index int
}

func (p PCR) String() string { return fmt.Sprintf("PCR %d (%s)", p.Index, p.Bank) }

// A Selection is a TPML_PCR_SELECTION: banks in the TPM's order, none of them
// twice. A bank that was asked for and that the TPM has not allocated is there
// without PCRs.
type Selection []BankSelection

// A BankSelection is the PCRs selected in one bank: bit i is PCR i.
type BankSelection struct {
	Bank digest.Algorithm
	Mask uint32
}

// All yields the PCRs in the order in which a TPM concatenates their values.
func (s Selection) All() iter.Seq[PCR] {
	return func(yield func(PCR) bool) {
		for _, b := range s {
			for i := range PCRCount {
				if b.Mask&(1<<i) != 0 && !yield(PCR{b.Bank, i}) {
					return
				}
			}
		}
	}
}

// Len is the number of PCRs selected.
func (s Selection) Len() (n int) {
	for _, b := range s {
		n += bits.OnesCount32(b.Mask)
	}
	return n
}

// parseSelection reads a TPML_PCR_SELECTION (Part 2 section 10.9.7).
func parseSelection(r *wire.Reader) Selection {
	n := r.Count("PCR banks", maxBanks)
	s := make(Selection, 0, n)
	for range n {
		at := r.Offset()
		alg, size := r.U16(), r.U8()
		if r.Err() == nil && size != selectSize {
			r.FailAt(at, fmt.Errorf("PCR bitmap of %d bytes, must be %d", size, selectSize))
		}
		s = appendBank(s, r, at, alg, r.Bytes(selectSize))
	}
	if r.Err() == nil && s.Len() == 0 {
		r.Failf("empty PCR selection")
	}
	if r.Err() != nil {
		return nil
	}
	return s
}

// appendBank adds a bank that was read at offset at, if it is a good one.
func appendBank(s Selection, r *wire.Reader, at int64, alg uint16, bitmap []byte) Selection {
	if r.Err() != nil {
		return s
	}
	bank, err := digest.ByTPM(alg)
	if err != nil {
		r.FailAt(at, err)
		return s
	}
	mask := uint32(bitmap[0]) | uint32(bitmap[1])<<8 | uint32(bitmap[2])<<16
	for _, b := range s {
		if b.Bank == bank {
			r.FailAt(at, fmt.Errorf("bank %s selected twice", bank))
		}
	}
	return append(s, BankSelection{bank, mask})
}

// ParseIndices reads PCRs as people write them, "0-7,10", in rising order.
func ParseIndices(text string) ([]int, error) {
	var selected [PCRCount]bool
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.ParseUint(first, 10, 8)
		to := from
		if isRange && err == nil {
			to, err = strconv.ParseUint(last, 10, 8)
		}
		if err != nil || from > to || to >= PCRCount {
			return nil, fmt.Errorf("PCRs %q: %q is neither a number nor a range from 0 to %d", text, part, PCRCount-1)
		}
		for i := from; i <= to; i++ {
			selected[i] = true
		}
	}
	var pcrs []int
	for i, yes := range selected {
		if yes {
			pcrs = append(pcrs, i)
		}
	}
	return pcrs, nil
}
