// Command guestverity has the kernel check a PKCS#7 signature: it puts a
// certificate into the kernel's fs-verity keyring and turns on fs-verity for a
// file with a signature. That goes through verify_pkcs7_signature, as the check
// of a signed module does.
//
//	guestverity CERTIFICATE FILE SIGNATURE...
//
// FILE must be on a file system with fs-verity. The answer to each signature is
// a line: "good", or the errno.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func run(certificate, file string, signatures []string) error {
	ring, err := verityKeyring()
	if err != nil {
		return err
	}
	cert, err := os.ReadFile(certificate)
	if err != nil {
		return err
	}
	if _, err := unix.AddKey("asymmetric", "", cert, ring); err != nil {
		return fmt.Errorf("add the certificate: %w", err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for i, name := range signatures {
		sig, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		// fs-verity cannot be turned off again: each signature gets its own copy.
		path := fmt.Sprintf("%s.%d", file, i)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
		answer := "good"
		if err := enable(path, sig); err != nil {
			answer = unix.ErrnoName(err.(unix.Errno))
		}
		fmt.Println(name, answer)
	}
	return nil
}

// verityKeyring finds the kernel's keyring ".fs-verity", which only
// /proc/keys gives a number to.
func verityKeyring() (int, error) {
	f, err := os.Open("/proc/keys")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if fields := strings.Fields(s.Text()); len(fields) > 8 && fields[8] == ".fs-verity:" {
			id, err := strconv.ParseUint(fields[0], 16, 32)
			return int(int32(id)), err
		}
	}
	return 0, fmt.Errorf("no keyring .fs-verity in /proc/keys: %w", s.Err())
}

// enable turns on fs-verity for a file, with a signature over its digest
// (Documentation/filesystems/fsverity.rst).
func enable(path string, sig []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	arg := unix.FsverityEnableArg{
		Version:        1,
		Hash_algorithm: 1, // FS_VERITY_HASH_ALG_SHA256
		Block_size:     4096,
		Sig_size:       uint32(len(sig)),
		Sig_ptr:        uint64(uintptr(unsafe.Pointer(&sig[0]))),
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_ENABLE_VERITY, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return errno
	}
	return nil
}
