package attest_test

import (
	"slices"
	"strings"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm/eventlog"
	"diglim/tpm/tpmtest"
)

// Events that GRUB makes. What it says of them is in front of the text, or is a
// name, and is not hashed.
func told(text string) tpmtest.FirmwareEvent {
	return tpmtest.FirmwareEvent{PCR: 8, Type: 0xd, Data: []byte("grub_cmd: " + text + "\x00"), Measured: []byte(text)}
}

func cmdline(text string) tpmtest.FirmwareEvent {
	return tpmtest.FirmwareEvent{PCR: 8, Type: 0xd, Data: []byte("kernel_cmdline: " + text + "\x00"), Measured: []byte(text)}
}

func read(name, content string) tpmtest.FirmwareEvent {
	return tpmtest.FirmwareEvent{PCR: 9, Type: 0xd, Data: []byte(name + "\x00"), Measured: []byte(content)}
}

func started(content string) tpmtest.FirmwareEvent {
	return tpmtest.FirmwareEvent{PCR: 4, Type: tpmtest.EVImage, Data: []byte("somewhere"), Measured: []byte(content)}
}

// stub is what the kernel measures of its command line when GRUB starts it.
func stub(text string) tpmtest.FirmwareEvent {
	e := loadOptions("BOOT_IMAGE=" + text)
	e.Digests[1] = eventlog.MeasuredByGRUB(digest.SHA256, text)[0]
	return e
}

const (
	kernelLine  = "/vmlinuz-6.1 root=/dev/vda ro"
	settings    = "(hd0,gpt1)/EFI/debian/grub.cfg"
	kernelPath  = "/vmlinuz-6.1"
	initrdPath  = "/initrd.img-6.1"
	grubConsole = "init=/bin/sh"
)

// grubBoot is a boot by shim (the boot loader of tpmtest.Boot) and GRUB.
func grubBoot() []tpmtest.FirmwareEvent {
	return []tpmtest.FirmwareEvent{
		started("GRUB"),
		read(settings, "settings"),
		told("search.fs_uuid 94f07b36-6512 root"),
		told("menuentry Debian {\n\tlinux " + kernelLine + "\n}"),
		told("linux " + kernelLine),
		read(kernelPath, "kernel file"),
		started("kernel"), started("kernel"), // shim looks at it twice
		cmdline(kernelLine),
		told("initrd " + initrdPath),
		read(initrdPath, "initramfs"),
	}
}

// newGRUB is a machine that boots so, and has a policy about that.
func newGRUB(t *testing.T, events ...tpmtest.FirmwareEvent) *machine {
	m := newMachine(t)
	m.measure(len(m.events)-2, events...)
	sum := func(content string) digest.Digest { return digest.Sum(digest.SHA256, []byte(content)) }
	m.policy.Started = map[digest.Digest]string{sum("boot loader"): "shim"}
	m.policy.GRUB, m.policy.Kernels = map[digest.Digest]bool{}, map[digest.Digest]string{}
	m.policy.StartGRUB(sum("GRUB"), "GRUB")
	m.policy.StartKernel(sum("kernel"), "its Authenticode hash")
	m.policy.Initrds = map[digest.Digest]string{sum("initramfs"): "made by dracut"}
	for _, text := range []string{"search.fs_uuid * root", "menuentry **", "linux " + kernelLine, kernelLine, "initrd " + initrdPath, "[ -s *", `echo \*`} {
		if err := m.policy.Commands.Add(text); err != nil {
			t.Fatal(err)
		}
	}
	m.policy.Known.Add(sum("settings"), policy.Source{Reason: "grub.cfg"})
	m.policy.Known.Add(sum("kernel file"), policy.Source{Path: "/usr/share/doc/kernel", Package: "linux-doc"})
	m.policy.Known.Add(sum("kernel file"), policy.Source{Path: "/boot/vmlinuz-6.1", Package: "linux-image"})
	m.policy.Known.Add(sum("module"), policy.Source{Path: "/usr/lib/grub/x86_64-efi/gzio.mod", Package: "grub-efi-amd64-bin"})
	m.policy.Known.Add(sum("at its path"), policy.Source{Path: settings, Reason: "there only", There: true})
	return m
}

func TestGRUB(t *testing.T) {
	v := newGRUB(t, grubBoot()...).judge(t)
	expect(t, "honest", v, attest.Trusted)
	var stated []string
	for _, s := range v.Stated {
		if s.PCR == policy.FilePCR {
			stated = append(stated, s.Text)
		}
	}
	if want := []string{"grub.cfg", "/boot/vmlinuz-6.1 of linux-image", "made by dracut"}; !slices.Equal(stated, want) {
		t.Errorf("%q, want %q", stated, want)
	}

	type events = []tpmtest.FirmwareEvent
	// edit is the boot with events of it replaced by others.
	edit := func(from, to int, with ...tpmtest.FirmwareEvent) events {
		return slices.Replace(grubBoot(), from, to, with...)
	}
	add := func(with ...tpmtest.FirmwareEvent) events { return append(grubBoot(), with...) }
	unproven := told("linux " + kernelLine)
	unproven.Measured = []byte("linux /vmlinuz " + grubConsole)
	whole := told("initrd " + initrdPath)
	whole.Measured = []byte("initrd " + initrdPath + "\x00") // as some versions do
	back := tpmtest.FirmwareEvent{PCR: 4, Type: tpmtest.EVAction, Data: []byte("Returning from EFI Application from Boot Option")}
	for name, c := range map[string]struct {
		events events
		leaves attest.Outcome
		codes  []attest.Code
	}{
		"with a module, twice":           {edit(1, 1, read("gzio.mod", "module"), read("gzio.mod", "module")), attest.Trusted, nil},
		"a kernel that measures, too":    {add(stub(kernelLine), initrd("initramfs")), attest.Trusted, nil},
		"one with a NUL":                 {add(loadOptions("BOOT_IMAGE="+kernelLine), initrd("initramfs")), attest.Trusted, nil},
		"an initramfs that it asks for":  {edit(10, 11, stub(kernelLine), read(initrdPath, "initramfs"), initrd("initramfs")), attest.Trusted, nil},
		"GRUB that measures a NUL":       {edit(9, 10, whole), attest.Trusted, nil},
		"a first kernel that was no use": {edit(4, 4, told("linux "+kernelLine), read(kernelPath, "kernel file"), read("gzio.mod", "module")), attest.Trusted, nil},
		"a second attempt of firmware":   {append(events{back}, grubBoot()...), attest.Trusted, nil},
		"no kernel on PCR 4":             {edit(6, 8), attest.Trusted, nil},

		"another command line":                  {edit(8, 9, cmdline(kernelLine+" "+grubConsole)), attest.NotTrusted, []attest.Code{attest.OtherCommand}},
		"another, then the right":               {edit(8, 8, cmdline("/vmlinuz-6.1 "+grubConsole)), attest.NotTrusted, []attest.Code{attest.OtherCommand}},
		"a command, typed":                      {edit(4, 4, told("set root=hd1,gpt1")), attest.NotTrusted, []attest.Code{attest.OtherCommand}},
		"a command, under another name":         {edit(4, 4, cmdline("set root=hd1,gpt1")), attest.NotTrusted, []attest.Code{attest.OtherCommand}},
		"a command of another type":             {edit(4, 4, tpmtest.FirmwareEvent{PCR: 8, Type: 4, Data: []byte("evil")}), attest.NotTrusted, []attest.Code{attest.OtherCommand}},
		"a command that the log does not say":   {edit(4, 5, unproven), attest.NotTrusted, []attest.Code{attest.OtherCommand}},
		"words where one may stand":             {edit(2, 3, told("search.fs_uuid 9 "+grubConsole+" root")), attest.NotTrusted, []attest.Code{attest.OtherCommand}},
		"other settings":                        {edit(1, 2, read(settings, "evil")), attest.NotTrusted, []attest.Code{attest.OtherBootFile}},
		"settings known at their path alone":    {edit(1, 2, read(settings, "at its path")), attest.NotTrusted, []attest.Code{attest.OtherBootFile}},
		"other settings, and then good ones":    {edit(1, 1, read(settings, "evil")), attest.NotTrusted, []attest.Code{attest.OtherBootFile}},
		"another kernel":                        {edit(5, 6, read(kernelPath, "evil")), attest.NotTrusted, []attest.Code{attest.OtherBootFile}},
		"another kernel, and the good one":      {edit(5, 5, read(kernelPath, "evil")), attest.NotTrusted, []attest.Code{attest.OtherBootFile}},
		"another initramfs":                     {edit(10, 11, read(initrdPath, "evil")), attest.NotTrusted, []attest.Code{attest.OtherInitrd}},
		"another initramfs, and the good one":   {edit(10, 10, read(initrdPath, "evil")), attest.NotTrusted, []attest.Code{attest.OtherInitrd}},
		"the good one, and another":             {add(read(initrdPath, "evil")), attest.NotTrusted, []attest.Code{attest.OtherInitrd}},
		"a known file as the initramfs":         {edit(10, 11, read(initrdPath, "module")), attest.NotTrusted, []attest.Code{attest.OtherInitrd}},
		"that, and the good one as settings":    {slices.Concat(events{read("grubenv", "initramfs")}, edit(10, 11, read(initrdPath, "module"))), attest.NotTrusted, []attest.Code{attest.OtherInitrd}},
		"no initramfs":                          {edit(10, 11), attest.NotTrusted, []attest.Code{attest.OtherInitrd}},
		"no initramfs, and it read before":      {slices.Concat(events{read("grubenv", "initramfs")}, edit(10, 11)), attest.NotTrusted, []attest.Code{attest.OtherInitrd}},
		"a kernel that was told something else": {add(stub("/vmlinuz-6.1 "+grubConsole), initrd("initramfs")), attest.NotTrusted, []attest.Code{attest.OtherInitrd}},
		"a kernel that was told without GRUB":   {add(loadOptions(kernelLine)), attest.NotTrusted, []attest.Code{attest.OtherInitrd}},

		"nothing on PCR 8":            {events{started("GRUB"), read(kernelPath, "kernel file"), read(initrdPath, "initramfs")}, attest.CouldNotTell, []attest.Code{attest.GRUBUnclear}},
		"no kernel":                   {edit(5, 6), attest.CouldNotTell, []attest.Code{attest.GRUBUnclear}},
		"nothing at all":              {nil, attest.NotTrusted, []attest.Code{attest.OtherBootLoader, attest.GRUBUnclear, attest.GRUBUnclear}},
		"no GRUB":                     {edit(0, 1), attest.NotTrusted, []attest.Code{attest.OtherBootLoader}},
		"another GRUB":                {edit(0, 1, started("old GRUB")), attest.NotTrusted, []attest.Code{attest.OtherBootLoader}},
		"a kernel before GRUB":        {append(events{started("kernel")}, grubBoot()...), attest.NotTrusted, []attest.Code{attest.OtherBootLoader}},
		"a kernel by shim":            {append(edit(0, 1), started("GRUB")), attest.NotTrusted, []attest.Code{attest.OtherBootLoader}},
		"a kernel by firmware":        {edit(6, 6, back), attest.NotTrusted, []attest.Code{attest.OtherBootLoader}},
		"a kernel by firmware, tacit": {edit(6, 6, tpmtest.FirmwareEvent{PCR: 4, Type: tpmtest.EVSeparator, Data: make([]byte, 4)}), attest.NotTrusted, []attest.Code{attest.OtherBootLoader}},
		"a kernel by shim, by GRUB":   {edit(6, 6, started("boot loader")), attest.NotTrusted, []attest.Code{attest.OtherBootLoader}},
		"another kernel on PCR 4":     {edit(6, 7, started("old kernel")), attest.NotTrusted, []attest.Code{attest.OtherBootLoader}},
	} {
		expect(t, name, newGRUB(t, c.events...).judge(t), c.leaves, c.codes...)
	}

	m := newGRUB(t, edit(9, 11)...)
	m.policy.Initrds = nil
	expect(t, "without an initramfs, and none wanted", m.judge(t), attest.Trusted)
	m = newGRUB(t, grubBoot()...)
	m.policy.Initrds = nil
	expect(t, "with one, and none wanted", m.judge(t), attest.NotTrusted, attest.OtherInitrd)
	m = newGRUB(t, grubBoot()...)
	m.policy.Denied = map[digest.Digest]string{digest.Sum(digest.SHA256, []byte("kernel file")): "CVE"}
	expect(t, "a kernel that is denied", m.judge(t), attest.NotTrusted, attest.DeniedFile)
	m = newGRUB(t, edit(5, 6, read(kernelPath, "my own"))...)
	m.policy.StartKernel(digest.Sum(digest.SHA256, []byte("my own")), "built here")
	expect(t, "a kernel of the policy", m.judge(t), attest.Trusted)
	m = newGRUB(t, grubBoot()...)
	m.pcrs = slices.DeleteFunc(slices.Clone(m.pcrs), func(pcr int) bool { return pcr == 8 })
	expect(t, "PCR 8 is not quoted", m.judge(t), attest.CouldNotTell, attest.PCRNotQuoted, attest.NoAggregatePCRs)

	m = newGRUB(t, edit(4, 5, unproven)...)
	if err := m.policy.Commands.Add("**"); err != nil {
		t.Fatal(err)
	}
	expect(t, "anything may be told, and the log does not say what", m.judge(t), attest.NotTrusted, attest.OtherCommand)

	// The end of it handed in as what the running system measured.
	m = newGRUB(t, edit(8, 10)...)
	m.systemd = []record{{pcr: 8, text: "linux /vmlinuz " + grubConsole}, {pcr: 8, text: "initrd " + initrdPath}}
	expect(t, "records", m.judge(t), attest.NotTrusted, attest.LateEvent)

	// A log that says what should have been.
	m = newGRUB(t, edit(8, 9, cmdline(kernelLine+" "+grubConsole))...)
	m.events = slices.Clone(m.events)
	at := slices.IndexFunc(m.events, func(e tpmtest.FirmwareEvent) bool { return string(e.Measured) == kernelLine+" "+grubConsole })
	m.events[at] = cmdline(kernelLine)
	expect(t, "a log made up", m.judge(t), attest.NotTrusted, attest.FirmwareDiffers)
}

// Somebody who booted without an initramfs measures it later, as GRUB would have.
// The boot aggregate is older, unless it leaves PCR 9 out.
func TestMeasuredAfterGRUB(t *testing.T) {
	m := newGRUB(t, grubBoot()...)
	isInitrd := func(e tpmtest.FirmwareEvent) bool { return string(e.Measured) == "initramfs" }
	m.early = slices.DeleteFunc(slices.Clone(m.booted), isInitrd)
	expect(t, "later", m.judge(t), attest.NotTrusted, attest.WrongAggregate)
	m.aggregate = digest.SHA1
	v := m.judge(t)
	expect(t, "SHA-1", v, attest.CouldNotTell, attest.NoAggregatePCRs)
	if !strings.Contains(v.Findings[0].Why, "0 to 7 alone") {
		t.Errorf("%s", v.Findings[0].Why)
	}
}
