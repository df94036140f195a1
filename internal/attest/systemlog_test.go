package attest_test

import (
	"bytes"
	"slices"
	"testing"

	"diglim/internal/attest"
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
	m.diglim = []record{{pcr: 12, text: `{"path":"/tmp/x","digest":"","after":0}`}}
	return m
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
		{PCR: 12, Record: 1, Text: `{"path":"/tmp/x","digest":"","after":0}`}, {PCR: 15, Record: 5, Text: "machine-id:0123"},
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
	m.change = func(ev *attest.Evidence) { ev.Diglim = []byte("garbage") }
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
