package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"diglim/digestlist"
	"diglim/internal/clitest"
	"diglim/internal/digest"
	"diglim/internal/rpmtest"
	"diglim/rpmhdr"
	"diglim/tpm"
	"diglim/tpm/imalog"
	"diglim/tpm/tpmtest"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"attest-verify": main})
}

// TestScript plays the sessions in testdata with the real program, a TPM in
// software, and a kernel that is the command "measure".
func TestScript(t *testing.T) {
	vendor, stranger := rpmtest.NewKey(t, "vendor", rpmtest.Ed25519), rpmtest.NewKey(t, "stranger", rpmtest.Ed25519)
	corpus := os.Getenv("DIGLIM_CORPUS")
	if corpus == "" {
		corpus = "../../../shared/data"
	}
	corpus, err := filepath.Abs(corpus)
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("CORPUS", corpus)
			return errors.Join(
				os.WriteFile(filepath.Join(env.WorkDir, "vendor.gpg"), rpmtest.Public(t, vendor), 0o644),
				os.WriteFile(filepath.Join(env.WorkDir, "stranger.gpg"), rpmtest.Public(t, stranger), 0o644))
		},
		// have:PROGRAM and have:corpus skip where that is missing, and fail in CI.
		Condition: func(condition string) (bool, error) {
			what, ok := strings.CutPrefix(condition, "have:")
			if !ok {
				return false, fmt.Errorf("unknown condition %q", condition)
			}
			_, err := exec.LookPath(what)
			if what == "corpus" {
				_, err = os.Stat(filepath.Join(corpus, "vm-evidence"))
			}
			if err != nil && os.Getenv("CI") == "true" {
				return false, err
			}
			return err == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     cmdExits,
			"swtpm":     cmdSwtpm,
			"machine":   cmdMachine,
			"setpolicy": cmdSetPolicy,
			"measure":   cmdMeasure,
			"flip":      cmdFlip,
			"cutlog":    cmdCut,
			"behead":    cmdBehead,
			"rs":        cmdRecords,
			"list":      cmdList(t, map[string]*openpgp.Entity{"vendor": vendor, "stranger": stranger}),
		},
	})
}

// exits CODE PROGRAM ARG...: the program ends with that code.
func cmdExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// flip FILE OFFSET: change a byte. A negative offset counts from the end.
func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	b := []byte(ts.ReadFile(args[0]))
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
}

// setpolicy REGEXP TEXT FROM TO: writes a policy in which the first match is
// replaced. There must be one.
func cmdSetPolicy(ts *testscript.TestScript, _ bool, args []string) {
	from := ts.ReadFile(args[2])
	re, err := regexp.Compile(args[0])
	ts.Check(err)
	at := re.FindStringSubmatchIndex(from)
	if at == nil {
		ts.Fatalf("%s does not match %s", args[2], args[0])
	}
	text := re.ExpandString(nil, strings.ReplaceAll(args[1], `\n`, "\n"), from, at)
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), []byte(from[:at[0]]+string(text)+from[at[1]:]), 0o644))
}

// rs FILE TO: puts the byte that begins a record in front of each line.
func cmdRecords(ts *testscript.TestScript, _ bool, args []string) {
	var records strings.Builder
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		records.WriteString("\x1e" + line)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(records.String()), 0o644))
}

// cutlog FILE N: drop the last N bytes.
func cmdCut(ts *testscript.TestScript, _ bool, args []string) {
	b := ts.ReadFile(args[0])
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b[:len(b)-n]), 0o644))
}

// behead FILE N: drop the first N entries of an IMA log.
func cmdBehead(ts *testscript.TestScript, _ bool, args []string) {
	log := []byte(ts.ReadFile(args[0]))
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	for e, err := range imalog.Entries(bytes.NewReader(log), imalog.Layout{Hash: digest.SHA1}) {
		ts.Check(err)
		if e.Number == n+1 {
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), log[e.Offset:], 0o644))
			return
		}
	}
	ts.Fatalf("%s has no %d entries", args[0], n+1)
}

// swtpm starts a TPM and puts its socket into $TPM.
func cmdSwtpm(ts *testscript.TestScript, _ bool, _ []string) {
	socket, stop, err := startSwtpm()
	ts.Check(err)
	ts.Defer(func() { ts.Check(stop()) })
	ts.Setenv("TPM", socket)
}

// newSwtpm returns a new TPM in software, for as long as the test runs. It skips
// the test where there is no swtpm; with CI=true in the environment it fails it.
func newSwtpm(t *testing.T) transport.TPMCloser {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	socket, stop, err := startSwtpm()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop() })
	device, err := openTPM(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { device.Close() })
	return device
}

// startSwtpm returns the socket of a new TPM.
func startSwtpm() (socket string, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "swtpm") // a socket's path has to be short
	if err != nil {
		return "", nil, err
	}
	if err := powerOn(dir, "startup-clear"); err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir + "/tpm", func() error { return errors.Join(powerOff(dir, syscall.SIGTERM), os.RemoveAll(dir)) }, nil
}

// powerOn starts a TPM with the state in dir. swtpm goes into the background
// by itself when its sockets are there.
func powerOn(dir, startup string) error {
	out, err := exec.Command("swtpm", "socket", "--tpm2", "--daemon", "--pid", "file="+dir+"/pid", "--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+dir+"/tpm", "--ctrl", "type=unixio,path="+dir+"/ctrl", "--flags", "not-need-init,"+startup).CombinedOutput()
	if err != nil {
		return fmt.Errorf("swtpm: %w: %s", err, out)
	}
	return nil
}

// powerOff ends a TPM, and waits until its process is gone: before that it has
// its state locked.
func powerOff(dir string, signal syscall.Signal) error {
	text, err := os.ReadFile(dir + "/pid")
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(process)
	if err := unix.PidfdSendSignal(process, signal, nil, 0); err != nil {
		return err
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// machine reboot|suspend|cut|clear: what happens to the TPM of a machine.
func cmdMachine(ts *testscript.TestScript, _ bool, args []string) {
	dir := filepath.Dir(ts.Getenv("TPM"))
	t, err := openTPM(ts.Getenv("TPM"))
	ts.Check(err)
	startup, signal := "startup-clear", syscall.SIGTERM
	switch args[0] {
	case "reboot":
		_, err = tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}.Execute(t)
	case "suspend":
		_, err = tpm2.Shutdown{ShutdownType: tpm2.TPMSUState}.Execute(t)
		startup = "startup-state"
	case "cut":
		signal = syscall.SIGKILL
	case "clear":
		_, err = tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)}}.Execute(t)
	default:
		err = fmt.Errorf("nothing called %q happens to a machine", args[0])
	}
	ts.Check(errors.Join(err, t.Close()))
	if args[0] == "clear" {
		return
	}
	ts.Check(powerOff(dir, signal))
	ts.Check(powerOn(dir, startup))
}

func sha256PCRs(indices ...int) tpm.Selection {
	var mask uint32
	for _, i := range indices {
		mask |= 1 << i
	}
	return tpm.Selection{{Bank: digest.SHA256, Mask: mask}}
}

// A restless host extends a PCR after each of its first quotes.
type restless struct {
	transport.TPM
	extend func()
	times  int
}

func (r *restless) Send(command []byte) ([]byte, error) {
	response, err := r.TPM.Send(command)
	if tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == tpm2.TPMCCQuote && r.times > 0 {
		r.times--
		r.extend()
	}
	return response, err
}

// The values collected are those quoted, even where a PCR was extended before
// they were read; where that never stops, collect gives up.
func TestPCRExtendedWhileQuoting(t *testing.T) {
	device := newSwtpm(t)
	nonce := make([]byte, 20)
	extend := func() {
		if err := extendPCR(device, 10, digest.Sum(digest.SHA256, nil)); err != nil {
			t.Error(err)
		}
	}
	for _, times := range []int{0, 1, quoteTries - 1} {
		q, err := quote(&restless{device, extend, times}, "ecc", nonce, sha256PCRs(0, 10))
		if err != nil {
			t.Errorf("extended %d times: %v", times, err)
			continue
		}
		parsed, err := tpm.ParseQuote(q.each[0].attest)
		if err != nil {
			t.Fatal(err)
		}
		claimed, err := tpm.ParseValues(q.each[0].values, parsed.Selection)
		if err != nil {
			t.Fatal(err)
		}
		now, err := readPCRs(device, sha256PCRs(0, 10))
		if err != nil || !maps.Equal(claimed, now) {
			t.Errorf("extended %d times: %v, %v", times, claimed, err)
		}
	}
	if _, err := quote(&restless{device, extend, quoteTries}, "ecc", nonce, sha256PCRs(0, 10)); err == nil || !strings.Contains(err.Error(), "PCRs changed") {
		t.Errorf("extended every time: %v", err)
	}
	if _, err := quote(&restless{device, extend, quoteTries}, "ecc", nonce, sha256PCRs(0)); err != nil {
		t.Errorf("a PCR that is not quoted was extended: %v", err)
	}
}

// measure [-unextended] LOG PATH=FILE[+ATTRIBUTE]|NAME:FILE...: what a kernel
// does with files that are run, with or without security.ima, and with things
// that it measures itself. A new log starts with the boot aggregate; -unextended
// adds to the log alone.
func cmdMeasure(ts *testscript.TestScript, _ bool, args []string) {
	extend := args[0] != "-unextended"
	if !extend {
		args = args[1:]
	}
	t, err := openTPM(ts.Getenv("TPM"))
	ts.Check(err)
	defer t.Close()
	log, err := os.ReadFile(ts.MkAbs(args[0]))
	var entries []tpmtest.Entry
	if err != nil {
		for i := range 8 {
			ts.Check(extendPCR(t, i, digest.Sum(digest.SHA256, fmt.Append(nil, "firmware ", i))))
		}
		values, err := readPCRs(t, sha256PCRs(0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
		ts.Check(err)
		entries = append(entries, tpmtest.NewEntry("boot_aggregate", aggregate(values)))
	}
	for _, arg := range args[1:] {
		if name, file, ok := strings.Cut(arg, ":"); ok {
			content := []byte(ts.ReadFile(file))
			entries = append(entries, tpmtest.Entry{PCR: 10, Template: "ima-buf",
				Fields: [][]byte{tpmtest.Tagged(digest.Sum(digest.SHA256, content)), []byte(name + "\x00"), content}})
			continue
		}
		path, file, _ := strings.Cut(arg, "=")
		file, attribute, signed := strings.Cut(file, "+")
		e := tpmtest.NewEntry(path, digest.Sum(digest.SHA256, []byte(ts.ReadFile(file))))
		if signed {
			e.Template, e.Signature = "ima-sig", []byte(ts.ReadFile(attribute))
		}
		entries = append(entries, e)
	}
	if extend {
		for _, e := range entries {
			ts.Check(extendPCR(t, e.PCR, digest.Sum(digest.SHA256, e.TemplateData())))
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), append(log, tpmtest.Log(digest.SHA1, entries...)...), 0o644))
}

// aggregate is the boot aggregate of PCRs 0 to 9.
func aggregate(values tpm.Values) digest.Digest {
	var all []byte
	for i := range 10 {
		all = values[tpm.PCR{Bank: digest.SHA256, Index: i}].Append(all)
	}
	return digest.Sum(digest.SHA256, all)
}

func extendPCR(t transport.TPM, pcr int, d digest.Digest) error {
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: d.Bytes()}}},
	}.Execute(t)
	return err
}

// list SIGNER LIST PACKAGE PATH=FILE...: an rpm list, signed by vendor,
// stranger or nobody.
func cmdList(t *testing.T, keys map[string]*openpgp.Entity) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		p := rpmtest.Package{Name: args[2], Algo: 8} // SHA-256
		for _, arg := range args[3:] {
			path, file, _ := strings.Cut(arg, "=")
			p.Files = append(p.Files, rpmtest.Regular(path, 0o755, ts.ReadFile(file)))
		}
		header, err := rpmhdr.Parse(p.Header())
		ts.Check(err)
		list := digestlist.RPM{Header: header}
		if key := keys[args[0]]; key != nil {
			list.Signature = rpmtest.Sign(t, key, header.Signed(), rpmtest.Made.AddDate(1, 0, 0), nil)
		}
		path := ts.MkAbs(args[1])
		ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
		ts.Check(os.WriteFile(path, digestlist.AppendRPM(nil, list), 0o644))
	}
}

// Two challenges that collect makes up are never equal, and every form of a
// nonce but hexadecimal of the right length is refused.
func TestAttack14Nonces(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		c := collection{output: "x", pcrs: "10"}
		if err := c.prepare(); err != nil || seen[hex.EncodeToString(c.challenge)] || len(c.challenge) != 32 {
			t.Fatalf("%x, %v", c.challenge, err)
		}
		seen[hex.EncodeToString(c.challenge)] = true
	}
	for _, bad := range []string{"00", strings.Repeat("0", 31), strings.Repeat("00", 65), strings.Repeat("zz", 16), "0x" + strings.Repeat("00", 16), " " + strings.Repeat("00", 16)} {
		if b, err := parseNonce(bad, minNonce); err == nil {
			t.Errorf("%q is the nonce %x", bad, b)
		}
	}
}

// Row 16: a nonce is hexadecimal and nothing else, so that one text never means
// two challenges.
func TestAttack16NonceHasOneEncoding(t *testing.T) {
	nonce := []byte("sixteen byte one")
	if b, err := parseNonce(hex.EncodeToString(nonce), minNonce); err != nil || string(b) != string(nonce) {
		t.Fatalf("%q, %v", b, err)
	}
	for _, other := range []string{
		string(nonce), base64.StdEncoding.EncodeToString(nonce), base64.RawURLEncoding.EncodeToString(nonce),
		"0x" + hex.EncodeToString(nonce), hex.EncodeToString(nonce) + "\n", hex.EncodeToString(nonce)[1:], strings.Join(strings.Split(hex.EncodeToString(nonce), ""), ":"),
	} {
		if b, err := parseNonce(other, 1); err == nil {
			t.Errorf("%q is the nonce %x", other, b)
		}
	}
	// Base64 that happens to be hexadecimal too is read as that.
	if b, err := parseNonce("abcdabcd", 1); err != nil || hex.EncodeToString(b) != "abcdabcd" {
		t.Errorf("%x, %v", b, err)
	}
}

func TestManPage(t *testing.T) {
	clitest.ManPage(t, "attest-verify", run, "collect", "check", "replay")
}
