package attest_test

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm"
	"diglim/tpm/tpmtest"
)

var ak = tpmtest.NewRSA(2048)

func file(name string) digest.Digest { return digest.Sum(digest.SHA256, []byte(name)) }

// A case is a host, what it measured, and the verifier that judges it.
type host struct {
	log    []tpmtest.Entry // as handed in
	real   []tpmtest.Entry // as it extended the PCRs before the quote
	pcrs   []int           // quoted
	width  digest.Algorithm
	nonce  []byte
	ak     []byte
	policy *policy.Policy
	last   *attest.Seen
	now    time.Time
	tpm    func(*tpmtest.Quote)
	change func(*attest.Evidence)
}

// honest is a host that is trusted: all its files are known, the quote covers
// its log but for two entries.
func honest(t *testing.T) host {
	known := &policy.Policy{Bank: digest.SHA256, PCR: policy.IMAPCR}
	for _, name := range []string{"init", "bash", "sshd", "late", "later"} {
		known.Known.Add(file(name), policy.Source{Package: name + "-1.0-1.x86_64", List: "0-file_list-rpm-" + name, Path: "/usr/bin/" + name, Signer: "vendor"})
	}
	sshd := tpmtest.NewEntry("/usr/bin/sshd", file("sshd"))
	sshd.Template, sshd.Signature = "ima-sig", []byte{3, 2, 4}
	log := []tpmtest.Entry{
		tpmtest.NewEntry("boot_aggregate", bootAggregate(digest.SHA256, 10)),
		tpmtest.NewEntry("/usr/bin/init", file("init")),
		tpmtest.NewEntry("/usr/bin/bash", file("bash")),
		tpmtest.NewEntry("/somewhere/else", file("bash")),
		sshd,
		tpmtest.NewEntry("/usr/bin/late", file("late")),
		tpmtest.NewEntry("/usr/bin/later", file("later")),
	}
	return host{
		log:    log,
		real:   log[:5],
		pcrs:   []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
		width:  digest.SHA1,
		nonce:  []byte("this session's challenge"),
		ak:     ak.Public(tpmtest.AKAttributes),
		policy: known,
	}
}

// pcr is the value of a PCR after reset and boot.
func pcr(alg digest.Algorithm, i int, measured ...tpmtest.Entry) digest.Digest {
	zero, _ := digest.New(alg, make([]byte, alg.Size()))
	if i < 10 {
		return digest.Sum(alg, fmt.Append(nil, "firmware ", i))
	}
	return tpmtest.Extend(zero, i, measured...)
}

func bootAggregate(alg digest.Algorithm, n int) digest.Digest {
	var all []byte
	for i := range n {
		all = pcr(alg, i).Append(all)
	}
	return digest.Sum(alg, all)
}

// evidence is what the host hands in.
func (h host) evidence(t *testing.T) attest.Evidence {
	bank := tpmtest.Bank{Alg: tpmtest.SHA256, PCRs: h.pcrs}
	values := tpm.Values{}
	for _, i := range h.pcrs {
		d := pcr(digest.SHA256, i, h.real...)
		bank.Values = append(bank.Values, d.Bytes())
		values[tpm.PCR{Bank: digest.SHA256, Index: i}] = d
	}
	made := tpmtest.NewQuote([]byte("this session's challenge"), bank)
	if h.tpm != nil {
		h.tpm(&made)
	}
	quote := made.Attest()
	q, err := tpm.ParseQuote(quote)
	if err != nil {
		t.Fatal(err)
	}
	dump, err := tpm.AppendValues(nil, q.Selection, values)
	if err != nil {
		t.Fatal(err)
	}
	ev := attest.Evidence{Quote: quote, Signature: ak.Sign(quote), PCRs: dump, IMALog: bytes.NewReader(tpmtest.Log(h.width, h.log...))}
	if h.change != nil {
		h.change(&ev)
	}
	return ev
}

// judge gives the verdict, which a fleet has to give too: one that remembers the
// honest host, and this one.
func (h host) judge(t *testing.T) attest.Verdict {
	t.Helper()
	ev, ch := h.evidence(t), attest.Challenge{Nonce: h.nonce, AK: h.ak, Last: h.last, Now: h.now}
	v := attest.Judge(ev, ch, h.policy)
	f := attest.NewFleet(h.policy)
	other := honest(t)
	f.Judge(other.evidence(t), attest.Challenge{Nonce: other.nonce, AK: other.ak})
	for range 2 {
		if by := f.Judge(ev, ch); !reflect.DeepEqual(by, v) {
			t.Errorf("alone: %+v\nin a fleet: %+v", v, by)
		}
	}
	return v
}

// quoted replaces values in a quote over PCRs 0 to 10, and signs it anew.
func quoted(t *testing.T, ev *attest.Evidence, other map[int]digest.Digest) {
	t.Helper()
	bank := tpmtest.Bank{Alg: tpmtest.SHA256}
	values := tpm.Values{}
	for i := range 11 {
		d, ok := other[i]
		if !ok {
			d = pcr(digest.SHA256, i)
		}
		bank.PCRs, bank.Values = append(bank.PCRs, i), append(bank.Values, d.Bytes())
		values[tpm.PCR{Bank: digest.SHA256, Index: i}] = d
	}
	ev.Quote = tpmtest.NewQuote([]byte("this session's challenge"), bank).Attest()
	ev.Signature = ak.Sign(ev.Quote)
	q, err := tpm.ParseQuote(ev.Quote)
	if err != nil {
		t.Fatal(err)
	}
	if ev.PCRs, err = tpm.AppendValues(nil, q.Selection, values); err != nil {
		t.Fatal(err)
	}
}

// content is all of a log.
func content(log io.ReaderAt) []byte {
	b, err := io.ReadAll(io.NewSectionReader(log, 0, 1<<40))
	if err != nil {
		panic(err)
	}
	return b
}

// add makes the host measure something before the quote.
func (h *host) add(e tpmtest.Entry) {
	h.real = append(slices.Clone(h.real), e)
	h.log = slices.Insert(slices.Clone(h.log), len(h.real)-1, e)
}

// expect wants an outcome, and exactly the findings with these codes.
func expect(t *testing.T, name string, v attest.Verdict, want attest.Outcome, codes ...attest.Code) {
	t.Helper()
	var got []attest.Code
	for _, f := range v.Findings {
		got = append(got, f.Code)
	}
	if v.Outcome != want || !slices.Equal(got, codes) {
		t.Errorf("%s: %v %v, want %v %v", name, v.Outcome, got, want, codes)
		for _, f := range v.Findings {
			t.Logf("  %d %s %s: %s", f.Entry, f.Code, f.Path, f.Why)
		}
	}
}

func TestHonestHostIsTrusted(t *testing.T) {
	for _, width := range []digest.Algorithm{digest.SHA1, digest.SHA256} {
		h := honest(t)
		h.width = width
		v := h.judge(t)
		expect(t, "honest", v, attest.Trusted)
		if v.Entries != 7 || v.Proven != 5 || len(v.Known) != 4 || len(v.Unproven) != 2 || v.Resets != 7 {
			t.Errorf("%+v", v)
		}
		if k := v.Known[2]; k.Entry != 4 || k.Path != "/somewhere/else" || k.Sources[0].Package != "bash-1.0-1.x86_64" {
			t.Errorf("%+v", k)
		}
	}
}

// A file that is in many packages is said to be from a few, and first from
// one that has it where it was measured.
func TestSourcesAreFew(t *testing.T) {
	h := honest(t)
	for i := range 1000 {
		h.policy.Known.Add(file("licence"), policy.Source{Package: fmt.Sprint("package ", i), Path: fmt.Sprint("/usr/share/licenses/", i)})
	}
	h.add(tpmtest.NewEntry("/usr/share/licenses/700", file("licence")))
	v := h.judge(t)
	expect(t, "licence", v, attest.Trusted)
	if k := v.Known[len(v.Known)-1]; len(k.Sources) != attest.MaxSources || k.Sources[0].Package != "package 700" || k.Sources[1].Package != "package 0" {
		t.Errorf("%+v", k.Sources)
	}
}

func TestZeroValuesDistrust(t *testing.T) {
	if (attest.Verdict{}).Outcome != attest.NotTrusted {
		t.Error("the zero verdict is not untrusted")
	}
	h := honest(t)
	empty := policy.Policy{Bank: digest.SHA256, PCR: policy.IMAPCR}
	for name, p := range map[string]*policy.Policy{"none": nil, "zero": {}, "without files": &empty, "without bank": {Known: h.policy.Known}} {
		h.policy = p
		expect(t, name, h.judge(t), attest.NotTrusted, attest.PolicyRejects)
	}
}

// Row 5: the policy is about a PCR that the quote does not cover.
func TestAttack05JudgedPCRIsNotQuoted(t *testing.T) {
	h := honest(t)
	h.pcrs = h.pcrs[:10]
	expect(t, "PCR 10 not quoted", h.judge(t), attest.CouldNotTell, attest.PCRNotQuoted)
	h = honest(t)
	h.policy.PCR = 11
	v := h.judge(t)
	if v.Outcome != attest.CouldNotTell {
		t.Errorf("a policy on PCR 11: %v", v.Outcome)
	}
	h = honest(t)
	h.policy.Bank = digest.SHA384
	if v := h.judge(t); v.Outcome != attest.CouldNotTell {
		t.Errorf("a policy on another bank: %v", v.Outcome)
	}
	h = honest(t)
	h.pcrs = []int{10}
	expect(t, "PCR 10 alone", h.judge(t), attest.CouldNotTell, attest.NoAggregatePCRs)
}

// Row 14, 46: what the verifier has to bring.
func TestAttack14NonceMissingOrAnother(t *testing.T) {
	h := honest(t)
	h.nonce = nil
	expect(t, "no nonce", h.judge(t), attest.CouldNotTell, attest.NoNonce)
	h.nonce = []byte("last session's challenge")
	expect(t, "another nonce", h.judge(t), attest.NotTrusted, attest.WrongNonce)
}

// Row 31.
func TestAttack31DataIsNotWhatWasHashed(t *testing.T) {
	h := honest(t)
	good := h.log[2]
	h.log = slices.Clone(h.log)
	h.log[2].Path = "/usr/bin/renamed"
	h.log[2].Hash = digest.Sum(h.width, good.TemplateData()).Bytes()
	v := h.judge(t)
	if v.Outcome != attest.NotTrusted || !has(v, attest.WrongHash) || !has(v, attest.DoesNotReplay) {
		t.Errorf("%+v", v.Findings)
	}
	// Nobody but the kernel extends the PCR with the data that it logs; if it
	// did with the changed data, the template hash alone tells.
	h = honest(t)
	e := tpmtest.NewEntry("/usr/bin/bash", file("bash"))
	e.Hash = bytes.Repeat([]byte{1}, 20)
	h.add(e)
	expect(t, "replays, but has another hash", h.judge(t), attest.NotTrusted, attest.WrongHash)
}

func has(v attest.Verdict, code attest.Code) bool {
	return slices.ContainsFunc(v.Findings, func(f attest.Finding) bool { return f.Code == code })
}

// Row 32: a template hash in the set of known digests makes no file known.
func TestAttack32TemplateHashIsNoFileDigest(t *testing.T) {
	for _, width := range []digest.Algorithm{digest.SHA1, digest.SHA256} {
		h := honest(t)
		h.width = width
		evil := tpmtest.NewEntry("/usr/bin/evil", file("evil"))
		h.add(evil)
		h.policy.Known.Add(digest.Sum(width, evil.TemplateData()), policy.Source{Package: "evil"})
		v := h.judge(t)
		expect(t, "template hash known", v, attest.NotTrusted, attest.UnknownFile)
		if f := v.Findings[0]; f.Entry != 6 || f.Path != "/usr/bin/evil" || f.Digest != file("evil") {
			t.Errorf("%+v", f)
		}
	}
}

// Row 33: the same bytes under another algorithm are another digest.
func TestAttack33AlgorithmIsPartOfTheDigest(t *testing.T) {
	evil := file("evil")
	for _, c := range []struct {
		name            string
		known, measured digest.Digest
	}{
		{"sm3 known, sha256 measured", as(digest.SM3, evil), evil},
		{"sha3-256 known, sha256 measured", as(digest.SHA3_256, evil), evil},
		{"sha256 known, sha3-256 measured", evil, as(digest.SHA3_256, evil)},
		{"sha256 known, its first bytes measured as sha1", evil, as(digest.SHA1, evil)},
		{"sha256 known, its first bytes measured as md5", evil, as(digest.MD5, evil)},
		{"sha1 known, measured as rmd160", as(digest.SHA1, evil), as(digest.RIPEMD160, evil)},
	} {
		h := honest(t)
		h.policy.Known.Add(c.known, policy.Source{Package: "evil"})
		h.add(tpmtest.NewEntry("/usr/bin/evil", c.measured))
		expect(t, c.name, h.judge(t), attest.NotTrusted, attest.UnknownFile)
		h = honest(t)
		h.policy.Known.Add(c.measured, policy.Source{Package: "good"})
		h.add(tpmtest.NewEntry("/usr/bin/good", c.measured))
		expect(t, c.name+", but right", h.judge(t), attest.Trusted)
	}
}

// as is the first bytes of a digest under another algorithm.
func as(alg digest.Algorithm, d digest.Digest) digest.Digest {
	e, err := digest.New(alg, d.Bytes()[:alg.Size()])
	if err != nil {
		panic(err)
	}
	return e
}

func violation(path string, d digest.Digest) tpmtest.Entry {
	e := tpmtest.NewEntry(path, d)
	e.Violation = true
	return e
}

// Row 35: a violation replays, and is judged.
func TestAttack35ViolationIsJudged(t *testing.T) {
	zeros, _ := digest.New(digest.SHA256, make([]byte, 32))
	h := honest(t)
	h.add(violation("/bin/sh", zeros))
	v := h.judge(t)
	expect(t, "violation", v, attest.NotTrusted, attest.Violation)
	if v.Proven != 6 || v.Violations != 1 || v.Findings[0].Path != "/bin/sh" {
		t.Errorf("%+v", v)
	}
	h.policy.ReportViolations = true
	expect(t, "violation, to be reported", h.judge(t), attest.Trusted, attest.Violation)
}

// Row 36: a violation that extended zeros, one with data, and a measured file
// that is passed off as one.
func TestAttack36ViolationIsNotWhatItSays(t *testing.T) {
	h := honest(t)
	h.policy.ReportViolations = true
	h.add(violation("/bin/sh", file("evil")))
	expect(t, "with data", h.judge(t), attest.NotTrusted, attest.Violation, attest.ViolationData)

	h = honest(t)
	h.policy.ReportViolations = true
	h.add(tpmtest.NewEntry("/bin/evil", file("evil")))
	h.log[5].Violation = true
	v := h.judge(t)
	if v.Outcome != attest.NotTrusted || !has(v, attest.DoesNotReplay) {
		t.Errorf("a measured file passed off as a violation: %+v", v.Findings)
	}
}

// Row 37: ahead of the quote is honest, and says so; behind is not.
func TestAttack37LogAheadOrBehind(t *testing.T) {
	h := honest(t)
	h.log = append(slices.Clone(h.log), tpmtest.NewEntry("/usr/bin/evil", file("evil")))
	v := h.judge(t)
	expect(t, "unknown file in the tail", v, attest.Trusted, attest.UnknownFile)
	if f := v.Findings[0]; !f.Unproven || f.Entry != 8 || len(v.Unproven) != 3 {
		t.Errorf("%+v, %+v", f, v.Unproven)
	}
	h = honest(t)
	h.real = h.log[:0]
	expect(t, "never extended", h.judge(t), attest.NotTrusted, attest.NotExtended)
	h = honest(t)
	h.log = h.log[:4]
	expect(t, "behind the quote", h.judge(t), attest.NotTrusted, attest.DoesNotReplay)
	h = honest(t)
	h.log = h.log[1:]
	expect(t, "cut at the front", h.judge(t), attest.NotTrusted, attest.DoesNotReplay)
	h = honest(t)
	h.log = slices.Delete(slices.Clone(h.log), 2, 3)
	expect(t, "an entry removed", h.judge(t), attest.NotTrusted, attest.DoesNotReplay)
	h = honest(t)
	h.real = slices.Concat(h.real, h.real[4:])
	h.log = slices.Insert(slices.Clone(h.log), 5, h.log[4])
	expect(t, "an entry twice", h.judge(t), attest.Trusted)
}

// Row 40: entries on another PCR count only by that PCR.
func TestAttack40EntriesOnAnotherPCR(t *testing.T) {
	evil := tpmtest.NewEntry("/usr/bin/evil", file("evil"))
	h := honest(t)
	h.add(evil)
	h.log[5].PCR = 11
	v := h.judge(t)
	if v.Outcome != attest.NotTrusted || !has(v, attest.DoesNotReplay) {
		t.Errorf("an entry hidden under PCR 11: %+v", v.Findings)
	}
	evil.PCR = 11
	h = honest(t)
	h.add(evil)
	expect(t, "PCR 11, not quoted", h.judge(t), attest.CouldNotTell, attest.SecondPCR, attest.PCRNotQuoted, attest.UnknownFile)
	h.pcrs = append(h.pcrs, 11)
	expect(t, "PCR 11, quoted", h.judge(t), attest.NotTrusted, attest.SecondPCR, attest.UnknownFile)
	h.policy.Known.Add(file("evil"), policy.Source{Package: "good after all"})
	v = h.judge(t)
	expect(t, "PCR 11, quoted and known", v, attest.Trusted, attest.SecondPCR)
	if v.Proven != 6 || len(v.Unproven) != 2 {
		t.Errorf("%+v", v)
	}
	h.log[5].Path = "/usr/bin/renamed"
	expect(t, "PCR 11, quoted and changed", h.judge(t), attest.NotTrusted, attest.SecondPCR, attest.DoesNotReplay)
}

// The boot aggregate comes from the quoted PCRs, never from a list.
func TestBootAggregate(t *testing.T) {
	start := func(d digest.Digest) host {
		h := honest(t)
		h.log = slices.Clone(h.log)
		h.log[0].Digest = d
		h.real = h.log[:5]
		return h
	}
	h := start(file("another boot"))
	h.policy.Known.Add(file("another boot"), policy.Source{Package: "trusted boot"})
	v := h.judge(t)
	expect(t, "another, in a list", v, attest.NotTrusted, attest.WrongAggregate)
	if f := v.Findings[0]; f.Expected != bootAggregate(digest.SHA256, 10) || f.Digest != file("another boot") {
		t.Errorf("%+v", f)
	}
	expect(t, "of PCRs 0 to 7", start(bootAggregate(digest.SHA256, 8)).judge(t), attest.NotTrusted, attest.WrongAggregate)
	expect(t, "sha1, whose bank is not quoted", start(bootAggregate(digest.SHA1, 8)).judge(t), attest.CouldNotTell, attest.NoAggregatePCRs)
	h = honest(t)
	h.log, h.real = h.log[1:], h.real[1:]
	expect(t, "none", h.judge(t), attest.CouldNotTell, attest.NoAggregate)
	h = honest(t)
	h.log, h.real = h.log[:1], h.real[:1]
	expect(t, "nothing else", h.judge(t), attest.CouldNotTell, attest.NothingMeasured)
	h = honest(t)
	h.add(tpmtest.NewEntry("boot_aggregate", file("a file of that name")))
	expect(t, "a file of that name", h.judge(t), attest.NotTrusted, attest.WrongAggregate)
}

// Row 46: with a piece missing or unreadable there is no trust.
func TestAttack46MissingEvidence(t *testing.T) {
	garbage := []byte("garbage")
	bad := []struct {
		name   string
		change func(*attest.Evidence)
		want   attest.Outcome
	}{
		{"no quote", func(e *attest.Evidence) { e.Quote = nil }, attest.CouldNotTell},
		{"no signature", func(e *attest.Evidence) { e.Signature = nil }, attest.CouldNotTell},
		{"no values", func(e *attest.Evidence) { e.PCRs = nil }, attest.CouldNotTell},
		{"no log", func(e *attest.Evidence) { e.IMALog = nil }, attest.CouldNotTell},
		{"nothing", func(e *attest.Evidence) { *e = attest.Evidence{} }, attest.CouldNotTell},
		{"bad quote", func(e *attest.Evidence) { e.Quote = e.Quote[:50] }, attest.CouldNotTell},
		{"not a quote", func(e *attest.Evidence) { e.Quote = garbage }, attest.NotTrusted},
		{"bad signature", func(e *attest.Evidence) { e.Signature = e.Signature[:50] }, attest.CouldNotTell},
		{"bad values", func(e *attest.Evidence) { e.PCRs = garbage }, attest.CouldNotTell},
		{"values of zero", func(e *attest.Evidence) { e.PCRs = make([]byte, 11*32) }, attest.NotTrusted},
		{"bad log", func(e *attest.Evidence) { e.IMALog = bytes.NewReader(garbage) }, attest.CouldNotTell},
		{"log with a bad end", func(e *attest.Evidence) { e.IMALog = bytes.NewReader(append(content(e.IMALog), garbage...)) }, attest.CouldNotTell},
		{"signature of another quote", func(e *attest.Evidence) { e.Signature = ak.Sign(garbage) }, attest.NotTrusted},
	}
	if len(bad) != 13 {
		t.Errorf("%d bad cases", len(bad))
	}
	for _, c := range bad {
		h := honest(t)
		h.change = c.change
		if v := h.judge(t); v.Outcome != c.want || len(v.Findings) == 0 {
			t.Errorf("%s: %v %+v", c.name, v.Outcome, v.Findings)
		}
	}
	h := honest(t)
	h.ak = nil
	expect(t, "no key", h.judge(t), attest.CouldNotTell, attest.NoKey)
	own := h.evidence(t)
	own.AK = ak.PEM()
	v := attest.Judge(own, attest.Challenge{Nonce: h.nonce}, h.policy)
	expect(t, "the key that came with the evidence", v, attest.CouldNotTell, attest.NoKey)
	if !v.Quoted || v.Proven == 0 {
		t.Errorf("with the key that came with the evidence nothing was verified: %+v", v)
	}
	h.ak = []byte("garbage, not a key")
	expect(t, "garbage for a key", h.judge(t), attest.CouldNotTell, attest.Malformed)
	h.ak = ak.Public(tpmtest.AKAttributes)[:40]
	expect(t, "half a key", h.judge(t), attest.CouldNotTell, attest.Malformed)
	h.ak = ak.Public(tpmtest.AKAttributes &^ (1 << 16))
	expect(t, "a key that signs anything", h.judge(t), attest.NotTrusted, attest.KeyNotSuitable)
	h.ak = tpmtest.NewRSA(2048).PEM()
	expect(t, "another host's key", h.judge(t), attest.NotTrusted, attest.BadSignature)
	h = honest(t)
	e := tpmtest.NewEntry("/usr/bin/bash", file("bash"))
	e.Template = "ima-unheard-of"
	h.add(e)
	expect(t, "unknown template", h.judge(t), attest.CouldNotTell, attest.UnknownTemplate)
	e = violation("/usr/bin/bash", file("bash"))
	e.Template = "ima-unheard-of"
	h.add(e)
	expect(t, "and a violation in it", h.judge(t), attest.NotTrusted, attest.UnknownTemplate, attest.UnknownTemplate, attest.Violation)
}

// Without a good quote the log is read all the same, and nothing of it counts.
func TestAllFindings(t *testing.T) {
	h := honest(t)
	h.add(tpmtest.NewEntry("/usr/bin/bash", file("bash, changed")))
	h.add(tpmtest.NewEntry("/usr/bin/evil", file("evil")))
	h.nonce = []byte("another")
	v := h.judge(t)
	expect(t, "wrong nonce, unknown files", v, attest.NotTrusted, attest.WrongNonce, attest.UnknownFile, attest.UnknownFile)
	if p := v.Findings[1].Packaged; len(p) != 1 || p[0].Package != "bash-1.0-1.x86_64" || p[0].Digest != file("bash") {
		t.Errorf("%+v", p)
	}
	if v.Proven != 0 || len(v.Known) != 0 || v.Resets != 0 {
		t.Errorf("%+v", v)
	}
	if again := h.judge(t); !reflect.DeepEqual(v.Findings, again.Findings) {
		t.Error("the same arguments give another verdict")
	}
}

func TestPathIsSafeToPrint(t *testing.T) {
	for in, want := range map[attest.Path]string{
		"/usr/bin/true":  "/usr/bin/true",
		"/tmp/ä b":       "/tmp/ä b",
		"/tmp/\x1b[2J\n": `/tmp/\x1b[2J\x0a`,
		"/tmp/\xff":      `/tmp/\xff`,
		`/tmp/\xff`:      `/tmp/\\xff`,
		"/tmp/\u202etxt": `/tmp/\xe2\x80\xaetxt`,
	} {
		if got := in.String(); got != want {
			t.Errorf("%q prints as %s, want %s", string(in), got, want)
		}
	}
}

// A hostile log costs memory in proportion to its size: most when every entry
// is a finding.
func TestMemoryCeiling(t *testing.T) {
	h := honest(t)
	h.change = func(e *attest.Evidence) {
		e.IMALog = bytes.NewReader(bytes.Repeat(tpmtest.Log(digest.SHA1, tpmtest.NewEntry("/usr/bin/bash", file("evil"))), 50_000))
	}
	ev := h.evidence(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	v := attest.Judge(ev, attest.Challenge{Nonce: h.nonce, AK: h.ak}, h.policy)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if v.Outcome != attest.NotTrusted || len(v.Findings)+v.Omitted.Findings != 50_001 || len(v.Findings) < 10_000 || v.Omitted.Unproven == 0 {
		t.Errorf("%v, %d findings", v.Outcome, len(v.Findings))
	}
	if kept := int(after.HeapAlloc) - int(before.HeapAlloc); kept > 10*len(content(ev.IMALog)) {
		t.Errorf("%d bytes kept for a log of %d", kept, len(content(ev.IMALog)))
	}
}

func BenchmarkJudge(b *testing.B) {
	h := host{policy: &policy.Policy{Bank: digest.SHA256, PCR: policy.IMAPCR}}
	h.policy.Known.Add(file("bash"), policy.Source{Package: "bash"})
	ev := attest.Evidence{IMALog: bytes.NewReader(bytes.Repeat(tpmtest.Log(digest.SHA1, tpmtest.NewEntry("/usr/bin/bash", file("bash"))), 100_000))}
	b.ReportAllocs()
	for b.Loop() {
		attest.Judge(ev, attest.Challenge{}, h.policy)
	}
}
