package upload

import (
	"slices"
	"testing"
)

func TestCompare(t *testing.T) {
	lists := []string{"/a/10-file_list-compact-z", "/b/3-parser_list-compact-uploader", "/a/README", "/a/2-file_list-rpm-a", "/a/1-parser_list-compact-b", "/c/2-file_list-compact-parser_list"}
	for op, want := range map[Op][]string{
		Add: {"/a/1-parser_list-compact-b", "/b/3-parser_list-compact-uploader", "/c/2-file_list-compact-parser_list", "/a/2-file_list-rpm-a", "/a/10-file_list-compact-z", "/a/README"},
		Del: {"/c/2-file_list-compact-parser_list", "/a/2-file_list-rpm-a", "/a/10-file_list-compact-z", "/a/README", "/a/1-parser_list-compact-b", "/b/3-parser_list-compact-uploader"},
	} {
		got := slices.Clone(lists)
		slices.SortStableFunc(got, func(a, b string) int { return Compare(op, a, b) })
		if !slices.Equal(got, want) {
			t.Errorf("operation %d: %q, want %q", op, got, want)
		}
	}
}

func TestWriteFileOfNothing(t *testing.T) {
	if err := WriteFile(t.TempDir()+"/missing", nil); err == nil {
		t.Error("a control file was made")
	}
}
