package measured

import (
	"errors"
	"fmt"
	"strconv"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// LogPath is the log of what was measured after the boot: records of TCG's
// Canonical Event Log, encoded as JSON (CEL-JSON), each between a record separator and
// a newline (RFC 7464), as in systemd's log.
const LogPath = "/run/log/diglim/measure.cel"

// ContentType is the content_type of a Record.
const ContentType = "diglim"

// Limits.
const (
	MaxLog    = 64 << 20 // bytes of a log
	MaxPath   = 4096     // bytes of a path, before it is escaped
	MaxBanks  = 16
	maxNumber = 1<<31 - 1
)

// A Record says that a file that is in no list was used, and that a PCR was
// extended with that.
type Record struct {
	Number  int // counts from 0
	PCR     int
	Digests []digest.Digest // of Content's text, one a bank; what the bank was extended with
	Content Content
}

// A Content is what a Record is about.
type Content struct {
	Path   string        // of the file when it was used; any bytes but NUL
	Digest digest.Digest // of its content; the zero Digest if the kernel had none
	After  int           // entries for the PCR in IMA's log before this
}

// Text is the content as it is hashed, and as it stands in the log:
//
//	{"path":"/tmp/x","digest":"sha256:…","after":12}
//
// In the path bytes that are not printable ASCII, and the three ", \ and %, are
// a % and two hexadecimal digits in lower case.
func (c Content) Text() []byte {
	b := []byte(`{"path":"`)
	for i := range len(c.Path) {
		if ch := c.Path[i]; plain(ch) {
			b = append(b, ch)
		} else {
			b = fmt.Appendf(b, "%%%02x", ch)
		}
	}
	b = append(b, `","digest":"`...)
	if !c.Digest.IsZero() {
		b = append(b, c.Digest.String()...)
	}
	b = append(b, `","after":`...)
	b = strconv.AppendInt(b, int64(c.After), 10)
	return append(b, '}')
}

func plain(ch byte) bool { return ch >= ' ' && ch <= '~' && ch != '"' && ch != '\\' && ch != '%' }

// NewRecord is the record about a content for these banks, which must be Available.
func NewRecord(number, pcr int, c Content, banks []digest.Algorithm) Record {
	r := Record{Number: number, PCR: pcr, Content: c}
	text := c.Text()
	for _, bank := range banks {
		r.Digests = append(r.Digests, digest.Sum(bank, text))
	}
	return r
}

const recordSeparator = "\x1e"

// Append appends the record as it stands in the log:
//
//	RS {"recnum":0,"pcr":12,"digests":[{"hashAlg":"sha256","digest":"…"}],"content_type":"diglim","content":{…}} newline
func (r Record) Append(b []byte) []byte {
	b = fmt.Appendf(b, recordSeparator+`{"recnum":%d,"pcr":%d,"digests":[`, r.Number, r.PCR)
	for i, d := range r.Digests {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"hashAlg":"%s","digest":"%s"}`, d.Algorithm(), d.Hex())
	}
	b = append(b, `],"content_type":"`+ContentType+`","content":`...)
	b = append(b, r.Content.Text()...)
	return append(b, "}\n"...)
}

// Records reads a log that Append wrote: this very form, and not all that JSON
// would allow. Behind records may come an error, a *wire.Error that says which
// record is bad, and where. The digests are those of the content, all of them.
func Records(log []byte) ([]Record, error) {
	if len(log) > MaxLog {
		return nil, fmt.Errorf("%d bytes of log, the limit is %d", len(log), MaxLog)
	}
	p := parser{wire.New("", nil, log)}
	var records []Record
	for p.Len() > 0 {
		p.Record(fmt.Sprintf("record %d", len(records)))
		at := p.Offset()
		r := p.readRecord()
		if p.Err() == nil && r.Number != len(records) {
			p.FailAt(at, fmt.Errorf("its number is %d", r.Number))
		}
		if p.Err() != nil {
			return records, p.Err()
		}
		records = append(records, r)
	}
	return records, nil
}

// ParseContent reads the text of a content.
func ParseContent(text []byte) (Content, error) {
	p := parser{wire.New("content", nil, text)}
	c := p.readContent()
	return c, p.Finish()
}

type parser struct{ *wire.Reader }

func (p parser) readRecord() (r Record) {
	p.literal(recordSeparator + `{"recnum":`)
	r.Number = p.number()
	p.literal(`,"pcr":`)
	at := p.Offset()
	r.PCR = p.number()
	if p.Err() == nil && CheckPCR(r.PCR) != nil {
		p.FailAt(at, CheckPCR(r.PCR))
	}
	digests := p.Offset()
	p.literal(`,"digests":[`)
	for p.Err() == nil {
		if len(r.Digests) == MaxBanks {
			p.Failf("more than %d banks", MaxBanks)
			return r
		}
		at := p.Offset()
		p.literal(`{"hashAlg":"`)
		name := p.until('"')
		p.literal(`,"digest":"`)
		d := p.digest(at, name+":"+p.until('"'))
		p.literal(`}`)
		r.Digests = append(r.Digests, d)
		if p.peek() != ',' {
			break
		}
		p.literal(",")
	}
	p.literal(`],"content_type":"` + ContentType + `","content":`)
	r.Content = p.readContent()
	p.literal("}\n")
	if p.Err() != nil {
		return r
	}
	text := r.Content.Text()
	for i, d := range r.Digests {
		for _, before := range r.Digests[:i] {
			if before.Algorithm() == d.Algorithm() {
				p.FailAt(digests, fmt.Errorf("two digests for bank %s", d.Algorithm()))
			}
		}
		if alg := d.Algorithm(); alg.Available() && digest.Sum(alg, text) != d {
			p.FailAt(digests, fmt.Errorf("digest for bank %s is not that of the content", alg))
		}
	}
	return r
}

func (p parser) readContent() (c Content) {
	p.literal(`{"path":"`)
	at := p.Offset()
	escaped := p.until('"')
	path, err := unescape(escaped)
	if p.Err() == nil && err != nil {
		p.FailAt(at, err)
	}
	c.Path = path
	p.literal(`,"digest":"`)
	at = p.Offset()
	if text := p.until('"'); text != "" {
		c.Digest = p.digest(at, text)
	}
	p.literal(`,"after":`)
	c.After = p.number()
	p.literal(`}`)
	return c
}

// unescape returns a path as it was, and nothing if Text would write it
// otherwise.
func unescape(s string) (string, error) {
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			if !plain(s[i]) {
				return "", fmt.Errorf("byte %#02x in a path", s[i])
			}
			b = append(b, s[i])
			continue
		}
		if i+3 > len(s) {
			return "", errors.New("escape that is cut")
		}
		ch, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil || ch == 0 || plain(byte(ch)) || fmt.Sprintf("%02x", ch) != s[i+1:i+3] {
			return "", fmt.Errorf("escape %q", s[i:i+3])
		}
		b = append(b, byte(ch))
		i += 2
	}
	if len(b) > MaxPath {
		return "", fmt.Errorf("path of %d bytes, the limit is %d", len(b), MaxPath)
	}
	return string(b), nil
}

// literal reads what must stand there.
func (p parser) literal(s string) {
	at := p.Offset()
	if got := p.Bytes(min(len(s), p.Len())); p.Err() == nil && string(got) != s {
		p.FailAt(at, fmt.Errorf("%q, must be %q", got, s))
	}
}

// peek returns the next byte, zero at the end.
func (p parser) peek() byte {
	next := *p.Reader
	if next.Len() == 0 {
		return 0
	}
	return next.U8()
}

// until returns the bytes before the next end, and goes behind it.
func (p parser) until(end byte) string {
	const limit = 3*MaxPath + 1
	at := p.Offset()
	next := *p.Reader
	for n := range min(next.Len(), limit) {
		if next.U8() == end {
			s := string(p.Bytes(n))
			p.U8()
			return s
		}
	}
	if p.Err() == nil {
		p.FailAt(at, fmt.Errorf("no %q within %d bytes", end, limit))
	}
	return ""
}

// number reads a decimal number without zeros in front.
func (p parser) number() int {
	at := p.Offset()
	var n uint64
	digits := 0
	for ch := p.peek(); ch >= '0' && ch <= '9' && n <= maxNumber; ch = p.peek() {
		if digits == 1 && n == 0 {
			break
		}
		n = n*10 + uint64(p.U8()-'0')
		digits++
	}
	if p.Err() == nil && (digits == 0 || n > maxNumber) {
		p.FailAt(at, fmt.Errorf("no number from 0 to %d", maxNumber))
		return 0
	}
	return int(n)
}

// digest reads a digest that began at an offset, in lower case.
func (p parser) digest(at int64, text string) digest.Digest {
	d, err := digest.Parse(text)
	if err == nil && d.String() != text {
		err = fmt.Errorf("%q is not how %s is written", text, d)
	}
	if p.Err() == nil && err != nil {
		p.FailAt(at, err)
	}
	return d
}

// Replay is the value that a PCR has after what IMA's log has for it, ima (the
// bank's hashes of the entries' template data, in order), and these records, in
// the order in which it happened. It starts at a value that says which bank.
func Replay(start digest.Digest, ima []digest.Digest, records []Record) (digest.Digest, error) {
	done := 0
	value := start
	for _, r := range records {
		if r.Content.After < done || r.Content.After > len(ima) {
			return value, fmt.Errorf("record %d comes after %d entries of IMA's log: %d were before, of %d", r.Number, r.Content.After, done, len(ima))
		}
		for ; done < r.Content.After; done++ {
			value = extend(value, ima[done])
		}
		value = extend(value, digest.Sum(start.Algorithm(), r.Content.Text()))
	}
	for _, d := range ima[done:] {
		value = extend(value, d)
	}
	return value, nil
}
