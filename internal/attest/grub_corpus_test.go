package attest_test

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm/eventlog"
)

var (
	kernelName = regexp.MustCompile(`vmlinuz|/kernel\x00|linuxefi Kernel`)
	initrdName = regexp.MustCompile(`initr|linuxefi Initrd`)
)

// Real machines that GRUB booted are trusted by a policy that has what they did, and
// by none that lacks any of it.
func TestGRUBLogs(t *testing.T) {
	logs := 0
	for _, name := range slices.Sorted(maps.Keys(corpus.Manifest(t, "eventlog"))) {
		log := corpus.Read(t, name)
		l, err := eventlog.Parse(log)
		registers, ok := l.Replay(digest.SHA256)
		if err != nil || !ok || registers[policy.CommandPCR].Events == 0 {
			continue
		}
		if !bytes.Contains(log, []byte("grub_cmd")) {
			continue // systemd-boot's, of old
		}
		logs++
		m := newMachine(t)
		m.policy.SecureBoot, m.policy.Firmware = false, []int{4, 8, 9}
		m.change = func(ev *attest.Evidence) { ev.Firmware = log }
		m.values = map[int]digest.Digest{}
		for i := range 10 {
			m.values[i] = registers[i].Value
		}
		known := map[digest.Digest]bool{} // what each event of GRUB measured
		grub := false
		var image digest.Digest // last one
		p := m.policy
		p.Started, p.GRUB, p.Kernels, p.Initrds = map[digest.Digest]string{}, map[digest.Digest]bool{}, map[digest.Digest]string{}, map[digest.Digest]string{}
		for i := range l.Events {
			e := &l.Events[i]
			d, ok := e.Digest(digest.SHA256)
			switch {
			case !ok || e.Type == eventlog.NoAction:
			case e.PCR == policy.BootLoaderPCR && e.Type == eventlog.BootApplication:
				image = d
				if p.Started[d] == "" && grub {
					p.StartKernel(d, "kernel")
				}
				p.Started[d] = "image"
			case e.PCR == policy.CommandPCR:
				if !grub {
					p.StartGRUB(image, "GRUB")
				}
				grub = true
				measured, ok := e.Measured(digest.SHA256)
				text := string(bytes.TrimSuffix(measured, []byte{0}))
				if !ok {
					t.Errorf("%s: event %d: %q is not what was measured", name, e.Number, e.Data)
				} else if !p.Commands.Has(text) {
					if err := p.Commands.Add(policy.QuoteCommand(text)); err != nil {
						t.Fatal(err)
					}
				}
			case e.PCR != policy.FilePCR || bytes.Contains(e.Data, []byte(eventlog.LoadOptions)):
			case kernelName.Match(e.Data):
				p.StartKernel(d, "kernel")
			case initrdName.Match(e.Data):
				p.Initrds[d] = "initramfs"
			default:
				known[d] = true
				p.Known.Add(d, policy.Source{Reason: "a file"})
			}
		}
		expect(t, name, m.judge(t), attest.Trusted)
		for d := range known {
			p.Denied = map[digest.Digest]string{d: "no"}
			if v := m.judge(t); v.Outcome != attest.NotTrusted {
				t.Errorf("%s: without %s: %v", name, d, v.Outcome)
			}
		}
	}
	if logs < 8 {
		t.Errorf("%d logs only", logs)
	}
}
