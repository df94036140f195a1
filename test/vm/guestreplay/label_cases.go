package main

import (
	"bytes"
	"fmt"
	"strings"
)

// label writes a label as it is, uploads a list after it and shows the names
// of the files.
func (r *replay) label(id, label string) {
	r.writeLabel(id, label)
	r.change(id+"-up", listM, func() result { return add(listM) })
	names := ""
	for _, name := range r.state().files {
		if rest, ok := strings.CutPrefix(name, "sha256-"+hexOf(sum(listM))+"-"); ok {
			names += rest + " "
		}
	}
	if len(names) > 200 {
		names = fmt.Sprintf("len %d: %s..%s", len(names), names[:20], names[len(names)-100:])
	}
	r.row(id+"-name", nil, result{}, names)
}

func (r *replay) writeLabel(id, label string) {
	r.change(id, nil, func() result { return write("digest_list_label", []byte(label)) })
}

// forget deletes the list that was uploaded with a label.
func (r *replay) forget(label string) {
	if res := delAs(label, listM); res.err != nil {
		r.fail(fmt.Errorf("delete list of label %q: %v", label, res))
	}
}

func (r *replay) labelCases() {
	for _, c := range []struct{ id, label, used string }{
		{"l-plain", "plain", "plain"},
		{"l-nul", "plain2\x00", "plain2"},
		{"l-newline", "abc\n", ""},
		{"l-space", "a b", ""},
		{"l-latin1", "caf\xe9", "caf\xe9"},
		{"l-80", "a\x80b", ""},
		{"l-a0", "a\xa0b", ""},
		{"l-utf8", "\xc3\xa9", "\xc3\xa9"},
		{"l-slash", "dir/sub/name", "name"},
		{"l-slash-end", "dir/", "dir/"},
		{"l-slash-only", "/", "/"},
		{"l-dot", "..", ".."},
		{"l-nulmid", "ab\x00cd", "ab"},
		{"l-0", "", ""},
		{"l-onlynul", "\x00", ""},
		{"l-ascii", "x.ascii", "x.ascii"},
		{"l-177", strings.Repeat("a", 177), strings.Repeat("a", 177)},
		{"l-178", strings.Repeat("b", 178), strings.Repeat("b", 178)},
		{"l-182", strings.Repeat("c", 182), strings.Repeat("c", 182)},
		{"l-250dots", "x." + strings.Repeat("d", 248), "x." + strings.Repeat("d", 248)},
		{"l-255nul", strings.Repeat("\x00", 255), ""},
	} {
		r.label(c.id, c.label)
		r.forget(c.used)
	}
	r.writeLabel("l-tab", "a\tb")
	r.writeLabel("l-del7f", "a\x7f")

	long := bytes.Repeat([]byte("e"), 256)
	r.writeLabel("l-255", string(long[:255]))
	r.writeLabel("l-256", string(long))
	write("digest_list_label", make([]byte, 255))
	r.writeLabel("l-longer", "longlabel")
	r.label("l-shorter-no-nul", "ab")
	res := delAs("ab", listM)
	r.row("l-shorter-no-nul-clean", nil, result{}, fmt.Sprintf("%v %s", res, r.state().counts))
	r.row("l-shorter-c", nil, result{}, r.cleanup("abnglabel", listM))

	r.change("l-256-keeps", listM, func() result {
		setLabel("keep")
		write("digest_list_label", long)
		return add(listM)
	})
	r.row("l-256-keeps-c", nil, result{}, r.cleanup("keep", listM))
	r.change("l-efault", nil, func() result { return writeBadPointer("digest_list_label", 4) })
	r.change("l-pwrite", nil, func() result { return pwriteAt("digest_list_label", []byte("xyz\x00"), 3) })
	r.change("l-pwrite-up", listM, func() result { return add(listM) })
	r.row("l-pwrite-c", nil, result{}, r.cleanup("xyz", listM))

	bad := bytes.Clone(listM)
	bad[0] = 2
	r.change("l-bad", bad, func() result { return addAs("gone", bad) })
	r.change("l-bad-then", listM, func() result { return add(listM) })
	r.row("l-bad-c", nil, result{}, r.cleanup("", listM))
}
