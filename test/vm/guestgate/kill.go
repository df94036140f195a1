package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"

	"diglim/internal/kernel/gate"
	"diglim/internal/kernel/gate/set"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// churn starts and stops a gate, or replaces its set, until it is killed. Sets
// of an even generation hold one more digest.
func churn(what string) error {
	for {
		switch what {
		case "start":
			if err := gate.Stop(); err != nil && !errors.Is(err, gate.ErrNone) {
				return err
			}
			if err := start("enforce", []string{busybox}); err != nil {
				return err
			}
		case "replace":
			g, err := gate.Open()
			if err != nil {
				return err
			}
			old, err := g.Image()
			if err != nil {
				return err
			}
			image, err := churned(old.Header().Generation + 1)
			if err != nil {
				return err
			}
			if err := errors.Join(g.Replace(image), g.Close()); err != nil {
				return err
			}
		}
	}
}

// churned is the set of a generation.
func churned(generation uint64) (*set.Image, error) {
	files := []string{"/proc/self/exe", "/proc/1/exe", busybox}
	if generation%2 == 0 {
		files = append(files, library)
	}
	return imageOf(set.Header{Generation: generation, Mode: set.Enforce, Loaded: time.Unix(1, 0)}, files...)
}

// kill kills processes at random moments and looks what they have left.
func kill(r *report) error {
	seed := uint64(time.Now().UnixNano())
	fmt.Fprintln(os.Stderr, "seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	// In the middle of Start or Stop: there is a whole gate, or none that decides.
	var whole, none int
	round, err := elapsedRound()
	if err != nil {
		return err
	}
	for range 40 {
		if err := killAfter(time.Duration(random.Int64N(int64(round))), "start"); err != nil {
			return err
		}
		g, err := gate.Open()
		switch {
		case errors.Is(err, gate.ErrNone):
			none++
		case err != nil:
			return fmt.Errorf("after a kill: %w", err)
		default:
			image, err := g.Image()
			if errors.Is(err, gate.ErrNone) {
				none++
			} else if err != nil {
				return fmt.Errorf("after a kill: %w", err)
			} else {
				whole++
			}
			live := err == nil
			if err := works(image, live); err != nil {
				return fmt.Errorf("after a kill, with a set: %t: %w", live, err)
			}
			g.Close()
		}
	}
	fmt.Fprintf(os.Stderr, "killed in start and stop: %d whole gates, %d none\n", whole, none)

	// Whatever there is, the next one can start, and nothing else is attached.
	if err := gate.Stop(); err != nil && !errors.Is(err, gate.ErrNone) {
		return err
	}
	if err := start("enforce", []string{busybox}); err != nil {
		return fmt.Errorf("after the kills: %w", err)
	}
	attached := 0
	for begin := time.Now(); time.Since(begin) < 20*time.Second; {
		if attached, err = links(); err != nil {
			return err
		}
		if attached == 7 {
			break
		}
	}
	r.line("programs attached", "%d", attached)
	left, err := os.ReadDir("/sys/fs/bpf")
	if err != nil {
		return err
	}
	r.line("directories of pins", "%d", len(left))

	// In the middle of Replace: the set is one of those that were put in force.
	odd, even := 0, 0
	for range 200 {
		if err := killAfter(time.Duration(random.Int64N(int64(150*time.Millisecond))), "replace"); err != nil {
			return err
		}
		g, err := gate.Open()
		if err != nil {
			return err
		}
		image, err := g.Image()
		if err != nil {
			return err
		}
		h := image.Header()
		want, err := churned(h.Generation)
		if err != nil {
			return err
		}
		if h.Generation > 1 && string(want.Bytes()) != string(image.Bytes()) {
			return fmt.Errorf("generation %d is not what was put in force", h.Generation)
		}
		if err := works(image, true); err != nil {
			return err
		}
		if h.Generation%2 == 0 {
			even++
		} else {
			odd++
		}
		g.Close()
	}
	fmt.Fprintf(os.Stderr, "killed in replace: %d odd sets, %d even ones\n", odd, even)
	r.line("killed", "240 times")
	r.line("both sets seen", "%t", odd > 0 && even > 0)
	return nil
}

// works judges two files by the gate that was left.
func works(image *set.Image, live bool) error {
	if err := mapFile(busybox, rx, unix.MAP_PRIVATE); err != nil {
		return fmt.Errorf("a known file: %w", err)
	}
	var want error
	if live && image.Header().Generation%2 == 1 {
		want = unix.EPERM
	}
	if err := mapFile(library, rx, unix.MAP_PRIVATE); !errors.Is(err, want) {
		return fmt.Errorf("a file of the even sets: %v, want %v", err, want)
	}
	return nil
}

// elapsedRound measures how long it takes to stop and start a gate.
func elapsedRound() (time.Duration, error) {
	begin := time.Now()
	if err := gate.Stop(); err != nil && !errors.Is(err, gate.ErrNone) {
		return 0, err
	}
	if err := start("enforce", []string{busybox}); err != nil {
		return 0, err
	}
	return time.Since(begin) * 3 / 2, nil
}

// killAfter starts a process and kills it after a time. It must not have ended.
func killAfter(d time.Duration, what string) error {
	cmd := exec.Command("/proc/self/exe", "churn", what)
	cmd.Stdout = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	timer := time.AfterFunc(d, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() < 0 {
		return nil
	}
	return fmt.Errorf("churn %s ended by itself: %v", what, err)
}

// links counts the attached programs.
func links() (n int, err error) {
	var it link.Iterator
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			return 0, err
		}
		if info.Type == link.TracingType {
			n++
		}
	}
	return n, it.Err()
}
