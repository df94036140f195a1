package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/tpm"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// quoteTries is how often a PCR may change between a quote and the reading of
// the values before collect gives up.
const quoteTries = 10

// quotes are quotes of one key, in the form of their files.
type quotes struct {
	public, pem []byte // of the key
	each        []quoted
}

type quoted struct {
	attest, signature, values []byte
}

// quote has the TPM quote each of the selections, with one key. The values that
// it returns are those quoted: it verifies its own quotes, and quotes again if a
// PCR was extended meanwhile.
func quote(t transport.TPM, keyType string, nonce []byte, selections ...tpm.Selection) (q quotes, err error) {
	ak, err := createAK(t, keyType)
	if err != nil {
		return quotes{}, err
	}
	defer func() {
		_, flush := tpm2.FlushContext{FlushHandle: ak.ObjectHandle}.Execute(t)
		err = errors.Join(err, flush)
	}()
	q.public = ak.OutPublic.Bytes()
	key, err := tpm.ParsePublic(q.public)
	if err != nil {
		return quotes{}, fmt.Errorf("the TPM's key: %w", err)
	}
	q.pem = key.PEM()
	for _, s := range selections {
		one, err := quoteSelection(t, ak, key, nonce, s)
		if err != nil {
			return quotes{}, err
		}
		q.each = append(q.each, one)
	}
	return q, nil
}

func quoteSelection(t transport.TPM, ak *tpm2.CreatePrimaryResponse, key *tpm.Key, nonce []byte, s tpm.Selection) (q quoted, err error) {
	for range quoteTries {
		err = q.try(t, ak, key, nonce, s)
		if !errors.Is(err, tpm.ErrPCRDigest) {
			return q, err
		}
	}
	return quoted{}, cli.Hint(fmt.Errorf("PCRs changed during each of %d quotes", quoteTries), "try again when less is being started")
}

// activeBanks are the banks that the TPM has PCRs in, in its order, without
// those of algorithms that are not known.
func activeBanks(t transport.TPM) (banks []digest.Algorithm, err error) {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("ask for the TPM's banks: %w", err)
	}
	assigned, err := r.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return nil, fmt.Errorf("the TPM's banks: %w", err)
	}
	for _, s := range assigned.PCRSelections {
		bank, err := digest.ByTPM(uint16(s.Hash))
		if err == nil && slices.Max(append(s.PCRSelect, 0)) > 0 {
			banks = append(banks, bank)
		}
	}
	if len(banks) == 0 {
		return nil, errors.New("the TPM has no bank of an algorithm that is known")
	}
	return banks, nil
}

// openTPM opens a device, or the unix socket of a TPM in software.
func openTPM(path string) (t transport.TPMCloser, err error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
	case info.Mode()&os.ModeSocket != 0:
		t, err = linuxudstpm.Open(path)
	default:
		t, err = linuxtpm.Open(path)
	}
	if err != nil {
		return nil, cli.Hint(fmt.Errorf("TPM: %w", err), "say where the TPM is with --device")
	}
	return t, nil
}

// createAK makes a restricted signing key under the endorsement seed. It is
// the same key every time, until the manufacturer's seed is changed.
func createAK(t transport.TPM, keyType string) (*tpm2.CreatePrimaryResponse, error) {
	template := tpm2.TPMTPublic{
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM:            true,
			FixedParent:         true,
			SensitiveDataOrigin: true,
			UserWithAuth:        true,
			Restricted:          true,
			SignEncrypt:         true,
		},
	}
	switch keyType {
	case "rsa":
		template.Type = tpm2.TPMAlgRSA
		template.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme: tpm2.TPMTRSAScheme{
				Scheme:  tpm2.TPMAlgRSASSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			KeyBits: 2048,
		})
	case "ecc":
		template.Type = tpm2.TPMAlgECC
		template.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		})
	default:
		return nil, fmt.Errorf("key type %q is not known: rsa and ecc are", keyType)
	}
	ak, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("create an attestation key: %w", err)
	}
	return ak, nil
}

// try quotes and reads the values once. The error is tpm.ErrPCRDigest if they
// do not belong together.
func (q *quoted) try(t transport.TPM, ak *tpm2.CreatePrimaryResponse, key *tpm.Key, nonce []byte, s tpm.Selection) error {
	r, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: ak.ObjectHandle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      pcrSelection(s),
	}.Execute(t)
	if err != nil {
		return fmt.Errorf("quote: %w", err)
	}
	q.attest, q.signature = bytes.Clone(r.Quoted.Bytes()), tpm2.Marshal(r.Signature)
	values, err := readPCRs(t, s)
	if err != nil {
		return err
	}
	parsed, err := tpm.ParseQuote(q.attest)
	if err != nil {
		return fmt.Errorf("the TPM's quote: %w", err)
	}
	signature, err := tpm.ParseSignature(q.signature)
	if err != nil {
		return fmt.Errorf("the TPM's signature: %w", err)
	}
	if _, err := parsed.Verify(signature, key, nonce, values); err != nil {
		return fmt.Errorf("the TPM's quote: %w", err)
	}
	q.values, err = tpm.AppendValues(nil, parsed.Selection, values)
	return err
}

// readPCRs reads one PCR a command, for a TPM returns as many as it likes.
func readPCRs(t transport.TPM, s tpm.Selection) (tpm.Values, error) {
	values := tpm.Values{}
	for p := range s.All() {
		r, err := tpm2.PCRRead{PCRSelectionIn: pcrSelection(tpm.Selection{{Bank: p.Bank, Mask: 1 << p.Index}})}.Execute(t)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", p, err)
		}
		if len(r.PCRValues.Digests) != 1 {
			return nil, cli.Hint(fmt.Errorf("read %s: the TPM has no such bank", p), "see tpm2_getcap pcrs, and the firmware's setup; give others with --bank")
		}
		if values[p], err = digest.New(p.Bank, r.PCRValues.Digests[0].Buffer); err != nil {
			return nil, fmt.Errorf("read %s: %w", p, err)
		}
	}
	return values, nil
}

// pcrSelection is a selection as go-tpm has it, of banks that a TPM can have.
func pcrSelection(s tpm.Selection) (list tpm2.TPMLPCRSelection) {
	for _, b := range s {
		id, _ := b.Bank.TPM()
		list.PCRSelections = append(list.PCRSelections, tpm2.TPMSPCRSelection{
			Hash: tpm2.TPMAlgID(id), PCRSelect: []byte{byte(b.Mask), byte(b.Mask >> 8), byte(b.Mask >> 16)}})
	}
	return list
}
