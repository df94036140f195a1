package main

import (
	"path/filepath"
	"testing"

	"diglim/digestlist"
	"diglim/internal/clitest"
	"diglim/internal/digest"
	"diglim/internal/kernel/diglim"
	"diglim/internal/rpmtest"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"diglim-upload": main})
}

// The scripts see plain files where a kernel with DIGLIM has its interface:
// enough for order, exit codes and messages. What a kernel answers is tested
// in a guest that has one.
func TestScripts(t *testing.T) {
	list, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{
		{Type: digestlist.File, Algorithm: digest.SHA256, Digests: []digest.Digest{digest.Sum(digest.SHA256, []byte("a"))}}})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"lists/0-file_list-rpm-p-1.0-1.noarch": rpmtest.Package{Name: "p", Algo: 8, Files: []rpmtest.File{rpmtest.Regular("/usr/bin/p", 0o755, "p")}}.Header(),
		"lists/10-file_list-compact-last":      list,
		"lists/2-file_list-compact-second":     list,
		"lists/.hidden":                        nil,
		"mixed/0-file_list-compact-bad":        list[:20],
		"mixed/1-file_list-compact-good":       list,
	}
	for _, name := range []string{"digest_list_add", "digest_list_del", "digest_list_label"} {
		files[filepath.Join("security", diglim.Dir, name)] = nil
	}
	files[filepath.Join("security", diglim.Dir, "digests_count")] = []byte("Parser digests: 1\nFile digests: 104273\nMetadata digests: 0\nDigest list digests: 2430\n")
	clitest.Run(t, files)
}
func TestManPage(t *testing.T) { clitest.ManPage(t, "diglim-upload", run, "add", "del", "status") }
