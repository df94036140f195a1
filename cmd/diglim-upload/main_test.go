//go:build !nobpf && (amd64 || arm64)

package main

import (
	"path/filepath"
	"testing"

	"diglim/digestlist"
	"diglim/internal/clitest"
	"diglim/internal/digest"
	"diglim/internal/kernel/diglim"
	"diglim/internal/rpmtest"
)

// compactList is a compact list of a digest, or of several.
func compactList(t testing.TB, kind digestlist.Type, digests ...digest.Digest) []byte {
	t.Helper()
	list, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{
		{Type: kind, Algorithm: digests[0].Algorithm(), Digests: digests}})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// The scripts see plain files where a kernel with DIGLIM has its interface, and
// a gate that is a file: enough for order, exit codes and messages. What a
// kernel answers is tested in a guest that has one.
func TestScripts(t *testing.T) {
	list := compactList(t, digestlist.File, digest.Sum(digest.SHA256, []byte("a")))
	files := map[string][]byte{
		"lists/0-file_list-rpm-p-1.0-1.noarch": rpmtest.Package{Name: "p", Algo: 8, Files: []rpmtest.File{rpmtest.Regular("/usr/bin/p", 0o755, "p")}}.Header(),
		"lists/10-file_list-compact-last":      list,
		"lists/2-file_list-compact-second":     list,
		"lists/.hidden":                        nil,
		"mixed/0-file_list-compact-bad":        list[:20],
		"mixed/1-file_list-compact-good":       list,
		"ima/ima/digest_list_data":             nil,
		"ima/ima/digest_list_data_del":         nil,
		"ima/ima/digests_count":                []byte("3\n"),
	}
	for _, name := range []string{"digest_list_add", "digest_list_del", "digest_list_label"} {
		files[filepath.Join("security", diglim.Dir, name)] = nil
	}
	files[filepath.Join("security", diglim.Dir, "digests_count")] = []byte("Parser digests: 1\nFile digests: 104273\nMetadata digests: 0\nDigest list digests: 2430\n")
	addGateFiles(t, files)
	clitest.Run(t, files)
}

func TestManPage(t *testing.T) {
	clitest.ManPage(t, "diglim-upload", run, "add", "replace", "del", "status", "query", "count", "boot", "watch", "stop")
}
