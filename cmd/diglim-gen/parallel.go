package main

import (
	"iter"
	"sync"
)

// inOrder does something to each item, several at a time, and yields the
// results in the order of the items. Each worker calls start once, for what it
// keeps from item to item. At most a few results a worker wait to be yielded.
func inOrder[T, R any](items []T, workers int, start func() func(T) R) iter.Seq[R] {
	type job struct {
		item   T
		result chan R
	}
	return func(yield func(R) bool) {
		jobs := make(chan job)
		order := make(chan chan R, 4*workers)
		done := make(chan struct{})
		var wg sync.WaitGroup
		for range min(workers, len(items)) {
			wg.Go(func() {
				do := start()
				for j := range jobs {
					j.result <- do(j.item)
				}
			})
		}
		wg.Go(func() {
			defer close(order)
			defer close(jobs)
			for _, item := range items {
				j := job{item, make(chan R, 1)}
				select {
				case order <- j.result:
				case <-done:
					return
				}
				jobs <- j
			}
		})
		defer wg.Wait()
		defer close(done)
		for result := range order {
			if !yield(<-result) {
				return
			}
		}
	}
}
