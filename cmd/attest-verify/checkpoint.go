package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"diglim/internal/attest"
	"diglim/internal/cli"
	"diglim/internal/cobracli"
	"diglim/internal/durable"
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
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var c attest.Checkpoint
	err = d.Decode(&c)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("something follows it")
		}
	}
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
	dir, err := durable.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	_, err = dir.Write(filepath.Base(path), b.Bytes())
	if err := errors.Join(err, dir.Close()); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}
