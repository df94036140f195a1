// Package clitest is what the commands' test scripts have in common.
package clitest

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// Run runs the scripts in testdata/script, each in a directory that starts
// with the given files.
func Run(t *testing.T, files map[string][]byte) {
	t.Helper()
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			for name, data := range files {
				path := filepath.Join(env.WorkDir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(path, data, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits CODE COMMAND... runs a command and demands that exit code. testscript
// itself knows success and failure only.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGS...]")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// ManPage checks that a command's manual page knows every flag of every
// subcommand, by what the command's own help says.
func ManPage(t *testing.T, name string, run func(args []string, stdout, stderr io.Writer) int, subcommands ...string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "man", name+".1"))
	if err != nil {
		t.Fatal(err)
	}
	flag := regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z-]+)`)
	for _, sub := range subcommands {
		var help bytes.Buffer
		if code := run([]string{sub, "--help"}, &help, io.Discard); code != 0 {
			t.Errorf("%s --help: exit code %d", sub, code)
		}
		found := flag.FindAllSubmatch(help.Bytes(), -1)
		if len(found) == 0 {
			t.Errorf("%s --help names no flags", sub)
		}
		for _, m := range found {
			if string(m[1]) != "help" && !regexp.MustCompile(`Fl -`+string(m[1])+`\b`).Match(page) {
				t.Errorf("%s(1) does not know %s --%s", name, sub, m[1])
			}
		}
		if !regexp.MustCompile(`Cm (\w+ \| )?` + sub + `\b`).Match(page) {
			t.Errorf("%s(1) does not know %s", name, sub)
		}
	}
}
