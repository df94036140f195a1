package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

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

// quoted is a quote and what goes with it, in the form of its files.
type quoted struct {
	attest, signature, values, public, pem []byte
}

// quote has the TPM quote PCRs of the sha256 bank. The values that it returns
// are those quoted: it verifies its own quote, and quotes again if a PCR was
// extended meanwhile.
func quote(t transport.TPM, keyType string, nonce []byte, pcrs []int) (q quoted, err error) {
	ak, err := createAK(t, keyType)
	if err != nil {
		return quoted{}, err
	}
	defer func() {
		_, flush := tpm2.FlushContext{FlushHandle: ak.ObjectHandle}.Execute(t)
		err = errors.Join(err, flush)
	}()
	q.public = ak.OutPublic.Bytes()
	key, err := tpm.ParsePublic(q.public)
	if err != nil {
		return quoted{}, fmt.Errorf("the TPM's key: %w", err)
	}
	q.pem = key.PEM()
	for range quoteTries {
		err = q.try(t, ak, key, nonce, pcrs)
		if !errors.Is(err, tpm.ErrPCRDigest) {
			return q, err
		}
	}
	return quoted{}, cli.Hint(fmt.Errorf("PCRs changed during each of %d quotes", quoteTries), "try again when less is being started")
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
func (q *quoted) try(t transport.TPM, ak *tpm2.CreatePrimaryResponse, key *tpm.Key, nonce []byte, pcrs []int) error {
	r, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: ak.ObjectHandle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      selection(pcrs),
	}.Execute(t)
	if err != nil {
		return fmt.Errorf("quote: %w", err)
	}
	q.attest, q.signature = bytes.Clone(r.Quoted.Bytes()), tpm2.Marshal(r.Signature)
	values, err := readPCRs(t, pcrs)
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
func readPCRs(t transport.TPM, pcrs []int) (tpm.Values, error) {
	values := tpm.Values{}
	for _, i := range pcrs {
		r, err := tpm2.PCRRead{PCRSelectionIn: selection([]int{i})}.Execute(t)
		if err != nil {
			return nil, fmt.Errorf("read PCR %d: %w", i, err)
		}
		if len(r.PCRValues.Digests) != 1 {
			return nil, fmt.Errorf("read PCR %d: the TPM has no sha256 bank", i)
		}
		d, err := digest.New(digest.SHA256, r.PCRValues.Digests[0].Buffer)
		if err != nil {
			return nil, fmt.Errorf("read PCR %d: %w", i, err)
		}
		values[tpm.PCR{Bank: digest.SHA256, Index: i}] = d
	}
	return values, nil
}

// selection selects PCRs of the sha256 bank.
func selection(pcrs []int) tpm2.TPMLPCRSelection {
	var bitmap [tpm.PCRCount / 8]byte
	for _, i := range pcrs {
		bitmap[i/8] |= 1 << (i % 8)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: bitmap[:]}}}
}
