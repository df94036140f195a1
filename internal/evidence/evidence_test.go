package evidence_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"diglim/internal/digest"
	"diglim/internal/evidence"
	"diglim/tpm"
	"diglim/tpm/tpmtest"
)

var key = tpmtest.NewRSA(2048)

// made is a quote over PCRs of one bank, with the values and their dump.
type made struct {
	evidence.Quote
	bank tpmtest.Bank
}

func quote(t testing.TB, alg digest.Algorithm) made {
	id, _ := alg.TPM()
	m := made{bank: tpmtest.Bank{Alg: id, PCRs: []int{0, 7, 10}}}
	values := tpm.Values{}
	for _, i := range m.bank.PCRs {
		d := digest.Sum(alg, fmt.Append(nil, i))
		values[tpm.PCR{Bank: alg, Index: i}] = d
		m.bank.Values = append(m.bank.Values, d.Bytes())
	}
	m.Attest = tpmtest.NewQuote([]byte("nonce"), m.bank).Attest()
	m.Signature = key.Sign(m.Attest)
	q, err := tpm.ParseQuote(m.Attest)
	if err != nil {
		t.Fatal(err)
	}
	if m.PCRs, err = tpm.AppendValues(nil, q.Selection, values); err != nil {
		t.Fatal(err)
	}
	return m
}

func read(b []byte) (*evidence.Bundle, error) {
	return evidence.Read(bytes.NewReader(b), int64(len(b)))
}

type member struct {
	name string
	data []byte
}

func archive(t testing.TB, members ...member) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.data)), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Messages of go-tpm-tools, made by hand.
func field(n int, data []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(n<<3|2))
	return append(binary.AppendUvarint(b, uint64(len(data))), data...)
}

func number(n int, v uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(n<<3)), v)
}

func (m made) message() []byte {
	pcrs := number(1, uint64(m.bank.Alg))
	for i, index := range slices.Backward(m.bank.PCRs) {
		pcrs = append(pcrs, field(2, append(number(1, uint64(index)), field(2, m.bank.Values[i])...))...)
	}
	return slices.Concat(field(1, m.Attest), field(2, m.Signature), field(3, pcrs))
}

// goJSON is go-attestation's PlatformParameters.
func goJSON(t testing.TB, quotes ...made) []byte {
	type pcr struct {
		Index     int
		Digest    []byte
		DigestAlg int
	}
	var v struct {
		Public   []byte
		Quotes   []struct{ Quote, Signature []byte }
		PCRs     []pcr
		EventLog []byte
	}
	v.Public, v.EventLog = key.Public(tpmtest.AKAttributes), []byte("events")
	for _, m := range quotes {
		v.Quotes = append(v.Quotes, struct{ Quote, Signature []byte }{m.Attest, m.Signature})
		alg, _ := digest.ByTPM(m.bank.Alg)
		for i, index := range m.bank.PCRs {
			v.PCRs = append(v.PCRs, pcr{index, m.bank.Values[i], int(alg.Crypto())})
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func keylime(m made) []byte {
	e := base64.StdEncoding
	return []byte("r" + e.EncodeToString(m.Attest) + ":" + e.EncodeToString(m.Signature) + ":" + e.EncodeToString(m.PCRs) + "\n")
}

func azure(t testing.TB, m made) []byte {
	values := make([]string, 24)
	for i := range values {
		values[i] = fmt.Sprintf("%064x", 0)
	}
	for i, index := range m.bank.PCRs {
		values[index] = hex.EncodeToString(m.bank.Values[i])
	}
	b, err := json.Marshal(map[string]any{"message": hex.EncodeToString(m.Attest), "signature": hex.EncodeToString(m.Signature[6:]), "pcrs": values})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The same quote comes out of every form.
func TestForms(t *testing.T) {
	one, two := quote(t, digest.SHA1), quote(t, digest.SHA256)
	area := key.Public(tpmtest.AKAttributes)
	sized := append(binary.BigEndian.AppendUint16(nil, uint16(len(two.Attest))), two.Attest...)
	files := []member{{"quote.msg", two.Attest}, {"quote.sig", two.Signature}, {"quote.pcrs", two.PCRs}, {"ak.pub", area}, {"ima.bin", []byte("log")}, {"bios.bin", []byte("events")}}
	var inDir []member
	for _, f := range files {
		inDir = append(inDir, member{"./web-1/" + f.name, f.data})
	}
	for name, c := range map[string]struct {
		bytes  []byte
		format string
		quotes []evidence.Quote
		ak     []byte
		log    string
	}{
		"tar":                 {archive(t, files...), "tar", []evidence.Quote{two.Quote}, area, "log"},
		"tar of a directory":  {archive(t, append(inDir, member{"./web-1/note.txt", []byte("hello")})...), "tar", []evidence.Quote{two.Quote}, area, "log"},
		"tar with a TPM2B":    {archive(t, append(slices.Clone(files[1:]), member{"quote.msg", sized})...), "tar", []evidence.Quote{two.Quote}, area, "log"},
		"tar, bare signature": {archive(t, append(slices.Clone(files[2:]), files[0], member{"quote.sig", two.Signature[6:]})...), "tar", []evidence.Quote{two.Quote}, area, "log"},
		"Keylime":             {keylime(two), "keylime", []evidence.Quote{two.Quote}, nil, ""},
		"go-attestation":      {goJSON(t, one, two), "go-attestation", []evidence.Quote{one.Quote, two.Quote}, area, ""},
		"go-tpm-tools":        {slices.Concat(field(1, area), field(2, one.message()), field(2, two.message()), field(3, []byte("events")), number(99, 1<<63), []byte{98<<3&0x7f | 0x81, 6, 1, 2, 3, 4, 5, 6, 7, 8}), "go-tpm-tools", []evidence.Quote{one.Quote, two.Quote}, area, ""},
		"Azure":               {azure(t, two), "azure", []evidence.Quote{two.Quote}, nil, ""},
	} {
		b, err := read(c.bytes)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b.Format != c.format || !bytes.Equal(b.AK, c.ak) || content(b.IMALog) != c.log || !reflect.DeepEqual(b.Quotes, c.quotes) {
			t.Errorf("%s: %+v", name, b)
		}
		ev := b.For(tpm.PCR{Bank: digest.SHA256, Index: 10})
		if !bytes.Equal(ev.Quote, two.Attest) || !bytes.Equal(ev.Signature, two.Signature) || !bytes.Equal(ev.PCRs, two.PCRs) {
			t.Errorf("%s: another quote than the one for the PCR", name)
		}
		if ev := b.For(tpm.PCR{Bank: digest.SHA384, Index: 10}); !bytes.Equal(ev.Quote, c.quotes[0].Attest) {
			t.Errorf("%s: for a PCR that none covers it is not the first", name)
		}
	}
}

// A directory may have a quote a bank, and the logs of the running system.
func TestQuoteABank(t *testing.T) {
	files := map[string][]byte{"systemd.cel": []byte("systemd's"), "diglim.cel": []byte("diglim's"), "quote-ecc.msg": []byte("of no bank"), "quote.txt": []byte("notes")}
	quotes := map[digest.Algorithm]made{}
	for _, bank := range []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384} {
		q := quote(t, bank)
		quotes[bank] = q
		files[evidence.BankName(bank)+".msg"], files[evidence.BankName(bank)+".sig"], files[evidence.BankName(bank)+".pcrs"] = q.Attest, q.Signature, q.PCRs
	}
	b := evidence.FromFiles(files)
	if len(b.Quotes) != 3 {
		t.Errorf("%d quotes", len(b.Quotes))
	}
	for bank, q := range quotes {
		ev := b.For(tpm.PCR{Bank: bank, Index: 10})
		if !bytes.Equal(ev.Quote, q.Attest) || !bytes.Equal(ev.Signature, q.Signature) || !bytes.Equal(ev.PCRs, q.PCRs) || string(ev.Systemd) != "systemd's" || string(ev.Diglim) != "diglim's" {
			t.Errorf("%s: %+v", bank, ev)
		}
	}
	for name, known := range map[string]bool{
		"quote.msg": true, "quote-sha256.sig": true, "quote-sm3.pcrs": true, "diglim.cel": true, "ima.bin": true,
		"quote-ecc.msg": false, "quote-md5.msg": false, "quote.txt": false, "msg": false, ".msg": false, "quote-sha256": false, "stale.msg": false,
	} {
		if evidence.Known(name) != known {
			t.Errorf("%q is known: %v", name, !known)
		}
	}
}

func content(r io.ReaderAt) string {
	if r == nil {
		return ""
	}
	b, _ := io.ReadAll(io.NewSectionReader(r, 0, 1<<20))
	return string(b)
}

func TestRefused(t *testing.T) {
	m := quote(t, digest.SHA256)
	file := member{"quote.msg", m.Attest}
	link := archive(t, member{"quote.msg", nil})
	link[156] = tar.TypeSymlink
	copy(link[148:156], checksum(link))
	holes := archive(t, member{"x", []byte("22 GNU.sparse.map=0,3\n24 GNU.sparse.size=1000\n26 GNU.sparse.numblocks=1\n")}, member{"ima.bin", []byte("log")})
	holes[156] = tar.TypeXHeader
	copy(holes[148:156], checksum(holes))
	twice := m
	twice.bank.PCRs = []int{0, 0, 10}
	for name, b := range map[string][]byte{
		"nothing":                  nil,
		"a letter":                 []byte("r"),
		"a compressed tar":         []byte("\x1f\x8b\x08\x00"),
		"text":                     []byte("evidence"),
		"a deep quote":             append([]byte("d"), keylime(m)[1:]...),
		"Keylime, bad base64":      []byte("rAAAA:!:AAAA"),
		"Keylime, four parts":      append(keylime(m), ":AAAA"...),
		"empty object":             []byte("{}"),
		"two objects":              append(goJSON(t, m), "{}"...),
		"half an object":           goJSON(t, m)[:100],
		"TPM 1.2":                  []byte(`{"Static":{"TPMVersion":1},"Quote":{"Quote":"AAAA"}}`),
		"a PCR twice":              goJSON(t, twice),
		"a PCR left out":           goJSON(t, made{Quote: m.Quote, bank: tpmtest.Bank{Alg: m.bank.Alg, PCRs: m.bank.PCRs[:2], Values: m.bank.Values}}),
		"a value of another width": goJSON(t, made{Quote: m.Quote, bank: tpmtest.Bank{Alg: tpmtest.SHA384, PCRs: m.bank.PCRs, Values: m.bank.Values}}),
		"Azure, no hex":            []byte(`{"message":"xyz"}`),
		"empty tar":                archive(t, member{"note.txt", []byte("hello")}),
		"a file twice":             archive(t, file, file),
		"two machines":             archive(t, member{"a/quote.msg", m.Attest}, member{"b/quote.sig", m.Signature}),
		"a link":                   link,
		"a file with holes":        holes,
		"half a tar":               archive(t, file)[:600],
		"message without quote":    field(1, key.Public(tpmtest.AKAttributes)),
		"message, a PCR twice":     append(field(1, nil), field(2, twice.message())...),
		"message, PCR 24":          append(field(1, nil), field(2, made{Quote: m.Quote, bank: tpmtest.Bank{Alg: m.bank.Alg, PCRs: []int{24}, Values: m.bank.Values}}.message())...),
		"message, a group":         append(field(1, nil), 3),
		"message, 17 quotes":       append(field(1, nil), bytes.Repeat(field(2, nil), 17)...),
		"message, a long number":   append(field(1, nil), bytes.Repeat([]byte{0xff}, 11)...),
		"message, a field too far": append(field(1, nil), 2<<3|2, 0xff, 0xff, 0xff, 0xff, 0x0f),
	} {
		if bundle, err := read(b); err == nil {
			t.Errorf("%s: %+v", name, bundle)
		}
	}
}

// checksum is that of a tar header (POSIX ustar).
func checksum(h []byte) string {
	sum := 0
	for i, c := range h[:512] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int(c)
	}
	return fmt.Sprintf("%06o\x00 ", sum)
}

// A sparse file says that it is larger than the tar that it is in.
func TestMemoryCeiling(t *testing.T) {
	b := archive(t, member{"quote.msg", nil})
	copy(b[124:136], fmt.Sprintf("%011o\x00", 8<<30-1))
	copy(b[148:156], checksum(b))
	message := append(field(1, nil), 2<<3|2)
	message = binary.AppendUvarint(message, 1<<40)
	for name, hostile := range map[string][]byte{"tar": b, "message": message} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := read(hostile); err == nil {
			t.Errorf("%s: parsed", name)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("%s of %d bytes: %d bytes allocated", name, len(hostile), got)
		}
	}
}

func FuzzParse(f *testing.F) {
	one, two := quote(f, digest.SHA1), quote(f, digest.SHA256)
	f.Add(archive(f, member{"x/quote.msg", two.Attest}, member{"x/quote.sig", two.Signature}))
	f.Add(keylime(two))
	f.Add(goJSON(f, one, two))
	f.Add(azure(f, two))
	f.Add(append(field(1, key.Public(tpmtest.AKAttributes)), field(2, two.message())...))
	f.Fuzz(func(t *testing.T, b []byte) {
		bundle, err := read(b)
		if (bundle == nil) == (err == nil) {
			t.Fatalf("%v, %v", bundle, err)
		}
		if err == nil {
			bundle.For(tpm.PCR{Bank: digest.SHA256, Index: 10})
		}
	})
}

// Of two logs the binary one is evidence.
func TestLogInText(t *testing.T) {
	binary, text := member{evidence.IMAFile, []byte("binary")}, member{evidence.IMATextFile, []byte("text")}
	for _, c := range []struct {
		files []member
		want  string
	}{
		{[]member{binary, text}, "binary"},
		{[]member{text, binary}, "binary"},
		{[]member{text}, "text"},
		{[]member{{evidence.IMAFile, nil}, text}, "text"},
	} {
		b, err := read(archive(t, c.files...))
		if err != nil {
			t.Fatal(err)
		}
		if got := content(b.IMALog); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// large is a file that is never in memory: a head, then zeros.
type large struct{ head []byte }

func (l large) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at < int64(len(l.head)) {
		copy(b, l.head[at:])
	}
	return len(b), nil
}

// An IMA log in a tar stays where it is; whatever else is large is refused.
func TestLargeEvidence(t *testing.T) {
	const size = 4 << 30
	log := archive(t, member{"ima.bin", nil})[:512]
	copy(log[124:136], fmt.Sprintf("%011o\x00", size-4096))
	copy(log[148:156], checksum(log))
	firmware := bytes.Clone(log)
	copy(firmware, "bios.bin")
	copy(firmware[148:156], checksum(firmware))
	for name, c := range map[string]struct {
		head []byte
		good bool
	}{
		"log in a tar":          {log, true},
		"firmware log in a tar": {firmware, false},
		"JSON":                  {[]byte("{"), false},
		"message":               {[]byte{0x0a}, false},
		"zeros":                 {nil, false},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b, err := evidence.Read(large{c.head}, size)
		runtime.ReadMemStats(&after)
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, got)
		}
		if c.good {
			if n, err := b.IMALog.ReadAt(make([]byte, 10), size-4096-10); n != 10 || err != nil {
				t.Errorf("the end of the log: %d, %v", n, err)
			}
		}
	}
}
