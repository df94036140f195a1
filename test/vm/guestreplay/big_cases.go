package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
)

func repeat(c byte, n int) string { return strings.Repeat(string(c), n) }

// bigCases are about the limits of size. The digests are not those of the
// recording, so only results compare, and the number of digests.
func (r *replay) bigCases() {
	for _, size := range []int{4194272, 4194304} {
		list := bigList(size)
		label := fmt.Sprintf("b%d", size)
		if res := r.counted(fmt.Sprintf("s-buf-%d", size), func() result { return addAs(label, list) }); res.err == nil {
			got := readFile(loadedFile(list, label))
			r.row(fmt.Sprintf("s-buf-%d-r", size), nil, result{},
				fmt.Sprintf("equal=%t %d bytes %d reads %s", slices.Equal(got.data, list), len(got.data), got.reads, got.errno()))
			r.counted(fmt.Sprintf("s-buf-%d-d", size), func() result { return delAs(label, list) })
		}
	}
	for _, size := range []int{4194304, 4194336} {
		path := r.bigFile(size, bigList(size))
		if res := r.counted(fmt.Sprintf("s-path-%d", size), func() result { return add(path) }); res.err == nil {
			r.counted(fmt.Sprintf("s-path-%d-d", size), func() result { return del(path) })
		}
	}
	for _, size := range []int{4194302, 4194303, 4194304, 67108863, 67108864, 67108865} {
		data := make([]byte, size)
		r.counted(fmt.Sprintf("s-zero-buf-%d", size), func() result { return addAs("z", data) })
		if size <= 4194304 { // hashing more takes seconds
			path := r.bigFile(size, data)
			r.counted(fmt.Sprintf("s-zero-path-%d", size), func() result { return add(path) })
		}
		copy(data, "/nope")
		r.counted(fmt.Sprintf("s-slash-%d", size), func() result { return add(data) })
	}
}

// counted prints a case and how digests_count changed.
func (r *replay) counted(id string, op func() result) result {
	before := r.state().counts
	res := op()
	observed := "count unchanged"
	if after := r.state().counts; after != before {
		observed = "count " + before + " -> " + after
	}
	r.row(id, nil, res, observed)
	return res
}

// bigFile writes a file and returns its path, which is as long as it was in the
// recording.
func (r *replay) bigFile(size int, data []byte) []byte {
	path := fmt.Sprintf("/big%d", size)
	r.fail(os.WriteFile(path, data, 0o644))
	return []byte(path)
}

// bigList returns a list of size bytes, in two blocks.
func bigList(size int) []byte {
	digests := make([][]byte, (size-32)/32)
	for i := range digests {
		digests[i] = binary.BigEndian.AppendUint32(make([]byte, 28), uint32(i))
	}
	half := len(digests) / 2
	return append(block(file, 0, sha256ID, digests[:half]...), block(file, 0, sha256ID, digests[half:]...)...)
}
