package keyring

import (
	"errors"
	"fmt"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// A KeyInfo says what there is to know of a key or a subkey of a keyring.
type KeyInfo struct {
	KeyID       uint64
	Fingerprint string // lower-case hex
	Primary     string // fingerprint of the primary key of a subkey; "" if it is one itself
	UserID      string // of the primary key, as it says itself
	Source      string // the file that it came from
	Version     int
	Algorithm   string // with its size or curve, "RSA-4096"
	Created     time.Time
	Expires     time.Time // by its newest self-signature; zero if it never does
	Revoked     bool      // or the primary key is

	// Unfit is nil if a signature made at the time asked about would be taken.
	Unfit error
	// Earlier says that some signatures made before then are taken: the key has
	// expired since.
	Earlier bool
}

// Keys describes all keys, in the order in which they were added, each primary
// key before its subkeys, as they are to be judged at that time.
func (k *Keyring) Keys(at time.Time) []KeyInfo {
	var infos []KeyInfo
	for _, e := range k.entities {
		for i, pk := range publicKeys(e) {
			info := KeyInfo{
				KeyID:       pk.KeyId,
				Fingerprint: fmt.Sprintf("%x", pk.Fingerprint),
				UserID:      userID(e),
				Source:      k.source[e],
				Version:     pk.Version,
				Algorithm:   algorithmName(pk),
				Created:     pk.CreationTime,
			}
			if i > 0 {
				info.Primary = fmt.Sprintf("%x", e.PrimaryKey.Fingerprint)
			}
			info.Expires, info.Revoked = k.lifetime(e, i-1)
			info.Unfit = k.fit(e, pk, at)
			if info.Unfit != nil {
				first := firstBound(e, pk.KeyId)
				info.Earlier = first.Before(at) && k.fit(e, pk, first) == nil
			}
			infos = append(infos, info)
		}
	}
	return infos
}

// fit returns nil if a signature that the key makes at that time would be
// taken.
func (k *Keyring) fit(e *openpgp.Entity, pk *packet.PublicKey, at time.Time) error {
	if !pk.CanSign() {
		return errors.New("not for signing")
	}
	if at.Before(pk.CreationTime) {
		return errors.New("made later")
	}
	found, err := k.signingKey(e, pk.KeyId, at)
	if err == nil && found != pk {
		return errors.New("another key of the same owner has its key id")
	}
	return err
}

// lifetime returns when the primary key of e (-1) or a subkey expires, the
// subkey at the latest with the primary key, and whether it is revoked.
func (k *Keyring) lifetime(e *openpgp.Entity, subkey int) (expires time.Time, revoked bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	revoked = e.Revoked(endOfTime)
	if sig, err := e.PrimarySelfSignature(time.Time{}, &keyPolicy); err == nil {
		expires = expiry(e.PrimaryKey, sig)
	}
	if subkey < 0 {
		return expires, revoked
	}
	s := &e.Subkeys[subkey]
	if sig, err := s.LatestValidBindingSignature(time.Time{}, &keyPolicy); err == nil {
		if own := expiry(s.PublicKey, sig); expires.IsZero() || !own.IsZero() && own.Before(expires) {
			expires = own
		}
	}
	return expires, revoked || s.Revoked(nil, endOfTime)
}

func expiry(pk *packet.PublicKey, sig *packet.Signature) time.Time {
	if sig.KeyLifetimeSecs == nil || *sig.KeyLifetimeSecs == 0 {
		return time.Time{}
	}
	return pk.CreationTime.Add(time.Duration(*sig.KeyLifetimeSecs) * time.Second)
}

// algorithmName is the algorithm with what says how strong it is.
func algorithmName(pk *packet.PublicKey) string {
	switch pk.PubKeyAlgo {
	case packet.PubKeyAlgoECDSA, packet.PubKeyAlgoECDH, packet.PubKeyAlgoEdDSA:
		name := map[packet.PublicKeyAlgorithm]string{
			packet.PubKeyAlgoECDSA: "ECDSA", packet.PubKeyAlgoECDH: "ECDH", packet.PubKeyAlgoEdDSA: "EdDSA"}[pk.PubKeyAlgo]
		curve, err := pk.Curve()
		if err != nil {
			return name
		}
		return name + " " + string(curve)
	case packet.PubKeyAlgoX25519:
		return "X25519"
	case packet.PubKeyAlgoX448:
		return "X448"
	case packet.PubKeyAlgoEd25519:
		return "Ed25519"
	case packet.PubKeyAlgoEd448:
		return "Ed448"
	case packet.PubKeyAlgoMldsa65Ed25519:
		return "ML-DSA-65+Ed25519"
	case packet.PubKeyAlgoMldsa87Ed448:
		return "ML-DSA-87+Ed448"
	case packet.PubKeyAlgoMlkem768X25519:
		return "ML-KEM-768+X25519"
	case packet.PubKeyAlgoMlkem1024X448:
		return "ML-KEM-1024+X448"
	}
	name := map[packet.PublicKeyAlgorithm]string{
		packet.PubKeyAlgoRSA: "RSA", packet.PubKeyAlgoRSAEncryptOnly: "RSA", packet.PubKeyAlgoRSASignOnly: "RSA",
		packet.PubKeyAlgoDSA: "DSA", packet.PubKeyAlgoElGamal: "ElGamal"}[pk.PubKeyAlgo]
	bits, err := pk.BitLength()
	if err != nil || name == "" {
		return fmt.Sprintf("algorithm %d", pk.PubKeyAlgo)
	}
	return fmt.Sprintf("%s-%d", name, bits)
}
