package attest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"diglim/internal/digest"
	"diglim/tpm"
)

// A Challenge is what the verifier knows by itself. Neither may come with the
// evidence: a nonce proves freshness only to who chose it, and a key whose it
// is only to who enrolled it.
type Challenge struct {
	Nonce []byte
	AK    []byte // public key, in a form that tpm.ParsePublic reads

	Last *Seen     // what the TPM was last seen to be; nil if never
	Now  time.Time // of the judgement, by the clock that Last was seen by

	// Checkpoint is that of the last verdict about this host, if there is one.
	Checkpoint *Checkpoint
}

// Seen is what a verified quote said of its TPM, to be kept for the next time.
type Seen struct {
	AK     digest.Digest // tpm.Key.ID
	At     time.Time
	Policy uint64 // serial of the policy that it was judged by
	tpm.State
}

// TPM is what a verified quote says of its TPM.
type TPM struct {
	Quoted    bool   `json:"quote_verified"` // without it the rest is empty
	Clock     uint64 `json:"clock_ms"`
	Safe      bool   `json:"clock_safe"`
	Resets    uint32 `json:"reset_count"`
	Restarts  uint32 `json:"restart_count"`
	Version   string `json:"firmware_version,omitempty"` // 0x and hexadecimal digits: it does not fit a JSON number
	Name      string `json:"ak_name,omitempty"`          // hexadecimal; none if the key came without public area
	SinceLast string `json:"since_last,omitempty"`       // tpm.Change, if a last state was known
}

// Findings about the quote.
const (
	NotAQuote            Code = "not-a-quote"
	WeakAlgorithm        Code = "algorithm-not-accepted"
	KeyNotSuitable       Code = "ak-not-suitable"
	KeyAttributesUnknown Code = "ak-attributes-unknown"
	BadSignature         Code = "bad-signature"
	WrongNonce           Code = "wrong-nonce"
	OtherPCRs            Code = "pcr-selection-differs"
	WrongPCRs            Code = "pcr-values-differ"
	UnexpectedPCR        Code = "pcr-not-expected"
	BootNotMeasured      Code = "boot-not-measured"
)

// Findings about the policy.
const (
	PolicyNotValid Code = "policy-not-valid"
	PolicyWentBack Code = "policy-went-back"
)

// Findings about the TPM.
const (
	TPMWentBack      Code = "tpm-went-back"
	TPMCleared       Code = "tpm-cleared"
	LastOfAnotherKey Code = "last-of-another-ak"
	FirmwareTooOld   Code = "firmware-too-old"
	FirmwareWentBack Code = "firmware-went-back"
)

// quote verifies the quote and fills pcrs if all of it is right.
func (j *judge) quote(ev Evidence, ch Challenge) {
	if len(ch.Nonce) == 0 {
		j.find(Finding{Code: NoNonce, Leaves: CouldNotTell, Why: "no nonce given: nothing says that the evidence is fresh"})
	}
	ak := ch.AK
	if len(ak) == 0 {
		j.find(Finding{Code: NoKey, Leaves: CouldNotTell, Why: "no AK given: nothing says whose evidence it is"})
		ak = ev.AK
	}
	var key *tpm.Key
	var err error
	if len(ak) > 0 {
		key, err = tpm.ParsePublic(ak)
		j.refused(err)
	}
	for _, part := range []struct {
		name  string
		bytes []byte
	}{{"quote", ev.Quote}, {"signature", ev.Signature}, {"PCR values", ev.PCRs}} {
		if len(part.bytes) == 0 {
			j.find(Finding{Code: Missing, Leaves: CouldNotTell, Why: part.name + " missing"})
		}
	}
	var q *tpm.Quote
	var sig *tpm.Signature
	var values tpm.Values
	if len(ev.Quote) > 0 {
		q, err = tpm.ParseQuote(ev.Quote)
		j.refused(err)
	}
	if len(ev.Signature) > 0 {
		sig, err = tpm.ParseSignature(ev.Signature)
		j.refused(err)
	}
	if len(ev.PCRs) > 0 && q != nil {
		values, err = tpm.ParseValues(ev.PCRs, q.Selection)
		j.refused(err)
	}
	// A missing log does not keep the quote from being verified.
	if q == nil || sig == nil || values == nil || key == nil || len(ch.Nonce) == 0 {
		return
	}
	if j.pcrs, err = q.Verify(sig, key, ch.Nonce, values); err != nil {
		j.refused(err)
		return
	}
	j.ak = key.ID()
	j.checkpoint(q.ResetCount)
	j.verdict.TPM = TPM{
		Quoted:   true,
		Clock:    q.Clock,
		Safe:     q.Safe,
		Resets:   q.ResetCount,
		Restarts: q.RestartCount,
		Version:  fmt.Sprintf("%#016x", q.Firmware),
		Name:     hex.EncodeToString(key.Name()),
	}
	j.boot()
	j.image()
	j.machine(q.State)
	if len(ch.AK) > 0 {
		j.enrolled(key)
		j.since(ch, Seen{AK: key.ID(), At: ch.Now, Policy: j.policy.Serial, State: q.State})
	}
}

// checkpoint drops the checkpoint if it is not about this PCR in this boot. One
// that is not of this host is somebody's mistake, or worse.
func (j *judge) checkpoint(resets uint32) {
	switch c := j.last; {
	case c == nil:
	case c.AK != j.ak:
		j.last = nil
		j.find(Finding{Code: NotItsOwn, Leaves: CouldNotTell, Digest: j.ak, Expected: c.AK, Why: "the checkpoint is that of another attestation key"})
	case c.Resets != resets || c.Value.Algorithm() != j.policy.Bank || c.PCR != j.policy.PCR:
		j.last = nil
	}
}

// current judges the policy itself: one that is out of date lets pass what a
// later one would not.
func (j *judge) current(ch Challenge) {
	if !j.policy.ValidAt(ch.Now) {
		j.find(Finding{Code: PolicyNotValid, Leaves: CouldNotTell, Why: "the policy is not valid at " + ch.Now.Format(time.RFC3339)})
	}
	if ch.Last != nil && j.policy.Serial < ch.Last.Policy {
		j.find(Finding{Code: PolicyWentBack, Leaves: CouldNotTell,
			Why: fmt.Sprintf("the policy has serial %d, the host was last judged by serial %d", j.policy.Serial, ch.Last.Policy)})
	}
}

// boot judges the quoted PCRs by what the policy says of them.
func (j *judge) boot() {
	notQuoted := func(p tpm.PCR) {
		j.find(Finding{Code: PCRNotQuoted, Leaves: CouldNotTell, Why: p.String() + " is not quoted"})
	}
	for _, p := range j.policy.Quoted {
		if _, ok := j.pcrs.Value(p.Bank, p.Index); !ok {
			notQuoted(p)
		}
	}
	for _, p := range j.policy.Extended {
		switch v, ok := j.pcrs.Value(p.Bank, p.Index); {
		case !ok:
			notQuoted(p)
		case NeverExtended(v):
			j.find(Finding{Code: BootNotMeasured, Leaves: NotTrusted, Digest: v,
				Why: p.String() + " was never extended: the firmware did not measure the boot into it, so that anybody could have"})
		}
	}
	for _, x := range j.policy.Expected {
		switch v, ok := j.pcrs.Value(x.PCR.Bank, x.PCR.Index); {
		case !ok:
			notQuoted(x.PCR)
		case !slices.Contains(x.Values, v):
			f := Finding{Code: UnexpectedPCR, Leaves: NotTrusted, Digest: v, Why: x.PCR.String() + " has none of the values that the policy expects"}
			if len(x.Values) == 1 {
				f.Expected = x.Values[0]
			}
			j.find(f)
		}
	}
}

// NeverExtended reports whether a PCR has a value that it may have at reset: all
// zeros; zeros and the locality of TPM2_Startup, 3 or 4, in PCR 0; or, in those
// of a dynamic launch, all ones.
func NeverExtended(d digest.Digest) bool {
	b := d.Bytes()
	if bytes.Count(b, []byte{0xff}) == len(b) {
		return true
	}
	last := len(b) - 1
	return bytes.Count(b[:last], []byte{0}) == last && (b[last] == 0 || b[last] == 3 || b[last] == 4)
}

// machine judges the TPM itself by what the policy says of it.
func (j *judge) machine(s tpm.State) {
	if s.Firmware < j.policy.MinFirmware {
		j.find(Finding{Code: FirmwareTooOld, Leaves: NotTrusted,
			Why: fmt.Sprintf("the TPM's firmware is %#016x, the policy wants at least %#016x", s.Firmware, j.policy.MinFirmware)})
	}
}

// enrolled judges the key that the verifier kept.
func (j *judge) enrolled(key *tpm.Key) {
	if key.Name() != nil {
		return
	}
	leaves := Trusted
	if j.policy.NamedKey {
		leaves = CouldNotTell
	}
	j.find(Finding{Code: KeyAttributesUnknown, Leaves: leaves,
		Why: "the key was given without its TPM public area: that it signs nothing but what its TPM made is the word of whoever enrolled it"})
}

// since judges the TPM's counters by the last ones known.
func (j *judge) since(ch Challenge, now Seen) {
	if ch.Last == nil {
		j.verdict.Seen = &now
		return
	}
	last := *ch.Last
	if last.AK != now.AK {
		j.find(Finding{Code: LastOfAnotherKey, Leaves: CouldNotTell, Digest: now.AK, Expected: last.AK,
			Why: "the last state known is that of another attestation key"})
		return
	}
	change := now.State.Since(last.State, now.At.Sub(last.At))
	j.verdict.SinceLast = change.String()
	if change == tpm.Cleared {
		j.find(Finding{Code: TPMCleared, Leaves: Trusted, Why: "the TPM was cleared since it was last seen: its counters started over"})
	}
	back := now.Policy < last.Policy // found by current
	if change == tpm.WentBack {
		back = true
		j.find(Finding{Code: TPMWentBack, Leaves: NotTrusted,
			Why: fmt.Sprintf("the TPM went back, from %s to %s: old evidence, or a TPM in software that was put back to an old state", counters(last.State), counters(now.State))})
	}
	if int64(now.Firmware-last.Firmware) < 0 { // the TPM may have added a constant to both
		back = true
		j.find(Finding{Code: FirmwareWentBack, Leaves: NotTrusted,
			Why: fmt.Sprintf("the TPM's firmware went back from %#016x to %#016x", last.Firmware, now.Firmware)})
	}
	if !back {
		j.verdict.Seen = &now
	}
}

func counters(s tpm.State) string {
	return fmt.Sprintf("reset %d, restart %d, clock %d ms", s.ResetCount, s.RestartCount, s.Clock)
}

// refused turns an error of package tpm into a finding.
func (j *judge) refused(err error) {
	if err == nil {
		return
	}
	for _, c := range []struct {
		err    error
		code   Code
		leaves Outcome
	}{
		{tpm.ErrNotQuote, NotAQuote, NotTrusted},
		{tpm.ErrAlgorithm, WeakAlgorithm, NotTrusted},
		{tpm.ErrKey, KeyNotSuitable, NotTrusted},
		{tpm.ErrSignature, BadSignature, NotTrusted},
		{tpm.ErrNonce, WrongNonce, NotTrusted},
		{tpm.ErrSelection, OtherPCRs, NotTrusted},
		{tpm.ErrPCRDigest, WrongPCRs, NotTrusted},
		{tpm.ErrMalformed, Malformed, CouldNotTell},
	} {
		if errors.Is(err, c.err) {
			j.find(Finding{Code: c.code, Leaves: c.leaves, Why: err.Error()})
			return
		}
	}
	j.find(Finding{Code: Malformed, Leaves: CouldNotTell, Why: err.Error()})
}
