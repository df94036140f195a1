package keyring

import (
	"bytes"
	"crypto"
	//lint:ignore SA1019 RPM packages of this century are signed with it
	"crypto/dsa"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"time"

	"diglim/internal/digest"
	"diglim/internal/rsaverify"
	"diglim/internal/wire"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// The ways in which a signature can fail to verify. Test with errors.Is.
var (
	ErrMalformed  = errors.New("malformed signature")
	ErrUnknownKey = errors.New("unknown key")
	ErrKeyNotGood = errors.New("key not good")
	ErrWeak       = errors.New("weak signature")
	ErrBad        = errors.New("signature does not match")
)

// maxSignature is the limit on a signature packet in bytes. The largest that
// RPM knows, an ML-DSA-87 hybrid, has some 5 KiB.
const maxSignature = 64 << 10

// A Policy says what Verify accepts beyond the usual. The zero Policy is the
// strict one.
type Policy struct {
	AllowWeak bool // MD5, SHA-1 and RIPEMD-160 signatures
}

// A Signer says who signed, and how. Only Verify makes one.
type Signer struct {
	KeyID       uint64    // of the key or subkey that signed
	Fingerprint string    // of that key, lower-case hex
	UserID      string    // of the primary key, as it says itself
	Source      string    // the file that the key came from
	Time        time.Time // of signing, as the signer says
	Hash        digest.Algorithm
	Version     int  // of the signature: 3, 4 or 6
	Weak        bool // only Policy.AllowWeak let it pass
}

// A signature is what is read of a signature packet before it is verified.
type signature struct {
	version  int
	kind     packet.SignatureType
	created  time.Time
	keyID    uint64
	keyAlgo  packet.PublicKeyAlgorithm
	hashAlgo crypto.Hash
	packet   *packet.Signature // version 4 and 6
	v3       *v3Signature      // version 3
}

// v3Signature is the rest of an OpenPGP version 3 signature (RFC 4880 section
// 5.2.2), which go-crypto does not read.
type v3Signature struct {
	hashed []byte   // type and creation time: what is hashed after the document
	left   []byte   // the digest's first two bytes
	mpis   [][]byte // RSA: m^d; DSA: r, s
}

// Verify checks a detached signature, one OpenPGP packet, over signed. The
// error wraps one of the Err values above; for ErrUnknownKey its text names
// the key id.
func (k *Keyring) Verify(signed, sig []byte, policy Policy) (Signer, error) {
	return k.verify(packet.SigTypeBinary, signed, sig, policy)
}

// VerifyText is Verify for the signature of a cleartext message, which is of
// type canonical text document (RFC 9580 sections 5.2.1.2 and 7). The text
// must be what such a signature is over: lines that end in CR LF, without the
// dashes that escape them, the white space at their ends, and the last CR LF.
func (k *Keyring) VerifyText(text, sig []byte, policy Policy) (Signer, error) {
	return k.verify(packet.SigTypeText, text, sig, policy)
}

// verify checks a signature that must be of that kind: what was signed as one
// thing is not to be passed off as another.
func (k *Keyring) verify(kind packet.SignatureType, signed, sig []byte, policy Policy) (Signer, error) {
	s, err := parseSignature(sig)
	if err != nil {
		return Signer{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if s.kind != kind {
		return Signer{}, fmt.Errorf("%w: type %#02x, must be %#02x", ErrMalformed, uint8(s.kind), uint8(kind))
	}
	alg, weak, err := hashAlgorithm(s.hashAlgo)
	if err != nil {
		return Signer{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if weak && !policy.AllowWeak {
		return Signer{}, fmt.Errorf("%w: %s, key %016x", ErrWeak, alg, s.keyID)
	}
	if !s.hashAlgo.Available() {
		return Signer{}, fmt.Errorf("%w: %s cannot be computed here", ErrWeak, alg)
	}
	candidates := k.candidates(s.keyID)
	if s.keyID == 0 || len(candidates) == 0 {
		return Signer{}, fmt.Errorf("%w %016x", ErrUnknownKey, s.keyID)
	}
	var failed error
	for _, e := range candidates {
		key, err := k.verifyWith(e, s, signed)
		if err == nil {
			return Signer{
				KeyID:       key.KeyId,
				Fingerprint: fmt.Sprintf("%x", key.Fingerprint),
				UserID:      userID(e),
				Source:      k.source[e],
				Time:        s.created,
				Hash:        alg,
				Version:     s.version,
				Weak:        weak,
			}, nil
		}
		// Of several keys with one id, the one whose signature it is says why not.
		if failed == nil || errors.Is(failed, ErrBad) {
			failed = err
		}
	}
	return Signer{}, fmt.Errorf("%w (key %016x)", failed, s.keyID)
}

func (k *Keyring) verifyWith(e *openpgp.Entity, s *signature, signed []byte) (*packet.PublicKey, error) {
	key, err := k.signingKey(e, s.keyID, s.created)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyNotGood, err)
	}
	if key.PubKeyAlgo != s.keyAlgo {
		return nil, fmt.Errorf("%w: made by another kind of key", ErrBad)
	}
	if s.v3 != nil {
		return key, k.verifyV3(key, s, signed)
	}
	if !s.packet.CheckKeyIdOrFingerprint(key) {
		return nil, fmt.Errorf("%w: names another fingerprint", ErrBad)
	}
	h, err := s.packet.PrepareVerify()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	h.Write(signed)
	if pub, ok := key.PublicKey.(*rsa.PublicKey); ok && key.CanSign() {
		h.Write(s.packet.HashSuffix)
		sum := h.Sum(nil)
		if s.version == 6 && !bytes.Equal(sum[:2], s.packet.HashTag[:]) { // RFC 9580 section 5.2.4
			return nil, fmt.Errorf("%w: the digest starts otherwise", ErrBad)
		}
		err = k.verifyRSA(pub, s.hashAlgo, sum, s.packet.RSASignature.Bytes())
	} else if err = key.VerifySignature(h, s.packet); err != nil {
		err = fmt.Errorf("%w: %w", ErrBad, err)
	}
	if err != nil {
		return nil, err
	}
	for _, n := range s.packet.Notations {
		if n.IsCritical {
			return nil, fmt.Errorf("%w: critical notation %q is not understood", ErrBad, n.Name)
		}
	}
	if s.packet.SigExpired(time.Now()) {
		return nil, fmt.Errorf("%w: it says of itself that it has expired", ErrBad)
	}
	return key, nil
}

// verifyV3 checks a version 3 signature: the digest is over the document, the
// signature type and the creation time.
func (k *Keyring) verifyV3(key *packet.PublicKey, s *signature, signed []byte) error {
	h := s.hashAlgo.New()
	h.Write(signed)
	h.Write(s.v3.hashed)
	sum := h.Sum(nil)
	if !bytes.Equal(sum[:2], s.v3.left) {
		return ErrBad
	}
	mpis := s.v3.mpis
	switch pub := key.PublicKey.(type) {
	case *rsa.PublicKey:
		if len(mpis) != 1 {
			return ErrBad
		}
		return k.verifyRSA(pub, s.hashAlgo, sum, mpis[0])
	case *dsa.PublicKey:
		if len(mpis) != 2 {
			return ErrBad
		}
		// FIPS 186-4 section 4.6: the leftmost bits, as many as q has
		sum = sum[:min(len(sum), (pub.Q.BitLen()+7)/8)]
		if !dsa.Verify(pub, sum, new(big.Int).SetBytes(mpis[0]), new(big.Int).SetBytes(mpis[1])) {
			return fmt.Errorf("%w: DSA", ErrBad)
		}
		return nil
	}
	return fmt.Errorf("%w: version 3 signatures are RSA or DSA", ErrBad)
}

// verifyRSA checks an RSA signature, an OpenPGP integer without its leading
// zeros, over a digest.
func (k *Keyring) verifyRSA(pub *rsa.PublicKey, hash crypto.Hash, sum, mpi []byte) error {
	key := k.rsaKey(pub)
	if len(mpi) > key.Size() {
		return fmt.Errorf("%w: RSA", ErrBad)
	}
	sig := make([]byte, key.Size())
	copy(sig[len(sig)-len(mpi):], mpi)
	if err := key.Verify(hash, sum, sig); err != nil {
		return fmt.Errorf("%w: RSA", ErrBad)
	}
	return nil
}

// rsaKey returns what verifying with a key needs, made ready when it is first
// used.
func (k *Keyring) rsaKey(pub *rsa.PublicKey) *rsaverify.Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := k.rsa[pub]
	if key == nil {
		if k.rsa == nil {
			k.rsa = make(map[*rsa.PublicKey]*rsaverify.Key)
		}
		key = rsaverify.New(pub)
		k.rsa[pub] = key
	}
	return key
}

func hashAlgorithm(h crypto.Hash) (alg digest.Algorithm, weak bool, err error) {
	switch h {
	case crypto.MD5:
		return digest.MD5, true, nil
	case crypto.SHA1:
		return digest.SHA1, true, nil
	case crypto.RIPEMD160:
		return digest.RIPEMD160, true, nil
	case crypto.SHA224:
		return digest.SHA224, false, nil
	case crypto.SHA256:
		return digest.SHA256, false, nil
	case crypto.SHA384:
		return digest.SHA384, false, nil
	case crypto.SHA512:
		return digest.SHA512, false, nil
	case crypto.SHA3_256:
		return digest.SHA3_256, false, nil
	case crypto.SHA3_512:
		return digest.SHA3_512, false, nil
	}
	return 0, false, fmt.Errorf("hash algorithm %d is not known", h)
}

// parseSignature reads exactly one signature packet.
func parseSignature(b []byte) (*signature, error) {
	if len(b) > maxSignature {
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(b), maxSignature)
	}
	body, err := packetBody(b)
	if err != nil {
		return nil, err
	}
	if len(body) > 0 && body[0] == 3 {
		return parseV3(body, int64(len(b)-len(body)))
	}
	p, err := packet.Read(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	sig, ok := p.(*packet.Signature)
	if !ok {
		return nil, errors.New("not a signature packet")
	}
	if sig.Version != 4 && sig.Version != 6 {
		return nil, fmt.Errorf("version %d is not known", sig.Version)
	}
	if sig.IssuerKeyId == nil {
		return nil, errors.New("names no issuer")
	}
	return &signature{
		version:  sig.Version,
		kind:     sig.SigType,
		created:  sig.CreationTime,
		keyID:    *sig.IssuerKeyId,
		keyAlgo:  sig.PubKeyAlgo,
		hashAlgo: sig.Hash,
		packet:   sig,
	}, nil
}

// packetBody returns the content of the one packet that b must be (RFC 9580
// section 4.2): a signature, of definite length, with nothing behind it.
func packetBody(b []byte) ([]byte, error) {
	const signatureTag = 2
	r := wire.New("OpenPGP packet", binary.BigEndian, b)
	tag := r.U8()
	var n uint32
	switch {
	case tag&0xc0 == 0xc0: // new format
		if tag&0x3f != signatureTag {
			r.FailAt(0, fmt.Errorf("packet type %d is not a signature", tag&0x3f))
		}
		first := uint32(r.U8())
		switch {
		case first < 192:
			n = first
		case first < 224:
			n = (first-192)<<8 + uint32(r.U8()) + 192
		case first == 255:
			n = r.U32()
		default:
			r.FailAt(1, errors.New("partial length"))
		}
	case tag&0xc0 == 0x80: // old format
		if tag>>2&0xf != signatureTag {
			r.FailAt(0, fmt.Errorf("packet type %d is not a signature", tag>>2&0xf))
		}
		switch tag & 3 {
		case 0:
			n = uint32(r.U8())
		case 1:
			n = uint32(r.U16())
		case 2:
			n = r.U32()
		default:
			r.FailAt(0, errors.New("indefinite length"))
		}
	default:
		r.FailAt(0, errors.New("not an OpenPGP packet"))
	}
	if r.Err() == nil && uint64(n) != uint64(r.Len()) {
		r.Failf("length %d, but %d bytes follow", n, r.Len())
	}
	body := r.Rest()
	return body, r.Finish()
}

// parseV3 reads the fixed layout of a version 3 signature body, which starts
// at byte base of the packet.
func parseV3(body []byte, base int64) (*signature, error) {
	r := wire.New("version 3 signature", binary.BigEndian, body).At(base)
	r.U8() // version
	if n := r.U8(); n != 5 {
		r.Failf("%d hashed bytes, must be 5", n)
	}
	hashed := r.Bytes(5)
	keyID := r.U64()
	keyAlgo := packet.PublicKeyAlgorithm(r.U8())
	hashID := r.U8()
	v3 := &v3Signature{hashed: hashed, left: r.Bytes(2)}
	for range mpiCount(keyAlgo) {
		bits := r.U16()
		v3.mpis = append(v3.mpis, r.Bytes((int(bits)+7)/8))
	}
	if mpiCount(keyAlgo) == 0 {
		r.Failf("public key algorithm %d is not RSA or DSA", keyAlgo)
	}
	if err := r.Finish(); err != nil {
		return nil, err
	}
	alg, err := digest.ByOpenPGP(hashID)
	if err != nil {
		return nil, err
	}
	hash := alg.Crypto()
	if alg == digest.RIPEMD160 {
		hash = crypto.RIPEMD160
	}
	return &signature{
		version:  3,
		kind:     packet.SignatureType(hashed[0]),
		created:  time.Unix(int64(binary.BigEndian.Uint32(hashed[1:])), 0),
		keyID:    keyID,
		keyAlgo:  keyAlgo,
		hashAlgo: hash,
		v3:       v3,
	}, nil
}

// mpiCount is how many integers a version 3 signature of that kind ends in.
func mpiCount(a packet.PublicKeyAlgorithm) int {
	switch a {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		return 1
	case packet.PubKeyAlgoDSA:
		return 2
	}
	return 0
}
