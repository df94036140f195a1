package tpm_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"path/filepath"
	"testing"

	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/tpm"
	"diglim/tpm/tpmtest"
)

// Quotes of real TPMs and of swtpm. Where no nonce was recorded beside the
// quote, it is the quote's own, so that the test proves the rest only.
func TestCorpusQuotes(t *testing.T) {
	const quotes, guests = "quote", "vm-evidence"
	cases := []struct {
		dir, quote, sig, pcrs, key string
		nonce                      string // file, or hex
		selected                   int
	}{
		{quotes + "/keylime", "quote.out", "quotesig.out", "quotepcr.out", "akpub.pem", "db1db298db6d60e6385b7231743e9c3056a18003", 3},
		{quotes + "/keylime", "quote.out", "quotesig.out", "quotepcr.out", "ak.pub", "db1db298db6d60e6385b7231743e9c3056a18003", 3},
	}
	for _, name := range []string{"swtpm-ibmtss-kvtpm-rsa", "swtpm-imatest11-rsa"} {
		for _, bank := range []string{"quote-sha1", "quote-sha256"} {
			for _, key := range []string{"ak.pem", "ak.pub"} {
				c := cases[0]
				c.dir, c.quote, c.sig, c.pcrs, c.key, c.nonce, c.selected = filepath.Join(quotes, name), bank+".msg", bank+".sig", bank+".pcrs", key, "nonce.hex", 11
				cases = append(cases, c)
			}
		}
	}
	for _, name := range []string{"ovmf-tis-6.12cloud-imang", "seabios-crb-6.1cloud-imasig"} {
		for _, q := range []struct {
			name, key string
			selected  int
		}{{"quote", "ak.pub", 22}, {"quote", "ak.tpm2b", 22}, {"quote", "ak.pem", 22}, {"quote-ecc", "ake.pub", 11}, {"stale", "ak.pub", 1}, {"viol", "ak.pub", 2}} {
			c := cases[0]
			c.dir, c.quote, c.sig, c.pcrs, c.key, c.nonce, c.selected = filepath.Join(guests, name), q.name+".msg", q.name+".sig", q.name+".pcrs", q.key, "nonce.hex", q.selected
			cases = append(cases, c)
		}
	}
	for _, c := range cases {
		t.Run(filepath.Base(c.dir)+"/"+c.quote+"/"+c.key, func(t *testing.T) {
			text := []byte(c.nonce)
			if c.nonce == "nonce.hex" {
				text = bytes.TrimSpace(corpus.Read(t, c.dir, c.nonce))
			}
			nonce, err := hex.DecodeString(string(text))
			if err != nil {
				t.Fatal(err)
			}
			attest, sig := corpus.Read(t, c.dir, c.quote), corpus.Read(t, c.dir, c.sig)
			q, err := tpm.ParseQuote(attest)
			if err != nil {
				t.Fatal(err)
			}
			dump := corpus.Read(t, c.dir, c.pcrs)
			claimed, err := tpm.ParseValues(dump, q.Selection)
			if err != nil {
				t.Fatal(err)
			}
			pcrs, err := check(attest, sig, corpus.Read(t, c.dir, c.key), nonce, claimed)
			if err != nil {
				t.Fatal(err)
			}
			if q.Selection.Len() != c.selected {
				t.Errorf("%d PCRs, want %d", q.Selection.Len(), c.selected)
			}
			for p := range q.Selection.All() {
				if _, ok := pcrs.Value(p.Bank, p.Index); !ok {
					t.Errorf("%v has no value", p)
				}
			}
			if again, err := tpm.AppendValues(nil, q.Selection, claimed); err != nil || !bytes.Equal(again, dump) {
				t.Errorf("the values written again differ from tpm2-tools' file: %v", err)
			}
		})
	}
}

// An Azure vTPM's quote came without its PCR values and with a bare RSA
// signature; a TPMT_SIGNATURE is made of it here. Signature and nonce are
// right, and then the values are missing.
func TestCorpusAzure(t *testing.T) {
	const dir = "quote/azure-cvm"
	attest, bare := corpus.Read(t, dir, "quote_msg"), corpus.Read(t, dir, "quote_sig")
	if _, err := tpm.ParseSignature(bare); err == nil {
		t.Error("a bare signature is taken for a TPMT_SIGNATURE")
	}
	sig := append([]byte{0, tpmtest.RSASSA, 0, tpmtest.SHA256, 1, 0}, bare...)
	q, err := tpm.ParseQuote(attest)
	if err != nil {
		t.Fatal(err)
	}
	key := corpus.Read(t, dir, "akpub.pem")
	_, err = check(attest, sig, key, q.Nonce, nil)
	if !errors.Is(err, tpm.ErrSelection) {
		t.Errorf("without values: %v", err)
	}
	zeros, ones := make([]byte, 32), bytes.Repeat([]byte{0xff}, 32)
	claimed := tpm.Values{}
	for i, b := range map[int][]byte{15: zeros, 16: zeros, 22: ones} {
		claimed[tpm.PCR{Bank: digest.SHA256, Index: i}], _ = digest.New(digest.SHA256, b)
	}
	if _, err := check(attest, sig, key, q.Nonce, claimed); err != nil {
		t.Errorf("with the values of PCRs that nobody extends: %v", err)
	}
}

// Quotes of public test suites that must not pass.
func TestCorpusRefused(t *testing.T) {
	const quotes = "quote"

	// EnactTrust: node id, length of the quote, quote, signature. The
	// signature is right; the quote answers no challenge.
	token := corpus.Read(t, quotes, "veraison-enacttrust", "basic.token")
	const start = 16 + 2
	end := start + int(binary.BigEndian.Uint16(token[16:]))
	_, err := check(token[start:end], token[end:], corpus.Read(t, quotes, "veraison-enacttrust", "basic.pem.pub"), nil, nil)
	if !errors.Is(err, tpm.ErrNonce) {
		t.Errorf("a quote without nonce: %v", err)
	}

	// Keylime's agent: "r", then quote, signature and values in base64. It is
	// signed with SHA-1, which is refused before any key is looked at.
	text := bytes.TrimSpace(corpus.Read(t, quotes, "rust-keylime", "test-quote.txt"))
	var parts [][]byte
	for part := range bytes.SplitSeq(bytes.TrimPrefix(text, []byte("r")), []byte(":")) {
		b, err := base64.StdEncoding.DecodeString(string(part))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, b)
	}
	q, err := tpm.ParseQuote(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := tpm.ParseValues(parts[2], q.Selection)
	if err != nil {
		t.Fatal(err)
	}
	_, err = check(parts[0], parts[1], rsaKey.PEM(), []byte("TEST"), claimed)
	if !errors.Is(err, tpm.ErrAlgorithm) {
		t.Errorf("signed with SHA-1: %v", err)
	}
}
