package measured_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"diglim/internal/digest"
	"diglim/internal/measured"
	"diglim/tpm/imalog"
	"diglim/tpm/tpmtest"
)

var banks = []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512}

func sum(content string) digest.Digest { return digest.Sum(digest.SHA256, []byte(content)) }

func files(names ...string) (all []measured.File) {
	for _, name := range names {
		all = append(all, measured.File{Name: name, Digest: sum(name)})
	}
	return all
}

// entries is what a kernel logs of files.
func entries(files []measured.File) (all []tpmtest.Entry) {
	for _, f := range files {
		all = append(all, tpmtest.Entry{PCR: 12, Template: "ima-ng", Digest: f.Digest, Path: measured.Path(f.Name)})
	}
	return all
}

// What is computed is what a kernel makes of the files, in every bank and from
// every start; a file that was measured before changes nothing.
func TestSequence(t *testing.T) {
	all := files(measured.PolicyName, measured.ConfigName, measured.ProgramName, measured.KeyName("vendor.asc"), measured.ListName("0-file_list-rpm-p"))
	var s measured.Sequence
	for _, f := range slices.Concat(all, all[2:3], all) {
		s.Add(f)
	}
	if got := s.Files(); !slices.Equal(got, all) {
		t.Errorf("files %v, want %v", got, all)
	}
	for _, bank := range banks {
		for _, start := range []digest.Digest{imalog.Zero(bank), digest.Sum(bank, []byte("start"))} {
			if got, want := s.Extend(start), tpmtest.Extend(start, 12, entries(all)...); got != want {
				t.Errorf("%s: %s, want %s", bank, got, want)
			}
		}
	}
	start := imalog.Zero(digest.SHA256)
	value := s.Extend(start)
	for name, others := range map[string][]measured.File{
		"one less":      all[:4],
		"another order": {all[0], all[1], all[2], all[4], all[3]},
		"another byte":  append(slices.Clone(all[:4]), measured.File{Name: all[4].Name, Digest: sum("other")}),
		"another name":  append(slices.Clone(all[:4]), measured.File{Name: all[4].Name + "x", Digest: all[4].Digest}),
	} {
		var s measured.Sequence
		for _, f := range others {
			s.Add(f)
		}
		if s.Extend(start) == value {
			t.Errorf("%s: the same value", name)
		}
	}
}

func TestTemplateData(t *testing.T) {
	for _, alg := range banks {
		d := digest.Sum(alg, []byte("content"))
		want := tpmtest.Entry{Template: "ima-ng", Digest: d, Path: "/run/diglim/measured/config"}.TemplateData()
		if got := measured.TemplateData(measured.Path(measured.ConfigName), d); !bytes.Equal(got, want) {
			t.Errorf("%s: %x, want %x", alg, got, want)
		}
	}
	if name, ok := measured.Name(measured.Path("lists/x")); name != "lists/x" || !ok {
		t.Errorf("name %q, %v", name, ok)
	}
}

func TestConfig(t *testing.T) {
	for want, c := range map[string]measured.Config{
		"interface diglim\npcr 13\n": {Interface: "diglim", PCR: 13},
		"interface bpf\npcr 12\nmode enforce\nscope log path=/opt\nscope log path=/srv\nlock yes\n": {
			Interface: "bpf", PCR: 12, Mode: "enforce", Scope: []string{"log path=/opt", "log path=/srv"}, Lock: true},
		"interface bpf\npcr 12\nmode log\nlock no\n": {Interface: "bpf", PCR: 12, Mode: "log"},
	} {
		if got := string(c.Text()); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestCheckPCR(t *testing.T) {
	for pcr := -1; pcr < 25; pcr++ {
		if ok := measured.CheckPCR(pcr) == nil; ok != slices.Contains([]int{8, 9, 12, 13, 14}, pcr) {
			t.Errorf("PCR %d: %v", pcr, ok)
		}
	}
}

func TestPolicy(t *testing.T) {
	rule := measured.Rule(12) + "\n"
	const own = "# mine\nmeasure func=MMAP_CHECK mask=MAY_EXEC\n\nmeasure func=BPRM_CHECK pcr=13"
	tcb := func(text string) bool {
		return strings.HasPrefix(text, rule+"dont_measure fsmagic=0x9fa0\n") && strings.Count(text, "\n") == 21 && strings.HasSuffix(text, "measure func=POLICY_CHECK\n")
	}
	is := func(want string) func(string) bool { return func(text string) bool { return text == want } }
	for _, c := range []struct {
		cmdline, own string
		right        func(string) bool
	}{
		{"", "", is(rule)},
		{"quiet ima_policy=fail_securely", "# nothing\n\n", is(rule)},
		{"", own, is(rule + own + "\n")},
		{"", own + "\n", is(rule + own + "\n")},
		{"ima_policy=tcb ima_policy=secure_boot", own, is(rule + own + "\n")},
		{"ima_policy=tcb", "", tcb},
		{`ima_policy="fail_securely|tcb" ima_policy=tcb`, "", tcb},
		{`x="ima_policy=secure_boot y" ima_policy=tcb`, "", tcb},
		{`ima_policy="critical_data tcb"`, "", func(text string) bool {
			rest, ok := strings.CutSuffix(text, "measure func=CRITICAL_DATA\n")
			return ok && tcb(rest)
		}},
	} {
		text, err := measured.Policy(12, c.cmdline, []byte(c.own))
		if err != nil || !c.right(string(text)) {
			t.Errorf("%q, %q: %v\n%s", c.cmdline, c.own, err, text)
		}
	}
	for want, c := range map[string]struct{ cmdline, own string }{
		"secure_boot on the kernel": {"ima_policy=tcb|secure_boot", ""},
		"ima_tcb on the kernel":     {"ima_tcb", ""},
		"line 2: the path":          {"", "\n/etc/ima/other\n"},
		"line 1: zero byte":         {"", "measure\x00\n"},
		"line 2: 4095 bytes":        {"", "#\n" + strings.Repeat("x", 4094) + "\n"},
		"line 3: the rule measures": {"", "#pcr=12\n\nmeasure func=BPRM_CHECK pcr=12\n"},
		"70000 bytes of policy":     {"", strings.Repeat("\n", 70000)},
	} {
		if text, err := measured.Policy(12, c.cmdline, []byte(c.own)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, %q", want, err, text)
		}
	}
	if text, err := measured.Policy(10, "", nil); err == nil {
		t.Errorf("PCR 10: %q", text)
	}
	if _, err := measured.Policy(12, "", []byte(strings.Repeat("x", 4093)+"\n")); err != nil {
		t.Error(err)
	}
}

func records() []measured.Record {
	var all []measured.Record
	for i, c := range []measured.Content{
		{Path: "/tmp/x", Digest: sum("x"), After: 2},
		{Path: "/tmp/%\"\\\n\xff é", After: 2},
		{Path: "", Digest: digest.Sum(digest.SHA512, nil), After: 4},
	} {
		all = append(all, measured.NewRecord(i, 12, c, banks))
	}
	return all
}

func write(records []measured.Record) (log []byte) {
	for _, r := range records {
		log = r.Append(log)
	}
	return log
}

func TestRecords(t *testing.T) {
	want := records()
	log := write(want)
	got, err := measured.Records(log)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%v, %v\n%s", got, err, log)
	}
	for _, r := range want {
		if c, err := measured.ParseContent(r.Content.Text()); err != nil || c != r.Content {
			t.Errorf("%+v is read as %+v, %v", r.Content, c, err)
		}
	}
	const first = "\x1e" + `{"recnum":0,"pcr":12,"digests":[{"hashAlg":"sha1","digest":"`
	if !bytes.HasPrefix(log, []byte(first)) || !bytes.Contains(log, []byte(`"content":{"path":"/tmp/%25%22%5c%0a%ff %c3%a9","digest":"","after":2}}`+"\n")) {
		t.Errorf("%s", log)
	}
	if none, err := measured.Records(nil); none != nil || err != nil {
		t.Errorf("no log: %v, %v", none, err)
	}
}

// Every cut and every changed byte of a log is refused, and what is before the
// record is kept.
func TestBadRecords(t *testing.T) {
	log := write(records())
	second := bytes.LastIndexByte(log[:bytes.LastIndexByte(log, 0x1e)], 0x1e)
	third := bytes.LastIndexByte(log, 0x1e)
	for i := range log {
		before := 0
		if i >= second {
			before++
		}
		if i >= third {
			before++
		}
		if got, err := measured.Records(log[:i]); len(got) != before || (err == nil) != (i == 0 || i == second || i == third) {
			t.Fatalf("cut at %d: %d records, %v", i, len(got), err)
		}
		changed := bytes.Clone(log)
		changed[i] ^= 1
		// A PCR is all that no digest covers.
		if got, err := measured.Records(changed); len(got) != before || err == nil {
			if err != nil || !bytes.Contains(changed, []byte(`"pcr":13`)) {
				t.Fatalf("byte %d changed, %q: %d records, %v", i, changed[max(0, i-20):i+1], len(got), err)
			}
		}
	}
	for _, bad := range []string{
		"", "x", `{"path":"%zz","digest":"","after":0}`, `{"path":"%2","digest":"","after":0}`, `{"path":"%41","digest":"","after":0}`,
		`{"path":"%FF","digest":"","after":0}`, `{"path":"%00","digest":"","after":0}`, `{"path":"","digest":"","after":00}`,
		`{"path":"","digest":"","after":}`, `{"path":"","digest":"","after":99999999999999999999}`, `{"path":"","digest":"none","after":0}`,
		`{"path":"","digest":"","after":0} `, `{"path":"` + strings.Repeat("x", 4097) + `","digest":"","after":0}`,
		`{"path":"` + strings.Repeat("x", 1<<20) + `","digest":"","after":0}`,
	} {
		if c, err := measured.ParseContent([]byte(bad)); err == nil {
			t.Errorf("%.60s is read as %+v", bad, c)
		}
	}
}

// The two logs of a PCR make one order.
func TestReplay(t *testing.T) {
	all := entries(files("ima-policy", "config", "lists/a", "lists/b", "lists/c"))
	for _, bank := range banks {
		start := imalog.Zero(bank)
		var ima []digest.Digest
		for _, e := range all {
			ima = append(ima, digest.Sum(bank, e.TemplateData()))
		}
		extend := func(value digest.Digest, r measured.Record) digest.Digest {
			return digest.Sum(bank, value.Bytes(), r.Digests[slices.Index(banks, bank)].Bytes())
		}
		r := records()
		want := tpmtest.Extend(start, 12, all[:2]...)
		want = extend(extend(want, r[0]), r[1])
		want = extend(tpmtest.Extend(want, 12, all[2:4]...), r[2])
		want = tpmtest.Extend(want, 12, all[4])
		if got, err := measured.Replay(start, ima, r); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", bank, got, err, want)
		}
		for name, bad := range map[string][]measured.Record{
			"swapped": {r[2], r[0]}, "more than there are": {measured.NewRecord(0, 12, measured.Content{After: 6}, banks)},
		} {
			if got, err := measured.Replay(start, ima, bad); err == nil {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

func FuzzRecords(f *testing.F) {
	log := write(records())
	f.Add(log)
	f.Add(log[:len(log)-10])
	f.Fuzz(func(t *testing.T, log []byte) {
		got, err := measured.Records(log)
		again := write(got)
		if !bytes.HasPrefix(log, again) || err == nil && len(again) != len(log) {
			t.Errorf("%q is written again as %q", log, again)
		}
	})
}

func FuzzPolicy(f *testing.F) {
	f.Add("ima_policy=tcb quiet", []byte("measure func=BPRM_CHECK\n"))
	f.Add(`ima_policy="tcb|critical_data`, []byte("# none"))
	f.Fuzz(func(t *testing.T, cmdline string, own []byte) {
		text, err := measured.Policy(12, cmdline, own)
		if err != nil {
			return
		}
		for i, line := range strings.SplitAfter(string(text), "\n") {
			if len(line) > measured.MaxRule || i > 0 && strings.HasPrefix(line, "/") {
				t.Errorf("line %d: %q", i, line)
			}
		}
	})
}
