package eventlog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"diglim/internal/digest"
	"diglim/internal/wire"
	"diglim/tpm/eventlog"
	"diglim/tpm/tpmtest"
)

var both = []digest.Algorithm{digest.SHA1, digest.SHA256}

func start(bank digest.Algorithm, pcr int) digest.Digest { return eventlog.Start(bank, pcr, 0) }

// replays reports whether a log replays to what a host's PCR has.
func replays(t *testing.T, log []byte, pcr int, has digest.Digest) bool {
	t.Helper()
	l, err := eventlog.Parse(log)
	if err != nil {
		t.Fatal(err)
	}
	registers, ok := l.Replay(has.Algorithm())
	return ok && registers[pcr].Value == has
}

func TestParse(t *testing.T) {
	boot := tpmtest.Boot()
	for name, banks := range map[string][]digest.Algorithm{"SHA-1": nil, "agile": both, "one bank": {digest.SHA384}} {
		log := tpmtest.FirmwareLog(banks, boot...)
		l, err := eventlog.Parse(log)
		if err != nil || len(l.Events) != len(boot) || l.Agile != (banks != nil) || len(l.Oddities) > 0 || l.Size != len(log) {
			t.Fatalf("%s: %+v, %v", name, l, err)
		}
		if banks == nil {
			banks = []digest.Algorithm{digest.SHA1}
		}
		if !slices.Equal(l.Banks, banks) {
			t.Errorf("%s: banks %v", name, l.Banks)
		}
		for i, e := range l.Events {
			if e.PCR != int(boot[i].PCR) || uint32(e.Type) != boot[i].Type || !bytes.Equal(e.Data, boot[i].Data) || len(e.Digests) != len(banks) || !e.Type.Known() {
				t.Errorf("%s: %+v of %+v", name, e, boot[i])
			}
			data, ok := e.Proven(banks[0])
			if ok != (boot[i].Measured == nil) || ok && !bytes.Equal(data, e.Data) {
				t.Errorf("%s: event %d: data %q proven %v", name, e.Number, data, ok)
			}
		}
		for _, bank := range banks {
			for pcr := range 24 {
				if want := tpmtest.ExtendFirmware(start(bank, pcr), pcr, boot...); !replays(t, log, pcr, want) {
					t.Errorf("%s: PCR %d of %s is not %s", name, pcr, bank, want)
				}
			}
		}
		if _, ok := l.Replay(digest.SM3); ok {
			t.Errorf("%s: replays a bank that it does not have", name)
		}
	}
	if l, err := eventlog.Parse(nil); err != nil || len(l.Events) != 0 {
		t.Errorf("empty: %+v, %v", l, err)
	}
}

// Every bad log is bred from a good one, and refused with event and offset.
func TestMalformed(t *testing.T) {
	good := tpmtest.FirmwareLog(both, tpmtest.Boot()...)
	const spec = 32 // where the data of the Spec ID event begins
	first := spec + int(binary.LittleEndian.Uint32(good[28:]))
	put := func(at int, b ...byte) func([]byte) []byte {
		return func(log []byte) []byte { copy(log[at:], b); return log }
	}
	bad := map[string]func([]byte) []byte{
		"no algorithm":                   put(spec+24, 0, 0, 0, 0),
		"an algorithm less":              put(spec+24, 1),
		"17 algorithms":                  put(spec+24, 17),
		"4294967295 algorithms":          put(spec+24, 255, 255, 255, 255),
		"sha1 of 32 bytes":               put(spec+30, 32),
		"sha256 of 0 bytes":              put(spec+34, 0),
		"unknown algorithm of 300 bytes": put(spec+28, 0xff, 0xff, 0x2c, 1),
		"unknown algorithm of 0 bytes":   put(spec+28, 0xff, 0xff, 0, 0),
		"sha1 twice":                     put(spec+32, 4, 0, 20, 0),
		"Spec ID event too short":        put(28, 20),
		"Spec ID event too long":         put(28, 255, 255, 255, 127),
		"vendor's word too long":         put(first-1, 1),
		"PCR 24":                         put(first, 24),
		"PCR 4294967295":                 put(first, 255, 255, 255, 255),
		"3 digests":                      put(first+8, 3),
		"4294967295 digests":             put(first+8, 255, 255, 255, 255),
		"algorithm not declared":         put(first+12, 0x0c),
		"algorithm twice in an event":    put(first+34, 4),
		"4294967295 bytes of data":       put(first+68, 255, 255, 255, 255),
		"data beyond the log":            put(first+68, 255, 255),
		"a byte more":                    func(log []byte) []byte { return append(log, 1) },
	}
	if len(bad) != 21 {
		t.Errorf("%d bad cases", len(bad))
	}
	for name, change := range bad {
		l, err := eventlog.Parse(change(bytes.Clone(good)))
		var at *wire.Error
		if !errors.As(err, &at) || !strings.HasPrefix(at.Record, "event ") || at.Offset > int64(len(good)+1) || l == nil {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	ends := map[int]int{} // where a log may end, with the events up to there
	l, _ := eventlog.Parse(good)
	for i, e := range l.Events {
		ends[int(e.Offset)] = i
	}
	for i := 1; i < len(good); i++ {
		l, err := eventlog.Parse(good[:i])
		if n, ok := ends[i]; ok != (err == nil) || ok && len(l.Events) != n {
			t.Errorf("first %d bytes: %d events, %v", i, len(l.Events), err)
		}
	}
}

// Row 20: a PCR without events has its start value, and no other.
func TestAttack20PCRWithoutEvents(t *testing.T) {
	log := tpmtest.FirmwareLog(both, tpmtest.Boot()...)
	for pcr, want := range map[int]byte{8: 0, 16: 0, 17: 0xff, 22: 0xff, 23: 0} {
		has, _ := digest.New(digest.SHA256, bytes.Repeat([]byte{want}, 32))
		if !replays(t, log, pcr, has) {
			t.Errorf("PCR %d is not %s", pcr, has)
		}
		if replays(t, log, pcr, tpmtest.ExtendFirmware(has, 0, tpmtest.FirmwareEvent{Data: []byte("x")})) {
			t.Errorf("PCR %d, extended by something that is not logged, replays", pcr)
		}
	}
	if replays(t, log, 0, start(digest.SHA256, 0)) {
		t.Error("PCR 0, never extended, replays")
	}
}

// Row 21: an event without the bank's digest does not extend that bank, and is
// an oddity.
func TestAttack21EventsOfAnotherBank(t *testing.T) {
	boot := tpmtest.Boot()
	hidden := tpmtest.FirmwareEvent{PCR: 4, Type: tpmtest.EVImage, Digests: []digest.Digest{digest.Sum(digest.SHA1, []byte("evil"))}}
	all := slices.Insert(slices.Clone(boot), 11, hidden)
	log := tpmtest.FirmwareLog(both, all...)
	l, err := eventlog.Parse(log)
	if err != nil || len(l.Oddities) != 1 || l.Oddities[0].Event != 13 || l.Oddities[0].What != "1 digests of 2" {
		t.Fatalf("%v, %v", l.Oddities, err)
	}
	if !replays(t, log, 4, tpmtest.ExtendFirmware(start(digest.SHA256, 4), 4, boot...)) {
		t.Error("the sha256 bank was extended")
	}
	if !replays(t, log, 4, tpmtest.ExtendFirmware(start(digest.SHA1, 4), 4, all...)) {
		t.Error("the sha1 bank was not")
	}
	// The other way round: the TPM's bank was extended, the log does not say so.
	everywhere := hidden
	everywhere.Digests, everywhere.Data = nil, []byte("evil")
	if replays(t, log, 4, tpmtest.ExtendFirmware(start(digest.SHA256, 4), 4, slices.Insert(slices.Clone(boot), 11, everywhere)...)) {
		t.Error("what was extended and is not in the log replays")
	}
}

// Row 22: an event called something else still counts; one called a note was
// not extended, so that the log does not replay.
func TestAttack22TypeChanged(t *testing.T) {
	boot := tpmtest.Boot()
	for i := range boot {
		has := tpmtest.ExtendFirmware(start(digest.SHA256, int(boot[i].PCR)), int(boot[i].PCR), boot...)
		for _, c := range []struct {
			kind uint32
			want bool
		}{{0x0, true}, {0x12, true}, {0x40e, true}, {0xffffffff, true}, {tpmtest.EVNoAction, false}} {
			changed := slices.Clone(boot)
			changed[i].Digests = []digest.Digest{digest.Sum(digest.SHA256, boot[i].Data)}
			if boot[i].Measured != nil {
				changed[i].Digests[0] = digest.Sum(digest.SHA256, boot[i].Measured)
			}
			changed[i].Type = c.kind
			if got := replays(t, tpmtest.FirmwareLog(both[1:], changed...), int(boot[i].PCR), has); got != c.want {
				t.Errorf("event %d as type %#x: replays %v", i, c.kind, got)
			}
		}
	}
	if eventlog.Type(0x40e).Known() || !eventlog.Separator.Known() {
		t.Error("known types")
	}
}

// Row 23: data that is not what was hashed is not proven, though the log
// replays.
func TestAttack23DataNotHashed(t *testing.T) {
	boot := tpmtest.Boot()
	for i := range boot {
		changed := slices.Clone(boot)
		changed[i].Digests = []digest.Digest{digest.Sum(digest.SHA256, boot[i].Data)}
		changed[i].Data = []byte("changed")
		log := tpmtest.FirmwareLog(both[1:], changed...)
		l, err := eventlog.Parse(log)
		if err != nil {
			t.Fatal(err)
		}
		if data, ok := l.Events[i].Proven(digest.SHA256); ok || data != nil {
			t.Errorf("event %d: %q is proven", i, data)
		}
		if _, ok := l.Events[i].Proven(digest.SHA1); ok {
			t.Errorf("event %d: proven by a bank that it has no digest of", i)
		}
	}
}

func note(pcr uint32, locality ...byte) tpmtest.FirmwareEvent {
	return tpmtest.FirmwareEvent{PCR: pcr, Type: tpmtest.EVNoAction, Data: append([]byte("StartupLocality\x00"), locality...)}
}

// Row 26: the note about the locality counts where it may stand, and nowhere
// else; forged, it makes PCR 0 another.
func TestAttack26StartupLocality(t *testing.T) {
	boot := tpmtest.Boot()
	at := func(i int, notes ...tpmtest.FirmwareEvent) []tpmtest.FirmwareEvent {
		return slices.Insert(slices.Clone(boot), i, notes...)
	}
	for _, c := range []struct {
		name     string
		events   []tpmtest.FirmwareEvent
		locality int // that is followed
		odd      int
	}{
		{"none", boot, 0, 0},
		{"0", at(0, note(0, 0)), 0, 0},
		{"3", at(0, note(0, 3)), 3, 0},
		{"4", at(0, note(0, 4)), 4, 0},
		{"after an event on another PCR", slices.Insert(slices.Clone(boot[1:]), 1, note(0, 3)), 3, 0},
		{"1", at(0, note(0, 1)), 0, 1},
		{"of two bytes", at(0, note(0, 3, 0)), 0, 1},
		{"of none", at(0, note(0)), 0, 1},
		{"on PCR 1", at(0, note(1, 3)), 0, 1},
		{"after PCR 0 was measured to", at(1, note(0, 3)), 0, 1},
		{"last", at(len(boot), note(0, 3)), 0, 1},
		{"twice", at(0, note(0, 3), note(0, 4)), 3, 1},
	} {
		for _, banks := range [][]digest.Algorithm{nil, both} {
			log := tpmtest.FirmwareLog(banks, c.events...)
			l, err := eventlog.Parse(log)
			if err != nil || l.Locality != c.locality || len(l.Oddities) != c.odd {
				t.Errorf("%s: locality %d, %v, %v", c.name, l.Locality, l.Oddities, err)
			}
			for locality := range 5 {
				has := tpmtest.ExtendFirmware(eventlog.Start(digest.SHA1, 0, locality), 0, c.events...)
				if got := replays(t, log, 0, has); got != (locality == c.locality) {
					t.Errorf("%s: a TPM started from locality %d: replays %v", c.name, locality, got)
				}
			}
		}
	}
}

// Row 27: PCRs of a dynamic launch start with ones; a value made from zeros
// does not replay.
func TestAttack27DynamicLaunch(t *testing.T) {
	for pcr := 17; pcr <= 22; pcr++ {
		e := tpmtest.FirmwareEvent{PCR: uint32(pcr), Type: 5, Data: []byte("launch")}
		zero, _ := digest.New(digest.SHA256, make([]byte, 32))
		log := tpmtest.FirmwareLog(both, append(tpmtest.Boot(), e)...)
		if replays(t, log, pcr, tpmtest.ExtendFirmware(zero, pcr, e)) {
			t.Errorf("PCR %d replays from zero", pcr)
		}
		if !replays(t, log, pcr, tpmtest.ExtendFirmware(start(digest.SHA256, pcr), pcr, e)) {
			t.Errorf("PCR %d does not replay from ones", pcr)
		}
	}
}

// Row 28: sizes and counts from the log allocate nothing that the log does not
// have, and a log has a limit.
func TestAttack28MemoryCeiling(t *testing.T) {
	small := tpmtest.FirmwareEvent{PCR: 1, Type: 5, Digests: []digest.Digest{}}
	header := tpmtest.FirmwareLog(both)
	hostile := map[string][]byte{
		"many events":  tpmtest.FirmwareLog(both, slices.Repeat([]tpmtest.FirmwareEvent{small}, eventlog.MaxEvents+1)...),
		"many digests": tpmtest.FirmwareLog(both, slices.Repeat([]tpmtest.FirmwareEvent{{PCR: 1, Type: 5}}, eventlog.MaxEvents)...),
		"many notes":   tpmtest.FirmwareLog(both, slices.Repeat([]tpmtest.FirmwareEvent{note(1, 3)}, eventlog.MaxEvents)...),
		"huge size":    append(bytes.Clone(header), bytes.Repeat([]byte{0xff}, 7)...),
		"huge data":    append(bytes.Clone(header), "\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\x7f"...),
		"too large":    make([]byte, eventlog.MaxLog+1),
	}
	for name, log := range hostile {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		l, err := eventlog.Parse(log)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if kept := int(after.HeapAlloc) - int(before.HeapAlloc); kept > 20*len(log)+1<<20 {
			t.Errorf("%s: %d bytes kept for a log of %d", name, kept, len(log))
		}
		runtime.KeepAlive(l)
	}
}

// Row 29: sizes within the data of an event that lie about it.
func TestAttack29SizesInEventData(t *testing.T) {
	data := []byte("\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c\x0a\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00S\x00e\x00c\x00u\x00r\x00e\x00B\x00o\x00o\x00t\x00\x01")
	secure := func(data []byte) (bool, error) {
		l, err := eventlog.Parse(tpmtest.FirmwareLog(both,
			tpmtest.FirmwareEvent{PCR: 7, Type: tpmtest.EVVariable, Data: data},
			tpmtest.FirmwareEvent{PCR: 7, Type: tpmtest.EVSeparator, Data: make([]byte, 4)}))
		if err != nil {
			t.Fatal(err)
		}
		return l.SecureBoot(digest.SHA256)
	}
	if on, err := secure(data); !on || err != nil {
		t.Fatalf("Secure Boot on %v, %v", on, err)
	}
	for i := range data {
		if on, err := secure(data[:i]); on || err == nil {
			t.Errorf("first %d bytes: %v, %v", i, on, err)
		}
		for _, b := range []byte{0x7f, 0x80, 0xff} {
			bad := bytes.Clone(data)
			bad[i] = b
			if on, err := secure(bad); on || err == nil {
				t.Errorf("byte %d is %#x: %v, %v", i, b, on, err)
			}
		}
	}
	if on, err := secure(append(data, 0)); on || err == nil {
		t.Errorf("a byte more: %v, %v", on, err)
	}
}

// signatureList is an EFI_SIGNATURE_LIST of one type; sizes is what is added to
// the sizes that it says of itself, of its header, and of each signature.
func signatureList(guid string, sizes [3]int32, data ...string) []byte {
	const owner = "\xbd\x9a\xfa\x77\x59\x03\x32\x4d\xbd\x60\x28\xf4\xe7\x8f\x78\x4b"
	each := 16
	var body []byte
	for _, d := range data {
		each, body = len(owner)+len(d), append(append(body, owner...), d...)
	}
	b := []byte(guid)
	for i, n := range []int{16 + 12 + len(body), 0, each} {
		b = binary.LittleEndian.AppendUint32(b, uint32(int32(n)+sizes[i]))
	}
	return append(b, body...)
}

const (
	certificates = "\xa1\x59\xc0\xa5\xe4\x94\xa7\x4a\x87\xb5\xab\x15\x5c\x2b\xf0\x72"
	images       = "\x26\x16\xc4\xc1\x4c\x50\x92\x40\xac\xa9\x41\xf9\x36\x93\x43\x28"
)

// Row 29: lists of signatures whose sizes are zero, too small for what is in
// front, or too large. (Device paths are not read at all.)
func TestAttack29SignatureLists(t *testing.T) {
	hash := strings.Repeat("h", 32)
	good := signatureList(certificates, [3]int32{}, "a certificate")
	good = append(good, signatureList(images, [3]int32{}, hash, hash)...)
	all, err := eventlog.ParseSignatures(good)
	if err != nil || len(all) != 3 || all[0].Kind != "x509" || string(all[0].Data) != "a certificate" ||
		all[0].Owner.String() != "77fa9abd-0359-4d32-bd60-28f4e78f784b" || all[2].Kind != "sha256" || string(all[2].Data) != hash {
		t.Fatalf("%+v, %v", all, err)
	}
	for name, sizes := range map[string][3]int32{
		"size 0": {-16 - 12 - 29, 0, 0}, "size of the header less one": {-30, 0, 0}, "a byte less": {-1, 0, 0}, "a byte more": {1, 0, 0},
		"size 2^31 - 1": {1<<31 - 1 - 57, 0, 0}, "size 2^32 - 1": {-58, 0, 0},
		"a header of 1": {0, 1, 0}, "a header of 2^31 - 1": {0, 1<<31 - 1, 0}, "a header of 2^32 - 1": {0, -1, 0},
		"signatures of 0": {0, 0, -29}, "signatures of an owner": {0, 0, -13}, "signatures of 1": {0, 0, -28},
		"signatures of a byte more": {0, 0, 1}, "signatures of 2^32 - 1": {0, 0, -30},
	} {
		all, err := eventlog.ParseSignatures(append(signatureList(certificates, sizes, "a certificate"), good...))
		if err == nil || !strings.HasPrefix(err.Error(), "signature list 1: offset ") || all != nil {
			t.Errorf("%s: %d signatures, %v", name, len(all), err)
		}
	}
	if _, err := eventlog.ParseSignatures(signatureList(images, [3]int32{}, "short")); err == nil {
		t.Error("a sha256 of five bytes")
	}
	first := len(signatureList(certificates, [3]int32{}, "a certificate"))
	for i := range good {
		if all, err := eventlog.ParseSignatures(good[:i]); (err == nil) != (i == 0 || i == first) {
			t.Errorf("first %d bytes: %d signatures, %v", i, len(all), err)
		}
	}
	many := signatureList(images, [3]int32{}, slices.Repeat([]string{hash}, 1<<16)...)
	if all, err := eventlog.ParseSignatures(many); err != nil || len(all) != 1<<16 {
		t.Errorf("%d signatures, %v", len(all), err)
	}
	if _, err := eventlog.ParseSignatures(append(many, good...)); err == nil {
		t.Error("more signatures than the limit")
	}
}

// The keys of Secure Boot are those that PCR 7 proves, from before its
// separator.
func TestSecureBootKeys(t *testing.T) {
	variable := func(guid, name string, value []byte) tpmtest.FirmwareEvent {
		data := binary.LittleEndian.AppendUint64([]byte(guid), uint64(len(name)))
		data = binary.LittleEndian.AppendUint64(data, uint64(len(value)))
		for _, c := range []byte(name) {
			data = append(data, c, 0)
		}
		return tpmtest.FirmwareEvent{PCR: 7, Type: tpmtest.EVVariable, Data: append(data, value...)}
	}
	const global, security = "\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c", "\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f"
	hash := strings.Repeat("h", 32)
	pk := variable(global, "PK", signatureList(certificates, [3]int32{}, "platform"))
	dbx := variable(security, "dbx", signatureList(images, [3]int32{}, hash))
	separator := tpmtest.FirmwareEvent{PCR: 7, Type: tpmtest.EVSeparator, Data: make([]byte, 4)}
	keys := func(events ...tpmtest.FirmwareEvent) (names []string, odd int) {
		l, err := eventlog.Parse(tpmtest.FirmwareLog(both, events...))
		if err != nil {
			t.Fatal(err)
		}
		all, oddities := l.Keys(digest.SHA256)
		for _, k := range all {
			names = append(names, fmt.Sprintf("%d %s %s %s", k.Event, k.Variable, k.Kind, k.Digest()))
		}
		return names, len(oddities)
	}
	platform := "2 PK x509 " + digest.Sum(digest.SHA256, []byte("platform")).String()
	revoked := fmt.Sprintf("3 dbx sha256 sha256:%x", hash)
	notHashed, elsewhere, otherGUID, called := pk, pk, variable(security, "PK", signatureList(certificates, [3]int32{}, "platform")), pk
	notHashed.Measured = []byte("another")
	elsewhere.PCR = 1
	called.Type = 5
	damaged := variable(global, "PK", signatureList(certificates, [3]int32{-1, 0, 0}, "platform"))
	for name, c := range map[string]struct {
		events []tpmtest.FirmwareEvent
		keys   []string
		odd    int
	}{
		"both":               {[]tpmtest.FirmwareEvent{pk, dbx, separator}, []string{platform, revoked}, 0},
		"empty":              {[]tpmtest.FirmwareEvent{variable(global, "PK", nil)}, nil, 0},
		"of another type":    {[]tpmtest.FirmwareEvent{called}, []string{platform}, 0},
		"not hashed":         {[]tpmtest.FirmwareEvent{notHashed}, nil, 0},
		"on another PCR":     {[]tpmtest.FirmwareEvent{elsewhere}, nil, 0},
		"of another GUID":    {[]tpmtest.FirmwareEvent{otherGUID}, nil, 0},
		"after the end":      {[]tpmtest.FirmwareEvent{pk, separator, dbx}, []string{platform}, 0},
		"twice":              {[]tpmtest.FirmwareEvent{pk, pk}, []string{platform}, 1},
		"damaged, and a dbx": {[]tpmtest.FirmwareEvent{damaged, dbx}, []string{revoked}, 1},
	} {
		if got, odd := keys(c.events...); !slices.Equal(got, c.keys) || odd != c.odd {
			t.Errorf("%s: %q, %d oddities", name, got, odd)
		}
	}
}

func FuzzParseSignatures(f *testing.F) {
	f.Add(signatureList(certificates, [3]int32{}, "a certificate"))
	f.Add(append(signatureList(images, [3]int32{}, strings.Repeat("h", 32)), signatureList(certificates, [3]int32{0, 0, -29}, "a")...))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := eventlog.ParseSignatures(b)
		size := 0
		for _, s := range all {
			if size += 16 + len(s.Data); s.Kind == "" || len(s.Data) == 0 {
				t.Errorf("%+v", s)
			}
		}
		if err != nil && all != nil || size > len(b) {
			t.Errorf("%d bytes of signatures in %d, %v", size, len(b), err)
		}
	})
}

// Row 30: a log that ends where the area for it is full is called that.
func TestAttack30CutAt64KiB(t *testing.T) {
	long := tpmtest.FirmwareEvent{PCR: 1, Type: 5, Data: make([]byte, 70_000)}
	log := tpmtest.FirmwareLog(both, append(tpmtest.Boot(), long)...)
	l, err := eventlog.Parse(log[:64<<10])
	if !errors.Is(err, eventlog.ErrFull) || !errors.Is(err, wire.ErrShort) || len(l.Events) != len(tpmtest.Boot()) {
		t.Errorf("%d events, %v", len(l.Events), err)
	}
	if _, err := eventlog.Parse(log[:60_000]); err == nil || errors.Is(err, eventlog.ErrFull) {
		t.Errorf("cut elsewhere: %v", err)
	}
	crlf := bytes.ReplaceAll(log, []byte("\n"), []byte("\r\n"))
	crlf = append(crlf, "\r\n"...)
	if _, err := eventlog.Parse(crlf); err == nil {
		t.Error("a log that went through a text converter is read")
	}
}

func TestPadding(t *testing.T) {
	boot := tpmtest.Boot()
	for _, pad := range []byte{0, 0xff} {
		log := append(tpmtest.FirmwareLog(both, boot...), bytes.Repeat([]byte{pad}, 100)...)
		l, err := eventlog.Parse(log)
		if err != nil || len(l.Events) != len(boot) || len(l.Oddities) != 1 || l.Oddities[0].What != "100 bytes of padding" {
			t.Errorf("%#x: %d events, %v, %v", pad, len(l.Events), l.Oddities, err)
		}
		log[len(log)-1] ^= 1
		if l, err := eventlog.Parse(log); err == nil {
			t.Errorf("%#x with something behind it: %d events", pad, len(l.Events))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(tpmtest.FirmwareLog(nil, tpmtest.Boot()...))
	f.Add(tpmtest.FirmwareLog(both, append([]tpmtest.FirmwareEvent{note(0, 3)}, tpmtest.Boot()...)...))
	f.Fuzz(func(t *testing.T, log []byte) {
		l, err := eventlog.Parse(log)
		if err != nil && !strings.HasPrefix(err.Error(), fmt.Sprintf("event %d: offset ", len(l.Events)+1)) &&
			!strings.HasPrefix(err.Error(), fmt.Sprintf("event %d: offset ", len(l.Events)+2)) {
			t.Errorf("%d events, %v", len(l.Events), err)
		}
		for i, e := range l.Events {
			if e.PCR < -1 || e.PCR > 23 || e.PCR < 0 && e.Type != eventlog.NoAction || len(e.Digests) > len(l.Banks) || i > 0 && e.Offset <= l.Events[i-1].Offset {
				t.Errorf("%+v", e)
			}
			for _, bank := range l.Banks {
				if text, ok := e.Text(bank); ok && (text == "" || !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\n\x1b")) {
					t.Errorf("text %q", text)
				}
			}
		}
		for _, bank := range l.Banks {
			if on, err := l.SecureBoot(bank); on && (err != nil || !bank.Available()) {
				t.Errorf("Secure Boot on, %v", err)
			}
			registers, ok := l.Replay(bank)
			if ok != bank.Available() {
				t.Errorf("bank %s replays: %v", bank, ok)
			}
			n := 0
			for _, r := range registers {
				n += r.Events
			}
			if n > len(l.Events) {
				t.Errorf("%d of %d events extended", n, len(l.Events))
			}
		}
	})
}
