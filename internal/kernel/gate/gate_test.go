//go:build !nobpf && (amd64 || arm64)

package gate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// requireBPF skips the test where nobody is allowed to make maps. If it fails
// otherwise, CI=true fails the test.
func requireBPF(t *testing.T) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err == nil {
		m.Close()
		return
	}
	// A container may not be allowed it; the guests' tests make maps in any case.
	if os.Getenv("CI") == "true" && !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	t.Skip("no BPF maps here: ", err)
}

func testImage(t *testing.T, generation uint64, n int) *set.Image {
	t.Helper()
	var b set.Builder
	for i := range n {
		if err := b.Add(set.Content, digest.Sum(digest.SHA256, binary.BigEndian.AppendUint32(nil, uint32(i)))); err != nil {
			t.Fatal(err)
		}
	}
	image, err := b.Build(set.Header{Generation: generation, Mode: set.Log, Loaded: time.Unix(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// testGate is a gate without its programs.
func testGate(t *testing.T) *Gate {
	t.Helper()
	spec, err := readObject(gateObject)
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{}
	for name, m := range g.pins() {
		if *m, err = ebpf.NewMap(spec.Maps[name]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// What is in the kernel is the image, nobody can change it, and it goes when
// another takes its place.
func TestImageMap(t *testing.T) {
	requireBPF(t)
	g := testGate(t)
	if _, err := g.Image(); !errors.Is(err, ErrNone) {
		t.Errorf("image of an empty gate: %v", err)
	}
	var last ebpf.MapID
	for generation, n := range []int{1, 6_000, 100_000, 10} {
		want := testImage(t, uint64(generation+1), n)
		m, err := newImageMap(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Put(uint32(0), make([]byte, set.BlockSize)); !errors.Is(err, unix.EPERM) {
			t.Errorf("update of a frozen map: %v", err)
		}
		if _, err := unix.Mmap(m.FD(), 0, set.BlockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); !errors.Is(err, unix.EPERM) {
			t.Errorf("writable mapping of a frozen map: %v", err)
		}
		if err := g.sets.Put(uint32(0), m); err != nil {
			t.Fatal(err)
		}
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		m.Close()

		got, err := g.Image()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("%d digests: the kernel has another image", n)
		}
		s, err := g.Status()
		if err != nil {
			t.Fatal(err)
		}
		if s.Digests != n || s.Header.Generation != uint64(generation+1) {
			t.Errorf("status: %d digests, generation %d", s.Digests, s.Header.Generation)
		}
		if n >= 6_000 && s.Bytes > uint64(36*n) {
			t.Errorf("%d digests take %d bytes", n, s.Bytes)
		}
		if last != 0 {
			// The kernel frees it a grace period later.
			deadline := time.Now().Add(20 * time.Second)
			for {
				m, err := ebpf.NewMapFromID(last)
				if errors.Is(err, fs.ErrNotExist) {
					break
				}
				m.Close()
				if time.Now().After(deadline) {
					t.Fatalf("map %d is still there: %v", last, err)
				}
			}
		}
		last = id
	}
}

// The committed object is what the compiler makes of the source.
func TestObject(t *testing.T) {
	if _, err := exec.LookPath("clang-14"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("no clang-14")
	}
	dir := t.TempDir()
	if out, err := exec.Command("./compile", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, source := range []string{"*.c", "*.h", "compile"} { // cached results of go test look at what is opened
		names, err := filepath.Glob(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if _, err := os.ReadFile(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, committed := range map[string][]byte{"gate.o.gz": gateObject, "lock.o.gz": lockObject} {
		made, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		// As they are unpacked: another gzip packs otherwise.
		want, err := unpack(made)
		if err != nil {
			t.Fatal(err)
		}
		got, err := unpack(committed)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what go generate makes", name)
		}
	}
}

// TestLayout holds the programs' idea of an event and of the counters against
// this package's.
func TestLayout(t *testing.T) {
	spec, err := readObject(gateObject)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := int(spec.Maps["counters"].ValueSize), binary.Size(counters{}); got != want {
		t.Errorf("counters of %d bytes, want %d", got, want)
	}
	if got, want := int(spec.Maps["scratches"].ValueSize), eventHead+4096+8; got != want {
		t.Errorf("event of %d bytes, want %d", got, want)
	}
}

func goodEvent() []byte {
	b := make([]byte, eventHead, eventHead+8)
	binary.LittleEndian.PutUint64(b, 5)
	binary.LittleEndian.PutUint32(b[8:], 77)
	binary.LittleEndian.PutUint32(b[12:], 1000)
	copy(b[16:], []byte{byte(Mmap), byte(Denied), byte(Unlisted), 4})
	copy(b[24:56], bytes.Repeat([]byte{0xab}, 32))
	copy(b[88:], "sh")
	binary.LittleEndian.PutUint16(b[104:], 4)
	return append(b, "/x/y"...)
}

func TestParseEvent(t *testing.T) {
	e, err := parseEvent(goodEvent())
	if err != nil {
		t.Fatal(err)
	}
	if e.Hook != Mmap || e.Verdict != Denied || e.Reason != Unlisted || e.PID != 77 || e.UID != 1000 ||
		e.Command != "sh" || e.Path != "/x/y" || e.Digest.String() != "sha256:"+string(bytes.Repeat([]byte("ab"), 32)) {
		t.Errorf("%+v", e)
	}
	for name, change := range map[string]func([]byte) []byte{
		"cut":             func(b []byte) []byte { return b[:len(b)-1] },
		"cut in the head": func(b []byte) []byte { return b[:eventHead-1] },
		"longer":          func(b []byte) []byte { return append(b, 0) },
		"algorithm":       func(b []byte) []byte { b[19] = 0xff; return b },
	} {
		if _, err := parseEvent(change(goodEvent())); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add(goodEvent())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEvent(b)
		if err == nil && len(e.Path) != len(b)-eventHead {
			t.Errorf("path of %d bytes out of %d", len(e.Path), len(b))
		}
	})
}
