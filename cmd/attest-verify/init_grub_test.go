package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/internal/policy"
)

// What is written of real machines' boots is a policy that allows them, and of
// others none.
func TestReadGRUB(t *testing.T) {
	found := 0
	for _, name := range slices.Sorted(maps.Keys(corpus.Manifest(t, "eventlog"))) {
		log := corpus.Read(t, name)
		g := readGRUB(log, digest.SHA256)
		if g == nil {
			if strings.Contains(string(log), "grub_cmd: ") && !strings.Contains(name, "ccel") && !strings.HasSuffix(name, ".yaml") { // no logs of PCRs
				t.Errorf("%s: GRUB not found", name)
			}
			continue
		}
		found++
		f := &policy.File{}
		g.ask(f)
		var w writer
		w.WriteString("policy 1\nfirmware-log 4,8-9\n")
		w.grub(g, attest.Verdict{Findings: []attest.Finding{{Code: attest.OtherBootFile, Event: slices.Max(slices.Collect(maps.Keys(g.names)))}}})
		written, err := policy.ParseFile(w.Bytes())
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, w.String())
			continue
		}
		if len(f.GRUB) != 1 || len(g.odd) > 0 || len(g.images) < 1 || len(w.unknown) != 3 ||
			!maps.Equal(written.GRUB, f.GRUB) || !maps.Equal(written.Kernels, f.Kernels) || !maps.Equal(written.Started, f.Started) || written.Commands.Len() != f.Commands.Len() {
			t.Errorf("%s: %+v\n%s", name, g, w.String())
		}
	}
	if found < 8 {
		t.Errorf("%d boots by GRUB only", found)
	}
}
