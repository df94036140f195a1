// Attest-verify collects a host's evidence, and judges it against digest
// lists.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"diglim/internal/cobracli"
	"diglim/internal/durable"
	"diglim/internal/evidence"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "attest-verify",
		Short: "judge what a host has run by a TPM quote and digest lists",
		Long: `attest-verify collects what a host says about itself ("collect", on the host)
and says whether it is to be believed ("check", anywhere else).

Exit code: 0 trusted, 1 not trusted, 2 could not tell (usage, missing,
malformed).`,
	}
	root.AddCommand(collectCommand(), checkCommand(), policyCommand(), explainCommand(), replayCommand(), predictCommand())
	return cobracli.Run(root, args, stdout, stderr)
}

const (
	maxSmall = 64 << 10 // bytes of a quote, a signature, PCR values, a key
	maxLog   = 1 << 30  // bytes of a log that is held in memory
)

// readFile reads a file of at most limit bytes. Its size is not believed:
// files of securityfs say 0.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return readAll(f, limit)
}

// readAll is readFile of an open file, and closes it.
func readAll(f *os.File, limit int64) ([]byte, error) {
	var b bytes.Buffer
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		b.Grow(int(min(info.Size(), limit)) + bytes.MinRead)
	}
	_, err := b.ReadFrom(io.LimitReader(f, limit+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(b.Len()) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", f.Name(), limit)
	}
	return b.Bytes(), nil
}

// writeFile replaces a file as a whole, or leaves it.
func writeFile(path string, b []byte) error {
	d, err := durable.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	_, err = d.Write(filepath.Base(path), b)
	return errors.Join(err, d.Close())
}

// decodeJSON reads one object that has no other members than v, and nothing
// behind it.
func decodeJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("offset %d: something follows it", d.InputOffset())
	}
	return nil
}

// openPart opens a file of an evidence directory. What lies there is the host's:
// a pipe would keep the verifier waiting, a device would never end.
func openPart(dir, name string) (*os.File, error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readPart reads a file of an evidence directory, of at most evidence.Limit.
func readPart(dir, name string) ([]byte, error) {
	f, err := openPart(dir, name)
	if err != nil {
		return nil, err
	}
	return readAll(f, evidence.Limit(name))
}

// openLogIn opens the IMA log of an evidence directory: the binary one if it is
// there.
func openLogIn(dir string) (log *io.SectionReader, done func() error, err error) {
	f, err := openPart(dir, evidence.IMAFile)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = openPart(dir, evidence.IMATextFile)
	}
	if err != nil {
		return nil, nil, err
	}
	return openedLog(f)
}

// openLog opens a log, which may be larger than memory.
func openLog(path string) (log *io.SectionReader, done func() error, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	return openedLog(f)
}

// openedLog is a log that is open. What is no file but a pipe, or says like
// those of securityfs that it is empty, is read into memory.
func openedLog(f *os.File) (log *io.SectionReader, done func() error, err error) {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		return io.NewSectionReader(f, 0, info.Size()), f.Close, nil
	}
	b, err := readAll(f, maxLog)
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))), func() error { return nil }, err
}
