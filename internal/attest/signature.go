package attest

import (
	"crypto/x509"
	"fmt"

	"diglim/internal/cms"
	"diglim/internal/digest"
	"diglim/internal/policy"
	"diglim/tpm/imalog"
)

// signer is the key of the policy that signed the file which e is about: one of
// e's signatures is the key's, over what e itself says. It is nil if there is
// none. What a signature says of its key narrows down which are tried, and no
// more.
func (r *reading) signer(e *imalog.Entry) *policy.Signer {
	if len(r.policy.Signers) == 0 || r.refused == maxRefused {
		return nil
	}
	tried := false
	for _, s := range signatures(e) {
		for _, d := range s.Covers(e) {
			for _, k := range r.policy.Signers {
				if !k.Called(s.KeyID) {
					continue
				}
				if k.Verify(d, s.Value) {
					return k
				}
				tried = true
			}
		}
	}
	if k := r.appender(e); k != nil {
		return k
	}
	if tried || len(e.Appended) > 0 {
		r.refused++
	}
	return nil
}

// maxRefused is how many entries of a log may have signatures that were verified
// and are not what they say, until none is verified any more: it takes a hundred
// times as long as all else that is done about an entry, and on P-521 thousands.
const maxRefused = 1_000

// appender is signer for the signature that is appended to the file.
func (r *reading) appender(e *imalog.Entry) *policy.Signer {
	// No hash covers the name of a template. Under another one, what somebody put
	// into an attribute could stand for the digest of the file without signature.
	if e.Template != "ima-modsig" || len(e.Appended) == 0 {
		return nil
	}
	hash, value, err := cms.Value(e.Appended)
	if err != nil || e.Unsigned.Algorithm().Crypto() != hash {
		return nil
	}
	for _, k := range r.policy.Signers {
		if k.Verify(e.Unsigned, value) {
			return k
		}
	}
	return nil
}

// signatures are those in attributes.
func signatures(e *imalog.Entry) (all []imalog.Signature) {
	for _, attribute := range [][]byte{e.Signature, e.EVM} {
		if len(attribute) == 0 {
			continue
		}
		if s, err := imalog.ParseSignature(attribute); err == nil {
			all = append(all, s)
		}
	}
	return all
}

// whose says what is to be said of the signature in an entry whose file none of
// the policy's keys signed; nothing if there is none.
func (r *reading) whose(e *imalog.Entry) string {
	if r.refused == maxRefused {
		return "; so many signatures before it are not what they say that it was not looked at"
	}
	for _, s := range signatures(e) {
		why := fmt.Sprintf("; its %s signature says that it is by key %08x, ", s.Kind, s.KeyID)
		for _, k := range r.policy.Signers {
			if !k.Called(s.KeyID) {
				continue
			}
			if len(s.Covers(e)) == 0 {
				return why + "and the entry does not say what it is over"
			}
			return why + "and is not by that one over this file"
		}
		return why + "which the policy does not have"
	}
	if len(e.Appended) > 0 {
		return "; its appended signature is not by a key of the policy"
	}
	return ""
}

// loadedKey is the certificate in an entry about a key that was loaded into a
// keyring (func=KEY_CHECK), or nil if it is about something else. That it was
// loaded says nothing for it.
func loadedKey(e *imalog.Entry) *x509.Certificate {
	// No hash covers the name of a template: another field could stand where the
	// buffer is.
	alg := e.Digest.Algorithm()
	if len(e.Buffer) == 0 || !alg.Available() || digest.Sum(alg, e.Buffer) != e.Digest {
		return nil
	}
	cert, err := x509.ParseCertificate(e.Buffer)
	if err != nil {
		return nil
	}
	return cert
}

// keyOf is the key of the policy that is in a certificate, or nil.
func (j *judge) keyOf(cert *x509.Certificate) *policy.Signer {
	if cert != nil {
		for _, k := range j.policy.Signers {
			if k.Is(cert.PublicKey) {
				return k
			}
		}
	}
	return nil
}
