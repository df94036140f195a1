package evidence

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"diglim/internal/digest"
	"diglim/tpm"
)

// goQuote and goPCR are of go-attestation, by crypto.Hash numbers.
type goQuote struct{ Quote, Signature []byte }

type goPCR struct {
	Index     int
	Digest    []byte
	DigestAlg crypto.Hash
}

// parseJSON tells the forms of JSON by their keys.
func parseJSON(b []byte) (*Bundle, error) {
	var v struct {
		// go-attestation's PlatformParameters
		Public   []byte
		Quotes   []goQuote
		PCRs     []goPCR
		EventLog []byte

		// and the dump that its command makes
		Static struct{ TPMVersion int }
		AK     struct{ Public []byte }
		Quote  goQuote
		Log    struct {
			PCRs []goPCR
			Raw  []byte
		}
	}
	var azure struct {
		Message   string   `json:"message"`
		Signature string   `json:"signature"`
		PCRs      []string `json:"pcrs"`
	}
	// encoding/json takes keys of either case: PCRs and pcrs are told apart by
	// the key that only Azure's quote has.
	keys := map[string]json.RawMessage{}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&keys); err != nil {
		return nil, fmt.Errorf("JSON: offset %d: %w", d.InputOffset(), err)
	}
	if d.More() {
		return nil, fmt.Errorf("JSON: offset %d: more than one object", d.InputOffset())
	}
	if keys["message"] != nil {
		if err := json.Unmarshal(b, &azure); err != nil {
			return nil, fmt.Errorf("quote of Azure: %w", err)
		}
		return azureBundle(azure.Message, azure.Signature, azure.PCRs)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("go-attestation: %w", err)
	}
	switch {
	case v.Static.TPMVersion == 1:
		return nil, errors.New("go-attestation: evidence of a TPM 1.2; only that of a TPM 2.0 is understood")
	case len(v.Quotes) > 0:
		return goBundle(v.Public, v.Quotes, v.PCRs, v.EventLog)
	case len(v.Quote.Quote) > 0:
		return goBundle(v.AK.Public, []goQuote{v.Quote}, v.Log.PCRs, v.Log.Raw)
	}
	return nil, errors.New("JSON: neither a quote of go-attestation nor one of Azure")
}

func goBundle(ak []byte, quotes []goQuote, pcrs []goPCR, log []byte) (*Bundle, error) {
	values := tpm.Values{}
	for _, p := range pcrs {
		alg := algorithmOf(p.DigestAlg)
		d, err := digest.New(alg, p.Digest)
		if err != nil {
			return nil, fmt.Errorf("go-attestation: PCR %d: %w", p.Index, err)
		}
		if _, twice := values[tpm.PCR{Bank: alg, Index: p.Index}]; twice {
			return nil, fmt.Errorf("go-attestation: PCR %d (%s): a second time", p.Index, alg)
		}
		values[tpm.PCR{Bank: alg, Index: p.Index}] = d
	}
	b := &Bundle{Format: "go-attestation", AK: ak, Firmware: log}
	for _, q := range quotes {
		dump, err := serialize(q.Quote, values)
		if err != nil {
			return nil, fmt.Errorf("go-attestation: %w", err)
		}
		b.Quotes = append(b.Quotes, Quote{q.Quote, q.Signature, dump})
	}
	return b, nil
}

func algorithmOf(h crypto.Hash) digest.Algorithm {
	for _, alg := range []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512} {
		if alg.Crypto() == h {
			return alg
		}
	}
	return 0
}

// azureBundle is a quote with a bare RSA signature, and the values of the
// SHA-256 PCRs from 0 on.
func azureBundle(message, signature string, pcrs []string) (*Bundle, error) {
	attest, err := hex.DecodeString(message)
	if err != nil {
		return nil, fmt.Errorf("quote of Azure: message: %w", err)
	}
	bare, err := hex.DecodeString(signature)
	if err != nil {
		return nil, fmt.Errorf("quote of Azure: signature: %w", err)
	}
	values := tpm.Values{}
	for i, text := range pcrs {
		if values[tpm.PCR{Bank: digest.SHA256, Index: i}], err = digest.FromHex(digest.SHA256, []byte(text)); err != nil {
			return nil, fmt.Errorf("quote of Azure: PCR %d: %w", i, err)
		}
	}
	dump, err := serialize(attest, values)
	if err != nil {
		return nil, fmt.Errorf("quote of Azure: %w", err)
	}
	return &Bundle{Format: "azure", Quotes: []Quote{{attest, Signature(bare), dump}}}, nil
}
