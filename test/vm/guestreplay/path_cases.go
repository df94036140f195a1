package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// writeFile writes a file for the path cases and returns its path.
func (r *replay) writeFile(name string, data ...[]byte) string {
	path := filepath.Join(work, name)
	r.fail(os.MkdirAll(work, 0o755))
	r.fail(os.WriteFile(path, slices.Concat(data...), 0o644))
	return path
}

func (r *replay) addPath(id, path string) {
	r.change(id, nil, func() result { return add([]byte(path)) })
}

func (r *replay) delPath(id, path string) {
	r.change(id, nil, func() result { return del([]byte(path)) })
}

func (r *replay) pathCases() {
	plist := r.writeFile("plist", pathList)
	r.addPath("p-add", plist)
	res, answer := query("sha256-" + hexOf(sum(pathList)))
	r.row("p-query", nil, res, string(answer.data))
	r.addPath("p-add2", plist)
	r.delPath("p-del-nl", plist+"\n")
	r.addPath("p-add-nl", plist+"\n")
	r.delPath("p-del-nul", plist+"\x00")
	r.addPath("p-add-nul", plist+"\x00")
	r.delPath("p-del-nlx", plist+"\nrest of it")
	r.addPath("p-add-nulx", plist+"\x00rest")
	r.delPath("p-del", plist)

	r.addPath("p-nl0", "\x00")
	r.addPath("p-rel", plist[1:])
	r.addPath("p-missing", work+"/none")
	r.addPath("p-missing-dir", "/tmp/zz/none")
	r.addPath("p-notdir", plist+"/x")
	r.addPath("p-slash-end", plist+"/")
	r.addPath("p-empty", r.writeFile("empty"))
	r.addPath("p-dir", work)
	r.addPath("p-root", "/")
	r.addPath("p-nlonly", "/\n")
	r.addPath("p-null", "/dev/null")
	r.addPath("p-proc", "/proc/version")
	r.addPath("p-long", "/"+strings.Repeat("a", 4999))
	r.addPath("p-name300", "/"+strings.Repeat("a", 300))

	fd, err := unix.Open(plist, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	r.fail(err)
	r.addPath("p-txtbsy", plist)
	unix.Close(fd)
	r.addPath("p-after-txtbsy", plist)
	fd, err = unix.Open(plist, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	r.row("p-open-w-after", nil, result{err: err}, "")
	unix.Close(fd)
	r.delPath("p-del2", plist)

	r.fail(os.Symlink("plist", work+"/link"))
	r.addPath("p-symlink", work+"/link")
	r.delPath("p-symlink-del", plist)
	r.delPath("p-symlink-del2", work+"/link")

	r.fail(os.Link(plist, work+"/hard"))
	r.addPath("p-hard", work+"/hard")
	r.change("p-del-by-buffer", pathList, func() result { return delAs("hard", pathList) })
	r.change("b-add-viaf", pathList, func() result { return addAs("plist", pathList) })
	r.delPath("b-del-by-path", plist)

	r.change("p-label-untouched", nil, func() result { return addAs("keepme", []byte(plist)) })
	r.change("p-label-untouched2", listM, func() result { return add(listM) })
	delAs("keepme", listM)
	r.delPath("p-del3", plist)

	dots := r.writeFile("a-very.long.name-1.0-1.fc33.x86_64", pathList)
	r.addPath("p-dots", dots)
	r.delPath("p-dots-del", dots)

	changed := r.writeFile("chg", pathList)
	r.addPath("p-chg-add", changed)
	r.writeFile("chg", listM)
	r.delPath("p-chg-del", changed)
	r.writeFile("chg", pathList)
	r.delPath("p-chg-del2", changed)
}

func (r *replay) signatureCases() {
	size := uint32(len(signature))
	signed := r.writeFile("signed", pathList, signature, trailer(size))
	r.addPath("p-sig", signed)
	got := readFile(loadedFile(pathList, "signed"))
	r.row("p-sig-bin", nil, result{}, fmt.Sprintf("equal to list without trailer=%t (%d bytes) %s", bytes.Equal(got.data, pathList), len(got.data), got.errno()))
	r.delPath("p-sig-del", signed)
	whole := slices.Concat(pathList, signature, trailer(size))
	r.change("b-sig", whole, func() result { return addAs("b", whole) })

	sig0 := r.writeFile("sig0", pathList, trailer(0))
	r.addPath("p-sig0", sig0)
	r.delPath("p-sig0-del", sig0)
	r.addPath("p-sigshort", r.writeFile("sigshort", pathList, signature, trailer(size-1)))
	r.addPath("p-siglong1", r.writeFile("sigbig", pathList, signature, trailer(size+1)))
	r.addPath("p-sig132", r.writeFile("sigdig", pathList, signature, trailer(size+32)))
	all := r.writeFile("sigall", pathList, signature, trailer(size+uint32(len(pathList))))
	r.addPath("p-sigall", all)
	r.delPath("p-sigall-del", all)
	r.addPath("p-onlytrailer", r.writeFile("onlytr", trailer(0)))
}
