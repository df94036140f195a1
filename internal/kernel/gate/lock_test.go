//go:build !nobpf && (amd64 || arm64)

package gate

import "testing"

func TestKernelFixed(t *testing.T) {
	for _, c := range []struct {
		major, minor, patch uint32
		want                bool
	}{
		{5, 15, 200, false}, {6, 0, 20, false},
		{6, 1, 74, false}, {6, 1, 75, true}, {6, 1, 192, true},
		{6, 2, 99, false}, {6, 5, 99, false},
		{6, 6, 13, false}, {6, 6, 14, true}, {6, 7, 1, false}, {6, 7, 2, true},
		{6, 8, 0, true}, {6, 12, 0, true}, {7, 0, 0, true},
	} {
		if got := kernelFixed(c.major, c.minor, c.patch); got != c.want {
			t.Errorf("Linux %d.%d.%d: %v, want %v", c.major, c.minor, c.patch, got, c.want)
		}
	}
}
