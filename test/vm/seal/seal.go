// Package seal keeps a secret in a TPM that comes out only while a PCR has a
// value: what people who unlock disks by a predicted PCR do.
package seal

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Seal seals a secret to a policy digest (SHA-256) under the storage root key,
// which the same TPM makes again at any time.
func Seal(t transport.TPM, policy, secret []byte) (blob []byte, err error) {
	srk, done, err := storageRoot(t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	r, err := tpm2.Create{
		ParentHandle: srk,
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type:             tpm2.TPMAlgKeyedHash,
			NameAlg:          tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true}, // no UserWithAuth: nothing but the policy opens it
			AuthPolicy:       tpm2.TPM2BDigest{Buffer: policy},
		}),
	}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return append(tpm2.Marshal(r.OutPublic), tpm2.Marshal(r.OutPrivate)...), nil
}

// Unseal returns the secret if a PCR of the SHA-256 bank has the value that it
// is sealed to.
func Unseal(t transport.TPM, blob []byte, pcr uint) (secret []byte, err error) {
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](blob)
	if err != nil {
		return nil, err
	}
	private, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](blob[len(tpm2.Marshal(*public)):])
	if err != nil {
		return nil, err
	}
	srk, done, err := storageRoot(t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	object, err := tpm2.Load{ParentHandle: srk, InPrivate: *private, InPublic: *public}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	defer func() { err = errors.Join(err, flush(t, object.ObjectHandle)) }()
	session, end, err := tpm2.PolicySession(t, tpm2.TPMAlgSHA256, 16)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: selection(pcr)}).Execute(t); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	r, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: session}}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	return r.OutData.Buffer, nil
}

func selection(pcr uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(pcr)},
	}}
}

func storageRoot(t transport.TPM) (h tpm2.NamedHandle, done func() error, err error) {
	r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
	if err != nil {
		return h, nil, fmt.Errorf("storage root key: %w", err)
	}
	return tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name}, func() error { return flush(t, r.ObjectHandle) }, nil
}

func flush(t transport.TPM, h tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(t)
	return err
}
