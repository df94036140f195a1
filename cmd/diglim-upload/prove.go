//go:build !nobpf && (amd64 || arm64)

package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/internal/kernel"
	"diglim/internal/kernel/gate/set"
	"diglim/internal/trust"

	"golang.org/x/sys/unix"
)

// A prover takes the digests of lists that are proved.
type prover struct {
	ring     *trust.Ring
	unsigned bool             // lists without a signature may come from the initramfs
	root     string           // of the system to come, "" for none: its links do not make a list one of the initramfs
	measured digest.Algorithm // that files are hashed with
	old      *set.Image       // in force; nil if none is, or what it holds does not matter

	lists, already int  // that proved; of them those that old has all digests of
	digests        int  // in them
	useless        int  // of another algorithm than measured
	parsers        bool // some are of parsers
}

// prove adds the digests of the lists to b. Those that fail add none; fail is
// told of them in the order of the paths, when all is done. They are read in
// that order, one after the other, and given to measure before they are proved,
// several at a time.
//
// A list is in memory once for each processor, and its digests until they are
// in b.
func (p *prover) prove(b *set.Builder, paths []string, measure func(path string, content []byte) error, fail func(path string, err error)) {
	var mu sync.Mutex // guards b and p
	errs := make([]error, len(paths))
	var order sync.Mutex // guards next, and reading
	next := 0
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			var r listReader
			for {
				order.Lock()
				i := next
				if i == len(paths) {
					order.Unlock()
					return
				}
				next++
				foreign := p.root != "" && strings.HasPrefix(paths[i], filepath.Clean(p.root)+"/")
				initramfs, err := r.read(paths[i], p.unsigned && !foreign)
				if err == nil {
					err = measure(paths[i], r.content)
				}
				order.Unlock()
				var entries []trust.Entry
				if err == nil {
					entries, err = r.prove(paths[i], p.ring, initramfs)
				}
				if err == nil {
					mu.Lock()
					err = p.take(b, entries)
					mu.Unlock()
				}
				errs[i] = err
			}
		})
	}
	workers.Wait()
	for i, err := range errs {
		if err != nil {
			fail(paths[i], err)
		}
	}
}

// memoryLimit is what the collector is told to keep to, in bytes: most of what
// it frees are lists that have been read, and this runs where memory is short.
// More than fewDigests do not fit into it, and it would run all the time.
const (
	memoryLimit = 20 << 20
	fewDigests  = 200_000
)

// take adds all digests of a list, or none.
func (p *prover) take(b *set.Builder, entries []trust.Entry) error {
	if len(entries) == 0 {
		p.lists++
		return nil
	}
	there := p.old != nil
	for _, e := range entries {
		if zero(e.Digest) {
			return fmt.Errorf("digest %s, which is that of no file", e.Digest)
		}
		there = there && p.old.Has(e.Kind, e.Digest)
	}
	for _, e := range entries {
		if err := b.Add(e.Kind, e.Digest); err != nil {
			return err
		}
		p.parsers = p.parsers || e.Kind == set.Parser
		if e.Kind != set.Verity && e.Digest.Algorithm() != p.measured {
			p.useless++
		}
	}
	p.digests += len(entries)
	p.lists++
	if n := len(entries); p.digests > fewDigests && p.digests-n <= fewDigests {
		debug.SetMemoryLimit(math.MaxInt64)
	}
	if there {
		p.already++
	}
	return nil
}

// zero reports whether a digest begins with 32 zero bytes, which a set has no
// room for.
func zero(d digest.Digest) bool {
	var b [digest.MaxSize]byte
	d.Append(b[:0])
	return [32]byte(b[:32]) == [32]byte{}
}

// A listReader reads list after list into the same memory.
type listReader struct {
	content []byte
	entries []trust.Entry
}

// keep is the size in bytes of a list up to which its memory is used for the
// next.
const keep = 1 << 20

// read reads a list into r.content. If unsigned, it says whether the list may do
// without a signature: whether it is of the initramfs.
func (r *listReader) read(path string, unsigned bool) (initramfs bool, err error) {
	// Opening a pipe would wait for a writer.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return false, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, errors.New("not a regular file")
	case info.Size() > digestlist.MaxFile:
		return false, fmt.Errorf("%d bytes, the limit is %d", info.Size(), digestlist.MaxFile)
	}
	size := int(info.Size())
	if size > cap(r.content) || cap(r.content) > keep {
		r.content = make([]byte, size, max(size, keep/4))
	}
	r.content = r.content[:size]
	if _, err := io.ReadFull(f, r.content); err != nil {
		return false, fmt.Errorf("it changes while it is read: %w", err)
	}
	if !unsigned {
		return false, nil
	}
	return kernel.InInitramfs(f)
}

// prove returns the digests of the list that was read, good until the next call.
func (r *listReader) prove(path string, ring *trust.Ring, initramfs bool) (entries []trust.Entry, err error) {
	if cap(r.entries) > keep/64 {
		r.entries = nil
	}
	format := digestlist.FormatOf(filepath.Base(path), r.content)
	r.entries, err = ring.Prove(r.entries[:0], r.content, format, initramfs)
	return r.entries, err
}
