package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"diglim/internal/digest"
	"diglim/tpm"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// A TPM in software signs with every scheme and hash that it knows, over
// several banks at once: one PCR digest over all of them, by the hash of the
// signature.
func TestSwtpmSchemes(t *testing.T) {
	device := newSwtpm(t)
	hashes := map[tpm2.TPMAlgID]error{tpm2.TPMAlgSHA1: tpm.ErrAlgorithm, tpm2.TPMAlgSHA256: nil, tpm2.TPMAlgSHA384: nil, tpm2.TPMAlgSHA512: nil}
	tried := 0
	for hash, want := range hashes {
		for name, public := range map[string]tpm2.TPMTPublic{
			"RSASSA": rsaTemplate(tpm2.TPMAlgRSASSA, hash),
			"RSAPSS": rsaTemplate(tpm2.TPMAlgRSAPSS, hash),
			"P-256":  eccTemplate(tpm2.TPMECCNistP256, hash),
			"P-384":  eccTemplate(tpm2.TPMECCNistP384, hash),
			"P-521":  eccTemplate(tpm2.TPMECCNistP521, hash),
		} {
			tried++
			if err := quoteAll(device, public); !errors.Is(err, want) {
				t.Errorf("%s, hash %#x: %v, want %v", name, hash, err, want)
			}
		}
	}
	if tried != 20 {
		t.Errorf("%d schemes tried", tried)
	}
	free := rsaTemplate(tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256)
	free.ObjectAttributes.Restricted = false
	if err := quoteAll(device, free); !errors.Is(err, tpm.ErrKey) {
		t.Errorf("a key that is not restricted: %v", err)
	}
}

func akAttributes() tpm2.TPMAObject {
	return tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true}
}

func rsaTemplate(scheme, hash tpm2.TPMAlgID) tpm2.TPMTPublic {
	var details tpm2.TPMUAsymScheme
	if scheme == tpm2.TPMAlgRSAPSS {
		details = tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: hash})
	} else {
		details = tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSSigSchemeRSASSA{HashAlg: hash})
	}
	return tpm2.TPMTPublic{Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: akAttributes(),
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Scheme: tpm2.TPMTRSAScheme{Scheme: scheme, Details: details}, KeyBits: 2048})}
}

func eccTemplate(curve tpm2.TPMECCCurve, hash tpm2.TPMAlgID) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: akAttributes(),
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve,
			Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})}})}
}

// quoteAll has a new key quote PCRs of all four banks, and verifies that.
func quoteAll(device transport.TPM, public tpm2.TPMTPublic) (err error) {
	ak, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(public)}.Execute(device)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer func() {
		_, flush := tpm2.FlushContext{FlushHandle: ak.ObjectHandle}.Execute(device)
		err = errors.Join(err, flush)
	}()
	claimed := tpm.Values{}
	var selection tpm2.TPMLPCRSelection
	for _, bank := range []digest.Algorithm{digest.SHA512, digest.SHA1, digest.SHA256, digest.SHA384} {
		id, _ := bank.TPM()
		one := tpm2.TPMSPCRSelection{Hash: tpm2.TPMAlgID(id), PCRSelect: []byte{1, 0, 1 << 7}} // 0, 23
		selection.PCRSelections = append(selection.PCRSelections, one)
		r, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{one}}}.Execute(device)
		if err != nil {
			return err
		}
		for i, pcr := range []int{0, 23} {
			if claimed[tpm.PCR{Bank: bank, Index: pcr}], err = digest.New(bank, r.PCRValues.Digests[i].Buffer); err != nil {
				return err
			}
		}
	}
	nonce := []byte("a nonce")
	r, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: ak.ObjectHandle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      selection,
	}.Execute(device)
	if err != nil {
		return fmt.Errorf("quote: %w", err)
	}
	key, err := tpm.ParsePublic(ak.OutPublic.Bytes())
	if err != nil {
		return err
	}
	if string(key.Name()) != string(ak.Name.Buffer) {
		return fmt.Errorf("the name is %x, the TPM says %x", key.Name(), ak.Name.Buffer)
	}
	q, err := tpm.ParseQuote(r.Quoted.Bytes())
	if err != nil {
		return err
	}
	sig, err := tpm.ParseSignature(tpm2.Marshal(r.Signature))
	if err != nil {
		return err
	}
	_, err = q.Verify(sig, key, nonce, claimed)
	return err
}

// Row 11: a secret that is made for the name of a key is given out by a TPM
// that has that key, and for no other name: not for one of the same key with a
// byte of its public area changed, and not for another key's.
func TestAttack11CredentialIsForTheName(t *testing.T) {
	device := newSwtpm(t)
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.RSAEKTemplate)}.Execute(device)
	if err != nil {
		t.Fatal(err)
	}
	ak, err := createAK(device, "ecc")
	if err != nil {
		t.Fatal(err)
	}
	area := ak.OutPublic.Bytes()
	key, err := tpm.ParsePublic(area)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(area)
	changed[7] ^= 1 << 2 // stClear
	other, err := tpm.ParsePublic(changed)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ek.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	to, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("sixteen byte one")
	byPolicy := func(t transport.TPM, handle tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicySecret{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)}, PolicySession: handle}.Execute(t)
		return err
	}
	activate := func(name []byte) ([]byte, error) {
		blob, sealed, err := tpm2.CreateCredential(rand.Reader, to, name, secret)
		if err != nil {
			t.Fatal(err)
		}
		r, err := tpm2.ActivateCredential{
			ActivateHandle: tpm2.AuthHandle{Handle: ak.ObjectHandle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
			KeyHandle:      tpm2.AuthHandle{Handle: ek.ObjectHandle, Name: ek.Name, Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, byPolicy)},
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: blob},
			Secret:         tpm2.TPM2BEncryptedSecret{Buffer: sealed},
		}.Execute(device)
		if err != nil {
			return nil, err
		}
		return r.CertInfo.Buffer, nil
	}
	if got, err := activate(key.Name()); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("the key's name: %q, %v", got, err)
	}
	for name, of := range map[string][]byte{"a byte changed": other.Name(), "the endorsement key's": ek.Name.Buffer, "none": nil} {
		if got, err := activate(of); err == nil {
			t.Errorf("%s: the TPM gives out %q", name, got)
		}
	}
}
