package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// fileCases are about open files of the interface, and were recorded apart.
func (r *replay) fileCases() {
	r.scenario = "conc"
	addAs("k", listL)
	path := loadedFile(listL, "k")
	adding := way{name: "digest_list_add", flags: unix.O_WRONLY}

	fd, err := open(adding.name, adding.flags)
	r.fail(err)
	dup, err := unix.Dup(fd)
	r.fail(err)
	unix.Close(fd)
	r.row("dup-busy", nil, tryOpen(adding), "")
	unix.Close(dup)
	r.row("dup-busy2", nil, tryOpen(adding), "")

	pieces := ""
	r.fail(readPieces(path, 4, func(piece []byte, err error) {
		_, errno := result{err: err}.columns()
		pieces += fmt.Sprintf("%d:%x:%s ", len(piece), piece, errno)
	}))
	r.row("loaded-small-reads", nil, result{}, pieces)
	fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	r.fail(err)
	part := make([]byte, 10)
	n, err := unix.Pread(fd, part, 20)
	r.row("loaded-pread", nil, result{n, err}, fmt.Sprintf("%x want %x", part, listL[20:30]))
	unix.Close(fd)
	r.row("loaded-unlink", nil, result{err: unix.Unlink(path)}, "")
	r.row("loaded-rename", nil, result{err: unix.Rename(path, path+"2")}, "")
	_, err = os.OpenFile(loaded+"/new", os.O_CREATE|os.O_WRONLY, 0o600)
	r.row("loaded-creat", nil, result{err: err}, "")

	fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	r.fail(err)
	r.row("del-while-open", nil, delAs("k", listL), r.state().counts)
	n, err = unix.Read(fd, part)
	r.row("read-after-del", nil, result{n, err}, "")
	unix.Close(fd)
	r.row("readd", nil, addAs("k2", listL), r.state().counts)
	for _, n := range []int{1, 2, 15, 16, 17} {
		r.row(fmt.Sprintf("zeros%d", n), nil, add(make([]byte, n)), r.state().counts)
	}
	delAs("k2", listL)

	r.scenario = "keep0"
	r.row("keep0-empty", nil, addAs("kk", nil), "")
	res := add(listM)
	files := r.state().files
	r.row("keep0-then", nil, res, fmt.Sprintf("%s %s", files[0], files[1]))
	delAs("kk", listM)

	r.scenario = "labelrw"
	fd, err = open("digest_list_label", unix.O_RDWR)
	r.fail(err)
	n, err = unix.Write(fd, []byte("abc"))
	r.row("labelrw", nil, result{n, err}, "-")
	unix.Close(fd)
	setLabel("")
}

// crashCases are what crashes the original, as far as it can be done without
// an IMA policy, and what was recorded to come close to it.
func (r *replay) crashCases() {
	for _, c := range []struct {
		name string
		op   func() result
	}{
		{"readlabel", func() result {
			fd, err := open("digest_list_label", unix.O_RDONLY)
			r.fail(err)
			defer unix.Close(fd)
			n, err := unix.Read(fd, make([]byte, 16))
			return result{n, err}
		}},
		{"label183", func() result { return addAs(repeat('e', 183), listM) }},
		{"label183-kept", func() result { return add(listM) }},
		{"label183-del", func() result { return del(listM) }},
		{"label255", func() result { return addAs(repeat('e', 255), listM) }},
		{"path200", func() result { return add([]byte(r.writeFile(repeat('f', 200), pathList))) }},
		{"siglong", func() result { return add([]byte(r.writeFile("s", pathList, trailer(uint32(len(pathList)+1))))) }},
		{"siglong16", func() result { return add([]byte(r.writeFile("s", pathList, trailer(uint32(len(pathList)+16))))) }},
		{"sig31", func() result { return add([]byte(r.writeFile("s", pathList, trailer(1<<31)))) }},
		{"sighuge", func() result { return add([]byte(r.writeFile("s", pathList, trailer(1<<32-1)))) }},
		{"emptyadd", func() result { return addAs("e", nil) }},
		{"emptypath", func() result { return add([]byte(r.writeFile("s", pathList, trailer(uint32(len(pathList)))))) }},
		{"seekquery", func() result {
			fd, err := open("digest_query", unix.O_WRONLY)
			r.fail(err)
			defer unix.Close(fd)
			_, err = unix.Seek(fd, 1, 0)
			return result{err: err}
		}},
	} {
		r.scenario = c.name
		r.change("crash-"+c.name, nil, c.op)
		r.unharmed()
	}
}

// unharmed makes sure that nothing stayed busy.
func (r *replay) unharmed() {
	if fd, err := unix.Open(work+"/s", unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		unix.Close(fd)
	} else if !errors.Is(err, unix.ENOENT) {
		r.fail(fmt.Errorf("%s: open the list file: %w", r.scenario, err))
	}
	plist := r.writeFile("unharmed", pathList)
	if res := add([]byte(plist)); res.err != nil {
		r.fail(fmt.Errorf("%s: add afterwards: %v", r.scenario, res))
	}
	if res := del([]byte(plist)); res.err != nil {
		r.fail(fmt.Errorf("%s: delete afterwards: %v", r.scenario, res))
	}
}
