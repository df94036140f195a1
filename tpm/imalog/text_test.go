package imalog_test

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/tpm/imalog"
	"diglim/tpm/tpmtest"
)

func fromText(t *testing.T, log string) ([]byte, error) {
	t.Helper()
	r, isText, err := imalog.Binary(strings.NewReader(log))
	if !isText {
		t.Errorf("%.40q is no text", log)
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.NewSectionReader(r, 0, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	return b, nil
}

// From text comes the binary log, byte for byte.
func TestText(t *testing.T) {
	wide := func(all []tpmtest.Entry) []tpmtest.Entry { // numbers of users have 32 bits
		return slices.DeleteFunc(all, func(e tpmtest.Entry) bool { return strings.HasPrefix(e.Template, "iuid") })
	}
	for name, all := range map[string][]tpmtest.Entry{
		"little-endian": wide(templates()),
		"big-endian":    wide(bigEndian(templates())),
		"violation": {{PCR: 10, Template: "ima-ng", Digest: imalog.Zero(digest.SHA256), Path: "/var/log/x y", Violation: true},
			tpmtest.NewEntry("/a  path\twith blanks ", file("a"))},
		"signed": {{PCR: 11, Template: "ima-sig", Digest: file("b"), Path: "/b c"}, {PCR: 9, Template: "ima-sig", Digest: file("b"), Path: " ", Signature: xattr},
			{PCR: 10, Template: "ima-sig", Digest: file("b"), Path: "/ends with CR\r", Signature: xattr}},
	} {
		for _, width := range widths {
			got, err := fromText(t, tpmtest.Text(width, all...))
			if want := tpmtest.Log(width, all...); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s %s: %v\n%q\n%q", name, width, err, got, want)
			}
		}
	}
	// An editor that strips the blank before an empty field takes nothing away.
	e := tpmtest.Entry{PCR: 10, Template: "ima-sig", Digest: file("b"), Path: "/b"}
	got, err := fromText(t, strings.TrimRight(tpmtest.Text(digest.SHA1, e), " \n"))
	if err != nil || !bytes.Equal(got, tpmtest.Log(digest.SHA1, e)) {
		t.Errorf("stripped: %q, %v", got, err)
	}
	for _, log := range []string{"", "10", tpmtestLog()} {
		r := strings.NewReader(log)
		if same, isText, err := imalog.Binary(r); same != io.ReaderAt(r) || isText || err != nil {
			t.Errorf("%.9q: %v, %v", log, isText, err)
		}
	}
}

func tpmtestLog() string { return string(tpmtest.Log(digest.SHA1, entries()...)) }

func TestBadText(t *testing.T) {
	good := tpmtest.Text(digest.SHA1, tpmtest.NewEntry("/usr/bin/true", file("true")))
	hash := strings.Fields(good)[1]
	for name, c := range map[string][2]string{
		"one word":           {"10 x", ": offset 0: not an entry"},
		"no fields":          {"10 " + hash + " ima-ng\n", ": offset 0: not an entry"},
		"no hex":             {strings.Replace(good, hash[:2], "zz", 1), ": offset 0: encoding/hex"},
		"short hash":         {strings.Replace(good, hash, hash[2:], 1), ": offset 0: template hash of 19 bytes"},
		"another width":      {good + "10 " + hash + hash[:24] + " ima-ng sha1:00 /x\n", "entry 2: offset " + fmt.Sprint(len(good)) + ": template hash of another length"},
		"name with newline":  {strings.Replace(good, "/true", "/tr\nue", 1), "entry 2: offset " + fmt.Sprint(len(good)-2) + ": not an entry"},
		"unknown template":   {"10 " + hash + " ima-new sha1:00 /x\n", "2 fields, template ima-new has 1"},
		"unknown field":      {"10 " + hash + " d-ng|new sha1:00 /x\n", "field new: not known"},
		"digest":             {"10 " + hash + " ima-ng sha1:zz /x\n", "field d-ng: encoding/hex"},
		"ima without digest": {"10 " + hash + " ima /x\n", "not a digest of 20 bytes"},
		"user":               {"10 " + hash + " iuid|n -1 /x\n", "field iuid: strconv"},
		"mode":               {"10 " + hash + " imode|n 65536 /x\n", "field imode: strconv"},
		"too many fields":    {"10 " + hash + " d sha1:00 x\n", "2 fields, template d has 1"},
		"empty line":         {good + "\n" + good, "entry 2: offset " + fmt.Sprint(len(good)) + ": not an entry"},
	} {
		if _, err := fromText(t, c[0]); err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What the text says was hashed is compared with what is made of the fields.
	b, err := fromText(t, strings.Replace(good, "/usr/bin/true", "/usr/bin/evil", 1))
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range imalog.Entries(bytes.NewReader(b), imalog.Layout{Hash: digest.SHA1}) {
		if err != nil || e.Authentic(digest.SHA256) {
			t.Errorf("%+v, %v", e, err)
		}
	}
}

// A kernel prints the same log in both forms.
func TestTextOfGuests(t *testing.T) {
	for name, other := range map[string]string{
		"ovmf-tis-6.12cloud-imang/ima.ascii": "ima.bin", "ovmf-tis-6.12cloud-imang/ima.ascii.sha1": "ima.bin.sha1",
		"ovmf-tis-6.12cloud-imang/ima.ascii.sha256": "ima.bin.sha256", "seabios-crb-6.1cloud-imasig/ima.ascii": "ima.bin",
	} {
		got, err := fromText(t, string(corpus.Read(t, "vm-evidence", name)))
		if want := corpus.Read(t, "vm-evidence", filepath.Dir(name), other); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, %d bytes, binary %d", name, err, len(got), len(want))
		}
	}
}

func FuzzBinary(f *testing.F) {
	f.Add([]byte(tpmtest.Text(digest.SHA1, templates()[:9]...)))
	f.Add([]byte(tpmtest.Text(digest.SHA256, bigEndian(templates())[:9]...)))
	f.Add([]byte("10 24b06bd44d31787e126c471843e9ef2c6345a5da ima 5e7bbf27b7dd568610cc1f1ea49ceaa420395690 boot_aggregate\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		r, isText, err := imalog.Binary(bytes.NewReader(log))
		if err != nil {
			if !isText || !strings.HasPrefix(err.Error(), "entry ") {
				t.Errorf("%v, %v", isText, err)
			}
			return
		}
		layouts, err := imalog.Layouts(r)
		if err != nil {
			return
		}
		// A log that is read is as long as its text has lines.
		for _, l := range layouts {
			n := 0
			for _, err = range imalog.Entries(r, l) {
				if err == nil {
					n++
				}
			}
			if lines := bytes.Count(log, []byte("\n")); isText && err == nil && n != lines && n != lines+1 {
				t.Errorf("%d entries of %d lines by %s", n, lines, l)
			}
		}
	})
}
