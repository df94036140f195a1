// Package cel reads logs of what a running system measured itself, after the
// firmware's log has ended: systemd's (/run/log/systemd/tpm2-measure.log), and
// that of files which ran and are in no list (/run/log/diglim/measure.cel).
//
// The format is the JSON encoding of the TCG Canonical Event Log, as systemd
// writes it: each record begins with the byte 0x1e and ends with a newline (RFC
// 7464).
//
//	{"pcr":11,"digests":[{"hashAlg":"sha256","digest":"…"}],"content_type":"systemd","content":{"string":"enter-initrd",…}}
//
// Of a record a PCR proves the digests. What its content says counts where it is
// what was hashed: see Text.
package cel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// Limits on what a log may contain.
const (
	MaxLog     = 16 << 20 // bytes
	MaxRecords = 1 << 16
	MaxRecord  = 64 << 10 // bytes
	MaxDigests = 16       // of a record
	pcrCount   = 24
)

// The content types that Text knows.
const (
	Systemd = "systemd"
	Diglim  = "diglim"
)

// A Record is one measurement.
type Record struct {
	Number  int             // counts from 1
	Offset  int64           // in the log
	PCR     int             // that it extended; -1 if it was something else, such as an NV index
	Digests []digest.Digest // in the order of the log, without those of an algorithm that is not known
	Type    string          // content_type
	Content []byte          // a JSON value, as it stands in the log, which it aliases
}

// Digest returns a record's digest for a bank, and whether it has one.
func (r *Record) Digest(bank digest.Algorithm) (digest.Digest, bool) {
	for _, d := range r.Digests {
		if d.Algorithm() == bank {
			return d, true
		}
	}
	return digest.Digest{}, false
}

// Text returns what was measured, if the bank's digest is of it: of a systemd
// record the string in the content, of others the content as it stands in the
// log. (Of a secret systemd measures another thing than it writes down.)
func (r *Record) Text(bank digest.Algorithm) (string, bool) {
	d, ok := r.Digest(bank)
	if !ok || !bank.Available() {
		return "", false
	}
	text := string(r.Content)
	if r.Type == Systemd {
		var content struct {
			String string `json:"string"`
		}
		if json.Unmarshal(r.Content, &content) != nil || content.String == "" {
			return "", false
		}
		text = content.String
	}
	return text, digest.Sum(bank, []byte(text)) == d
}

const separator = 0x1e

// Parse reads a log. With an error, which is a *wire.Error that says which
// record and where, it returns the records before that.
func Parse(log []byte) ([]Record, error) {
	if len(log) > MaxLog {
		return nil, fmt.Errorf("log of %d bytes, the limit is %d", len(log), MaxLog)
	}
	var records []Record
	for at := 0; at < len(log); {
		r := Record{Number: len(records) + 1, Offset: int64(at)}
		fail := func(err error) ([]Record, error) {
			return records, &wire.Error{Record: fmt.Sprintf("record %d", r.Number), Offset: r.Offset, Err: err}
		}
		if len(records) == MaxRecords {
			return fail(fmt.Errorf("more than %d records", MaxRecords))
		}
		if log[at] != separator {
			return fail(fmt.Errorf("byte %#02x, a record begins with %#02x", log[at], separator))
		}
		end := bytes.IndexByte(log[at+1:], separator) // which no JSON has in it
		if end < 0 {
			end = len(log) - at - 1
		}
		text := log[at+1 : at+1+end]
		at += 1 + end
		if len(text) > MaxRecord {
			return fail(fmt.Errorf("%d bytes, the limit is %d", len(text), MaxRecord))
		}
		if len(text) == 0 || text[len(text)-1] != '\n' {
			return fail(fmt.Errorf("%w: no newline ends it", wire.ErrShort))
		}
		if err := r.parse(text); err != nil {
			return fail(err)
		}
		records = append(records, r)
	}
	return records, nil
}

func (r *Record) parse(text []byte) error {
	fields, err := object(text)
	if err != nil {
		return err
	}
	if err := member(fields, "content_type", &r.Type); err != nil {
		return err
	}
	if r.Content = fields["content"]; r.Content == nil {
		return errors.New("no content")
	}
	r.PCR = -1
	if fields["pcr"] != nil {
		if err := member(fields, "pcr", &r.PCR); err != nil {
			return err
		}
		if r.PCR < 0 || r.PCR >= pcrCount {
			return fmt.Errorf("PCR %d, the last is %d", r.PCR, pcrCount-1)
		}
	}
	var digests []json.RawMessage
	if err := member(fields, "digests", &digests); err != nil {
		return err
	}
	if len(digests) == 0 || len(digests) > MaxDigests {
		return fmt.Errorf("%d digests, there are 1 to %d", len(digests), MaxDigests)
	}
	seen := map[string]bool{}
	for _, text := range digests {
		var name, value string
		fields, err := object(text)
		if err := errors.Join(err, member(fields, "hashAlg", &name), member(fields, "digest", &value)); err != nil {
			return err
		}
		if seen[name] {
			return fmt.Errorf("two digests for %q", name)
		}
		seen[name] = true
		bank, err := digest.ByName(name)
		if err != nil {
			continue
		}
		d, err := digest.FromHex(bank, []byte(value))
		if err != nil {
			return err
		}
		r.Digests = append(r.Digests, d)
	}
	return nil
}

// object reads one JSON object, and nothing behind it. Names count as they are
// written, and none may be there twice: two readers must not read two things.
func object(text []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.Join(errors.New("no JSON object"), err)
	}
	fields := map[string]json.RawMessage{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		key, _ := name.(string) // in an object every other token is one
		if _, twice := fields[key]; twice {
			return nil, fmt.Errorf("member %q twice", key)
		}
		fields[key] = value
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w behind the object", wire.ErrTrailing)
	}
	return fields, nil
}

// member reads a member that must be there and may not be null.
func member(fields map[string]json.RawMessage, name string, to any) error {
	value := fields[name]
	if value == nil || string(value) == "null" {
		return fmt.Errorf("no member %q", name)
	}
	if err := json.Unmarshal(value, to); err != nil {
		return fmt.Errorf("member %q: %w", name, err)
	}
	return nil
}
