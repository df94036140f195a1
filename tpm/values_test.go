package tpm_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"diglim/internal/digest"
	"diglim/tpm"
	"diglim/tpm/tpmtest"
)

func TestValuesGoAndComeBack(t *testing.T) {
	for _, banks := range [][]tpmtest.Bank{
		{bank(digest.SHA256, 10)},
		{bank(digest.SHA1, 0, 1, 2, 3, 4, 5, 6, 7)},
		{bank(digest.SHA1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), bank(digest.SHA256, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)},
		{bank(digest.SHA512, 23), bank(digest.SHA384, 0)},
	} {
		q, err := tpm.ParseQuote(tpmtest.NewQuote(nonce, banks...).Attest())
		if err != nil {
			t.Fatal(err)
		}
		want := values(banks...)
		b, err := tpm.AppendValues(nil, q.Selection, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tpm.ParseValues(b, q.Selection)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("serialized: %v, %v", got, err)
		}
		var plain []byte
		for _, bank := range banks {
			plain = append(plain, bytes.Join(bank.Values, nil)...)
		}
		got, err = tpm.ParseValues(plain, q.Selection)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("values: %v, %v", got, err)
		}
		for i := range b {
			if v, err := tpm.ParseValues(b[:i], nil); !errors.Is(err, tpm.ErrMalformed) {
				t.Errorf("first %d bytes: %v, %v", i, v, err)
			}
		}
		if _, err := tpm.ParseValues(append(slices.Clone(b), 0), q.Selection); !errors.Is(err, tpm.ErrMalformed) {
			t.Errorf("trailing byte: %v", err)
		}
		delete(want, slices.Collect(q.Selection.All())[0])
		if _, err := tpm.AppendValues(nil, q.Selection, want); !errors.Is(err, tpm.ErrSelection) {
			t.Errorf("a value is missing: %v", err)
		}
	}
}

// tpm2-tools dumps C structures as they lie in memory. What is in their padding,
// and behind what is used of their arrays, is whatever was there.
func TestPaddingOfDumpIsIgnored(t *testing.T) {
	banks := []tpmtest.Bank{bank(digest.SHA1, 0, 1, 2, 3, 4, 5, 6, 7, 8), bank(digest.SHA256, 10)}
	q, err := tpm.ParseQuote(tpmtest.NewQuote(nonce, banks...).Attest())
	if err != nil {
		t.Fatal(err)
	}
	want := values(banks...)
	b, err := tpm.AppendValues(nil, q.Selection, want)
	if err != nil {
		t.Fatal(err)
	}
	const table, entry, digests, size = 4, 8, 4 + 16*8 + 4, 2 + 64 // TPMS_PCR_SELECTION, TPML_DIGEST, TPM2B_DIGEST
	for i := range 16 {
		from := 0 // of a selection that is not used
		if i < len(banks) {
			from = 2 + 1 + 3
		}
		for j := from; j < entry; j++ {
			b[table+entry*i+j] = 0xa5
		}
	}
	const second = digests + 4 + 8*size // of 10 values two are in the second list
	for i := range b[second+4+2*size:] {
		b[second+4+2*size+i] = 0xa5
	}
	for i := 2 + 20; i < size; i++ { // behind a SHA-1
		b[digests+4+i] = 0xa5
	}
	got, err := tpm.ParseValues(b, q.Selection)
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestParseIndices(t *testing.T) {
	for in, want := range map[string][]int{"0-10": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, "23": {23}, "10,0-1,1": {0, 1, 10}} {
		if got, err := tpm.ParseIndices(in); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", ",", "24", "-1", "3-1", "a", "1-", "0-24", "1,,2"} {
		if got, err := tpm.ParseIndices(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
