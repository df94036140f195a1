package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"diglim/internal/attest"
	"diglim/internal/cli"
	"diglim/internal/cobracli"
	"diglim/internal/durable"
)

// A keptCheckpoint is the file of --checkpoint.
type keptCheckpoint struct {
	attest.Checkpoint
	MAC string `json:"mac"` // in hexadecimal
}

// macOf is the HMAC-SHA256 that shows that a checkpoint was written with the key.
func macOf(key []byte, c attest.Checkpoint) ([]byte, error) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("diglim checkpoint\n"))
	err := cobracli.WriteJSON(h, c)
	return h.Sum(nil), err
}

// readCheckpoint reads what an earlier check wrote; nil if it wrote nothing
// yet. What this program did not write with the key is refused.
func readCheckpoint(path, keyPath string) (*attest.Checkpoint, error) {
	b, err := readFile(path, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	const without = "without the file the host is judged from its boot on, if its log begins there"
	key, err := readCheckpointKey(keyPath)
	if err != nil {
		err = fmt.Errorf("checkpoint: key: %w", err)
		if errors.Is(err, fs.ErrNotExist) {
			err = cli.Hint(err, "give the key that %s was written with; %s", path, without)
		}
		return nil, err
	}
	var c keptCheckpoint
	err = decodeJSON(b, &c)
	if err == nil && (c.AK.IsZero() || c.Value.IsZero() || c.Last.IsZero() || c.Entries < 1 || c.Seen < c.Entries) {
		err = errors.New("incomplete")
	}
	if err == nil {
		err = c.verify(key)
	}
	if err != nil {
		return nil, cli.Hint(fmt.Errorf("checkpoint: %s: %w", path, err), without)
	}
	return &c.Checkpoint, nil
}

func (c keptCheckpoint) verify(key []byte) error {
	want, err := macOf(key, c.Checkpoint)
	got, errHex := hex.DecodeString(c.MAC)
	if err := errors.Join(err, errHex); err != nil {
		return err
	}
	if !hmac.Equal(got, want) {
		return errors.New("it was not written with this key, or was changed since")
	}
	return nil
}

// writeCheckpoint keeps how far a trusted host's log was proven. Where there is
// no key yet it makes one.
func writeCheckpoint(path, keyPath string, c *attest.Checkpoint) error {
	key, err := readCheckpointKey(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeCheckpointKey(keyPath); err == nil {
			key, err = readCheckpointKey(keyPath)
		}
	}
	if err != nil {
		return fmt.Errorf("checkpoint: key: %w", err)
	}
	mac, err := macOf(key, *c)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := cobracli.WriteJSON(&b, keptCheckpoint{*c, hex.EncodeToString(mac)}); err != nil {
		return err
	}
	if err := writeFile(path, b.Bytes()); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

const checkpointKeySize = 32 // bytes

// readCheckpointKey reads a key, which must be its owner's alone.
func readCheckpointKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	key, err := readAll(f, checkpointKeySize)
	switch {
	case err != nil:
		return nil, err
	case len(key) != checkpointKeySize:
		return nil, fmt.Errorf("%s: %d bytes, must be %d", path, len(key), checkpointKeySize)
	case info.Mode().Perm()&0o077 != 0:
		return nil, cli.Hint(fmt.Errorf("%s: others may use it (mode %04o)", path, info.Mode().Perm()), "chmod 600 it, if nobody has")
	}
	return key, nil
}

// makeCheckpointKey makes a key, whole or not at all. If another check has made
// one meanwhile, that one stays.
func makeCheckpointKey(path string) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	key := make([]byte, checkpointKeySize)
	rand.Read(key) // never fails
	_, err = f.Write(key)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.Sync(dir)
}
