// Package uki predicts what booting a unified kernel image measures: the stub
// of systemd that it begins with extends PCR 11 with the image's sections
// (systemd's TPM2_PCR_MEASUREMENTS.md), and systemd later with the phases of the
// boot.
//
// An image is a PE file for UEFI (Microsoft's PE format; UAPI.5, Unified Kernel
// Image). What it is, and who signed it, is not for this package to say.
package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// PCR is the one that is extended.
const PCR = 11

// Limits on what an image may contain.
const (
	MaxSections = 96      // of a PE file, as Windows has it
	MaxSection  = 1 << 30 // bytes of a section that is measured
	maxHeader   = 64 << 10
)

// measured are the sections that are measured, in that order. A stub measures
// those that its version knows: .uname came with systemd 254, .sbat after that.
var measured = []string{".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey"}

// later are sections that older stubs do not measure, the newest first.
var later = []string{".sbat", ".uname"}

// chosen are sections that the stub chooses among, by what it is started with
// and on: what is measured is not in the image.
var chosen = []string{".profile", ".dtbauto", ".hwids", ".efifw"}

// phases are what systemd measures while the system starts and ends, in that
// order. Which of them there are depends on what has been reached, and on
// whether systemd runs in the initramfs.
var phases = []string{"enter-initrd", "leave-initrd", "sysinit", "ready", "shutdown", "final"}

// An Image is a unified kernel image.
type Image struct {
	file     io.ReaderAt
	sections map[string]section
}

// A section is where its content is in the file, in bytes.
type section struct{ at, size int64 }

// Parse reads the headers of an image. The file is read again by Values.
func Parse(file io.ReaderAt) (*Image, error) {
	head := make([]byte, maxHeader)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r, count, optional := header(head[:n])
	r.Bytes(optional)
	image := &Image{file: file, sections: map[string]section{}}
	for i := range count {
		r.Record(fmt.Sprintf("section %d", i+1))
		at := r.Offset()
		name := string(bytes.TrimRight(r.Bytes(8), "\x00"))
		size := r.U32() // in memory, and so what the stub sees
		r.U32()         // address
		stored := r.U32()
		from := r.U32()
		r.Bytes(3*4 + 4) // relocations, line numbers, characteristics
		if r.Err() != nil {
			break
		}
		if err := image.add(name, section{int64(from), int64(size)}, int64(stored)); err != nil {
			r.FailAt(at, err)
		}
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	for _, must := range []string{".linux", ".cmdline"} {
		if _, ok := image.sections[must]; !ok {
			return nil, fmt.Errorf("no unified kernel image: it has no section %s", must)
		}
	}
	return image, nil
}

// header reads the headers of a PE file up to the optional one, of which it
// returns the size in bytes, and the number of sections.
func header(head []byte) (r *wire.Reader, sections, optional int) {
	r = wire.New("DOS header", binary.LittleEndian, head)
	if magic := r.Bytes(2); r.Err() == nil && string(magic) != "MZ" {
		r.FailAt(0, errors.New("not a PE file"))
	}
	r.Bytes(0x3c - 2)
	skip := int64(r.U32()) - r.Offset()
	if r.Err() == nil && (skip < 0 || skip > maxHeader) {
		r.Failf("PE header at %d", r.Offset()+skip)
	}
	r.Bytes(int(skip))
	r.Record("PE header")
	if magic := r.Bytes(4); r.Err() == nil && string(magic) != "PE\x00\x00" {
		r.Failf("not a PE file")
	}
	r.U16() // machine
	sections = int(r.U16())
	if sections > MaxSections {
		r.Failf("%d sections, the limit is %d", sections, MaxSections)
	}
	r.Bytes(3 * 4) // time, symbol table
	optional = int(r.U16())
	r.U16() // characteristics
	if r.Err() != nil {
		return r, 0, 0
	}
	return r, sections, optional
}

// add takes a section if it is one that is measured.
func (i *Image) add(name string, s section, stored int64) error {
	if slices.Contains(chosen, name) {
		return fmt.Errorf("section %s: which of its parts count is decided at boot, so that nothing can be predicted", name)
	}
	if !slices.Contains(measured, name) {
		return nil
	}
	if _, twice := i.sections[name]; twice {
		return fmt.Errorf("a second section %s", name)
	}
	if s.size > stored || s.size > MaxSection {
		return fmt.Errorf("section %s of %d bytes: %d are stored, the limit is %d", name, s.size, stored, MaxSection)
	}
	i.sections[name] = s
	return nil
}

// CommandLine is the kernel command line in the image, at most a page of it.
func (i *Image) CommandLine() (string, error) {
	const page = 4096
	s := i.sections[".cmdline"]
	b := make([]byte, min(s.size, page))
	_, err := i.file.ReadAt(b, s.at)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimRight(string(b), "\x00\n"), nil
}

// Values returns the values that PCR 11 of a bank may have when the kernel
// starts. There are several if the image has sections that older stubs do not
// measure: a stub does not say what it knows. All have the kernel, the
// initramfs and the command line in them. The bank must be Available.
func (i *Image) Values(bank digest.Algorithm) ([]digest.Digest, error) {
	content := map[string]digest.Digest{}
	for name, s := range i.sections {
		h := bank.Hash()
		n, err := io.Copy(h, io.NewSectionReader(i.file, s.at, s.size))
		if err == nil && n < s.size {
			err = wire.ErrShort
		}
		if err != nil {
			return nil, fmt.Errorf("section %s: %w", name, err)
		}
		content[name] = digest.Of(bank, h)
	}
	var values []digest.Digest
	for unknown := 0; ; unknown++ {
		value := zero(bank)
		for _, name := range measured {
			if d, ok := content[name]; ok {
				value = extend(value, digest.Sum(bank, []byte(name), []byte{0}))
				value = extend(value, d)
			}
		}
		if len(values) == 0 || values[len(values)-1] != value {
			values = append(values, value)
		}
		if unknown == len(later) {
			return values, nil
		}
		delete(content, later[unknown])
	}
}

// Started returns the hashes by which a firmware knows the image, which is of size
// bytes, and the kernel in it: the stub has the firmware start that, since systemd
// 257. A kernel that is no PE file is started otherwise.
func (i *Image) Started(size int64, bank digest.Algorithm) ([]digest.Digest, error) {
	whole, err := Authenticode(i.file, size, bank)
	if err != nil {
		return nil, err
	}
	s := i.sections[".linux"]
	kernel, err := Authenticode(io.NewSectionReader(i.file, s.at, s.size), s.size, bank)
	if err != nil {
		return []digest.Digest{whole}, nil
	}
	return []digest.Digest{whole, kernel}, nil
}

// Phases yields the values that PCR 11 may have after the boot has gone on from
// one of Values, with the phases that it has then: none, all, and all that lie
// between.
func Phases(value digest.Digest) iter.Seq2[[]string, digest.Digest] {
	return func(yield func([]string, digest.Digest) bool) {
		for mask := range 1 << len(phases) {
			var reached []string
			v := value
			for i, phase := range phases {
				if mask&(1<<i) != 0 {
					reached = append(reached, phase)
					v = extend(v, digest.Sum(v.Algorithm(), []byte(phase)))
				}
			}
			if !yield(reached, v) {
				return
			}
		}
	}
}

func zero(bank digest.Algorithm) digest.Digest {
	d, _ := digest.New(bank, make([]byte, bank.Size())) // of its size
	return d
}

func extend(value, by digest.Digest) digest.Digest {
	return digest.Sum(value.Algorithm(), value.Bytes(), by.Bytes())
}
