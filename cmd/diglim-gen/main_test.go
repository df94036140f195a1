package main

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"maps"
	"testing"
	"time"

	"diglim/internal/clitest"
	"diglim/internal/rpmtest"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"diglim-gen": main, peakCommand: peakMain})
}

// fixtures are the packages and keys that every script starts with, as files
// below its working directory.
func fixtures(t *testing.T) map[string][]byte {
	t.Helper()
	vendor, other, six := rpmtest.NewKey(t, "vendor", nil), rpmtest.NewKey(t, "other", rpmtest.Ed25519), rpmtest.NewKey(t, "six", rpmtest.V6)
	at := time.Date(2025, 3, 18, 12, 0, 0, 0, time.UTC)
	sign := func(e *openpgp.Entity, header []byte, change func(*packet.Config)) []byte {
		return rpmtest.Sign(t, e, header, at, change)
	}
	pkg := func(name string) rpmtest.Package {
		return rpmtest.Package{Name: name, Algo: 8, Files: []rpmtest.File{
			rpmtest.Regular("/usr/bin/"+name, 0o755, "#!/bin/sh\n# "+name+"\n"),
			rpmtest.Regular("/etc/"+name+".conf", 0o644, "# "+name+"\n"),
			{Path: "/usr/share/" + name, Mode: 0o040755},
		}}
	}
	signed := func(name string, e *openpgp.Entity) []byte {
		p := pkg(name)
		return p.File(rpmtest.Signatures{RSA: sign(e, p.Header(), nil)})
	}
	files := map[string][]byte{
		"keys/vendor.gpg": rpmtest.Public(t, vendor),
		"keys/six.gpg":    rpmtest.Public(t, six),
		"other.gpg":       rpmtest.Public(t, other),
		"good/hello.rpm":  signed("hello", vendor),
		"good/sub/a.rpm":  signed("alpha", vendor),
		"unknown.rpm":     signed("unknown", other),
		"unsigned.rpm":    pkg("unsigned").File(rpmtest.Signatures{}),
		"noise.rpm":       []byte("this is no package at all, however long it may be, and one hundred and twelve bytes are wanted at least, or so it says"),
	}
	weak := pkg("weak")
	files["weak.rpm"] = weak.File(rpmtest.Signatures{
		RSA: rpmtest.SignV3(t, vendor.PrivateKey.PrivateKey.(*rsa.PrivateKey), vendor.PrimaryKey.KeyId, weak.Header(), at, crypto.SHA1, 2)})
	multi := pkg("multi")
	files["multi.rpm"] = multi.File(rpmtest.Signatures{OpenPGP: [][]byte{sign(other, multi.Header(), nil), sign(six, multi.Header(), rpmtest.V6)}})
	swapped := pkg("swapped")
	files["swapped.rpm"] = swapped.File(rpmtest.Signatures{RSA: sign(vendor, pkg("original").Header(), nil)})
	files["truncated.rpm"] = files["good/hello.rpm"][:1000]
	broken := bytes.Clone(files["good/hello.rpm"])
	at1 := bytes.Index(broken, []byte("hello.conf"))
	broken[at1] = 'j'
	files["broken.rpm"] = broken
	escape := pkg("../escape")
	files["escape.rpm"] = escape.File(rpmtest.Signatures{RSA: sign(vendor, escape.Header(), nil)})
	control := rpmtest.Package{Name: "control", Algo: 8, Files: []rpmtest.File{rpmtest.Regular("/usr/bin/\x1b[31mred\n", 0o755, "x")}}
	files["control.rpm"] = control.File(rpmtest.Signatures{RSA: sign(vendor, control.Header(), nil)})
	meta := rpmtest.Package{Name: "meta"}
	files["meta.rpm"] = meta.File(rpmtest.Signatures{RSA: sign(vendor, meta.Header(), nil)})
	clash := pkg("hello")
	clash.Extra = []rpmtest.Entry{rpmtest.String(6000, "another hello")}
	files["clash/hello.rpm"] = clash.File(rpmtest.Signatures{RSA: sign(vendor, clash.Header(), nil)})
	maps.Copy(files, certificates(t))
	maps.Copy(files, lists(t))
	update := pkg("hello")
	update.Release = "2"
	update.Files[0] = rpmtest.Regular("/usr/bin/hello", 0o755, "#!/bin/sh\n# hello again\n")
	update.Files = append(update.Files, rpmtest.Regular("/usr/bin/hello2", 0o755, "#!/bin/sh\n# hello too\n"))
	files["update/hello.rpm"] = update.File(rpmtest.Signatures{RSA: sign(vendor, update.Header(), nil)})
	expired, revoked := rpmtest.NewKey(t, "expired", func(c *packet.Config) { c.KeyLifetimeSecs = 365 * 24 * 3600 }), rpmtest.NewKey(t, "revoked", nil)
	if err := revoked.Revoke(packet.KeyCompromised, "", rpmtest.Config(at, nil)); err != nil {
		t.Fatal(err)
	}
	files["expired.gpg"], files["revoked.gpg"] = rpmtest.Public(t, expired), rpmtest.Public(t, revoked)
	return files
}

func TestScripts(t *testing.T) { clitest.Run(t, fixtures(t)) }
func TestManPage(t *testing.T) {
	clitest.ManPage(t, "diglim-gen", run, "rpm", "rpmdb", "repo", "deb", "files", "show", "verify", "sign", "convert", "diff", "keys")
}
