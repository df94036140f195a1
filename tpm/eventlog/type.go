package eventlog

import "fmt"

// A Type says what an event is about. No PCR proves it: whoever hands in a log
// can call an event what he likes.
type Type uint32

// The types of the PC Client Platform Firmware Profile, section 10.4.1.
const (
	NoAction        Type = 0x3
	Separator       Type = 0x4
	EFIAction       Type = 0x80000007
	VariableConfig  Type = 0x80000001
	VariableBoot    Type = 0x80000002
	BootApplication Type = 0x80000003
	IPL             Type = 0xd
)

var names = map[Type]string{
	0x0: "EV_PREBOOT_CERT", 0x1: "EV_POST_CODE", 0x2: "EV_UNUSED", NoAction: "EV_NO_ACTION", Separator: "EV_SEPARATOR",
	0x5: "EV_ACTION", 0x6: "EV_EVENT_TAG", 0x7: "EV_S_CRTM_CONTENTS", 0x8: "EV_S_CRTM_VERSION", 0x9: "EV_CPU_MICROCODE",
	0xa: "EV_PLATFORM_CONFIG_FLAGS", 0xb: "EV_TABLE_OF_DEVICES", 0xc: "EV_COMPACT_HASH", IPL: "EV_IPL",
	0xe: "EV_IPL_PARTITION_DATA", 0xf: "EV_NONHOST_CODE", 0x10: "EV_NONHOST_CONFIG", 0x11: "EV_NONHOST_INFO",
	0x12: "EV_OMIT_BOOT_DEVICE_EVENTS", 0x13: "EV_POST_CODE2",
	VariableConfig: "EV_EFI_VARIABLE_DRIVER_CONFIG", VariableBoot: "EV_EFI_VARIABLE_BOOT",
	BootApplication: "EV_EFI_BOOT_SERVICES_APPLICATION", 0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
	0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER", 0x80000006: "EV_EFI_GPT_EVENT", EFIAction: "EV_EFI_ACTION",
	0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB", 0x80000009: "EV_EFI_HANDOFF_TABLES",
	0x8000000a: "EV_EFI_PLATFORM_FIRMWARE_BLOB2", 0x8000000b: "EV_EFI_HANDOFF_TABLES2",
	0x8000000c: "EV_EFI_VARIABLE_BOOT2", 0x8000000d: "EV_EFI_GPT_EVENT2", 0x80000010: "EV_EFI_HCRTM_EVENT",
	0x800000e0: "EV_EFI_VARIABLE_AUTHORITY", 0x800000e1: "EV_EFI_SPDM_FIRMWARE_BLOB",
	0x800000e2: "EV_EFI_SPDM_FIRMWARE_CONFIG", 0x800000e3: "EV_EFI_SPDM_DEVICE_POLICY",
	0x800000e4: "EV_EFI_SPDM_DEVICE_AUTHORITY",
}

// Known reports whether the specification has the type.
func (t Type) Known() bool { return names[t] != "" }

func (t Type) String() string {
	if name, ok := names[t]; ok {
		return name
	}
	return fmt.Sprintf("type %#08x", uint32(t))
}
