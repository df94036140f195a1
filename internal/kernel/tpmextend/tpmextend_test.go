package tpmextend_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"diglim/internal/digest"
	"diglim/internal/kernel/tpmextend"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

var banks = []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512}

func digests(of string, banks ...digest.Algorithm) (all []digest.Digest) {
	for _, bank := range banks {
		all = append(all, digest.Sum(bank, []byte(of)))
	}
	return all
}

// A recorder is a TPM that keeps the command, and has an answer.
type recorder struct {
	command, answer []byte
}

func (r *recorder) Send(command []byte) ([]byte, error) {
	r.command = bytes.Clone(command)
	return r.answer, nil
}

func (r *recorder) Write(b []byte) (int, error) { r.command = bytes.Clone(b); return len(b), nil }
func (r *recorder) Read(b []byte) (int, error)  { return copy(b, r.answer), nil }

// success is how a TPM answers, with the authorization of a password.
var success = []byte{0x80, 2, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0}

// go-tpm encodes the same command.
func TestCommand(t *testing.T) {
	for _, all := range [][]digest.Algorithm{{digest.SHA256}, {digest.SHA1, digest.SHA256}, banks} {
		command := tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: 12, Auth: tpm2.PasswordAuth(nil)}}
		for _, d := range digests("x", all...) {
			id, _ := d.Algorithm().TPM()
			command.Digests.Digests = append(command.Digests.Digests, tpm2.TPMTHA{HashAlg: tpm2.TPMAlgID(id), Digest: d.Bytes()})
		}
		r := &recorder{answer: success}
		if _, err := command.Execute(r); err != nil {
			t.Fatal(err)
		}
		got, err := tpmextend.Command(12, digests("x", all...))
		if err != nil || !bytes.Equal(got, r.command) {
			t.Errorf("%v: %v\n%x, go-tpm's is\n%x", all, err, got, r.command)
		}
	}
	for name, bad := range map[string]struct {
		pcr     int
		digests []digest.Digest
	}{
		"PCR 24": {24, digests("x", digest.SHA256)}, "PCR -1": {-1, digests("x", digest.SHA256)},
		"no digests": {12, nil}, "MD5": {12, digests("x", digest.MD5)}, "none": {12, make([]digest.Digest, 1)},
	} {
		if b, err := tpmextend.Command(bad.pcr, bad.digests); err == nil {
			t.Errorf("%s: %x", name, b)
		}
	}
}

func TestResponse(t *testing.T) {
	if err := tpmextend.ParseResponse(success); err != nil {
		t.Error(err)
	}
	for i := range success {
		if err := tpmextend.ParseResponse(success[:i]); err == nil {
			t.Errorf("cut at %d: no error", i)
		}
	}
	for want, response := range map[string]string{
		"response code 0x921": "\x80\x01\x00\x00\x00\x0a\x00\x00\x09\x21",
		"tag 0x8001":          "\x80\x01\x00\x00\x00\x0a\x00\x00\x00\x00",
		"size 11 of 10 bytes": "\x80\x01\x00\x00\x00\x0b\x00\x00\x09\x21",
		"bytes of parameters": "\x80\x02\x00\x00\x00\x0e\x00\x00\x00\x00\x00\x00\x00\x01",
	} {
		if err := tpmextend.ParseResponse([]byte(response)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := tpmextend.Extend(&recorder{}, 12, digests("x", digest.SHA256)); err == nil {
		t.Error("no response: no error")
	}
}

func FuzzParseResponse(f *testing.F) {
	f.Add(success)
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := tpmextend.ParseResponse(b); err == nil && (len(b) < len(success) || len(b) > 1<<18) {
			t.Errorf("%x is taken", b)
		}
	})
}

// A TPM in software extends as it is told, in every bank.
func TestSwtpm(t *testing.T) {
	device := startSwtpm(t)
	const pcr = 12
	for _, content := range []string{"x", "y"} {
		if err := tpmextend.Extend(device, pcr, digests(content, banks...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, bank := range banks {
		id, _ := bank.TPM()
		read, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
			{Hash: tpm2.TPMAlgID(id), PCRSelect: tpm2.PCClientCompatible.PCRs(pcr)}}}}.Execute(transport.FromReadWriter(device))
		if err != nil || len(read.PCRValues.Digests) != 1 {
			t.Fatalf("%s: %v", bank, err)
		}
		want := digest.Sum(bank, make([]byte, bank.Size()), digests("x", bank)[0].Bytes())
		want = digest.Sum(bank, want.Bytes(), digests("y", bank)[0].Bytes())
		if got := read.PCRValues.Digests[0].Buffer; !want.Is(got) {
			t.Errorf("%s: PCR is %x, want %s", bank, got, want)
		}
	}
	// It says no to a bank that it does not know.
	if err := tpmextend.Extend(device, pcr, digests("x", digest.SHA3_512)); err == nil || !strings.Contains(err.Error(), "response code") {
		t.Errorf("SHA3-512: %v", err)
	}
}

// startSwtpm starts a TPM with all four banks that ends with the test. It is
// given a socket that listens already: nobody has to wait for it.
func startSwtpm(t *testing.T) io.ReadWriter {
	t.Helper()
	for _, name := range []string{"swtpm", "swtpm_setup"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip("no TPM in software without the Debian packages swtpm and swtpm-tools")
		}
	}
	dir, err := os.MkdirTemp("", "tpm-") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if out, err := exec.Command("swtpm_setup", "--tpm2", "--tpmstate", dir, "--pcr-banks", "sha1,sha256,sha384,sha512").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	listen := func(name string) (*net.UnixListener, *os.File) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		return l, f
	}
	server, serverFile := listen("server")
	_, ctrlFile := listen("ctrl")
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,fd=3",
		"--ctrl", "type=unixio,fd=4", "--flags", "not-need-init,startup-clear", "--terminate")
	cmd.ExtraFiles = []*os.File{serverFile, ctrlFile}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		if err := cmd.Wait(); err != nil && t.Failed() {
			t.Logf("swtpm: %v\n%s", err, said.String())
		}
	})
	conn, err := net.DialUnix("unix", nil, server.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	serverFile.Close()
	ctrlFile.Close()
	return conn
}
