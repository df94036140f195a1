package tpmtest

import (
	"encoding/binary"

	"diglim/internal/digest"
)

// A FirmwareEvent is one event of a firmware log to be made.
type FirmwareEvent struct {
	PCR      uint32
	Type     uint32
	Data     []byte
	Measured []byte          // what was hashed; nil: Data
	Digests  []digest.Digest // nil: of Measured, one a bank
}

// Event types of the PC Client Platform Firmware Profile.
const (
	EVNoAction  = 0x3
	EVSeparator = 0x4
	EVVersion   = 0x8
	EVVariable  = 0x80000001
	EVImage     = 0x80000003
	EVAction    = 0x80000007
)

func (e FirmwareEvent) digests(banks []digest.Algorithm) []digest.Digest {
	if e.Digests != nil {
		return e.Digests
	}
	var all []digest.Digest
	for _, bank := range banks {
		switch {
		case e.Type == EVNoAction:
			d, err := digest.New(bank, make([]byte, bank.Size()))
			must(err)
			all = append(all, d)
		case e.Measured != nil:
			all = append(all, digest.Sum(bank, e.Measured))
		default:
			all = append(all, digest.Sum(bank, e.Data))
		}
	}
	return all
}

// FirmwareLog is the crypto-agile log of the events; without banks it is one of
// SHA-1 in the older form.
func FirmwareLog(banks []digest.Algorithm, events ...FirmwareEvent) []byte {
	le := binary.LittleEndian
	var b []byte
	if len(banks) > 0 {
		spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
		spec = le.AppendUint32(spec, uint32(len(banks)))
		for _, bank := range banks {
			id, _ := bank.TPM()
			spec = le.AppendUint16(le.AppendUint16(spec, id), uint16(bank.Size()))
		}
		b = appendEvent(b, FirmwareEvent{Type: EVNoAction, Data: append(spec, 0)}, make([]byte, 20))
	}
	for _, e := range events {
		if len(banks) == 0 {
			b = appendEvent(b, e, e.digests([]digest.Algorithm{digest.SHA1})[0].Bytes())
			continue
		}
		all := e.digests(banks)
		list := le.AppendUint32(nil, uint32(len(all)))
		for _, d := range all {
			id, _ := d.Algorithm().TPM()
			list = d.Append(le.AppendUint16(list, id))
		}
		b = appendEvent(b, e, list)
	}
	return b
}

func appendEvent(b []byte, e FirmwareEvent, digests []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(le.AppendUint32(b, e.PCR), e.Type)
	b = append(b, digests...)
	return append(le.AppendUint32(b, uint32(len(e.Data))), e.Data...)
}

// Boot is what firmware measures when it boots a host: to PCRs 0 to 7, with
// the last of it when it hands over to the system.
func Boot() []FirmwareEvent {
	events := []FirmwareEvent{
		{PCR: 0, Type: EVVersion, Data: []byte("v\x001\x00\x00\x00")},
		{PCR: 7, Type: EVVariable, Data: []byte("SecureBoot=1")},
		{PCR: 2, Type: EVImage, Data: []byte("where an option ROM lay"), Measured: []byte("option ROM")},
	}
	for pcr := range uint32(8) {
		events = append(events, FirmwareEvent{PCR: pcr, Type: EVSeparator, Data: make([]byte, 4)})
	}
	return append(events,
		FirmwareEvent{PCR: 4, Type: EVImage, Data: []byte("where the boot loader lay"), Measured: []byte("boot loader")},
		FirmwareEvent{PCR: 5, Type: EVAction, Data: []byte("Exit Boot Services Invocation")},
		FirmwareEvent{PCR: 5, Type: EVAction, Data: []byte("Exit Boot Services Returned with Success")})
}

// ExtendFirmware is what a bank's PCR comes to from value when firmware
// measures the events.
func ExtendFirmware(value digest.Digest, pcr int, events ...FirmwareEvent) digest.Digest {
	bank := value.Algorithm()
	for _, e := range events {
		if int(e.PCR) != pcr || e.Type == EVNoAction {
			continue
		}
		for _, d := range e.digests([]digest.Algorithm{bank}) {
			if d.Algorithm() == bank {
				value = digest.Sum(bank, value.Bytes(), d.Bytes())
			}
		}
	}
	return value
}
