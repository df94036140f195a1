package tpm_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"diglim/tpm"
)

// machine is a TPM with a clock that people can look at: what happens to it is
// what Part 1 section 36 says happens to a TPM.
type machine struct {
	tpm.State
	now   time.Duration // of the world
	saved uint64        // Clock as it would survive a loss of power
}

func (m *machine) run(d time.Duration) {
	m.now += d
	m.Clock += uint64(d.Milliseconds())
	if m.Clock-m.saved >= 1<<22 {
		m.saved, m.Safe = m.Clock-m.Clock%(1<<22), true
	}
}

func (m *machine) off(d time.Duration) { m.now += d }

func (m *machine) reboot() {
	m.ResetCount, m.RestartCount, m.saved = m.ResetCount+1, 0, m.Clock
}

func (m *machine) suspend() { m.RestartCount, m.saved = m.RestartCount+1, m.Clock }

func (m *machine) losePower() {
	m.ResetCount, m.RestartCount = m.ResetCount+1, 0
	m.Safe = m.Safe && m.Clock == m.saved
	m.Clock = m.saved
}

func (m *machine) clear() {
	m.Clock, m.saved, m.ResetCount, m.RestartCount, m.Safe = 0, 0, 0, 0, true
}

// Row 18: whatever happens to an honest machine, it never goes back.
func TestAttack18HonestSequencesPass(t *testing.T) {
	hours := func(h float64) time.Duration { return time.Duration(h * float64(time.Hour)) }
	for name, c := range map[string]struct {
		happens func(*machine)
		want    tpm.Change
	}{
		"nothing":                   {func(m *machine) {}, tpm.Continued},
		"time":                      {func(m *machine) { m.run(hours(5)) }, tpm.Continued},
		"suspend":                   {func(m *machine) { m.suspend(); m.off(hours(9)); m.run(hours(1)) }, tpm.Resumed},
		"reboot":                    {func(m *machine) { m.reboot(); m.run(hours(0.01)) }, tpm.Rebooted},
		"reboot after suspends":     {func(m *machine) { m.suspend(); m.suspend(); m.reboot() }, tpm.Rebooted},
		"power cut":                 {func(m *machine) { m.losePower(); m.run(time.Second) }, tpm.PowerLost},
		"power cut after hours":     {func(m *machine) { m.run(hours(5)); m.losePower() }, tpm.Rebooted},
		"three power cuts":          {func(m *machine) { m.losePower(); m.losePower(); m.losePower() }, tpm.PowerLost},
		"clear":                     {func(m *machine) { m.off(hours(0.1)); m.clear(); m.run(hours(1)) }, tpm.Cleared},
		"clear, seen at once":       {func(m *machine) { m.clear(); m.Clock = 1000 }, tpm.Cleared},
		"clear, then a long time":   {func(m *machine) { m.clear(); m.run(hours(2000)) }, tpm.Cleared},
		"clear, reboots, power cut": {func(m *machine) { m.clear(); m.reboot(); m.run(hours(1)); m.losePower() }, tpm.Cleared},
		"clear and many reboots":    {func(m *machine) { m.clear(); m.run(hours(1)); m.ResetCount = 99 }, tpm.Cleared},
	} {
		m := &machine{State: tpm.State{Clock: 1000 * 3_600_000, ResetCount: 41, RestartCount: 3, Safe: true}, saved: 1000*3_600_000 - 60_000}
		last, seen := m.State, m.now
		c.happens(m)
		if got := m.Since(last, m.now-seen); got != c.want {
			t.Errorf("%s: %v, want %v (%+v after %+v)", name, got, c.want, m.State, last)
		}
	}
	// A thousand machines live on at random, and are seen after every event.
	random := rand.New(rand.NewPCG(1, 2))
	changes := map[tpm.Change]int{}
	for range 1000 {
		m := &machine{State: tpm.State{ResetCount: random.Uint32(), RestartCount: random.Uint32(), Safe: true}} // counters with a secret constant
		for range 20 {
			last, seen := m.State, m.now
			switch random.IntN(6) {
			case 0:
				m.reboot()
			case 1:
				m.suspend()
			case 2:
				m.losePower()
			case 3:
				m.off(time.Duration(random.Int64N(int64(100 * time.Hour))))
			case 4:
				if random.IntN(10) == 0 {
					m.clear()
				}
			}
			m.run(time.Duration(random.Int64N(int64(200 * time.Hour))))
			change := m.Since(last, m.now-seen)
			if changes[change]++; change == tpm.WentBack {
				t.Fatalf("an honest machine went back: %+v after %+v", m.State, last)
			}
		}
	}
	for c := tpm.Continued; c <= tpm.Cleared; c++ {
		if changes[c] == 0 {
			t.Errorf("no machine %v", c)
		}
	}
}

// Row 17: an old state, and states that no TPM comes to.
func TestAttack17OldStates(t *testing.T) {
	last := tpm.State{Clock: 1000 * 3_600_000, ResetCount: 41, RestartCount: 3, Safe: true}
	const ago = 24 * time.Hour
	for name, change := range map[string]func(*tpm.State){
		"lower clock":                     func(s *tpm.State) { s.Clock-- },
		"lower clock, not safe":           func(s *tpm.State) { s.Clock--; s.Safe = false },
		"fewer resets":                    func(s *tpm.State) { s.ResetCount-- },
		"fewer resets, later clock":       func(s *tpm.State) { s.ResetCount--; s.Clock += 1000 },
		"no resets":                       func(s *tpm.State) { s.ResetCount = 0; s.RestartCount = 0 },
		"fewer restarts":                  func(s *tpm.State) { s.RestartCount-- },
		"an old quote":                    func(s *tpm.State) { s.ResetCount = 40; s.Clock -= 100 * 3_600_000 },
		"reboot, lower clock, yet safe":   func(s *tpm.State) { s.ResetCount++; s.RestartCount = 0; s.Clock -= 1000 },
		"power cut that lost two hours":   func(s *tpm.State) { s.ResetCount++; s.Clock -= 2 * 3_600_000; s.Safe = false },
		"suspend, lower clock, yet safe":  func(s *tpm.State) { s.RestartCount++; s.Clock -= 1000 },
		"cleared, but older than a day":   func(s *tpm.State) { s.ResetCount = 1; s.RestartCount = 0; s.Clock = 30 * 3_600_000 },
		"cleared, and never safe":         func(s *tpm.State) { s.ResetCount, s.RestartCount, s.Clock, s.Safe = 0, 0, 30*3_600_000, false },
		"the greatest clock, fewer reset": func(s *tpm.State) { s.ResetCount--; s.Clock = 1<<64 - 1 },
	} {
		s := last
		change(&s)
		if got := s.Since(last, ago); got != tpm.WentBack {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := last.Since(last, -time.Hour); got != tpm.Continued {
		t.Errorf("the same again: %v", got)
	}
}
