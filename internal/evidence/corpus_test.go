package evidence_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"testing"

	"diglim/internal/corpus"
	"diglim/internal/evidence"
	"diglim/tpm"
)

// A source is a real quote: in a bundle, or in files of its own.
type source struct {
	bundle          string
	quote, sig, pcr string
	key             string // file; empty: the bundle's own
	nonce           string // hex, or the file nonce.hex; empty: the quote's own
}

func sources() []source {
	list := []source{
		{bundle: "quote/rust-keylime/test-quote.txt", key: "quote/keylime/akpub.pem", nonce: "54455354"},
		{bundle: "quote/go-attestation/windows_gcp_shielded_vm.json"},
		{bundle: "quote/go-tpm-tools/gce-cos-85-nonce9009.pb", nonce: "9009"},
		{bundle: "quote/trustee-az-snp/tpm-quote-v1.json", key: "HCLAkPub", nonce: "6368616c6c656e6765"},
		{quote: "quote/azure-cvm/quote_msg", sig: "quote/azure-cvm/quote_sig", key: "quote/azure-cvm/akpub.pem"},
	}
	for _, key := range []string{"ak.pub", "akpub.pem"} {
		list = append(list, source{quote: "quote/keylime/quote.out", sig: "quote/keylime/quotesig.out", pcr: "quote/keylime/quotepcr.out", key: "quote/keylime/" + key, nonce: "db1db298db6d60e6385b7231743e9c3056a18003"})
	}
	for _, dir := range []string{"quote/swtpm-ibmtss-kvtpm-rsa/", "quote/swtpm-imatest11-rsa/"} {
		for _, name := range []string{"quote-sha1", "quote-sha256"} {
			for _, key := range []string{"ak.pub", "ak.pem"} {
				list = append(list, source{quote: dir + name + ".msg", sig: dir + name + ".sig", pcr: dir + name + ".pcrs", key: dir + key, nonce: dir + "nonce.hex"})
			}
		}
	}
	for _, dir := range []string{"vm-evidence/ovmf-tis-6.12cloud-imang/", "vm-evidence/seabios-crb-6.1cloud-imasig/"} {
		for _, q := range [][2]string{{"quote", "ak.pub"}, {"quote", "ak.tpm2b"}, {"quote", "ak.pem"}, {"quote-ecc", "ake.pub"}, {"stale", "ak.pub"}, {"viol", "ak.pub"}} {
			list = append(list, source{quote: dir + q[0] + ".msg", sig: dir + q[0] + ".sig", pcr: dir + q[0] + ".pcrs", key: dir + q[1], nonce: dir + "nonce.hex"})
		}
		list = append(list, source{bundle: strings.TrimSuffix(dir, "/"), nonce: dir + "nonce.hex"})
	}
	return list
}

// TestCorpus keeps in testdata/corpus.tsv what every real quote gives: what it
// selects, what becomes of it, the name of its key, and the state of its TPM.
func TestCorpus(t *testing.T) {
	var out strings.Builder
	fmt.Fprintln(&out, "evidence\tkey\tformat\tselected\tverified\tname\tresets\trestarts\tclock\tsafe\tfirmware")
	for _, s := range sources() {
		var b *evidence.Bundle
		var err error
		name := s.bundle
		switch {
		case s.bundle == "":
			name = s.quote
			b = &evidence.Bundle{Format: "files", Quotes: []evidence.Quote{{Attest: evidence.Attest(corpus.Read(t, s.quote)), Signature: evidence.Signature(corpus.Read(t, s.sig))}}}
			if s.pcr != "" {
				b.Quotes[0].PCRs = corpus.Read(t, s.pcr)
			}
		case strings.HasPrefix(s.bundle, "vm-evidence"):
			b = evidence.FromFiles(directory(t, s.bundle))
		default:
			if b, err = read(corpus.Read(t, s.bundle)); err != nil {
				t.Errorf("%s: %v", s.bundle, err)
				continue
			}
		}
		key := b.AK
		switch {
		case s.key == "HCLAkPub":
			key = azureKey(t)
		case s.key != "":
			key = corpus.Read(t, s.key)
		}
		for _, q := range b.Quotes {
			fmt.Fprintf(&out, "%s\t%s\t%s\t%s\n", name, filepath.Base(s.key), b.Format, row(t, q, key, s.nonce))
		}
	}
	corpus.Table(t, "testdata/corpus.tsv", out.String())
}

// row verifies one quote.
func row(t *testing.T, q evidence.Quote, ak []byte, nonce string) string {
	parsed, err := tpm.ParseQuote(q.Attest)
	if err != nil {
		return "\t" + err.Error()
	}
	var selected []string
	for _, s := range parsed.Selection {
		selected = append(selected, fmt.Sprintf("%s:%06x", s.Bank, s.Mask))
	}
	challenge := parsed.Nonce
	switch {
	case strings.HasSuffix(nonce, ".hex"):
		nonce = string(bytes.TrimSpace(corpus.Read(t, nonce)))
		fallthrough
	case nonce != "":
		if challenge, err = hex.DecodeString(nonce); err != nil {
			t.Fatal(err)
		}
	}
	name, result := "", "yes"
	if err := func() error {
		key, err := tpm.ParsePublic(ak)
		if err != nil {
			return err
		}
		name = hex.EncodeToString(key.Name())
		sig, err := tpm.ParseSignature(q.Signature)
		if err != nil {
			return err
		}
		var values tpm.Values
		if q.PCRs != nil {
			if values, err = tpm.ParseValues(q.PCRs, parsed.Selection); err != nil {
				return err
			}
		}
		_, err = parsed.Verify(sig, key, challenge, values)
		return err
	}(); err != nil {
		result = err.Error()
	}
	return fmt.Sprintf("%s\t%s\t%.12s\t%d\t%d\t%d\t%t\t%#016x", strings.Join(selected, " "), result, name,
		parsed.ResetCount, parsed.RestartCount, parsed.Clock, parsed.Safe, parsed.Firmware)
}

func directory(t *testing.T, dir string) map[string][]byte {
	files := map[string][]byte{}
	for _, name := range []string{evidence.QuoteFile, evidence.SignatureFile, evidence.PCRsFile, evidence.AKFile, evidence.IMAFile, evidence.FirmwareFile} {
		files[name] = corpus.Read(t, dir, name)
	}
	return files
}

// azureKey is the attestation key in the runtime data of an Azure machine.
func azureKey(t *testing.T) []byte {
	report := corpus.Read(t, "quote/trustee-az-snp/hcl-report.bin")
	at := bytes.Index(report, []byte(`{"keys"`))
	if at < 0 {
		t.Fatal("no keys in the report")
	}
	var v struct {
		Keys []struct{ Kid, N string }
	}
	if err := json.NewDecoder(bytes.NewReader(report[at:])).Decode(&v); err != nil {
		t.Fatal(err)
	}
	n, err := base64.RawURLEncoding.DecodeString(v.Keys[0].N)
	if err != nil || v.Keys[0].Kid != "HCLAkPub" {
		t.Fatal(v.Keys[0].Kid, err)
	}
	der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// The names that tpm2-tools wrote beside the keys are those that are computed.
func TestCorpusNames(t *testing.T) {
	for _, dir := range []string{"quote/keylime", "quote/swtpm-ibmtss-kvtpm-rsa", "quote/swtpm-imatest11-rsa", "vm-evidence/ovmf-tis-6.12cloud-imang", "vm-evidence/seabios-crb-6.1cloud-imasig"} {
		key, err := tpm.ParsePublic(corpus.Read(t, dir, "ak.pub"))
		if err != nil {
			t.Fatal(err)
		}
		if want := corpus.Read(t, dir, "ak.name"); !bytes.Equal(key.Name(), want) {
			t.Errorf("%s: name %x, want %x", dir, key.Name(), want)
		}
	}
}

// Every bundle of the corpus loses its evidence when one byte of the quote, the
// signature or a value is another.
func TestCorpusChangedBundles(t *testing.T) {
	for _, s := range []source{
		{bundle: "quote/go-tpm-tools/gce-cos-85-nonce9009.pb"},
		{bundle: "quote/trustee-az-snp/tpm-quote-v1.json", key: "HCLAkPub"},
	} {
		b, err := read(corpus.Read(t, s.bundle))
		if err != nil {
			t.Fatal(err)
		}
		key := b.AK
		if s.key != "" {
			key = azureKey(t)
		}
		quote := b.Quotes[len(b.Quotes)-1]
		for i, part := range [][]byte{quote.Attest, quote.Signature, quote.PCRs} {
			changed := bytes.Clone(part)
			changed[min(150, len(part)-1)] ^= 1 // in the first value
			bad := quote
			*[]*[]byte{&bad.Attest, &bad.Signature, &bad.PCRs}[i] = changed
			if got := row(t, bad, key, ""); strings.Contains(got, "\tyes\t") {
				t.Errorf("%s: part %d changed: %s", s.bundle, i, got)
			}
		}
	}
}
