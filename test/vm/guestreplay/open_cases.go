package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

var openFlags = []struct {
	name  string
	flags int
}{
	{"O_RDONLY", unix.O_RDONLY},
	{"O_WRONLY", unix.O_WRONLY},
	{"O_RDWR", unix.O_RDWR},
	{"acc3", 3},
	{"O_WRONLY|O_APPEND", unix.O_WRONLY | unix.O_APPEND},
	{"O_WRONLY|O_TRUNC", unix.O_WRONLY | unix.O_TRUNC},
	{"O_WRONLY|O_CREAT", unix.O_WRONLY | unix.O_CREAT},
	{"O_RDONLY|O_NONBLOCK", unix.O_RDONLY | unix.O_NONBLOCK},
}

var names = []string{loadedName, "digests_count", "digest_list_add", "digest_list_del", "digest_list_label", "digest_query"}

func (r *replay) openCases() {
	count := readFile(diglim + "/digests_count")
	r.row("count0", nil, result{}, fmt.Sprintf("%q %d reads %s", count.data, count.reads, count.errno()))
	empty := readFile(diglim + "/digest_query")
	r.row("query0", nil, result{}, fmt.Sprintf("%q %d reads %s", empty.data, empty.reads, empty.errno()))

	for _, name := range append([]string{""}, names...) {
		var st unix.Stat_t
		err := unix.Stat(diglim+"/"+name, &st)
		r.row("mode-"+name, nil, result{err: err}, fmt.Sprintf("mode %o uid %d gid %d size %d -", st.Mode, st.Uid, st.Gid, st.Size))
	}
	for _, name := range names {
		for _, f := range openFlags {
			r.openAndRead(name, f.name, f.flags)
		}
	}
	for _, name := range names {
		if name == "digest_list_del" { // not in the recording
			continue
		}
		for _, f := range openFlags[:2] {
			r.openUnprivileged(name, f.name, f.flags)
		}
	}
}

func (r *replay) openAndRead(name, flagName string, flags int) {
	fd, err := open(name, flags)
	observed := ""
	if err == nil {
		// The original crashes when the label is read.
		if name != "digest_list_label" || flags&unix.O_ACCMODE == unix.O_WRONLY {
			_, err := unix.Read(fd, make([]byte, 4096))
			_, errno := result{err: err}.columns()
			observed = "then read: " + errno
		}
		unix.Close(fd)
	}
	r.row("open-"+name+"-"+flagName, nil, result{err: err}, observed)
}

// openUnprivileged opens a file with the rights of a user.
func (r *replay) openUnprivileged(name, flagName string, flags int) {
	const id = 1000
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r.fail(unix.Setfsgid(id))
	r.fail(unix.Setfsuid(id))
	fd, err := open(name, flags)
	r.fail(unix.Setfsuid(0))
	r.fail(unix.Setfsgid(0))
	if err == nil {
		unix.Close(fd)
	}
	r.row("open1000-"+name+"-"+flagName, nil, result{err: err}, "")
}

// A way is a file of the interface and an access mode.
type way struct {
	name, mode string
	flags      int
}

func (w way) String() string { return w.name + w.mode }

func (r *replay) busyCases() {
	exclusive := []way{
		{"digest_list_add", "W", unix.O_WRONLY},
		{"digest_list_del", "W", unix.O_WRONLY},
		{"digest_query", "W", unix.O_WRONLY},
		{"digest_query", "R", unix.O_RDONLY},
		{"digest_query", "RW", unix.O_RDWR},
	}
	others := append(exclusive,
		way{"digest_list_label", "W", unix.O_WRONLY},
		way{"digests_count", "R", unix.O_RDONLY},
		way{"digest_list_add", "R", unix.O_RDONLY},
		way{"digest_list_add", "RW", unix.O_RDWR})
	for _, held := range exclusive {
		fd, err := open(held.name, held.flags)
		r.fail(err)
		for _, other := range others {
			r.row(fmt.Sprintf("busy-%v-%v", held, other), nil, tryOpen(other), "")
		}
		unix.Close(fd)
		r.row(fmt.Sprintf("busy-after-%v", held), nil, tryOpen(held), "")
	}

	fd, err := open("digest_list_add", unix.O_WRONLY)
	r.fail(err)
	tryOpen(way{name: "digest_list_add", flags: unix.O_RDONLY})
	r.row("busy-failed-open", nil, tryOpen(exclusive[0]), "")
	unix.Close(fd)
}

func tryOpen(w way) result {
	fd, err := open(w.name, w.flags)
	if err == nil {
		unix.Close(fd)
	}
	return result{err: err}
}
