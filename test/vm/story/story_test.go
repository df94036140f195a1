package story_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"diglim/test/vm"
	"diglim/test/vm/story"
)

// The story, on a kernel of each series.
func TestStory(t *testing.T) {
	vm.Require(t)
	for _, series := range vm.Series {
		t.Run(series, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			k, err := vm.Fetch(ctx, series)
			if err != nil {
				t.Fatal(err)
			}
			play(t, ctx, story.New(t.TempDir(), k))
		})
	}
}

func play(t *testing.T, ctx context.Context, s *story.Story) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.Package(ctx))
	out, code := run(t, s, "diglim-gen", "rpm", "--keyring", "vendor.asc", "--output", "lists", "packages")
	if code != 0 || !strings.Contains(out, "wrote 4 lists") {
		t.Fatalf("diglim-gen: exit %d\n%s", code, out)
	}
	must(s.Boot(ctx))

	guest := make(map[string]story.Run)
	for _, r := range s.Runs {
		guest[r.Name] = r
		want := 0
		if r.Name == story.Denied {
			want = 126 // the shell's word for a program that cannot be executed
		}
		if r.Exit != want {
			t.Errorf("in the guest: %s: exit %d\n%s", r.Name, r.Exit, r.Output)
		}
	}
	says := func(name string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(guest[name].Output, w) {
				t.Errorf("in the guest: %s: %q, want %q", name, guest[name].Output, w)
			}
		}
	}
	// The kernel knows what the lists say, no more and no less.
	digests := readLists(t, s).files()
	says("upload", "bpf: ", " from 4 lists", "mode log")
	says("status", "generation 1, "+digests+" digests, 4 lists", "in the initramfs")
	says("hello", "hello\n")
	says("hello-again", "hello\n")
	says("watch", `"hook":"exec","verdict":"logged","reason":"unlisted","path":"`+story.Hello+`"`)
	if got := guest["watch"].Output; strings.Count(got, `"path":`) != strings.Count(got, `"path":"`+story.Hello+`"`) {
		t.Errorf("in the guest: not only %s was unknown:\n%s", story.Hello, got)
	}
	says("enforce", "mode enforce")
	says(story.Denied, "not permitted")
	says("status-again", "generation 2, "+digests+" digests", "mode  enforce")
	if log, err := os.ReadFile(filepath.Join(s.Dir, "kernel.log")); err != nil || strings.Contains(string(log), "Oops") {
		t.Errorf("kernel log: %v\n%s", err, log)
	}

	// The key that the host had when it was known to be good.
	must(os.Rename(filepath.Join(s.Dir, "evidence/before/ak.pub"), filepath.Join(s.Dir, "enrolled.pub")))
	check := func(nonce, evidence string, more ...string) (string, int) {
		t.Helper()
		return run(t, s, "attest-verify", append([]string{"check", "--lists", "lists", "--keyring", "vendor.asc", "--ak", "enrolled.pub",
			"--nonce", nonce, evidence}, more...)...)
	}
	if out, code = check(s.NonceBefore, "evidence/before", "--verbose"); code != 0 || !strings.HasPrefix(out, "TRUSTED") {
		t.Errorf("before the change: exit %d\n%s", code, out)
	}
	for _, path := range []string{"/init", "/usr/bin/diglim-upload", "/etc/digest_lists/0-file_list-rpm-hello-1.0-1", "/usr/bin/hello", "/etc/diglim/keys/vendor.asc"} {
		if !strings.Contains(out, path) {
			t.Errorf("before the change: %s is not among the known\n%s", path, out)
		}
	}
	out, code = check(s.NonceAfter, "evidence/after")
	if code != 1 || !strings.HasPrefix(out, "NOT TRUSTED") || !strings.Contains(out, story.Hello) || !strings.Contains(out, "hello-1.0-1.x86_64 has another file there") {
		t.Errorf("after the change: exit %d\n%s", code, out)
	}
	if !strings.Contains(out, "unknown-file") || strings.Count(out, "unknown-file") != 1 {
		t.Errorf("after the change: not one unknown file\n%s", out)
	}
	// Evidence answers one question only, and lists are what their vendor signed.
	if out, code = check(s.NonceAfter, "evidence/before"); code != 1 || !strings.Contains(out, "wrong-nonce") {
		t.Errorf("old evidence for a new question: exit %d\n%s", code, out)
	}
	if err := os.Truncate(filepath.Join(s.Dir, "evidence/after/ima.bin"), 500); err != nil {
		t.Fatal(err)
	}
	if out, code = check(s.NonceAfter, "evidence/after"); code != 2 {
		t.Errorf("a log cut short: exit %d\n%s", code, out)
	}
}

// run runs one of the story's programs in its directory.
func run(t *testing.T, s *story.Story, name string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(s.Dir, "bin", name), args...)
	cmd.Dir = s.Dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// lists is what diglim-gen says is in the lists.
type lists []struct {
	Files []struct{ Digest string }
}

func readLists(t *testing.T, s *story.Story) lists {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.Dir, "lists", "*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no lists: %v", err)
	}
	out, code := run(t, s, "diglim-gen", append([]string{"show", "--json"}, names...)...)
	var l lists
	if err := json.Unmarshal([]byte(out), &l); code != 0 || err != nil {
		t.Fatalf("exit %d, %v\n%s", code, err, out)
	}
	return l
}

// files is the number of different digests in the lists.
func (l lists) files() string {
	seen := map[string]bool{}
	for _, list := range l {
		for _, f := range list.Files {
			seen[f.Digest] = true
		}
	}
	return strconv.Itoa(len(seen))
}
