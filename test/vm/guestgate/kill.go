package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"

	"diglim/internal/digest"
	"diglim/internal/kernel/gate"
	"diglim/internal/kernel/gate/set"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// How often processes are killed.
const starts, replacements = 24, 200

// churn stops a gate and starts one, or replaces its set over and over, until it
// is killed. It says when it begins. The sets hold the digests; those of an odd generation
// without the last.
func churn(what string, digests []string) error {
	var sums []digest.Digest
	for _, text := range digests {
		d, err := digest.Parse(text)
		if err != nil {
			return err
		}
		sums = append(sums, d)
	}
	fmt.Println("begins")
	for {
		var err error
		switch what {
		case "start":
			if err = restart(sums); err == nil {
				err = unix.Pause()
			}
		case "replace":
			err = replaceOnce(sums)
		}
		if err != nil {
			return err
		}
	}
}

func restart(sums []digest.Digest) error {
	if err := gate.Stop(); err != nil && !errors.Is(err, gate.ErrNone) {
		return err
	}
	image, err := churned(1, sums)
	if err != nil {
		return err
	}
	return startWith(image)
}

func replaceOnce(sums []digest.Digest) error {
	g, err := gate.Open()
	if err != nil {
		return err
	}
	old, err := g.Image()
	if err != nil {
		return err
	}
	image, err := churned(old.Header().Generation+1, sums)
	if err != nil {
		return err
	}
	return errors.Join(g.Replace(image), g.Close())
}

// churned is the set of a generation.
func churned(generation uint64, sums []digest.Digest) (*set.Image, error) {
	if generation%2 == 1 {
		sums = sums[:len(sums)-1]
	}
	return imageOf(set.Header{Generation: generation, Mode: set.Enforce, Loaded: time.Unix(1, 0)}, sums)
}

// kill kills processes at random moments and looks what they have left.
func kill(r *report) error {
	seed := uint64(time.Now().UnixNano())
	fmt.Fprintln(os.Stderr, "seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	sums, err := sumFiles("/proc/self/exe", "/proc/1/exe", busybox, library)
	if err != nil {
		return err
	}

	// In the middle of Start or Stop: there is a whole gate, or none that decides.
	var whole, none int
	begin := time.Now()
	if err := restart(sums); err != nil {
		return err
	}
	round := time.Since(begin)
	for range starts {
		if err := killAfter(time.Duration(random.Int64N(int64(2*round))), "start", sums); err != nil {
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
	if err := restart(sums); err != nil {
		return fmt.Errorf("after the kills: %w", err)
	}
	attached := 0
	for begin = time.Now(); time.Since(begin) < 20*time.Second; {
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

	begin = time.Now()
	for range 2 {
		if err := replaceOnce(sums); err != nil {
			return err
		}
	}
	round = time.Since(begin)

	// In the middle of Replace: the set is one of those that were put in force.
	odd, even := 0, 0
	for range replacements {
		if err := killAfter(time.Duration(random.Int64N(int64(round))), "replace", sums); err != nil {
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
		want, err := churned(h.Generation, sums)
		if err != nil {
			return err
		}
		if string(want.Bytes()) != string(image.Bytes()) {
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
	r.line("killed", "%d times", starts+replacements)
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

// killAfter starts a process and kills it some time after it has begun. It must
// not have ended by itself.
func killAfter(d time.Duration, what string, sums []digest.Digest) error {
	args := []string{"churn", what}
	for _, sum := range sums {
		args = append(args, sum.String())
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		return fmt.Errorf("churn %s did not begin: %w", what, err)
	}
	timer := time.AfterFunc(d, func() { cmd.Process.Kill() })
	defer timer.Stop()
	said, err := io.ReadAll(lines)
	if err != nil {
		return err
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() < 0 {
		return nil
	}
	return fmt.Errorf("churn %s ended by itself: %v: %s", what, err, said)
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
