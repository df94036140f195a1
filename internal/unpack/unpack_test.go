package unpack

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// content is data of all kinds: a run, text, and what does not compress.
func content() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := bytes.Repeat([]byte{'a'}, 100_000)
	for range 5_000 {
		b = fmt.Appendf(b, "line %d\n", r.IntN(100))
	}
	for range 200_000 {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

func gz(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zst(t testing.TB, b []byte, options ...zstd.EOption) []byte {
	w, err := zstd.NewWriter(nil, options...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// streamed is a frame that does not say how much it holds.
func streamed(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(b[:len(b)/2])
	w.Flush()
	w.Write(b[len(b)/2:])
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// xzip runs the program xz, which every Debian has.
func xzip(t testing.TB, b []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("xz", append([]string{"-c", "-T1", "-0"}, args...)...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("xz %v: %v", args, err)
	}
	return out
}

type packed struct {
	name   string
	format Format
	bytes  []byte
}

func samples(t testing.TB, b []byte) []packed {
	return []packed{
		{"gzip", Gzip, gz(t, b)},
		{"zstd", Zstd, zst(t, b)},
		{"zstd, checksum off", Zstd, zst(t, b, zstd.WithEncoderCRC(false))},
		{"zstd, streamed", Zstd, streamed(t, b)},
		{"zstd, one segment", Zstd, zst(t, b, zstd.WithSingleSegment(true))},
		{"xz", XZ, xzip(t, b)},
		{"xz, crc32", XZ, xzip(t, b, "--check=crc32")},
		{"xz, sha256", XZ, xzip(t, b, "--check=sha256")},
		{"xz, no check", XZ, xzip(t, b, "--check=none")},
		{"xz, 50 blocks", XZ, xzip(t, b, "--block-size=10001")},
		{"xz, x86", XZ, xzip(t, b, "--x86", "--lzma2=dict=64KiB")},
	}
}

func TestUnpacks(t *testing.T) {
	want := content()
	for _, s := range samples(t, want) {
		if f, err := ByMagic(s.bytes[:6]); f != s.format || err != nil {
			t.Errorf("%s: taken for %s, %v", s.name, f, err)
		}
		r, err := New(s.format, bytes.NewReader(s.bytes), int64(len(want)))
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", s.name, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

// First leaves what follows, whatever it is: another stream, zeros, the end.
func TestFirstStopsAtTheEnd(t *testing.T) {
	for _, want := range [][]byte{content(), []byte("short"), {}} {
		for _, s := range samples(t, want) {
			for _, rest := range []string{"", "\x00\x00\x00\x00", "070701", string(s.bytes)} {
				in := bufio.NewReaderSize(strings.NewReader(string(s.bytes)+rest), 16)
				r, err := First(s.format, in, int64(len(want)))
				if err != nil {
					t.Errorf("%s: %v", s.name, err)
					continue
				}
				got, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v", s.name, len(got), err)
				}
				if left, err := io.ReadAll(in); string(left) != rest || err != nil {
					t.Errorf("%s: %d bytes are left, want %d (%v)", s.name, len(left), len(rest), err)
				}
			}
		}
	}
}

// What is cut off anywhere is an error, and no panic; so is a byte changed,
// where there is a checksum to tell.
func TestDamage(t *testing.T) {
	want := content()[99_800:100_400]
	for _, s := range samples(t, want) {
		read := func(b []byte) ([]byte, error) {
			r, err := New(s.format, bytes.NewReader(b), 1<<20)
			if err != nil {
				return nil, err
			}
			defer r.Close()
			return io.ReadAll(r)
		}
		first := func(b []byte) ([]byte, error) {
			r, err := First(s.format, bufio.NewReader(bytes.NewReader(b)), 1<<20)
			if err != nil {
				return nil, err
			}
			defer r.Close()
			return io.ReadAll(r)
		}
		for i := 1; i < len(s.bytes); i++ { // zero bytes of zstd unpack to none
			if got, err := read(s.bytes[:i]); err == nil {
				t.Fatalf("%s: cut at %d of %d: %d bytes", s.name, i, len(s.bytes), len(got))
			}
			if got, err := first(s.bytes[:i]); err == nil {
				t.Fatalf("%s: first stream, cut at %d of %d: %d bytes", s.name, i, len(s.bytes), len(got))
			}
			flipped := bytes.Clone(s.bytes)
			flipped[i] ^= 1 << (i % 8)
			first(flipped)
			got, err := read(flipped)
			if err == nil && !bytes.Equal(got, want) && !strings.Contains(s.name, "no check") && !strings.Contains(s.name, "checksum off") {
				t.Errorf("%s: byte %d of %d changed: other content", s.name, i, len(s.bytes))
			}
		}
	}
}

func TestLimit(t *testing.T) {
	want := content()
	for _, s := range samples(t, want) {
		limit := int64(len(want) - 1)
		r, err := New(s.format, bytes.NewReader(s.bytes), limit)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if !errors.Is(err, ErrLimit) || int64(len(got)) != limit || !bytes.HasPrefix(want, got) {
			t.Errorf("%s: %d bytes, %v", s.name, len(got), err)
		}
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: read again: %v", s.name, err)
		}
	}
}

// A few bytes that claim a large history are refused before it is allocated.
func TestMemory(t *testing.T) {
	header := xzip(t, []byte("x"), "--lzma2=dict=1536MiB")
	frame := append([]byte("\x28\xb5\x2f\xfd\x00"), 0xa8) // a window of 2 GiB
	frame = append(frame, 0x0b, 0, 0, 'x')
	for _, s := range []packed{{"xz, 1.5 GiB", XZ, header}, {"zstd, 2 GiB", Zstd, frame}} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := New(s.format, bytes.NewReader(s.bytes), 1<<20)
		if err == nil {
			_, err = io.ReadAll(r)
		}
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: unpacked", s.name)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
			t.Errorf("%s: %d bytes allocated", s.name, used)
		}
	}
}

func TestBySuffix(t *testing.T) {
	for _, c := range []struct {
		name, base string
		format     Format
		fails      bool
	}{
		{"data.tar", "data.tar", None, false},
		{"data.tar.gz", "data.tar", Gzip, false},
		{"Packages.xz", "Packages", XZ, false},
		{"data.tar.zst", "data.tar", Zstd, false},
		{"data.tar.bz2", "", None, true},
		{"data.tar.lzma", "", None, true},
	} {
		if base, f, err := BySuffix(c.name); base != c.base || f != c.format || (err != nil) != c.fails {
			t.Errorf("%s: %s, %s, %v", c.name, base, f, err)
		}
	}
}

func TestPath(t *testing.T) {
	for name, want := range map[string]string{
		"./": "/", ".": "/", "./usr/bin/sh": "/usr/bin/sh", "usr/bin/sh": "/usr/bin/sh", "usr/lib/": "/usr/lib", "a//b/./c": "/a/b/c",
		"..a/b..": "/..a/b..", "ümlaut": "/ümlaut", "\xff": "/\xff", strings.Repeat("x", maxPath): "/" + strings.Repeat("x", maxPath),
	} {
		if got, err := Path(name); got != want || err != nil {
			t.Errorf("%.40q: %.40q, %v", name, got, err)
		}
	}
	for _, name := range []string{
		"", "/etc/passwd", "..", "../x", "./../x", "a/..", "a/../../etc/shadow", "a\nb", "a\x00b", "\x7f", strings.Repeat("x", maxPath+1), strings.Repeat("x/", 32<<10),
	} {
		got, err := Path(name)
		if err == nil {
			t.Errorf("%.40q is %.40q", name, got)
		} else if text := err.Error(); len(text) > 200 || strings.ContainsAny(text, "\n\x00") {
			t.Errorf("%.40q: the error is %.300q", name, text)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	for _, s := range samples(f, []byte(strings.Repeat("seed", 50))) {
		f.Add(s.bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 20
		format, err := ByMagic(b)
		if err != nil || format == None {
			return
		}
		in := bufio.NewReader(bytes.NewReader(b))
		var first []byte
		if r, err := First(format, in, limit); err == nil {
			first, err = io.ReadAll(r)
			r.Close()
			if err != nil || len(first) > limit {
				first = nil
			}
		}
		r, err := New(format, bytes.NewReader(b), limit)
		if err != nil {
			return
		}
		defer r.Close()
		all, err := io.ReadAll(r)
		if len(all) > limit {
			t.Fatalf("%d bytes", len(all))
		}
		// What the whole unpacks to starts with what its first stream does.
		if err == nil && !bytes.HasPrefix(all, first) {
			t.Errorf("first stream: %d bytes, all of it: %d others", len(first), len(all))
		}
	})
}
