// Package tpmextend has a TPM 2.0 extend a PCR: the one command of the TPM that
// the uploader needs.
package tpmextend

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"diglim/internal/digest"
	"diglim/internal/wire"

	"golang.org/x/sys/unix"
)

// device is the kernel's for commands, behind its resource manager.
const device = "/dev/tpmrm0"

// Open opens the TPM. os.Open would have the device not block, and then a read
// that comes before the response reads nothing (tpm_common_write in
// drivers/char/tpm/tpm-dev-common.c).
func Open() (*os.File, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("TPM: %s: %w", device, err)
	}
	return os.NewFile(uintptr(fd), device), nil
}

// Constants of the TPM 2.0 Library, part 2: structures.
const (
	tagSessions = 0x8002     // TPM_ST_SESSIONS
	pcrExtend   = 0x00000182 // TPM_CC_PCR_Extend
	password    = 0x40000009 // TPM_RS_PW
	maxDigests  = 16         // HASH_COUNT of any TPM is below
	maxResponse = 4096
)

var order = binary.BigEndian

// Command is TPM2_PCR_Extend (part 3, section 22.2) of a PCR by a digest for each of
// some banks, authorized by an empty password, as PCRs are. Every algorithm must
// have a TPM number.
func Command(pcr int, digests []digest.Digest) ([]byte, error) {
	if pcr < 0 || pcr > 23 || len(digests) == 0 || len(digests) > maxDigests {
		return nil, fmt.Errorf("TPM: PCR %d and %d digests", pcr, len(digests))
	}
	b := order.AppendUint16(nil, tagSessions)
	b = order.AppendUint32(b, 0) // size, below
	b = order.AppendUint32(b, pcrExtend)
	b = order.AppendUint32(b, uint32(pcr))
	// TPMS_AUTH_COMMAND: session, no nonce, no attributes, no password.
	b = order.AppendUint32(b, 4+2+1+2)
	b = order.AppendUint32(b, password)
	b = append(b, 0, 0, 0, 0, 0)
	// TPML_DIGEST_VALUES
	b = order.AppendUint32(b, uint32(len(digests)))
	for _, d := range digests {
		id, ok := d.Algorithm().TPM()
		if !ok {
			return nil, fmt.Errorf("TPM: no bank is of algorithm %s", d.Algorithm())
		}
		b = order.AppendUint16(b, id)
		b = d.Append(b)
	}
	order.PutUint32(b[2:], uint32(len(b)))
	return b, nil
}

// ParseResponse says why a TPM did not carry out the command.
func ParseResponse(response []byte) error {
	r := wire.New("TPM response", order, response)
	tag, size, code := r.U16(), r.U32(), r.U32()
	switch {
	case r.Err() != nil:
		return r.Err()
	case int64(size) != int64(len(response)):
		return fmt.Errorf("TPM response: size %d of %d bytes", size, len(response))
	case code != 0:
		return fmt.Errorf("TPM: TPM2_PCR_Extend: response code %#x", code)
	case tag != tagSessions:
		return fmt.Errorf("TPM response: tag %#x", tag)
	}
	if n := r.U32(); r.Err() == nil && n != 0 { // parameterSize
		r.FailAt(10, fmt.Errorf("%d bytes of parameters, must be none", n))
	}
	r.Bytes(int(r.U16())) // nonce
	r.U8()
	r.Bytes(int(r.U16())) // acknowledgment
	return r.Finish()
}

// Extend extends a PCR. A device takes a command in a write, and gives its
// response in a read.
func Extend(device io.ReadWriter, pcr int, digests []digest.Digest) error {
	command, err := Command(pcr, digests)
	if err != nil {
		return err
	}
	if _, err := device.Write(command); err != nil {
		return fmt.Errorf("TPM: %w", err)
	}
	response := make([]byte, maxResponse)
	n, err := device.Read(response)
	if err != nil && !(n > 0 && errors.Is(err, io.EOF)) {
		return fmt.Errorf("TPM: %w", err)
	}
	return ParseResponse(response[:n])
}
