package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// stress adds, deletes, queries and reads at the same time, and reports what
// is loaded in the end.
func (r *replay) stress() {
	const rounds = 100
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs[:2] {
		list := block(file, 0, sha256ID, abc[:], digest(sha256ID, 2), digest(sha256ID, 3+i))
		path := []byte(r.writeFile(fmt.Sprint("stress", i), list))
		wg.Go(func() {
			for range rounds {
				if errs[i] = retry(func() result { return add(path) }); errs[i] != nil {
					return
				}
				if errs[i] = retry(func() result { return del(path) }); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Go(func() {
		for range rounds {
			if errs[2] = retry(func() result {
				res, answer := query("sha256-" + hexOf(abc[:]))
				return result{res.n, errors.Join(res.err, answer.err)}
			}); errs[2] != nil {
				return
			}
		}
	})
	wg.Go(func() {
		for range rounds {
			entries, err := os.ReadDir(loaded)
			if err != nil {
				errs[3] = err
				return
			}
			for _, e := range entries {
				// The list may have gone meanwhile.
				if got := readFile(filepath.Join(loaded, e.Name())); got.err != nil && got.err != unix.ENOENT {
					errs[3] = got.err
					return
				}
			}
		}
	})
	wg.Wait()
	r.fail(errors.Join(errs...))
	s := r.state()
	r.row("stress", nil, result{}, fmt.Sprintf("%s files %d", s.counts, len(s.files)))
}

// retry repeats what fails because another holds the interface, or because a
// file of the deleted list is still open: securityfs keeps its name until then.
func retry(op func() result) error {
	for {
		res := op()
		if !errors.Is(res.err, unix.EBUSY) && !errors.Is(res.err, unix.EEXIST) {
			return res.err
		}
	}
}

// memory adds and deletes a list over and over, and in vain, and makes sure
// that this costs no memory.
func (r *replay) memory() {
	const (
		rounds = 10
		size   = 1 << 19
	)
	list := bigList(size)
	cycle := func() {
		for _, step := range []struct {
			res  result
			want error
		}{
			{addAs("a", list), nil},
			{addAs("a", list), unix.EEXIST},
			{addAs("a", list[:size-1]), unix.EINVAL},
			{delAs("a", list), nil},
		} {
			if !errors.Is(step.res.err, step.want) {
				r.fail(fmt.Errorf("memory: %v, want %v", step.res, step.want))
			}
		}
	}
	cycle()
	before := r.available()
	for range rounds {
		cycle()
	}
	if grown := before - r.available(); grown > rounds*size/2 {
		r.fail(fmt.Errorf("memory: %d rounds with a list of %d bytes took %d bytes", rounds, size, grown))
	}
}

// available reads how many bytes of memory programs could get.
func (r *replay) available() int {
	text, err := os.ReadFile("/proc/meminfo")
	r.fail(err)
	_, rest, _ := strings.Cut(string(text), "MemAvailable:")
	var kib int
	_, err = fmt.Sscan(rest, &kib)
	r.fail(err)
	return kib << 10
}
