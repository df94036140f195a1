package attest_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/cms"
	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm/imalog"
	"diglim/tpm/tpmtest"
)

// A signingKey signs files, and has a certificate.
type signingKey struct {
	crypto.Signer
	cert *x509.Certificate
}

func newSigningKey(t *testing.T, name string, key crypto.Signer, id []byte) signingKey {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, SubjectKeyId: id}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signingKey{key, cert}
}

func newRSA(t *testing.T) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newEC(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// over is the key's bare signature over a digest.
func (k signingKey) over(t *testing.T, d digest.Digest) []byte {
	t.Helper()
	sig, err := k.Sign(rand.Reader, d.Bytes(), d.Algorithm().Crypto())
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

var keyID = []byte{1, 2, 3, 4, 0x10, 0x5e, 0xf9, 0x44}

// attribute is a signature_v2_hdr.
func attribute(kind, version byte, alg digest.Algorithm, sig []byte) []byte {
	b := append([]byte{kind, version, byte(alg.Kernel())}, keyID[4:]...)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(sig))), sig...)
}

// fileID is the digest of an ima_file_id.
func fileID(kind byte, d digest.Digest) digest.Digest {
	return digest.Sum(d.Algorithm(), []byte{kind, byte(d.Algorithm().Kernel())}, d.Bytes())
}

// attributes are what a portable EVM signature is over.
type attributes struct {
	names         string
	values        [][]byte
	uid, gid      uint32
	mode          uint16
	lastSize, ino byte // wrong by so much
}

func imaAttribute(d digest.Digest) []byte {
	return d.Append([]byte{4, byte(d.Algorithm().Kernel())})
}

func newAttributes(d digest.Digest) attributes {
	return attributes{"security.selinux|security.ima|security.capability\x00",
		[][]byte{[]byte("system_u:object_r:bin_t:s0\x00"), imaAttribute(d), []byte("caps")}, 5, 7, 0o100755, 0, 0}
}

func (a attributes) digest(alg digest.Algorithm, order binary.AppendByteOrder) digest.Digest {
	misc := make([]byte, 12)
	misc[0] = a.ino
	misc = order.AppendUint32(misc, a.uid)
	misc = order.AppendUint32(misc, a.gid)
	misc = append(order.AppendUint16(misc, a.mode), 0, 0)
	return digest.Sum(alg, slices.Concat(a.values...), misc)
}

func (a attributes) entry(d digest.Digest, evm []byte) tpmtest.Entry {
	le := binary.LittleEndian
	var sizes []byte
	for _, v := range a.values {
		sizes = le.AppendUint32(sizes, uint32(len(v)))
	}
	sizes[len(sizes)-4] += a.lastSize
	return tpmtest.Entry{PCR: 10, Template: "evm-sig", Path: "/usr/bin/signed", Fields: [][]byte{
		tpmtest.Tagged(d), []byte("/usr/bin/signed\x00"), evm, []byte(a.names), sizes, slices.Concat(a.values...),
		le.AppendUint32(nil, a.uid), le.AppendUint32(nil, a.gid), le.AppendUint16(nil, a.mode)}}
}

func withFields(template string, fields ...[]byte) tpmtest.Entry {
	fields = slices.Insert(fields, 1, []byte("/usr/bin/signed\x00"))
	return tpmtest.Entry{PCR: 10, Template: template, Fields: fields, Path: "/usr/bin/signed"}
}

// Row 43: a signature in the log makes a file known if it is over the entry's
// own digest and by a key of the policy. Every good entry breeds bad ones.
func TestAttack43SignatureMatrix(t *testing.T) {
	signed, evil := file("signed"), file("evil")
	d, bad := tpmtest.Tagged(signed), tpmtest.Tagged(evil)
	ima, verity := append([]byte("ima:"), d...), append([]byte("verity:"), d...)
	stranger := newSigningKey(t, "stranger", newRSA(t), keyID) // of the same key id
	cases := 0
	for _, k := range []signingKey{newSigningKey(t, "vendor", newRSA(t), keyID), newSigningKey(t, "vendor", newEC(t), keyID)} {
		v2 := attribute(3, 2, digest.SHA256, k.over(t, signed))
		v3 := attribute(3, 3, digest.SHA256, k.over(t, fileID(3, signed)))
		vv := attribute(6, 3, digest.SHA256, k.over(t, fileID(6, signed)))
		pkcs7, err := cms.Sign([]byte("unsigned"), k, k.cert, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		strange, err := cms.Sign([]byte("unsigned"), stranger, stranger.cert, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		unsigned := tpmtest.Tagged(file("unsigned"))
		a := newAttributes(signed)
		le := binary.LittleEndian
		evm := func(a attributes, version byte) []byte {
			sum := a.digest(digest.SHA256, le)
			if version == 3 {
				sum = fileID(5, sum)
			}
			return attribute(5, version, digest.SHA256, k.over(t, sum))
		}
		with := func(change func(*attributes)) attributes {
			b := newAttributes(signed)
			change(&b)
			return b
		}
		sha512 := digest.Sum(digest.SHA512, []byte("signed"))
		bigEndian := attribute(5, 2, digest.SHA256, k.over(t, a.digest(digest.SHA256, binary.BigEndian)))
		good := map[string]tpmtest.Entry{
			"ima-sig":            withFields("ima-sig", d, v2),
			"ima-sig, sha512":    withFields("ima-sig", tpmtest.Tagged(sha512), attribute(3, 2, digest.SHA512, k.over(t, sha512))),
			"ima-sig, v3":        withFields("ima-sig", d, v3),
			"ima-sigv2":          withFields("ima-sigv2", ima, v2),
			"ima-sigv2, v3":      withFields("ima-sigv2", ima, v3),
			"fs-verity":          withFields("ima-sigv2", verity, vv),
			"ima-modsig":         withFields("ima-modsig", d, nil, unsigned, pkcs7),
			"ima-modsig, by ima": withFields("ima-modsig", d, v2, nil, nil),
			"evm-sig":            a.entry(signed, evm(a, 2)),
			"evm-sig, v3":        a.entry(signed, evm(a, 3)),
			"evm-sig, s390":      a.entry(signed, bigEndian),
			"format, not name":   withFields("d-ng|n-ng|sig", d, v2),
		}
		flipped := func(sig []byte, at int) []byte {
			sig = bytes.Clone(sig)
			if at < 0 {
				at += len(sig)
			}
			sig[at] ^= 1
			return sig
		}
		weak := digest.Sum(digest.SHA1, []byte("signed"))
		refused := map[string]tpmtest.Entry{
			"of another file":              withFields("ima-sig", bad, v2),
			"v3 of another file":           withFields("ima-sig", bad, v3),
			"fs-verity of another file":    withFields("ima-sigv2", append([]byte("verity:"), bad...), vv),
			"value flipped":                withFields("ima-sig", d, flipped(v2, -1)),
			"value empty":                  withFields("ima-sig", d, attribute(3, 2, digest.SHA256, nil)),
			"value longer":                 withFields("ima-sig", d, attribute(3, 2, digest.SHA256, append(k.over(t, signed), 0))),
			"cut":                          withFields("ima-sig", d, v2[:len(v2)-1]),
			"key id":                       withFields("ima-sig", d, flipped(v2, 5)),
			"version 1":                    withFields("ima-sig", d, attribute(3, 1, digest.SHA256, k.over(t, signed))),
			"v2 called v3":                 withFields("ima-sig", d, flipped(v2, 1)),
			"v3 called v2":                 withFields("ima-sig", d, flipped(v3, 1)),
			"hash of another name":         withFields("ima-sig", d, attribute(3, 2, digest.SHA512, k.over(t, signed))),
			"SHA-1":                        withFields("ima-sig", tpmtest.Tagged(weak), attribute(3, 2, digest.SHA1, k.over(t, weak))),
			"SHA-1 as v3":                  withFields("ima-sig", tpmtest.Tagged(weak), attribute(3, 3, digest.SHA1, k.over(t, fileID(3, weak)))),
			"a digest":                     withFields("ima-sig", d, imaAttribute(signed)),
			"file's for fs-verity":         withFields("ima-sigv2", verity, v2),
			"file's v3 for fs-verity":      withFields("ima-sigv2", verity, v3),
			"fs-verity's for a file":       withFields("ima-sigv2", ima, vv),
			"fs-verity's, not said so":     withFields("ima-sig", d, vv),
			"fs-verity v2":                 withFields("ima-sigv2", verity, attribute(6, 2, digest.SHA256, k.over(t, signed))),
			"fs-verity, file's id":         withFields("ima-sigv2", verity, attribute(6, 3, digest.SHA256, k.over(t, fileID(3, signed)))),
			"EVM without attributes":       withFields("ima-sig", d, evm(a, 2)),
			"EVM over the file":            withFields("ima-sig", d, attribute(5, 2, digest.SHA256, k.over(t, signed))),
			"by another of that id":        withFields("ima-sig", d, attribute(3, 2, digest.SHA256, stranger.over(t, signed))),
			"modsig of another":            withFields("ima-modsig", d, nil, bad, pkcs7),
			"modsig over the whole":        withFields("ima-modsig", unsigned, nil, d, pkcs7),
			"modsig by another":            withFields("ima-modsig", d, nil, unsigned, strange),
			"modsig alone":                 withFields("ima-modsig", d, nil, nil, pkcs7),
			"modsig flipped":               withFields("ima-modsig", d, nil, unsigned, flipped(pkcs7, -1)),
			"modsig with a tail":           withFields("ima-modsig", d, nil, unsigned, append(bytes.Clone(pkcs7), 0)),
			"modsig, other hash":           withFields("ima-modsig", d, nil, tpmtest.Tagged(sha512), pkcs7),
			"modsig in another template":   withFields("d-ng|n-ng|buf|d-modsig|modsig", d, nil, unsigned, pkcs7),
			"EVM of another file":          a.entry(evil, evm(a, 2)),
			"EVM of another, it says":      newAttributes(evil).entry(signed, evm(newAttributes(evil), 2)),
			"EVM, other user":              with(func(b *attributes) { b.uid = 0 }).entry(signed, evm(a, 2)),
			"EVM, other group":             with(func(b *attributes) { b.gid = 0 }).entry(signed, evm(a, 2)),
			"EVM, other mode":              with(func(b *attributes) { b.mode |= 0o4000 }).entry(signed, evm(a, 2)),
			"EVM, other label":             with(func(b *attributes) { b.values[0][0]++ }).entry(signed, evm(a, 2)),
			"EVM, capability gone":         with(func(b *attributes) { b.values[2] = nil }).entry(signed, evm(a, 2)),
			"EVM, names gone":              with(func(b *attributes) { b.names = "security.ima\x00" }).entry(signed, evm(a, 2)),
			"EVM, sizes wrong":             with(func(b *attributes) { b.lastSize = 1 }).entry(signed, evm(a, 2)),
			"EVM, not portable":            a.entry(signed, evm(with(func(b *attributes) { b.ino = 9 }), 2)),
			"EVM called v3":                a.entry(signed, flipped(evm(a, 2), 1)),
			"EVM v3, file's id":            a.entry(signed, attribute(5, 3, digest.SHA256, k.over(t, fileID(3, a.digest(digest.SHA256, le))))),
			"EVM without security.ima":     withoutIMA(a).entry(signed, evm(withoutIMA(a), 2)),
			"EVM over a SHA-1 of the file": newAttributes(weak).entry(weak, evm(newAttributes(weak), 2)),
			"EVM in the place of a file's": a.entry(signed, attribute(3, 2, digest.SHA256, k.over(t, a.digest(digest.SHA256, le)))),
		}
		vendor := parseSigners(t, k.cert.Raw)
		both := append(parseSigners(t, stranger.cert.Raw), vendor...)
		judge := func(e tpmtest.Entry, signers []*policy.Signer) attest.Verdict {
			cases++
			h := honest(t)
			h.policy.Signers = signers
			h.add(e)
			return h.judge(t)
		}
		for name, e := range good {
			for who, keys := range map[string][]*policy.Signer{"": vendor, ", two of that id": both} {
				v := judge(e, keys)
				expect(t, name+who, v, attest.Trusted)
				if got := v.Known[len(v.Known)-1]; len(got.Sources) != 1 || got.Sources[0] != (policy.Source{Signer: "CN=vendor"}) || got.Path != "/usr/bin/signed" {
					t.Errorf("%s: %+v", name, got)
				}
			}
			for who, keys := range map[string][]*policy.Signer{", no key": nil, ", another of that id": both[:1]} {
				expect(t, name+who, judge(e, keys), attest.NotTrusted, attest.UnknownFile)
			}
		}
		for name, e := range refused {
			expect(t, name, judge(e, vendor), attest.NotTrusted, attest.UnknownFile)
		}
		h := honest(t)
		h.policy.Signers, h.policy.Denied = vendor, map[digest.Digest]string{signed: "CVE"}
		h.add(good["ima-sig"])
		expect(t, "denied", h.judge(t), attest.NotTrusted, attest.DeniedFile)
	}
	if cases < 190 {
		t.Errorf("%d cases", cases)
	}
}

func withoutIMA(a attributes) attributes {
	a.names = "security.selinux\x00"
	a.values = a.values[:1]
	return a
}

func parseSigners(t *testing.T, data []byte) []*policy.Signer {
	t.Helper()
	signers, err := policy.ParseSigners("key.pem", data)
	if err != nil {
		t.Fatal(err)
	}
	return signers
}

// A policy of a key alone can trust a host, and a bare key is called by its file.
func TestSigningKeyAlone(t *testing.T) {
	key := newRSA(t)
	k := newSigningKey(t, "vendor", key, nil)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	h := honest(t)
	h.policy.Known = policy.Files{}
	h.policy.Signers = parseSigners(t, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	id := k.cert.SubjectKeyId
	if len(id) == 0 { // made by the library for authorities alone
		id = hash20(t, k.cert)
	}
	h.log, h.real = h.log[:1:1], h.log[:1:1]
	for i := range 3 {
		d := file(fmt.Sprint(i))
		sig := attribute(3, 2, digest.SHA256, k.over(t, d))
		copy(sig[3:7], id[len(id)-4:])
		h.add(withFields("ima-sig", tpmtest.Tagged(d), sig))
	}
	v := h.judge(t)
	expect(t, "signed", v, attest.Trusted)
	if len(v.Known) != 3 || v.Known[0].Sources[0].Signer != "key.pem" {
		t.Errorf("%+v", v.Known)
	}
}

// hash20 is the subject key id that a certificate would have.
func hash20(t *testing.T, cert *x509.Certificate) []byte {
	public, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		t.Fatal("not RSA")
	}
	return digest.Sum(digest.SHA1, x509.MarshalPKCS1PublicKey(public)).Bytes()
}

// A key that was loaded into a keyring counts for nothing; one of the policy's is
// known, and what another signed stays unknown.
func TestAttack43LoadedKeys(t *testing.T) {
	vendor, stranger := newSigningKey(t, "vendor", newRSA(t), keyID), newSigningKey(t, "stranger", newEC(t), keyID)
	loaded := func(k signingKey) tpmtest.Entry {
		return tpmtest.Entry{PCR: 10, Template: "ima-buf", Path: ".ima",
			Fields: [][]byte{tpmtest.Tagged(digest.Sum(digest.SHA256, k.cert.Raw)), []byte(".ima\x00"), k.cert.Raw}}
	}
	h := honest(t)
	h.policy.Signers = parseSigners(t, vendor.cert.Raw)
	h.add(loaded(vendor))
	v := h.judge(t)
	expect(t, "the policy's", v, attest.Trusted)
	if got := v.Known[len(v.Known)-1].Sources; len(got) != 1 || got[0].Signer != "CN=vendor" || got[0].Reason == "" {
		t.Errorf("%+v", got)
	}
	h.add(loaded(stranger))
	h.add(withFields("ima-sig", tpmtest.Tagged(file("x")), attribute(3, 2, digest.SHA256, stranger.over(t, file("x")))))
	v = h.judge(t)
	expect(t, "another", v, attest.NotTrusted, attest.UnknownKey, attest.UnknownFile)
	if !strings.Contains(v.Findings[0].Why, "CN=stranger") {
		t.Error(v.Findings[0].Why)
	}
	h.policy.ReportUnknown = true
	expect(t, "reported", h.judge(t), attest.Trusted, attest.UnknownKey, attest.UnknownFile)
	// By its digest the policy can make it known, and still not what it signs.
	h.policy.ReportUnknown = false
	h.policy.Known.Add(digest.Sum(digest.SHA256, stranger.cert.Raw), policy.Source{Reason: "known"})
	expect(t, "known by digest", h.judge(t), attest.NotTrusted, attest.UnknownFile)
	// Under the name of a template with a buffer, an attribute is no key.
	h = honest(t)
	h.policy.Signers = parseSigners(t, vendor.cert.Raw)
	h.add(withFields("ima-buf", tpmtest.Tagged(file("evil")), vendor.cert.Raw))
	expect(t, "not what was measured", h.judge(t), attest.NotTrusted, attest.UnknownFile)
}

// A log cannot make its reader verify signatures for ever.
func TestManyBadSignatures(t *testing.T) {
	k := newSigningKey(t, "vendor", newEC(t), keyID)
	h := honest(t)
	h.policy.Signers, h.policy.ReportUnknown = parseSigners(t, k.cert.Raw), true
	bad := attribute(3, 2, digest.SHA256, []byte("no signature"))
	for _, n := range []int{999, 1_000} {
		h.log = h.log[:1:1]
		for i := range n {
			h.log = append(h.log, withFields("ima-sig", tpmtest.Tagged(file(fmt.Sprint(i))), bad))
		}
		h.log = append(h.log, withFields("ima-sig", tpmtest.Tagged(file("signed")), attribute(3, 2, digest.SHA256, k.over(t, file("signed")))))
		h.real = h.log
		v := h.judge(t)
		if known := len(v.Known) == 1; known != (n < 1_000) || v.Outcome != attest.Trusted || len(v.Findings)+len(v.Known) != n+1 {
			t.Errorf("%d bad ones: %v, %d known, %d findings", n, v.Outcome, len(v.Known), len(v.Findings))
		}
	}
}

// evmctl and openssl sign as kernels want it.
func TestSignedByOthers(t *testing.T) {
	for _, program := range []string{"evmctl", "openssl"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v", name, args, err)
		}
		return string(out)
	}
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("signed"), 0o640); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range [][]string{{"rsa:2048"}, {"ec", "-pkeyopt", "ec_paramgen_curve:P-256"}} {
		run("openssl", append([]string{"req", "-x509", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=vendor", "-newkey"}, key...)...)
		signers := parseSigners(t, read("cert.pem"))
		signers = append(signers, parseSigners(t, []byte(run("openssl", "x509", "-in", "cert.pem", "-noout", "-pubkey")))...)
		for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
			d := digest.Sum(alg, []byte("signed"))
			run("evmctl", "ima_sign", "--sigfile", "-a", alg.String(), "-k", "key.pem", "file")
			entries := map[string]tpmtest.Entry{"evmctl ima_sign": withFields("ima-sig", tpmtest.Tagged(d), read("file.sig"))}

			// It prints the attribute with the digest, and then the signature.
			lines := strings.Fields(run("evmctl", "sign", "--xattr-user", "--portable", "--imahash", "-a", alg.String(), "-k", "key.pem",
				"--uid", "5", "--gid", "7", "file"))
			evm, err := hex.DecodeString(lines[len(lines)-1])
			if err != nil {
				t.Fatal(err)
			}
			a := attributes{"security.ima\x00", [][]byte{imaAttribute(d)}, 5, 7, uint16(info.Mode()) | 0o100000, 0, 0}
			entries["evmctl sign --portable"] = a.entry(d, evm)

			run("openssl", "dgst", "-"+alg.String(), "-sign", "key.pem", "-out", "raw", "file")
			v2 := attribute(3, 2, alg, read("raw"))
			copy(v2[3:7], read("file.sig")[3:7])
			entries["openssl dgst"] = withFields("ima-sigv2", append([]byte("ima:"), tpmtest.Tagged(d)...), v2)

			run("openssl", "cms", "-sign", "-binary", "-noattr", "-nocerts", "-nosmimecap", "-md", alg.String(), "-signer", "cert.pem", "-inkey", "key.pem",
				"-in", "file", "-outform", "DER", "-out", "p7")
			entries["openssl cms"] = withFields("ima-modsig", tpmtest.Tagged(file("with signature")), nil, tpmtest.Tagged(d), read("p7"))
			for name, e := range entries {
				for i := range signers { // the certificate, and the key alone
					h := honest(t)
					h.policy.Signers = signers[i : i+1]
					h.add(e)
					expect(t, fmt.Sprint(name, key, alg, i), h.judge(t), attest.Trusted)
				}
			}
		}
	}
}

// A file that a guest ran is known by the key that signed it, and by no list. The
// other one that was signed is a copy of one that was not.
func TestSignedInGuests(t *testing.T) {
	dir := filepath.Join("vm-evidence", "seabios-crb-6.1cloud-imasig")
	log := corpus.Read(t, dir, "ima.bin")
	signers := parseSigners(t, corpus.Read(t, dir, "ima-signer.x509.der"))
	nonce, err := hex.DecodeString(string(bytes.TrimSpace(corpus.Read(t, dir, "nonce.hex"))))
	if err != nil {
		t.Fatal(err)
	}
	unsigned := &policy.Files{}
	for e, err := range imalog.Entries(bytes.NewReader(log), imalog.Layout{Hash: digest.SHA1}) {
		if err != nil {
			t.Fatal(err)
		}
		if len(e.Signature) == 0 {
			unsigned.Add(e.Digest, policy.Source{List: "corpus"})
		}
	}
	ev := attest.Evidence{
		Quote: corpus.Read(t, dir, "quote.msg"), Signature: corpus.Read(t, dir, "quote.sig"), PCRs: corpus.Read(t, dir, "quote.pcrs"),
		IMALog: bytes.NewReader(log),
	}
	judge := func(signers []*policy.Signer) attest.Verdict {
		return attest.Judge(ev, attest.Challenge{Nonce: nonce, AK: corpus.Read(t, dir, "ak.pub")},
			&policy.Policy{Bank: digest.SHA256, PCR: policy.IMAPCR, Known: *unsigned, Signers: signers})
	}
	v := judge(signers)
	expect(t, "with the key", v, attest.Trusted)
	signed := 0
	for _, k := range v.Known {
		if k.Sources[0].Signer != "" {
			signed++
		}
	}
	if signed != 1 {
		t.Errorf("%d signed", signed)
	}
	expect(t, "without it", judge(nil), attest.NotTrusted, attest.UnknownFile)
}
