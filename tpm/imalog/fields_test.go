package imalog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"diglim/internal/digest"
	"diglim/internal/wire"
	"diglim/tpm/imalog"
	"diglim/tpm/tpmtest"
)

// widths are the algorithms of the template hashes that kernels write.
var widths = []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512}

var (
	truePath = []byte("/usr/bin/true\x00")
	xattr    = []byte{3, 2, 4, 1, 2, 3, 4, 0, 1, 9} // a signature of one byte
)

// templates is one entry of every template that has a name but "ima", and of
// some that have none.
func templates() []tpmtest.Entry {
	d := tpmtest.Tagged(file("true"))
	ima, verity := append([]byte("ima:"), d...), append([]byte("verity:"), d...)
	sha1 := digest.Sum(digest.SHA1, []byte("true")).Bytes()
	le32 := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 5), 3)
	with := func(template string, fields ...[]byte) tpmtest.Entry {
		return tpmtest.Entry{PCR: 10, Template: template, Fields: fields}
	}
	return []tpmtest.Entry{
		with("ima-ng", d, truePath),
		with("ima-ngv2", ima, truePath),
		with("ima-ngv2", verity, truePath),
		with("ima-sig", d, truePath, xattr),
		with("ima-sigv2", verity, truePath, xattr),
		with("ima-buf", d, truePath, []byte("buffer")),
		with("ima-modsig", d, truePath, nil, tpmtest.Tagged(file("bare")), []byte("pkcs7")),
		with("ima-modsig", d, truePath, xattr, nil, nil),
		with("evm-sig", d, truePath, xattr, []byte("security.ima|security.capability\x00"), le32, []byte("valueval"),
			[]byte{1, 0, 0, 0}, []byte{2, 0, 0, 0}, []byte{0xed, 0x81}),
		with("n-ng|d", truePath, sha1),
		with("d|n|sig", sha1, truePath, nil),
		with("iuid|imode|d-ng|n", []byte{1, 0}, []byte{0xed, 0x81}, d, truePath),
		with("sig", xattr),
		with("n", truePath),
	}
}

// bigEndian is what a host of that byte order logs; numbers within fields are
// turned round by hand.
func bigEndian(all []tpmtest.Entry) []tpmtest.Entry {
	for i := range all {
		all[i].BigEndian = true
		for j, f := range all[i].Fields {
			switch string(f) {
			case "\x01\x00", "\x01\x00\x00\x00", "\x02\x00\x00\x00", "\xed\x81":
				f = bytes.Clone(f)
				for a, b := 0, len(f)-1; a < b; a, b = a+1, b-1 {
					f[a], f[b] = f[b], f[a]
				}
				all[i].Fields[j] = f
			case "\x05\x00\x00\x00\x03\x00\x00\x00":
				all[i].Fields[j] = []byte{0, 0, 0, 5, 0, 0, 0, 3}
			}
		}
	}
	return all
}

// Every template is read by its fields, in each width and byte order, and the
// log replays.
func TestTemplates(t *testing.T) {
	sha1 := digest.Sum(digest.SHA1, []byte("true"))
	for name, all := range map[string][]tpmtest.Entry{"little-endian": templates(), "big-endian": bigEndian(templates())} {
		for _, width := range widths {
			log := tpmtest.Log(width, all...)
			layouts, err := imalog.Layouts(bytes.NewReader(log))
			if err != nil || len(layouts) != 1 || layouts[0] != (imalog.Layout{Hash: width, BigEndian: name == "big-endian"}) {
				t.Fatalf("%s %s: %v, %v", name, width, layouts, err)
			}
			got, err := parse(log)
			if err != nil || len(got) != len(all) {
				t.Fatalf("%s %s: %d entries, %v", name, width, len(got), err)
			}
			for i, e := range got {
				if !e.Known || !e.Authentic(digest.SHA256) || e.Template != all[i].Template {
					t.Errorf("%s: %+v", name, e)
				}
				if e.Template != "sig" && string(e.Path) != "/usr/bin/true" {
					t.Errorf("%s: %s: path %s", name, e.Template, e.Path)
				}
				switch e.Template {
				case "sig", "n":
				case "n-ng|d", "d|n|sig":
					if e.Digest != sha1 {
						t.Errorf("%s: %s: %v", name, e.Template, e.Digest)
					}
				default:
					if e.Digest != file("true") {
						t.Errorf("%s: %s: %v", name, e.Template, e.Digest)
					}
				}
			}
			if got[1].Verity || !got[2].Verity || !got[4].Verity || got[0].Verity {
				t.Errorf("%s: fs-verity: %+v", name, got[:5])
			}
			if e := got[4]; !bytes.Equal(e.Signature, xattr) {
				t.Errorf("%s: %+v", name, e)
			}
			if e := got[5]; string(e.Buffer) != "buffer" {
				t.Errorf("%s: %+v", name, e)
			}
			if e := got[6]; e.Unsigned != file("bare") || string(e.Appended) != "pkcs7" || len(e.Signature) != 0 {
				t.Errorf("%s: %+v", name, e)
			}
			if e := got[7]; !e.Unsigned.IsZero() || len(e.Appended) != 0 || !bytes.Equal(e.Signature, xattr) {
				t.Errorf("%s: %+v", name, e)
			}
			if e := got[8]; !bytes.Equal(e.EVM, xattr) || len(e.XattrSizes) != 2 || e.XattrSizes[0] != 5 || e.XattrSizes[1] != 3 ||
				string(e.XattrValues) != "valueval" || e.UID != 1 || e.GID != 2 || e.Mode != 0o100755 {
				t.Errorf("%s: %+v", name, e)
			}
			if e := got[11]; e.UID != 1 || e.Mode != 0o100755 || len(e.XattrSizes) != 0 {
				t.Errorf("%s: %+v", name, e)
			}
			for _, bank := range widths {
				if n, ok := proven(t, bank, tpmtest.Extend(start(bank), 10, all...), log); n != len(all) || !ok {
					t.Errorf("%s %s: %s bank: %d proven, %v", name, width, bank, n, ok)
				}
			}
		}
	}
}

// An entry has nothing of the one before it, nor of the one whose place in a
// batch it takes.
func TestFieldsAreItsOwn(t *testing.T) {
	for _, before := range templates() {
		for _, after := range templates() {
			alone, err := parse(tpmtest.Log(digest.SHA256, after))
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range []int{1, 16} {
				all, err := parse(tpmtest.Log(digest.SHA256, append(slices.Repeat([]tpmtest.Entry{before}, n), after)...))
				if err != nil {
					t.Fatal(err)
				}
				got, want := all[n], alone[0]
				got.Number, got.Offset = want.Number, want.Offset
				if len(got.XattrSizes) == 0 {
					got.XattrSizes = want.XattrSizes // empty or nil
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s after %d times %s: %+v, want %+v", after.Template, n, before.Template, got, want)
				}
			}
		}
	}
}

// The entries of a batch are all good until the next batch.
func TestBatches(t *testing.T) {
	all := templates()
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	all = slices.Concat(entries(), all, entries(), entries(), entries(), all, all)
	log := tpmtest.Log(digest.SHA256, all...)
	want, err := parse(log)
	if err != nil {
		t.Fatal(err)
	}
	n, several := 0, false
	for batch, err := range imalog.Batches(bytes.NewReader(log), imalog.Layout{Hash: digest.SHA256}) {
		if err != nil {
			t.Fatal(err)
		}
		several = several || len(batch) > 1
		for _, got := range batch {
			if len(got.XattrSizes) == 0 {
				got.XattrSizes = want[n].XattrSizes
			}
			if !reflect.DeepEqual(got, want[n]) {
				t.Errorf("entry %d: %+v, want %+v", n+1, got, want[n])
			}
			n++
		}
	}
	if n != len(all) || !several {
		t.Errorf("%d entries of %d, several in a batch: %v", n, len(all), several)
	}
}

// The data of an entry is hashed by whichever algorithm is asked for.
func TestSum(t *testing.T) {
	for e, err := range imalog.Entries(bytes.NewReader(tpmtest.Log(digest.SHA1, entries()...)), imalog.Layout{Hash: digest.SHA1}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, alg := range []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA256, digest.SHA512, digest.SHA1} {
			if got, want := e.Sum(alg), digest.Sum(alg, e.Data); got != want {
				t.Errorf("entry %d: %s, want %s", e.Number, got, want)
			}
		}
	}
}

// Every field is bred into bad ones, which are refused with their offset.
func TestMalformedFields(t *testing.T) {
	d := tpmtest.Tagged(file("true"))
	bad := map[string]tpmtest.Entry{
		"d of 21 bytes":              {Template: "d|n", Fields: [][]byte{make([]byte, 21), truePath}},
		"d of 19 bytes":              {Template: "d|n", Fields: [][]byte{make([]byte, 19), truePath}},
		"n of 257 bytes":             {Template: "n", Fields: [][]byte{append(bytes.Repeat([]byte{'n'}, 256), 0)}},
		"ngv2 of no type":            {Template: "ima-ngv2", Fields: [][]byte{d, truePath}},
		"ngv2 of another type":       {Template: "ima-ngv2", Fields: [][]byte{append([]byte("imo:"), d...), truePath}},
		"ngv2 of two types":          {Template: "ima-ngv2", Fields: [][]byte{append([]byte("ima:verity:"), d...), truePath}},
		"type in d-ng":               {Template: "ima-ng", Fields: [][]byte{append([]byte("verity:"), d...), truePath}},
		"algorithm twice":            {Template: "ima-ngv2", Fields: [][]byte{append([]byte("ima:sha256:"), d...), truePath}},
		"d-modsig cut":               {Template: "ima-modsig", Fields: [][]byte{d, truePath, nil, d[:10], nil}},
		"modsig missing":             {Template: "ima-modsig", Fields: [][]byte{d, truePath, nil, nil}},
		"a field more":               {Template: "ima-buf", Fields: [][]byte{d, truePath, nil, nil}},
		"iuid of 3 bytes":            {Template: "iuid", Fields: [][]byte{{1, 2, 3}}},
		"igid of 0 bytes":            {Template: "igid", Fields: [][]byte{nil}},
		"imode of 4 bytes":           {Template: "imode", Fields: [][]byte{{1, 2, 3, 4}}},
		"imode of 1 byte":            {Template: "imode", Fields: [][]byte{{1}}},
		"attribute lengths of 6":     {Template: "xattrlengths", Fields: [][]byte{make([]byte, 6)}},
		"signature of 64 KiB and 1":  {Template: "evmsig", Fields: [][]byte{make([]byte, imalog.MaxSignature+1)}},
		"length beyond the data":     {Template: "buf", Data: []byte{1, 0, 0, 0}},
		"length of 4294967295":       {Template: "modsig", Data: []byte{255, 255, 255, 255, 0}},
		"xattrlengths of 4294967292": {Template: "xattrlengths", Data: []byte{252, 255, 255, 255, 0}},
	}
	if len(bad) != 20 {
		t.Errorf("%d bad cases", len(bad))
	}
	first := tpmtest.Log(digest.SHA1, tpmtest.NewEntry("/x", file("x")))
	for name, e := range bad {
		e.PCR = 10
		all, err := parse(append(bytes.Clone(first), tpmtest.Log(digest.SHA1, e)...))
		var at *wire.Error
		if len(all) != 1 || !errors.As(err, &at) || at.Record != "entry 2" || at.Offset < int64(len(first)) {
			t.Errorf("%s: %d entries, %v", name, len(all), err)
		}
	}
}

// The layout is decided by the template hash, and where that cannot tell every
// possible one is named: here a log that can be read in two widths.
func TestLayoutsThatArePossible(t *testing.T) {
	e := tpmtest.NewEntry("/x", file("x"))
	e.Violation = true
	wide := tpmtest.Log(digest.SHA256, e)
	// The last 12 bytes of a violation's wide hash become the length and name
	// of a template.
	copy(wide[24:], "\x04\x00\x00\x00name\x00\x00\x00\x00")
	layouts, err := imalog.Layouts(bytes.NewReader(wide))
	if err != nil || len(layouts) != 2 || layouts[0].Hash != digest.SHA1 || layouts[1].Hash != digest.SHA256 {
		t.Errorf("%v, %v", layouts, err)
	}
	for _, log := range []string{"", "\n", "10 2e03b3fd ima-ng sha256:83d1 boot_aggregate\n", string(make([]byte, 4096))} {
		layouts, err := imalog.Layouts(bytes.NewReader([]byte(log)))
		if len(layouts) != 0 || (err == nil) != (log == "") {
			t.Errorf("%q: %v, %v", log, layouts, err)
		}
	}
}

// A log that does not fit into the window is read as one that does.
func TestWindow(t *testing.T) {
	big := tpmtest.Entry{PCR: 10, Template: "buf", Fields: [][]byte{make([]byte, imalog.MaxData-4)}}
	small := tpmtest.NewEntry("/x", file("x"))
	all := []tpmtest.Entry{small, big, small, big, big, small}
	for range 20_000 {
		all = append(all, small)
	}
	all = append(all, big, small)
	log := tpmtest.Log(digest.SHA1, all...)
	n, end := 0, int64(0)
	for e, err := range imalog.Entries(bytes.NewReader(log), imalog.Layout{Hash: digest.SHA1}) {
		if err != nil {
			t.Fatal(err)
		}
		if !e.Authentic(digest.SHA256) || e.Offset != end || !bytes.Equal(e.Data, all[n].TemplateData()) {
			t.Fatalf("entry %d at %d", e.Number, e.Offset)
		}
		end += int64(len(tpmtest.Log(digest.SHA1, all[n])))
		n++
	}
	if n != len(all) || end != int64(len(log)) {
		t.Errorf("%d of %d entries, %d of %d bytes", n, len(all), end, len(log))
	}
}

// An error is the same wherever it lies in the window, and the entries before it
// are all there.
func TestErrorsAtTheWindowsEdge(t *testing.T) {
	small := tpmtest.Log(digest.SHA1, tpmtest.NewEntry("/x", file("x")))
	inner := tpmtest.NewEntry("/y", file("y"))
	inner.Data = append([]byte{200, 0, 0, 0}, "sha256:\x00"...) // a field that is longer than the data
	for name, bad := range map[string][]byte{
		"field too long": tpmtest.Log(digest.SHA1, inner),
		"entry cut off":  small[:len(small)-1],
		"number cut off": small[:2],
		"data too long":  append(bytes.Clone(small[:len(small)-len(tpmtest.NewEntry("/x", file("x")).TemplateData())-4]), 0xff, 0xff, 0xff, 0x7f),
	} {
		alone := wireError(t, bad)
		const edge = 64 << 10
		for n := edge/len(small) - 2; n < edge/len(small)+2; n++ {
			log := append(bytes.Repeat(small, n), bad...)
			if name == "field too long" {
				log = append(log, bytes.Repeat(small, 100)...)
			}
			entries := 0
			for _, err := range imalog.Entries(bytes.NewReader(log), imalog.Layout{Hash: digest.SHA1}) {
				if err == nil {
					entries++
				}
			}
			got := wireError(t, log)
			if entries != n || got.Record != fmt.Sprintf("entry %d", n+1) || got.Offset != alone.Offset+int64(n*len(small)) || got.Err.Error() != alone.Err.Error() {
				t.Errorf("%s: after %d entries, want %d: %v; alone: %v", name, entries, n, got, alone)
			}
		}
	}
}

// wireError is the error that ends a log.
func wireError(t *testing.T, log []byte) *wire.Error {
	t.Helper()
	var bad *wire.Error
	for _, err := range imalog.Entries(bytes.NewReader(log), imalog.Layout{Hash: digest.SHA1}) {
		if err != nil && !errors.As(err, &bad) {
			t.Fatal(err)
		}
	}
	if bad == nil {
		t.Fatal("no error")
	}
	return bad
}

// A kernel before 5.8 extends other banks with SHA-1 and zeros. It is arrived
// at only by a replay that pads, and that one arrives at no other.
func TestPaddedSHA1(t *testing.T) {
	all, err := parse(tpmtest.Log(digest.SHA1, entries()...))
	if err != nil {
		t.Fatal(err)
	}
	for _, bank := range widths[1:] {
		padded := start(bank)
		for _, e := range entries() {
			with := make([]byte, bank.Size())
			copy(with, digest.Sum(digest.SHA1, e.TemplateData()).Bytes())
			if e.Violation {
				with = bytes.Repeat([]byte{0xff}, bank.Size())
			}
			padded = digest.Sum(bank, padded.Bytes(), with)
		}
		whole := tpmtest.Extend(start(bank), 10, entries()...)
		for _, c := range []struct {
			quoted digest.Digest
			pad    bool
			want   bool
		}{{padded, true, true}, {padded, false, false}, {whole, false, true}, {whole, true, false}} {
			r := imalog.NewReplay(start(bank), c.quoted)
			if c.pad {
				r.Pad()
			}
			for _, e := range all {
				r.Add(&e)
			}
			if n, ok := r.Proven(); ok != c.want || ok && n != len(all) {
				t.Errorf("%s: pad %v: %d proven, %v", bank, c.pad, n, ok)
			}
		}
	}
}

func TestParseSignature(t *testing.T) {
	s, err := imalog.ParseSignature(xattr)
	if err != nil || s.Kind != imalog.FileSignature || s.Version != 2 || s.Hash != digest.SHA256 || s.KeyID != 0x01020304 || !bytes.Equal(s.Value, []byte{9}) {
		t.Errorf("%+v, %v", s, err)
	}
	bad := map[string]func([]byte) []byte{
		"empty":           func([]byte) []byte { return nil },
		"no signature":    func(b []byte) []byte { b[0] = 4; return b },
		"version 1":       func(b []byte) []byte { b[1] = 1; return b },
		"version 4":       func(b []byte) []byte { b[1] = 4; return b },
		"unknown hash":    func(b []byte) []byte { b[2] = 200; return b },
		"longer than it":  func(b []byte) []byte { b[8] = 2; return b },
		"shorter than it": func(b []byte) []byte { b[8] = 0; return b },
		"cut":             func(b []byte) []byte { return b[:8] },
	}
	for name, change := range bad {
		if s, err := imalog.ParseSignature(change(bytes.Clone(xattr))); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
