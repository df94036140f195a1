package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"diglim/internal/digest"
	"diglim/internal/kernel/gate"
	"diglim/internal/kernel/gate/set"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// sized is a set with n more digests of nothing.
func sized(old *set.Image, n int) (*set.Image, error) {
	var b set.Builder
	b.AddImage(old)
	for i := range n {
		if err := b.Add(set.Content, digest.Sum(digest.SHA256, binary.LittleEndian.AppendUint64(nil, uint64(i)))); err != nil {
			return nil, err
		}
	}
	return b.Build(old.Header())
}

// generation is the image with another generation, without building it again.
func generation(image *set.Image, n uint64) (*set.Image, error) {
	b := bytes.Clone(image.Bytes())
	binary.LittleEndian.PutUint64(b[8:], n)
	return set.Parse(b)
}

// replace puts sets of several sizes in force while files are judged. One is in
// all sets and must always be let through, one in none.
func replace(r *report) error {
	g, err := gate.Open()
	if err != nil {
		return err
	}
	k, u := pages("k", 1), pages("u", 1)
	if err := next(g, nil, k); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "replace")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	old, err := g.Image()
	if err != nil {
		return err
	}
	n := old.Header().Generation

	var images []*set.Image
	for _, size := range []int{6_000, 100_000, 1_000_000} {
		image, err := sized(old, size)
		if err != nil {
			return err
		}
		images = append(images, image)
	}

	var stop atomic.Bool
	var judged, wrong atomic.Int64
	var wg sync.WaitGroup
	load := func(name string, content []byte, want error) {
		wg.Go(func() {
			for !stop.Load() {
				// A new file each time: the gate has to hash it and to look it up.
				path := dir + "/" + name
				os.Remove(path)
				os.WriteFile(path, content, 0o755)
				if err := mapFile(path, rx, unix.MAP_PRIVATE); !errors.Is(err, want) {
					wrong.Add(1)
				}
				judged.Add(1)
			}
		})
	}
	load("known", k, nil)
	load("unknown", u, unix.EPERM)

	var gone []ebpf.MapID
	const swaps = 12
	for i := range swaps {
		n++
		image, err := generation(images[i%len(images)], n)
		if err != nil {
			return err
		}
		id, err := setID()
		if err != nil {
			return err
		}
		gone = append(gone, id)
		if err := g.Replace(image); err != nil {
			return err
		}
		s, err := g.Status()
		if err != nil {
			return err
		}
		if s.Header.Generation != n || s.Digests != image.Digests() {
			return fmt.Errorf("generation %d with %d digests, want %d with %d", s.Header.Generation, s.Digests, n, image.Digests())
		}
		if i < len(images) {
			r.line(fmt.Sprintf("%d digests", s.Digests-old.Digests()), "at most 36 bytes each: %t", s.Bytes <= uint64(36*s.Digests))
			fmt.Fprintf(os.Stderr, "%d digests: %d bytes, %.2f each\n", s.Digests, s.Bytes, float64(s.Bytes)/float64(s.Digests))
		}
	}
	stop.Store(true)
	wg.Wait()
	fmt.Fprintf(os.Stderr, "%d files judged during %d replacements\n", judged.Load(), swaps)
	r.line("judged enough", "%t", judged.Load() > swaps)
	r.line("wrong verdicts", "%d", wrong.Load())
	r.line("old sets that are still there", "%d", remaining(gone))

	stale, err := generation(images[0], n)
	if err != nil {
		return err
	}
	r.line("not the next generation", "%t", errors.Is(g.Replace(stale), gate.ErrChanged))
	small, err := generation(old, n+1)
	if err != nil {
		return err
	}
	return errors.Join(g.Replace(small), g.Close())
}

// setID returns the number of the map that is in force.
func setID() (ebpf.MapID, error) {
	m, err := ebpf.LoadPinnedMap(gate.Dir+"/sets", &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return 0, err
	}
	defer m.Close()
	var id uint32
	err = m.Lookup(uint32(0), &id)
	return ebpf.MapID(id), err
}

// remaining counts the maps that are still there after a while.
func remaining(ids []ebpf.MapID) (n int) {
	for start := time.Now(); ; {
		n = 0
		for _, id := range ids {
			m, err := ebpf.NewMapFromID(id)
			if !errors.Is(err, fs.ErrNotExist) {
				n++
			}
			if err == nil {
				m.Close()
			}
		}
		if n == 0 || time.Since(start) > 10*time.Second {
			return n
		}
	}
}
