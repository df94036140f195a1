package policy

import (
	"testing"

	"diglim/internal/digest"
)

func TestRejects(t *testing.T) {
	var known Files
	known.Add(digest.Sum(digest.SHA256, nil), Source{})
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
		"a bank and one file": {&Policy{Bank: digest.SHA256, PCR: IMAPCR, Known: known}, false},
	} {
		if got := c.policy.Rejects(); got != c.want {
			t.Errorf("%s: rejects %v", name, got)
		}
	}
}
