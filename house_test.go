package diglim

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "diglim/"

// testOnly are packages that exist for tests.
var testOnly = []string{"internal/corpus", "internal/rpmtest", "internal/clitest", "tpm/tpmtest"}

// The table in docs/design/house.md says who may import whom.
func TestImportTable(t *testing.T) {
	doc, err := os.ReadFile("docs/design/house.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "```imports\n")
	table, _, ok2 := strings.Cut(table, "```")
	if !ok || !ok2 {
		t.Fatal("docs/design/house.md has no table of imports")
	}
	allowed := make(map[string][]string)
	for line := range strings.Lines(table) {
		name, imports, _ := strings.Cut(strings.TrimSpace(line), ":")
		allowed[name] = strings.Fields(imports)
	}

	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		name, ours := strings.TrimPrefix(fields[0], module), slices.DeleteFunc(fields[1:], func(s string) bool { return !strings.HasPrefix(s, module) })
		if name+"/" == module || slices.Contains(testOnly, name) || strings.HasPrefix(name, "test/") || strings.HasPrefix(name, "bench") {
			continue
		}
		imports, ok := allowed[name]
		if !ok {
			t.Errorf("%s is not in the table", name)
			continue
		}
		seen++
		for _, i := range ours {
			i = strings.TrimPrefix(i, module)
			if !slices.Contains(imports, i) {
				t.Errorf("%s imports %s, which the table does not allow", name, i)
			}
		}
		for _, i := range imports {
			if !slices.Contains(ours, module+i) {
				t.Errorf("the table lets %s import %s, which it does not", name, i)
			}
		}
	}
	if seen != len(allowed) {
		t.Errorf("the table has %d packages, there are %d", len(allowed), seen)
	}
}
