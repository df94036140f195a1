package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// pcr10 reads what IMA extends.
func (r *replay) pcr10() string {
	value, err := os.ReadFile("/sys/class/tpm/tpm0/pcr-sha256/10")
	if errors.Is(err, fs.ErrNotExist) {
		return "(no TPM)"
	}
	r.fail(err)
	return strings.TrimSpace(string(value))
}

// cleanup deletes a list and says how that went.
func (r *replay) cleanup(label string, list []byte) string {
	res := delAs(label, list)
	return fmt.Sprintf("cleanup del -> %v; %s", res, r.state().counts)
}

func (r *replay) bufferCases() {
	before := r.pcr10()
	r.change("add1", listL, func() result { return addAs("one", listL) })
	r.row("add1-pcr", nil, result{}, before+" -> "+r.pcr10())
	count := readFile(diglim + "/digests_count")
	r.row("add1-count", nil, result{}, fmt.Sprintf("%q", count.data))
	r.row("add1-ls", nil, result{}, strings.Join(r.state().files, " "))
	r.row("add1-ascii", nil, result{}, string(readFile(loadedFile(listL, "one.ascii")).data))
	r.row("add1-bin", nil, result{}, fmt.Sprintf("%x", readFile(loadedFile(listL, "one")).data))
	var st unix.Stat_t
	err := unix.Stat(loadedFile(listL, "one"), &st)
	r.row("add1-stat", nil, result{err: err}, fmt.Sprintf("mode %o uid %d size %d", st.Mode, st.Uid, st.Size))
	r.query("q-right", "sha256-"+hexOf(abc[:]))
	r.query("q-list", "sha256-"+hexOf(sum(listL)))

	// The label is used up by an upload that gets past the creation of files.
	r.change("add-same-label", listL, func() result { return addAs("one", listL) })
	r.change("label-kept-after-eexist", otherList, func() result { return add(otherList) })
	short := ""
	for _, name := range r.state().files {
		short += shortName(name) + " "
	}
	r.row("label-kept-ls", nil, result{}, short)
	res := delAs("one", otherList)
	r.row("label-kept-clean", nil, result{}, fmt.Sprintf("%v %s", res, r.state().counts))

	r.change("add-other-label", listL, func() result { return addAs("two", listL) })
	r.row("orphan-read", nil, result{}, string(readFile(loadedFile(listL, "two.ascii")).data))
	r.change("del-other-label", listL, func() result { return delAs("three", listL) })
	r.change("label-kept-after-del-enoent", thirdList, func() result { return add(thirdList) })
	r.row("x-clean", nil, result{}, r.cleanup("three", thirdList)+" / "+r.cleanup("one", otherList))

	r.change("del-no-label", listL, func() result { return delAs("", listL) })
	r.change("del-orphan-label", listL, func() result { return delAs("two", listL) })
	left := readFile(loadedFile(listL, "one.ascii"))
	r.row("left-pair-read", nil, result{}, fmt.Sprintf("%q %s", left.data, left.errno()))
	r.change("del-left-pair", listL, func() result { return delAs("one", listL) })
	r.change("add-left-pair", listL, func() result { return addAs("one", listL) })
	r.change("add-again", listL, func() result { return addAs("four", listL) })
	r.change("del-left-pair2", listL, func() result { return delAs("one", listL) })
	r.change("stale-four", listL, func() result { return addAs("four", listL) })
	r.change("readd-parser", listL, func() result { return addAs("", listL) })
	r.change("del-via-four", listL, func() result { return delAs("four", listL) })
	r.change("stale-parser", listL, func() result { return delAs("parser", listL) })

	r.change("del-not-loaded", listM, func() result { return delAs("m", listM) })
	r.change("addM", listM, func() result { return addAs("m", listM) })
	r.change("delM", listM, func() result { return delAs("m", listM) })
	r.change("delM2", listM, func() result { return delAs("m", listM) })
	r.change("addM2", listM, func() result { return addAs("m", listM) })
	r.change("delM3", listM, func() result { return delAs("m", listM) })
}

// writeCases write in unusual ways.
func (r *replay) writeCases() {
	as := func(label string, op func() result) func() result {
		return func() result { setLabel(label); return op() }
	}
	r.change("w-pwrite5", listM, as("w", func() result { return pwriteAt("digest_list_add", listM, 5) }))
	r.change("w-lseek5", listM, as("w", func() result { return seekAndWrite("digest_list_add", listM, 5) }))
	r.change("w-pwrite0", listM, as("w", func() result { return pwriteAt("digest_list_add", listM, 0) }))
	r.row("w-clean", nil, result{}, r.cleanup("w", listM))

	r.change("w-two", listM, as("w", func() result {
		fd, err := open("digest_list_add", unix.O_WRONLY)
		if err != nil {
			return result{err: err}
		}
		defer unix.Close(fd)
		if n, err := unix.Write(fd, listM); err != nil {
			return result{n, err}
		}
		setLabel("w2")
		n, err := unix.Write(fd, listB)
		return result{n, err}
	}))
	r.row("w-clean2", nil, result{}, r.cleanup("w", listM)+r.cleanup("w2", listB))

	r.change("w-append", listM, as("w", func() result {
		fd, err := open("digest_list_add", unix.O_WRONLY|unix.O_APPEND)
		if err != nil {
			return result{err: err}
		}
		defer unix.Close(fd)
		n, err := unix.Write(fd, listM)
		return result{n, err}
	}))
	r.row("w-clean3", nil, result{}, r.cleanup("w", listM))

	r.change("w-efault", listM, as("w", func() result { return writeBadPointer("digest_list_add", len(listM)) }))
	r.change("w-writev", listM, as("w", func() result {
		fd, err := open("digest_list_add", unix.O_WRONLY)
		if err != nil {
			return result{err: err}
		}
		defer unix.Close(fd)
		return writev(fd, listM[:16], listM[16:])
	}))
	r.row("w-clean4", nil, result{}, r.cleanup("w", listM))
}
