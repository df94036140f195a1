package attest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"diglim/internal/attest"
)

// Every code there is has an explanation, and a row in docs/formats.
func TestEveryCodeIsExplained(t *testing.T) {
	doc, err := os.ReadFile("../../docs/formats/evidence.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	constant := regexp.MustCompile(`(?m)^\t\w+ +Code = "([^"]+)"`)
	n := 0
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range constant.FindAllStringSubmatch(string(source), -1) {
			n++
			meaning, remedy, ok := attest.Explain(attest.Code(m[1]))
			if !ok || !strings.HasSuffix(meaning, ".") || !strings.HasSuffix(remedy, ".") {
				t.Errorf("%s: %q, %q", m[1], meaning, remedy)
			}
			if !strings.Contains(string(doc), "`"+m[1]+"`") {
				t.Errorf("%s is not in docs/formats/evidence.md", m[1])
			}
		}
	}
	if n == 0 || n != len(attest.Codes()) {
		t.Errorf("%d codes, %d explanations", n, len(attest.Codes()))
	}
	if _, _, ok := attest.Explain("nosuch"); ok {
		t.Error("an unknown code is explained")
	}
}
