package attest_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm/imalog"
)

// TestCorpus keeps in testdata/corpus.tsv what becomes of real quotes with
// their logs: once by a policy that knows every file of the log, once by one
// that knows every file but the last proven one.
func TestCorpus(t *testing.T) {
	const quotes, guests, ima = "quote", "vm-evidence", "ima"
	type run struct{ dir, quote, key, log string }
	var runs []run
	for _, guest := range []string{"ovmf-tis-6.12cloud-imang", "seabios-crb-6.1cloud-imasig"} {
		dir := filepath.Join(guests, guest)
		runs = append(runs,
			run{dir, "quote", "ak.pub", dir + "/ima.bin"},
			run{dir, "quote", "ak.pub", dir + "/ima.ascii"},
			run{dir, "quote-ecc", "ake.pub", dir + "/ima.bin"}, // read before this quote
			run{dir, "quote-ecc", "ake.pub", dir + "/stale.ima.bin"},
			run{dir, "stale", "ak.tpm2b", dir + "/stale.ima.bin"},
			run{dir, "viol", "ak.pem", dir + "/viol.ima.bin"})
	}
	runs = append(runs, run{filepath.Join(guests, "ovmf-tis-6.12cloud-imang"), "quote", "ak.pub", filepath.Join(guests, "ovmf-tis-6.12cloud-imang", "ima.bin.sha256")})
	for _, quote := range []string{"quote-sha1", "quote-sha256"} {
		dir := filepath.Join(quotes, "swtpm-ibmtss-kvtpm-rsa")
		runs = append(runs, run{dir, quote, "ak.pub", ima + "/ibmtss/sha1.log"}, run{dir, quote, "ak.pub", ima + "/ibmtss/sha256.log"})
		dir = filepath.Join(quotes, "swtpm-imatest11-rsa")
		runs = append(runs, run{dir, quote, "ak.pub", ima + "/ibmtss/imatest-11.log"})
	}
	var b strings.Builder
	fmt.Fprintln(&b, "evidence\tlog\tentries\tproven\tstate\tviolations\tall known\tfindings\tfirmware PCRs\tall but one known")
	for _, r := range runs {
		nonce, err := hex.DecodeString(string(bytes.TrimSpace(corpus.Read(t, r.dir, "nonce.hex"))))
		if err != nil {
			t.Fatal(err)
		}
		log := corpus.Read(t, r.log)
		ev := attest.Evidence{
			Quote:     corpus.Read(t, r.dir, r.quote+".msg"),
			Signature: corpus.Read(t, r.dir, r.quote+".sig"),
			PCRs:      corpus.Read(t, r.dir, r.quote+".pcrs"),
			IMALog:    bytes.NewReader(log),
		}
		judge := func(known *policy.Files) attest.Verdict {
			bank := digest.SHA256
			if strings.HasSuffix(r.quote, "sha1") {
				bank = digest.SHA1
			}
			return attest.Judge(ev, attest.Challenge{Nonce: nonce, AK: corpus.Read(t, r.dir, r.key)}, &policy.Policy{Bank: bank, PCR: policy.IMAPCR, Known: *known})
		}
		all := judge(files(log, digest.Digest{}))
		var codes []string
		for _, f := range all.Findings {
			codes = append(codes, string(f.Code))
		}
		explained := 0
		if filepath.Dir(r.dir) == guests {
			ev.Firmware = corpus.Read(t, r.dir, "bios.bin")
			v := attest.Judge(ev, attest.Challenge{Nonce: nonce, AK: corpus.Read(t, r.dir, r.key)},
				&policy.Policy{Bank: digest.SHA256, PCR: policy.IMAPCR, Known: *files(log, digest.Digest{}), Firmware: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}})
			explained = len(v.Firmware)
			if v.Outcome > all.Outcome {
				t.Errorf("%s: %v, and %v with the firmware's log", r.quote, all.Outcome, v.Outcome)
			}
		}
		but := attest.CouldNotTell
		if n := len(all.Known); n > 0 {
			but = judge(files(log, all.Known[n-1].Digest)).Outcome
		}
		fmt.Fprintf(&b, "%s/%s\t%s\t%d\t%d\t%s\t%d\t%s\t%s\t%d\t%s\n", filepath.Base(r.dir), r.quote, filepath.Base(r.log),
			all.Entries, all.Proven, all.Log, all.Violations, all.Outcome, strings.Join(codes, " "), explained, but)
	}
	corpus.Table(t, "testdata/corpus.tsv", b.String())
}

// files is the set of all files of a log but one.
func files(log []byte, but digest.Digest) *policy.Files {
	var known policy.Files
	known.Add(digest.Sum(digest.SHA256, []byte("a file of no log")), policy.Source{})
	r, _, err := imalog.Binary(bytes.NewReader(log))
	if err != nil {
		return &known
	}
	layouts, err := imalog.Layouts(r)
	if err != nil {
		return &known
	}
	for e, err := range imalog.Entries(r, layouts[0]) {
		if err != nil {
			break
		}
		if !e.Digest.IsZero() && e.Digest != but {
			known.Add(e.Digest, policy.Source{List: "corpus", Path: string(e.Path)})
		}
	}
	return &known
}
