package policy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"diglim/internal/digest"
	"diglim/tpm"
	"diglim/tpm/eventlog"
)

const (
	version  = "1"
	maxFile  = 4 << 20 // bytes of a policy file
	maxWords = 64      // in a statement
)

// A File is what a policy file says: a policy, but for the known files, and
// where those come from. Paths are as they stand in it.
//
// A policy file is UTF-8 text of one statement a line: a keyword, then words
// with blanks between. A word with blanks in it stands in double quotes, as in
// Go; # begins a comment. The first statement is "policy 1". docs/formats
// describes the statements.
type File struct {
	Policy

	AK            string   // of the host's attestation key
	Lists         []string // directories of digest lists
	Keyrings      []string // files and directories of the keys that sign them
	SigningKeys   []string // files of the keys that sign files
	IMAPolicies   []string // files
	AllowUnsigned bool     // believe lists that nobody signed
	AllowWeak     bool     // believe signatures over MD5 and SHA-1
	Files         []Rule   // known besides what the lists say
	UKIs          []string // files of unified kernel images that may be started
	BootLoaders   []string // files of other UEFI programs that may be started
	GRUBs         []string // files of GRUB
	KernelFiles   []string // files of kernels that GRUB may start
	Initramfses   []string // files of initramfs
}

// A Rule makes a file known that no package has.
type Rule struct {
	Digest digest.Digest
	Path   string // the only one at which it is known; empty: any
	Reason string
}

// Source is what a verdict says of a file that the rule makes known.
func (r Rule) Source() Source {
	return Source{Path: r.Path, Reason: r.Reason, There: r.Path != ""}
}

// ParseFile reads a policy file. An error names the line. What a file does not
// say keeps its zero value, which is the strictest; so a file that says nothing
// rejects every host.
func ParseFile(b []byte) (*File, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(b), maxFile)
	}
	p := parser{file: &File{Policy: Policy{Denied: map[digest.Digest]string{}, Events: map[Event]string{}, Initrds: map[digest.Digest]string{}, Started: map[digest.Digest]string{},
		GRUB: map[digest.Digest]bool{}, Kernels: map[digest.Digest]string{}}}, said: map[string]int{}}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		if err := p.line(n, line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if len(p.said) == 0 {
		return nil, fmt.Errorf("line %d: no statement; the first is \"policy %s\"", max(n, 1), version)
	}
	if f := p.file; p.said["ima"] > 0 && slices.Contains(f.Policy.Firmware, f.PCR) {
		return nil, fmt.Errorf("line %d: firmware-log: PCR %d is what IMA extends: no firmware's log explains it", p.said["firmware-log"], f.PCR)
	}
	return p.file, nil
}

type parser struct {
	file *File
	said map[string]int // line of a statement that may be there once
}

// A word of a statement. A reason must have been quoted.
type word struct {
	text   string
	quoted bool
}

func (p *parser) line(n int, line []byte) error {
	if !utf8.Valid(line) || bytes.ContainsRune(line, 0) {
		return errors.New("not UTF-8 text")
	}
	words, err := split(string(line))
	if err != nil || len(words) == 0 {
		return err
	}
	keyword, args := words[0].text, words[1:]
	s, ok := statements[keyword]
	switch {
	case !ok || words[0].quoted:
		return fmt.Errorf("no statement is called %q", keyword)
	case len(p.said) == 0 && keyword != "policy":
		return fmt.Errorf("%q before \"policy %s\"", keyword, version)
	case s.once && p.said[keyword] > 0:
		return fmt.Errorf("%q a second time, after line %d", keyword, p.said[keyword])
	case len(args) < s.least || s.most > 0 && len(args) > s.most:
		return fmt.Errorf("%s: write %s %s", keyword, keyword, s.form)
	}
	p.said[keyword] = n
	if err := s.read(p.file, args); err != nil {
		return fmt.Errorf("%s: %w", keyword, err)
	}
	return nil
}

// split takes a line apart into words.
func split(line string) (words []word, err error) {
	for {
		line = strings.TrimLeft(line, " \t\r\n")
		if line == "" || line[0] == '#' {
			return words, nil
		}
		if len(words) == maxWords {
			return nil, fmt.Errorf("more than %d words", maxWords)
		}
		if line[0] != '"' {
			end := strings.IndexAny(line, " \t\r\n\"")
			if end < 0 {
				end = len(line)
			}
			if line[end:] != "" && line[end] == '"' {
				return nil, fmt.Errorf("a quote inside of the word %q", line[:end])
			}
			words, line = append(words, word{text: line[:end]}), line[end:]
			continue
		}
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			return nil, errors.New("no quote ends the word that one begins")
		}
		text, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, err
		}
		words, line = append(words, word{text, true}), line[len(quoted):]
		if line != "" && !strings.ContainsRune(" \t\r\n#", rune(line[0])) {
			return nil, errors.New("no blank after a word in quotes")
		}
	}
}

// A statement says how often and with what a keyword stands.
type statement struct {
	form        string // for errors
	least, most int    // words after the keyword; most 0 is no limit
	once        bool
	read        func(f *File, args []word) error
}

var statements = map[string]statement{
	"policy":              {version, 1, 1, true, readVersion},
	"ima":                 {"BANK:PCR", 1, 1, true, readIMA},
	"ak":                  {"FILE", 1, 1, true, func(f *File, args []word) error { return readPath(&f.AK, args[0]) }},
	"lists":               {"DIRECTORY", 1, 1, false, func(f *File, args []word) error { return appendPath(&f.Lists, args[0]) }},
	"keyring":             {"FILE|DIRECTORY", 1, 1, false, func(f *File, args []word) error { return appendPath(&f.Keyrings, args[0]) }},
	"signing-key":         {"FILE", 1, 1, false, func(f *File, args []word) error { return appendPath(&f.SigningKeys, args[0]) }},
	"ima-policy":          {"FILE", 1, 1, false, func(f *File, args []word) error { return appendPath(&f.IMAPolicies, args[0]) }},
	"quoted":              {"BANK:PCRS", 1, 1, false, func(f *File, args []word) error { return appendPCRs(&f.Quoted, args[0]) }},
	"extended":            {"BANK:PCRS", 1, 1, false, func(f *File, args []word) error { return appendPCRs(&f.Extended, args[0]) }},
	"pcr":                 {`BANK:PCR HEX... ["REASON"]`, 2, 0, false, readExpectation},
	"file":                {`DIGEST [at PATH] "REASON"`, 2, 4, false, readFile},
	"deny":                {`DIGEST "REASON"`, 2, 2, false, readDeny},
	"event":               {`TYPE PCR "REASON"`, 3, 3, false, readEvent},
	"uki":                 {"FILE", 1, 1, false, func(f *File, args []word) error { return appendPath(&f.UKIs, args[0]) }},
	"boot-loader":         {`FILE|DIGEST "REASON"`, 1, 2, false, readBootLoader},
	"grub":                {`FILE|DIGEST "REASON"`, 1, 2, false, readGRUB},
	"grub-command":        {`"TEXT"`, 1, 1, false, func(f *File, args []word) error { return f.Commands.Add(args[0].text) }},
	"kernel":              {`FILE|DIGEST "REASON"`, 1, 2, false, readKernel},
	"initramfs":           {`FILE|DIGEST "REASON"`, 1, 2, false, readInitrd},
	"serial":              {"NUMBER", 1, 1, true, readSerial},
	"valid-from":          {"YYYY-MM-DD", 1, 1, true, func(f *File, args []word) error { return readDay(&f.From, args[0], 0) }},
	"valid-until":         {"YYYY-MM-DD", 1, 1, true, func(f *File, args []word) error { return readDay(&f.Until, args[0], 1) }},
	"tpm-firmware":        {"at-least VERSION", 2, 2, true, readFirmware},
	"firmware-log":        {"PCRS", 1, 1, true, readFirmwareLog},
	"kernel-command-line": {`"TEXT"`, 1, 1, false, readCommandLine},
	"padded":              choice("report", "deny", func(f *File) *bool { return &f.ReportPadded }),
	"unsigned-lists":      choice("accept", "deny", func(f *File) *bool { return &f.AllowUnsigned }),
	"weak-signatures":     choice("accept", "deny", func(f *File) *bool { return &f.AllowWeak }),
	"violations":          choice("report", "deny", func(f *File) *bool { return &f.ReportViolations }),
	"unknown-files":       choice("report", "deny", func(f *File) *bool { return &f.ReportUnknown }),
	"secure-boot":         choice("required", "any", func(f *File) *bool { return &f.SecureBoot }),
	"ak-attributes":       choice("required", "any", func(f *File) *bool { return &f.NamedKey }),
}

// choice is a statement of one of two words.
func choice(yes, no string, field func(*File) *bool) statement {
	return statement{yes + "|" + no, 1, 1, true, func(f *File, args []word) error {
		switch args[0].text {
		case yes:
			*field(f) = true
		case no:
		default:
			return fmt.Errorf("%q is neither %s nor %s", args[0].text, yes, no)
		}
		return nil
	}}
}

func readVersion(_ *File, args []word) error {
	if args[0].text != version {
		return fmt.Errorf("version %q is not known, %s is", args[0].text, version)
	}
	return nil
}

func readIMA(f *File, args []word) error {
	pcrs, err := parsePCRs(args[0].text)
	if err != nil {
		return err
	}
	if len(pcrs) != 1 {
		return fmt.Errorf("%d PCRs, must be one", len(pcrs))
	}
	f.Bank, f.PCR = pcrs[0].Bank, pcrs[0].Index
	return nil
}

func readPath(to *string, w word) error {
	if w.text == "" {
		return errors.New("empty path")
	}
	*to = w.text
	return nil
}

func appendPath(to *[]string, w word) error {
	var path string
	err := readPath(&path, w)
	*to = append(*to, path)
	return err
}

func appendPCRs(to *[]tpm.PCR, w word) error {
	pcrs, err := parsePCRs(w.text)
	for _, p := range pcrs {
		if slices.Contains(*to, p) {
			return fmt.Errorf("%s a second time", p)
		}
	}
	*to = append(*to, pcrs...)
	return err
}

func readExpectation(f *File, args []word) error {
	pcrs, err := parsePCRs(args[0].text)
	if err != nil {
		return err
	}
	if len(pcrs) != 1 {
		return fmt.Errorf("%d PCRs, must be one", len(pcrs))
	}
	x := Expectation{PCR: pcrs[0]}
	if slices.ContainsFunc(f.Expected, func(y Expectation) bool { return y.PCR == x.PCR }) {
		return fmt.Errorf("%s a second time; all its values stand in one statement", x.PCR)
	}
	values := args[1:]
	if last := values[len(values)-1]; last.quoted {
		x.Reason, values = last.text, values[:len(values)-1]
	}
	for _, v := range values {
		d, err := digest.FromHex(x.PCR.Bank, []byte(v.text))
		if err != nil {
			return err
		}
		x.Values = append(x.Values, d)
	}
	if len(x.Values) == 0 {
		return errors.New("no value")
	}
	f.Expected = append(f.Expected, x)
	return nil
}

func readFile(f *File, args []word) error {
	d, reason, err := digestAndReason(args)
	if err != nil {
		return err
	}
	r := Rule{Digest: d, Reason: reason}
	if between := args[1 : len(args)-1]; len(between) > 0 {
		if len(between) != 2 || between[0].text != "at" || between[1].text == "" {
			return errors.New("between digest and reason there may only be: at PATH")
		}
		r.Path = between[1].text
	}
	f.Files = append(f.Files, r)
	return nil
}

func readDeny(f *File, args []word) error {
	d, reason, err := digestAndReason(args)
	if err == nil {
		f.Denied[d] = reason
	}
	return err
}

func readInitrd(f *File, args []word) error {
	return fileOrDigest(args, &f.Initramfses, func(d digest.Digest, reason string) { f.Initrds[d] = reason })
}

func readBootLoader(f *File, args []word) error {
	return fileOrDigest(args, &f.BootLoaders, func(d digest.Digest, reason string) { f.Started[d] = reason })
}

func readGRUB(f *File, args []word) error {
	return fileOrDigest(args, &f.GRUBs, f.StartGRUB)
}

func readKernel(f *File, args []word) error {
	return fileOrDigest(args, &f.KernelFiles, f.StartKernel)
}

// StartGRUB lets a digest be that of a GRUB that is started.
func (p *Policy) StartGRUB(d digest.Digest, reason string) {
	p.Started[d], p.GRUB[d] = reason, true
}

// StartKernel lets a digest be that of a kernel that GRUB reads and starts.
func (p *Policy) StartKernel(d digest.Digest, reason string) {
	p.Started[d], p.Kernels[d] = reason, reason
}

// fileOrDigest reads the path of a file or, with a reason, a digest.
func fileOrDigest(args []word, paths *[]string, known func(digest.Digest, string)) error {
	if _, err := digest.Parse(args[0].text); err != nil && len(args) == 1 {
		return appendPath(paths, args[0])
	}
	d, reason, err := digestAndReason(args)
	if err == nil {
		known(d, reason)
	}
	return err
}

func readCommandLine(f *File, args []word) error {
	line := args[0].text
	if line == "" || strings.TrimSpace(line) != line || slices.Contains(f.CommandLines, line) {
		return fmt.Errorf("%q is empty, has blanks at an end, or stands there a second time", line)
	}
	f.CommandLines = append(f.CommandLines, line)
	return nil
}

func readEvent(f *File, args []word) error {
	number, err := strconv.ParseUint(args[0].text, 0, 32)
	if err != nil {
		return fmt.Errorf("type %q is no number of 32 bits", args[0].text)
	}
	if t := eventlog.Type(number); t.Known() {
		return fmt.Errorf("%s needs no statement: the specification has it", t)
	}
	pcrs, err := tpm.ParseIndices(args[1].text)
	if err != nil {
		return err
	}
	if len(pcrs) != 1 {
		return fmt.Errorf("%d PCRs, must be one", len(pcrs))
	}
	why, err := reason(args)
	if err != nil {
		return err
	}
	e := Event{PCR: pcrs[0], Type: eventlog.Type(number)}
	if _, ok := f.Events[e]; ok {
		return fmt.Errorf("%s on PCR %d a second time", e.Type, e.PCR)
	}
	f.Events[e] = why
	return nil
}

// digestAndReason are the first word of a statement and the last.
func digestAndReason(args []word) (digest.Digest, string, error) {
	d, err := digest.Parse(args[0].text)
	if err != nil {
		return d, "", err
	}
	why, err := reason(args)
	return d, why, err
}

// reason is the last word of a statement.
func reason(args []word) (string, error) {
	last := args[len(args)-1]
	if !last.quoted || strings.TrimSpace(last.text) == "" {
		return "", errors.New("it ends with a reason, in quotes")
	}
	return last.text, nil
}

func readFirmware(f *File, args []word) (err error) {
	if args[0].text != "at-least" {
		return fmt.Errorf("%q is not at-least", args[0].text)
	}
	if f.MinFirmware, err = strconv.ParseUint(args[1].text, 0, 64); err != nil {
		return fmt.Errorf("version %q is no number of at most 64 bits", args[1].text)
	}
	return nil
}

func readFirmwareLog(f *File, args []word) (err error) {
	f.Policy.Firmware, err = tpm.ParseIndices(args[0].text)
	return err
}

func readSerial(f *File, args []word) (err error) {
	if f.Serial, err = strconv.ParseUint(args[0].text, 10, 64); err != nil || f.Serial == 0 {
		return fmt.Errorf("%q is no number from 1 on, of at most 64 bits", args[0].text)
	}
	return nil
}

// readDay reads a day in UTC, and adds days to its beginning.
func readDay(to *time.Time, w word, days int) error {
	day, err := time.Parse(time.DateOnly, w.text)
	if err != nil {
		return fmt.Errorf("%q is no day like 2026-12-31", w.text)
	}
	*to = day.AddDate(0, 0, days)
	return nil
}

// parsePCRs reads "sha256:0-7,10".
func parsePCRs(text string) ([]tpm.PCR, error) {
	name, list, ok := strings.Cut(text, ":")
	if !ok {
		return nil, fmt.Errorf("%q is not BANK:PCRS", text)
	}
	bank, err := digest.ByName(name)
	if err != nil {
		return nil, err
	}
	if _, ok := bank.TPM(); !ok || !bank.Available() {
		return nil, fmt.Errorf("no TPM has a bank of %s that could be judged", bank)
	}
	indices, err := tpm.ParseIndices(list)
	if err != nil {
		return nil, err
	}
	var pcrs []tpm.PCR
	for _, i := range indices {
		pcrs = append(pcrs, tpm.PCR{Bank: bank, Index: i})
	}
	return pcrs, nil
}
