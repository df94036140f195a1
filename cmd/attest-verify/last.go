package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"diglim/internal/attest"
	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/tpm"
)

// lastState is the file of --last: what a TPM was last seen to be.
type lastState struct {
	Version  int           `json:"version"` // 1
	AK       digest.Digest `json:"ak"`      // of the SubjectPublicKeyInfo
	At       time.Time     `json:"at"`
	Clock    uint64        `json:"clock_ms"`
	Safe     bool          `json:"clock_safe"`
	Resets   uint32        `json:"reset_count"`
	Restarts uint32        `json:"restart_count"`
	Firmware string        `json:"firmware_version"` // hexadecimal, 0x in front
	Policy   uint64        `json:"policy_serial"`
}

// readLast reads the file; there is none before the first time.
func readLast(path string) (*attest.Seen, error) {
	b, err := readFile(path, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("last state: %w", err)
	}
	seen, err := parseLast(b)
	if err != nil {
		return nil, cli.Hint(fmt.Errorf("last state: %s: %w", path, err), "only this program writes the file; without it the TPM's counters cannot be compared")
	}
	return seen, nil
}

func parseLast(b []byte) (*attest.Seen, error) {
	var l lastState
	if err := decodeJSON(b, &l); err != nil {
		return nil, err
	}
	if l.Version != 1 || l.AK.IsZero() || l.At.IsZero() {
		return nil, errors.New("version is not 1, or the key or the time is missing")
	}
	s := tpm.State{Clock: l.Clock, Safe: l.Safe, ResetCount: l.Resets, RestartCount: l.Restarts}
	var err error
	if s.Firmware, err = strconv.ParseUint(l.Firmware, 0, 64); err != nil {
		return nil, fmt.Errorf("firmware version: %w", err)
	}
	return &attest.Seen{AK: l.AK, At: l.At, Policy: l.Policy, State: s}, nil
}

// writeLast replaces the file as a whole, or leaves it.
func writeLast(path string, s *attest.Seen) (err error) {
	b, err := json.MarshalIndent(lastState{
		Version:  1,
		AK:       s.AK,
		At:       s.At,
		Clock:    s.Clock,
		Safe:     s.Safe,
		Resets:   s.ResetCount,
		Restarts: s.RestartCount,
		Firmware: fmt.Sprintf("%#016x", s.Firmware),
		Policy:   s.Policy,
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(path, append(b, '\n')); err != nil {
		return fmt.Errorf("last state: %w", err)
	}
	return nil
}
