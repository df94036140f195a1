package ima

import (
	"encoding/binary"
	"errors"
	"fmt"

	"diglim/internal/digest"
)

// The first byte of security.ima and security.evm (enum evm_ima_xattr_type,
// security/integrity/integrity.h).
const (
	xattrDigest   = 1 // MD5 or SHA-1, by its length
	xattrSigned   = 3
	xattrDigestNG = 4 // algorithm, digest
	xattrPortable = 5 // a signature that stays what it is, of security.evm alone
)

// sigHeader is the size of struct signature_v2_hdr in bytes: type, version, hash
// algorithm, four bytes of key id, and the length of what follows as big-endian
// 16 bits.
const sigHeader = 9

// CheckSigned tells from a file's extended attributes whether the kernel would
// find it signed: a signature of the content, or a portable one of the metadata
// with the content's digest among it. It does not verify the signature: the keys
// are in the kernel's keyring.
func CheckSigned(ima, evm, content []byte) error {
	if len(ima) == 0 {
		return errors.New("no security.ima")
	}
	var d digest.Digest
	var err error
	switch value := ima[1:]; ima[0] {
	case xattrSigned:
		return checkSignature("security.ima", ima)
	case xattrDigest:
		alg := digest.SHA1
		if len(value) == digest.MD5.Size() {
			alg = digest.MD5
		}
		d, err = digest.New(alg, value)
	case xattrDigestNG:
		if len(value) == 0 {
			return errors.New("security.ima ends early")
		}
		var alg digest.Algorithm
		if alg, err = digest.ByKernel(uint16(value[0])); err == nil {
			d, err = digest.New(alg, value[1:])
		}
	default:
		return fmt.Errorf("security.ima of type %d", ima[0])
	}
	switch {
	case err != nil:
		return fmt.Errorf("security.ima: %w", err)
	case len(evm) == 0 || evm[0] != xattrPortable:
		return errors.New("security.ima is no signature, and there is no portable one in security.evm")
	case !d.Algorithm().Available():
		return fmt.Errorf("security.ima: %s cannot be checked", d.Algorithm())
	case digest.Sum(d.Algorithm(), content) != d:
		return errors.New("security.ima is the digest of something else")
	}
	return checkSignature("security.evm", evm)
}

func checkSignature(name string, value []byte) error {
	switch {
	case len(value) <= sigHeader:
		return fmt.Errorf("%s: signature of %d bytes", name, len(value))
	case value[1] != 2:
		return fmt.Errorf("%s: signature of version %d, must be 2", name, value[1])
	case int(binary.BigEndian.Uint16(value[7:])) != len(value)-sigHeader:
		return fmt.Errorf("%s: %d bytes of signature, %d by its header", name, len(value)-sigHeader, binary.BigEndian.Uint16(value[7:]))
	}
	return nil
}
