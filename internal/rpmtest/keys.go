package rpmtest

import (
	"bytes"
	"crypto"
	//lint:ignore SA1019 what old packages are signed with
	"crypto/dsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"math/big"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// Made is when the keys of this package were made.
var Made = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// Config is what keys are made and used with at some time. A nil change is
// fine.
func Config(at time.Time, change func(*packet.Config)) *packet.Config {
	c := &packet.Config{Time: func() time.Time { return at }, RSABits: 2048, DefaultHash: crypto.SHA256}
	if change != nil {
		change(c)
	}
	return c
}

// NewKey makes a key: RSA-2048, unless change says otherwise.
func NewKey(t testing.TB, name string, change func(*packet.Config)) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity(name, "", name+"@example.org", Config(Made, change))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Ed25519 asks NewKey for an Ed25519 key.
func Ed25519(c *packet.Config) { c.Algorithm = packet.PubKeyAlgoEdDSA }

// V6 asks NewKey for a version 6 Ed25519 key.
func V6(c *packet.Config) { c.Algorithm, c.V6Keys = packet.PubKeyAlgoEd25519, true }

// Public returns a key's public half, binary.
func Public(t testing.TB, e *openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Sign makes a detached signature at some time after Made.
func Sign(t testing.TB, e *openpgp.Entity, data []byte, at time.Time, change func(*packet.Config)) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := openpgp.DetachSign(&b, []*openpgp.Entity{e}, bytes.NewReader(data), Config(at, change)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// SignV3 makes a version 3 signature, which no OpenPGP library makes any more.
// The key is *rsa.PrivateKey or *dsa.PrivateKey.
func SignV3(t testing.TB, key any, id uint64, data []byte, at time.Time, hash crypto.Hash, openpgpHash byte) []byte {
	t.Helper()
	hashed := binary.BigEndian.AppendUint32([]byte{0}, uint32(at.Unix()))
	h := hash.New()
	h.Write(data)
	h.Write(hashed)
	sum := h.Sum(nil)
	var algo byte
	var mpis []*big.Int
	switch k := key.(type) {
	case *rsa.PrivateKey:
		algo = 1
		sig, err := rsa.SignPKCS1v15(rand.Reader, k, hash, sum)
		if err != nil {
			t.Fatal(err)
		}
		mpis = []*big.Int{new(big.Int).SetBytes(sig)}
	case *dsa.PrivateKey:
		algo = 17
		r, s, err := dsa.Sign(rand.Reader, k, sum[:min(len(sum), (k.Q.BitLen()+7)/8)])
		if err != nil {
			t.Fatal(err)
		}
		mpis = []*big.Int{r, s}
	default:
		t.Fatalf("no version 3 signatures with %T", key)
	}
	body := append([]byte{3, 5}, hashed...)
	body = binary.BigEndian.AppendUint64(body, id)
	body = append(body, algo, openpgpHash, sum[0], sum[1])
	for _, m := range mpis {
		body = binary.BigEndian.AppendUint16(body, uint16(m.BitLen()))
		body = append(body, m.Bytes()...)
	}
	return append(binary.BigEndian.AppendUint16([]byte{0x89}, uint16(len(body))), body...)
}
