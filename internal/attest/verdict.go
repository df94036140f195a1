package attest

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"diglim/internal/digest"
	"diglim/internal/policy"
)

// An Outcome is one of three answers. The zero Outcome is NotTrusted.
type Outcome int

// The outcomes, from worst to best.
const (
	NotTrusted   Outcome = iota // something was refused
	CouldNotTell                // something is missing or cannot be read
	Trusted
)

func (o Outcome) String() string {
	switch o {
	case Trusted:
		return "trusted"
	case CouldNotTell:
		return "could not tell"
	}
	return "not trusted"
}

// MarshalText is String, for JSON.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// A Verdict is what Judge has to say. The zero Verdict is not trusted.
type Verdict struct {
	Outcome  Outcome    `json:"outcome"`
	Findings []Finding  `json:"findings"` // all of them, in the order of the log
	Known    []Measured `json:"known"`    // proven entries whose file is known
	Unproven []Measured `json:"unproven"` // entries that the quote does not cover

	Log        LogState `json:"log,omitempty"` // how log and quote go together; none if that cannot be told
	Omitted    Omitted  `json:"omitted"`       // what is counted and not listed, because of MaxKept
	Entries    int      `json:"entries"`       // in the log
	Proven     int      `json:"proven"`        // covered by the quote
	Violations int      `json:"violations"`    // among the proven

	Firmware []Register  `json:"firmware"`         // PCRs that the firmware's log explains, of those that it has to
	Stated   []Statement `json:"stated"`           // what these logs say, proven, of PCRs from 8 on
	Booted   *Booted     `json:"booted,omitempty"` // if the policy names images

	// Checkpoint is for the next challenge; only of a trusted host.
	Checkpoint *Checkpoint `json:"checkpoint,omitempty"`

	TPM

	// Seen is what to give as Challenge.Last the next time; nil if the quote
	// was not verified with the verifier's own key, or if the TPM went back.
	Seen *Seen `json:"-"`
}

// A Checkpoint is how far a host's log was proven. The verifier keeps it, and
// guards it as it guards the key: what came before it is not judged again. It
// is good for one key, one boot, and one PCR of one bank, which is the
// algorithm of Value.
type Checkpoint struct {
	AK      digest.Digest `json:"ak"`          // tpm.Key.ID of the host's attestation key
	Resets  uint32        `json:"reset_count"` // of the TPM: it counts boots
	PCR     int           `json:"pcr"`
	Value   digest.Digest `json:"value"`   // of the PCR
	Entries int           `json:"entries"` // that made the value, from the boot
	Last    digest.Digest `json:"last"`    // of the last one's template data, by the bank's hash
	Seen    int           `json:"seen"`    // entries that the log had, proven or not
}

// MaxKept is how much of findings, known and unproven entries a verdict lists,
// in bytes as this package counts them; the rest is judged all the same.
const MaxKept = 8 << 20

// Omitted counts what a verdict does not list.
type Omitted struct {
	Findings int `json:"findings"`
	Known    int `json:"known"`
	Unproven int `json:"unproven"`
}

// A LogState is how the log and the quote go together.
type LogState string

// The states of a log. The first two are those of an honest host, whose log is
// read after its quote.
const (
	UpToQuote    LogState = "up to the quote"    // all of it is proven
	AheadOfQuote LogState = "ahead of the quote" // it goes on after what is proven
	BehindQuote  LogState = "behind the quote"   // it begins with the boot and does not arrive
	Trimmed      LogState = "trimmed"            // it begins after the boot
	Tampered     LogState = "tampered"           // an entry is not what was hashed
)

// why explains a log that does not arrive at the quoted value.
func (s LogState) why() string {
	switch s {
	case Tampered:
		return "it was tampered with, an entry is not what was hashed"
	case Trimmed:
		return "it was trimmed, its first entry is not that of the boot"
	}
	return "it is behind the quote, or entries were removed or changed and hashed anew"
}

// A Finding is a fact that stands between a host and trust, or one that the
// reader should know.
type Finding struct {
	Code     Code    `json:"code"`
	Leaves   Outcome `json:"leaves"`             // the best outcome that is possible with it
	Unproven bool    `json:"unproven,omitempty"` // about an entry that the quote does not cover

	Entry  int           `json:"entry,omitempty"`  // number in the log, from 1; 0 if it is about no entry
	Event  int           `json:"event,omitempty"`  // the same for the firmware's log
	Record int           `json:"record,omitempty"` // the same for diglim's log
	Path   Path          `json:"path,omitempty"`
	Digest digest.Digest `json:"digest,omitzero"` // as found

	Expected digest.Digest `json:"expected,omitzero"`  // where there is one value
	Packaged []Packaged    `json:"packaged,omitempty"` // what known packages have at Path

	Why string `json:"why"`
}

// Packaged is a file as a package has it.
type Packaged struct {
	Digest digest.Digest `json:"digest"`
	policy.Source
}

// A Register is a PCR whose quoted value a log explains.
type Register struct {
	PCR     int           `json:"pcr"`
	Value   digest.Digest `json:"value"`
	Events  int           `json:"events"`
	Records int           `json:"records,omitempty"` // of the running system's logs, after the events
}

// Measured is an entry about a file.
type Measured struct {
	Entry   int             `json:"entry"`
	Path    Path            `json:"path"`
	Digest  digest.Digest   `json:"digest"`
	Sources []policy.Source `json:"sources"` // at most MaxSources; none if the file is not known
}

// MaxSources is how many sources of a file a verdict names: some files, the
// empty one above all, are in every other package.
const MaxSources = 5

// A Code names a kind of finding. Codes are stable.
type Code string

// Findings about what was asked, and with what.
const (
	PolicyRejects Code = "policy-rejects-all"
	NoNonce       Code = "no-nonce"
	NoKey         Code = "no-ak"
	Missing       Code = "evidence-missing"
	Malformed     Code = "evidence-malformed"
)

// Findings about the log as a whole.
const (
	PCRNotQuoted    Code = "pcr-not-quoted"
	NotExtended     Code = "pcr-not-extended"
	DoesNotReplay   Code = "log-does-not-replay"
	SecondPCR       Code = "entries-on-another-pcr"
	NoAggregate     Code = "boot-aggregate-missing"
	NothingMeasured Code = "nothing-measured"
	NoIMAPolicy     Code = "ima-policy-missing"
	TextLog         Code = "log-in-text"
	PaddedSHA1      Code = "padded-sha1"
	Continued       Code = "log-continued"
	NotProgressed   Code = "tail-still-unproven"
	NotTheLast      Code = "log-differs-from-last"
	NotItsOwn       Code = "checkpoint-of-another-ak"
)

// Findings about the firmware's log.
const (
	FirmwareDiffers Code = "firmware-log-does-not-replay"
	FirmwareBank    Code = "firmware-log-lacks-bank"
	UnknownEvent    Code = "unknown-event"
	LateEvent       Code = "late-event"
	NoSecureBoot    Code = "secure-boot-off"
	SecureBootState Code = "secure-boot-unclear"

	SystemLogDiffers   Code = "system-log-does-not-replay"
	UnexpectedImage    Code = "kernel-image-not-expected"
	OtherBootLoader    Code = "boot-loader-not-expected"
	OtherCommandLine   Code = "command-line-differs"
	CommandLineUnclear Code = "command-line-unclear"
	OtherInitrd        Code = "initramfs-differs"
	OtherCommand       Code = "grub-command-not-expected"
	OtherBootFile      Code = "grub-file-not-expected"
	GRUBUnclear        Code = "grub-unclear"
)

// Findings about an entry.
const (
	WrongAggregate  Code = "boot-aggregate-differs"
	NoAggregatePCRs Code = "boot-aggregate-not-quoted"
	WrongHash       Code = "template-hash-differs"
	UnknownTemplate Code = "unknown-template"
	UnknownFile     Code = "unknown-file"
	UnknownKey      Code = "unknown-key"
	WrongIMAPolicy  Code = "ima-policy-differs"
	DeniedFile      Code = "denied-file"
	Violation       Code = "violation"
	ViolationData   Code = "violation-with-data"
)

// unknown reports whether it is about something that nobody vouches for.
func (c Code) unknown() bool { return c == UnknownFile || c == UnknownKey }

// A Path is a file's path as the kernel wrote it: any bytes.
type Path string

// String returns the path in a form that is safe to print and that no two
// paths share: \xNN for what is not printable UTF-8, \\ for a backslash.
func (p Path) String() string {
	var b strings.Builder
	for s := string(p); s != ""; {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == utf8.RuneError && n == 1, !unicode.IsPrint(r):
			for _, c := range []byte(s[:n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// MarshalText is String, for JSON.
func (p Path) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
