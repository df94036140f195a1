package attest_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm"
	"diglim/tpm/tpmtest"
)

// Row 15: the nonce in the evidence is compared with the session's; that it is
// echoed proves nothing.
func TestAttack15OldEvidenceInANewSession(t *testing.T) {
	h := honest(t)
	old := h.evidence(t)
	v := attest.Judge(old, attest.Challenge{Nonce: []byte("the next session's challenge"), AK: h.ak}, h.policy)
	expect(t, "old evidence", v, attest.NotTrusted, attest.WrongNonce)
	if v.Quoted || v.Seen != nil || v.Proven != 0 {
		t.Errorf("%+v", v.TPM)
	}
}

// seen is what the honest host's TPM was seen to be, a day before now.
func seen(t *testing.T, h *host) {
	h.now = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	v := h.judge(t)
	if v.Outcome != attest.Trusted || v.Seen == nil {
		t.Fatalf("%+v", v)
	}
	h.last = v.Seen
	h.now = h.now.Add(24 * time.Hour)
}

// Row 17.
func TestAttack17CountersWentBack(t *testing.T) {
	for name, change := range map[string]func(*attest.Seen){
		"clock":    func(s *attest.Seen) { s.Clock += 48 * 3_600_000 },
		"resets":   func(s *attest.Seen) { s.ResetCount++ },
		"restarts": func(s *attest.Seen) { s.RestartCount++ },
	} {
		h := honest(t)
		h.tpm = func(q *tpmtest.Quote) { q.Clock = 100 * 3_600_000 }
		seen(t, &h)
		expect(t, name+", as it was", h.judge(t), attest.Trusted)
		change(h.last)
		v := h.judge(t)
		expect(t, name, v, attest.NotTrusted, attest.TPMWentBack)
		if v.Seen != nil {
			t.Errorf("%s: an old state is to be remembered", name)
		}
	}
}

// Row 18: what happens to honest hosts keeps them trusted, and is said.
func TestAttack18RebootsPass(t *testing.T) {
	for name, c := range map[string]struct {
		tpm   func(*tpmtest.Quote)
		codes []attest.Code
	}{
		"continued":  {func(q *tpmtest.Quote) { q.Clock++ }, nil},
		"resumed":    {func(q *tpmtest.Quote) { q.Clock++; q.Restarts++ }, nil},
		"rebooted":   {func(q *tpmtest.Quote) { q.Clock++; q.Resets++; q.Restarts = 0 }, nil},
		"lost power": {func(q *tpmtest.Quote) { q.Clock -= 1000; q.Resets++; q.Restarts, q.Safe = 0, 0 }, nil},
		"was cleared": {func(q *tpmtest.Quote) { q.Clock = 3_600_000; q.Resets, q.Restarts = 0, 0 },
			[]attest.Code{attest.TPMCleared}},
	} {
		h := honest(t)
		start := func(q *tpmtest.Quote) { q.Clock = 100 * 3_600_000 }
		h.tpm = start
		seen(t, &h)
		h.tpm = func(q *tpmtest.Quote) { start(q); c.tpm(q) }
		v := h.judge(t)
		expect(t, name, v, attest.Trusted, c.codes...)
		if v.SinceLast != name || v.Seen == nil || v.Seen.At != h.now {
			t.Errorf("%s: %q, %+v", name, v.SinceLast, v.Seen)
		}
	}
}

// Row 13, as far as a quote shows it: the host that was seen last had another
// TPM.
func TestAttack13AnotherTPM(t *testing.T) {
	h := honest(t)
	seen(t, &h)
	h.last.AK = digest.Sum(digest.SHA256, []byte("another key"))
	v := h.judge(t)
	expect(t, "another key", v, attest.CouldNotTell, attest.LastOfAnotherKey)
	if v.Seen != nil {
		t.Error("the other TPM's state is forgotten")
	}
}

// Row 19.
func TestAttack19FirmwareDowngrade(t *testing.T) {
	h := honest(t)
	h.policy.MinFirmware = 0x2019102300163636
	expect(t, "the minimum", h.judge(t), attest.Trusted)
	h.policy.MinFirmware++
	expect(t, "below the minimum", h.judge(t), attest.NotTrusted, attest.FirmwareTooOld)
	h = honest(t)
	seen(t, &h)
	h.tpm = func(q *tpmtest.Quote) { q.Firmware++ }
	expect(t, "updated", h.judge(t), attest.Trusted)
	h.tpm = func(q *tpmtest.Quote) { q.Firmware-- }
	v := h.judge(t)
	expect(t, "older than last time", v, attest.NotTrusted, attest.FirmwareWentBack)
	if v.Seen != nil {
		t.Error("the old firmware is to be remembered")
	}
}

// Row 20: a bank that the firmware does not know is one that anybody can
// extend.
func TestAttack20BootNotMeasured(t *testing.T) {
	zeros, ones := make([]byte, 32), bytes.Repeat([]byte{0xff}, 32)
	for name, value := range map[string][]byte{"zeros": zeros, "ones": ones, "locality 3": append(make([]byte, 31), 3), "locality 4": append(make([]byte, 31), 4)} {
		h := honest(t)
		h.policy.Extended = []tpm.PCR{{Bank: digest.SHA256, Index: 4}}
		expect(t, "measured", h.judge(t), attest.Trusted)
		h.change = func(e *attest.Evidence) { reset(t, e, 4, value) }
		v := h.judge(t)
		if v.Outcome != attest.NotTrusted || !has(v, attest.BootNotMeasured) {
			t.Errorf("%s: %v %+v", name, v.Outcome, v.Findings)
		}
	}
	h := honest(t)
	h.policy.Extended = []tpm.PCR{{Bank: digest.SHA384, Index: 4}}
	expect(t, "a bank that is not quoted", h.judge(t), attest.CouldNotTell, attest.PCRNotQuoted)
}

// reset quotes one PCR with another value.
func reset(t *testing.T, e *attest.Evidence, index int, value []byte) {
	q, err := tpm.ParseQuote(e.Quote)
	if err != nil {
		t.Fatal(err)
	}
	values, err := tpm.ParseValues(e.PCRs, q.Selection)
	if err != nil {
		t.Fatal(err)
	}
	if values[tpm.PCR{Bank: digest.SHA256, Index: index}], err = digest.New(digest.SHA256, value); err != nil {
		t.Fatal(err)
	}
	bank := tpmtest.Bank{Alg: tpmtest.SHA256}
	for p := range q.Selection.All() {
		bank.PCRs, bank.Values = append(bank.PCRs, p.Index), append(bank.Values, values[p].Bytes())
	}
	e.Quote = tpmtest.NewQuote(q.Nonce, bank).Attest()
	e.Signature = ak.Sign(e.Quote)
	if e.PCRs, err = tpm.AppendValues(nil, q.Selection, values); err != nil {
		t.Fatal(err)
	}
}

func TestExpectedPCRs(t *testing.T) {
	at := func(alg digest.Algorithm, i int) tpm.PCR { return tpm.PCR{Bank: alg, Index: i} }
	h := honest(t)
	h.policy.Quoted = []tpm.PCR{at(digest.SHA256, 0), at(digest.SHA256, 10)}
	h.policy.Expected = []policy.Expectation{{PCR: at(digest.SHA256, 7), Values: []digest.Digest{file("old"), pcr(digest.SHA256, 7)}}}
	expect(t, "one of two", h.judge(t), attest.Trusted)
	h.policy.Expected[0].Values = []digest.Digest{file("old")}
	v := h.judge(t)
	expect(t, "another", v, attest.NotTrusted, attest.UnexpectedPCR)
	if f := v.Findings[0]; f.Digest != pcr(digest.SHA256, 7) || f.Expected != file("old") {
		t.Errorf("%+v", f)
	}
	h.policy.Expected[0].Values = nil
	expect(t, "none expected", h.judge(t), attest.NotTrusted, attest.UnexpectedPCR)
	h.policy.Expected = []policy.Expectation{{PCR: at(digest.SHA256, 11), Values: []digest.Digest{file("x")}}}
	expect(t, "not quoted", h.judge(t), attest.CouldNotTell, attest.PCRNotQuoted)
	h.policy.Expected, h.policy.Quoted = nil, []tpm.PCR{at(digest.SHA1, 7)}
	expect(t, "a bank not quoted", h.judge(t), attest.CouldNotTell, attest.PCRNotQuoted)
}

// Row 10: with nothing but a PEM the attributes are somebody's word, which a
// policy may not take.
func TestAttack10KeyWithoutAttributes(t *testing.T) {
	h := honest(t)
	named := h.judge(t)
	if len(named.Name) != 68 || named.Version != "0x2019102300163636" {
		t.Errorf("%+v", named.TPM)
	}
	h.ak = ak.PEM()
	v := h.judge(t)
	expect(t, "PEM", v, attest.Trusted, attest.KeyAttributesUnknown)
	if v.Name != "" || v.Seen == nil || v.Seen.AK != named.Seen.AK {
		t.Errorf("%+v, %+v", v.TPM, v.Seen)
	}
	h.policy.NamedKey = true
	expect(t, "PEM, attributes wanted", h.judge(t), attest.CouldNotTell, attest.KeyAttributesUnknown)
	h.ak = ak.Public(tpmtest.AKAttributes)
	expect(t, "attributes wanted", h.judge(t), attest.Trusted)
}

// Row 44: a digest that is denied is denied, whoever lists it.
func TestAttack44DenyListWins(t *testing.T) {
	h := honest(t)
	h.policy.Denied = map[digest.Digest]string{file("sshd"): "CVE-2026-1234, fixed in 9.8p1-3"}
	v := h.judge(t)
	expect(t, "in a list and denied", v, attest.NotTrusted, attest.DeniedFile)
	if f := v.Findings[0]; f.Entry != 5 || f.Path != "/usr/bin/sshd" {
		t.Errorf("%+v", f)
	}
	h.policy.ReportUnknown, h.policy.ReportViolations = true, true
	expect(t, "whatever else is only reported", h.judge(t), attest.NotTrusted, attest.DeniedFile)
}

// Row 45: an old policy, an expired one, one for later, and one that cannot be
// known to be either.
func TestAttack45PolicyOutOfDate(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 3, n, 0, 0, 0, 0, time.UTC) }
	h := honest(t)
	h.policy.From, h.policy.Until = day(10), day(20)
	for now, want := range map[time.Time]attest.Outcome{
		day(9):                     attest.CouldNotTell,
		day(10).Add(-1):            attest.CouldNotTell,
		day(10):                    attest.Trusted,
		day(20).Add(-1):            attest.Trusted,
		day(20):                    attest.CouldNotTell,
		day(31):                    attest.CouldNotTell,
		{}:                         attest.CouldNotTell,
		time.Unix(1<<40, 0):        attest.CouldNotTell,
		day(9).Add(47 * time.Hour): attest.Trusted,
	} {
		h.now = now
		if v := h.judge(t); v.Outcome != want || has(v, attest.PolicyNotValid) == (want == attest.Trusted) {
			t.Errorf("at %v: %v %+v", now, v.Outcome, v.Findings)
		}
	}
	h = honest(t)
	h.policy.Serial = 7
	seen(t, &h)
	expect(t, "the same policy", h.judge(t), attest.Trusted)
	h.policy.Serial = 8
	expect(t, "a later one", h.judge(t), attest.Trusted)
	for _, serial := range []uint64{6, 0} {
		h.policy.Serial = serial
		v := h.judge(t)
		expect(t, "an older one", v, attest.CouldNotTell, attest.PolicyWentBack)
		if v.Seen != nil {
			t.Error("the older policy's serial is to be remembered")
		}
	}
}

// Row 21: the policy is about a bank, and a quote and a log of another prove
// nothing for it.
func TestAttack21AnotherBankReplays(t *testing.T) {
	h := honest(t)
	sha1 := func(e *attest.Evidence) {
		bank, values := tpmtest.Bank{Alg: tpmtest.SHA1}, tpm.Values{}
		for _, i := range h.pcrs {
			d := pcr(digest.SHA1, i, h.real...)
			bank.PCRs, bank.Values = append(bank.PCRs, i), append(bank.Values, d.Bytes())
			values[tpm.PCR{Bank: digest.SHA1, Index: i}] = d
		}
		// A sha256 bank that nobody extends with the log: PCR 10 of another host.
		other := tpmtest.Bank{Alg: tpmtest.SHA256, PCRs: []int{10}, Values: [][]byte{file("another host").Bytes()}}
		values[tpm.PCR{Bank: digest.SHA256, Index: 10}] = file("another host")
		e.Quote = tpmtest.NewQuote(h.nonce, bank, other).Attest()
		e.Signature = ak.Sign(e.Quote)
		q, err := tpm.ParseQuote(e.Quote)
		if err != nil {
			t.Fatal(err)
		}
		if e.PCRs, err = tpm.AppendValues(nil, q.Selection, values); err != nil {
			t.Fatal(err)
		}
	}
	h.change = sha1
	v := h.judge(t)
	if v.Outcome != attest.NotTrusted || !has(v, attest.DoesNotReplay) || v.Proven != 0 {
		t.Errorf("sha1 replays, sha256 does not: %v %+v", v.Outcome, v.Findings)
	}
	h.policy.Bank = digest.SHA1
	if v := h.judge(t); v.Proven == 0 {
		t.Errorf("the sha1 bank does not replay, so that the test shows nothing: %+v", v.Findings)
	}
}

// Row 42: a path makes no file known, and a rule that is for one path is for no
// other.
func TestAttack42PathsDecideNothing(t *testing.T) {
	h := honest(t)
	h.policy.Known.Add(file("hook"), policy.Source{Path: "/run/hook", Reason: "generated", There: true})
	for path, want := range map[string]attest.Outcome{
		"/run/hook":        attest.Trusted,
		"/run/hook/":       attest.NotTrusted,
		"/run/../run/hook": attest.NotTrusted,
		"/tmp/hook":        attest.NotTrusted,
		"hook":             attest.NotTrusted,
	} {
		other := h
		other.add(tpmtest.NewEntry(path, file("hook")))
		if v := other.judge(t); v.Outcome != want || has(v, attest.UnknownFile) == (want == attest.Trusted) {
			t.Errorf("at %q: %v %+v", path, v.Outcome, v.Findings)
		}
	}
	for _, path := range []string{"/run/hook", "/usr/bin/bash", "/proc/self/fd/3", "memfd:kernel", "/var/lib/containers/x/usr/bin/bash"} {
		other := h
		other.add(tpmtest.NewEntry(path, file("evil")))
		expect(t, "evil at "+path, other.judge(t), attest.NotTrusted, attest.UnknownFile)
	}
	h.policy.Known.Add(file("hook"), policy.Source{Package: "hook-1.0-1.x86_64"})
	h.add(tpmtest.NewEntry("/anywhere", file("hook")))
	v := h.judge(t)
	expect(t, "in a list too", v, attest.Trusted)
	if s := v.Known[len(v.Known)-1].Sources; len(s) != 1 || s[0].Package == "" {
		t.Errorf("%+v", s)
	}
}

func TestUnknownFilesReported(t *testing.T) {
	h := honest(t)
	h.add(tpmtest.NewEntry("/usr/bin/evil", file("evil")))
	h.policy.ReportUnknown = true
	v := h.judge(t)
	expect(t, "reported", v, attest.Trusted, attest.UnknownFile)
	if slices.ContainsFunc(v.Known, func(m attest.Measured) bool { return m.Path == "/usr/bin/evil" }) {
		t.Error("an unknown file is among the known")
	}
}
