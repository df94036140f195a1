package imalog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"diglim/internal/digest"
	"diglim/internal/wire"
	"diglim/tpm/imalog"
	"diglim/tpm/tpmtest"
)

func file(name string) digest.Digest { return digest.Sum(digest.SHA256, []byte(name)) }

// entries is an honest log: both templates, a signature, a violation, a
// repetition, another algorithm.
func entries() []tpmtest.Entry {
	sig := tpmtest.NewEntry("/usr/bin/signed", file("signed"))
	sig.Template, sig.Signature = "ima-sig", []byte{3, 2, 4, 1, 2, 3, 4, 0, 1, 9}
	unsigned := sig
	unsigned.Path, unsigned.Signature = "/a path with\nall sorts \xff (deleted)", nil
	zero, _ := digest.New(digest.SHA1, make([]byte, 20))
	violation := tpmtest.NewEntry("/var/log/x", zero)
	violation.Violation = true
	return []tpmtest.Entry{
		tpmtest.NewEntry("boot_aggregate", file("aggregate")),
		sig, unsigned, violation,
		tpmtest.NewEntry("/usr/bin/true", file("true")),
		tpmtest.NewEntry("/usr/bin/true", file("true")),
		tpmtest.NewEntry("/usr/bin/old", digest.Sum(digest.SHA1, []byte("old"))),
	}
}

// parse collects a log by the first of its layouts, and its error.
func parse(log []byte) (all []imalog.Entry, err error) {
	layouts, err := imalog.Layouts(bytes.NewReader(log))
	if err != nil || len(layouts) == 0 {
		return nil, err
	}
	return parseAs(log, layouts[0])
}

func parseAs(log []byte, l imalog.Layout) (all []imalog.Entry, err error) {
	for e, err := range imalog.Entries(bytes.NewReader(log), l) {
		if err != nil {
			return all, err
		}
		kept := *e
		for _, b := range []*[]byte{&kept.Data, &kept.Path, &kept.Signature, &kept.Buffer, &kept.Appended, &kept.EVM, &kept.XattrNames, &kept.XattrValues} {
			*b = bytes.Clone(*b)
		}
		kept.XattrSizes = slices.Clone(kept.XattrSizes)
		all = append(all, kept)
	}
	return all, nil
}

func TestEntries(t *testing.T) {
	want := entries()
	for _, alg := range widths {
		got, err := parse(tpmtest.Log(alg, want...))
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %d entries, %v", alg, len(got), err)
		}
		for i, e := range got {
			w := want[i]
			if e.Number != i+1 || e.PCR != w.PCR || e.Template != w.Template || !e.Known || e.Digest != w.Digest ||
				string(e.Path) != w.Path || !bytes.Equal(e.Signature, w.Signature) || e.Violation != w.Violation ||
				!bytes.Equal(e.Data, w.TemplateData()) || e.Hash.Algorithm() != alg {
				t.Errorf("%s: %+v from %+v", alg, e, w)
			}
			if e.Authentic(digest.SHA256) == w.Violation {
				t.Errorf("%s: entry %d: authentic %v", alg, e.Number, e.Authentic(digest.SHA256))
			}
		}
	}
	if all, err := parse(nil); len(all) != 0 || err != nil {
		t.Errorf("empty log: %v, %v", all, err)
	}
}

// A template that is not known is yielded as such, and so is what follows it.
func TestUnknownTemplate(t *testing.T) {
	for _, template := range []string{"ima-new", "d-ng|n-ng|new", "d-ng|", "|", "d|d-ng|n", "n|n-ng|d", "sig|sig", strings.Repeat("sig|", 15) + "n"} {
		e := tpmtest.NewEntry("/usr/bin/true", file("true"))
		e.Template = template
		got, err := parse(tpmtest.Log(digest.SHA1, e, tpmtest.NewEntry("/x", file("x"))))
		if err != nil || len(got) != 2 || got[0].Known || got[0].Template != template || !got[0].Digest.IsZero() || got[0].Path != nil || !got[1].Known {
			t.Errorf("%s: %+v, %v", template, got, err)
		}
	}
}

// The template "ima" has a form of its own.
func TestLegacyTemplate(t *testing.T) {
	d := digest.Sum(digest.SHA1, []byte("init")).Bytes()
	padded := append(bytes.Clone(d), make([]byte, 256)...)
	copy(padded[20:], "/init")
	entry := []byte{10, 0, 0, 0}
	entry = append(entry, digest.Sum(digest.SHA1, padded).Bytes()...)
	entry = append(entry, "\x03\x00\x00\x00ima"...)
	entry = append(entry, d...)
	entry = append(entry, "\x05\x00\x00\x00/init"...)
	log := append(entry, tpmtest.Log(digest.SHA1, tpmtest.NewEntry("/x", file("x")))...)
	all, err := parse(log)
	if err != nil || len(all) != 2 || !all[0].Authentic(digest.SHA256) || !all[0].Known || string(all[0].Path) != "/init" || all[0].Digest != digest.Sum(digest.SHA1, []byte("init")) || !all[1].Known || all[1].Offset != int64(len(entry)) {
		t.Errorf("%+v, %v", all, err)
	}
	long := bytes.Replace(entry, []byte("\x05\x00\x00\x00/init"), append([]byte{0, 1, 0, 0}, make([]byte, 256)...), 1)
	if all, err := parse(long); err == nil {
		t.Errorf("a name of 256 bytes: %+v", all)
	}
	for i := 28; i < len(entry); i++ {
		if all, err := parse(entry[:i]); err == nil {
			t.Errorf("first %d bytes: %+v", i, all)
		}
	}
}

// Every bad entry is bred from a good one, stands second in its log, and is
// refused with its number and offset.
func TestMalformed(t *testing.T) {
	good := tpmtest.NewEntry("/usr/bin/true", file("true"))
	field := func(b ...[]byte) (data []byte) {
		for _, f := range b {
			data = append(binary.LittleEndian.AppendUint32(data, uint32(len(f))), f...)
		}
		return data
	}
	d := append([]byte("sha256:\x00"), file("true").Bytes()...)
	path := []byte("/usr/bin/true\x00")
	bad := map[string]func(*tpmtest.Entry){
		"PCR 24":                 func(e *tpmtest.Entry) { e.PCR = 24 },
		"PCR -1":                 func(e *tpmtest.Entry) { e.PCR = -1 },
		"no template name":       func(e *tpmtest.Entry) { e.Template = "" },
		"name with a space":      func(e *tpmtest.Entry) { e.Template = "ima ng" },
		"name with a NUL":        func(e *tpmtest.Entry) { e.Template = "ima-ng\x00" },
		"name of 256":            func(e *tpmtest.Entry) { e.Template = strings.Repeat("n", 256) },
		"data of 1 MiB and 1":    func(e *tpmtest.Entry) { e.Data = make([]byte, imalog.MaxData+1) },
		"no fields":              func(e *tpmtest.Entry) { e.Data = []byte{} },
		"digest alone":           func(e *tpmtest.Entry) { e.Data = field(d) },
		"a third field":          func(e *tpmtest.Entry) { e.Data = field(d, path, nil) },
		"two fields for ima-sig": func(e *tpmtest.Entry) { e.Template, e.Data = "ima-sig", field(d, path) },
		"trailing byte":          func(e *tpmtest.Entry) { e.Data = append(field(d, path), 0) },
		"no algorithm":           func(e *tpmtest.Entry) { e.Data = field(file("true").Bytes(), path) },
		"unknown algorithm":      func(e *tpmtest.Entry) { e.Data = field(append([]byte("sha257:\x00"), file("true").Bytes()...), path) },
		"two algorithms": func(e *tpmtest.Entry) {
			e.Data = field(append([]byte("sha256:verity:\x00"), file("true").Bytes()...), path)
		},
		"algorithm without NUL":  func(e *tpmtest.Entry) { e.Data = field(append([]byte("sha256:"), file("true").Bytes()...), path) },
		"short digest":           func(e *tpmtest.Entry) { e.Data = field(d[:len(d)-1], path) },
		"long digest":            func(e *tpmtest.Entry) { e.Data = field(append(bytes.Clone(d), 0), path) },
		"digest of another":      func(e *tpmtest.Entry) { e.Data = field(append([]byte("sha1:\x00"), file("true").Bytes()...), path) },
		"empty path":             func(e *tpmtest.Entry) { e.Path = "" },
		"path without NUL":       func(e *tpmtest.Entry) { e.Data = field(d, path[:len(path)-1]) },
		"path with two NULs":     func(e *tpmtest.Entry) { e.Path = "/usr/bin/true\x00" },
		"NUL within the path":    func(e *tpmtest.Entry) { e.Path = "/usr\x00/bin/true" },
		"path of 4096 and NUL":   func(e *tpmtest.Entry) { e.Path = strings.Repeat("/", imalog.MaxPath) },
		"path length 4294967295": func(e *tpmtest.Entry) { e.Data = append(field(d), 0xff, 0xff, 0xff, 0xff) },
		"signature of 64 KiB+1": func(e *tpmtest.Entry) {
			e.Template, e.Signature = "ima-sig", make([]byte, imalog.MaxSignature+1)
		},
	}
	if len(bad) != 26 {
		t.Errorf("%d bad cases", len(bad))
	}
	first := tpmtest.Log(digest.SHA1, good)
	for name, change := range bad {
		e := good
		change(&e)
		all, err := parse(append(bytes.Clone(first), tpmtest.Log(digest.SHA1, e)...))
		var at *wire.Error
		if len(all) != 1 || !errors.As(err, &at) || at.Record != "entry 2" || at.Offset < int64(len(first)) {
			t.Errorf("%s: %d entries, %v", name, len(all), err)
		}
	}
	whole := tpmtest.Log(digest.SHA1, good, good)
	for i := 1; i < len(whole); i++ {
		if i == len(first) {
			continue
		}
		if all, err := parse(whole[:i]); err == nil {
			t.Errorf("first %d bytes: %d entries and no error", i, len(all))
		}
	}
}

// proven replays a log against the value of PCR 10 after kernel measured.
func proven(t *testing.T, bank digest.Algorithm, quoted digest.Digest, log []byte) (int, bool) {
	t.Helper()
	all, err := parse(log)
	if err != nil {
		t.Fatal(err)
	}
	r := imalog.NewReplay(start(bank), quoted)
	for _, e := range all {
		r.Add(&e)
	}
	return r.Proven()
}

func start(bank digest.Algorithm) digest.Digest { return imalog.Zero(bank) }

// Row 31: the data was changed after it was hashed.
func TestAttack31DataIsNotWhatWasHashed(t *testing.T) {
	e := tpmtest.NewEntry("/usr/bin/evil", file("evil"))
	e.Hash = digest.Sum(digest.SHA1, tpmtest.NewEntry("/usr/bin/true", file("true")).TemplateData()).Bytes()
	all, err := parse(tpmtest.Log(digest.SHA1, e))
	if err != nil || len(all) != 1 || all[0].Authentic(digest.SHA256) {
		t.Errorf("%+v, %v", all, err)
	}
}

// Row 35: a violation extends all ones, in every bank and under every width.
func TestAttack35ViolationExtendsOnes(t *testing.T) {
	all := entries()
	for _, width := range widths {
		for _, bank := range []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512} {
			quoted := tpmtest.Extend(start(bank), 10, all...)
			if n, ok := proven(t, bank, quoted, tpmtest.Log(width, all...)); n != len(all) || !ok {
				t.Errorf("%s log, %s bank: %d of %d, %v", width, bank, n, len(all), ok)
			}
		}
	}
}

// Row 36: a violation that is said to have extended zeros, and an entry that
// is made to look like a violation.
func TestAttack36ViolationIsNotZero(t *testing.T) {
	for _, bank := range []digest.Algorithm{digest.SHA1, digest.SHA256} {
		all := entries()[3:5] // a violation, then a file
		quoted := digest.Sum(bank, start(bank).Bytes(), make([]byte, bank.Size()))
		quoted = tpmtest.Extend(quoted, 10, all[1])
		if n, ok := proven(t, bank, quoted, tpmtest.Log(digest.SHA1, all...)); ok {
			t.Errorf("zeros extended for a violation: %d entries proven", n)
		}
		quoted = tpmtest.Extend(start(bank), 10, all[1])
		all[1].Violation = true
		if n, ok := proven(t, bank, quoted, tpmtest.Log(digest.SHA1, all[1])); ok {
			t.Errorf("a file said to be a violation: %d entries proven", n)
		}
	}
}

// Row 37: the log may be ahead of the quote, by any number; never behind.
func TestAttack37LogAheadOrBehind(t *testing.T) {
	all := entries()
	log := tpmtest.Log(digest.SHA1, all...)
	for n := range len(all) + 1 {
		quoted := tpmtest.Extend(start(digest.SHA256), 10, all[:n]...)
		if got, ok := proven(t, digest.SHA256, quoted, log); got != n || !ok {
			t.Errorf("quoted after %d entries: %d proven, %v", n, got, ok)
		}
	}
	quoted := tpmtest.Extend(start(digest.SHA256), 10, all...)
	for n := range len(all) {
		if got, ok := proven(t, digest.SHA256, quoted, tpmtest.Log(digest.SHA1, all[:n]...)); ok {
			t.Errorf("log ends after %d of %d entries: %d proven", n, len(all), got)
		}
		if got, ok := proven(t, digest.SHA256, quoted, tpmtest.Log(digest.SHA1, all[n+1:]...)); ok {
			t.Errorf("first %d entries missing: %d proven", n+1, got)
		}
	}
}

// A hostile log costs no memory but the window in which it is read: the parser
// allocates nothing by a number it reads.
func TestMemoryCeiling(t *testing.T) {
	e := tpmtest.NewEntry("/x", file("x"))
	log := bytes.Repeat(tpmtest.Log(digest.SHA1, e), 100_000)
	hostile := map[string][]byte{
		"many entries":  log,
		"huge lengths":  append(bytes.Clone(log[:1000*len(log)/100_000]), bytes.Repeat([]byte{0xff}, 1<<20)...),
		"legacy":        bytes.Repeat([]byte("\x0a\x00\x00\x0020 bytes of hash....\x03\x00\x00\x00ima20 bytes of digest..\x01\x00\x00\x00/"), 100_000),
		"unknown names": bytes.Repeat(tpmtest.Log(digest.SHA1, tpmtest.Entry{PCR: 10, Template: "n|m", Data: []byte{0}}), 100_000),
	}
	for name, b := range hostile {
		layouts, err := imalog.Layouts(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n := 0
		for _, err := range imalog.Entries(bytes.NewReader(b), layouts[0]) {
			if err == nil {
				n++
			}
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; n < 1000 || got > 3*imalog.MaxEntry {
			t.Errorf("%s: %d entries, %d bytes allocated for a log of %d", name, n, got, len(b))
		}
	}
}

func FuzzEntries(f *testing.F) {
	f.Add(tpmtest.Log(digest.SHA1, entries()...))
	f.Add(tpmtest.Log(digest.SHA256, entries()...))
	f.Add(tpmtest.Log(digest.SHA384, templates()...))
	f.Add(tpmtest.Log(digest.SHA512, bigEndian(templates())...))
	f.Fuzz(func(t *testing.T, log []byte) {
		layouts, err := imalog.Layouts(bytes.NewReader(log))
		if (err == nil) != (len(layouts) > 0 || len(log) == 0) {
			t.Errorf("%v, %v", layouts, err)
		}
		for _, l := range layouts {
			var end int64
			n := 0
			r := imalog.NewReplay(start(digest.SHA256), start(digest.SHA256))
			for e, err := range imalog.Entries(bytes.NewReader(log), l) {
				n++
				if err != nil {
					if e != nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("entry %d: offset ", n)) {
						t.Errorf("%v, %v", e, err)
					}
					break
				}
				if e.Number != n || end >= 0 && e.Offset != end || e.Known && e.Template == "ima-ng" && (len(e.Path) == 0 || e.Digest.IsZero()) {
					t.Errorf("%+v", e)
				}
				end = e.Offset + int64(4+e.Hash.Algorithm().Size()+4+len(e.Template)+4+len(e.Data))
				if e.Template == "ima" {
					end = -1 // Data does not say how long the entry is
				}
				e.Authentic(digest.SHA256)
				r.Add(e)
				for _, attribute := range [][]byte{e.Signature, e.EVM} {
					s, err := imalog.ParseSignature(attribute)
					if err == nil && len(s.Value) != len(attribute)-9 {
						t.Errorf("signature %+v of %x", s, attribute)
					}
					s.Covers(e)
				}
			}
			if got, _ := r.Proven(); got > n {
				t.Errorf("%d of %d entries proven", got, n)
			}
		}
	})
}

func BenchmarkEntries(b *testing.B) {
	log := bytes.Repeat(tpmtest.Log(digest.SHA1, tpmtest.NewEntry("/usr/bin/true", file("true"))), 100_000)
	for _, c := range []struct {
		name string
		each func(*imalog.Replay, *imalog.Entry)
	}{
		{"parse", func(*imalog.Replay, *imalog.Entry) {}},
		{"replay", func(r *imalog.Replay, e *imalog.Entry) { r.Add(e) }},
		{"replay and check", func(r *imalog.Replay, e *imalog.Entry) { e.Authentic(digest.SHA256); r.Add(e) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := imalog.NewReplay(start(digest.SHA256), file("quoted"))
				for e, err := range imalog.Entries(bytes.NewReader(log), imalog.Layout{Hash: digest.SHA1}) {
					if err != nil {
						b.Fatal(err)
					}
					c.each(r, e)
				}
			}
		})
	}
}
