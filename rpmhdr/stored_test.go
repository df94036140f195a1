package rpmhdr_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"diglim/internal/digest"
	"diglim/internal/rpmtest"
	"diglim/internal/wire"
	"diglim/rpmhdr"
)

// installed is what rpm adds to the header of hello when it installs it.
func installed() []rpmtest.Entry {
	header := hello.Header()
	return []rpmtest.Entry{
		rpmtest.Int32s(257, 12345),
		rpmtest.Bin(259, []byte("pgp")),
		rpmtest.Bin(261, make([]byte, 16)),
		rpmtest.Bin(268, []byte("rsa")),
		rpmtest.String(269, digest.Sum(digest.SHA1, header).Hex()),
		rpmtest.String(273, digest.Sum(digest.SHA256, header).Hex()),
		rpmtest.Strings(278, base64.StdEncoding.EncodeToString([]byte("six"))),
		rpmtest.Int32s(1008, 1_700_000_000),
		{Tag: 1029, Type: 1, Count: 5, Data: make([]byte, 5)},
		rpmtest.Int32s(1128, 1_700_000_000),
	}
}

func TestStored(t *testing.T) {
	p, err := rpmhdr.ParseStored(rpmtest.Stored(hello.Header(), installed()...))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.Header.Signed(), hello.Header()) {
		t.Error("Signed is not the header that the package had")
	}
	if p.Signatures.Signed() != nil {
		t.Error("merged signatures have signed bytes")
	}
	var text []string
	header, err := p.HeaderSignatures()
	if err != nil {
		t.Fatal(err)
	}
	payload, err := p.PayloadSignatures()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(header, payload...) {
		text = append(text, fmt.Sprintf("%d %s", s.Tag, s.Packet))
	}
	if want := "278 six, 268 rsa, 1002 pgp"; strings.Join(text, ", ") != want {
		t.Errorf("signatures %v, want %s", text, want)
	}
}

// What stands outside of the region does not count, whatever it says: not for
// names, not for files, and not for signatures if it is inside.
func TestOnlyTheRegionCounts(t *testing.T) {
	for name, added := range map[string][]rpmtest.Entry{
		"nothing":      nil,
		"name":         {rpmtest.String(1000, "gpg-pubkey"), rpmtest.String(1001, "6.6")},
		"digests":      {rpmtest.Strings(1035, strings.Repeat("0", 64), "", "", "", "")},
		"file list":    {rpmtest.Strings(1117, "evil"), rpmtest.Strings(1118, "/"), rpmtest.Int32s(1116, 0)},
		"rpm 3 list":   {rpmtest.Strings(1027, "/evil")},
		"large sizes":  {rpmtest.Int64s(5008, 1, 2, 3, 4, 5)},
		"out of order": {rpmtest.Int32s(1128, 1), rpmtest.String(1000, "x"), rpmtest.Int32s(1008, 1)},
		"two regions":  {rpmtest.Bin(63, make([]byte, 16)), rpmtest.Bin(62, make([]byte, 16))},
	} {
		p, err := rpmhdr.ParseStored(rpmtest.Stored(hello.Header(), added...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(p.Header.Signed(), hello.Header()) {
			t.Errorf("%s: changes the header", name)
		}
		if sigs, err := p.HeaderSignatures(); err != nil || len(sigs) != 0 {
			t.Errorf("%s: %d signatures, %v", name, len(sigs), err)
		}
	}
	inside := rpmtest.Header(rpmtest.RegionImmutable, append([]rpmtest.Entry{rpmtest.Bin(268, []byte("rsa"))}, hello.Entries()...)...)
	p, err := rpmhdr.ParseStored(rpmtest.Stored(inside))
	if err != nil {
		t.Fatal(err)
	}
	if sigs, err := p.HeaderSignatures(); err != nil || len(sigs) != 0 {
		t.Errorf("a signature inside of what it signs: %v, %v", sigs, err)
	}
}

// hostileStored are stored headers with one thing wrong each, and what must be
// said of it.
func hostileStored() map[string][2]string {
	good := rpmtest.Stored(hello.Header(), installed()...)
	patch := func(at int, v uint32) string {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint32(b[at:], v)
		return string(b)
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(good[at:]) }
	added := func(e ...rpmtest.Entry) string { return string(rpmtest.Stored(hello.Header(), e...)) }
	il := int(u32(0))
	data := 8 + 16*il
	trailer := data + int(u32(16))
	rsa := 8 + 16*(il-7) // entry 268
	cases := map[string][2]string{
		"empty":                      {"", "input ends early"},
		"no entries":                 {string(make([]byte, 8)), "no entries"},
		"65,536 entries":             {patch(0, 65536), "the limit is 65535"},
		"256 MiB of data":            {patch(4, 256<<20), "the limit is"},
		"one entry less":             {patch(0, uint32(il-1)), "trailing bytes"},
		"one byte less":              {string(good[:len(good)-1]), "input ends early"},
		"one byte more":              {string(good) + "x", "trailing bytes"},
		"no region":                  {patch(8, 1000), "no immutable region: the first entry is tag 1000"},
		"region of signatures":       {patch(8, 62), "no immutable region"},
		"region of rpm 3":            {patch(8, 61), "no immutable region"},
		"region of another type":     {patch(12, 6), "region of type string"},
		"region without data":        {patch(16, 1<<31), "region trailer at 2147483648"},
		"region to the end of data":  {patch(16, uint32(len(good)-data-16)), "region trailer speaks of"},
		"region over the end":        {patch(16, uint32(len(good)-data-15)), "region trailer at"},
		"region earlier":             {patch(16, u32(16)-16), "region trailer speaks of"},
		"trailer with another tag":   {patch(trailer, 62), "region trailer with tag 62"},
		"trailer of no index":        {patch(trailer+8, 0), "speaks of 0 bytes"},
		"trailer of positive offset": {patch(trailer+8, 16), "speaks of -16 bytes"},
		"trailer of half an entry":   {patch(trailer+8, u32(trailer+8)+8), "region trailer speaks of"},
		"trailer of too much index":  {patch(trailer+8, 1<<31), "region trailer speaks of"},
		// one entry of the region fewer, or of what was added one more, inside
		"region without its last entry": {patch(trailer+8, u32(trailer+8)+16), "header digest does not match"},
		"region with an entry more":     {patch(trailer+8, u32(trailer+8)-16), "region of stored rpm header"},
		"changed inside":                {patch(data, u32(data)^1), "header digest does not match"},
		"signature out of data":         {patch(rsa+8, uint32(len(good)-data+1)), "tag 268: count 3"},
		"signature at -1":               {patch(rsa+8, 1<<32-1), "tag 268: count 3, data at -1"},
		"signature too long":            {patch(rsa+12, 1<<20), "tag 268: 1048576 elements of type bin do not fit"},
		"signature of 2^32-1 bytes":     {patch(rsa+12, 1<<32-1), "tag 268: count 4294967295"},
		"signature of no bytes":         {patch(rsa+12, 0), "tag 268: count 0"},
		"signature of type 99":          {patch(rsa+4, 99), "not a type of data"},
		"signature twice":               {added(rpmtest.Bin(268, []byte("a")), rpmtest.Bin(268, []byte("b"))), "tag 268 twice"},
		"wrong SHA-256":                 {added(rpmtest.String(273, strings.Repeat("0", 64))), "header digest does not match"},
		"texts without end":             {added(rpmtest.Entry{Tag: 278, Type: 8, Count: 1 << 27, Data: []byte("a\x00")}), "1 of 134217728 strings"},
	}
	for name, c := range hostile() {
		// What is wrong with a header is wrong with it in a database, too, but for
		// its magic, which is not stored.
		if b := c[0]; len(b) > 16 && b[:8] == string(hello.Header()[:8]) {
			cases["stored: "+name] = [2]string{b[8:], ""}
		}
	}
	return cases
}

// readStored reads all there is in a stored header.
func readStored(b []byte) error {
	p, err := rpmhdr.ParseStored(b)
	if err != nil {
		return err
	}
	if _, err := p.HeaderSignatures(); err != nil {
		return err
	}
	if _, err := p.PayloadSignatures(); err != nil {
		return err
	}
	return read(p.Header.Signed())
}

func TestHostileStored(t *testing.T) {
	if err := readStored(rpmtest.Stored(hello.Header(), installed()...)); err != nil {
		t.Fatal(err)
	}
	all := hostileStored()
	if len(all) < 60 {
		t.Errorf("%d cases only", len(all))
	}
	for name, c := range all {
		if err := readStored([]byte(c[0])); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %v, want %q", name, err, c[1])
		}
	}
}

func TestStoredTruncatedAtEveryOffset(t *testing.T) {
	good := rpmtest.Stored(hello.Header(), installed()...)
	for n := range good {
		if _, err := rpmhdr.ParseStored(good[:n]); !errors.Is(err, wire.ErrShort) {
			t.Errorf("first %d of %d bytes: %v", n, len(good), err)
		}
	}
}

// No bit of what rpm added to a header can change what is signed.
func TestStoredBits(t *testing.T) {
	good := rpmtest.Stored(hello.Header(), installed()...)
	for i := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			if p, err := rpmhdr.ParseStored(b); err == nil && !bytes.Equal(p.Header.Signed(), hello.Header()) {
				t.Errorf("byte %d, bit %d changes the header", i, bit)
			}
		}
	}
}

func TestStoredKeys(t *testing.T) {
	key := func(extra ...rpmtest.Entry) []byte { return rpmtest.Package{Name: "gpg-pubkey", Extra: extra}.Header() }
	const armored = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	base64Key := base64.StdEncoding.EncodeToString([]byte("binary"))
	regionless := rpmtest.Raw(rpmtest.AppendIndex(rpmtest.AppendIndex(nil, 1000, 6, 0, 1), 1005, 6, 11, 1), []byte("gpg-pubkey\x00"+armored+"\x00"))[8:]
	for name, c := range map[string]struct {
		blob []byte
		want string
	}{
		"armored":    {rpmtest.Stored(key(rpmtest.String(1005, armored)), rpmtest.Int32s(1008, 1)), armored},
		"translated": {rpmtest.Stored(key(rpmtest.Entry{Tag: 1005, Type: 9, Count: 1, Data: []byte(armored + "\x00")})), armored},
		"base64":     {rpmtest.Stored(key(rpmtest.Strings(266, base64Key, base64Key))), "binary,binary"},
		"no region":  {regionless, armored},
	} {
		if _, err := rpmhdr.ParseStored(c.blob); !errors.Is(err, rpmhdr.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
		keys, err := rpmhdr.StoredKeys(c.blob)
		if got := string(bytes.Join(keys, []byte(","))); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
	for name, blob := range map[string][]byte{
		"none":       rpmtest.Stored(key()),
		"not base64": rpmtest.Stored(key(rpmtest.Strings(266, "!"))),
	} {
		if keys, err := rpmhdr.StoredKeys(blob); err == nil {
			t.Errorf("%s: keys %q", name, keys)
		}
	}
	if keys, err := rpmhdr.StoredKeys(rpmtest.Stored(hello.Header(), installed()...)); keys != nil || err != nil {
		t.Errorf("a package has keys: %q, %v", keys, err)
	}
	// A package of that name with a signature is a package: it can be proved.
	if _, err := rpmhdr.ParseStored(rpmtest.Stored(key(), rpmtest.Bin(268, []byte("rsa")))); err != nil {
		t.Errorf("a signed package by the name of a key: %v", err)
	}
}

// Reading a hostile stored header takes at most three times its size in
// memory: one of them is the header rebuilt.
func TestStoredMemory(t *testing.T) {
	for name, b := range hostileSizes() {
		blob := rpmtest.Stored(b, rpmtest.Bin(268, []byte("rsa")))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := readStored(blob)
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d bytes stored, %d allocated: %v", name, len(blob), used, err)
		if used > 3*uint64(len(blob)) {
			t.Errorf("%s: %d bytes allocated for %d", name, used, len(blob))
		}
	}
	claims := rpmtest.Stored(hello.Header())
	binary.BigEndian.PutUint32(claims[4:], rpmhdr.MaxData)
	if n := testing.AllocsPerRun(10, func() { _, _ = rpmhdr.ParseStored(claims) }); n > 20 {
		t.Errorf("%v allocations for a claim", n)
	}
}

func FuzzParseStored(f *testing.F) {
	f.Add(rpmtest.Stored(hello.Header(), installed()...))
	f.Add(rpmtest.Stored(rpmtest.Package{Name: "gpg-pubkey", Extra: []rpmtest.Entry{rpmtest.Strings(266, "AAAA")}}.Header()))
	for _, c := range hostileStored() {
		f.Add([]byte(c[0]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := rpmhdr.StoredKeys(b)
		if err == nil && len(keys) > 0 {
			if _, err := rpmhdr.ParseStored(b); !errors.Is(err, rpmhdr.ErrKey) {
				t.Errorf("a key is a package: %v", err)
			}
			return
		}
		p, err := rpmhdr.ParseStored(b)
		if err != nil {
			return
		}
		if sigs, err := p.HeaderSignatures(); err == nil && len(sigs) == 0 {
			_, _ = p.PayloadSignatures()
		}
		// What is signed is the magic, two sizes, and two parts of the blob.
		signed := p.Header.Signed()
		if _, err := rpmhdr.Parse(signed); err != nil {
			t.Errorf("what is signed is no header: %v", err)
		}
		index := 16 + 16*int(binary.BigEndian.Uint32(signed[8:]))
		data := 8 + 16*int(binary.BigEndian.Uint32(b))
		if !bytes.HasPrefix(b[8:], signed[16:index]) || !bytes.HasPrefix(b[data:], signed[index:]) {
			t.Error("what is signed is not in the blob")
		}
		_ = read(signed)
	})
}
