package attest_test

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm/imalog"
	"diglim/tpm/tpmtest"
)

// What a fleet remembers of one host makes no other one good: whatever is
// changed in an entry, it is judged as if it were alone.
func TestFleetIsNotFooled(t *testing.T) {
	h := honest(t)
	for i := range h.log {
		h.log[i].Digest = file("bash")
	}
	h.log[0].Digest = bootAggregate(digest.SHA256, 10)
	for name, change := range map[string]func(*host){
		"path":   func(h *host) { h.log[2].Path = "/usr/bin/other" },
		"digest": func(h *host) { h.log[2].Digest = file("evil") },
		"digest, old hash": func(h *host) {
			h.log[2].Hash = digest.Sum(h.width, h.log[2].TemplateData()).Bytes()
			h.log[2].Digest = file("evil")
		},
		"hash":                func(h *host) { h.log[2].Hash = make([]byte, h.width.Size()); h.log[2].Hash[0] = 1 },
		"called a violation":  func(h *host) { h.log[2].Violation = true },
		"template":            func(h *host) { h.log[2].Template = "ima-ngv2" },
		"template of our own": func(h *host) { h.log[2].Template = "d-ng|n-ng" },
		"PCR":                 func(h *host) { h.log[2].PCR = 9 },
		"another order":       func(h *host) { h.log[2], h.log[3] = h.log[3], h.log[2] },
		"another in between":  func(h *host) { h.log = slices.Insert(h.log, 3, tpmtest.NewEntry("/usr/bin/evil", file("evil"))) },
		"one left out":        func(h *host) { h.log = slices.Delete(h.log, 2, 3) },
		"another width":       func(h *host) { h.width = digest.SHA256 },
		"another byte order": func(h *host) {
			for i := range h.log {
				h.log[i].BigEndian = true
			}
		},
		"denied by the policy": func(h *host) { h.policy.Denied = map[digest.Digest]string{file("bash"): "CVE"} },
		"bound to a path": func(h *host) {
			h.policy.Known = policy.Files{}
			h.policy.Known.Add(file("bash"), policy.Source{Path: "/usr/bin/bash", There: true})
		},
	} {
		for _, extended := range []bool{false, true} {
			c := h
			copied := *h.policy
			c.policy, c.log = &copied, slices.Clone(h.log)
			change(&c)
			c.real = h.log[:5]
			if extended {
				c.real = c.log[:5]
			}
			f := attest.NewFleet(c.policy)
			first := h
			first.real = h.log[:5]
			f.Judge(first.evidence(t), attest.Challenge{Nonce: h.nonce, AK: h.ak})
			ev, ch := c.evidence(t), attest.Challenge{Nonce: c.nonce, AK: c.ak}
			if alone, by := attest.Judge(ev, ch, c.policy), f.Judge(ev, ch); !reflect.DeepEqual(alone, by) {
				t.Errorf("%s: alone: %+v\nin a fleet: %+v", name, alone, by)
			}
		}
	}
}

// A signature is verified once.
func TestFleetRemembersSignatures(t *testing.T) {
	k := newSigningKey(t, "vendor", newRSA(t), keyID)
	h := honest(t)
	h.policy.Signers = parseSigners(t, k.cert.Raw)
	for i := range 200 {
		d := file(fmt.Sprint("signed ", i))
		h.add(withFields("ima-sig", tpmtest.Tagged(d), attribute(3, 2, digest.SHA256, k.over(t, d))))
	}
	f := attest.NewFleet(h.policy)
	ev, ch := h.evidence(t), attest.Challenge{Nonce: h.nonce, AK: h.ak}
	allocated := func(judge func()) float64 { return testing.AllocsPerRun(1, judge) }
	alone := allocated(func() { attest.Judge(ev, ch, h.policy) })
	f.Judge(ev, ch)
	if again := allocated(func() { f.Judge(ev, ch) }); again > alone/2 {
		t.Errorf("%v allocations, alone %v", again, alone)
	}
	expect(t, "signed", f.Judge(ev, ch), attest.Trusted)
}

// A fleet's memory has an end, and hosts are judged side by side.
func TestFleetMemory(t *testing.T) {
	h := honest(t)
	f := attest.NewFleet(h.policy)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var hosts sync.WaitGroup
	for range 2 {
		hosts.Go(func() {
			for i := range 14 {
				h := honest(t)
				h.log = h.log[:1:1]
				for n := range 1500 {
					h.log = append(h.log, tpmtest.NewEntry(fmt.Sprint("/", i, "/", n, strings.Repeat("p", imalog.MaxPath-100)), file("bash")))
				}
				h.real = h.log
				if v := f.Judge(h.evidence(t), attest.Challenge{Nonce: h.nonce, AK: h.ak}); v.Outcome != attest.Trusted {
					t.Errorf("%+v", v.Findings)
				}
			}
		})
	}
	hosts.Wait()
	if got := heap() - before; got > 2*attest.MaxRemembered {
		t.Errorf("%d bytes", got)
	}
	runtime.KeepAlive(f)
}
