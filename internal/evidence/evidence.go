// Package evidence reads what a machine hands in, in the forms in which tools
// write it, and makes of it the pieces that attest.Judge takes. Nothing is
// verified here, and nothing is lost: a piece that cannot be read is handed on
// as it is, for Judge to say so.
//
// The forms are a directory of files as tpm2-tools and the kernel write them, a
// tar of such a directory, the quote string of Keylime's agent, the JSON of
// go-attestation's PlatformParameters, the Attestation message of go-tpm-tools
// (Google Compute Engine), and the JSON quote of Azure's confidential machines.
package evidence

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/tpm"
	"diglim/tpm/cel"
	"diglim/tpm/eventlog"
)

// The files of an evidence directory. A quote has three, which are called
// QuoteName or, if there is a quote a bank, BankName, and a suffix.
const (
	AKFile       = "ak.pub"      // TPMT_PUBLIC
	AKPEMFile    = "ak.pem"      // the same key
	NonceFile    = "nonce.hex"   // what the quote answers
	IMAFile      = "ima.bin"     // binary_runtime_measurements
	IMATextFile  = "ima.ascii"   // ascii_runtime_measurements, where there is no IMAFile
	FirmwareFile = "bios.bin"    // binary_bios_measurements
	SystemdFile  = "systemd.cel" // tpm2-measure.log
	DiglimFile   = "diglim.cel"  // measure.cel

	QuoteName       = "quote"
	QuoteSuffix     = ".msg"  // TPMS_ATTEST, as tpm2_quote -m
	SignatureSuffix = ".sig"  // TPMT_SIGNATURE, as tpm2_quote -s
	PCRsSuffix      = ".pcrs" // PCR values, as tpm2_quote -o

	QuoteFile     = QuoteName + QuoteSuffix
	SignatureFile = QuoteName + SignatureSuffix
	PCRsFile      = QuoteName + PCRsSuffix
)

// BankName is what the files of a quote over one bank are called.
func BankName(bank digest.Algorithm) string { return QuoteName + "-" + bank.String() }

// quoteNames are all names of quotes, that of one over all banks first.
func quoteNames() []string {
	names := []string{QuoteName}
	for bank := digest.MD4; bank.Valid(); bank++ {
		if _, ok := bank.TPM(); ok {
			names = append(names, BankName(bank))
		}
	}
	return names
}

// Known reports whether a directory may have a file of that name as evidence.
func Known(name string) bool {
	switch name {
	case AKFile, AKPEMFile, NonceFile, IMAFile, IMATextFile, FirmwareFile, SystemdFile, DiglimFile:
		return true
	}
	suffix := path.Ext(name)
	return (suffix == QuoteSuffix || suffix == SignatureSuffix || suffix == PCRsSuffix) &&
		slices.Contains(quoteNames(), strings.TrimSuffix(name, suffix))
}

// Limit is the largest size of a file of evidence in bytes, but for IMA logs,
// which are never held in memory.
func Limit(name string) int64 {
	switch name {
	case FirmwareFile:
		return eventlog.MaxLog
	case SystemdFile, DiglimFile:
		return cel.MaxLog
	}
	return maxSmall
}

const (
	maxSmall   = 64 << 10 // a quote, a signature, PCR values, a key
	maxMessage = 8 << 20  // evidence in one message: a quote, and a firmware log in base64
)

// A Bundle is evidence of one machine.
type Bundle struct {
	Format   string // that it was read from
	Quotes   []Quote
	AK       []byte
	IMALog   io.ReaderAt
	Firmware []byte
	Systemd  []byte
	Diglim   []byte
}

// A Quote is a quote with what goes with it.
type Quote struct {
	Attest    []byte // TPMS_ATTEST
	Signature []byte // TPMT_SIGNATURE
	PCRs      []byte // as tpm.AppendValues
}

// For returns the evidence with the one quote that covers a PCR or, if none
// does, with the first.
func (b *Bundle) For(pcr tpm.PCR) attest.Evidence {
	ev := attest.Evidence{AK: b.AK, IMALog: b.IMALog, Firmware: b.Firmware, Systemd: b.Systemd, Diglim: b.Diglim}
	for i, q := range b.Quotes {
		covers := false
		if parsed, err := tpm.ParseQuote(q.Attest); err == nil {
			for p := range parsed.Selection.All() {
				covers = covers || p == pcr
			}
		}
		if covers || i == 0 {
			ev.Quote, ev.Signature, ev.PCRs = q.Attest, q.Signature, q.PCRs
		}
		if covers {
			break
		}
	}
	return ev
}

// Read reads a bundle that is one file of that size. An IMA log in a tar is
// read from there when it is judged, so that it may be larger than memory.
func Read(r io.ReaderAt, size int64) (*Bundle, error) {
	head := make([]byte, min(size, 262))
	if n, err := r.ReadAt(head, 0); n < len(head) {
		return nil, err
	}
	if len(head) == 262 && bytes.HasSuffix(head, []byte("ustar")) {
		return parseTar(r, size)
	}
	for _, magic := range []string{"\x1f\x8b", "BZh", "\xfd7zXZ", "\x28\xb5\x2f\xfd"} { // gzip, bzip2, xz, zstd
		if bytes.HasPrefix(head, []byte(magic)) {
			return nil, errors.New("not evidence: a compressed file; unpack it first")
		}
	}
	if size > maxMessage {
		return nil, fmt.Errorf("not evidence: not a tar, and more than %d bytes", maxMessage)
	}
	b := make([]byte, size)
	if n, err := r.ReadAt(b, 0); n < len(b) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(b, []byte("{")):
		return parseJSON(b)
	case bytes.HasPrefix(b, []byte("r")) && bytes.Count(b, []byte(":")) == 2:
		return parseKeylime(b)
	case bytes.HasPrefix(b, []byte("d")) && bytes.Count(b, []byte(":")) == 2:
		return nil, errors.New("a deep quote, which a TPM 1.2 makes; only those of a TPM 2.0 are understood")
	case bytes.HasPrefix(b, []byte{attestationKey<<3 | protoBytes}):
		return parseAttestation(b)
	}
	return nil, errors.New("not evidence: neither a tar, nor a quote of Keylime, go-attestation, go-tpm-tools or Azure")
}

// FromFiles makes a bundle of the files of a directory, by name, but for the
// IMA log. Other names than those above are ignored.
func FromFiles(files map[string][]byte) *Bundle {
	b := &Bundle{Format: "directory", AK: files[AKFile], Firmware: files[FirmwareFile], Systemd: files[SystemdFile], Diglim: files[DiglimFile]}
	for _, name := range quoteNames() {
		q := Quote{Attest(files[name+QuoteSuffix]), Signature(files[name+SignatureSuffix]), files[name+PCRsSuffix]}
		if len(q.Attest) > 0 || len(q.Signature) > 0 || len(q.PCRs) > 0 {
			b.Quotes = append(b.Quotes, q)
		}
	}
	return b
}

// Attest returns a TPMS_ATTEST without the length in front that makes it a
// TPM2B_ATTEST. The two cannot be confused: the magic number would be a length
// of 65,364 bytes.
func Attest(b []byte) []byte {
	if len(b) > 2 && int(binary.BigEndian.Uint16(b)) == len(b)-2 && b[2] == 0xff {
		return b[2:]
	}
	return b
}

// Signature returns a TPMT_SIGNATURE. A bare RSA signature, as tpm2_quote -f
// plain stores it, is taken for one by RSASSA with SHA-256: the length tells it
// from a TPMT_SIGNATURE, which has 6 bytes more.
func Signature(b []byte) []byte {
	switch len(b) {
	case 2048 / 8, 3072 / 8, 4096 / 8:
		head := []byte{0x00, 0x14, 0x00, 0x0b} // TPM_ALG_RSASSA, TPM_ALG_SHA256
		return append(binary.BigEndian.AppendUint16(head, uint16(len(b))), b...)
	}
	return b
}

// parseTar reads a tar of one directory.
func parseTar(r io.ReaderAt, size int64) (*Bundle, error) {
	files, logs := map[string][]byte{}, map[string]io.ReaderAt{}
	seen := map[string]bool{}
	dir := ""
	section := io.NewSectionReader(r, 0, size)
	t := tar.NewReader(section)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("tar: %w", err)
		}
		full := path.Clean(h.Name)
		name := path.Base(full)
		switch {
		case !Known(name):
			continue
		case h.Typeflag != tar.TypeReg || sparse(h):
			return nil, fmt.Errorf("tar: %s: not a regular file, or one with holes", full)
		case len(seen) > 0 && path.Dir(full) != dir:
			return nil, fmt.Errorf("tar: %s: the evidence before it is in another directory", full)
		case seen[name]:
			return nil, fmt.Errorf("tar: %s: a second time", full)
		}
		dir, seen[name] = path.Dir(full), true
		if name == IMAFile || name == IMATextFile {
			at, err := section.Seek(0, io.SeekCurrent) // tar.Reader reads a header and nothing beyond it
			if err != nil {
				return nil, fmt.Errorf("tar: %s: %w", full, err)
			}
			if h.Size > 0 {
				logs[name] = io.NewSectionReader(r, at, h.Size)
			}
			continue
		}
		if limit := Limit(name); h.Size > limit {
			return nil, fmt.Errorf("tar: %s: more than %d bytes", full, limit)
		}
		files[name] = make([]byte, h.Size)
		if _, err := io.ReadFull(t, files[name]); err != nil {
			return nil, fmt.Errorf("tar: %s: %w", full, err)
		}
	}
	if len(seen) == 0 {
		return nil, errors.New("tar: no evidence in it")
	}
	bundle := FromFiles(files)
	bundle.Format = "tar"
	for _, name := range []string{IMATextFile, IMAFile} {
		if log, ok := logs[name]; ok {
			bundle.IMALog = log
		}
	}
	return bundle, nil
}

// sparse reports whether a file is not in the tar as it is, in one of the ways
// that pax headers have for it.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// parseKeylime reads the agent's quote: "r", then quote, signature and PCR
// values as tpm2-tools write them, in base64 with colons between.
func parseKeylime(b []byte) (*Bundle, error) {
	var parts [3][]byte
	for i, text := range strings.SplitN(string(bytes.TrimSpace(b[1:])), ":", 3) {
		part, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("quote of Keylime: part %d: %w", i+1, err)
		}
		parts[i] = part
	}
	return &Bundle{Format: "keylime", Quotes: []Quote{{Attest(parts[0]), Signature(parts[1]), parts[2]}}}, nil
}

// serialize makes the PCR values of a quote that came one by one. For a quote
// that cannot be read there are none, and Judge says why.
func serialize(attest []byte, claimed tpm.Values) ([]byte, error) {
	q, err := tpm.ParseQuote(attest)
	if err != nil {
		return nil, nil
	}
	return tpm.AppendValues(nil, q.Selection, claimed)
}
