//go:build !purego

package sha

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// What a processor has is used.
func TestAvailable(t *testing.T) {
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Skip("no /proc/cpuinfo: ", err)
	}
	flags := strings.Fields(string(cpu))
	if want := slices.Contains(flags, "sha_ni") && slices.Contains(flags, "ssse3"); available() != want {
		t.Errorf("available: %v, the kernel says %v", available(), want)
	}
}
