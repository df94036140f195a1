package attest_test

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm"
	"diglim/tpm/imalog"
	"diglim/tpm/tpmtest"
)

// The log is read by the layout that arrives at the quoted value.
func TestLayouts(t *testing.T) {
	for _, width := range []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512} {
		for _, bigEndian := range []bool{false, true} {
			h := honest(t)
			h.width = width
			h.log = slices.Clone(h.log)
			for i := range h.log {
				h.log[i].BigEndian = bigEndian
			}
			h.real = h.log[:5]
			v := h.judge(t)
			expect(t, fmt.Sprint(width, bigEndian), v, attest.Trusted)
			if v.Proven != 5 || v.Log != attest.AheadOfQuote {
				t.Errorf("%s: %d proven, %s", width, v.Proven, v.Log)
			}
		}
	}
	// A log that begins with a violation can be read in two widths; the PCR says
	// which is right.
	h := honest(t)
	h.policy.ReportViolations = true
	zeros := imalog.Zero(digest.SHA256)
	h.log = slices.Insert(slices.Clone(h.log), 0, violation("/run/x", zeros))
	h.real = h.log[:6]
	h.width = digest.SHA256
	h.change = func(e *attest.Evidence) {
		log := content(e.IMALog)
		copy(log[24:], "\x04\x00\x00\x00name\x00\x00\x00\x00")
		e.IMALog = bytes.NewReader(log)
	}
	if v := h.judge(t); v.Outcome == attest.Trusted {
		t.Errorf("a forged template hash in an ambiguous log: %+v", v)
	}
	h.change = nil
	expect(t, "begins with a violation", h.judge(t), attest.Trusted, attest.Violation)
}

// A log in text proves what a binary one does, by hashes that are made anew.
func TestLogInText(t *testing.T) {
	for _, width := range []digest.Algorithm{digest.SHA1, digest.SHA256} {
		h := honest(t)
		h.change = func(e *attest.Evidence) { e.IMALog = strings.NewReader(tpmtest.Text(width, h.log...)) }
		v := h.judge(t)
		expect(t, "text", v, attest.Trusted, attest.TextLog)
		binary := honest(t).judge(t)
		v.Findings = binary.Findings
		if !reflect.DeepEqual(v, binary) {
			t.Errorf("%+v\n%+v", v, binary)
		}
		good := tpmtest.Text(width, h.log...)
		for name, c := range map[string]struct {
			text string
			code attest.Code
		}{
			"path":      {strings.Replace(good, "/usr/bin/bash", "/usr/bin/evil", 1), attest.WrongHash},
			"digest":    {strings.Replace(good, file("bash").Hex(), file("sshd").Hex(), 1), attest.WrongHash},
			"one less":  {strings.Replace(good, strings.SplitAfter(good, "\n")[2], "", 1), attest.DoesNotReplay},
			"cut":       {good[:len(good)/4], attest.Malformed},
			"not a log": {"10 green bottles\n", attest.Malformed},
		} {
			h.change = func(e *attest.Evidence) { e.IMALog = strings.NewReader(c.text) }
			if v := h.judge(t); v.Outcome == attest.Trusted || !has(v, c.code) || !has(v, attest.TextLog) {
				t.Errorf("%s: %v %+v", name, v.Outcome, v.Findings)
			}
		}
	}
	// A name with a newline is lost in text, and so is what comes after.
	h := honest(t)
	h.log = slices.Clone(h.log)
	h.log[5].Path = "/a\nb"
	h.change = func(e *attest.Evidence) { e.IMALog = strings.NewReader(tpmtest.Text(digest.SHA1, h.log...)) }
	expect(t, "a newline", h.judge(t), attest.CouldNotTell, attest.TextLog, attest.Malformed)
}

// What an old kernel extends is no proof, unless the policy says so.
func TestPaddedSHA1(t *testing.T) {
	h := honest(t)
	h.pcrs = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	padded := imalog.Zero(digest.SHA256)
	for _, e := range h.real {
		with := make([]byte, 32)
		copy(with, digest.Sum(digest.SHA1, e.TemplateData()).Bytes())
		padded = digest.Sum(digest.SHA256, padded.Bytes(), with)
	}
	judge := func() attest.Verdict {
		ev := h.evidence(t)
		quoted(t, &ev, map[int]digest.Digest{10: padded})
		return attest.Judge(ev, attest.Challenge{Nonce: h.nonce, AK: h.ak}, h.policy)
	}
	v := judge()
	expect(t, "denied", v, attest.CouldNotTell, attest.PaddedSHA1)
	if v.Proven != 5 {
		t.Errorf("%+v", v)
	}
	h.policy.ReportPadded = true
	expect(t, "reported", judge(), attest.Trusted, attest.PaddedSHA1)
	h.log = slices.Clone(h.log)
	h.log[2].Path = "/usr/bin/renamed"
	if v := judge(); v.Outcome != attest.NotTrusted || !has(v, attest.DoesNotReplay) {
		t.Errorf("changed: %+v", v.Findings)
	}
}

// Row 34: the digest of fs-verity is none of a file, whatever its bytes.
func TestAttack34VerityDigestIsNoFileDigest(t *testing.T) {
	entry := func(kind string, d digest.Digest) tpmtest.Entry {
		return tpmtest.Entry{PCR: 10, Template: "ima-ngv2", Path: "/usr/bin/bash",
			Fields: [][]byte{append([]byte(kind), tpmtest.Tagged(d)...), []byte("/usr/bin/bash\x00")}}
	}
	h := honest(t)
	h.add(entry("ima:", file("bash")))
	expect(t, "ima", h.judge(t), attest.Trusted)
	h = honest(t)
	h.add(entry("verity:", file("bash")))
	v := h.judge(t)
	expect(t, "verity", v, attest.NotTrusted, attest.UnknownFile)
	if !strings.Contains(v.Findings[0].Why, "fs-verity") {
		t.Error(v.Findings[0].Why)
	}
	// Both digests of one file, each called what the other is.
	merkle := file("the descriptor of bash")
	for _, c := range []struct {
		kind  string
		d     digest.Digest
		codes []attest.Code
	}{
		{"ima:", file("bash"), nil},
		{"verity:", merkle, nil},
		{"ima:", merkle, []attest.Code{attest.UnknownFile}},
		{"verity:", file("bash"), []attest.Code{attest.UnknownFile}},
		{"verity:", file("sshd"), []attest.Code{attest.UnknownFile}},
	} {
		h := honest(t)
		h.policy.Verity.Add(merkle, policy.Source{List: "0-verity_list-compact-bash"})
		h.add(entry(c.kind, c.d))
		want := attest.Trusted
		if c.codes != nil {
			want = attest.NotTrusted
		}
		expect(t, c.kind+c.d.String(), h.judge(t), want, c.codes...)
	}
	for _, kind := range []string{"", "ima:sha256:", "ima:verity:", "verity:ima:", "IMA:", "ima"} {
		h = honest(t)
		h.add(entry(kind, file("bash")))
		if v := h.judge(t); v.Outcome != attest.CouldNotTell || !has(v, attest.Malformed) {
			t.Errorf("%q: %v %+v", kind, v.Outcome, v.Findings)
		}
	}
}

// Rows 37 and 39: four words for how log and quote go together. From log and
// quote alone, entries removed look like entries missing at the end.
func TestAttack39TrimmedTamperedBehindAhead(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*host)
		want   attest.LogState
	}{
		{"as it is", func(h *host) {}, attest.AheadOfQuote},
		{"without its tail", func(h *host) { h.log = h.log[:5] }, attest.UpToQuote},
		{"without its end", func(h *host) { h.log = h.log[:4] }, attest.BehindQuote},
		{"without its beginning", func(h *host) { h.log = h.log[1:] }, attest.Trimmed},
		{"without its first three", func(h *host) { h.log = h.log[3:] }, attest.Trimmed},
		{"with another path", func(h *host) {
			h.log = slices.Clone(h.log)
			h.log[2].Hash = digest.Sum(h.width, h.log[2].TemplateData()).Bytes()
			h.log[2].Path = "/usr/bin/renamed"
		}, attest.Tampered},
		{"an entry removed", func(h *host) { h.log = slices.Delete(slices.Clone(h.log), 2, 3) }, attest.BehindQuote},
		{"without a quote", func(h *host) { h.nonce = []byte("another") }, ""},
	} {
		h := honest(t)
		c.change(&h)
		v := h.judge(t)
		if v.Log != c.want || (v.Outcome == attest.Trusted) != (c.want == attest.AheadOfQuote || c.want == attest.UpToQuote) {
			t.Errorf("%s: %q %v", c.name, v.Log, v.Outcome)
		}
	}
}

// What a kernel was asked to take as a digest list has to be known like a file:
// that it was asked says nothing of what it holds.
func TestMeasuredLists(t *testing.T) {
	for _, name := range []string{"add_file_0-file_list-compact-a", "add_buffer_a", "add_buffer_", "del_file_a", "del_buffer_a"} {
		for content, want := range map[string]attest.Outcome{"a list": attest.Trusted, "another": attest.NotTrusted} {
			h := honest(t)
			h.policy.Known.Add(file("a list"), policy.Source{List: "0-file_list-compact-a"})
			h.add(tpmtest.Entry{PCR: 10, Template: "ima-buf", Path: name,
				Fields: [][]byte{tpmtest.Tagged(file(content)), []byte(name + "\x00"), []byte(content)}})
			v := h.judge(t)
			if want == attest.Trusted {
				expect(t, name, v, want)
				continue
			}
			expect(t, name, v, want, attest.UnknownFile)
			if !strings.Contains(v.Findings[0].Why, "digest list that a kernel was asked to take") {
				t.Error(v.Findings[0].Why)
			}
		}
	}
}

// Kernels with digest lists measure to a PCR of their own: openEuler's the lists
// by their path, with security.ima; the digest cache's with an appended
// signature as well. Then only files that no list has follow.
func TestMeasuredListsOnTheirPCR(t *testing.T) {
	for pcr, list := range map[int]tpmtest.Entry{
		11: {Template: "ima-sig", Digest: file("a list"), Path: "/etc/ima/digest_lists/0-file_list-compact-x", Signature: []byte{3, 2, 4, 1, 2, 3, 4, 0, 1, 9}},
		12: {Template: "ima-modsig", Fields: [][]byte{tpmtest.Tagged(file("a list")), []byte("/etc/digest_lists/rpm-x\x00"), nil, tpmtest.Tagged(file("its payload")), []byte("pkcs7")}},
	} {
		for _, c := range []struct {
			name  string
			known []string
			more  []tpmtest.Entry
			want  attest.Outcome
			codes []attest.Code
		}{
			{"known", []string{"a list"}, nil, attest.Trusted, nil},
			{"unknown", nil, nil, attest.NotTrusted, []attest.Code{attest.UnknownFile}},
			{"known without what was appended", []string{"its payload"}, nil, attest.NotTrusted, []attest.Code{attest.UnknownFile}},
			{"a file after it", []string{"a list"}, []tpmtest.Entry{tpmtest.NewEntry("/usr/bin/evil", file("evil"))}, attest.NotTrusted, []attest.Code{attest.UnknownFile}},
		} {
			h := honest(t)
			h.policy.PCR, h.pcrs = pcr, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, pcr}
			for _, name := range c.known {
				h.policy.Known.Add(file(name), policy.Source{List: "x"})
			}
			h.log = slices.Concat(h.log[:1], []tpmtest.Entry{list}, c.more)
			for i := range h.log {
				h.log[i].PCR = pcr
			}
			h.real = h.log
			expect(t, fmt.Sprint(c.name, pcr), h.judge(t), c.want, c.codes...)
		}
	}
}

// Row 41: names are bytes, and no name makes an entry another.
func TestAttack41NameTricks(t *testing.T) {
	for _, path := range []string{"/usr/bin/bash (deleted)", "/tmp/a\nb", "/tmp/\x1b[2J", "/tmp/\xff\xfe", "memfd:kernel", " ", "|",
		"boot_aggregate ", "/boot_aggregate", "boot_aggregate\n", "/" + strings.Repeat("p", imalog.MaxPath-2)} {
		h := honest(t)
		h.add(tpmtest.NewEntry(path, file("evil")))
		v := h.judge(t)
		expect(t, path, v, attest.NotTrusted, attest.UnknownFile)
		if string(v.Findings[0].Path) != path {
			t.Errorf("%q is found as %q", path, string(v.Findings[0].Path))
		}
		h = honest(t)
		h.add(tpmtest.NewEntry(path, file("bash")))
		expect(t, path+", known", h.judge(t), attest.Trusted)
	}
	for _, path := range []string{"", "/usr/bin/bash\x00", "/usr/bin/bash\x00/evil", "/" + strings.Repeat("p", imalog.MaxPath-1)} {
		h := honest(t)
		h.add(tpmtest.NewEntry(path, file("bash")))
		if v := h.judge(t); v.Outcome != attest.CouldNotTell || !has(v, attest.Malformed) {
			t.Errorf("%q: %v %+v", path, v.Outcome, v.Findings)
		}
	}
	// The name of template "ima" is filled up to 255 bytes when it is hashed.
	old := func(name string, d digest.Digest) []byte {
		data := make([]byte, 20+256)
		copy(data, d.Bytes())
		copy(data[20:], name)
		return data
	}
	sha1 := digest.Sum(digest.SHA1, []byte("bash"))
	h := honest(t)
	h.policy.Known.Add(sha1, policy.Source{Package: "old"})
	for _, name := range []string{"/bin/bash", strings.Repeat("n", 255)} {
		data := old(name, sha1)
		h.change = func(e *attest.Evidence) {
			real := append(tpmtest.Log(digest.SHA1, h.log[:5]...), 10, 0, 0, 0)
			real = append(append(real, digest.Sum(digest.SHA1, data).Bytes()...), "\x03\x00\x00\x00ima"...)
			real = append(append(real, sha1.Bytes()...), byte(len(name)), 0, 0, 0)
			e.IMALog = bytes.NewReader(append(real, name...))
			pcr10 := tpmtest.Extend(imalog.Zero(digest.SHA256), 10, h.log[:5]...)
			quoted(t, e, map[int]digest.Digest{10: digest.Sum(digest.SHA256, pcr10.Bytes(), digest.Sum(digest.SHA256, data).Bytes())})
		}
		v := h.judge(t)
		expect(t, "template ima", v, attest.Trusted)
		if k := v.Known[len(v.Known)-1]; string(k.Path) != name || k.Digest != sha1 {
			t.Errorf("%+v", k)
		}
	}
}

// Row 42: a path vouches for nothing: not that of a package's file, not one
// that others would leave out.
func TestAttack42PathsVouchForNothing(t *testing.T) {
	for _, path := range []string{"/usr/bin/bash", "/proc/1/root/usr/bin/bash", "/var/lib/containers/overlay/usr/bin/bash", "/tmp/x", "memfd:x", "/dev/shm/x", "/sys/x"} {
		h := honest(t)
		h.add(tpmtest.NewEntry(path, file("evil")))
		expect(t, path, h.judge(t), attest.NotTrusted, attest.UnknownFile)
	}
}

// Row 43: without a key in the policy no signature in the log makes a file
// known, of whatever kind and version, by whatever key id.
func TestAttack43SignaturesVouchForNothing(t *testing.T) {
	d, path := tpmtest.Tagged(file("evil")), []byte("/usr/bin/evil\x00")
	for _, kind := range []byte{1, 2, 3, 4, 5, 6} {
		for _, version := range []byte{1, 2, 3} {
			sig := []byte{kind, version, 4, 0x10, 0x5e, 0xf9, 0x44, 0, 2, 1, 2}
			for template, fields := range map[string][][]byte{
				"ima-sig":    {d, path, sig},
				"ima-sigv2":  {append([]byte("ima:"), d...), path, sig},
				"ima-modsig": {d, path, sig, tpmtest.Tagged(file("bash")), []byte("pkcs7")}, // what is left without the signature is known
				"evm-sig":    {d, path, sig, nil, nil, nil, make([]byte, 4), make([]byte, 4), make([]byte, 2)},
				"ima-buf":    {d, path, []byte("a key")},
			} {
				h := honest(t)
				h.add(tpmtest.Entry{PCR: 10, Template: template, Fields: fields, Path: "/usr/bin/evil"})
				v := h.judge(t)
				expect(t, template, v, attest.NotTrusted, attest.UnknownFile)
				if f := v.Findings[0]; strings.Contains(f.Why, "by key 105ef944") != ((kind == 3 || kind == 5 || kind == 6) && version > 1 && template != "ima-buf") {
					t.Errorf("%s: %s", template, f.Why)
				}
			}
		}
	}
}

// Row 33, in the log's other templates: MD5 and SHA-1 without a name are not
// those of another algorithm.
func TestAttack33DigestsWithoutAlgorithm(t *testing.T) {
	evil := file("evil")
	for _, size := range []int{16, 20} {
		h := honest(t)
		for _, alg := range []digest.Algorithm{digest.SHA256, digest.RIPEMD160, digest.MD4} {
			h.policy.Known.Add(as(alg, evil), policy.Source{Package: "evil"})
		}
		h.add(tpmtest.Entry{PCR: 10, Template: "d|n", Path: "/usr/bin/evil", Fields: [][]byte{evil.Bytes()[:size], []byte("/usr/bin/evil\x00")}})
		expect(t, fmt.Sprint(size), h.judge(t), attest.NotTrusted, attest.UnknownFile)
	}
}

// Row 46: an entry that says nothing of a file is not passed over.
func TestAttack46TemplatesThatSayTooLittle(t *testing.T) {
	for template, fields := range map[string][][]byte{
		"sig": {nil}, "n": {[]byte("/x\x00")}, "d-ng": {tpmtest.Tagged(file("bash"))}, "n-ng|sig": {[]byte("/x\x00"), nil}, "n|new": {[]byte("/x\x00"), nil},
	} {
		h := honest(t)
		h.add(tpmtest.Entry{PCR: 10, Template: template, Fields: fields})
		expect(t, template, h.judge(t), attest.CouldNotTell, attest.UnknownTemplate)
	}
}

// No hash covers a template's name: no other one makes another field the digest.
func TestAttack31TemplateIsCalledAnother(t *testing.T) {
	d, known, path := tpmtest.Tagged(file("evil")), tpmtest.Tagged(file("bash")), []byte("/usr/bin/evil\x00")
	for _, c := range []struct {
		template, called string
		fields           [][]byte
	}{
		{"ima-buf", "buf|n-ng|d-ng", [][]byte{d, path, known}},
		{"ima-modsig", "buf|n-ng|sig|d-ng|modsig", [][]byte{d, path, nil, known, []byte("pkcs7")}},
		{"ima-modsig", "d-modsig|n-ng|sig|d-ng|modsig", [][]byte{d, path, nil, known, []byte("pkcs7")}},
		{"evm-sig", "buf|n-ng|evmsig|xattrnames|modsig|d-ng|iuid|igid|imode",
			[][]byte{d, path, nil, nil, nil, known, make([]byte, 4), make([]byte, 4), make([]byte, 2)}},
	} {
		h := honest(t)
		h.add(tpmtest.Entry{PCR: 10, Template: c.template, Fields: c.fields})
		expect(t, c.template, h.judge(t), attest.NotTrusted, attest.UnknownFile)
		h.log = slices.Clone(h.log)
		h.log[5].Template = c.called
		expect(t, c.called, h.judge(t), attest.CouldNotTell, attest.UnknownTemplate)
	}
	h := honest(t)
	h.add(tpmtest.Entry{PCR: 10, Template: "d-ng|n-ng|iuid", Fields: [][]byte{known, path, make([]byte, 4)}})
	expect(t, "a format of somebody's own", h.judge(t), attest.Trusted)
}

// grown is the same host later: it measured n more files, and its log, read
// after the quote, has more of them than the quote.
func grown(t *testing.T, n, more int) host {
	h := honest(t)
	h.log = slices.Clone(h.log[:5])
	for i := range n + more {
		h.log = append(h.log, tpmtest.NewEntry(fmt.Sprint("/usr/share/", i), file("bash")))
	}
	h.real = h.log[:5+n]
	return h
}

func (h host) after(t *testing.T, last *attest.Checkpoint) attest.Verdict {
	return attest.Judge(h.evidence(t), attest.Challenge{Nonce: h.nonce, AK: h.ak, Checkpoint: last}, h.policy)
}

// Row 38: what was in the log is in the next quote, or the host keeps its PCR
// lagging. Honest hosts grow as they like.
func TestAttack38TailNeverCovered(t *testing.T) {
	var last *attest.Checkpoint
	for _, c := range []struct{ n, more int }{{0, 0}, {0, 3}, {3, 0}, {3, 0}, {10, 1}, {11, 100}, {300, 2}} {
		v := grown(t, c.n, c.more).after(t, last)
		expect(t, fmt.Sprint("honest ", c), v, attest.Trusted)
		if v.Checkpoint == nil || v.Checkpoint.Entries != 5+c.n || v.Checkpoint.Seen != 5+c.n+c.more || v.Checkpoint.Resets != 7 {
			t.Fatalf("%+v", v.Checkpoint)
		}
		last = v.Checkpoint
	}
	first := grown(t, 2, 4).after(t, nil).Checkpoint
	for n := range 4 {
		v := grown(t, 2+n, 10).after(t, first)
		expect(t, fmt.Sprint("lagging by ", 4-n), v, attest.NotTrusted, attest.NotProgressed)
		if v.Checkpoint != nil {
			t.Error("a host that is not trusted has a checkpoint")
		}
	}
	expect(t, "covered", grown(t, 6, 0).after(t, first), attest.Trusted)
	expect(t, "fewer entries than were proven", grown(t, 1, 10).after(t, first), attest.NotTrusted, attest.NotTheLast)
	other := *first
	other.Value = file("another")
	expect(t, "another log", grown(t, 6, 0).after(t, &other), attest.NotTrusted, attest.NotTheLast)
	h := grown(t, 6, 0)
	h.log = slices.Delete(slices.Clone(h.log), 2, 3)
	if v := h.after(t, first); v.Outcome != attest.NotTrusted || v.Log != attest.Tampered {
		t.Errorf("an entry removed that was proven: %q %v", v.Log, v.Outcome)
	}
	rebooted := *first
	rebooted.Resets--
	expect(t, "another boot", grown(t, 0, 0).after(t, &rebooted), attest.Trusted)
}

// Rows 13 and 39: a checkpoint is one host's. Another's, of the same boot count
// and even of the same log, helps nobody, and is not replaced.
func TestAttack39CheckpointOfAnotherHost(t *testing.T) {
	mine := grown(t, 4, 2).after(t, nil).Checkpoint
	if mine == nil || mine.AK != mustKey(t).ID() {
		t.Fatalf("%+v", mine)
	}
	for name, id := range map[string]digest.Digest{"another": file("another key"), "none": {}} {
		other := *mine
		other.AK = id
		for _, cut := range []int{0, 3} {
			h := grown(t, 8, 3)
			h.log = h.log[cut:]
			v := h.after(t, &other)
			if !has(v, attest.NotItsOwn) || has(v, attest.Continued) || v.Outcome == attest.Trusted || v.Checkpoint != nil {
				t.Errorf("%s, cut by %d: %v %+v", name, cut, v.Outcome, v.Findings)
			}
			if cut == 0 {
				expect(t, name, v, attest.CouldNotTell, attest.NotItsOwn)
			}
		}
	}
}

func mustKey(t *testing.T) *tpm.Key {
	key, err := tpm.ParsePublic(honest(t).ak)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Row 39: a log that was cut at the front is continued from the checkpoint,
// with any overlap and with none, and from no other.
func TestAttack39TrimmedLog(t *testing.T) {
	last := grown(t, 4, 2).after(t, nil).Checkpoint
	for cut := 1; cut <= 9; cut++ {
		h := grown(t, 8, 3)
		h.log = h.log[cut:]
		v := h.after(t, last)
		expect(t, fmt.Sprint("cut by ", cut), v, attest.Trusted, attest.Continued)
		if v.Proven != 4 || len(v.Known) != 4 || v.Log != attest.AheadOfQuote || v.Checkpoint == nil || v.Checkpoint.Entries != 13 || v.Checkpoint.Seen != 16 {
			t.Errorf("cut by %d: %+v", cut, v)
		}
		later := grown(t, 11, 0)
		later.log = later.log[cut:]
		next := later.after(t, v.Checkpoint)
		expect(t, "later", next, attest.Trusted, attest.Continued)
		if again := later.after(t, next.Checkpoint); again.Outcome != attest.Trusted || again.Proven != 0 || *again.Checkpoint != *next.Checkpoint {
			t.Errorf("nothing since: %v %+v %+v", again.Outcome, again.Checkpoint, next.Checkpoint)
		}
		expect(t, "without the checkpoint", h.judge(t), attest.NotTrusted, attest.DoesNotReplay)
		for name, change := range map[string]func(*attest.Checkpoint){
			"another value": func(c *attest.Checkpoint) { c.Value = file("another") },
			"another boot":  func(c *attest.Checkpoint) { c.Resets++ },
			"another PCR":   func(c *attest.Checkpoint) { c.PCR = 11 },
			"another bank":  func(c *attest.Checkpoint) { c.Value = digest.Sum(digest.SHA384, nil) },
		} {
			other := *last
			change(&other)
			v := h.after(t, &other)
			expect(t, name, v, attest.NotTrusted, attest.DoesNotReplay)
			if v.Log != attest.Trimmed {
				t.Errorf("%s: %q", name, v.Log)
			}
		}
	}
	h := grown(t, 8, 3)
	h.log = h.log[10:]
	expect(t, "cut after the checkpoint", h.after(t, last), attest.NotTrusted, attest.DoesNotReplay)
	h = grown(t, 8, 3)
	h.add(tpmtest.NewEntry("/usr/bin/evil", file("evil")))
	h.log = h.log[7:]
	expect(t, "an unknown file since", h.after(t, last), attest.NotTrusted, attest.UnknownFile, attest.Continued)
	h.log = slices.DeleteFunc(slices.Clone(h.log), func(e tpmtest.Entry) bool { return e.Path == "/usr/bin/evil" })
	expect(t, "and left out", h.after(t, last), attest.NotTrusted, attest.DoesNotReplay)
}

// endless is a log of one entry, again and again, that is in no memory.
type endless struct {
	entry []byte
	size  int64
}

func (e endless) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) && off < e.size {
		part := e.entry[off%int64(len(e.entry)):]
		part = part[:min(int64(len(part)), e.size-off)]
		k := copy(b[n:], part)
		n, off = n+k, off+int64(k)
	}
	if n < len(b) {
		err = io.EOF
	}
	return n, err
}

// A log of any size costs the same memory, whether its files are known or not.
func TestMemoryIsConstant(t *testing.T) {
	for _, name := range []string{"bash", "evil"} {
		entry := tpmtest.Log(digest.SHA1, tpmtest.NewEntry("/usr/bin/"+name, file(name)))
		h := honest(t)
		h.nonce = nil // nothing to arrive at: it is read once
		h.change = func(e *attest.Evidence) { e.IMALog = endless{entry, int64(len(entry)) * 500_000} }
		ev := h.evidence(t)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		v := attest.Judge(ev, attest.Challenge{AK: h.ak}, h.policy)
		runtime.ReadMemStats(&after)
		if v.Entries != 500_000 || v.Outcome != attest.CouldNotTell || len(v.Unproven)+v.Omitted.Unproven != 500_000 {
			t.Errorf("%s: %v, %d entries, %d and %d unproven", name, v.Outcome, v.Entries, len(v.Unproven), v.Omitted.Unproven)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 16*attest.MaxKept {
			t.Errorf("%s: %d bytes allocated for a log of %d", name, got, len(entry)*500_000)
		}
	}
}

// The boot aggregate is over PCRs 0 to 9 of the bank with its algorithm, for
// SHA-1 over 0 to 7.
func TestBootAggregateOfEveryHash(t *testing.T) {
	for alg, id := range map[digest.Algorithm]uint16{digest.SHA1: tpmtest.SHA1, digest.SHA256: tpmtest.SHA256, digest.SHA384: tpmtest.SHA384, digest.SHA512: tpmtest.SHA512} {
		for n := 1; n <= 10; n++ {
			h := honest(t)
			h.log = slices.Clone(h.log)
			h.log[0].Digest = bootAggregate(alg, n)
			h.real = h.log[:5]
			banks := []tpmtest.Bank{{Alg: id}}
			values := tpm.Values{}
			for i := range 10 {
				d := pcr(alg, i)
				banks[0].PCRs, banks[0].Values = append(banks[0].PCRs, i), append(banks[0].Values, d.Bytes())
				values[tpm.PCR{Bank: alg, Index: i}] = d
			}
			ten := pcr(digest.SHA256, 10, h.real...)
			values[tpm.PCR{Bank: digest.SHA256, Index: 10}] = ten
			if alg == digest.SHA256 {
				banks[0].PCRs, banks[0].Values = append(banks[0].PCRs, 10), append(banks[0].Values, ten.Bytes())
			} else {
				banks = append(banks, tpmtest.Bank{Alg: tpmtest.SHA256, PCRs: []int{10}, Values: [][]byte{ten.Bytes()}})
			}
			ev := h.evidence(t)
			ev.Quote = tpmtest.NewQuote([]byte("this session's challenge"), banks...).Attest()
			ev.Signature = ak.Sign(ev.Quote)
			q, err := tpm.ParseQuote(ev.Quote)
			if err != nil {
				t.Fatal(err)
			}
			if ev.PCRs, err = tpm.AppendValues(nil, q.Selection, values); err != nil {
				t.Fatal(err)
			}
			v := attest.Judge(ev, attest.Challenge{Nonce: h.nonce, AK: h.ak}, h.policy)
			if right := n == 10 && alg != digest.SHA1 || n == 8 && alg == digest.SHA1; right {
				expect(t, fmt.Sprint(alg, n), v, attest.Trusted)
			} else {
				expect(t, fmt.Sprint(alg, n), v, attest.NotTrusted, attest.WrongAggregate)
			}
		}
	}
}

// The IMA policy that a host was given is one that is expected, or it is not
// trusted.
func TestIMAPolicy(t *testing.T) {
	text, other := []byte("measure func=BPRM_CHECK\n"), []byte("dont_measure\n")
	event := func(name string, content []byte) tpmtest.Entry {
		return tpmtest.Entry{PCR: 10, Template: "ima-buf", Path: name,
			Fields: [][]byte{tpmtest.Tagged(file(string(content))), []byte(name + "\x00"), content}}
	}
	read := func(content []byte) tpmtest.Entry {
		return tpmtest.NewEntry("/etc/ima/ima-policy", file(string(content)))
	}
	listed := tpmtest.NewEntry("/etc/ima/ima-policy", file("bash"))
	for _, c := range []struct {
		name    string
		entries []tpmtest.Entry
		want    attest.Outcome
		codes   []attest.Code
	}{
		{"read", []tpmtest.Entry{read(text)}, attest.Trusted, nil},
		{"measured by the kernel", []tpmtest.Entry{event("ima_policy_loaded", text)}, attest.Trusted, nil},
		{"both", []tpmtest.Entry{read(text), event("ima_policy_loaded", text)}, attest.Trusted, nil},
		{"none", nil, attest.CouldNotTell, []attest.Code{attest.NoIMAPolicy}},
		{"another read", []tpmtest.Entry{read(other)}, attest.NotTrusted, []attest.Code{attest.UnknownFile, attest.NoIMAPolicy}},
		{"a known file read", []tpmtest.Entry{listed}, attest.CouldNotTell, []attest.Code{attest.NoIMAPolicy}},
		{"another measured by the kernel", []tpmtest.Entry{event("ima_policy_loaded", other)}, attest.NotTrusted, []attest.Code{attest.WrongIMAPolicy, attest.NoIMAPolicy}},
		{"a known file measured by the kernel", []tpmtest.Entry{read(text), event("ima_policy_loaded", []byte("bash"))}, attest.NotTrusted, []attest.Code{attest.WrongIMAPolicy}},
		{"and then another", []tpmtest.Entry{event("ima_policy_loaded", text), event("ima_policy_loaded", other)}, attest.NotTrusted, []attest.Code{attest.WrongIMAPolicy}},
		{"as fs-verity", []tpmtest.Entry{{PCR: 10, Template: "ima-ngv2", Fields: [][]byte{append([]byte("verity:"), tpmtest.Tagged(file(string(text)))...), []byte("/p\x00")}}},
			attest.NotTrusted, []attest.Code{attest.UnknownFile, attest.NoIMAPolicy}},
		{"on another PCR", []tpmtest.Entry{{PCR: 9, Template: "ima-ng", Digest: file(string(text)), Path: "/p"}}, attest.NotTrusted,
			[]attest.Code{attest.SecondPCR, attest.DoesNotReplay, attest.NoIMAPolicy}},
	} {
		h := honest(t)
		h.policy.Known.Add(file(string(text)), policy.Source{Reason: "expected"})
		h.policy.IMAPolicy = map[digest.Digest]bool{file(string(text)): true}
		for _, e := range c.entries {
			h.add(e)
		}
		expect(t, c.name, h.judge(t), c.want, c.codes...)
	}
	// After the quote it proves nothing.
	h := honest(t)
	h.policy.Known.Add(file(string(text)), policy.Source{Reason: "expected"})
	h.policy.IMAPolicy = map[digest.Digest]bool{file(string(text)): true}
	h.log = append(slices.Clone(h.log), read(text))
	expect(t, "unproven", h.judge(t), attest.CouldNotTell, attest.NoIMAPolicy)
	// What a policy does not ask for is as unknown as any buffer.
	h = honest(t)
	h.add(event("ima_policy_loaded", text))
	expect(t, "not asked for", h.judge(t), attest.NotTrusted, attest.UnknownFile)
}
