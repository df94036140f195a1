package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"diglim/internal/cli"

	"golang.org/x/sys/unix"
)

// progress is a line on a terminal that says how far a run has come.
type progress struct {
	w           io.Writer // nil where there is no terminal
	start, last time.Time
	done, total int
}

func newProgress(w io.Writer, total int) *progress {
	p := &progress{start: time.Now(), total: total}
	if f, ok := w.(*os.File); ok {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			p.w = w
		}
	}
	return p
}

// step counts one package, and shows it a few times a second.
func (p *progress) step() {
	p.done++
	now := time.Now()
	if p.w == nil || now.Sub(p.last) < 200*time.Millisecond || p.done == p.total {
		return
	}
	p.last = now
	left := time.Duration(float64(now.Sub(p.start)) / float64(p.done) * float64(p.total-p.done)).Round(time.Second)
	fmt.Fprintf(p.w, "\r\x1b[K%s of %s packages  %d %%  %v left", cli.Count(p.done), cli.Count(p.total), 100*p.done/p.total, left)
}

// clear makes room for a message.
func (p *progress) clear() {
	if p.w != nil && !p.last.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
