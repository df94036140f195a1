package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

// The log of a machine's writes, as the kernel's dm-log-writes defines it
// (Documentation/admin-guide/device-mapper/log-writes.rst) and QEMU's
// blklogwrites writes it: a sector with a header, then for each write a sector
// that describes it, and the data.
const (
	logMagic   = 0x6a736677736872
	logVersion = 1
	logFlush   = 1 << 0 // what was written before is on the disk, and nothing is written
	logSector  = 512
)

// A logged write is n bytes at an offset of the disk, which lie at from in the log.
type logged struct {
	offset, n, from int64
	flush           bool
}

// Cut writes to disk, which is as it was when the machine started, what a power
// cut would have left of the writes in the log. The cut is at a random write
// after the first one that holds mark. What the machine has not had flushed by
// then is lost in part, block by block, for a disk writes in the order it likes.
// Cut returns what became of the writes, to be read by people.
func Cut(disk, log string, mark []byte, rng *rand.Rand) (string, error) {
	l, err := os.Open(log)
	if err != nil {
		return "", err
	}
	defer l.Close()
	writes, begin, err := readLog(l, mark)
	if err != nil {
		return "", fmt.Errorf("%s: %w", log, err)
	}
	if begin < 0 {
		return "", fmt.Errorf("%s: %d writes, none of which has the mark", log, len(writes))
	}
	d, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	defer d.Close()

	// A part of the way, for the next run has some writes more or less; and right
	// behind a write, so that something is not flushed.
	end := begin + int(rng.Float64()*float64(len(writes)-begin))
	for end < len(writes)-1 && writes[end].flush {
		end++
	}
	end++
	flushed := end
	for flushed > 0 && !writes[flushed-1].flush {
		flushed--
	}
	const block = 4096
	chance := rng.Float64() // of a block to be lost
	lost, unflushed := 0, 0
	buf := make([]byte, block)
	for i, w := range writes[:end] {
		for at := int64(0); at < w.n; at += block {
			if i >= flushed {
				unflushed++
				if rng.Float64() < chance {
					lost++
					continue
				}
			}
			piece := buf[:min(block, w.n-at)]
			if _, err := l.ReadAt(piece, w.from+at); err != nil {
				return "", err
			}
			if _, err := d.WriteAt(piece, w.offset+at); err != nil {
				return "", err
			}
		}
	}
	return fmt.Sprintf("cut after write %d of %d, %d of %d blocks lost that were not flushed", end-begin, len(writes)-begin, lost, unflushed), nil
}

// readLog returns the writes, and the index of the first that holds the mark, -1
// if none does.
func readLog(l *os.File, mark []byte) (writes []logged, begin int, err error) {
	var super struct {
		Magic, Version, Entries uint64
		SectorSize              uint32
	}
	read := func(at int64, v any) error {
		return binary.Read(io.NewSectionReader(l, at, logSector), binary.LittleEndian, v)
	}
	if err := read(0, &super); err != nil {
		return nil, 0, err
	}
	if super.Magic != logMagic || super.Version != logVersion || super.SectorSize != logSector {
		return nil, 0, errors.New("no log of writes")
	}
	begin = -1
	at := int64(logSector)
	for range super.Entries {
		var entry struct{ Sector, Sectors, Flags, Length uint64 }
		if err := read(at, &entry); err != nil {
			return nil, 0, err
		}
		at += logSector
		w := logged{int64(entry.Sector) * logSector, int64(entry.Sectors) * logSector, at, entry.Flags == logFlush}
		if entry.Flags&^logFlush != 0 || w.flush && w.n > 0 {
			return nil, 0, fmt.Errorf("write %d has flags %#x, and %d bytes", len(writes), entry.Flags, w.n)
		}
		if begin < 0 {
			data := make([]byte, w.n)
			if _, err := l.ReadAt(data, at); err != nil {
				return nil, 0, err
			}
			if bytes.Contains(data, mark) {
				begin = len(writes)
			}
		}
		writes = append(writes, w)
		at += w.n
	}
	if info, err := l.Stat(); err != nil || info.Size() < at {
		return nil, 0, errors.Join(err, io.ErrUnexpectedEOF)
	}
	return writes, begin, nil
}
