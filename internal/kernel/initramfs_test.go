package kernel

import (
	"os"
	"strings"
	"testing"
)

func TestRootfs(t *testing.T) {
	const mounts = `1 1 0:2 / / rw - rootfs rootfs rw,size=1k
24 1 0:22 / /proc rw,relatime shared:5 - proc proc rw
25 1 0:23 / /tmp rw - tmpfs rootfs rw
bad line
`
	for device, want := range map[string]bool{"0:2": true, "0:22": false, "0:23": false, "0:99": false} {
		if got, err := isRootfs(strings.NewReader(mounts), device); got != want || err != nil {
			t.Errorf("%s: %v, %v", device, got, err)
		}
	}
	f, err := os.Open("initramfs.go")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := InInitramfs(f); got || err != nil {
		t.Errorf("InInitramfs = %v, %v", got, err)
	}
}
