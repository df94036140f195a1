package main

import (
	"bytes"
	"fmt"
	"slices"
)

// format adds a list. If the kernel takes it, its files are read and it is
// deleted again.
func (r *replay) format(id string, parts ...[]byte) {
	list := slices.Concat(parts...)
	if res := r.change(id, list, func() result { return addAs("t", list) }); res.err != nil {
		return
	}
	bin := readFile(loadedFile(list, "t"))
	ascii := readFile(loadedFile(list, "t.ascii"))
	r.row(id+"r", nil, result{}, fmt.Sprintf("binary equal to input=%t (%d bytes, %d reads, %s); ascii (%d reads, %s): %s",
		bytes.Equal(bin.data, list), len(bin.data), bin.reads, bin.errno(), ascii.reads, ascii.errno(), ascii.data))
	r.change(id+"d", nil, func() result { return delAs("t", list) })
}

func (r *replay) formatCases() {
	one := digest(sha256ID, 1)
	r.format("f-two-blocks", block(file, 0, sha256ID, abc[:]), block(file, 1, sha256ID, digest(sha256ID, 2), digest(sha256ID, 3)))
	r.format("f-mixed", block(parser, 0, sha1, digest(sha1, 4)), block(file, 1, sha256ID, digest(sha256ID, 5)),
		block(metadata, 0, sha512, digest(sha512, 6)), block(file, 0, md5, digest(md5, 7)))
	r.format("f-count0", block(file, 0, sha256ID))
	r.format("f-count0-then", block(file, 0, sha256ID), listB)
	r.format("f-then-count0", listB, block(metadata, 0, sha1))
	r.change("f-empty", nil, func() result { return addAs("t", nil) })
	r.change("f-empty-again", nil, func() result { return addAs("t", nil) })
	res, answer := query("sha256-" + hexOf(sum(nil)))
	r.row("f-empty-q", nil, res, string(answer.data))
	r.change("f-empty-d", nil, func() result { return delAs("t", nil) })

	twoBlocks := slices.Concat(listB, block(file, 0, sha1, digest(sha1, 8)))
	r.truncated(twoBlocks)
	r.format("f-full", twoBlocks)
	r.format("f-trail1", listB, make([]byte, 1))
	r.format("f-trail16", listB, make([]byte, 16))
	for _, v := range []byte{0, 2, 255} {
		r.format(fmt.Sprintf("f-version%d", v), header(v, 0, file, 0, sha256ID, 1, 32), one)
	}
	for _, v := range []byte{1, 128} {
		r.format(fmt.Sprintf("f-reserved%d", v), header(1, v, file, 0, sha256ID, 1, 32), one)
	}
	for typ := range 6 {
		r.format(fmt.Sprintf("f-type%d", typ), block(typ, 0, sha256ID, one))
	}
	r.format("f-type-be", block(file<<8, 0, sha256ID, one))
	for algo := range 26 {
		r.format(fmt.Sprintf("f-algo%d", algo), block(file, 0, algo, digest(algo, 1)))
	}
	for _, n := range []uint32{0, 31, 33, 64, 1<<32 - 1} {
		r.format(fmt.Sprintf("f-datalen%d", n), header(1, 0, file, 0, sha256ID, 1, n), one, digest(sha256ID, 2))
	}
	// In 32 bits the product of count and digest size is the length given.
	r.format("f-count-over", header(1, 0, file, 0, sha256ID, 1<<27, 0))
	r.format("f-count-big", header(1, 0, file, 0, md5, 1<<31, 0))
	r.format("f-datalen-more", header(1, 0, file, 0, sha256ID, 2, 64), one)
	r.format("f-mod-ffff", block(file, 0xffff, sha256ID, one))
	r.format("f-mod-2", block(file, 2, sha256ID, one))
	r.format("f-dup-in", block(file, 0, sha256ID, abc[:], abc[:], abc[:]))
}

// truncated adds all prefixes of a list.
func (r *replay) truncated(list []byte) {
	outcomes := map[string][]int{}
	for n := 1; n < len(list); n++ {
		res := addAs("t", list[:n])
		key := fmt.Sprintf("=%d", res.n)
		if res.err != nil {
			_, key = res.columns()
		} else {
			delAs("t", list[:n])
		}
		outcomes[key] = append(outcomes[key], n)
	}
	s := r.state()
	r.row("f-truncated", list, result{}, fmt.Sprintf("%v %s files %d", outcomes, s.counts, len(s.files)))
}

func (r *replay) duplicateCases() {
	twice := block(file, 0, sha256ID, abc[:], abc[:])
	types := slices.Concat(listL, block(parser, 0, sha256ID, abc[:]), block(metadata, 4, sha256ID, abc[:]))
	r.change("dup1", nil, func() result { return addAs("d1", twice) })
	r.change("dup2", nil, func() result { return addAs("d2", types) })
	r.queryCalls("dup-query", "sha256-"+hexOf(abc[:]))
	pieces := ""
	r.fail(readPieces(diglim+"/digest_query", 64, func(piece []byte, err error) {
		_, errno := result{err: err}.columns()
		pieces += fmt.Sprintf("%d/%s ", len(piece), errno)
	}))
	r.row("dup-query-small", nil, result{}, pieces)
	r.change("dup-del1", nil, func() result { return delAs("d1", twice) })
	r.queryCalls("dup-query2", "sha256-"+hexOf(abc[:]))
	r.change("dup-del2", nil, func() result { return delAs("d2", types) })

	algos := slices.Concat(block(file, 0, sha256ID, abc[:]), block(file, 0, sm3, abc[:]), block(file, 0, streebog256, abc[:]))
	r.change("algo-collide", nil, func() result { return addAs("ac", algos) })
	for _, name := range []string{"sha256-", "sm3-", "sm3-256-", "streebog256-", "rmd256-"} {
		r.query("algo-q-"+name, name+hexOf(abc[:]))
	}
	r.row("algo-collide-clean", nil, result{}, r.cleanup("ac", algos))
}
