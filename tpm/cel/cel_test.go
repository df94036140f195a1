package cel

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// record is a record as systemd writes it, about a string that it measured.
func record(pcr int, text string) string {
	return fmt.Sprintf("\x1e"+`{"pcr":%d,"digests":[{"hashAlg":"sha1","digest":"%s"},{"hashAlg":"sha256","digest":"%s"},{"hashAlg":"future","digest":"00"}],`+
		`"content_type":"systemd","content":{"string":%q,"bootId":"189c18dd7ba245f38cf49d9ac154b525","timestamp":1515761,"eventType":"phase"}}`+"\n",
		pcr, digest.Sum(digest.SHA1, []byte(text)).Hex(), digest.Sum(digest.SHA256, []byte(text)).Hex(), text)
}

// Published with systemd 258 in a virtual machine, on PCR 7.
const separatorRecord = "\x1e" + `{"pcr":7,"digests":[{"hashAlg":"sha256","digest":"ff5b9d73dad709633ae76adf444012b57e913a12ed7403c3931145862f35f841"}],"content_type":"systemd","content":{"string":"os-separator","bootId":"189c18dd7ba245f38cf49d9ac154b525","timestamp":1515761,"eventType":"os-separator"}}` + "\n"

const diglimContent = `{"path":"/tmp/x","digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","after":3}`

func diglimRecord() string {
	return "\x1e" + `{"recnum":0,"pcr":12,"digests":[{"hashAlg":"sha256","digest":"` + digest.Sum(digest.SHA256, []byte(diglimContent)).Hex() +
		`"}],"content_type":"diglim","content":` + diglimContent + "}\n"
}

const nvRecord = "\x1e" + `{"nv_index":30474752,"digests":[{"hashAlg":"sha256","digest":"ff5b9d73dad709633ae76adf444012b57e913a12ed7403c3931145862f35f841"}],"content_type":"systemd","content":{"string":"product-id:missing"}}` + "\n"

func TestParse(t *testing.T) {
	log := record(11, "enter-initrd") + separatorRecord + diglimRecord() + nvRecord
	records, err := Parse([]byte(log))
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		pcr    int
		kind   string
		text   string
		proven bool
	}{{11, Systemd, "enter-initrd", true}, {7, Systemd, "os-separator", true}, {12, Diglim, diglimContent, true}, {-1, Systemd, "product-id:missing", false}}
	if len(records) != len(want) {
		t.Fatalf("%d records", len(records))
	}
	at := 0
	for i, w := range want {
		r := records[i]
		text, proven := r.Text(digest.SHA256)
		if r.Number != i+1 || r.PCR != w.pcr || r.Type != w.kind || text != w.text || proven != w.proven {
			t.Errorf("record %d: number %d, PCR %d, %s, %q, proven %v; want %+v", i, r.Number, r.PCR, r.Type, text, proven, w)
		}
		if at += strings.IndexByte(log[at:], separator); r.Offset != int64(at) {
			t.Errorf("record %d: offset %d, want %d", i, r.Offset, at)
		}
		at++
	}
	if d, ok := records[0].Digest(digest.SHA1); !ok || d != digest.Sum(digest.SHA1, []byte("enter-initrd")) || len(records[0].Digests) != 2 {
		t.Errorf("digests %v", records[0].Digests)
	}
	other, err := Parse([]byte(strings.Replace(record(11, "enter-initrd"), `"pcr"`, `"PCR"`, 1)))
	if err != nil || len(other) != 1 || other[0].PCR != -1 {
		t.Errorf("a name in the other case counts: %+v, %v", other, err)
	}
	if _, ok := records[1].Text(digest.SHA1); ok {
		t.Error("a record without a digest for the bank is proven in it")
	}
}

// Each case is made of a good log, by one replacement, and keeps the records
// before the bad one.
func TestParseRefuses(t *testing.T) {
	good := separatorRecord + record(11, "enter-initrd")
	for name, c := range map[string]struct{ old, new, want string }{
		"no separator":     {"\n\x1e", "\n", "behind the object"},
		"byte in front":    {"\x1e{\"pcr\":7", "x\x1e{\"pcr\":7", "begins with"},
		"no newline":       {"}}\n\x1e", "}}\x1e", "no newline"},
		"cut":              {`"eventType":"phase"}}` + "\n", "", "no newline"},
		"empty record":     {"\n\x1e", "\n\x1e\n\x1e", "no JSON object"},
		"not an object":    {"\n\x1e", "\n\x1e[]\n\x1e", "no JSON object"},
		"member twice":     {`{"pcr":11`, `{"pcr":10,"pcr":11`, `"pcr" twice`},
		"PCR of text":      {`{"pcr":11`, `{"pcr":"11"`, `member "pcr"`},
		"PCR null":         {`{"pcr":11`, `{"pcr":null`, `no member "pcr"`},
		"PCR too high":     {`{"pcr":11`, `{"pcr":24`, "the last is 23"},
		"PCR below 0":      {`{"pcr":11`, `{"pcr":-1`, "the last is 23"},
		"no content type":  {`"content_type":"systemd","content":{"string":"enter`, `"content":{"string":"enter`, "content_type"},
		"no content":       {`"content":{"string":"enter-initrd",`, `"other":{"string":"enter-initrd",`, "no content"},
		"no digests":       {`"pcr":11,"digests"`, `"pcr":11,"digest"`, `"digests"`},
		"empty digests":    {`"pcr":11,"digests":[`, `"pcr":11,"digests":[],"x":[`, "0 digests"},
		"digest twice":     {`"hashAlg":"sha1","digest"`, `"hashAlg":"sha256","digest":"` + strings.Repeat("0", 64) + `"},{"hashAlg":"sha256","digest":"00","x"`, "two digests"},
		"digest too short": {`"hashAlg":"sha1","digest":"`, `"hashAlg":"sha1","digest":"00","x":"`, "hex digits"},
		"digest not hex":   {`"hashAlg":"sha1","digest":"`, `"hashAlg":"sha1","digest":"` + strings.Repeat("x", 40) + `","x":"`, "sha1 digest"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(good, c.old, c.new, 1)
			if bad == good {
				t.Fatal("nothing was replaced")
			}
			records, err := Parse([]byte(bad))
			var at *wire.Error
			if !errors.As(err, &at) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
			if at != nil && at.Record != fmt.Sprintf("record %d", len(records)+1) {
				t.Errorf("error %v behind %d records", err, len(records))
			}
		})
	}
	for name, log := range map[string]string{
		"log too large":    strings.Repeat("\x1e", MaxLog+1),
		"record too large": strings.Replace(good, `"phase"`, `"`+strings.Repeat("x", MaxRecord)+`"`, 1),
		"too many digests": strings.Replace(good, `"digests":[`, `"digests":[`+strings.Repeat("{},", MaxDigests), 1),
	} {
		if _, err := Parse([]byte(log)); err == nil || !strings.Contains(err.Error(), "limit") && !strings.Contains(err.Error(), "16") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A log of the largest size costs a bounded multiple of it.
func TestMemory(t *testing.T) {
	log := []byte(strings.Repeat(separatorRecord, MaxLog/len(separatorRecord)))
	var n int
	bytes := testing.Benchmark(func(b *testing.B) {
		for range b.N {
			records, err := Parse(log)
			if err != nil {
				b.Fatal(err)
			}
			n = len(records)
		}
	}).AllocedBytesPerOp()
	if n == 0 || bytes > 32*MaxLog {
		t.Errorf("%d records, %d bytes allocated for %d", n, bytes, MaxLog)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", record(11, "enter-initrd"), separatorRecord + diglimRecord() + nvRecord, "\x1e{}\n", "\x1e"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		records, err := Parse(log)
		if err == nil && len(log) > 0 && len(records) == 0 {
			t.Error("neither records nor an error")
		}
		for i, r := range records {
			if r.Number != i+1 || r.PCR < -1 || r.PCR >= pcrCount || len(r.Content) == 0 {
				t.Errorf("%+v", r)
			}
			r.Text(digest.SHA256)
			again, err := Parse(log[r.Offset:])
			if len(again) == 0 {
				t.Fatalf("record %d alone: %v", r.Number, err)
			}
			again[0].Number, again[0].Offset = r.Number, r.Offset
			if !reflect.DeepEqual(again[0], r) {
				t.Errorf("record %d alone: %+v, was %+v", r.Number, again[0], r)
			}
		}
	})
}
