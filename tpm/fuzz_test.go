package tpm_test

import (
	"bytes"
	"crypto/elliptic"
	"maps"
	"testing"

	"diglim/internal/digest"
	"diglim/tpm"
	"diglim/tpm/tpmtest"
)

func FuzzQuote(f *testing.F) {
	f.Add(tpmtest.NewQuote(nonce, bank(digest.SHA1, 0, 7), bank(digest.SHA256, 10)).Attest())
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := tpm.ParseQuote(b)
		if (q == nil) == (err == nil) {
			t.Fatalf("%v, %v", q, err)
		}
		if err != nil {
			return
		}
		if q.Selection.Len() == 0 || len(q.PCRDigest) > digest.MaxSize {
			t.Errorf("%+v", q)
		}
		if again, err := q.Append(nil); err != nil || !bytes.Equal(again, b) {
			t.Errorf("written again: %x, %v", again, err)
		}
	})
}

func FuzzSignature(f *testing.F) {
	key, err := tpm.ParsePublic(p256.PEM())
	if err != nil {
		f.Fatal(err)
	}
	q, err := tpm.ParseQuote(tpmtest.NewQuote(nonce, bank(digest.SHA256, 10)).Attest())
	if err != nil {
		f.Fatal(err)
	}
	other := tpmtest.NewEC(elliptic.P256())
	f.Add(other.Sign([]byte("something")))
	f.Add(rsaKey.Sign([]byte("something")))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := tpm.ParseSignature(b)
		if err != nil {
			return
		}
		if pcrs, err := q.Verify(s, key, nonce, nil); err == nil {
			t.Errorf("verified: %v", pcrs)
		}
	})
}

func FuzzPublic(f *testing.F) {
	f.Add(rsaKey.Public(tpmtest.AKAttributes))
	f.Add(p384.Public(tpmtest.AKAttributes))
	f.Add(p256.PEM())
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := tpm.ParsePublic(b)
		if err != nil {
			return
		}
		same, err := tpm.ParsePublic(k.PEM())
		if err != nil || same.ID() != k.ID() || same.Name() != nil {
			t.Errorf("%v from %s", err, k.PEM())
		}
	})
}

func FuzzValues(f *testing.F) {
	q, err := tpm.ParseQuote(tpmtest.NewQuote(nonce, bank(digest.SHA1, 0, 7), bank(digest.SHA256, 10)).Attest())
	if err != nil {
		f.Fatal(err)
	}
	b, err := tpm.AppendValues(nil, q.Selection, values(bank(digest.SHA1, 0, 7), bank(digest.SHA256, 10)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(make([]byte, 72))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := tpm.ParseValues(b, q.Selection)
		if err != nil || len(v) != q.Selection.Len() {
			return
		}
		again, err := tpm.AppendValues(nil, q.Selection, v)
		if err != nil {
			return // of other PCRs than the quote's
		}
		if w, err := tpm.ParseValues(again, nil); err != nil || !maps.Equal(v, w) {
			t.Errorf("%v, %v from %x", w, err, bytes.TrimRight(b, "\\x00"))
		}
	})
}
