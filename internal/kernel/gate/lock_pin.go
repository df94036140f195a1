//go:build !nobpf && (amd64 || arm64)

package gate

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const bpfObjPin = 6 // BPF_OBJ_PIN, include/uapi/linux/bpf.h

// pinFD pins what a file descriptor stands for.
func pinFD(fd int, path string) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	attr := struct {
		path  unsafe.Pointer // 64 bits, as on all that the package is built for
		fd    uint32
		flags uint32
	}{unsafe.Pointer(name), uint32(fd), 0}
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfObjPin, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return fmt.Errorf("pin %s: %w", path, errno)
	}
	return nil
}
