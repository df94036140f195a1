package attest_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm"
	"diglim/tpm/imalog"
	"diglim/tpm/tpmtest"
)

// second wants a program to ask for its opinion: a test is skipped without, and with
// CI=true in the environment it fails.
func second(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// accepts runs a program, and reports whether it ended well.
func accepts(t *testing.T, name string, args ...string) (string, bool) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err == nil
}

var succeeded = regexp.MustCompile(`PCR-10: succeed at entry (\d+)`)

// evmctl says up to which entry a log arrives at a value of PCR 10. Without being
// told it extends zeros for a violation, and no kernel does.
func evmctl(t *testing.T, log []byte, pcr10 digest.Digest) (entries int, ok bool) {
	t.Helper()
	dir := t.TempDir()
	var pcrs []byte
	for i := range tpm.PCRCount {
		value := make([]byte, pcr10.Algorithm().Size())
		if i == 10 {
			value = pcr10.Bytes()
		}
		pcrs = fmt.Appendf(pcrs, "PCR-%02d: % x\n", i, value)
	}
	if err := errors.Join(os.WriteFile(dir+"/pcrs", pcrs, 0o644), os.WriteFile(dir+"/log", log, 0o644)); err != nil {
		t.Fatal(err)
	}
	out, ok := accepts(t, "evmctl", "-v", "ima_measurement", "--ignore-violations", "--pcrs", pcr10.Algorithm().String()+","+dir+"/pcrs", dir+"/log")
	m := succeeded.FindStringSubmatch(out)
	if ok != (m != nil) {
		t.Errorf("evmctl ends well: %v, and says %q", ok, m)
	}
	if m != nil {
		entries, _ = strconv.Atoi(m[1])
	}
	return entries, ok
}

// What a log arrives at, and with which entry, evmctl says too. It knows the
// logs with SHA-1 hashes of the host's byte order.
func TestEvmctlAgrees(t *testing.T) {
	second(t, "evmctl")
	agree := func(name string, log []byte, v attest.Verdict, pcr10 digest.Digest) {
		t.Helper()
		entries, ok := evmctl(t, log, pcr10)
		if arrives := v.Log == attest.UpToQuote || v.Log == attest.AheadOfQuote; arrives != ok || ok && entries != v.Proven {
			t.Errorf("%s: %q up to %d, evmctl: %v up to %d", name, v.Log, v.Proven, ok, entries)
		}
	}
	signed := tpmtest.Entry{PCR: 10, Template: "ima-sig", Digest: file("bash"), Path: "/a b", Signature: attribute(3, 2, digest.SHA256, []byte("sig"))}
	for name, change := range map[string]func(*host){
		"honest":                  func(h *host) {},
		"nothing after the quote": func(h *host) { h.log = h.log[:5] },
		"behind":                  func(h *host) { h.log = h.log[:4] },
		"without its first":       func(h *host) { h.log = h.log[1:] },
		"one removed":             func(h *host) { h.log = slices.Delete(slices.Clone(h.log), 2, 3) },
		"one twice":               func(h *host) { h.log = slices.Insert(slices.Clone(h.log), 2, h.log[2]) },
		"another path":            func(h *host) { h.log = slices.Clone(h.log); h.log[2].Path = "/x" },
		"another digest":          func(h *host) { h.log = slices.Clone(h.log); h.log[2].Digest = file("evil") },
		"two exchanged":           func(h *host) { h.log = slices.Clone(h.log); h.log[2], h.log[3] = h.log[3], h.log[2] },
		"signed":                  func(h *host) { h.add(signed) },
		"a buffer":                func(h *host) { h.add(withFields("ima-buf", tpmtest.Tagged(file("buffer")), []byte("buffer"))) },
		"a violation":             func(h *host) { h.add(violation("/x", imalog.Zero(digest.SHA256))) },
		"a violation not extended": func(h *host) {
			h.log = slices.Insert(slices.Clone(h.log), 2, violation("/x", imalog.Zero(digest.SHA256)))
		},
	} {
		h := honest(t)
		change(&h)
		log := tpmtest.Log(digest.SHA1, h.log...)
		agree(name, log, h.judge(t), pcr(digest.SHA256, 10, h.real...))
	}
	for _, r := range []struct{ dir, quote, log string }{
		{"vm-evidence/ovmf-tis-6.12cloud-imang", "quote", "ima.bin"}, {"vm-evidence/ovmf-tis-6.12cloud-imang", "stale", "stale.ima.bin"},
		{"vm-evidence/ovmf-tis-6.12cloud-imang", "viol", "viol.ima.bin"}, {"vm-evidence/ovmf-tis-6.12cloud-imang", "viol", "ima.bin"},
		{"vm-evidence/seabios-crb-6.1cloud-imasig", "quote", "ima.bin"}, {"vm-evidence/seabios-crb-6.1cloud-imasig", "stale", "stale.ima.bin"},
		{"vm-evidence/seabios-crb-6.1cloud-imasig", "viol", "viol.ima.bin"}, {"vm-evidence/seabios-crb-6.1cloud-imasig", "stale", "ima.bin"},
		{"quote/swtpm-ibmtss-kvtpm-rsa", "quote-sha1", "../../ima/ibmtss/sha1.log"}, {"quote/swtpm-ibmtss-kvtpm-rsa", "quote-sha256", "../../ima/ibmtss/sha1.log"},
	} {
		ev, nonce := evidenceOf(t, r.dir, r.quote)
		log := corpus.Read(t, r.dir, r.log)
		ev.IMALog = bytes.NewReader(log)
		for _, bank := range []digest.Algorithm{digest.SHA1, digest.SHA256} {
			q, err := tpm.ParseQuote(ev.Quote)
			if err != nil {
				t.Fatal(err)
			}
			values, err := tpm.ParseValues(ev.PCRs, q.Selection)
			if err != nil {
				t.Fatal(err)
			}
			ten, ok := values[tpm.PCR{Bank: bank, Index: 10}]
			if !ok {
				continue
			}
			v := attest.Judge(ev, attest.Challenge{Nonce: nonce, AK: corpus.Read(t, r.dir, "ak.pub")},
				&policy.Policy{Bank: bank, PCR: policy.IMAPCR, Known: *files(log, digest.Digest{})})
			agree(fmt.Sprint(r, bank), log, v, ten)
		}
	}
}

func evidenceOf(t *testing.T, dir, quote string) (attest.Evidence, []byte) {
	t.Helper()
	nonce, err := hex.DecodeString(string(bytes.TrimSpace(corpus.Read(t, dir, "nonce.hex"))))
	if err != nil {
		t.Fatal(err)
	}
	return attest.Evidence{Quote: corpus.Read(t, dir, quote+".msg"), Signature: corpus.Read(t, dir, quote+".sig"), PCRs: corpus.Read(t, dir, quote+".pcrs")}, nonce
}

// A quote that is good is good to tpm2_checkquote, and one that was changed
// anywhere is to neither.
func TestCheckquoteAgrees(t *testing.T) {
	second(t, "tpm2_checkquote")
	judged := 0
	agree := func(name string, ev attest.Evidence, key string, nonce []byte, want bool) {
		t.Helper()
		judged++
		dir := t.TempDir()
		if err := errors.Join(os.WriteFile(dir+"/msg", ev.Quote, 0o644), os.WriteFile(dir+"/sig", ev.Signature, 0o644), os.WriteFile(dir+"/pcrs", ev.PCRs, 0o644)); err != nil {
			t.Fatal(err)
		}
		out, theirs := accepts(t, "tpm2_checkquote", "-u", key, "-m", dir+"/msg", "-s", dir+"/sig", "-f", dir+"/pcrs", "-g", "sha256", "-q", hex.EncodeToString(nonce))
		ak, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}
		known := policy.Files{}
		known.Add(file("a file"), policy.Source{})
		v := attest.Judge(ev, attest.Challenge{Nonce: nonce, AK: ak}, &policy.Policy{Bank: digest.SHA256, PCR: policy.IMAPCR, Known: known})
		if v.Quoted != want || theirs != want {
			t.Errorf("%s: we say %v, tpm2_checkquote %v, and it is %v: %s", name, v.Quoted, theirs, want, out)
		}
	}
	flipped := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	for _, r := range []struct{ dir, quote, key string }{
		{"vm-evidence/ovmf-tis-6.12cloud-imang", "quote", "ak.pem"}, {"vm-evidence/ovmf-tis-6.12cloud-imang", "quote-ecc", "ake.pub"},
		{"vm-evidence/ovmf-tis-6.12cloud-imang", "stale", "ak.pem"}, {"vm-evidence/ovmf-tis-6.12cloud-imang", "viol", "ak.pem"},
		{"vm-evidence/seabios-crb-6.1cloud-imasig", "quote", "ak.pem"}, {"vm-evidence/seabios-crb-6.1cloud-imasig", "quote-ecc", "ake.pub"},
		{"quote/swtpm-ibmtss-kvtpm-rsa", "quote-sha1", "ak.pem"}, {"quote/swtpm-ibmtss-kvtpm-rsa", "quote-sha256", "ak.pem"},
		{"quote/swtpm-imatest11-rsa", "quote-sha1", "ak.pem"}, {"quote/swtpm-imatest11-rsa", "quote-sha256", "ak.pem"},
	} {
		ev, nonce := evidenceOf(t, r.dir, r.quote)
		key := filepath.Join(corpus.Path(t, r.dir), r.key)
		agree(fmt.Sprint(r), ev, key, nonce, true)
		agree(fmt.Sprint(r, "nonce"), ev, key, flipped(nonce, 0), false)
		for name, b := range map[string]attest.Evidence{
			"magic":     {Quote: flipped(ev.Quote, 0), Signature: ev.Signature, PCRs: ev.PCRs},
			"quote":     {Quote: flipped(ev.Quote, len(ev.Quote)-1), Signature: ev.Signature, PCRs: ev.PCRs},
			"signature": {Quote: ev.Quote, Signature: flipped(ev.Signature, len(ev.Signature)-1), PCRs: ev.PCRs},
		} {
			agree(fmt.Sprint(r, name), b, key, nonce, false)
		}
	}
	if judged != 50 {
		t.Errorf("%d judged", judged)
	}
}

// Whether a signature in the log is a key's, evmctl says too.
func TestEvmctlAgreesOnSignatures(t *testing.T) {
	second(t, "evmctl")
	d := file("signed")
	for _, k := range []signingKey{newSigningKey(t, "vendor", newRSA(t), keyID), newSigningKey(t, "vendor", newEC(t), keyID)} {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/cert", k.cert.Raw, 0o644); err != nil {
			t.Fatal(err)
		}
		// By the id that evmctl gives the key, which it looks its keys up by.
		out, _ := accepts(t, "evmctl", "-v", "ima_measurement", "--verify-sig", "--key", dir+"/cert", "/dev/null")
		m := regexp.MustCompile(`keyid: ([0-9a-f]{8})`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no key id: %s", out)
		}
		id, err := hex.DecodeString(m[1])
		if err != nil {
			t.Fatal(err)
		}
		named := func(by signingKey, over digest.Digest) []byte {
			sig := attribute(3, 2, digest.SHA256, by.over(t, over))
			copy(sig[3:7], id)
			return sig
		}
		stranger := newSigningKey(t, "stranger", newRSA(t), keyID)
		for name, sig := range map[string][]byte{
			"good":            named(k, d),
			"of another file": named(k, file("evil")),
			"by another":      named(stranger, d),
			"of another key":  attribute(3, 2, digest.SHA256, []byte("sig")),
		} {
			h := honest(t)
			h.policy.Signers = parseSigners(t, k.cert.Raw)
			h.add(withFields("ima-sig", tpmtest.Tagged(d), sig))
			if err := os.WriteFile(dir+"/log", tpmtest.Log(digest.SHA1, h.log...), 0o644); err != nil {
				t.Fatal(err)
			}
			out, _ := accepts(t, "evmctl", "-v", "ima_measurement", "--verify-sig", "--key", dir+"/cert", dir+"/log")
			theirs := bytes.Contains([]byte(out), []byte("/usr/bin/signed: verification is OK"))
			if ours := h.judge(t).Outcome == attest.Trusted; ours != theirs || ours != (name == "good") {
				t.Errorf("%s: we say %v, evmctl %v: %s", name, ours, theirs, out)
			}
		}
	}
}
