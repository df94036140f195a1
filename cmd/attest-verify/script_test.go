package main

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"diglim/digestlist"
	"diglim/internal/digest"
	"diglim/rpmhdr"
	"diglim/tpm"
	"diglim/tpm/tpmtest"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"attest-verify": main})
}

// TestScript plays the sessions in testdata with the real program, a TPM in
// software, and a kernel that is the command "measure".
func TestScript(t *testing.T) {
	vendor, stranger := newKey(t, "vendor"), newKey(t, "stranger")
	corpus := os.Getenv("DIGLIM_CORPUS")
	if corpus == "" {
		corpus = "../../../shared/data"
	}
	corpus, err := filepath.Abs(corpus)
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("CORPUS", corpus)
			return errors.Join(
				os.WriteFile(filepath.Join(env.WorkDir, "vendor.asc"), armored(t, vendor), 0o644),
				os.WriteFile(filepath.Join(env.WorkDir, "stranger.asc"), armored(t, stranger), 0o644))
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
			"exits":   cmdExits,
			"swtpm":   cmdSwtpm,
			"measure": cmdMeasure,
			"flip":    cmdFlip,
			"cutlog":  cmdCut,
			"list": func(ts *testscript.TestScript, _ bool, args []string) {
				cmdList(ts, map[string]*openpgp.Entity{"vendor": vendor, "stranger": stranger, "nobody": nil}, args)
			},
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

// cutlog FILE N: drop the last N bytes.
func cmdCut(ts *testscript.TestScript, _ bool, args []string) {
	b := ts.ReadFile(args[0])
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b[:len(b)-n]), 0o644))
}

// swtpm starts a TPM and puts its socket into $TPM. It goes into the
// background by itself when its sockets are there.
func cmdSwtpm(ts *testscript.TestScript, _ bool, _ []string) {
	dir, err := os.MkdirTemp("", "swtpm") // a socket's path has to be short
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	pid := filepath.Join(dir, "pid")
	ts.Check(ts.Exec("swtpm", "socket", "--tpm2", "--daemon", "--pid", "file="+pid, "--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+dir+"/tpm", "--ctrl", "type=unixio,path="+dir+"/ctrl", "--flags", "not-need-init,startup-clear"))
	text, err := os.ReadFile(pid)
	ts.Check(err)
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	ts.Check(err)
	ts.Defer(func() { ts.Check(syscall.Kill(n, syscall.SIGTERM)) })
	ts.Setenv("TPM", dir+"/tpm")
}

// measure [-unextended] LOG PATH=FILE...: what a kernel does with files that
// are run. A new log starts with the boot aggregate; -unextended adds to the
// log alone.
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
			extendPCR(ts, t, i, digest.Sum(digest.SHA256, fmt.Append(nil, "firmware ", i)))
		}
		values, err := readPCRs(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
		ts.Check(err)
		entries = append(entries, tpmtest.NewEntry("boot_aggregate", aggregate(values)))
	}
	for _, arg := range args[1:] {
		path, file, _ := strings.Cut(arg, "=")
		entries = append(entries, tpmtest.NewEntry(path, digest.Sum(digest.SHA256, []byte(ts.ReadFile(file)))))
	}
	if extend {
		for _, e := range entries {
			extendPCR(ts, t, e.PCR, digest.Sum(digest.SHA256, e.TemplateData()))
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

func extendPCR(ts *testscript.TestScript, t transport.TPM, pcr int, d digest.Digest) {
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: d.Bytes()}}},
	}.Execute(t)
	ts.Check(err)
}

// list SIGNER LIST PACKAGE PATH=FILE...: an rpm list, signed by vendor,
// stranger or nobody.
func cmdList(ts *testscript.TestScript, keys map[string]*openpgp.Entity, args []string) {
	files := map[string]string{}
	for _, arg := range args[3:] {
		path, file, _ := strings.Cut(arg, "=")
		files[path] = ts.ReadFile(file)
	}
	header, err := rpmhdr.Parse(rpmHeader(args[2], files))
	ts.Check(err)
	list := digestlist.RPM{Header: header}
	if key := keys[args[0]]; key != nil {
		var sig bytes.Buffer
		ts.Check(openpgp.DetachSign(&sig, []*openpgp.Entity{key}, bytes.NewReader(header.Signed()), &packet.Config{DefaultHash: crypto.SHA256}))
		list.Signature = sig.Bytes()
	}
	path := ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, digestlist.AppendRPM(nil, list), 0o644))
}

// rpmHeader is the main header of a package with regular files: an index, a
// data store, and the immutable region around them (rpm's
// docs/manual/format_header.md).
func rpmHeader(name string, files map[string]string) []byte {
	const int16s, int32s, text, bin, texts = 3, 4, 6, 7, 8
	var dirs, bases, digests, sizes, modes, flags, dirIndexes []byte
	be := binary.BigEndian
	for i, path := range slices.Sorted(maps.Keys(files)) {
		content := files[path]
		dirIndexes = be.AppendUint32(dirIndexes, uint32(i))
		dirs = append(append(dirs, filepath.Dir(path)+"/"...), 0)
		bases = append(append(bases, filepath.Base(path)...), 0)
		digests = append(append(digests, digest.Sum(digest.SHA256, []byte(content)).Hex()...), 0)
		sizes = be.AppendUint32(sizes, uint32(len(content)))
		modes = be.AppendUint16(modes, 0o100755)
		flags = be.AppendUint32(flags, 0)
	}
	n := uint32(len(files))
	var index, data []byte
	entries := []struct {
		tag, kind, count uint32
		data             []byte
	}{
		{1000, text, 1, []byte(name + "\x00")},
		{1001, text, 1, []byte("1.0\x00")},
		{1002, text, 1, []byte("1\x00")},
		{1022, text, 1, []byte("x86_64\x00")},
		{1028, int32s, n, sizes},
		{1030, int16s, n, modes},
		{1035, texts, n, digests},
		{1037, int32s, n, flags},
		{1044, text, 1, []byte(name + "-1.0-1.src.rpm\x00")},
		{1116, int32s, n, dirIndexes},
		{1117, texts, n, bases},
		{1118, texts, n, dirs},
		{5011, int32s, 1, []byte{0, 0, 0, 8}},
	}
	for _, e := range entries {
		for len(data)%4 != 0 && e.kind == int32s || len(data)%2 != 0 && e.kind == int16s {
			data = append(data, 0)
		}
		for _, v := range []uint32{e.tag, e.kind, uint32(len(data)), e.count} {
			index = be.AppendUint32(index, v)
		}
		data = append(data, e.data...)
	}
	il := uint32(len(entries) + 1)
	region := []byte{}
	for _, v := range []uint32{63, bin, uint32(len(data)), 16} {
		region = be.AppendUint32(region, v)
	}
	for _, v := range []uint32{63, bin, -(16 * il), 16} {
		data = be.AppendUint32(data, v)
	}
	b := []byte{0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0}
	b = be.AppendUint32(be.AppendUint32(b, il), uint32(len(data)))
	return append(append(append(b, region...), index...), data...)
}

func newKey(t *testing.T, name string) *openpgp.Entity {
	e, err := openpgp.NewEntity(name, "", name+"@example.org", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func armored(t *testing.T, e *openpgp.Entity) []byte {
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.Serialize(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
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
		if b, err := parseNonce(bad); err == nil {
			t.Errorf("%q is the nonce %x", bad, b)
		}
	}
}

func TestParsePCRs(t *testing.T) {
	for in, want := range map[string][]int{"0-10": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, "23": {23}, "10,0-1,1": {0, 1, 10}} {
		if got, err := parsePCRs(in); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", ",", "24", "-1", "3-1", "a", "1-", "0-24", "1,,2"} {
		if got, err := parsePCRs(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
