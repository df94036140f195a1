package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"diglim/digestlist"
	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/test/vm"
	"diglim/tpm"
	"diglim/tpm/imalog"
	"diglim/tpm/tpmtest"
)

const (
	imaFiles   = 10_000_000 // different files, of which the policy knows each
	imaEntries = 1_000_000  // of the log whose judging is timed
	imaStride  = 7_368_787  // from one of its files to the next, so that they stand nowhere together
	largeLog   = 1 << 30    // bytes of the log whose judging is weighed
	fleetLog   = 10_000     // entries of the log of one host of many
	fleetHosts = 20         // judged in a run
)

// What was asked for.
const (
	askedEntry  = 600    // ns an entry at most
	askedEvmctl = 6.5    // times as fast as evmctl, at least
	askedMemory = 64     // MiB for the large log
	askedQuote  = "1.30" // of its signature alone
)

var imaNonce = []byte("bench, bench, bench")

func imaFile(i int) (string, digest.Digest) {
	return fmt.Sprintf("/usr/lib/bench/%03d/file-%d", i%997, i), digest.Sum(digest.SHA256, binary.LittleEndian.AppendUint64(nil, uint64(i)))
}

// imaHost is the evidence of a host, without its log.
type imaHost struct {
	entries int
	attest.Evidence
	ak, pcr10 []byte
}

// imaMeasure writes a log of n entries about so many files, and answers a
// challenge by it.
func imaMeasure(log io.Writer, template digest.Algorithm, key tpmtest.Key, n, files int) (imaHost, error) {
	zero := imalog.Zero(digest.SHA256) // the PCRs of a host whose firmware measured nothing
	w := bufio.NewWriter(log)
	value := zero
	for i := range n {
		e := tpmtest.NewEntry("boot_aggregate", digest.Sum(digest.SHA256, make([]byte, 10*digest.SHA256.Size())))
		if i > 0 {
			e = tpmtest.NewEntry(imaFile(i * imaStride % files))
		}
		value = tpmtest.Extend(value, 10, e)
		if _, err := w.Write(tpmtest.Log(template, e)); err != nil {
			return imaHost{}, err
		}
	}
	h := imaHost{entries: n, ak: key.PEM(), pcr10: value.Bytes()}
	bank := tpmtest.Bank{Alg: tpmtest.SHA256}
	values := tpm.Values{}
	for i := range 11 {
		d := zero
		if i == 10 {
			d = value
		}
		bank.PCRs, bank.Values = append(bank.PCRs, i), append(bank.Values, d.Bytes())
		values[tpm.PCR{Bank: digest.SHA256, Index: i}] = d
	}
	h.Quote = tpmtest.NewQuote(imaNonce, bank).Attest()
	h.Signature = key.Sign(h.Quote)
	q, err := tpm.ParseQuote(h.Quote)
	if err != nil {
		return h, err
	}
	h.PCRs, err = tpm.AppendValues(nil, q.Selection, values)
	return h, errors.Join(err, w.Flush())
}

// ima times what a log's entry costs, and weighs what a large log takes.
func ima(ctx context.Context, w io.Writer) error {
	dir, err := os.MkdirTemp("", "bench-ima-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// A process counts as its own what its parent had when it was started: this
	// one has to be small yet.
	key := tpmtest.NewRSA(2048)
	if err := weigh(ctx, w, dir, key); err != nil {
		return err
	}
	pol := policy.Policy{Bank: digest.SHA256, PCR: policy.IMAPCR}
	before := heap()
	for i := range imaFiles {
		path, d := imaFile(i)
		pol.Known.Add(d, policy.Source{Package: "bench", Path: path})
	}
	fmt.Fprintf(w, "%d digests of files with paths: %d bytes of memory each\n", imaFiles, (heap()-before)/imaFiles)
	// The log that every kernel has, and the one beside it of kernels since 6.10.
	usual, path, err := imaLog(dir, digest.SHA1, key)
	if err != nil {
		return err
	}
	ofBank, _, err := imaLog(dir, digest.SHA256, key)
	if err != nil {
		return err
	}
	pcrs := filepath.Join(dir, "pcrs")
	if err := os.WriteFile(pcrs, evmctlPCRs(usual.pcr10), 0o644); err != nil {
		return err
	}
	evmctl := []string{"evmctl", "ima_measurement", "--pcrs", "sha256," + pcrs, path}
	var times [3][]float64
	for range runs {
		for i, h := range []imaHost{usual, ofBank} {
			started := cpu()
			v := attest.Judge(h.Evidence, attest.Challenge{Nonce: imaNonce, AK: h.ak}, &pol)
			times[i] = append(times[i], float64((cpu()-started).Nanoseconds())/imaEntries)
			if v.Outcome != attest.Trusted {
				return fmt.Errorf("the log is %s: %+v", v.Outcome, v.Findings[0])
			}
		}
		if _, err := exec.LookPath(evmctl[0]); err != nil {
			continue
		}
		cmd := exec.CommandContext(ctx, evmctl[0], evmctl[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("evmctl: %w\n%s", err, out)
		}
		times[2] = append(times[2], float64((cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()).Nanoseconds())/imaEntries)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "%d IMA log entries, CPU an entry\tmedian\tspread\tof %d ns, which were asked\tfaster than evmctl, asked %.1f\t\n", imaEntries, askedEntry, askedEvmctl)
	for i := range times {
		slices.Sort(times[i])
	}
	for i, name := range []string{
		fmt.Sprintf("diglim: judged by %d digests", imaFiles),
		"diglim: the log with the bank's own hashes",
		"evmctl ima_measurement: replayed",
	} {
		t, evmctl := times[i], "not installed"
		if peer := times[2]; len(peer) > 0 {
			evmctl = fmt.Sprintf("%.2f", peer[runs/2]/t[runs/2])
		}
		if len(t) > 0 {
			fmt.Fprintf(tw, "%s\t%.0f ns\t%.0f-%.0f\t%.2f\t%s\t\n", name, t[runs/2], t[0], t[runs-1], t[runs/2]/askedEntry, evmctl)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if err := fleet(w, key, &pol); err != nil {
		return err
	}
	return quote(w, usual, key)
}

// quote times verifying a quote, and its signature alone.
func quote(w io.Writer, h imaHost, key tpmtest.Key) error {
	sum, signature := sha256.Sum256(h.Quote), h.Signature[6:] // behind scheme, hash and size
	ak, err := tpm.ParsePublic(h.ak)
	if err != nil {
		return err
	}
	return compare(w, "one quote of 11 PCRs, RSA-2048; asked "+askedQuote, []contender{
		{"crypto/rsa: the signature alone", func() error {
			return rsa.VerifyPKCS1v15(&key.RSA.PublicKey, crypto.SHA256, sum[:], signature)
		}},
		{"diglim: quote, signature and values, read and verified", func() error {
			q, err := tpm.ParseQuote(h.Quote)
			if err != nil {
				return err
			}
			sig, err := tpm.ParseSignature(h.Signature)
			if err != nil {
				return err
			}
			values, err := tpm.ParseValues(h.PCRs, q.Selection)
			if err != nil {
				return err
			}
			_, err = q.Verify(sig, ak, imaNonce, values)
			return err
		}},
	})
}

// fleet times judging hosts that have the same entries, each alone, and all by
// what the first of them left to remember.
func fleet(w io.Writer, key tpmtest.Key, pol *policy.Policy) error {
	var log bytes.Buffer
	h, err := imaMeasure(&log, digest.SHA1, key, fleetLog, imaFiles)
	if err != nil {
		return err
	}
	h.IMALog = bytes.NewReader(log.Bytes())
	ch := attest.Challenge{Nonce: imaNonce, AK: h.ak}
	f := attest.NewFleet(pol)
	if v := f.Judge(h.Evidence, ch); v.Outcome != attest.Trusted {
		return fmt.Errorf("the log is %s: %+v", v.Outcome, v.Findings[0])
	}
	var alone, remembered []float64
	for range runs {
		for _, c := range []struct {
			to    *[]float64
			judge func() attest.Verdict
		}{
			{&alone, func() attest.Verdict { return attest.Judge(h.Evidence, ch, pol) }},
			{&remembered, func() attest.Verdict { return f.Judge(h.Evidence, ch) }},
		} {
			started := cpu()
			for range fleetHosts {
				c.judge()
			}
			*c.to = append(*c.to, float64((cpu()-started).Microseconds())/fleetHosts)
		}
	}
	slices.Sort(alone)
	slices.Sort(remembered)
	_, err = fmt.Fprintf(w, "a host of %d entries, all listed: %.0f us of CPU, in a fleet that has judged one such host %.0f us: 1/%.2f\n",
		fleetLog, alone[runs/2], remembered[runs/2], alone[runs/2]/remembered[runs/2])
	return err
}

// imaLog measures what is timed, and leaves the log in a file too.
func imaLog(dir string, template digest.Algorithm, key tpmtest.Key) (h imaHost, path string, err error) {
	var log bytes.Buffer
	h, err = imaMeasure(&log, template, key, imaEntries, imaFiles)
	h.IMALog = bytes.NewReader(log.Bytes())
	path = filepath.Join(dir, "ima-"+template.String()+".bin")
	return h, path, errors.Join(err, os.WriteFile(path, log.Bytes(), 0o644))
}

// heap is what this process keeps in memory, in bytes.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// evmctlPCRs is a bank as evmctl wants it: all PCRs, of which one matters.
func evmctlPCRs(pcr10 []byte) (b []byte) {
	for i := range tpm.PCRCount {
		value := make([]byte, digest.SHA256.Size())
		if i == 10 {
			value = pcr10
		}
		b = fmt.Appendf(b, "PCR-%02d: % x\n", i, value)
	}
	return b
}

// cpu is the time that this process has used on all processors.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// weigh judges a large log with the program, and prints the most memory that
// it had: of a host whose files are known, and of one whose are not.
func weigh(ctx context.Context, w io.Writer, dir string, key tpmtest.Key) error {
	const files = 1000
	log, err := os.Create(filepath.Join(dir, "ima.bin"))
	if err != nil {
		return err
	}
	_, d := imaFile(0)
	entry := len(tpmtest.Log(digest.SHA1, tpmtest.NewEntry(strings.Repeat("p", 28), d)))
	h, err := imaMeasure(log, digest.SHA1, key, largeLog/entry, files)
	info, statErr := log.Stat()
	if err := errors.Join(err, statErr, log.Close()); err != nil {
		return err
	}
	block := digestlist.Block{Type: digestlist.File, Algorithm: digest.SHA256}
	for i := range files {
		_, d := imaFile(i)
		block.Digests = append(block.Digests, d)
	}
	program := filepath.Join(dir, "attest-verify")
	if err := vm.Build(ctx, program, "diglim/cmd/attest-verify"); err != nil {
		return err
	}
	for _, name := range []string{"known", "unknown"} {
		list, err := digestlist.AppendCompact(nil, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{block})
		lists := filepath.Join(dir, name)
		if err := errors.Join(err, os.Mkdir(lists, 0o755), os.WriteFile(filepath.Join(lists, "0-file_list-compact-bench"), list, 0o644),
			os.WriteFile(filepath.Join(dir, "quote.msg"), h.Quote, 0o644), os.WriteFile(filepath.Join(dir, "quote.sig"), h.Signature, 0o644),
			os.WriteFile(filepath.Join(dir, "quote.pcrs"), h.PCRs, 0o644), os.WriteFile(filepath.Join(dir, "ak"), h.ak, 0o644)); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, program, "check", "--lists", lists, "--allow-unsigned", "--nonce", hex.EncodeToString(imaNonce), "--ak", filepath.Join(dir, "ak"), dir)
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return err
		}
		usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			return errors.New("no resource usage")
		}
		verdict, _, _ := strings.Cut(string(out), "\n")
		fmt.Fprintf(w, "log of %d MiB, %d entries, all %s: %d MiB of memory at most, asked %d, CPU %.0f ns an entry: %s\n", info.Size()>>20, h.entries, name,
			usage.Maxrss>>10, askedMemory, float64(usage.Utime.Nano()+usage.Stime.Nano())/float64(h.entries), verdict)
		block.Digests = block.Digests[:1]
	}
	return nil
}
