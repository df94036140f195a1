// Package gate lets only files run that are in a set of digests, by BPF LSM
// programs on an unchanged kernel. gate.bpf.c has what they decide;
// docs/design/gate.md says why.
//
// The gate lives in the kernel: its programs and maps are pinned in bpffs, and
// no process has to stay.
package gate

import (
	"errors"
	"fmt"
	"time"

	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"
)

// Dir is where the gate is pinned.
const Dir = "/sys/fs/bpf/diglim"

// What can go wrong with a gate besides the kernel's refusals.
var (
	ErrNone    = errors.New("no gate")
	ErrRunning = errors.New("the gate is there already")
	ErrChanged = errors.New("the set has been replaced meanwhile")
)

// A Hook is where the kernel asked.
type Hook uint8

// The hooks; enum hook of event.h.
const (
	Exec     Hook = iota // a program or a script is executed
	Mmap                 // a file is mapped executable
	Mprotect             // a mapping of a file is made executable
	Read                 // the kernel reads a file for itself: a module, firmware, a kernel, a policy
	Load                 // the kernel is given such data from memory
	Write                // a file that is mapped executable is opened for writing, or its size set

	Hooks = iota
)

func (h Hook) String() string {
	return name("hook", []string{"exec", "mmap", "mprotect", "read", "load", "write"}, uint8(h))
}

// A Verdict is what the gate decided.
type Verdict uint8

// The verdicts; enum verdict of event.h.
const (
	Known  Verdict = iota // in the set
	Logged                // not, and let through by mode log
	Scoped                // not, and let through by a rule of the scope
	Denied

	Verdicts = iota
)

func (v Verdict) String() string {
	return name("verdict", []string{"known", "logged", "scoped", "denied"}, uint8(v))
}

// A Reason says why a file is not known.
type Reason uint8

// The reasons; enum reason of event.h.
const (
	_            Reason = iota
	Unlisted            // its digest is not in the set
	Unhashed            // the kernel cannot hash it
	Writers             // it is being written, or may be without being seen
	Unverifiable        // its file system may show another content next time
	NoFile              // it is data from memory
	Unjudged            // its mapping is made executable, and it was not judged when it was mapped
	Mapped              // it is opened for writing while mapped executable
	NoMemory            // the kernel had no memory left to judge it
)

func (r Reason) String() string {
	return name("reason", []string{"none", "unlisted", "unhashed", "writers", "unverifiable", "no file", "unjudged", "mapped", "no memory"}, uint8(r))
}

func name(kind string, names []string, n uint8) string {
	if int(n) < len(names) {
		return names[n]
	}
	return fmt.Sprintf("%s(%d)", kind, n)
}

// An Event is what the gate tells of a file that is not known.
type Event struct {
	Time    time.Time
	Hook    Hook
	Verdict Verdict
	Reason  Reason
	Digest  digest.Digest // of the content; zero where it was not hashed
	Path    string        // as the process sees it; at Mprotect the last component; "" at Load
	Device  uint32        // of the file, in the kernel's own form: major<<20 | minor
	PID     uint32
	UID     uint32
	Command string // of the thread, at most 15 bytes
}

// A Status is a gate at one moment.
type Status struct {
	Header  set.Header
	Digests int
	Tables  []set.Table
	Bytes   uint64 // of kernel memory that the set takes, as /proc/PID/fdinfo says

	Counts     [Hooks][Verdicts]uint64 // since the gate was started; nothing is lost
	Sent       uint64                  // events for Watch
	Lost       uint64                  // events that found the ring full
	Suppressed uint64                  // events beyond 1,000 a second
}
