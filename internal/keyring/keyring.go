// Package keyring verifies OpenPGP signatures with keys that somebody chose to
// trust.
//
// The policy is one, and stated here. A key is judged at the time of signing:
// one that has expired since still vouches for what it signed before. Keys
// that are unknown, revoked (for whatever reason, and whenever), not meant for
// signing, or not yet made at that time refuse. So do signatures over MD5,
// SHA-1 and RIPEMD-160, unless Policy.AllowWeak; what such a signature
// verified is marked Weak. Signatures are OpenPGP version 3 (RSA, DSA), 4 and
// 6, of type binary document (RFC 9580 section 5.2.1.1) and no other; those of
// cleartext messages, which are of another type, have a function of their own.
//
// The zero Keyring trusts nothing.
package keyring

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"diglim/internal/rsaverify"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// Limits on what is read. The largest keyring of a distribution has some
// 100 KiB; the key with the most subkeys seen has 30.
const (
	maxFile    = 16 << 20 // bytes of a key file
	maxSubkeys = 200      // subkeys of a key; each costs time in every verification
	maxRSABits = 16384    // so does size
)

// A Keyring holds trusted keys. It is safe for concurrent use once loaded.
type Keyring struct {
	mu       sync.Mutex // guards the validity that the library caches in entities, and rsa
	entities []*openpgp.Entity
	source   map[*openpgp.Entity]string
	rsa      map[*rsa.PublicKey]*rsaverify.Key // those that have verified something

	// Skipped says which files below a directory hold no key, which keys are
	// not usable, and why.
	Skipped []error
}

// keyPolicy is what go-crypto demands of keys. Self-signatures over SHA-1 are
// accepted: most distributions' keys of the last twenty years have no other,
// and forging one takes a second preimage.
var keyPolicy = packet.Config{
	MinRSABits:                1023,
	RejectPublicKeyAlgorithms: map[packet.PublicKeyAlgorithm]bool{packet.PubKeyAlgoElGamal: true},
}

// flaglessPolicy is keyPolicy for primary keys without key flags, which may be
// used for anything (RFC 4880 section 5.2.3.21).
var flaglessPolicy = packet.Config{
	MinRSABits:                          keyPolicy.MinRSABits,
	RejectPublicKeyAlgorithms:           keyPolicy.RejectPublicKeyAlgorithms,
	InsecureAllowAllKeyFlagsWhenMissing: true,
}

// Load reads keys, armored or binary, from files and from all files below
// directories. A file that is named and holds no key is an error; below a
// directory it goes to Skipped. A keyring without any key is an error.
func Load(paths ...string) (*Keyring, error) {
	k := &Keyring{}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			if err := k.addFile(path); err != nil {
				return nil, err
			}
			continue
		}
		// With a separator behind it a link to a directory is followed.
		err = filepath.WalkDir(path+string(filepath.Separator), func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if err := k.addFile(name); err != nil {
				k.Skipped = append(k.Skipped, err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(k.entities) == 0 {
		return nil, fmt.Errorf("no OpenPGP key in %s", strings.Join(paths, ", "))
	}
	return k, nil
}

func (k *Keyring) addFile(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for a writer
		return fmt.Errorf("%s: not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(data) > maxFile {
		return fmt.Errorf("%s: more than %d bytes", name, maxFile)
	}
	return k.Add(name, data)
}

// Add adds the keys in data, armored (any number of blocks) or binary. The
// source appears in what Verify and Keys return.
func (k *Keyring) Add(source string, data []byte) error {
	blocks, err := dearmor(data)
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	var added int
	for _, block := range blocks {
		entities, err := openpgp.ReadKeyRing(bytes.NewReader(block))
		if err != nil {
			return fmt.Errorf("%s: %w", source, err)
		}
		for _, e := range entities {
			if err := acceptable(e); err != nil {
				k.Skipped = append(k.Skipped, fmt.Errorf("%s: key %016x: %w", source, e.PrimaryKey.KeyId, err))
				continue
			}
			k.merge(source, e)
			added++
		}
	}
	if added == 0 {
		return fmt.Errorf("%s: no OpenPGP public key", source)
	}
	return nil
}

var armorStart = []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----")

// dearmor returns the binary content of every armored block, or data itself
// where there is none. The library reads one block and stops.
func dearmor(data []byte) ([][]byte, error) {
	at := bytes.Index(data, armorStart)
	if at < 0 {
		return [][]byte{data}, nil
	}
	var blocks [][]byte
	for part := range bytes.SplitSeq(data[at+len(armorStart):], armorStart) {
		block, err := armor.Decode(io.MultiReader(bytes.NewReader(armorStart), bytes.NewReader(part)))
		if err != nil {
			return nil, fmt.Errorf("armor: %w", err)
		}
		b, err := io.ReadAll(block.Body)
		if err != nil {
			return nil, fmt.Errorf("armor: %w", err)
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

func acceptable(e *openpgp.Entity) error {
	if len(e.Subkeys) > maxSubkeys {
		return fmt.Errorf("%d subkeys, the limit is %d", len(e.Subkeys), maxSubkeys)
	}
	for _, pk := range publicKeys(e) {
		if key, ok := pk.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
			return fmt.Errorf("RSA with %d bits, the limit is %d", key.N.BitLen(), maxRSABits)
		}
	}
	return nil
}

func publicKeys(e *openpgp.Entity) []*packet.PublicKey {
	keys := []*packet.PublicKey{e.PrimaryKey}
	for _, s := range e.Subkeys {
		keys = append(keys, s.PublicKey)
	}
	return keys
}

// merge adds an entity, or adds what it says to the one that is the same key:
// a revocation counts in whichever of two files it stands.
func (k *Keyring) merge(source string, e *openpgp.Entity) {
	i := slices.IndexFunc(k.entities, func(o *openpgp.Entity) bool {
		return bytes.Equal(o.PrimaryKey.Fingerprint, e.PrimaryKey.Fingerprint)
	})
	if i < 0 {
		if k.source == nil {
			k.source = make(map[*openpgp.Entity]string)
		}
		k.entities = append(k.entities, e)
		k.source[e] = source
		return
	}
	old := k.entities[i]
	old.Revocations = append(old.Revocations, e.Revocations...)
	old.DirectSignatures = append(old.DirectSignatures, e.DirectSignatures...)
	for name, id := range e.Identities {
		if same := old.Identities[name]; same != nil {
			same.SelfCertifications = append(same.SelfCertifications, id.SelfCertifications...)
			same.Revocations = append(same.Revocations, id.Revocations...)
			continue
		}
		id.Primary = old
		old.Identities[name] = id
	}
	for _, sub := range e.Subkeys {
		j := slices.IndexFunc(old.Subkeys, func(o openpgp.Subkey) bool {
			return bytes.Equal(o.PublicKey.Fingerprint, sub.PublicKey.Fingerprint)
		})
		if j < 0 {
			sub.Primary = old
			old.Subkeys = append(old.Subkeys, sub)
			continue
		}
		old.Subkeys[j].Bindings = append(old.Subkeys[j].Bindings, sub.Bindings...)
		old.Subkeys[j].Revocations = append(old.Subkeys[j].Revocations, sub.Revocations...)
	}
}

// Len is the number of primary keys.
func (k *Keyring) Len() int { return len(k.entities) }

// candidates returns the keys, primary or sub, with that key id. There can be
// several: 64 bits are too few to name a key by.
func (k *Keyring) candidates(id uint64) []*openpgp.Entity {
	var found []*openpgp.Entity
	for _, e := range k.entities {
		if slices.ContainsFunc(publicKeys(e), func(pk *packet.PublicKey) bool { return pk.KeyId == id }) {
			found = append(found, e)
		}
	}
	return found
}

// endOfTime is the last moment that OpenPGP can name. A key that is revoked
// then is revoked: the library takes the softer reasons (superseded, retired)
// to count from their date on, but a date is only what its signer says it is.
var endOfTime = time.Unix(math.MaxUint32, 0)

// signingKey returns the key of e with that id, if it was good for signing at
// that time, and otherwise says why not.
func (k *Keyring) signingKey(e *openpgp.Entity, id uint64, signed time.Time) (*packet.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := signed
	if first := firstBound(e, id); first.After(at) {
		// A key that was exported with its newest self-signature only, made after
		// this signature: the oldest statement about the key that there is decides.
		at = first
	}
	if e.Revoked(endOfTime) {
		return nil, errors.New("revoked")
	}
	for _, s := range e.Subkeys {
		if s.PublicKey.KeyId == id && s.Revoked(nil, endOfTime) {
			return nil, errors.New("subkey revoked")
		}
	}
	key, ok := e.SigningKeyById(at, id, &keyPolicy)
	if !ok && id == e.PrimaryKey.KeyId {
		// Keys of the time before key flags say nothing of what they are for. A
		// subkey has to: only then does it prove that it wants to be one.
		key, ok = e.SigningKeyById(at, id, &flaglessPolicy)
	}
	if ok {
		if key.PublicKey.CreationTime.After(signed) {
			return nil, errors.New("made after the signature")
		}
		return key.PublicKey, nil
	}
	return nil, whyNot(e, id, at)
}

// firstBound is when the first self-signature of the key came into being.
func firstBound(e *openpgp.Entity, id uint64) time.Time {
	oldest := func(t time.Time, sigs []*packet.VerifiableSignature) time.Time {
		for _, s := range sigs {
			if t.IsZero() || s.Packet.CreationTime.Before(t) {
				t = s.Packet.CreationTime
			}
		}
		return t
	}
	var primary, binding time.Time
	for _, identity := range e.Identities {
		primary = oldest(primary, identity.SelfCertifications)
	}
	if e.PrimaryKey.Version == 6 {
		primary = oldest(primary, e.DirectSignatures)
	}
	for _, s := range e.Subkeys {
		if s.PublicKey.KeyId == id {
			binding = oldest(binding, s.Bindings)
		}
	}
	if binding.After(primary) {
		return binding
	}
	return primary
}

func whyNot(e *openpgp.Entity, id uint64, at time.Time) error {
	if _, err := e.VerifyPrimaryKey(at, &keyPolicy); err != nil {
		return err
	}
	for _, s := range e.Subkeys {
		if s.PublicKey.KeyId == id {
			if _, err := s.Verify(at, &keyPolicy); err != nil {
				return fmt.Errorf("subkey: %w", err)
			}
		}
	}
	return errors.New("not for signing")
}

// userID is the name to call a key by: the first of its user ids.
func userID(e *openpgp.Entity) string {
	var names []string
	for name := range e.Identities {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) == 0 {
		return ""
	}
	return names[0]
}
