//go:build !nobpf && (amd64 || arm64)

package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"diglim/internal/cli"
	"diglim/internal/kernel/gate/set"

	"golang.org/x/sys/unix"
)

// essential are programs that a system that was locked up cannot be helped
// without, where it has them. So is what lies in systemdDir.
var essential = [...]string{"/bin/sh", "/sbin/agetty", "/bin/login", "/sbin/sulogin"}

const systemdDir = "/usr/lib/systemd"

// defaultLibraries are where glibc looks last, besides the directory that the
// dynamic loader itself is in (ld.so(8)).
var defaultLibraries = []string{"/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// A closure is what programs of a system need: interpreters, dynamic loaders,
// shared libraries, and what those need. Libraries that are opened by name while
// a program runs (PAM, NSS) are not seen.
type closure struct {
	knownChecker
	root    string
	dirs    []string // that ld.so.conf names
	seen    map[string]bool
	missing []string
}

// maxNamed is how many missing files an error names.
const maxNamed = 5

// checkSystem says what the system below root needs and is not in the set: lists
// for half a system are worse than none.
func (c knownChecker) checkSystem(root, init string) error {
	x := closure{knownChecker: c, root: root, seen: map[string]bool{}}
	x.dirs = x.libraryDirs("/etc/ld.so.conf", maxIncludes)
	programs := append([]string{init}, essential[:]...)
	for _, p := range append(programs, x.executables(systemdDir, maxDepth)...) {
		if err := x.follow(p); err != nil {
			return fmt.Errorf("%s: %w", cli.Text(p), err)
		}
	}
	if len(x.missing) == 0 {
		return nil
	}
	named := make([]string, min(len(x.missing), maxNamed))
	for i := range named {
		named[i] = cli.Text(x.missing[i])
	}
	return cli.Hint(fmt.Errorf("%d of %d files that the system to come cannot do without are in no list: %s",
		len(x.missing), len(x.seen), strings.Join(named, ", ")), "list them, or use --mode log, to find what else is missing")
}

// maxDepth is how deep directories are looked into.
const maxDepth = 4

// executables are the paths of what can be executed at a path: itself, or what
// is in and below a directory.
func (x *closure) executables(name string, depth int) (paths []string) {
	f, err := openInRoot(x.root, name)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil
	case info.Mode().IsRegular() && info.Mode()&0o111 != 0:
		return []string{name}
	case !info.IsDir() || depth == 0:
		return nil
	}
	entries, err := f.Readdirnames(-1)
	if err != nil {
		return nil
	}
	slices.Sort(entries)
	for _, e := range entries {
		paths = append(paths, x.executables(path.Join(name, e), depth-1)...)
	}
	return paths
}

// follow looks at a file, and at what it needs. One that is not there is needed
// by nobody.
func (x *closure) follow(name string) error {
	f, err := openInRoot(x.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	place, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return err
	}
	if x.seen[place] {
		return nil
	}
	x.seen[place] = true
	d, next, err := x.look(f)
	if err != nil {
		return err
	}
	if !x.set.Has(set.Content, d) {
		x.missing = append(x.missing, name)
	}
	if next != "" {
		if err := x.follow(next); err != nil {
			return fmt.Errorf("%s: %w", cli.Text(next), err)
		}
	}
	libraries, err := x.libraries(f, path.Dir(x.inRoot(place)), next)
	if err != nil {
		return err
	}
	for _, l := range libraries {
		if err := x.follow(l); err != nil {
			return fmt.Errorf("%s: %w", cli.Text(l), err)
		}
	}
	return nil
}

// inRoot is a path of ours as the system to come sees it.
func (x *closure) inRoot(place string) string {
	if rel, err := filepath.Rel(x.root, place); err == nil {
		return "/" + rel
	}
	return place
}

// libraries are the paths of the libraries that an ELF file in dir needs, with
// the given loader, if it has one. What is nowhere that ld.so looks is left out:
// the system may know better.
func (x *closure) libraries(f *os.File, dir, loader string) (paths []string, err error) {
	start := make([]byte, len(elf.ELFMAG))
	if _, err := f.ReadAt(start, 0); err == io.EOF || string(start) != elf.ELFMAG {
		return nil, nil
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return nil, err
	}
	needed, err := e.ImportedLibraries()
	if err != nil || len(needed) == 0 {
		return nil, err
	}
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		values, err := e.DynString(tag)
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			for _, d := range strings.Split(v, ":") {
				dirs = append(dirs, strings.NewReplacer("$ORIGIN", dir, "${ORIGIN}", dir).Replace(d))
			}
		}
	}
	// A library lies where its loader does, or beside one that was found.
	dirs = append(append(dirs, x.dirs...), dir)
	if target, err := x.resolve(loader); err == nil {
		dirs = append(dirs, path.Dir(target))
	}
	dirs = append(dirs, defaultLibraries...)
	for _, name := range needed {
		if strings.Contains(name, "/") {
			paths = append(paths, name)
			continue
		}
		for _, d := range dirs {
			if p := path.Join(d, name); x.isLibrary(p, e) {
				paths = append(paths, p)
				break
			}
		}
	}
	return paths, nil
}

// resolve returns where a path leads to in the system to come.
func (x *closure) resolve(name string) (string, error) {
	f, err := openInRoot(x.root, name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	place, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	return x.inRoot(place), err
}

// isLibrary reports whether a file is a library for the same machine as e.
func (x *closure) isLibrary(name string, e *elf.File) bool {
	f, err := openInRoot(x.root, name)
	if err != nil {
		return false
	}
	defer f.Close()
	l, err := elf.NewFile(f)
	return err == nil && l.Class == e.Class && l.Machine == e.Machine
}

// maxIncludes is how deep files may include others, and maxConf how long one is,
// in bytes.
const (
	maxIncludes = 4
	maxConf     = 64 << 10
)

// libraryDirs are the directories that an ld.so.conf names (ldconfig(8)).
func (x *closure) libraryDirs(name string, depth int) (dirs []string) {
	if depth == 0 {
		return nil
	}
	f, err := openInRoot(x.root, name)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConf))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 2 && fields[0] == "include" {
			pattern := fields[1]
			if !path.IsAbs(pattern) {
				pattern = path.Join(path.Dir(name), pattern)
			}
			for _, file := range x.glob(pattern) {
				dirs = append(dirs, x.libraryDirs(file, depth-1)...)
			}
			continue
		}
		dirs = append(dirs, fields...)
	}
	return dirs
}

// glob returns the files of one directory that a pattern matches, sorted.
func (x *closure) glob(pattern string) (paths []string) {
	f, err := openInRoot(x.root, path.Dir(pattern))
	if err != nil {
		return nil
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil
	}
	for _, n := range names {
		if ok, err := path.Match(path.Base(pattern), n); ok && err == nil {
			paths = append(paths, path.Join(path.Dir(pattern), n))
		}
	}
	slices.Sort(paths)
	return paths
}

// openInRoot opens a file as a process would that has root as its root: links
// do not lead out of it. Of /proc/PID/exe the kernel knows better.
func openInRoot(root, path string) (*os.File, error) {
	if strings.HasPrefix(path, "/proc/") {
		return os.Open(path)
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
