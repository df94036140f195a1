package uki

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// A part is a section of an image in the making.
type part struct{ name, content string }

var parts = []part{
	{".text", "the stub"},
	{".cmdline", "root=/dev/vda quiet"},
	{".osrel", "ID=test\n"},
	{".initrd", strings.Repeat("initrd", 1000)},
	{".linux", strings.Repeat("kernel", 10000)},
	{".pcrsig", "not measured"},
}

// image makes a PE file, with sections filled up to 512 bytes as linkers do.
func image(parts ...part) []byte {
	le := binary.LittleEndian
	b := append([]byte("MZ"), make([]byte, 0x3e)...)
	le.PutUint32(b[0x3c:], 0x40)
	b = append(b, "PE\x00\x00"...)
	b = le.AppendUint16(b, 0x8664)
	b = le.AppendUint16(b, uint16(len(parts)))
	b = append(b, make([]byte, 12)...)
	b = le.AppendUint16(b, 240)
	b = append(b, 0, 0)
	from := (len(b) + 240 + 40*len(parts) + 511) &^ 511
	optional := make([]byte, 240)
	le.PutUint16(optional, magicPE32Plus)
	le.PutUint32(optional[sizeOfHeadersAt:], uint32(from))
	le.PutUint32(optional[directoriesAt-4:], 16)
	b = append(b, optional...)
	var data []byte
	for _, p := range parts {
		stored := (len(p.content) + 511) &^ 511
		var name [8]byte
		copy(name[:], p.name)
		b = append(b, name[:]...)
		for _, v := range []int{len(p.content), 0x1000 + len(data), stored, from + len(data), 0, 0, 0, 0} {
			b = le.AppendUint32(b, uint32(v))
		}
		data = append(append(data, p.content...), bytes.Repeat([]byte{0xa5}, stored-len(p.content))...)
	}
	return append(append(b, make([]byte, from-len(b))...), data...)
}

func values(t testing.TB, b []byte, bank digest.Algorithm) []digest.Digest {
	t.Helper()
	i, err := Parse(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	v, err := i.Values(bank)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The order of sections is that of the stub, whatever that of the file, and
// sections that it does not measure make no difference.
func TestOrderOfSections(t *testing.T) {
	want := values(t, image(parts...), digest.SHA256)
	if len(want) != 1 {
		t.Fatalf("%d values for what every stub measures", len(want))
	}
	other := slices.Clone(parts)
	slices.Reverse(other)
	if got := values(t, image(other...), digest.SHA256); !slices.Equal(got, want) {
		t.Errorf("in another order: %v, want %v", got, want)
	}
	if got := values(t, image(append(other, part{".extra", "x"})...), digest.SHA256); !slices.Equal(got, want) {
		t.Errorf("with a section more: %v, want %v", got, want)
	}
	for i, p := range parts {
		changed := slices.Clone(parts)
		changed[i].content += "x"
		measured := p.name != ".text" && p.name != ".pcrsig"
		if got := values(t, image(changed...), digest.SHA256); slices.Equal(got, want) == measured {
			t.Errorf("%s changed: the value is the same: %v", p.name, !measured)
		}
	}
	i, err := Parse(bytes.NewReader(image(parts...)))
	if err != nil {
		t.Fatal(err)
	}
	if line, err := i.CommandLine(); err != nil || line != "root=/dev/vda quiet" {
		t.Errorf("command line %q, %v", line, err)
	}
}

// What older stubs do not measure gives more values, and no more than that.
func TestOlderStubs(t *testing.T) {
	base := values(t, image(parts...), digest.SHA256)[0]
	uname := values(t, image(append(slices.Clone(parts), part{".uname", "6.12"})...), digest.SHA256)
	both := values(t, image(append(slices.Clone(parts), part{".sbat", "sbat,1"}, part{".uname", "6.12"})...), digest.SHA256)
	if len(uname) != 2 || uname[1] != base {
		t.Errorf("with .uname: %v, the last should be %v", uname, base)
	}
	if len(both) != 3 || !slices.Equal(both[1:], uname) {
		t.Errorf("with .sbat too: %v, the last should be %v", both, uname)
	}
}

func TestPhases(t *testing.T) {
	start := values(t, image(parts...), digest.SHA256)[0]
	seen := map[digest.Digest]bool{}
	for reached, value := range Phases(start) {
		if seen[value] {
			t.Errorf("%v: a second time", reached)
		}
		seen[value] = true
		want := start
		for _, phase := range reached {
			want = digest.Sum(digest.SHA256, want.Bytes(), digest.Sum(digest.SHA256, []byte(phase)).Bytes())
		}
		if value != want {
			t.Errorf("%v: %v, want %v", reached, value, want)
		}
	}
	if len(seen) != 64 || !seen[start] {
		t.Errorf("%d values, want 64", len(seen))
	}
}

// Each case is bred from a good image.
func TestParseRefuses(t *testing.T) {
	good := image(parts...)
	put := func(at int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	const table = 0x40 + 24 + 240
	linux := table + 40*4
	for name, c := range map[string]struct {
		image []byte
		want  string
	}{
		"empty":                {nil, "offset 0"},
		"text":                 {[]byte("#!/bin/sh"), "not a PE file"},
		"PE header far away":   {put(0x3c, 1<<31), "PE header at"},
		"PE header in front":   {put(0x3c, 0), "PE header at"},
		"no PE header":         {put(0x40, 0), "not a PE file"},
		"too many sections":    {put(0x44, 97<<16), "97 sections"},
		"cut in the table":     {good[:linux+20], "section 5"},
		"larger than stored":   {put(linux+8, 100_000), ".linux of 100000 bytes"},
		"larger than limit":    {func() []byte { b := put(linux+8, 1<<31); binary.LittleEndian.PutUint32(b[linux+16:], 1<<31); return b }(), "the limit is"},
		"no kernel":            {image(parts[:4]...), "no section .linux"},
		"no command line":      {image(parts[2:]...), "no section .cmdline"},
		"two kernels":          {image(append(slices.Clone(parts), part{".linux", "other"})...), "second section .linux"},
		"more than one choice": {image(append(slices.Clone(parts), part{".profile", "ID=x"})...), "decided at boot"},
	} {
		_, err := Parse(bytes.NewReader(c.image))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %s", name, err, c.want)
		}
	}
	i, err := Parse(bytes.NewReader(good[:len(good)-1024]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Values(digest.SHA256); !errors.Is(err, wire.ErrShort) {
		t.Errorf("cut in a section: %v", err)
	}
}

// An image made as the manual of systemd-stub has it, and what systemd-measure
// says of its parts.
func TestSystemdMeasure(t *testing.T) {
	const stub, measure = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "/lib/systemd/systemd-measure"
	for _, needed := range []string{stub, measure, "/usr/bin/objcopy"} {
		if _, err := os.Stat(needed); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "linux.efi")
	var objcopy, calculate []string
	at := 0x100000
	for _, p := range parts[1:5] {
		file := filepath.Join(dir, p.name[1:])
		if err := os.WriteFile(file, []byte(p.content), 0o644); err != nil {
			t.Fatal(err)
		}
		objcopy = append(objcopy, "--add-section", p.name+"="+file, "--change-section-vma", fmt.Sprintf("%s=%#x", p.name, at))
		calculate = append(calculate, "--"+p.name[1:]+"="+file)
		at += 0x100000
	}
	if out, err := exec.Command("objcopy", append(objcopy, stub, path)...).CombinedOutput(); err != nil {
		t.Fatalf("objcopy: %v\n%s", err, out)
	}
	out, err := exec.Command(measure, append(calculate, "calculate", "--json=short",
		"--phase=:", "--phase=enter-initrd", "--phase=enter-initrd:leave-initrd:sysinit:ready", "--phase=sysinit:ready")...).Output()
	if err != nil {
		t.Fatalf("systemd-measure: %v\n%s", err, out)
	}
	var banks map[string][]struct{ Phase, Hash string }
	if err := json.Unmarshal(out, &banks); err != nil || len(banks) != 4 {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	uki, err := Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	for name, measured := range banks {
		bank, err := digest.ByName(name)
		if err != nil {
			t.Fatal(err)
		}
		values, err := uki.Values(bank)
		if err != nil {
			t.Fatal(err)
		}
		// This stub has .sbat and does not measure it.
		got := map[string]string{}
		for reached, value := range Phases(values[len(values)-1]) {
			got[strings.Join(reached, ":")] = value.Hex()
		}
		if len(measured) != 4 {
			t.Errorf("%s: %d phases", name, len(measured))
		}
		for _, m := range measured {
			if got[m.Phase] != m.Hash {
				t.Errorf("%s, phase %q: %s, systemd-measure says %s", name, m.Phase, got[m.Phase], m.Hash)
			}
		}
	}
}

func authenticode(t *testing.T, b []byte) digest.Digest {
	t.Helper()
	d, err := Authenticode(bytes.NewReader(b), int64(len(b)), digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Of a file all counts but the checksum and what is about signatures.
func TestAuthenticode(t *testing.T) {
	good := image(part{".cmdline", "quiet"}, part{".linux", "kernel"})
	want := authenticode(t, good)
	const optional, table = 0x40 + 24, 0x40 + 24 + 240
	uncounted := func(i int) bool {
		return i >= optional+checksumAt && i < optional+checksumAt+4 || i >= optional+directoriesAt+certificatesAt && i < optional+directoriesAt+certificatesAt+8
	}
	checked := 0
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 0x10
		d, err := Authenticode(bytes.NewReader(b), int64(len(b)), digest.SHA256)
		if err == nil && (d == want) != uncounted(i) {
			t.Errorf("byte %#x is counted: %v", i, d != want)
		}
		if err == nil {
			checked++
		}
	}
	if checked < len(good)-64 {
		t.Errorf("%d of %d bytes checked", checked, len(good))
	}
	if authenticode(t, append(bytes.Clone(good), "behind"...)) == want {
		t.Error("what lies behind the sections is not counted")
	}
	signed := append(bytes.Clone(good), "a signature"...)
	binary.LittleEndian.PutUint32(signed[optional+directoriesAt+certificatesAt+4:], uint32(len("a signature")))
	if authenticode(t, signed) != want {
		t.Error("a signature is counted")
	}
	for name, b := range map[string][]byte{"empty": nil, "cut": good[:len(good)-1], "cut in the headers": good[:table+10], "text": []byte("#!/bin/sh")} {
		if d, err := Authenticode(bytes.NewReader(b), int64(len(b)), digest.SHA256); err == nil {
			t.Errorf("%s: %v", name, d)
		}
	}
}

// sbsign computes the hash too: it stands in the signature.
func TestSbsignAgrees(t *testing.T) {
	const stub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	sbsign, err := exec.LookPath("sbsign")
	if err == nil {
		_, err = os.Stat(stub)
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keyFile := path("key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	certFile := path("cert", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	original, err := os.ReadFile(stub)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"systemd's stub": original, "an image": image(parts...)} {
		out := filepath.Join(dir, "signed")
		if text, err := exec.Command(sbsign, "--key", keyFile, "--cert", certFile, "--output", out, path("unsigned", b)).CombinedOutput(); err != nil {
			t.Fatalf("%s: sbsign: %v\n%s", name, err, text)
		}
		signed, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, make([]byte, -len(b)&7)...) // as sbsign fills it up
		d := authenticode(t, signed)
		if d != authenticode(t, b) || bytes.Count(signed, d.Bytes()) != 1 {
			t.Errorf("%s: %v, before it was signed %v, in the signature %d times", name, d, authenticode(t, b), bytes.Count(signed, d.Bytes()))
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range [][]byte{image(parts...), image(parts[1], parts[4]), []byte("MZ")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		Authenticode(bytes.NewReader(b), int64(len(b)), digest.SHA256)
		i, err := Parse(bytes.NewReader(b))
		if err != nil {
			return
		}
		for name := range maps.Keys(i.sections) {
			if !slices.Contains(measured, name) {
				t.Errorf("section %q", name)
			}
		}
		if v, err := i.Values(digest.SHA256); err == nil && (len(v) == 0 || len(v) > 1+len(later)) {
			t.Errorf("%d values", len(v))
		}
		i.CommandLine()
	})
}
