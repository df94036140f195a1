package vm_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"diglim/test/vm"
	"diglim/test/vm/plan"
)

// rows parses what guestlists printed: lines of columns, the first a case id.
func rows(t *testing.T, r vm.Result, command string) map[string][]string {
	t.Helper()
	output, exit, err := r.Command(command)
	if err != nil {
		t.Fatal(err)
	}
	if exit != 0 {
		t.Fatalf("guestlists %s: exit code %d: %s", command, exit, output)
	}
	cases := map[string][]string{}
	for line := range strings.Lines(output) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if _, ok := cases[f[0]]; ok {
			t.Errorf("%s: twice", f[0])
		}
		cases[f[0]] = f[1:]
	}
	return cases
}

// checkRows compares what guestlists printed with what is expected, column by
// column: the whole of it, or what a pattern in slashes matches.
func checkRows(t *testing.T, got map[string][]string, want map[string][]string) {
	t.Helper()
	for id, w := range want {
		g, ok := got[id]
		if !ok {
			t.Errorf("%s: not tried", id)
			continue
		}
		same := len(g) == len(w)
		for i := 0; same && i < len(w); i++ {
			if pattern, ok := strings.CutPrefix(w[i], "/"); ok {
				same = regexp.MustCompile(strings.TrimSuffix(pattern, "/")).MatchString(g[i])
			} else {
				same = g[i] == w[i]
			}
		}
		if !same {
			t.Errorf("%s: %q, want %q", id, g, w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d cases tried, %d expected", len(got), len(want))
	}
}

// TestInterfaces gives lists to both stand-ins through the packages that the
// uploader has, and then the same lists past them.
func TestInterfaces(t *testing.T) {
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		tree := t.TempDir()
		if err := vm.Build(ctx, filepath.Join(tree, "guestlists"), "diglim/test/vm/guestlists"); err != nil {
			t.Fatal(err)
		}
		openEuler, err := k.BuildModule(ctx, "../kmod", "openeuler")
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(openEuler)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, "openeuler.ko"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		p := plan.Plan{
			Modules: []string{"/modules/diglim_v3.ko"},
			Commands: []plan.Command{
				{Name: "diglim", Argv: []string{"/guestlists", "diglim"}},
				{Name: "openeuler", Argv: []string{"/guestlists", "openeuler", "/openeuler.ko"}},
			},
			Unload: []string{"diglim_v3"},
		}
		m := writeMachine(t, ctx, k, p, tree, buildModule(t, ctx, k))
		m.Cmdline = "ima_policy=tcb"
		r, err := vm.Boot(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		t.Run("diglim", func(t *testing.T) { checkRows(t, rows(t, r, "diglim"), wantDIGLIM) })
		t.Run("openeuler", func(t *testing.T) { checkRows(t, rows(t, r, "openeuler"), wantOpenEuler) })
		checkKernelLog(t, r)
	})
}

// What came of it; error; what the kernel has then, an orphan with the name of
// the list that it shows.
var wantDIGLIM = func() map[string][]string {
	const a, b = "0-file_list-compact-a", "0-file_list-compact-b"
	const nothing, loaded = "P0 F0 M0 L0", "P2 F2 M1 L1 " + a
	return map[string][]string{
		"del what is not there":       {"5 false ", "-", nothing},
		"add":                         {"5 true ", "-", loaded},
		"query":                       {"file in " + a + " ", "-", loaded},
		"query three types":           {"parser in " + a + " file in " + a + " metadata in " + a + " ", "-", loaded},
		"query a list":                {"list " + a + " of 208 bytes", "-", loaded},
		"query another algorithm":     {"", "-", loaded},
		"query nothing":               {"", "-", loaded},
		"query an algorithm of later": {"", "/does not know the algorithm/", loaded},
		"add again":                   {"5 false ", "-", loaded},
		"add under another name":      {"5 false " + a, "-", loaded},
		"del under another name":      {"5 false " + a, "-", loaded},
		"raw add under another name":  {"EEXIST", "-", loaded + ` ` + b + `->"` + a + `"`},
		"del through the orphan":      {"5 false " + a, "-", loaded + ` ` + b + `->"` + a + `"`},
		"raw del through the orphan":  {"-", "-", nothing + ` ` + a + `->""`},
		"add where files are left":    {"5 false ", "/cannot be under this name/", nothing + ` ` + a + `->""`},
		"add elsewhere":               {"5 true ", "-", "P2 F2 M1 L1 " + b + ` ` + a + `->"` + b + `"`},
		"del elsewhere":               {"5 true ", "-", nothing + ` ` + a + `->""`},
	}
}()

// A list that is refused costs no write, and changes nothing. Offered all the
// same, it does its harm: what digest lists are used for (1 measurement, 2
// appraisal) is less, there are digests of a list with a fault, or, worst, all
// went well.
var wantOpenEuler = func() map[string][]string {
	const fine = "-"
	refused := func(pattern string, use string, raw ...string) []string {
		return append([]string{"false", "/" + pattern + "/", "0", "0", use}, raw...)
	}
	taken := func(digests string) []string {
		return []string{"true", "-", "1", digests, "1", fine, digests, "1"}
	}
	return map[string][]string{
		"good":                    taken("2"),
		"good parsers":            taken("2"),
		"good metadata and files": taken("4"),
		"reserved byte":           taken("2"),

		// done, error, writes, digests, use | errno, digests, use
		"unmeasured":                 refused("nothing says that IMA would measure it.*switch digest lists off", "1", "EACCES", "0", "0"),
		"unsigned for measurement":   refused("not signed: no security.ima", "1", fine, "2", "1"),
		"unsigned":                   refused("not signed: no security.ima.*switch digest lists off", "3", fine, "2", "1"),
		"portable signature alone":   refused("not signed: no security.ima", "3", fine, "2", "3"),
		"signed, no rule to be read": refused("nothing says that IMA would appraise it", "3", fine, "2", "3"),
		"unsigned and unmeasured":    refused("not signed", "3", "EACCES", "0", "0"),
		"v3 files":                   refused("type parser in a list of type file by its name: a list of dialect v3", "1", fine, "2", "1"),
		"v3 parsers":                 refused("type key in a list of type parser", "1", fine, "2", "1"),
		"v3 metadata":                refused("no digests of type metadata", "1", fine, "2", "1"),
		"big-endian":                 refused("big-endian byte order, this kernel reads little-endian", "1", "EINVAL", "0", "1"),
		"modifiers":                  refused("modifiers 0x2", "1", fine, "2", "1"),
		"appended signature":         refused("appended signature", "1", "EINVAL", "2", "1"),
		"cut":                        refused("ends early", "1", "EINVAL", "1", "1"),
		"version":                    refused("version 2", "1", "EINVAL", "0", "1"),
		"type":                       refused("type 4 is not known", "1", "EINVAL", "0", "1"),
		"algorithm":                  refused("hash algorithm 20 is not known", "1", "EINVAL", "0", "1"),
		"length":                     refused("63 bytes of data for 2 digests", "1", "EINVAL", "2", "1"),
		"empty":                      refused("empty list", "1", "EINVAL", "0", "1"),
		"name":                       refused("the name has to say", "1", fine, "2", "1"),

		// result, errno, digests, use
		"open to read":           {"-1", "EACCES", "0", "1"},
		"open to read and write": {"-1", "EACCES", "0", "1"},
		"write at 1":             {"-1", "EINVAL", "0", "1"},
		"two at a time":          {"-1", "EBUSY", "0", "1"},
		"64 MiB":                 {"-1", "EFBIG", "0", "1"},
		"a list itself":          {"-1", "EINVAL", "0", "1"},
		"nothing":                {"-1", "EINVAL", "0", "1"},
		"relative path":          {"-1", "EINVAL", "0", "1"},
		"no such file":           {"-1", "ENOENT", "0", "1"},
		"directory":              {"-1", "EINVAL", "0", "1"},
		"open for writing":       {"-1", "ETXTBSY", "0", "1"},
		"path with a newline":    {"33", "-", "2", "1"},
		"path with a NUL":        {"32", "-", "2", "1"},
		"del":                    {"32", "-", "2", "1"},
		"del to the last":        {"32", "-", "0", "1"},
		"del of nothing":         {"32", "-", "0", "1"},

		// error, digests, use
		"story add":          {"-", "2", "3"},
		"story del":          {"-", "0", "3"},
		"story raw":          {"permission denied", "0", "0"},
		"story add when off": {"/permission denied .*or digest lists are off in this kernel/", "0", "0"},
	}
}()
