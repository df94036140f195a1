//go:build !nobpf && (amd64 || arm64)

package gate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// counters is struct counters of event.h.
type counters struct {
	Verdict                [Hooks][Verdicts]uint64
	Sent, Lost, Suppressed uint64
}

// Status tells how the gate is.
func (g *Gate) Status() (Status, error) {
	var s Status
	err := g.view(func(image *set.Image, m *ebpf.Map) (err error) {
		s.Header, s.Digests, s.Tables = image.Header(), image.Digests(), image.Tables()
		s.Bytes, err = memory(m)
		return err
	})
	if err != nil {
		return Status{}, err
	}
	var cpus []counters
	if err := g.counters.Lookup(uint32(0), &cpus); err != nil {
		return Status{}, fmt.Errorf("counters: %w", err)
	}
	for _, c := range cpus {
		for h := range c.Verdict {
			for v := range c.Verdict[h] {
				s.Counts[h][v] += c.Verdict[h][v]
			}
		}
		s.Sent += c.Sent
		s.Lost += c.Lost
		s.Suppressed += c.Suppressed
	}
	return s, nil
}

// memory returns how many bytes of the kernel's memory a map takes.
func memory(m *ebpf.Map) (uint64, error) {
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	n, ok := info.Memlock()
	if !ok {
		return 0, errors.New("the kernel does not say what memory a map takes")
	}
	return n, nil
}

// Watch passes on the events that nobody has taken yet, from the oldest, and
// those that come, until the context ends; it returns the context's error then.
// There is one ring: of several that watch, each gets a part.
func (g *Gate) Watch(ctx context.Context, f func(Event)) error {
	r, err := ringbuf.NewReader(g.events)
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	defer r.Close()
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	for {
		record, err := r.Read()
		if errors.Is(err, os.ErrClosed) && ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("events: %w", err)
		}
		e, err := parseEvent(record.RawSample)
		if err != nil {
			return err
		}
		f(e)
	}
}

// eventHead is the size of struct event of event.h up to the path.
const eventHead = 112

// parseEvent reads what the programs send.
func parseEvent(b []byte) (Event, error) {
	if len(b) < eventHead || len(b) != eventHead+int(binary.LittleEndian.Uint16(b[104:])) {
		return Event{}, fmt.Errorf("event of %d bytes", len(b))
	}
	e := Event{
		Time: sinceBoot(binary.LittleEndian.Uint64(b)),
		PID:  binary.LittleEndian.Uint32(b[8:]), UID: binary.LittleEndian.Uint32(b[12:]),
		Hook: Hook(b[16]), Verdict: Verdict(b[17]), Reason: Reason(b[18]),
		Device: binary.LittleEndian.Uint32(b[20:]),
		Path:   string(b[eventHead:]),
	}
	command, _, _ := bytes.Cut(b[88:104], []byte{0})
	e.Command = string(command)
	if value := b[24:88]; !bytes.Equal(value, make([]byte, len(value))) {
		alg, err := digest.ByKernel(uint16(b[19]))
		if err != nil {
			return Event{}, fmt.Errorf("event: %w", err)
		}
		if e.Digest, err = digest.New(alg, value[:alg.Size()]); err != nil {
			return Event{}, fmt.Errorf("event: %w", err)
		}
	}
	return e, nil
}

// sinceBoot returns the time that was ns nanoseconds after the boot.
func sinceBoot(ns uint64) time.Time {
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(int64(ns) - boot.Nano())).Round(0)
}
