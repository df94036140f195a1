package attest_test

import (
	"bytes"
	"slices"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/internal/measured"
	"diglim/internal/policy"
	"diglim/tpm"
	"diglim/tpm/imalog"
	"diglim/tpm/tpmtest"
)

// newSystem is a machine whose running system measures too.
func newSystem(t *testing.T) *machine {
	m := newMachine(t)
	m.pcrs = append(m.pcrs, 11, 12, 15)
	m.policy.Firmware = append(m.policy.Firmware, 11, 12, 15)
	m.systemd = []record{
		{pcr: 7, text: "os-separator"},
		{pcr: 11, text: "enter-initrd"},
		{pcr: 15, text: "key of the volume", says: "cryptsetup:root"},
		{pcr: 11, text: "leave-initrd"},
		{pcr: 15, text: "machine-id:0123"},
	}
	m.diglim = []record{{pcr: 12, text: usedBash}}
	return m
}

// usedBash is about a file that the verifier knows, if the host did not.
var usedBash = used("/usr/bin/bash", file("bash"), 0)

func used(path string, d digest.Digest, after int) string {
	return string(measured.Content{Path: path, Digest: d, After: after}.Text())
}

func TestSystemLogs(t *testing.T) {
	m := newSystem(t)
	v := m.judge(t)
	expect(t, "honest", v, attest.Trusted)
	records := map[int]int{}
	for _, r := range v.Firmware {
		records[r.PCR] = r.Records
	}
	if len(v.Firmware) != 13 || records[7] != 1 || records[11] != 2 || records[12] != 1 || records[15] != 2 || records[0] != 0 {
		t.Errorf("%+v", v.Firmware)
	}
	want := []attest.Statement{
		{PCR: 7, Record: 1, Text: "os-separator"}, {PCR: 11, Record: 2, Text: "enter-initrd"}, {PCR: 11, Record: 4, Text: "leave-initrd"},
		{PCR: 12, Record: 1, Text: usedBash}, {PCR: 15, Record: 5, Text: "machine-id:0123"},
	}
	if !slices.Equal(v.Stated, want) {
		t.Errorf("%+v, want %+v", v.Stated, want)
	}
	// The log is read after the quote, and may have gone on.
	m.systemd = append(m.systemd, record{pcr: 11, text: "sysinit", where: "logged"})
	expect(t, "ahead of the quote", m.judge(t), attest.Trusted)
	m = newSystem(t)
	m.systemd, m.diglim = nil, nil
	expect(t, "nothing measured", m.judge(t), attest.Trusted)
}

// Each case is bred from the honest system.
func TestSystemLogsThatDoNotReplay(t *testing.T) {
	for name, change := range map[string]func(*machine){
		"a record removed":           func(m *machine) { m.systemd[1].where = "measured" },
		"the last record removed":    func(m *machine) { m.systemd[3].where = "measured" },
		"a record added":             func(m *machine) { m.systemd = slices.Insert(m.systemd, 1, record{pcr: 11, text: "x", where: "logged"}) },
		"records of a PCR swapped":   func(m *machine) { m.change = swapRecords(1, 3) },
		"a record of diglim changed": func(m *machine) { m.diglim = append(m.diglim, record{pcr: 12, text: "{}", where: "measured"}) },
	} {
		m := newSystem(t)
		change(m)
		expect(t, name, m.judge(t), attest.NotTrusted, attest.SystemLogDiffers)
	}
	m := newSystem(t)
	for i := range m.systemd {
		m.systemd[i].where = "measured"
	}
	expect(t, "no log", m.judge(t), attest.NotTrusted, attest.FirmwareDiffers, attest.FirmwareDiffers, attest.FirmwareDiffers)
	m = newSystem(t)
	m.change = func(ev *attest.Evidence) { ev.Systemd = ev.Systemd[:len(ev.Systemd)-1] }
	expect(t, "a log cut", m.judge(t), attest.CouldNotTell, attest.Malformed)
	m = newSystem(t)
	m.change = func(ev *attest.Evidence) { ev.Diglim = []byte("garbage\n") }
	expect(t, "garbage", m.judge(t), attest.CouldNotTell, attest.Malformed)
	// The PCR covers the digest, not the words.
	m = newSystem(t)
	m.systemd[1].says = "leave-initrd"
	v := m.judge(t)
	expect(t, "words changed", v, attest.Trusted)
	if slices.ContainsFunc(v.Stated, func(s attest.Statement) bool { return s.Record == 2 }) {
		t.Errorf("words that nobody measured: %+v", v.Stated)
	}
}

func swapRecords(i, j int) func(*attest.Evidence) {
	return func(ev *attest.Evidence) {
		records := bytes.SplitAfter(ev.Systemd, []byte("\n"))
		records[i], records[j] = records[j], records[i]
		ev.Systemd = bytes.Join(records, nil)
	}
}

// Row 24: what extends a PCR of the firmware by hand can write a record of it.
func TestAttack24RecordOnAFirmwarePCR(t *testing.T) {
	for name, extra := range map[string]record{
		"another word":          {pcr: 4, text: "evil"},
		"not what was measured": {pcr: 4, text: "evil", says: "os-separator"},
		"a second separator":    {pcr: 7, text: "os-separator"},
	} {
		m := newSystem(t)
		m.systemd = append(m.systemd, extra)
		expect(t, name, m.judge(t), attest.NotTrusted, attest.LateEvent)
		m = newSystem(t)
		m.diglim = append(m.diglim, record{pcr: extra.pcr, text: `"os-separator"`})
		expect(t, name+", in diglim's log", m.judge(t), attest.NotTrusted, attest.LateEvent)
	}
}

// newUser is a host that measures its lists to PCR 12, in two goes, and has used
// files that were in none, before the second and after it.
func newUser(t *testing.T, files ...string) *machine {
	m := newMachine(t)
	m.policy.Firmware, m.policy.SecureBoot = nil, false
	m.pcrs = append(m.pcrs, 12)
	names := []string{measured.PolicyName, measured.ConfigName, measured.ListName("a"), measured.ListName("b")}
	var sums []digest.Digest
	for _, name := range names {
		e := tpmtest.Entry{PCR: 12, Template: "ima-ng", Digest: file(name), Path: measured.Path(name)}
		m.add(e)
		m.policy.Known.Add(file(name), policy.Source{Reason: "measured"})
		sums = append(sums, digest.Sum(digest.SHA256, measured.TemplateData(e.Path, e.Digest)))
	}
	after := []int{3, 3, 4}
	var records []measured.Record
	for i, name := range files {
		text := used("/tmp/"+name, file(name), after[i])
		m.diglim = append(m.diglim, record{pcr: 12, text: text})
		c, err := measured.ParseContent([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, measured.NewRecord(i, 12, c, []digest.Algorithm{digest.SHA256}))
	}
	value, err := measured.Replay(imalog.Zero(digest.SHA256), sums, records)
	if err != nil {
		t.Fatal(err)
	}
	m.values = map[int]digest.Digest{12: value}
	return m
}

func TestUsedFiles(t *testing.T) {
	expect(t, "nothing used", newUser(t).judge(t), attest.Trusted, attest.SecondPCR)
	expect(t, "known meanwhile", newUser(t, "bash", "init", "sshd").judge(t), attest.Trusted, attest.SecondPCR)

	m := newUser(t, "bash", "evil", "sshd")
	v := m.judge(t)
	expect(t, "unknown", v, attest.NotTrusted, attest.SecondPCR, attest.UnknownFile)
	i := slices.IndexFunc(v.Findings, func(f attest.Finding) bool { return f.Code == attest.UnknownFile })
	if f := v.Findings[i]; f.Path != "/tmp/evil" || f.Digest != file("evil") || f.Record != 2 || f.Unproven {
		t.Errorf("%+v", f)
	}
	m.policy.ReportUnknown = true
	expect(t, "unknown, and that is reported", m.judge(t), attest.Trusted, attest.SecondPCR, attest.UnknownFile)
	m.policy.Denied = map[digest.Digest]string{file("evil"): "evil"}
	expect(t, "denied", m.judge(t), attest.NotTrusted, attest.SecondPCR, attest.DeniedFile)

	// The log is read after the quote.
	m = newUser(t, "bash")
	m.diglim = append(m.diglim, record{pcr: 12, text: used("/tmp/evil", file("evil"), 4), where: "logged"})
	v = m.judge(t)
	expect(t, "ahead of the quote", v, attest.Trusted, attest.SecondPCR, attest.UnknownFile)
	for _, u := range v.Unproven {
		if u.Entry == 0 {
			t.Errorf("a record is among the entries: %+v", u)
		}
	}
	m.change = func(ev *attest.Evidence) { ev.Diglim = ev.Diglim[:len(ev.Diglim)-1] }
	expect(t, "while one is written", m.judge(t), attest.Trusted, attest.SecondPCR)
	m.change = nil
	// A list may have digests without paths, and a record none that was measured.
	listed := newUser(t)
	listed.policy.Known.Add(file("of no path"), policy.Source{List: "compact"})
	listed.diglim = []record{{pcr: 12, text: used("/tmp/evil", file("evil"), 4), says: used("/tmp/other", file("evil"), 4), where: "logged"}}
	for _, f := range listed.judge(t).Findings {
		if len(f.Packaged) > 0 {
			t.Errorf("of no path: %+v", f)
		}
	}
	if !v.Findings[1].Unproven {
		t.Errorf("%+v", v.Findings[1])
	}
}

// What leads to a value that the policy expects is known, whatever it is; what
// follows is not, nor is anything of a PCR that has another value.
func TestPredictedPCR(t *testing.T) {
	m := newUser(t)
	m.policy.Known = honest(t).policy.Known
	expect(t, "not expected", m.judge(t), attest.NotTrusted, attest.SecondPCR, attest.UnknownFile, attest.UnknownFile, attest.UnknownFile, attest.UnknownFile)
	right := policy.Expectation{PCR: tpm.PCR{Bank: digest.SHA256, Index: 12}, Values: []digest.Digest{m.values[12]}, Reason: "predicted"}
	m.policy.Expected = []policy.Expectation{right}
	v := m.judge(t)
	expect(t, "expected", v, attest.Trusted, attest.SecondPCR)
	if k := v.Known[len(v.Known)-1]; k.Path != "/run/diglim/measured/lists/b" || k.Sources[0].Reason != "predicted" {
		t.Errorf("%+v", k)
	}

	// Such a host need not measure anything else.
	lists := newUser(t)
	onlyLists := func(log []tpmtest.Entry) []tpmtest.Entry {
		return slices.DeleteFunc(slices.Clone(log), func(e tpmtest.Entry) bool { return e.PCR == 10 && e.Path != "boot_aggregate" })
	}
	lists.log, lists.real = onlyLists(lists.log), onlyLists(lists.real)
	expect(t, "lists alone, not expected", lists.judge(t), attest.CouldNotTell, attest.SecondPCR, attest.NothingMeasured)
	lists.policy.Expected = m.policy.Expected
	expect(t, "lists alone", lists.judge(t), attest.Trusted, attest.SecondPCR)

	m.log = append(slices.Clone(m.log), tpmtest.Entry{PCR: 12, Template: "ima-ng", Digest: file("evil"), Path: "/evil"})
	v = m.judge(t)
	expect(t, "after it", v, attest.Trusted, attest.SecondPCR, attest.UnknownFile)
	if f := v.Findings[1]; f.Path != "/evil" || !f.Unproven {
		t.Errorf("%+v", f)
	}

	m = newUser(t, "evil")
	m.policy.Known = honest(t).policy.Known
	m.policy.Expected = []policy.Expectation{right}
	expect(t, "another value", m.judge(t), attest.NotTrusted, attest.UnexpectedPCR, attest.SecondPCR,
		attest.UnknownFile, attest.UnknownFile, attest.UnknownFile, attest.UnknownFile, attest.UnknownFile)
	m = newUser(t)
	m.policy.Known = honest(t).policy.Known
	m.policy.Expected = []policy.Expectation{{PCR: tpm.PCR{Bank: digest.SHA256, Index: 10}, Values: right.Values}}
	expect(t, "of another PCR", m.judge(t), attest.NotTrusted, attest.UnexpectedPCR, attest.SecondPCR,
		attest.UnknownFile, attest.UnknownFile, attest.UnknownFile, attest.UnknownFile)
}

func TestUsedFilesThatDoNotReplay(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*machine)
		codes  []attest.Code
	}{
		"no log":           {func(m *machine) { m.diglim = nil }, []attest.Code{attest.SecondPCR, attest.DoesNotReplay}},
		"a record removed": {func(m *machine) { m.diglim = m.diglim[1:] }, []attest.Code{attest.SecondPCR, attest.DoesNotReplay}},
		"one added": {func(m *machine) { m.diglim = slices.Insert(m.diglim, 1, m.diglim[0]) },
			[]attest.Code{attest.SecondPCR, attest.DoesNotReplay}},
		"another file": {func(m *machine) { m.diglim[1].text = used("/tmp/evil", file("bash"), 3) },
			[]attest.Code{attest.SecondPCR, attest.DoesNotReplay}},
		// The digest is that of what was measured; where it belongs is not known any more.
		"other words": {func(m *machine) { m.diglim[0].says = used("/usr/bin/bash", file("bash"), 4) },
			[]attest.Code{attest.SecondPCR, attest.DoesNotReplay, attest.UnknownFile}},
		"a log cut": {func(m *machine) {
			m.change = func(ev *attest.Evidence) { ev.Diglim = ev.Diglim[:len(ev.Diglim)-1] }
		}, []attest.Code{attest.SecondPCR, attest.DoesNotReplay}},
	} {
		m := newUser(t, "bash", "init", "sshd")
		c.change(m)
		expect(t, name, m.judge(t), attest.NotTrusted, c.codes...)
	}
	// Where IMA has nothing for the PCR, the records are all there is.
	m := newMachine(t)
	m.policy.Firmware, m.policy.SecureBoot = nil, false
	m.pcrs = append(m.pcrs, 12)
	m.diglim = []record{{pcr: 12, text: used("/tmp/evil", file("evil"), 0)}}
	expect(t, "records alone", m.judge(t), attest.NotTrusted, attest.SecondPCR, attest.UnknownFile)
}

// A log that is all unknown files takes no more of a verdict than its limit.
func TestUsedMemory(t *testing.T) {
	m := newUser(t)
	for range 50_000 {
		m.diglim = append(m.diglim, record{pcr: 12, text: used("/tmp/evil", file("evil"), 4), where: "logged"})
	}
	if v := m.judge(t); v.Outcome != attest.Trusted || v.Omitted.Findings == 0 {
		t.Errorf("%v, %d findings, %d omitted", v.Outcome, len(v.Findings), v.Omitted.Findings)
	}
}
