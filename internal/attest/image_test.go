package attest_test

import (
	"slices"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/internal/uki"
	"diglim/tpm/eventlog"
	"diglim/tpm/tpmtest"
)

const (
	line      = "root=/dev/vda quiet"
	otherLine = "root=/dev/vda init=/bin/sh"
)

func loadOptions(line string) tpmtest.FirmwareEvent {
	return tpmtest.FirmwareEvent{PCR: 9, Type: 6, Data: []byte("\xed\x22\x3b\x8f\x1a\x00\x00\x00" + eventlog.LoadOptions + "\x00"),
		Digests: []digest.Digest{digest.Sum(digest.SHA1, []byte(line)), eventlog.MeasuredLoadOptions(digest.SHA256, line)}}
}

func initrd(content string) tpmtest.FirmwareEvent {
	return tpmtest.FirmwareEvent{PCR: 9, Type: 6, Data: []byte("\xec\x22\x3b\x8f\x0d\x00\x00\x00Linux initrd\x00"), Measured: []byte(content)}
}

// newKernel is a machine whose kernel was started by its EFI stub, and has a
// policy about that.
func newKernel(t *testing.T, events ...tpmtest.FirmwareEvent) *machine {
	m := newMachine(t)
	m.measure(len(m.events)-2, events...)
	m.policy.CommandLines = []string{line + " debug", line}
	m.policy.Initrds = map[digest.Digest]string{digest.Sum(digest.SHA256, []byte("initramfs")): "made by dracut"}
	return m
}

func TestKernelCommandLine(t *testing.T) {
	v := newKernel(t, loadOptions(line), initrd("initramfs")).judge(t)
	expect(t, "honest", v, attest.Trusted)
	if len(v.Stated) != 1 || v.Stated[0].Text != line || v.Stated[0].PCR != 9 {
		t.Errorf("%+v", v.Stated)
	}
	m := newKernel(t, loadOptions(line))
	m.policy.Initrds = nil
	expect(t, "no initramfs, no word wanted of it", m.judge(t), attest.Trusted)
	m = newKernel(t, loadOptions(line), initrd("initramfs"), tpmtest.FirmwareEvent{PCR: 9, Type: 6, Data: []byte("later")})
	expect(t, "a later event", m.judge(t), attest.Trusted)

	renamed := initrd("")
	renamed.Digests = loadOptions(otherLine).Digests
	for name, c := range map[string]struct {
		events []tpmtest.FirmwareEvent
		leaves attest.Outcome
		code   attest.Code
	}{
		"another":                 {[]tpmtest.FirmwareEvent{loadOptions(otherLine), initrd("initramfs")}, attest.NotTrusted, attest.OtherCommandLine},
		"a prefix":                {[]tpmtest.FirmwareEvent{loadOptions("root=/dev/vda"), initrd("initramfs")}, attest.NotTrusted, attest.OtherCommandLine},
		"another, then the right": {[]tpmtest.FirmwareEvent{loadOptions(otherLine), initrd("initramfs"), loadOptions(line), initrd("initramfs")}, attest.NotTrusted, attest.OtherCommandLine},
		"another under a name":    {[]tpmtest.FirmwareEvent{renamed, loadOptions(line), initrd("initramfs")}, attest.CouldNotTell, attest.CommandLineUnclear},
		"none":                    {nil, attest.CouldNotTell, attest.CommandLineUnclear},
		"after the initramfs":     {[]tpmtest.FirmwareEvent{initrd("initramfs"), loadOptions(line)}, attest.CouldNotTell, attest.CommandLineUnclear},
		"another initramfs":       {[]tpmtest.FirmwareEvent{loadOptions(line), initrd("evil")}, attest.NotTrusted, attest.OtherInitrd},
		"no initramfs":            {[]tpmtest.FirmwareEvent{loadOptions(line)}, attest.NotTrusted, attest.OtherInitrd},
		"the right one after it":  {[]tpmtest.FirmwareEvent{loadOptions(line), initrd("evil"), initrd("initramfs")}, attest.NotTrusted, attest.OtherInitrd},
	} {
		expect(t, name, newKernel(t, c.events...).judge(t), c.leaves, c.code)
	}

	// A log that says what should have been.
	m = newKernel(t, loadOptions(otherLine), initrd("initramfs"))
	at := slices.IndexFunc(m.events, func(e tpmtest.FirmwareEvent) bool { return e.PCR == 9 })
	m.events = slices.Clone(m.events)
	m.events[at] = loadOptions(line)
	expect(t, "a log made up", m.judge(t), attest.NotTrusted, attest.FirmwareDiffers)
	m = newKernel(t, loadOptions(line), initrd("initramfs"))
	m.policy.Firmware = []int{7}
	if !m.policy.Rejects() {
		t.Error("a policy that wants a command line, and not PCR 9 explained, can trust a host")
	}
	m.policy.Firmware, m.policy.CommandLines = []int{7, 9}, nil
	if !m.policy.Rejects() {
		t.Error("a policy that wants an initramfs and no command line can trust a host")
	}
}

// What boot loaders measure is said where it is what was hashed.
func TestStatedByBootLoaders(t *testing.T) {
	text := func(pcr uint32, data, hashed string) tpmtest.FirmwareEvent {
		return tpmtest.FirmwareEvent{PCR: pcr, Type: 0xd, Data: []byte(data), Measured: []byte(hashed)}
	}
	utf16 := "q\x00u\x00i\x00e\x00t\x00"
	m := newMachine(t)
	m.pcrs = append(m.pcrs, 12)
	m.policy.Firmware = append(m.policy.Firmware, 12)
	m.measure(len(m.events)-2,
		text(8, "grub_cmd: linux /vmlinuz quiet\x00", "linux /vmlinuz quiet"),
		text(8, "kernel_cmdline: /vmlinuz quiet\x00", "/vmlinuz quiet"),
		text(8, "kernel_cmdline: /vmlinuz evil\x00", "/vmlinuz other"),
		text(9, "/boot/vmlinuz\x00", "the kernel"),
		text(12, utf16+"\x00\x00", utf16),
		text(12, utf16+"\x00\x00", utf16+"\x00\x00"),
		text(12, "\x01\x02", "\x01\x02"))
	v := m.judge(t)
	expect(t, "honest", v, attest.Trusted)
	var got []string
	for _, s := range v.Stated {
		got = append(got, s.Text)
	}
	if want := []string{"linux /vmlinuz quiet", "/vmlinuz quiet", "quiet", "quiet"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestKernelImage(t *testing.T) {
	start := digest.Sum(digest.SHA256, []byte("what the image makes"))
	boot := func(value digest.Digest, change func(*machine)) attest.Verdict {
		m := newMachine(t)
		m.policy.Images = []policy.Image{
			{Name: "old.efi", Values: []digest.Digest{digest.Sum(digest.SHA256, []byte("old"))}},
			{Name: "new.efi", Values: []digest.Digest{digest.Sum(digest.SHA256, []byte("newer stub")), start}},
		}
		m.pcrs = append(m.pcrs, uki.PCR)
		m.values = map[int]digest.Digest{uki.PCR: value}
		if change != nil {
			change(m)
		}
		return m.judge(t)
	}
	n := 0
	for phases, value := range uki.Phases(start) {
		n++
		v := boot(value, nil)
		expect(t, "honest", v, attest.Trusted)
		if v.Booted == nil || v.Booted.Image != "new.efi" || !slices.Equal(v.Booted.Phases, phases) {
			t.Errorf("%v: %+v", phases, v.Booted)
		}
	}
	if n != 64 {
		t.Errorf("%d phases", n)
	}
	extend := func(d digest.Digest, word string) digest.Digest {
		return digest.Sum(digest.SHA256, d.Bytes(), digest.Sum(digest.SHA256, []byte(word)).Bytes())
	}
	zero, _ := digest.New(digest.SHA256, make([]byte, 32))
	for name, value := range map[string]digest.Digest{
		"another image":      extend(start, "another"),
		"another phase":      extend(extend(start, "enter-initrd"), "my own"),
		"a phase twice":      extend(extend(start, "ready"), "ready"),
		"phases out of turn": extend(extend(start, "leave-initrd"), "enter-initrd"),
		"nothing":            zero,
	} {
		expect(t, name, boot(value, nil), attest.NotTrusted, attest.UnexpectedImage)
	}
	expect(t, "not quoted", boot(start, func(m *machine) { m.pcrs = m.pcrs[:len(m.pcrs)-1] }), attest.CouldNotTell, attest.PCRNotQuoted)
}

// What the firmware started is what the policy names, and nothing else.
func TestStarted(t *testing.T) {
	loader := digest.Sum(digest.SHA256, []byte("boot loader")) // of tpmtest.Boot
	event := func(pcr uint32, kind uint32, measured string) tpmtest.FirmwareEvent {
		return tpmtest.FirmwareEvent{PCR: pcr, Type: kind, Data: []byte("somewhere"), Measured: []byte(measured)}
	}
	judge := func(change func(*machine)) attest.Verdict {
		m := newMachine(t)
		m.policy.Started = map[digest.Digest]string{loader: "boot.efi", digest.Sum(digest.SHA256, []byte("kernel")): "linux.efi"}
		change(m)
		return m.judge(t)
	}
	v := judge(func(*machine) {})
	expect(t, "the boot loader alone", v, attest.Trusted)
	if len(v.Stated) != 1 || v.Stated[0].Text != "boot.efi" || v.Stated[0].PCR != 4 {
		t.Errorf("%+v", v.Stated)
	}
	action := tpmtest.FirmwareEvent{PCR: 4, Type: tpmtest.EVAction, Data: []byte("Calling EFI Application from Boot Option")}
	expect(t, "with a kernel, and a word of the firmware", judge(func(m *machine) {
		m.measure(len(m.events)-2, event(4, tpmtest.EVImage, "kernel"))
		m.measure(0, action)
	}), attest.Trusted)
	for name, change := range map[string]func(*machine){
		"another, too":              func(m *machine) { m.measure(len(m.events)-2, event(4, tpmtest.EVImage, "evil")) },
		"another, before":           func(m *machine) { m.measure(0, event(4, tpmtest.EVImage, "evil")) },
		"another, of another type":  func(m *machine) { m.measure(len(m.events)-2, event(4, 0xd, "evil")) },
		"another, as an action":     func(m *machine) { e := action; e.Measured = []byte("evil"); m.measure(len(m.events)-2, e) },
		"another word":              func(m *machine) { e := action; e.Data = []byte("evil"); m.measure(len(m.events)-2, e) },
		"not the one in the policy": func(m *machine) { delete(m.policy.Started, loader) },
		"none": func(m *machine) {
			m.events = slices.DeleteFunc(slices.Clone(m.events), func(e tpmtest.FirmwareEvent) bool { return string(e.Measured) == "boot loader" })
			m.booted = m.events
		},
	} {
		expect(t, name, judge(change), attest.NotTrusted, attest.OtherBootLoader)
	}
}
