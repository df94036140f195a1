package attest_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm"
	"diglim/tpm/cel"
	"diglim/tpm/eventlog"
	"diglim/tpm/tpmtest"
)

// A machine is a host whose firmware measured the boot.
type machine struct {
	host
	events  []tpmtest.FirmwareEvent // as handed in
	booted  []tpmtest.FirmwareEvent // as measured
	early   []tpmtest.FirmwareEvent // of these before IMA began, if not all
	startup int                     // locality
	banks   []digest.Algorithm      // of the log

	aggregate digest.Algorithm // of IMA's boot aggregate, if not SHA-256

	values map[int]digest.Digest // of PCRs, however they came to be

	systemd, diglim []record // what the running system measured and logged
}

// A record is of a running system's log.
type record struct {
	pcr   int
	text  string // measured
	says  string // in the log; empty: text
	where string // "" both measured and logged, "measured" or "logged"
}

func celLog(kind string, records []record) []byte {
	var b []byte
	for _, r := range records {
		if r.where == "measured" {
			continue
		}
		content := r.text
		if r.says != "" {
			content = r.says
		}
		if kind == cel.Systemd {
			content = fmt.Sprintf(`{"string":%q,"bootId":"0123"}`, content)
		}
		b = fmt.Appendf(b, "\x1e"+`{"pcr":%d,"digests":[{"hashAlg":"sha256","digest":"%s"}],"content_type":"%s","content":%s}`+"\n",
			r.pcr, digest.Sum(digest.SHA256, []byte(r.text)).Hex(), kind, content)
	}
	return b
}

// variable is an event about one of UEFI's own variables.
func variable(name string, value ...byte) tpmtest.FirmwareEvent {
	data := []byte("\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c")
	chars := utf16.Encode([]rune(name))
	data = binary.LittleEndian.AppendUint64(data, uint64(len(chars)))
	data = binary.LittleEndian.AppendUint64(data, uint64(len(value)))
	for _, c := range chars {
		data = binary.LittleEndian.AppendUint16(data, c)
	}
	return tpmtest.FirmwareEvent{PCR: 7, Type: tpmtest.EVVariable, Data: append(data, value...)}
}

func newMachine(t *testing.T) *machine {
	boot := slices.Insert(tpmtest.Boot(), 0, variable("SecureBoot", 1), variable("PK", 1, 2, 3))
	m := &machine{host: honest(t), events: boot, booted: boot, banks: []digest.Algorithm{digest.SHA1, digest.SHA256}}
	m.policy.Firmware = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	m.policy.SecureBoot = true
	return m
}

// judge has the machine boot, measure, and answer.
func (m *machine) judge(t *testing.T) attest.Verdict {
	value := func(i int) digest.Digest {
		return tpmtest.ExtendFirmware(eventlog.Start(digest.SHA256, i, m.startup), i, m.booted...)
	}
	later := func(i int, d digest.Digest) digest.Digest {
		for _, r := range slices.Concat(m.systemd, m.diglim) {
			if r.pcr == i && r.where != "logged" {
				d = digest.Sum(digest.SHA256, d.Bytes(), digest.Sum(digest.SHA256, []byte(r.text)).Bytes())
			}
		}
		return d
	}
	var all []byte
	for i := range 10 {
		d := later(i, value(i))
		if m.early != nil {
			d = tpmtest.ExtendFirmware(eventlog.Start(digest.SHA256, i, m.startup), i, m.early...)
		}
		if made, ok := m.values[i]; ok {
			d = made
		}
		all = d.Append(all)
	}
	log := slices.Clone(m.log)
	log[0].Digest = digest.Sum(cmp.Or(m.aggregate, digest.SHA256), all)
	real := slices.Clone(m.real)
	real[0] = log[0]
	bank := tpmtest.Bank{Alg: tpmtest.SHA256, PCRs: m.pcrs}
	values := tpm.Values{}
	for _, i := range m.pcrs {
		d := later(i, value(i))
		if i == policy.IMAPCR {
			d = tpmtest.Extend(d, i, real...)
		}
		if made, ok := m.values[i]; ok {
			d = made
		}
		bank.Values = append(bank.Values, d.Bytes())
		values[tpm.PCR{Bank: digest.SHA256, Index: i}] = d
	}
	h := m.host
	h.log, h.real, h.change = log, real, nil
	ev := h.evidence(t)
	ev.Quote = tpmtest.NewQuote([]byte("this session's challenge"), bank).Attest()
	ev.Signature = ak.Sign(ev.Quote)
	q, err := tpm.ParseQuote(ev.Quote)
	if err != nil {
		t.Fatal(err)
	}
	if ev.PCRs, err = tpm.AppendValues(nil, q.Selection, values); err != nil {
		t.Fatal(err)
	}
	ev.Firmware = tpmtest.FirmwareLog(m.banks, m.events...)
	ev.Systemd, ev.Diglim = celLog(cel.Systemd, m.systemd), celLog(cel.Diglim, m.diglim)
	if m.change != nil {
		m.change(&ev)
	}
	return attest.Judge(ev, attest.Challenge{Nonce: m.nonce, AK: m.ak}, m.policy)
}

// measure adds an event to what is measured and logged, before the event with
// number at.
func (m *machine) measure(at int, e ...tpmtest.FirmwareEvent) {
	m.events = slices.Insert(slices.Clone(m.events), at, e...)
	m.booted = m.events
}

func TestHonestFirmware(t *testing.T) {
	m := newMachine(t)
	v := m.judge(t)
	expect(t, "honest", v, attest.Trusted)
	if len(v.Firmware) != 10 || v.Firmware[7].PCR != 7 || v.Firmware[7].Events != 4 || v.Firmware[8].Events != 0 {
		t.Errorf("%+v", v.Firmware)
	}
	for _, locality := range []byte{3, 4} {
		m := newMachine(t)
		m.startup = int(locality)
		m.measure(0, tpmtest.FirmwareEvent{Type: tpmtest.EVNoAction, Data: append([]byte("StartupLocality\x00"), locality)})
		expect(t, "started from another locality", m.judge(t), attest.Trusted)
	}
	m = newMachine(t)
	m.policy.Firmware, m.policy.SecureBoot = nil, false
	m.events = nil
	expect(t, "no word wanted of the firmware", m.judge(t), attest.Trusted)
}

// Row 20: a PCR that nothing was measured to, though the log says so, or says
// nothing.
func TestAttack20NothingMeasured(t *testing.T) {
	m := newMachine(t)
	m.booted = nil
	m.policy.SecureBoot = false
	v := m.judge(t)
	if v.Outcome != attest.NotTrusted || len(v.Findings) != 8 {
		t.Errorf("%+v", v.Findings)
	}
	for _, f := range v.Findings {
		if f.Code != attest.NotExtended {
			t.Errorf("%+v", f)
		}
	}
	m.events = []tpmtest.FirmwareEvent{}
	if v := m.judge(t); v.Outcome != attest.NotTrusted || !has(v, attest.NotExtended) {
		t.Errorf("a log of nothing: %+v", v.Findings)
	}
	m = newMachine(t)
	m.booted = append(slices.Clone(m.booted), tpmtest.FirmwareEvent{PCR: 8, Type: 5, Data: []byte("evil")})
	v = m.judge(t)
	expect(t, "a PCR without events was extended", v, attest.NotTrusted, attest.FirmwareDiffers)
}

// Row 21: the log has the events for another bank than the one that is quoted.
func TestAttack21LogOfAnotherBank(t *testing.T) {
	m := newMachine(t)
	m.banks = []digest.Algorithm{digest.SHA1}
	expect(t, "agile, sha1 alone", m.judge(t), attest.CouldNotTell, attest.FirmwareBank)
	m.banks = nil
	expect(t, "the older form", m.judge(t), attest.CouldNotTell, attest.FirmwareBank)
	m = newMachine(t)
	evil := tpmtest.FirmwareEvent{PCR: 4, Type: tpmtest.EVImage, Measured: []byte("evil")}
	m.measure(12, evil)
	m.events = slices.Clone(m.events)
	m.events[12].Digests = []digest.Digest{digest.Sum(digest.SHA1, []byte("evil"))}
	expect(t, "one event for sha1 alone", m.judge(t), attest.NotTrusted, attest.FirmwareDiffers)
}

// Row 22: types are changed in the log.
func TestAttack22TypesChanged(t *testing.T) {
	for i := range newMachine(t).events {
		m := newMachine(t)
		m.events = slices.Clone(m.events)
		e := &m.events[i]
		hashed := e.Data
		if e.Measured != nil {
			hashed = e.Measured
		}
		e.Digests = []digest.Digest{digest.Sum(digest.SHA256, hashed)}
		e.Type = 0x40e
		expect(t, "a type that is unknown", m.judge(t), attest.CouldNotTell, attest.UnknownEvent)
		e.Type = 0x12 // no decision goes by it
		expect(t, "another known type", m.judge(t), attest.Trusted)
		e.Type = tpmtest.EVNoAction
		if v := m.judge(t); v.Outcome != attest.NotTrusted || !has(v, attest.FirmwareDiffers) {
			t.Errorf("event %d is called a note: %+v", i, v.Findings)
		}
	}
}

// And in a PCR of the boot loader's.
func TestAttack22UnknownTypeOfTheBootLoader(t *testing.T) {
	m := newMachine(t)
	m.measure(12, tpmtest.FirmwareEvent{PCR: 8, Type: 0x40e, Data: []byte("grub")}, tpmtest.FirmwareEvent{PCR: 9, Type: 0xd, Data: []byte("grub")})
	expect(t, "PCR 8", m.judge(t), attest.CouldNotTell, attest.UnknownEvent)
	m.policy.Firmware = []int{0, 1, 2, 3, 4, 5, 6, 7, 9}
	expect(t, "PCR 8, of which no word is wanted", m.judge(t), attest.Trusted)
}

// A vendor's own type is for the administrator to vouch for: by PCR and type,
// which the finding names, and for no other.
func TestAttack22VendorsOwnType(t *testing.T) {
	m := newMachine(t)
	own := tpmtest.FirmwareEvent{PCR: 2, Type: 0xc0000001, Data: []byte("a vendor's")}
	m.measure(1, own, own)
	v := m.judge(t)
	expect(t, "no word in the policy", v, attest.CouldNotTell, attest.UnknownEvent)
	if f := v.Findings[0]; f.Event != 3 || f.Why != "event 3, type 0xc0000001 on PCR 2, is of no type that the specification has" {
		t.Errorf("%+v", f)
	}
	m.policy.Events = map[policy.Event]string{{PCR: 2, Type: 0xc0000001}: "option ROM of our storage"}
	v = m.judge(t)
	expect(t, "in the policy", v, attest.Trusted, attest.UnknownEvent)
	if !strings.HasSuffix(v.Findings[0].Why, "lets it pass: option ROM of our storage") {
		t.Errorf("%+v", v.Findings[0])
	}
	for name, other := range map[string]tpmtest.FirmwareEvent{
		"another PCR":  {PCR: 1, Type: 0xc0000001, Data: []byte("x")},
		"another type": {PCR: 2, Type: 0xc0000002, Data: []byte("x")},
	} {
		m := newMachine(t)
		m.policy.Events = map[policy.Event]string{{PCR: 2, Type: 0xc0000001}: "option ROM of our storage"}
		m.measure(1, own, other)
		expect(t, name, m.judge(t), attest.CouldNotTell, attest.UnknownEvent, attest.UnknownEvent)
	}
	m = newMachine(t)
	m.policy.Events = map[policy.Event]string{{PCR: 4, Type: 0xc0000001}: "a vendor's"}
	m.measure(len(m.events), tpmtest.FirmwareEvent{PCR: 4, Type: 0xc0000001, Data: []byte("evil")})
	expect(t, "after the end", m.judge(t), attest.NotTrusted, attest.UnknownEvent, attest.LateEvent)
	m = newMachine(t)
	for i := range uint32(1000) {
		m.measure(1, tpmtest.FirmwareEvent{PCR: 2, Type: 0xc0000000 + i, Data: []byte("x")})
	}
	if v := m.judge(t); v.Outcome != attest.CouldNotTell || len(v.Findings) != 64 {
		t.Errorf("many types: %v, %d findings", v.Outcome, len(v.Findings))
	}
}

// Row 23: data that was not hashed says that Secure Boot was on.
func TestAttack23DataNotHashed(t *testing.T) {
	m := newMachine(t)
	m.booted = slices.Clone(m.booted)
	m.booted[0] = variable("SecureBoot", 0)
	m.events = slices.Clone(m.booted)
	v := m.judge(t)
	expect(t, "off", v, attest.NotTrusted, attest.NoSecureBoot)
	m.events[0].Measured = m.events[0].Data
	m.events[0].Data = variable("SecureBoot", 1).Data
	expect(t, "off, on in the data", m.judge(t), attest.CouldNotTell, attest.SecureBootState)
	image := variable("SecureBoot", 1)
	image.Type, image.Measured = tpmtest.EVImage, []byte("an image")
	m.events[0] = variable("SecureBoot", 0)
	m.booted = m.events
	m.measure(1, image)
	expect(t, "on in the data of an image", m.judge(t), attest.NotTrusted, attest.NoSecureBoot)
}

// Row 24: what is measured after the firmware's end.
func TestAttack24EventsAfterTheEnd(t *testing.T) {
	evil := tpmtest.FirmwareEvent{PCR: 4, Type: tpmtest.EVImage, Measured: []byte("evil")}
	m := newMachine(t)
	m.measure(len(m.events), evil)
	v := m.judge(t)
	expect(t, "after the hand-over", v, attest.NotTrusted, attest.LateEvent)
	if f := v.Findings[0]; f.Event != len(m.events)+1 || f.Digest != digest.Sum(digest.SHA256, []byte("evil")) {
		t.Errorf("%+v", f)
	}
	for _, pcr := range []uint32{0, 2, 3, 6} {
		m := newMachine(t)
		evil.PCR = pcr
		m.measure(13, evil) // before the boot loader, after the separators
		expect(t, "after the separator", m.judge(t), attest.NotTrusted, attest.LateEvent)
	}
	m = newMachine(t)
	last := len(m.events) - 1
	m.events = slices.Insert(slices.Clone(m.events[:last]), 3, m.events[last]) // the word of the hand-over is moved
	if v := m.judge(t); v.Outcome != attest.NotTrusted || !has(v, attest.FirmwareDiffers) {
		t.Errorf("the hand-over moved: %+v", v.Findings)
	}
	m = newMachine(t)
	evil.PCR = 9
	m.measure(len(m.events), evil)
	expect(t, "a PCR of the system, after the hand-over", m.judge(t), attest.Trusted)
}

// Row 24: the data of events is changed, so that the end cannot be seen in it.
func TestAttack24TheEndIsHidden(t *testing.T) {
	evil := tpmtest.FirmwareEvent{PCR: 4, Type: tpmtest.EVImage, Measured: []byte("evil")}
	for _, pcr := range []uint32{0, 2, 3, 4, 6, 7} {
		m := newMachine(t)
		m.policy.SecureBoot = false
		evil.PCR = pcr
		m.measure(len(m.events), evil)
		m.events = slices.Clone(m.events)
		for i := range m.events {
			hide(&m.events[i])
		}
		expect(t, fmt.Sprint("PCR ", pcr), m.judge(t), attest.NotTrusted, attest.LateEvent)
	}
}

// hide changes what the log says of an event, and not what was hashed.
func hide(e *tpmtest.FirmwareEvent) {
	if e.Measured == nil {
		e.Measured = e.Data
	}
	e.Type, e.Data = tpmtest.EVAction, []byte("nothing")
}

// Row 25: Secure Boot was off. What was started then extends PCR 7 by the word
// that it was on, and in the log hides what was before.
func TestAttack25WordOfTheBootLoader(t *testing.T) {
	on, off := variable("SecureBoot", 1), variable("SecureBoot", 0)
	for name, c := range map[string]struct {
		at     int // where in the log of events the false word is
		hidden func(i int) bool
	}{
		"at the end, all else hidden":              {21, func(int) bool { return true }},
		"at the end, PCR 7 hidden":                 {21, func(i int) bool { return i < 12 }},
		"by a driver before the separator":         {2, func(i int) bool { return i == 0 }},
		"by a driver, hidden with all of the rest": {2, func(i int) bool { return true }},
	} {
		m := newMachine(t)
		m.events = slices.Clone(m.events)
		m.events[0] = off
		at := min(c.at, len(m.events))
		m.events = slices.Insert(m.events, at, on)
		m.booted = slices.Clone(m.events)
		for i := range m.events {
			if i != at && c.hidden(i) {
				hide(&m.events[i])
			}
		}
		if v := m.judge(t); v.Outcome == attest.Trusted || !has(v, attest.SecureBootState) {
			t.Errorf("%s: %v %+v", name, v.Outcome, v.Findings)
		}
	}
}

// Row 25: Secure Boot is reported twice, not at all, late, or in another PCR.
func TestAttack25SecureBootReported(t *testing.T) {
	on, off := variable("SecureBoot", 1), variable("SecureBoot", 0)
	elsewhere := on
	elsewhere.PCR = 1
	other := on
	other.Data = slices.Clone(on.Data)
	other.Data[0] ^= 1 // another vendor's variable of that name
	for name, c := range map[string]struct {
		first []tpmtest.FirmwareEvent // in place of the right one
		late  []tpmtest.FirmwareEvent // after the separator
		want  attest.Code
	}{
		"twice on":         {[]tpmtest.FirmwareEvent{on, on}, nil, attest.SecureBootState},
		"off and on":       {[]tpmtest.FirmwareEvent{off, on}, nil, attest.SecureBootState},
		"on and off":       {[]tpmtest.FirmwareEvent{on, off}, nil, attest.SecureBootState},
		"absent":           {nil, nil, attest.SecureBootState},
		"in PCR 1":         {[]tpmtest.FirmwareEvent{elsewhere}, nil, attest.SecureBootState},
		"another vendor's": {[]tpmtest.FirmwareEvent{other}, nil, attest.SecureBootState},
		"late":             {nil, []tpmtest.FirmwareEvent{on}, attest.SecureBootState},
		"again late":       {[]tpmtest.FirmwareEvent{off}, []tpmtest.FirmwareEvent{on}, attest.SecureBootState},
		"empty":            {[]tpmtest.FirmwareEvent{variable("SecureBoot")}, nil, attest.SecureBootState},
		"2":                {[]tpmtest.FirmwareEvent{variable("SecureBoot", 2)}, nil, attest.SecureBootState},
		"of two bytes":     {[]tpmtest.FirmwareEvent{variable("SecureBoot", 1, 1)}, nil, attest.SecureBootState},
		"another name":     {[]tpmtest.FirmwareEvent{variable("SecureBoot2", 1)}, nil, attest.SecureBootState},
		"off":              {[]tpmtest.FirmwareEvent{off}, nil, attest.NoSecureBoot},
	} {
		m := newMachine(t)
		m.measure(13, c.late...)
		m.events = slices.Concat(c.first, m.events[1:])
		m.booted = m.events
		v := m.judge(t)
		if v.Outcome == attest.Trusted || !has(v, c.want) {
			t.Errorf("%s: %v %+v", name, v.Outcome, v.Findings)
		}
	}
}

// Row 26: the locality is forged, or noted where it may not be.
func TestAttack26StartupLocality(t *testing.T) {
	note := tpmtest.FirmwareEvent{Type: tpmtest.EVNoAction, Data: []byte("StartupLocality\x00\x03")}
	m := newMachine(t)
	m.events = slices.Insert(slices.Clone(m.events), 0, note)
	expect(t, "forged", m.judge(t), attest.NotTrusted, attest.FirmwareDiffers)
	m.startup = 3
	expect(t, "true", m.judge(t), attest.Trusted)
	m.events = append(slices.Clone(m.events[1:]), note)
	expect(t, "at the end", m.judge(t), attest.NotTrusted, attest.FirmwareDiffers)
	m.events = slices.Clone(m.booted)
	expect(t, "missing", m.judge(t), attest.NotTrusted, attest.FirmwareDiffers)
}

// Row 27: a dynamic launch that starts with zeros.
func TestAttack27DynamicLaunch(t *testing.T) {
	m := newMachine(t)
	m.pcrs = append(m.pcrs, 17, 18)
	m.policy.Firmware = append(m.policy.Firmware, 17, 18)
	expect(t, "no launch", m.judge(t), attest.Trusted)
	launch := tpmtest.FirmwareEvent{PCR: 17, Type: 5, Data: []byte("launch")}
	m.measure(len(m.events), launch)
	expect(t, "from ones", m.judge(t), attest.Trusted)
	zero, _ := digest.New(digest.SHA256, make([]byte, 32))
	m.booted = slices.Clone(m.events[:len(m.events)-1])
	m.booted = append(m.booted, tpmtest.FirmwareEvent{PCR: 17, Digests: []digest.Digest{zero}}, launch)
	expect(t, "from another value", m.judge(t), attest.NotTrusted, attest.FirmwareDiffers)
}

// Rows 28, 30 and 46: a log that is hostile, cut, garbage or missing is never
// a pass.
func TestAttack46FirmwareLogMissing(t *testing.T) {
	for name, change := range map[string]func(*attest.Evidence){
		"missing":   func(e *attest.Evidence) { e.Firmware = nil },
		"garbage":   func(e *attest.Evidence) { e.Firmware = []byte("garbage") },
		"cut":       func(e *attest.Evidence) { e.Firmware = e.Firmware[:len(e.Firmware)-1] },
		"a tail":    func(e *attest.Evidence) { e.Firmware = append(e.Firmware, "tail"...) },
		"too large": func(e *attest.Evidence) { e.Firmware = make([]byte, eventlog.MaxLog+1) },
		"64 KiB":    func(e *attest.Evidence) { e.Firmware = append(e.Firmware, make([]byte, 64<<10)...)[:64<<10] },
	} {
		m := newMachine(t)
		m.change = change
		v := m.judge(t)
		if name == "64 KiB" { // zeros are padding, and padding says nothing
			expect(t, name, v, attest.Trusted)
			continue
		}
		if v.Outcome != attest.CouldNotTell {
			t.Errorf("%s: %v %+v", name, v.Outcome, v.Findings)
		}
	}
	m := newMachine(t)
	m.pcrs = []int{0, 1, 2, 3, 4, 5, 6, 8, 9, 10}
	v := m.judge(t)
	if v.Outcome != attest.CouldNotTell || !has(v, attest.PCRNotQuoted) {
		t.Errorf("PCR 7 not quoted: %v %+v", v.Outcome, v.Findings)
	}
	m = newMachine(t)
	m.nonce = []byte("another")
	v = m.judge(t)
	if v.Outcome != attest.NotTrusted || len(v.Firmware) > 0 {
		t.Errorf("a quote for another nonce proves the firmware's log: %+v", v)
	}
}
