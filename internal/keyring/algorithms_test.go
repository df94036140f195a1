package keyring

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/internal/rpmtest"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// largeRSA makes an RSA key of that size in a bearable time: of many primes.
func largeRSA(t testing.TB, bits int) *openpgp.Entity {
	t.Helper()
	//lint:ignore SA1019 two primes of that size take a minute to find
	key, err := rsa.GenerateMultiPrimeKey(rand.Reader, bits/1024, bits)
	if err != nil {
		t.Fatal(err)
	}
	priv := packet.NewRSAPrivateKey(rpmtest.Made, key)
	e := &openpgp.Entity{PrimaryKey: &priv.PublicKey, PrivateKey: priv, Identities: map[string]*openpgp.Identity{}}
	if err := e.AddUserId("large", "", "large@example.org", rpmtest.Config(rpmtest.Made, nil)); err != nil {
		t.Fatal(err)
	}
	return e
}

// Every kind of key that packages are signed with, and those to come.
func TestAlgorithms(t *testing.T) {
	ecdsa := func(curve packet.Curve) func(*packet.Config) {
		return func(c *packet.Config) { c.Algorithm, c.Curve = packet.PubKeyAlgoECDSA, curve }
	}
	mldsa := func(a packet.PublicKeyAlgorithm, h crypto.Hash) func(*packet.Config) {
		return func(c *packet.Config) { c.Algorithm, c.V6Keys, c.DefaultHash = a, true, h }
	}
	bits := func(n uint16) func(*packet.Config) {
		return func(c *packet.Config) { c.RSABits, c.MinRSABits = int(n), n }
	}
	dsa := func(c *packet.Config) {
		c.RejectPublicKeyAlgorithms = map[packet.PublicKeyAlgorithm]bool{packet.PubKeyAlgoElGamal: true}
	}
	for name, c := range map[string]struct {
		change  func(*packet.Config)
		key     *openpgp.Entity
		hash    digest.Algorithm
		version int
	}{
		"RSA-1024":            {bits(1024), nil, digest.SHA256, 4},
		"RSA-3072":            {bits(3072), nil, digest.SHA256, 4},
		"RSA-8192":            {nil, largeRSA(t, 8192), digest.SHA256, 4},
		"DSA-1024":            {dsa, dsaKey(t), digest.SHA256, 4},
		"ECDSA P-256":         {ecdsa(packet.CurveNistP256), nil, digest.SHA256, 4},
		"ECDSA P-384":         {ecdsa(packet.CurveNistP384), nil, digest.SHA384, 4},
		"ECDSA P-521":         {ecdsa(packet.CurveNistP521), nil, digest.SHA512, 4},
		"Ed25519":             {rpmtest.V6, nil, digest.SHA256, 6},
		"Ed448":               {func(c *packet.Config) { c.Algorithm, c.V6Keys = packet.PubKeyAlgoEd448, true }, nil, digest.SHA512, 6},
		"RSA-2048, version 6": {func(c *packet.Config) { c.V6Keys = true }, nil, digest.SHA256, 6},
		"ML-DSA-65+Ed25519":   {mldsa(packet.PubKeyAlgoMldsa65Ed25519, crypto.SHA3_256), nil, digest.SHA3_256, 6},
		"ML-DSA-87+Ed448":     {mldsa(packet.PubKeyAlgoMldsa87Ed448, crypto.SHA3_512), nil, digest.SHA3_512, 6},
	} {
		t.Run(name, func(t *testing.T) {
			key := c.key
			if key == nil {
				key = rpmtest.NewKey(t, "key", c.change)
			}
			sig := rpmtest.Sign(t, key, document, signedAt, c.change)
			keys := ring(t, key)
			s, err := keys.Verify(document, sig, Policy{})
			if err != nil {
				t.Fatal(err)
			}
			if s.Hash != c.hash || s.Version != c.version || s.Weak {
				t.Errorf("Signer = %+v", s)
			}
			if _, err := keys.Verify(document[1:], sig, Policy{}); !errors.Is(err, ErrBad) {
				t.Errorf("another document: %v", err)
			}
			sig[len(sig)-1] ^= 1
			if _, err := keys.Verify(document, sig, Policy{}); !errors.Is(err, ErrBad) {
				t.Errorf("another signature: %v", err)
			}
		})
	}
}

// collide gives a key the key id of another. Finding such a key takes 2^32
// attempts or so, and has been done for rpm's tests.
func collide(e *openpgp.Entity, id uint64) *openpgp.Entity {
	e.PrimaryKey.KeyId = id
	return e
}

// Two keys have one 64-bit id: the one that signed is found, the other is not
// mistaken for it, and what is wrong with either does not rub off.
func TestKeyIDCollision(t *testing.T) {
	a, b, c := rpmtest.NewKey(t, "a", nil), rpmtest.NewKey(t, "b", nil), rpmtest.NewKey(t, "c", nil)
	id := a.PrimaryKey.KeyId
	v3 := func(e *openpgp.Entity) []byte {
		return rpmtest.SignV3(t, rsaKey(e), id, document, signedAt, crypto.SHA256, 8)
	}
	sigs := map[string][]byte{"version 4": rpmtest.Sign(t, a, document, signedAt, nil), "version 3": v3(a)}
	for _, order := range [][]*openpgp.Entity{{a, b}, {b, a}} {
		keys := ring(t, order...)
		for _, e := range keys.entities {
			collide(e, id)
		}
		for name, sig := range sigs {
			s, err := keys.Verify(document, sig, Policy{})
			if err != nil || s.Fingerprint != fmt.Sprintf("%x", a.PrimaryKey.Fingerprint) {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
			if _, err := keys.Verify(document[1:], sig, Policy{}); !errors.Is(err, ErrBad) {
				t.Errorf("%s, another document: %v", name, err)
			}
		}
		if s, err := keys.Verify(document, v3(b), Policy{}); err != nil || s.Fingerprint != fmt.Sprintf("%x", b.PrimaryKey.Fingerprint) {
			t.Errorf("the other one's: %+v, %v", s, err)
		}
		if s, err := keys.Verify(document, v3(c), Policy{}); !errors.Is(err, ErrBad) {
			t.Errorf("neither's: %+v, %v", s, err)
		}
	}
	if err := b.Revoke(packet.KeyCompromised, "", rpmtest.Config(signedAt, nil)); err != nil {
		t.Fatal(err)
	}
	for _, order := range [][]*openpgp.Entity{{a, b}, {b, a}} {
		keys := ring(t, order...)
		for _, e := range keys.entities {
			collide(e, id)
		}
		if _, err := keys.Verify(document, sigs["version 3"], Policy{}); err != nil {
			t.Errorf("beside a revoked key: %v", err)
		}
		// whose signature it is cannot be told: the revoked key is not asked
		if s, err := keys.Verify(document, v3(b), Policy{}); err == nil {
			t.Errorf("of the revoked key: %+v", s)
		}
	}
}

// A key takes another's signing key for its subkey. Without that key's word
// for it (the primary key binding, RFC 9580 section 5.2.1.9), or with no
// binding at all, what the other signs is not the key's.
func TestSubkeyOfAnother(t *testing.T) {
	victim := rpmtest.NewKey(t, "victim", nil)
	sig := rpmtest.Sign(t, victim, document, signedAt, nil)
	v3 := rpmtest.SignV3(t, rsaKey(victim), victim.PrimaryKey.KeyId, document, signedAt, crypto.SHA256, 8)
	stolen := *victim.PrimaryKey
	stolen.IsSubkey = true
	for name, bind := range map[string]func(attacker *openpgp.Entity, s *packet.Signature){
		"bound by one side": func(attacker *openpgp.Entity, s *packet.Signature) {},
		"with another's word": func(attacker *openpgp.Entity, s *packet.Signature) {
			// the attacker's primary key speaks for the stolen one
			s.EmbeddedSignature = &packet.Signature{Version: 4, SigType: packet.SigTypePrimaryKeyBinding, PubKeyAlgo: packet.PubKeyAlgoRSA,
				Hash: crypto.SHA256, CreationTime: rpmtest.Made, IssuerKeyId: &attacker.PrimaryKey.KeyId}
			if err := s.EmbeddedSignature.CrossSignKey(&stolen, attacker.PrimaryKey, attacker.PrivateKey, rpmtest.Config(rpmtest.Made, nil)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		attacker := rpmtest.NewKey(t, "attacker", nil)
		s := &packet.Signature{Version: 4, SigType: packet.SigTypeSubkeyBinding, PubKeyAlgo: packet.PubKeyAlgoRSA, Hash: crypto.SHA256,
			CreationTime: rpmtest.Made, IssuerKeyId: &attacker.PrimaryKey.KeyId, FlagsValid: true, FlagSign: true}
		bind(attacker, s)
		if err := s.SignKey(&stolen, attacker.PrivateKey, rpmtest.Config(rpmtest.Made, nil)); err != nil {
			t.Fatal(err)
		}
		attacker.Subkeys = []openpgp.Subkey{{PublicKey: &stolen, Bindings: []*packet.VerifiableSignature{packet.NewVerifiableSig(s)}, Primary: attacker}}
		alone := ring(t, attacker)
		if len(alone.entities[0].Subkeys) != 1 {
			t.Fatalf("%s: the key has %d subkeys", name, len(alone.entities[0].Subkeys))
		}
		for _, sig := range [][]byte{sig, v3} {
			if s, err := alone.Verify(document, sig, Policy{}); !errors.Is(err, ErrKeyNotGood) {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
			for _, order := range [][]*openpgp.Entity{{attacker, victim}, {victim, attacker}} {
				s, err := ring(t, order...).Verify(document, sig, Policy{})
				if err != nil || !strings.HasPrefix(s.UserID, "victim") {
					t.Errorf("%s, beside the victim: %+v, %v", name, s, err)
				}
			}
		}
	}
}

// Keys that were made to fool rpm: none of their additions signs anything.
func TestKeysOfCVE(t *testing.T) {
	const primary = 0x4344591e1964c5fc
	for file, trusted := range map[string]bool{
		"rpm__CVE-2021-3521-baduser.asc":       false, // its user id is bound by nothing
		"rpm__CVE-2021-3521-nosubsig.asc":      true,  // its subkey is bound by nothing
		"rpm__CVE-2021-3521-nosubsig-last.asc": true,
		"rpm__type-confusion.asc":              true,
		"rpm__keyidcollision1.pub":             true,
	} {
		keys, err := Load(corpus.Path(t, "keys", "test", file))
		if err != nil {
			if trusted {
				t.Errorf("%s: %v", file, err)
			}
			continue
		}
		for _, e := range keys.entities {
			for _, pk := range publicKeys(e) {
				_, err := keys.signingKey(e, pk.KeyId, rpmtest.Made.AddDate(5, 0, 0))
				if want := trusted && pk == e.PrimaryKey; (err == nil) != want {
					t.Errorf("%s: %016x: %v", file, pk.KeyId, err)
				}
			}
		}
		if keys.Len() != 1 || file != "rpm__keyidcollision1.pub" && keys.entities[0].PrimaryKey.KeyId != primary {
			t.Errorf("%s: %d keys", file, keys.Len())
		}
	}
}

// What Keys says of a key is what Verify does with it.
func TestKeys(t *testing.T) {
	year := func(c *packet.Config) { c.KeyLifetimeSecs = 365 * 24 * 3600 }
	good, expired, revoked, six := rpmtest.NewKey(t, "good", nil), rpmtest.NewKey(t, "expired", year), rpmtest.NewKey(t, "revoked", nil), rpmtest.NewKey(t, "six", rpmtest.V6)
	if err := good.AddSigningSubkey(rpmtest.Config(rpmtest.Made, rpmtest.Ed25519)); err != nil {
		t.Fatal(err)
	}
	if err := revoked.Revoke(packet.KeyRetired, "", rpmtest.Config(signedAt, nil)); err != nil {
		t.Fatal(err)
	}
	now := rpmtest.Made.AddDate(3, 0, 0)
	type state struct {
		user, algorithm string
		version         int
		subkey, fit     bool
		earlier         bool
		revoked         bool
		expires         string
	}
	want := []state{
		{"good", "RSA-2048", 4, false, true, false, false, ""},
		{"good", "RSA-2048", 4, true, false, false, false, ""}, // for encryption
		{"good", "EdDSA Curve25519", 4, true, true, false, false, ""},
		{"expired", "RSA-2048", 4, false, false, true, false, "2020-12-31"},
		{"expired", "RSA-2048", 4, true, false, false, false, "2020-12-31"},
		{"revoked", "RSA-2048", 4, false, false, false, true, ""},
		{"revoked", "RSA-2048", 4, true, false, false, true, ""},
		{"six", "Ed25519", 6, false, true, false, false, ""},
		{"six", "X25519", 6, true, false, false, false, ""},
	}
	var got []state
	for _, k := range ring(t, good, expired, revoked, six).Keys(now) {
		s := state{strings.Fields(k.UserID)[0], k.Algorithm, k.Version, k.Primary != "", k.Unfit == nil, k.Earlier, k.Revoked, ""}
		if !k.Expires.IsZero() {
			s.expires = k.Expires.Format("2006-01-02")
		}
		if k.Source != "test" || !k.Created.Equal(rpmtest.Made) || !strings.HasSuffix(k.Fingerprint, fmt.Sprintf("%016x", k.KeyID)) && k.Version == 4 {
			t.Errorf("%+v", k)
		}
		got = append(got, s)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for _, k := range ring(t, good).Keys(rpmtest.Made.AddDate(-1, 0, 0)) {
		if k.Unfit == nil || k.Earlier {
			t.Errorf("before it was made: %+v", k)
		}
	}
}
