//go:build !nobpf && (amd64 || arm64)

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/cms"
	"diglim/internal/digest"
	"diglim/internal/kernel/gate"
	"diglim/internal/kernel/gate/set"
	"diglim/internal/modsig"
	"diglim/internal/rpmtest"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"diglim-upload": main,
		"with-gate": func() {
			g := fileGate{"gate"}
			p := program(g)
			p.Commands = append([]*cli.Command{bootCommand(g, fileMachine())}, p.Commands...)
			os.Exit(p.Run(os.Args[1:], os.Stdout, os.Stderr))
		},
	})
}

// A fileGate is a gate in a file: it keeps what the gate keeps, and judges
// nothing. A file with "locked" behind its name says that it is locked.
type fileGate struct{ path string }

func (g fileGate) Probe() error {
	if os.Getenv("GATE") == "none" {
		return errors.New("BPF LSM is not active (lockdown,yama)\nhint: add bpf to lsm= on the kernel command line")
	}
	return nil
}

func (g fileGate) Enter() (locked bool, err error) {
	_, err = os.Stat(g.path + "locked")
	return err == nil, nil
}

func (g fileGate) Lock() error { return os.WriteFile(g.path+"locked", nil, 0o600) }

func (g fileGate) Open() (openGate, error) {
	if _, err := os.Stat(g.path); errors.Is(err, fs.ErrNotExist) {
		return nil, gate.ErrNone
	}
	return g, nil
}

func (g fileGate) Start(m *set.Image) (openGate, error) {
	return g, g.Replace(m)
}

func (g fileGate) Stop() error {
	if locked, _ := g.Enter(); locked {
		return gate.ErrLocked
	}
	err := os.Remove(g.path)
	if errors.Is(err, fs.ErrNotExist) {
		return gate.ErrNone
	}
	return err
}

func (g fileGate) Close() error { return nil }

func (g fileGate) Image() (*set.Image, error) {
	b, err := os.ReadFile(g.path)
	if err != nil {
		return nil, err
	}
	return set.Parse(b)
}

func (g fileGate) Replace(m *set.Image) error { return os.WriteFile(g.path, m.Bytes(), 0o600) }

func (g fileGate) Status() (gate.Status, error) {
	m, err := g.Image()
	if err != nil {
		return gate.Status{}, err
	}
	s := gate.Status{Header: m.Header(), Digests: m.Digests(), Tables: m.Tables(), Bytes: uint64(len(m.Bytes()))}
	s.Counts[gate.Exec][gate.Known] = 1200
	s.Counts[gate.Mmap][gate.Denied] = 3
	s.Sent, s.Lost = 3, 1
	return s, nil
}

func (g fileGate) Watch(ctx context.Context, f func(gate.Event)) error {
	f(gate.Event{Time: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), Hook: gate.Exec, Verdict: gate.Denied, Reason: gate.Unlisted,
		Digest: digest.Sum(digest.SHA256, []byte("x")), Path: "/tmp/\x1b[31m", PID: 42, UID: 1000, Command: "sh", Device: 8<<20 | 1})
	return errors.New("end of the file")
}

// addGateFiles adds lists good and bad, and the keys for them.
func addGateFiles(t *testing.T, files map[string][]byte) {
	t.Helper()
	now := time.Now().Add(-time.Hour)
	vendor, stranger := rpmtest.NewKey(t, "vendor", nil), rpmtest.NewKey(t, "stranger", nil)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	cert := func(serial int64) *x509.Certificate {
		template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "lists"}, NotBefore: now, NotAfter: now}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	known, unknown := cert(1), cert(2)
	signed := func(list []byte, by *x509.Certificate) []byte {
		sig, err := cms.Sign(list, key, by, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return modsig.Append(bytes.Clone(list), modsig.Signature{Type: modsig.PKCS7, Bytes: sig})
	}
	rpm := func(name string, files ...string) []byte {
		p := rpmtest.Package{Name: name, Algo: 8}
		for _, f := range files {
			p.Files = append(p.Files, rpmtest.Regular("/usr/bin/"+f, 0o755, f))
		}
		return p.Header()
	}
	pgp := func(header, sig []byte) []byte {
		return modsig.Append(bytes.Clone(header), modsig.Signature{Type: modsig.PGP, Bytes: sig})
	}
	sum := func(content string) digest.Digest { return digest.Sum(digest.SHA256, []byte(content)) }

	p := rpm("p", "a", "b", "c")
	good := pgp(p, rpmtest.Sign(t, vendor, p, now, nil))
	compact := compactList(t, digestlist.File, sum("d"))
	files["keys/vendor.asc"] = rpmtest.Public(t, vendor)
	files["keys/more/lists.pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: known.Raw})
	files["lesskeys/vendor.asc"] = files["keys/vendor.asc"]
	files["otherkeys/stranger.asc"] = rpmtest.Public(t, stranger)
	files["badkeys/README"] = []byte("not a key")
	files["good/0-file_list-rpm-p-1.0-1.noarch"] = good
	files["good/1-file_list-compact-d"] = signed(compact, known)
	files["good/2-parser_list-compact-uploader"] = signed(compactList(t, digestlist.Parser, sum("uploader")), known)
	files["more/0-file_list-rpm-p-1.0-1.noarch"] = good
	q := rpm("q", "q")
	files["more/1-file_list-rpm-q-1.0-1.noarch"] = pgp(q, rpmtest.Sign(t, vendor, q, now, nil))
	files["sha512/0-file_list-compact-long"] = signed(compactList(t, digestlist.File, digest.Sum(digest.SHA512, []byte("e"))), known)

	changed := bytes.Clone(good)
	i := bytes.Index(changed, []byte(sum("b").Hex()))
	changed[i] ^= 1
	files["hostile/0-file_list-rpm-changed-1.0-1.noarch"] = changed
	files["hostile/1-file_list-rpm-cut-1.0-1.noarch"] = good[:len(good)-40]
	files["hostile/2-file_list-rpm-unsigned-1.0-1.noarch"] = p
	files["hostile/3-file_list-rpm-stranger-1.0-1.noarch"] = pgp(p, rpmtest.Sign(t, stranger, p, now, nil))
	files["hostile/4-file_list-compact-unsigned"] = compact
	files["hostile/5-file_list-compact-stranger"] = signed(compact, unknown)
	files["hostile/6-file_list-compact-pgp"] = pgp(compact, rpmtest.Sign(t, vendor, compact, now, nil))
	forged := signed(compact, known)
	forged[20] ^= 1
	files["hostile/7-file_list-compact-changed"] = forged
	files["hostile/8-file_list-compact-zero"] = signed(compactList(t, digestlist.File, mustNew(t, make([]byte, 32))), known)
	files["hostile/9-file_list-compact-good"] = signed(compact, known)
	files["hostile/10-file_list-tlv-junk"] = []byte(strings.Repeat("x", 4096))
}

func mustNew(t *testing.T, value []byte) digest.Digest {
	t.Helper()
	d, err := digest.New(digest.SHA256, value)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A set that replaces one leaves this program a parser, unless its lists say who is.
func TestKeepParser(t *testing.T) {
	files := map[string][]byte{}
	addGateFiles(t, files)
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	self, other := digest.Sum(digest.SHA256, exe), digest.Sum(digest.SHA256, []byte("uploader"))
	for _, c := range []struct {
		was        digest.Digest // the parser
		list       string
		self, both bool
	}{
		{self, "good/1-file_list-compact-d", true, false},
		{self, "good/2-parser_list-compact-uploader", false, true},
		{other, "good/1-file_list-compact-d", false, false},
	} {
		dir := t.TempDir()
		g := fileGate{filepath.Join(dir, "gate")}
		var b set.Builder
		if err := errors.Join(b.Add(set.Parser, c.was), b.Add(set.Content, c.was)); err != nil {
			t.Fatal(err)
		}
		m, err := b.Build(set.Header{Generation: 1, Mode: set.Log, Loaded: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string][]byte{"gate": m.Bytes(), "lists/" + filepath.Base(c.list): files[c.list], "keys/lists.pem": files["keys/more/lists.pem"]} {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		if code := program(g).Run([]string{"replace", "--keyring", dir + "/keys", dir + "/lists"}, &out, &out); code != cli.Yes {
			t.Fatalf("%s: exit code %d\n%s", c.list, code, &out)
		}
		if m, err = g.Image(); err != nil {
			t.Fatal(err)
		}
		if m.Has(set.Parser, self) != c.self || m.Has(set.Parser, other) != c.both {
			t.Errorf("%s, parser before %s: parsers now: self %v, listed %v", c.list, c.was, m.Has(set.Parser, self), m.Has(set.Parser, other))
		}
	}
}

func TestMeasuredWith(t *testing.T) {
	const crypto = "name         : sha512\ndriver       : sha512-generic\nmodule       : sha512_generic\n\n" +
		"name         : sha256\ndriver       : sha256-generic\nmodule       : kernel\n\n" +
		"name         : sha384\ndriver       : sha384-generic\nmodule       : kernel\n\n" +
		"name         : none\ndriver       : none\nmodule       : kernel\n\n"
	for cmdline, want := range map[string]digest.Algorithm{
		"":                                digest.SHA256,
		"quiet ima_hash=sha384":           digest.SHA384,
		"ima_hash=sha384 ima_hash=sha256": digest.SHA256,
		"ima_hash=sha512":                 digest.SHA256, // a module's
		"ima_hash=sha1":                   digest.SHA256, // not there
		"ima_hash=none":                   0,
	} {
		if got := measuredWith(cmdline, crypto); got != want {
			t.Errorf("%q: %v, want %v", cmdline, got, want)
		}
	}
}
