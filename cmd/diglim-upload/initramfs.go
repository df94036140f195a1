//go:build !nobpf && (amd64 || arm64)

package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"diglim/internal/digest"
	"diglim/internal/measured"

	"golang.org/x/sys/unix"
)

// writeInitramfsList writes the list of an initramfs to its lists.
func writeInitramfsList(root, cmdline string) error {
	crypto, err := os.ReadFile("/proc/crypto")
	if err != nil {
		return err
	}
	alg := measuredWith(cmdline, string(crypto))
	if !alg.Available() {
		return errUnmeasured(cmdline)
	}
	list, err := listInitramfs(root, alg)
	if err != nil {
		return fmt.Errorf("files of the initramfs: %w", err)
	}
	dir := filepath.Join(root, measured.ListDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, measured.InitramfsList)
	if err := os.WriteFile(path, list, 0o644); err != nil {
		os.Remove(path) // half a list is none
		return err
	}
	return nil
}

// self is the file of this program.
const self = "/proc/self/exe"

// listInitramfs makes a compact list of all files below root, and on the same
// file system, that can become code. They are hashed as they are now: what made
// the image may have stripped or generated any of them. This program is a
// parser besides.
func listInitramfs(root string, alg digest.Algorithm) ([]byte, error) {
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: root, Err: err}
	}
	var program unix.Stat_t
	if err := unix.Stat(self, &program); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: self, Err: err}
	}
	var digests []digest.Digest
	var parser digest.Digest
	seen := map[uint64]bool{} // by inode: busybox has hundreds of names
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && !d.Type().IsRegular() {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		switch {
		case st.Dev != top.Dev && d.IsDir():
			return fs.SkipDir
		case st.Dev != top.Dev || d.IsDir() || seen[st.Ino]:
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		x, ok, err := hashCode(path, measured.IsCode("/"+rel, st.Mode, false), alg)
		if ok {
			digests = append(digests, x)
			seen[st.Ino] = true
			if st.Dev == program.Dev && st.Ino == program.Ino {
				parser = x
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if parser.IsZero() { // it runs from elsewhere
		if parser, _, err = hashCode(self, true, alg); err != nil {
			return nil, err
		}
	}
	return measured.AppendInitramfsList(nil, parser, digests)
}

// hashCode hashes a file if it is code, or begins as an ELF file does.
func hashCode(path string, code bool, alg digest.Algorithm) (d digest.Digest, ok bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, false, err
	}
	defer f.Close()
	if !code {
		start := make([]byte, len(elf.ELFMAG))
		if _, err := io.ReadFull(f, start); err != nil || string(start) != elf.ELFMAG {
			return d, false, nil
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return d, false, err
		}
	}
	h := alg.Hash()
	if _, err := io.Copy(h, f); err != nil {
		return d, false, err
	}
	return digest.Of(alg, h), true, nil
}
