package gate

import (
	"errors"
	"testing"

	"diglim/internal/kernel/gate/set"
)

func TestMayReplace(t *testing.T) {
	owner := uint32(1000)
	header := func(change func(*set.Header)) set.Header {
		h := set.Header{
			Generation: 7, Mode: set.Enforce, Anchor: [32]byte{1},
			Rules: []set.Rule{{Path: "/home", Owner: &owner}},
		}
		if change != nil {
			change(&h)
		}
		return h
	}
	sameOwner, otherOwner := uint32(1000), uint32(1001)
	next := func(change func(*set.Header)) set.Header {
		return header(func(h *set.Header) {
			h.Generation++
			h.Rules[0].Owner = &sameOwner
			if change != nil {
				change(h)
			}
		})
	}
	for _, c := range []struct {
		name     string
		old, new set.Header
		may      bool
	}{
		{"the same", header(nil), next(nil), true},
		{"more lists, later", header(nil), next(func(h *set.Header) { h.Lists = 9; h.Generation = 20 }), true},
		{"no rules left", header(nil), next(func(h *set.Header) { h.Rules = nil }), true},
		{"mode raised", header(func(h *set.Header) { h.Mode = set.Log }), next(nil), true},
		{"mode lowered", header(nil), next(func(h *set.Header) { h.Mode = set.Log }), false},
		{"other keyring", header(nil), next(func(h *set.Header) { h.Anchor[31] = 1 }), false},
		{"no keyring", header(nil), next(func(h *set.Header) { h.Anchor = [32]byte{} }), false},
		{"never a keyring", header(func(h *set.Header) { h.Anchor = [32]byte{} }), next(func(h *set.Header) { h.Anchor = [32]byte{} }), false},
		{"rules where none were", header(func(h *set.Header) { h.Rules = nil }), next(nil), false},
		{"rule more", header(nil), next(func(h *set.Header) { h.Rules = append(h.Rules, set.Rule{Path: "/srv"}) }), false},
		{"rule for others", header(nil), next(func(h *set.Header) { h.Rules[0].Owner = &otherOwner }), false},
		{"rule for all", header(nil), next(func(h *set.Header) { h.Rules[0].Owner = nil }), false},
		{"the same generation", header(nil), next(func(h *set.Header) { h.Generation = 7 }), false},
		{"an older generation", header(nil), next(func(h *set.Header) { h.Generation = 6 }), false},
	} {
		err := MayReplace(c.old, c.new, true)
		if (err == nil) != c.may || err != nil && !errors.Is(err, ErrWeakens) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := MayReplace(c.old, c.new, false); err != nil {
			t.Errorf("%s, not locked: %v", c.name, err)
		}
	}
}
