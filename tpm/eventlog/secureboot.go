package eventlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"

	"diglim/internal/digest"
	"diglim/internal/wire"
)

// globalVariable is EFI_GLOBAL_VARIABLE, 8be4df61-93ca-11d2-aa0d-00e098032b8c
// as it lies in memory.
const globalVariable = "\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c"

const maxVariableName = 256 // characters

// secureBootPCR is the PCR to which firmware measures the state of Secure Boot.
const secureBootPCR = 7

// SecureBoot says whether firmware booted with Secure Boot. It goes by the
// events of PCR 7 whose data the bank proves, whatever they are called: one of
// them, before the separator, has to be about the variable SecureBoot, and only
// one. That it is on counts only if nothing can be hidden: the separator is there,
// and the data of all events before it is proven, for who booted the host
// otherwise can extend the PCR by that word, and change the data of the events
// before. The PCR itself has to be compared by the caller.
func (l *Log) SecureBoot(bank digest.Algorithm) (bool, error) {
	on, found, separated := false, 0, false
	var hidden *Event
	for i := range l.Events {
		e := &l.Events[i]
		if e.PCR != secureBootPCR || e.Type == NoAction {
			continue
		}
		separated = separated || e.Separates(bank)
		data, ok := e.Proven(bank)
		if !ok && !separated && hidden == nil {
			hidden = e
		}
		value, ok := variable(data, globalVariable, "SecureBoot")
		if !ok {
			continue
		}
		found++
		switch {
		case separated:
			return false, fmt.Errorf("event %d: offset %d: SecureBoot is measured after the separator", e.Number, e.Offset)
		case found > 1:
			return false, fmt.Errorf("event %d: offset %d: SecureBoot is measured twice", e.Number, e.Offset)
		case len(value) != 1 || value[0] > 1:
			return false, fmt.Errorf("event %d: offset %d: SecureBoot is %x, neither 0 nor 1", e.Number, e.Offset, value)
		}
		on = value[0] == 1
	}
	switch {
	case found == 0:
		return false, errors.New("no event on PCR 7 says whether Secure Boot is on")
	case on && hidden != nil:
		return false, fmt.Errorf("event %d: offset %d: its data is not what was hashed, so that it may be another word about Secure Boot", hidden.Number, hidden.Offset)
	case on && !separated:
		return false, errors.New("no separator on PCR 7 ends what the firmware measured")
	}
	return on, nil
}

// variable reads a UEFI_VARIABLE_DATA (section 10.4.4 of the profile) of the
// variable of that GUID and name: GUID, u64 characters of name, u64 bytes of value,
// name in UTF-16, value.
func variable(data []byte, guid, name string) (value []byte, ok bool) {
	r := wire.New("variable", binary.LittleEndian, data)
	vendor := r.Bytes(guidSize)
	n, size := r.U64(), r.U64()
	if r.Err() != nil || string(vendor) != guid || n > maxVariableName || size > uint64(len(data)) {
		return nil, false
	}
	var chars []uint16
	for range n {
		chars = append(chars, r.U16())
	}
	value = r.Bytes(int(size))
	return value, r.Finish() == nil && string(utf16.Decode(chars)) == name
}
