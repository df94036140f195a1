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
