package policy

import (
	"testing"

	"diglim/internal/digest"
)

func TestRejects(t *testing.T) {
	var known Files
	known.Add(digest.Sum(digest.SHA256, nil), Source{})
	grub := func(change func(*Policy)) *Policy {
		p := &Policy{Bank: digest.SHA256, PCR: IMAPCR, Known: known, Firmware: []int{4, 8, 9}, GRUB: map[digest.Digest]bool{{}: true}}
		if err := p.Commands.Add("boot"); err != nil {
			t.Fatal(err)
		}
		change(p)
		return p
	}
	for name, c := range map[string]struct {
		policy *Policy
		want   bool
	}{
		"none":                {nil, true},
		"zero":                {&Policy{}, true},
		"no file":             {&Policy{Bank: digest.SHA256, PCR: IMAPCR}, true},
		"no bank":             {&Policy{PCR: IMAPCR, Known: known}, true},
		"a bank of no hash":   {&Policy{Bank: digest.SM3, PCR: IMAPCR, Known: known}, true},
		"PCR 24":              {&Policy{Bank: digest.SHA256, PCR: 24, Known: known}, true},
		"PCR -1":              {&Policy{Bank: digest.SHA256, PCR: -1, Known: known}, true},
		"firmware PCR 24":     {&Policy{Bank: digest.SHA256, PCR: IMAPCR, Known: known, Firmware: []int{24}}, true},
		"Secure Boot alone":   {&Policy{Bank: digest.SHA256, PCR: IMAPCR, Known: known, Firmware: []int{0}, SecureBoot: true}, true},
		"Secure Boot, PCR 7":  {&Policy{Bank: digest.SHA256, PCR: IMAPCR, Known: known, Firmware: []int{7}, SecureBoot: true}, false},
		"boot loader alone":   {&Policy{Bank: digest.SHA256, PCR: IMAPCR, Known: known, Firmware: []int{7}, Started: map[digest.Digest]string{{}: "x"}}, true},
		"boot loader, PCR 4":  {&Policy{Bank: digest.SHA256, PCR: IMAPCR, Known: known, Firmware: []int{4}, Started: map[digest.Digest]string{{}: "x"}}, false},
		"command line alone":  {&Policy{Bank: digest.SHA256, PCR: IMAPCR, Known: known, Firmware: []int{7}, CommandLines: []string{"quiet"}}, true},
		"initramfs alone":     {&Policy{Bank: digest.SHA256, PCR: IMAPCR, Known: known, Firmware: []int{9}, Initrds: map[digest.Digest]string{{}: "x"}}, true},
		"command line, PCR 9": {&Policy{Bank: digest.SHA256, PCR: IMAPCR, Known: known, Firmware: []int{9}, CommandLines: []string{"quiet"}}, false},
		"GRUB":                {grub(func(*Policy) {}), false},
		"GRUB, PCRs 4 and 9":  {grub(func(p *Policy) { p.Firmware = []int{4, 9} }), true},
		"GRUB, PCRs 4 and 8":  {grub(func(p *Policy) { p.Firmware = []int{4, 8} }), true},
		"GRUB, PCRs 8 and 9":  {grub(func(p *Policy) { p.Firmware = []int{8, 9} }), true},
		"GRUB, told nothing":  {grub(func(p *Policy) { p.Commands = Commands{} }), true},
		"GRUB and EFI stub":   {grub(func(p *Policy) { p.CommandLines = []string{"quiet"} }), true},
		"GRUB and initramfs":  {grub(func(p *Policy) { p.Initrds = map[digest.Digest]string{{}: "x"} }), false},
		"commands alone":      {grub(func(p *Policy) { p.GRUB = nil }), true},
		"kernel alone":        {&Policy{Bank: digest.SHA256, PCR: IMAPCR, Known: known, Firmware: []int{4, 8, 9}, Kernels: map[digest.Digest]string{{}: "x"}}, true},
		"a bank and one file": {&Policy{Bank: digest.SHA256, PCR: IMAPCR, Known: known}, false},
	} {
		if got := c.policy.Rejects(); got != c.want {
			t.Errorf("%s: rejects %v", name, got)
		}
	}
}
