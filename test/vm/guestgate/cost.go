package main

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// cost runs a program again and again and measures it, in microseconds: the
// first run, and the median, the least and the most of the others.
func cost(r *report, program string) error {
	const runs = 201
	var times []int64
	for range runs {
		start := time.Now()
		pid, err := syscall.ForkExec(program, []string{"busybox", "true"}, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", program, err)
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
			return err
		}
		if status.ExitStatus() != 0 {
			return fmt.Errorf("%s: exit code %d", program, status.ExitStatus())
		}
		times = append(times, time.Since(start).Microseconds())
	}
	first, rest := times[0], times[1:]
	slices.Sort(rest)
	r.line("cost", "%d %d %d %d", first, rest[len(rest)/2], rest[0], rest[len(rest)-1])
	return nil
}
