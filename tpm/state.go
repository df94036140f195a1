package tpm

import (
	"fmt"
	"time"
)

// A State is how far a TPM has come when it quotes (TPMS_CLOCK_INFO, Part 2
// section 10.11.1, and firmwareVersion). Only a verified quote's is true.
//
// A TPM adds a constant of its own to the counters and the firmware version
// when it signs with a key outside of the endorsement and platform hierarchies
// (Part 1 section 36.7). So counters are compared by their difference only.
type State struct {
	Clock        uint64 // milliseconds since TPM2_Clear in which the TPM had power
	ResetCount   uint32 // TPM resets since TPM2_Clear
	RestartCount uint32 // restarts and resumes since the last reset
	Safe         bool   // whether no later Clock was ever reported
	Firmware     uint64 // vendor's firmware version
}

// A Change is what must have happened to a TPM between two of its states.
type Change int

// The changes. All but WentBack happen to honest machines.
const (
	WentBack  Change = iota // no TPM does that: an old state was restored
	Continued               // nothing happened
	Resumed                 // suspended and resumed, or restarted in order
	Rebooted                // one or more resets
	PowerLost               // resets, and Clock lost what was not saved
	Cleared                 // TPM2_Clear: all counters started over
)

var changes = [...]string{"went back", "continued", "resumed", "rebooted", "lost power", "was cleared"}

func (c Change) String() string {
	if c < 0 || int(c) >= len(changes) {
		return fmt.Sprintf("change(%d)", int(c))
	}
	return changes[c]
}

const (
	// clockSaved is within how many milliseconds a TPM saves its Clock (Part 1
	// section 36.3.1): so much may be lost with the power.
	clockSaved = 1 << 22

	// fastestClock is how fast TPM2_ClockRateAdjust can make a Clock run (Part 1
	// section 36.2).
	fastestClock = 1.15
)

// Since says what must have happened since the last state, which was seen the
// given time ago.
//
// A TPM that goes back is one that was cleared, or one in software that was
// put back to an old state. Clear sets the counters and Clock to zero. So a TPM
// that has not been reset since shows no resets and no restarts; later it shows
// no more time than has passed. An old state that happens to look like that is
// not told apart.
func (s State) Since(last State, ago time.Duration) Change {
	resets, restarts := int32(s.ResetCount-last.ResetCount), int32(s.RestartCount-last.RestartCount)
	later := resets > 0 || resets == 0 && restarts > 0
	behind := s.Clock < last.Clock
	switch {
	case resets > 0 && !behind:
		return Rebooted
	case later && !behind:
		return Resumed
	case later && !s.Safe && last.Clock-s.Clock <= clockSaved:
		return PowerLost
	case resets == 0 && restarts == 0 && !behind:
		return Continued
	case behind && s.Safe && s.ResetCount == 0 && s.RestartCount == 0,
		float64(s.Clock) <= fastestClock*float64(ago.Milliseconds()):
		return Cleared
	}
	return WentBack
}
