package vm_test

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"diglim/internal/corpus"
	"diglim/test/vm"
	"diglim/test/vm/plan"
)

// A recorded is a row of the recording of what the original DIGLIM v3 did, or
// what the guest printed for the case.
type recorded struct {
	input, result, errno, observed string
}

// readRecording reads the recording, by case id.
func readRecording(t *testing.T) map[string]recorded {
	t.Helper()
	cases := map[string]recorded{}
	for _, f := range readTable(t, corpus.Path(t, "diglim-v3-transcript.tsv")) {
		// case id, operation, input, result, errno, observed, agreement
		if len(f) < 6 {
			t.Fatalf("recording: %d columns: %q", len(f), f)
		}
		cases[f[0]] = recorded{input: f[2], result: f[3], errno: f[4], observed: f[5]}
	}
	return cases
}

// readTable reads the rows of a table but for its comments.
func readTable(t *testing.T, path string) [][]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rows [][]string
	for s := bufio.NewScanner(f); ; {
		if !s.Scan() {
			if err := s.Err(); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			return rows
		}
		if !strings.HasPrefix(s.Text(), "#") {
			rows = append(rows, strings.Split(s.Text(), "\t"))
		}
	}
}

// printed parses what guestreplay printed.
func printed(t *testing.T, r vm.Result, command string) map[string]recorded {
	t.Helper()
	output, exit, err := r.Command(command)
	if err != nil {
		t.Fatal(err)
	}
	if exit != 0 {
		t.Fatalf("guestreplay %s: exit code %d: %s", command, exit, output)
	}
	cases := map[string]recorded{}
	for line := range strings.Lines(output) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 5 {
			t.Fatalf("guestreplay %s: %q", command, line)
		}
		if _, ok := cases[f[0]]; ok {
			t.Errorf("%s: replayed twice", f[0])
		}
		cases[f[0]] = recorded{input: f[1], result: f[2], errno: f[3], observed: f[4]}
	}
	if len(cases) == 0 {
		t.Fatalf("guestreplay %s replayed nothing", command)
	}
	return cases
}

var listInput = regexp.MustCompile(`\b[0-9a-f]{32}(\.\.\(\d+ bytes, sha256 [0-9a-f]{8}\))?$`)

// compare reports where a replayed case went another way than the recording.
func compare(t *testing.T, id string, want, got recorded) {
	t.Helper()
	if list := listInput.FindString(want.input); list != "" && got.input != list {
		t.Errorf("%s: wrote %s, recorded with %s", id, got.input, list)
	}
	if got.result != want.result || got.errno != want.errno {
		t.Errorf("%s: result %s %s, recorded %s %s", id, got.result, got.errno, want.result, want.errno)
	}
	if got.observed != want.observed {
		t.Errorf("%s: observed\n\t%s\nrecorded\n\t%s", id, got.observed, want.observed)
	}
}

// TestReplay runs guestreplay with the module. The recording was made without a
// TPM.
func TestReplay(t *testing.T) {
	recording := readRecording(t)
	leftOut := readLeftOut(t, recording)
	eachKernel(t, func(t *testing.T, ctx context.Context, k vm.Kernel) {
		tree := t.TempDir()
		if err := vm.Build(ctx, filepath.Join(tree, "guestreplay"), "diglim/test/vm/guestreplay"); err != nil {
			t.Fatal(err)
		}
		p := plan.Plan{Modules: []string{"/modules/diglim_v3.ko"}, Unload: []string{"diglim_v3"}}
		for _, cases := range []string{"nopol", "crash", "big", "stress"} {
			p.Commands = append(p.Commands, plan.Command{Name: cases, Argv: []string{"/guestreplay", cases}})
		}
		r, err := vm.Boot(ctx, writeMachine(t, ctx, k, p, tree, buildModule(t, ctx, k)))
		if err != nil {
			t.Fatal(err)
		}
		t.Run("nopol", func(t *testing.T) { checkNoPolicy(t, printed(t, r, "nopol"), recording, leftOut) })
		t.Run("crash", func(t *testing.T) { checkCrashes(t, printed(t, r, "crash")) })
		t.Run("big", func(t *testing.T) { checkSizes(t, printed(t, r, "big"), recording) })
		t.Run("stress", func(t *testing.T) {
			// Left over is a pair of files from the nopol cases.
			compare(t, "stress", recorded{result: "0", errno: "-", observed: "P0 F0 M0 L0 files 2"}, printed(t, r, "stress")["stress/stress"])
		})
		checkKernelLog(t, r)
	})
}

// readLeftOut reads the cases that the replay leaves out, with the reasons.
func readLeftOut(t *testing.T, recording map[string]recorded) map[string]string {
	t.Helper()
	reasons := map[string]string{}
	for _, f := range readTable(t, "testdata/not-replayed.tsv") {
		if len(f) != 2 || f[1] == "" {
			t.Fatalf("not-replayed.tsv: %q: want a case id and a reason", f)
		}
		if _, ok := recording[f[0]]; !ok {
			t.Errorf("not-replayed.tsv: %s is not in the recording", f[0])
		}
		reasons[f[0]] = f[1]
	}
	return reasons
}

// The module answers as the original code was recorded to answer on a machine
// without an IMA policy. Every such case is replayed, or left out for a reason.
func checkNoPolicy(t *testing.T, got, recording map[string]recorded, leftOut map[string]string) {
	const scenario = "nopol/"
	replayed, of := 0, 0
	for id, want := range recording {
		if strings.HasPrefix(id, scenario) {
			of++
		}
		g, ok := got[id]
		switch {
		case ok && leftOut[id] != "":
			t.Errorf("%s: replayed, but not-replayed.tsv says %s", id, leftOut[id])
		case ok:
			compare(t, id, want, g)
			if strings.HasPrefix(id, scenario) {
				replayed++
			}
		case strings.HasPrefix(id, scenario) && leftOut[id] == "":
			t.Errorf("%s: not replayed and not in not-replayed.tsv", id)
		}
	}
	for id := range got {
		if _, ok := recording[id]; !ok {
			t.Errorf("%s: not in the recording", id)
		}
	}
	t.Logf("replayed %d of %d cases without a policy and %d others, left out %d", replayed, of, len(got)-replayed, len(leftOut))
}

// Where the original crashes the module refuses, and goes on as if nothing had
// happened.
func checkCrashes(t *testing.T, got map[string]recorded) {
	want := map[string]recorded{
		"readlabel":     {result: "-1", errno: "EINVAL"},
		"label183":      {result: "-1", errno: "ENAMETOOLONG"},
		"label183-kept": {result: "-1", errno: "ENAMETOOLONG"},
		"label183-del":  {result: "-1", errno: "ENAMETOOLONG"},
		"label255":      {result: "-1", errno: "ENAMETOOLONG"},
		"path200":       {result: "-1", errno: "ENAMETOOLONG"},
		"siglong":       {result: "-1", errno: "EINVAL"},
		"siglong16":     {result: "-1", errno: "EINVAL"},
		"sig31":         {result: "-1", errno: "EINVAL"},
		"sighuge":       {result: "-1", errno: "EINVAL"},
		"emptyadd":      {result: "-1", errno: "ENOENT"},
		"emptypath":     {result: "-1", errno: "ENOENT"},
		"seekquery":     {result: "0", errno: "-"},
	}
	for name, w := range want {
		id := name + "/crash-" + name
		g, ok := got[id]
		if !ok {
			t.Errorf("%s: not tried", id)
			continue
		}
		w.observed = "count unchanged; IMA log unchanged"
		compare(t, id, w, g)
	}
	if len(got) != len(want) {
		t.Errorf("%d cases tried, %d expected", len(got), len(want))
	}
}

// The limits of size are those of the original. The lists are as long as the
// recorded ones but hold other digests, so their names do not compare.
func checkSizes(t *testing.T, got, recording map[string]recorded) {
	for id, g := range got {
		want, ok := recording[id]
		if !ok {
			t.Errorf("%s: not in the recording", id)
			continue
		}
		want.input = ""
		want.observed, _, _ = strings.Cut(want.observed, ";")
		compare(t, id, want, g)
	}
}
