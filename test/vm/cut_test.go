package vm_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"diglim/test/vm"
)

// writeLog makes a log as QEMU's blklogwrites does. A write fills a block of 4 KiB,
// by its number, with its text; one without text is a flush.
func writeLog(writes ...string) []byte {
	const sector, block = 512, 4096
	var b bytes.Buffer
	record := func(v ...any) {
		start := b.Len()
		for _, v := range v {
			binary.Write(&b, binary.LittleEndian, v)
		}
		b.Write(make([]byte, sector-(b.Len()-start)))
	}
	record(uint64(0x6a736677736872), uint64(1), uint64(len(writes)), uint32(sector))
	for i, text := range writes {
		if text == "" {
			record(uint64(0), uint64(0), uint64(1), uint64(0))
			continue
		}
		record(uint64(i*block/sector), uint64(block/sector), uint64(0), uint64(0))
		b.WriteString(strings.Repeat(text, block/len(text)))
	}
	return b.Bytes()
}

// A cut disk has all that was flushed, nothing that was written after the cut, and
// of what is between them sometimes this and sometimes that.
func TestCut(t *testing.T) {
	dir := t.TempDir()
	log, disk := filepath.Join(dir, "log"), filepath.Join(dir, "disk")
	writes := []string{"boot", "", "mark", "left", "", "more", "last"}
	write(t, log, writeLog(writes...), 0o600)
	seen := map[string]bool{}
	for seed := range uint64(200) {
		write(t, disk, make([]byte, len(writes)*4096), 0o600)
		if _, err := vm.Cut(disk, log, []byte("mark"), rand.New(rand.NewPCG(seed, 0))); err != nil {
			t.Fatal(err)
		}
		var there []string
		data := read(t, disk)
		for i, text := range writes {
			if text != "" && bytes.HasPrefix(data[i*4096:], []byte(text)) {
				there = append(there, text)
			}
		}
		seen[strings.Join(there, " ")] = true
	}
	for _, want := range []string{"boot", "boot mark", "boot left", "boot mark left", "boot mark left more", "boot mark left last", "boot mark left more last"} {
		if !seen[want] {
			t.Errorf("no cut left %q", want)
		}
		delete(seen, want)
	}
	for other := range seen {
		t.Errorf("a cut left %q", other)
	}

	good := writeLog(writes...)
	discard := bytes.Clone(good)
	discard[512+16] = 4 // flags of the first write
	for name, bad := range map[string][]byte{
		"no log": make([]byte, 512), "cut short": good[:len(good)-1], "empty": nil, "discard": discard, "no mark": writeLog("boot", ""),
	} {
		write(t, log, bad, 0o600)
		if _, err := vm.Cut(disk, log, []byte("mark"), rand.New(rand.NewPCG(1, 0))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	write(t, log, good, 0o600)
	if _, err := vm.Cut(filepath.Join(dir, "none"), log, []byte("boot"), rand.New(rand.NewPCG(1, 0))); !os.IsNotExist(err) {
		t.Errorf("no disk: %v", err)
	}
}
