package eventlog

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"diglim/internal/digest"
)

// maxText is how much of an event is taken for text, in bytes.
const maxText = 8 << 10

// Text returns what a boot loader measured, if the bank's digest is of it and it
// can be read.
func (e *Event) Text(bank digest.Algorithm) (string, bool) {
	if len(e.Data) > maxText {
		return "", false
	}
	b, _ := e.Measured(bank)
	return readable(b)
}

// Measured returns what of a boot loader's text the bank's digest is of, if it is of
// any. Boot loaders log text as data, and hash it in one of these forms:
// as it is, without the NUL at its end, with a zero more (systemd-boot once cut the
// data short), and without the word that GRUB puts in
// front (grub_cmd: and kernel_cmdline:), which nothing proves.
func (e *Event) Measured(bank digest.Algorithm) ([]byte, bool) {
	d, ok := e.Digest(bank)
	if !ok || !bank.Available() || e.Type == NoAction || len(e.Data) == 0 {
		return nil, false
	}
	candidates := [][]byte{e.Data, bytes.TrimSuffix(e.Data, []byte{0, 0}), bytes.TrimSuffix(e.Data, []byte{0}), append(slices.Clone(e.Data), 0)}
	if _, text, ok := bytes.Cut(e.Data, []byte{' '}); ok {
		candidates = append(candidates, text, bytes.TrimSuffix(text, []byte{0}))
	}
	for _, c := range candidates {
		if digest.Sum(bank, c) == d {
			return c, true
		}
	}
	return nil, false
}

// readable takes bytes for text in UTF-8 or, with zeros in them, UTF-16.
func readable(b []byte) (string, bool) {
	b = bytes.TrimSuffix(b, []byte{0})
	text := string(b)
	if bytes.IndexByte(b, 0) >= 0 {
		if len(b)%2 != 0 { // the last character's high byte went with the NUL
			b = append(slices.Clone(b), 0)
		}
		var chars []uint16
		for len(b) > 0 {
			chars, b = append(chars, binary.LittleEndian.Uint16(b)), b[2:]
		}
		text = strings.TrimRight(string(utf16.Decode(chars)), "\x00")
	}
	bad := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	return text, text != "" && utf8.ValidString(text) && !strings.ContainsFunc(text, bad)
}

// LoadOptions is in the data of the event by which the kernel's EFI stub
// measures its command line (drivers/firmware/efi/libstub/efi-stub-helper.c in the
// kernel). The digest is of the command line in UTF-16, with a NUL.
const LoadOptions = "LOADED_IMAGE::LoadOptions"

// MeasuredLoadOptions is the digest by which the kernel's EFI stub measures a
// command line. The bank must be Available.
func MeasuredLoadOptions(bank digest.Algorithm, line string) digest.Digest {
	return digest.Sum(bank, append(loadOptions(line), 0, 0))
}

// MeasuredByGRUB are the digests by which the kernel's EFI stub measures the command
// line that GRUB starts it with, when GRUB has measured it as text: it puts a word in
// front of it, and not every version says that a NUL is part of it.
func MeasuredByGRUB(bank digest.Algorithm, text string) [2]digest.Digest {
	line := "BOOT_IMAGE=" + text
	return [2]digest.Digest{digest.Sum(bank, loadOptions(line)), MeasuredLoadOptions(bank, line)}
}

func loadOptions(line string) (b []byte) {
	for _, c := range utf16.Encode([]rune(line)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b
}
