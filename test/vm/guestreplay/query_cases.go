package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func sum(b []byte) []byte {
	d := sha256.Sum256(b)
	return d[:]
}

// query writes a query and shows how many reads the answer took, and it.
func (r *replay) query(id, text string) {
	res, answer := query(text)
	r.row(id, nil, res, fmt.Sprintf("%d reads: %s", answer.reads, answer.data))
}

func (r *replay) queryCalls(id, text string) {
	res, answer := query(text)
	r.row(id, nil, res, fmt.Sprintf("%d read calls: %s", answer.reads, answer.data))
}

// queryCleared is a query after the last one has been forgotten.
func (r *replay) queryCleared(id, text string) {
	r.clearQuery()
	r.query(id, text)
}

func (r *replay) queryCases() {
	digits := hexOf(abc[:])
	right := "sha256-" + digits
	addAs("q", listL)
	r.row("q-loaded", nil, result{}, r.state().counts)

	r.query("q1", right)
	r.query("q2-short", right[:15])
	r.query("q2b-prefix", "sha256-")
	r.queryCleared("q3-short-cleared", right[:15])
	r.queryCleared("q3b-short62", right[:69])
	r.query("q4-long", right+"00")
	r.query("q5-upper", "sha256-"+strings.ToUpper(digits))
	r.query("q5b-upperalgo", "SHA256-"+digits)
	r.query("q6-unknown", "sha256-"+hexOf(sum([]byte("unknown"))))
	r.query("q7-algo", "sha257-"+digits)
	r.query("q8-nodash", "sha256")
	r.query("q9-nl", right+"\n")
	r.query("q10-nul", right+"\x00")
	r.query("q11-empty", "")
	r.queryCleared("q11b-empty", "")
	r.query("q12-dash", "-")
	filled := right + strings.Repeat("0", 258-len(right))
	r.query("q13-257", filled[:257])
	r.query("q14-258", filled)
	again := readFile(diglim + "/digest_query")
	r.row("q15-after258", nil, result{}, fmt.Sprintf("%d reads: %s", again.reads, again.data))
	r.query("q16-0x", "sha256-0x"+digits)
	r.query("q17-space", " "+right)
	r.query("q18-wrongalgo", "sha1-"+digits)
	r.queryCleared("q18b-sha512", "sha512-"+digits)
	r.nonHex(digits)
	r.query("q20-nonhex40", "sha256-"+digits[:40]+"g"+digits[41:])

	r.change("q21-order", nil, func() result {
		fd, err := open("digest_query", unix.O_RDWR)
		if err != nil {
			return result{err: err}
		}
		defer unix.Close(fd)
		n, err := unix.Write(fd, []byte(right))
		if answer := readAll(fd); !strings.Contains(string(answer.data), "-q (actions: 0)") {
			r.fail(fmt.Errorf("query read where it was written: %q %v", answer.data, answer.err))
		}
		return result{n, err}
	})
	r.change("q22-pwrite", nil, func() result { return pwriteAt("digest_query", []byte(right), 9) })
	r.row("q22-read", nil, result{}, string(readFile(diglim+"/digest_query").data))
	r.row("q23-again", nil, result{}, string(readFile(diglim+"/digest_query").data))
	r.row("q-clean", nil, result{}, r.cleanup("q", listL))
	r.row("q-after-del", nil, result{}, fmt.Sprintf("%q", readFile(diglim+"/digest_query").data))
}

// nonHex puts a digit that is none at all places of a digest.
func (r *replay) nonHex(digits string) {
	var refused, accepted []int
	for i := range digits {
		res := write("digest_query", []byte("sha256-"+digits[:i]+"g"+digits[i+1:]))
		switch res.err {
		case unix.EINVAL:
			refused = append(refused, i)
		case nil:
			accepted = append(accepted, i)
		default:
			r.fail(fmt.Errorf("query with a wrong digit: %v", res))
		}
	}
	r.row("q19-nonhex", nil, result{}, fmt.Sprintf("EINVAL at %v; accepted at %v", refused, accepted))
}

func (r *replay) endCases() {
	s := r.state()
	short := make([]string, len(s.files))
	for i, name := range s.files {
		short[i] = shortName(name)
	}
	r.row("end", nil, result{}, s.counts+" "+strings.Join(short, " "))

	log, err := os.ReadFile("/sys/kernel/security/ima/ascii_runtime_measurements")
	r.fail(err)
	lines := strings.Split(strings.TrimSuffix(string(log), "\n"), "\n")
	entries := ""
	for _, line := range lines {
		// PCR, template hash, template, digest, name, signature
		f := strings.SplitN(line, " ", 6)
		if len(f) != 6 {
			r.fail(fmt.Errorf("IMA log: %q", line))
			return
		}
		entries += fmt.Sprintf("[pcr%s %s th=%s d-ng=%s n-ng=%q f3=%s] ", f[0], f[2], f[1], f[3], f[4], f[5])
	}
	r.row("imalog", nil, result{}, fmt.Sprintf("%d entries: %s", len(lines), entries))
}
