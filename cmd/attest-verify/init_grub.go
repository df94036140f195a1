package main

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"diglim/internal/attest"
	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm"
	"diglim/tpm/eventlog"
)

// A grubBoot is what a firmware's log says of a boot by GRUB.
type grubBoot struct {
	images   []started // on PCR 4, each once
	commands []string  // on PCR 8, each once
	odd      []int     // numbers of events on PCR 8 that do not say what was measured
	names    map[int]string
}

// started is an image that was started, and the statement for such a one.
type started struct {
	digest  digest.Digest
	keyword string
}

// readGRUB looks for a boot by GRUB, and is nil if there was none. The order of
// events on different PCRs is the log's word: the last image before what GRUB was
// told is GRUB, and those after it are kernels.
func readGRUB(log []byte, bank digest.Algorithm) *grubBoot {
	l, _ := eventlog.Parse(log) // Judge says what is wrong with it
	g := grubBoot{names: map[int]string{}}
	loader := "boot-loader"
	for i := range l.Events {
		e := &l.Events[i]
		d, ok := e.Digest(bank)
		switch {
		case !ok:
		case e.PCR == policy.BootLoaderPCR && e.Type == eventlog.BootApplication:
			if !slices.ContainsFunc(g.images, func(s started) bool { return s.digest == d }) {
				g.images = append(g.images, started{d, loader})
			}
		case e.PCR == policy.FilePCR:
			g.names[e.Number] = strings.TrimSuffix(string(e.Data), "\x00")
		case e.PCR == policy.CommandPCR:
			if n := len(g.images); n > 0 && loader == "boot-loader" && strings.HasPrefix(string(e.Data), "grub_cmd") {
				g.images[n-1].keyword, loader = "grub", "kernel"
			}
			b, ok := e.Measured(bank)
			switch text := policy.QuoteCommand(strings.TrimSuffix(string(b), "\x00")); {
			case !ok || text == "":
				g.odd = append(g.odd, e.Number)
			case !slices.Contains(g.commands, text):
				g.commands = append(g.commands, text)
			}
		}
	}
	if loader != "kernel" {
		return nil
	}
	return &g
}

// quoted reports whether a quote covers what it was measured to.
func (g *grubBoot) quoted(pcrs *tpm.PCRs, bank digest.Algorithm) bool {
	for _, i := range []int{policy.BootLoaderPCR, policy.CommandPCR, policy.FilePCR} {
		if _, ok := pcrs.Value(bank, i); !ok {
			return false
		}
	}
	return true
}

// ask has the policy ask for this boot.
func (g *grubBoot) ask(f *policy.File) {
	f.Policy.Firmware = append(f.Policy.Firmware, policy.CommandPCR, policy.FilePCR)
	f.Started, f.GRUB, f.Kernels = map[digest.Digest]string{}, map[digest.Digest]bool{}, map[digest.Digest]string{}
	for i, s := range g.images {
		why := g.why(i)
		switch s.keyword {
		case "grub":
			f.StartGRUB(s.digest, why)
		case "kernel":
			f.StartKernel(s.digest, why)
		default:
			f.Started[s.digest] = why
		}
	}
	g.commands = slices.DeleteFunc(g.commands, func(text string) bool { return f.Commands.Add(text) != nil })
}

func (g *grubBoot) why(i int) string {
	return fmt.Sprintf("image %d of those that were started", i+1)
}

// grub writes what GRUB did, and what of that nobody can know.
func (w *writer) grub(g *grubBoot, v attest.Verdict) {
	w.ask("which of the %s on PCR 4 is GRUB: it is taken for the last one before it is told something, and those after it for kernels", cli.Plural(len(g.images), "image"))
	for i, s := range g.images {
		w.line("%s %s %q", s.keyword, s.digest, g.why(i))
	}
	w.ask("which texts on PCR 8 differ from host to host or from boot to boot: * stands for a part of a word, ** for anything")
	for _, text := range g.commands {
		w.line("grub-command %q", text)
	}
	for _, n := range g.odd {
		w.ask("what event %d on PCR 8 is: its data is not what was measured", n)
	}
	seen := map[digest.Digest]bool{}
	for _, f := range v.Findings {
		name := g.names[f.Event]
		keyword, base := "file", path.Base(name)
		switch {
		case f.Code != attest.OtherBootFile && f.Code != attest.OtherInitrd || f.Event == 0 || seen[f.Digest]:
			continue
		case f.Code == attest.OtherInitrd || strings.HasPrefix(base, "initr"):
			keyword = "initramfs"
		case strings.HasPrefix(base, "vmlinuz"):
			keyword = "kernel"
		}
		seen[f.Digest] = true
		w.ask("what GRUB read as %q, event %d of the firmware's log: it is in no list", name, f.Event)
		w.line("# %s %s \"REASON\"", keyword, f.Digest)
	}
}
