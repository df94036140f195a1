package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"diglim/internal/attest"
	"diglim/internal/cli"
	"diglim/internal/cobracli"
)

// readCheckpoint reads what an earlier check wrote; nil if it wrote nothing
// yet.
func readCheckpoint(path string) (*attest.Checkpoint, error) {
	b, err := readFile(path, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	var c attest.Checkpoint
	err = decodeJSON(b, &c)
	if err == nil && (c.AK.IsZero() || c.Value.IsZero() || c.Last.IsZero() || c.Entries < 1 || c.Seen < c.Entries) {
		err = errors.New("incomplete")
	}
	if err != nil {
		return nil, cli.Hint(fmt.Errorf("checkpoint: %s: %w", path, err), "without the file the host is judged from its boot on, if its log begins there")
	}
	return &c, nil
}

// writeCheckpoint keeps how far a trusted host's log was proven.
func writeCheckpoint(path string, c *attest.Checkpoint) error {
	var b bytes.Buffer
	if err := cobracli.WriteJSON(&b, c); err != nil {
		return err
	}
	if err := writeFile(path, b.Bytes()); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}
