// Command guestattest does in a guest what an attacker would who has become
// root: it makes logs up, and extends PCRs by hand.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"

	"diglim/internal/digest"
	"diglim/tpm/eventlog"
	"diglim/tpm/imalog"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("guestattest:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "extend":
		pcr, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return extend(pcr)
	case len(args) == 4 && args[0] == "forge":
		log, err := os.ReadFile(args[2])
		if err != nil {
			return err
		}
		forged, err := forge(args[1], log)
		if err != nil {
			return err
		}
		return os.WriteFile(args[3], forged, 0o600)
	}
	return errors.New("usage: extend PCR | forge HOW LOG FORGED")
}

// byHand is what PCRs are extended with.
const byHand = "by hand"

// extend extends a PCR of the banks that guests have.
func extend(pcr int) (err error) {
	t, err := linuxtpm.Open("/dev/tpmrm0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	_, err = tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{
			{HashAlg: tpm2.TPMAlgSHA1, Digest: digest.Sum(digest.SHA1, []byte(byHand)).Bytes()},
			{HashAlg: tpm2.TPMAlgSHA256, Digest: digest.Sum(digest.SHA256, []byte(byHand)).Bytes()},
		}},
	}.Execute(t)
	return err
}

// forge returns a log with an entry in its middle, or an event, that is gone or
// is another; or a firmware's log with what extend did to PCR 9.
func forge(how string, log []byte) ([]byte, error) {
	switch how {
	case "event":
		return event(log)
	case "extended":
		return extended(log), nil
	}
	at, err := offsets(log)
	if err != nil {
		return nil, err
	}
	// Entries k and k+1 are log[a:b] and log[b:c].
	k := len(at)/2 - 1
	a, b, c := at[k], at[k+1], at[k+2]
	switch how {
	case "remove":
		return append(bytes.Clone(log[:a]), log[b:]...), nil
	case "swap":
		return bytes.Join([][]byte{log[:a], log[b:c], log[a:b], log[c:]}, nil), nil
	case "change", "rehash":
		forged := bytes.Clone(log)
		data := dataOf(forged[a:b])
		data[bytes.IndexByte(data, '/')+1] ^= 1
		if how == "rehash" {
			copy(forged[a+4:], digest.Sum(digest.SHA1, data).Bytes())
		}
		return forged, nil
	}
	return nil, fmt.Errorf("forge %q is not known", how)
}

// offsets are where entries of a log in SHA-1 begin, and where the last ends.
func offsets(log []byte) (at []int64, err error) {
	for e, err := range imalog.Entries(bytes.NewReader(log), imalog.Layout{Hash: digest.SHA1}) {
		if err != nil {
			return nil, err
		}
		at = append(at, e.Offset)
	}
	if len(at) < 4 {
		return nil, fmt.Errorf("%d entries are too few to forge one", len(at))
	}
	return append(at, int64(len(log))), nil
}

// dataOf is an entry's template data: what follows PCR, hash, name and length.
func dataOf(entry []byte) []byte {
	name := binary.LittleEndian.Uint32(entry[24:])
	return entry[28+name+4:]
}

// extended adds an event as GRUB makes it when it reads a file.
func extended(log []byte) []byte {
	const pcr, kind, name = 9, uint32(eventlog.IPL), "/initrd.img\x00"
	for _, n := range []uint32{pcr, kind, 2} {
		log = binary.LittleEndian.AppendUint32(log, n)
	}
	for _, alg := range []digest.Algorithm{digest.SHA1, digest.SHA256} {
		id, _ := alg.TPM()
		log = digest.Sum(alg, []byte(byHand)).Append(binary.LittleEndian.AppendUint16(log, id))
	}
	return append(binary.LittleEndian.AppendUint32(log, uint32(len(name))), name...)
}

// event changes the digests of an event of PCR 4, which tells what was booted.
func event(log []byte) ([]byte, error) {
	l, err := eventlog.Parse(log)
	if err != nil {
		return nil, err
	}
	for _, e := range l.Events {
		if e.PCR != 4 {
			continue
		}
		forged := bytes.Clone(log)
		for _, d := range e.Digests {
			at := bytes.Index(forged[e.Offset:], d.Bytes())
			forged[int(e.Offset)+at] ^= 1
		}
		return forged, nil
	}
	return nil, errors.New("no event on PCR 4")
}
