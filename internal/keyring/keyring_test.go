package keyring

import (
	"bytes"
	"crypto"
	//lint:ignore SA1019 what old packages are signed with
	"crypto/dsa"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"diglim/internal/digest"
	"diglim/internal/rpmtest"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

var (
	document = []byte("what was signed")
	signedAt = rpmtest.Made.AddDate(1, 0, 0)
)

// ring is a keyring of the public halves of keys.
func ring(t testing.TB, keys ...*openpgp.Entity) *Keyring {
	t.Helper()
	k := &Keyring{}
	for _, e := range keys {
		if err := k.Add("test", rpmtest.Public(t, e)); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func rsaKey(e *openpgp.Entity) *rsa.PrivateKey { return e.PrivateKey.PrivateKey.(*rsa.PrivateKey) }

// dsaKey makes a DSA key, which go-crypto reads but does not generate.
func dsaKey(t testing.TB) *openpgp.Entity {
	t.Helper()
	var k dsa.PrivateKey
	if err := dsa.GenerateParameters(&k.Parameters, rand.Reader, dsa.L1024N160); err != nil {
		t.Fatal(err)
	}
	if err := dsa.GenerateKey(&k, rand.Reader); err != nil {
		t.Fatal(err)
	}
	priv := packet.NewDSAPrivateKey(rpmtest.Made, &k)
	e := &openpgp.Entity{PrimaryKey: &priv.PublicKey, PrivateKey: priv, Identities: map[string]*openpgp.Identity{}}
	if err := e.AddUserId("dsa", "", "dsa@example.org", rpmtest.Config(rpmtest.Made, nil)); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestGoodSignatures(t *testing.T) {
	rsa4, ed4, ed6, dsa4 := rpmtest.NewKey(t, "rsa", nil), rpmtest.NewKey(t, "ed", rpmtest.Ed25519), rpmtest.NewKey(t, "six", rpmtest.V6), dsaKey(t)
	keys := ring(t, rsa4, ed4, ed6, dsa4)
	for _, c := range []struct {
		name    string
		key     *openpgp.Entity
		sig     []byte
		version int
		hash    digest.Algorithm
	}{
		{"version 4 RSA", rsa4, rpmtest.Sign(t, rsa4, document, signedAt, nil), 4, digest.SHA256},
		{"version 4 EdDSA", ed4, rpmtest.Sign(t, ed4, document, signedAt, nil), 4, digest.SHA256},
		{"version 6 Ed25519", ed6, rpmtest.Sign(t, ed6, document, signedAt, rpmtest.V6), 6, digest.SHA256},
		{"version 3 RSA", rsa4, rpmtest.SignV3(t, rsaKey(rsa4), rsa4.PrimaryKey.KeyId, document, signedAt, crypto.SHA256, 8), 3, digest.SHA256},
		{"version 3 DSA", dsa4, rpmtest.SignV3(t, dsa4.PrivateKey.PrivateKey, dsa4.PrimaryKey.KeyId, document, signedAt, crypto.SHA256, 8), 3, digest.SHA256},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := keys.Verify(document, c.sig, Policy{})
			if err != nil {
				t.Fatal(err)
			}
			if s.Version != c.version || s.Hash != c.hash || s.Weak || !s.Time.Equal(signedAt) || s.KeyID != c.key.PrimaryKey.KeyId ||
				s.Fingerprint != fmt.Sprintf("%x", c.key.PrimaryKey.Fingerprint) || s.Source != "test" || !strings.Contains(s.UserID, "@example.org") {
				t.Errorf("Signer = %+v", s)
			}
			breed(t, keys, c.sig)
		})
	}
}

// breed derives wrong versions of a right signature: each must be refused.
func breed(t *testing.T, keys *Keyring, good []byte) {
	t.Helper()
	refused := func(name string, signed, sig []byte) {
		if s, err := keys.Verify(signed, sig, Policy{AllowWeak: true}); err == nil {
			t.Errorf("%s: verified as %+v", name, s)
		}
	}
	refused("other document", append(bytes.Clone(document), 'x'), good)
	refused("shorter document", document[1:], good)
	refused("trailing byte", document, append(bytes.Clone(good), 0))
	refused("twice", document, append(bytes.Clone(good), good...))
	for i := range good {
		refused(fmt.Sprintf("cut at %d", i), document, good[:i])
	}
	empty := ring(t)
	if _, err := empty.Verify(document, good, Policy{}); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("the empty keyring says %v", err)
	}
}

// Any flipped bit makes a signature bad, except in what nothing covers: the
// unhashed subpackets, the hash's left 16 bits in version 4, and the bit that
// pads an MPI's length.
func TestFlippedBits(t *testing.T) {
	e := rpmtest.NewKey(t, "rsa", nil)
	keys := ring(t, e)
	good := rpmtest.SignV3(t, rsaKey(e), e.PrimaryKey.KeyId, document, signedAt, crypto.SHA256, 8)
	const mpiLength = 3 + 19 // packet header, fixed part
	for i := range good {
		for bit := range 8 {
			sig := bytes.Clone(good)
			sig[i] ^= 1 << bit
			if _, err := keys.Verify(document, sig, Policy{AllowWeak: true}); err == nil && i != mpiLength+1 {
				t.Errorf("byte %d, bit %d flipped: verified", i, bit)
			}
		}
	}
}

func TestWeakHashes(t *testing.T) {
	e := rpmtest.NewKey(t, "rsa", nil)
	keys := ring(t, e)
	for _, c := range []struct {
		hash    crypto.Hash
		openpgp byte
	}{{crypto.MD5, 1}, {crypto.SHA1, 2}} {
		sig := rpmtest.SignV3(t, rsaKey(e), e.PrimaryKey.KeyId, document, signedAt, c.hash, c.openpgp)
		if _, err := keys.Verify(document, sig, Policy{}); !errors.Is(err, ErrWeak) {
			t.Errorf("%v: %v", c.hash, err)
		}
		if s, err := keys.Verify(document, sig, Policy{AllowWeak: true}); err != nil || !s.Weak {
			t.Errorf("%v allowed: %+v, %v", c.hash, s, err)
		}
		if _, err := keys.Verify(document[1:], sig, Policy{AllowWeak: true}); !errors.Is(err, ErrBad) {
			t.Errorf("%v allowed, other document: %v", c.hash, err)
		}
	}
}

// A signature over text verifies as one, and as nothing else; and it is over
// the canonical text, byte by byte.
func TestSignatureOverText(t *testing.T) {
	e := rpmtest.NewKey(t, "rsa", nil)
	keys := ring(t, e)
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, e.PrivateKey, rpmtest.Config(signedAt, nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("two lines \n- of text")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	block, _ := clearsign.Decode(b.Bytes())
	sig, err := io.ReadAll(block.ArmoredSignature.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("two lines\r\n- of text")
	s, err := keys.VerifyText(text, sig, Policy{})
	if err != nil || s.KeyID != e.PrimaryKey.KeyId || !s.Time.Equal(signedAt) {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := keys.Verify(text, sig, Policy{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("taken for a signature over a document: %v", err)
	}
	if _, err := keys.VerifyText(text, rpmtest.Sign(t, e, text, signedAt, nil), Policy{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("a signature over a document, taken for one over text: %v", err)
	}
	for _, other := range []string{"", "two lines\n- of text", "two lines \r\n- of text", "two lines\r\n- of text\r\n", "two lines\r\nof text"} {
		if _, err := keys.VerifyText([]byte(other), sig, Policy{}); !errors.Is(err, ErrBad) {
			t.Errorf("%q: %v", other, err)
		}
	}
	if _, err := ring(t).VerifyText(text, sig, Policy{}); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("the empty keyring says %v", err)
	}
}

// Keys are judged at the time of signing.
func TestKeyValidity(t *testing.T) {
	year := func(c *packet.Config) { c.KeyLifetimeSecs = 365 * 24 * 3600 }
	for _, c := range []struct {
		name string
		at   time.Time
		want error
	}{
		{"in its year", rpmtest.Made.AddDate(0, 6, 0), nil},
		{"after its year", rpmtest.Made.AddDate(2, 0, 0), ErrKeyNotGood},
		{"before it was made", rpmtest.Made.AddDate(0, 0, -1), ErrKeyNotGood},
	} {
		e := rpmtest.NewKey(t, "rsa", year)
		sig := rpmtest.SignV3(t, rsaKey(e), e.PrimaryKey.KeyId, document, c.at, crypto.SHA256, 8)
		if _, err := ring(t, e).Verify(document, sig, Policy{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A key whose self-signatures are all younger than what it signed (vendors
// prolong a key and export it anew) is judged by the oldest of them.
func TestYoungerSelfSignature(t *testing.T) {
	e := rpmtest.NewKey(t, "rsa", nil)
	sig := rpmtest.Sign(t, e, document, signedAt, nil)
	for _, id := range e.Identities {
		s := *id.SelfCertifications[0].Packet
		s.CreationTime = signedAt.AddDate(1, 0, 0)
		if err := s.SignUserId(id.UserId.Id, e.PrimaryKey, e.PrivateKey, rpmtest.Config(signedAt.AddDate(1, 0, 0), nil)); err != nil {
			t.Fatal(err)
		}
		id.SelfCertifications = []*packet.VerifiableSignature{packet.NewVerifiableSig(&s)}
	}
	keys := ring(t, e)
	if _, err := keys.Verify(document, sig, Policy{}); err != nil {
		t.Errorf("a prolonged key: %v", err)
	}
	early := rpmtest.SignV3(t, rsaKey(e), e.PrimaryKey.KeyId, document, rpmtest.Made.AddDate(0, 0, -1), crypto.SHA256, 8)
	if _, err := keys.Verify(document, early, Policy{}); !errors.Is(err, ErrKeyNotGood) {
		t.Errorf("a signature older than the key: %v", err)
	}
}

// A revocation refuses, in whichever of the files with the key it stands, and
// in either order.
func TestRevocation(t *testing.T) {
	e := rpmtest.NewKey(t, "rsa", nil)
	before := rpmtest.Public(t, e)
	sig := rpmtest.Sign(t, e, document, signedAt, nil)
	if err := e.Revoke(packet.KeyRetired, "", rpmtest.Config(signedAt.AddDate(1, 0, 0), nil)); err != nil {
		t.Fatal(err)
	}
	after := rpmtest.Public(t, e)
	for name, files := range map[string][][]byte{
		"revoked": {after}, "then revoked": {before, after}, "revoked first": {after, before},
	} {
		k := &Keyring{}
		for _, f := range files {
			if err := k.Add("test", f); err != nil {
				t.Fatal(err)
			}
		}
		if k.Len() != 1 {
			t.Errorf("%s: %d keys", name, k.Len())
		}
		if _, err := k.Verify(document, sig, Policy{}); !errors.Is(err, ErrKeyNotGood) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeyForEncryptionOnly(t *testing.T) {
	e := rpmtest.NewKey(t, "rsa", nil)
	sub := e.Subkeys[0].PublicKey // for encryption
	sig := rpmtest.SignV3(t, e.Subkeys[0].PrivateKey.PrivateKey, sub.KeyId, document, signedAt, crypto.SHA256, 8)
	if _, err := ring(t, e).Verify(document, sig, Policy{}); !errors.Is(err, ErrKeyNotGood) {
		t.Errorf("an encryption subkey: %v", err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	a, b := rpmtest.NewKey(t, "a", nil), rpmtest.NewKey(t, "b", rpmtest.Ed25519)
	var armored bytes.Buffer
	for _, e := range []*openpgp.Entity{a, b} { // two blocks in one file
		w, err := armor.Encode(&armored, openpgp.PublicKeyType, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(rpmtest.Public(t, e))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		armored.WriteString("\n\n")
	}
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	both := write("keys/both.asc", armored.Bytes())
	write("keys/sub/binary.gpg", rpmtest.Public(t, a))
	readme := write("keys/README", []byte("not a key"))
	empty := write("empty/nothing", nil)

	for _, c := range []struct {
		path          string
		keys, skipped int
		err           bool
	}{
		{both, 2, 0, false},
		{filepath.Join(dir, "keys"), 2, 1, false},
		{readme, 0, 0, true},
		{empty, 0, 0, true},
		{filepath.Dir(empty), 0, 0, true},
		{filepath.Join(dir, "missing"), 0, 0, true},
	} {
		k, err := Load(c.path)
		if (err != nil) != c.err {
			t.Errorf("Load(%s): %v", c.path, err)
			continue
		}
		if err == nil && (k.Len() != c.keys || len(k.Skipped) != c.skipped) {
			t.Errorf("Load(%s): %d keys, skipped %v", c.path, k.Len(), k.Skipped)
		}
	}
}

func TestTooManySubkeys(t *testing.T) {
	e := rpmtest.NewKey(t, "ed", rpmtest.Ed25519)
	for range maxSubkeys {
		if err := e.AddEncryptionSubkey(rpmtest.Config(rpmtest.Made, rpmtest.Ed25519)); err != nil {
			t.Fatal(err)
		}
	}
	k := &Keyring{}
	if err := k.Add("test", rpmtest.Public(t, e)); err == nil || k.Len() != 0 {
		t.Errorf("%d keys, %v", k.Len(), err)
	}
}

func FuzzVerify(f *testing.F) {
	rsa4, ed6 := rpmtest.NewKey(f, "rsa", nil), rpmtest.NewKey(f, "six", rpmtest.V6)
	keys := ring(f, rsa4, ed6)
	good := [][]byte{
		rpmtest.Sign(f, rsa4, document, signedAt, nil),
		rpmtest.Sign(f, ed6, document, signedAt, rpmtest.V6),
		rpmtest.SignV3(f, rsaKey(rsa4), rsa4.PrimaryKey.KeyId, document, signedAt, crypto.SHA256, 8),
	}
	for _, sig := range good {
		f.Add(sig)
	}
	f.Fuzz(func(t *testing.T, sig []byte) {
		// Whatever verifies must have the right to: it comes from a key of the
		// ring, which a fuzzer cannot have signed with.
		if s, err := keys.Verify([]byte("something else"), sig, Policy{AllowWeak: true}); err == nil {
			t.Errorf("verified: %+v", s)
		}
	})
}

// A primary key of the time before key flags may sign. A subkey without them
// may not: nothing says that it wants to belong to this key.
func TestKeysWithoutFlags(t *testing.T) {
	e := rpmtest.NewKey(t, "rsa", nil)
	config := rpmtest.Config(rpmtest.Made, nil)
	for _, id := range e.Identities {
		s := *id.SelfCertifications[0].Packet
		s.FlagsValid, s.FlagSign, s.FlagCertify = false, false, false
		if err := s.SignUserId(id.UserId.Id, e.PrimaryKey, e.PrivateKey, config); err != nil {
			t.Fatal(err)
		}
		id.SelfCertifications = []*packet.VerifiableSignature{packet.NewVerifiableSig(&s)}
	}
	sub := e.Subkeys[0]
	b := *sub.Bindings[0].Packet
	b.FlagsValid = false
	if err := b.SignKey(sub.PublicKey, e.PrivateKey, config); err != nil {
		t.Fatal(err)
	}
	e.Subkeys[0].Bindings = []*packet.VerifiableSignature{packet.NewVerifiableSig(&b)}
	keys := ring(t, e)
	primary := rpmtest.SignV3(t, rsaKey(e), e.PrimaryKey.KeyId, document, signedAt, crypto.SHA256, 8)
	if _, err := keys.Verify(document, primary, Policy{}); err != nil {
		t.Errorf("primary key: %v", err)
	}
	subkey := rpmtest.SignV3(t, sub.PrivateKey.PrivateKey, sub.PublicKey.KeyId, document, signedAt, crypto.SHA256, 8)
	if _, err := keys.Verify(document, subkey, Policy{}); !errors.Is(err, ErrKeyNotGood) {
		t.Errorf("subkey: %v", err)
	}
}

// Of several signatures one good one is enough, wherever it stands.
func TestVerifyFile(t *testing.T) {
	e, other := rpmtest.NewKey(t, "rsa", nil), rpmtest.NewKey(t, "other", rpmtest.Ed25519)
	keys := ring(t, e)
	good, foreign := rpmtest.Sign(t, e, document, signedAt, nil), rpmtest.Sign(t, other, document, signedAt, nil)
	wrong := rpmtest.Sign(t, e, []byte("something else"), signedAt, nil)
	armored := func(kind string, b []byte) []byte {
		var text bytes.Buffer
		w, err := armor.Encode(&text, kind, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(b)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return text.Bytes()
	}
	join := func(sigs ...[]byte) []byte { return bytes.Join(sigs, nil) }
	for name, c := range map[string]struct {
		file []byte
		want error
	}{
		"binary":                {good, nil},
		"armored":               {armored("PGP SIGNATURE", good), nil},
		"after another's":       {join(foreign, good), nil},
		"before another's":      {join(good, foreign), nil},
		"another's":             {foreign, ErrUnknownKey},
		"of something else":     {join(foreign, wrong), ErrBad},
		"none":                  {nil, ErrMalformed},
		"armored as a message":  {armored("PGP MESSAGE", good), ErrMalformed},
		"cut":                   {join(good, good[:20]), ErrMalformed},
		"too many, good first":  {join(good, bytes.Repeat(foreign, MaxSignatures)), ErrMalformed},
		"too many, good last":   {join(bytes.Repeat(foreign, MaxSignatures), good), ErrUnknownKey},
		"just as many, and one": {join(bytes.Repeat(foreign, MaxSignatures-1), good), nil},
	} {
		if _, err := keys.VerifyFile(document, c.file, Policy{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
