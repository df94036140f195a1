package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/cobracli"
	"diglim/internal/digest"
	"diglim/internal/kernel/gate/set"
	"diglim/internal/kernel/upload"
	"diglim/internal/measured"
	"diglim/internal/scope"

	"github.com/google/go-tpm/tpm2"
	"github.com/spf13/cobra"
)

// maxProgram is the limit on the uploader in bytes.
const maxProgram = 64 << 20

// A prediction is what a machine is going to measure.
type prediction struct {
	config              measured.Config
	scope               string
	initramfs           string
	program, keyring    string
	policyFile, cmdline string
	lists               []string
	bank, write         string
	json                bool
	cmd                 *cobra.Command
	rules               []byte // of the scope, if it is a file of the initramfs

	hash     digest.Algorithm
	sequence measured.Sequence
}

func predictCommand() *cobra.Command {
	p := prediction{config: measured.Config{Interface: "bpf"}}
	cmd := &cobra.Command{
		Use:   "predict --initramfs IMAGE [--lists DIR] | --uploader FILE --lists LIST|DIR [flags]",
		Short: "say which value a PCR is going to have, before the machine boots",
		Long: `Says which value the PCR has after the boot of a machine with this initramfs,
whose diglim-upload does what is in it ("diglim-upload boot"); --lists are then those
of the system that it switches to, its /etc/digest_lists. Without an initramfs: the
value after "diglim-upload add --measure" with these settings, lists and keys.

Values are of every bank, and so are the digests of the policies (TPM2_PolicyPCR,
SHA-256) that a secret is sealed to. Nothing that a machine runs afterwards changes
the PCR, except lists that are added, and what diglim-upload watch --extend says.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&p.initramfs, "initramfs", "", "the machine's initramfs, an `image`")
	f.IntVar(&p.config.PCR, "pcr", measured.UsualPCR, "the PCR that is measured into")
	f.StringVar(&p.program, "uploader", "", "the machine's diglim-upload, a `file`")
	f.StringArrayVar(&p.lists, "lists", nil, "digest list, or directory of some, that the machine loads (repeatable)")
	f.StringVar(&p.keyring, "keyring", "", "`directory` of the machine's /etc/diglim/keys")
	f.StringVar(&p.config.Interface, "interface", "bpf", "what the lists go to: bpf, diglim or ima")
	f.StringVar(&p.config.Mode, "mode", "log", "log or enforce, as for diglim-upload")
	f.StringVar(&p.scope, "scope", scope.Vendor, "all, vendor, or a `file` of rules, as for diglim-upload")
	f.BoolVar(&p.config.Lock, "lock", false, "the gate is locked")
	f.StringVar(&p.policyFile, "ima-policy", "", "the machine's /etc/ima/ima-policy, a `file`; none if it has none")
	f.StringVar(&p.cmdline, "cmdline", "", "the machine's kernel command line, if it has ima_policy= or ima_hash=")
	f.StringVar(&p.bank, "bank", "sha256", "the bank that --output is about: sha1, sha256, sha384 or sha512")
	f.StringVar(&p.write, "output", "", "write the value to this `file` too, as tpm2_policypcr -f reads it")
	f.BoolVar(&p.json, "json", false, "answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p.cmd = cmd
		o, err := p.run()
		if err != nil {
			return err
		}
		if p.json {
			return cobracli.WriteJSON(cmd.OutOrStdout(), o)
		}
		if err := o.writeText(cmd.OutOrStdout()); err != nil || p.write == "" {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "\nWith tpm2-tools:\n\n  tpm2_policypcr -l %s:%d -f %s\n", p.bank, o.PCR, cli.Text(p.write))
		return err
	}
	return cmd
}

// predicted is what predict prints as JSON.
type predicted struct {
	PCR      int             `json:"pcr"`
	Measured []predictedFile `json:"measured"`
	Values   []predictedPCR  `json:"values"`
}

type predictedFile struct {
	Path   string        `json:"path"` // in IMA's log
	Digest digest.Digest `json:"digest"`
}

type predictedPCR struct {
	Value  digest.Digest `json:"value"`
	Policy digest.Digest `json:"policy"` // TPM2_PolicyPCR of this bank's value alone
}

func (p *prediction) run() (o predicted, err error) {
	bank, err := digest.ByName(p.bank)
	if _, ok := bank.TPM(); err != nil || !ok || !bank.Available() {
		return o, fmt.Errorf("bank %q: sha1, sha256, sha384 and sha512 are known", p.bank)
	}
	if err := p.measure(); err != nil {
		return o, err
	}
	o.PCR = p.config.PCR
	for _, f := range p.sequence.Files() {
		o.Measured = append(o.Measured, predictedFile{measured.Path(f.Name), f.Digest})
	}
	for _, alg := range []digest.Algorithm{digest.SHA1, digest.SHA256, digest.SHA384, digest.SHA512} {
		start, err := digest.New(alg, make([]byte, alg.Size()))
		if err != nil {
			return o, err
		}
		v := predictedPCR{Value: p.sequence.Extend(start)}
		if v.Policy, err = policyPCR(o.PCR, v.Value); err != nil {
			return o, err
		}
		o.Values = append(o.Values, v)
		if alg == bank && p.write != "" {
			if err := writeFile(p.write, v.Value.Bytes()); err != nil {
				return o, err
			}
		}
	}
	return o, nil
}

// measure goes through what the machine measures, in its order.
func (p *prediction) measure() (err error) {
	if p.hash, err = imaHash(p.cmdline); err != nil {
		return err
	}
	if p.initramfs != "" {
		return p.boot()
	}
	if p.program == "" || len(p.lists) == 0 {
		return errors.New("give --initramfs, or --uploader and --lists")
	}
	var own []byte
	if p.policyFile != "" {
		if own, err = readFile(p.policyFile, measured.MaxPolicy); err != nil {
			return err
		}
	}
	if err := p.start(own); err != nil {
		return err
	}
	if err := p.addFile(measured.ProgramName, p.program, maxProgram); err != nil {
		return err
	}
	if err := p.addKeys(); err != nil {
		return err
	}
	lists, err := p.findLists()
	if err != nil {
		return err
	}
	return p.addLists(lists)
}

// imaHash is the algorithm that IMA hashes files with.
func imaHash(cmdline string) (digest.Algorithm, error) {
	for field := range strings.FieldsSeq(cmdline) {
		if name, ok := strings.CutPrefix(field, "ima_hash="); ok {
			alg, err := digest.ByName(name)
			if err != nil || !alg.Available() {
				return 0, fmt.Errorf("nothing here computes ima_hash=%s", name)
			}
			return alg, nil
		}
	}
	return digest.SHA256, nil
}

// start begins with the policy, of which own is the administrator's part, and
// the settings.
func (p *prediction) start(own []byte) error {
	switch p.config.Interface {
	case "bpf":
		if err := p.gate(); err != nil {
			return err
		}
	case "diglim", "ima":
		p.config.Mode, p.config.Lock = "", false
	default:
		return fmt.Errorf("interface %q: bpf, diglim and ima are known", p.config.Interface)
	}
	policy, err := measured.Policy(p.config.PCR, p.cmdline, own)
	if err != nil {
		return fmt.Errorf("IMA policy: %w", err)
	}
	p.add(measured.PolicyName, policy)
	p.add(measured.ConfigName, p.config.Text())
	return nil
}

// gate completes the settings of a gate.
func (p *prediction) gate() error {
	if p.config.Mode != "log" && p.config.Mode != "enforce" {
		return fmt.Errorf("mode %q: log and enforce are known", p.config.Mode)
	}
	load := func() ([]set.Rule, error) { return scope.Load(p.scope) }
	if p.rules != nil {
		load = func() ([]set.Rule, error) { return scope.Parse(p.rules) }
	}
	rules, err := load()
	if err != nil {
		return err
	}
	p.config.Scope = scope.Format(rules)
	return nil
}

func (p *prediction) add(name string, content []byte) {
	p.sequence.Add(measured.File{Name: name, Digest: digest.Sum(p.hash, content)})
}

func (p *prediction) addFile(name, path string, limit int64) error {
	content, err := readFile(path, limit)
	if err != nil {
		return err
	}
	p.add(name, content)
	return nil
}

func (p *prediction) addKeys() error {
	if p.keyring == "" {
		return nil
	}
	top := filepath.Clean(p.keyring) + string(filepath.Separator) // a link to a directory is followed
	return filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return p.addFile(measured.KeyName(strings.TrimPrefix(path, top)), path, maxKeys)
	})
}

// maxKeys is the limit on a file of keys in bytes.
const maxKeys = 16 << 20

// A predictedList is one that the machine loads: a file, or what an initramfs has.
type predictedList struct {
	name    string // of the file
	path    string // of a file that has it
	content []byte // without one
}

// findLists returns the lists that --lists stands for.
func (p *prediction) findLists() (lists []predictedList, err error) {
	for _, arg := range p.lists {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			lists = append(lists, predictedList{name: filepath.Base(arg), path: arg})
			continue
		}
		names, err := digestlist.ReadDir(arg)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("%s: no digest list", arg)
		}
		for _, name := range names {
			lists = append(lists, predictedList{name: name, path: filepath.Join(arg, name)})
		}
	}
	return lists, nil
}

// addLists measures lists in the order in which the uploader takes them.
func (p *prediction) addLists(lists []predictedList) error {
	slices.SortStableFunc(lists, func(a, b predictedList) int { return upload.Compare(upload.Add, a.name, b.name) })
	for _, l := range lists {
		if l.path == "" {
			p.add(measured.ListName(l.name), l.content)
		} else if err := p.addFile(measured.ListName(l.name), l.path, digestlist.MaxFile); err != nil {
			return err
		}
	}
	return nil
}

// policyPCR is the digest of a policy that is fulfilled while a PCR has that
// value (TPM 2.0 Part 3, TPM2_PolicyPCR), of a session that hashes with SHA-256.
func policyPCR(pcr int, value digest.Digest) (digest.Digest, error) {
	bank, ok := value.Algorithm().TPM()
	if !ok {
		return digest.Digest{}, fmt.Errorf("no bank of %s", value.Algorithm())
	}
	c, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return digest.Digest{}, err
	}
	err = tpm2.PolicyPCR{
		PcrDigest: tpm2.TPM2BDigest{Buffer: digest.Sum(digest.SHA256, value.Bytes()).Bytes()},
		Pcrs: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
			{Hash: tpm2.TPMIAlgHash(bank), PCRSelect: tpm2.PCClientCompatible.PCRs(uint(pcr))},
		}},
	}.Update(c)
	if err != nil {
		return digest.Digest{}, err
	}
	return digest.New(digest.SHA256, c.Hash().Digest)
}

// writeText prints the prediction for people.
func (o predicted) writeText(w io.Writer) error {
	b := bufio.NewWriter(w)
	lists, keys := 0, 0
	for _, f := range o.Measured {
		name, _ := measured.Name(f.Path)
		switch dir, _, _ := strings.Cut(name, "/"); dir + "/" {
		case measured.ListName(""):
			lists++
		case measured.KeyName(""):
			keys++
		}
	}
	fmt.Fprintf(b, "PCR %d, when the uploader has measured its settings, itself, %s of keys and %s:\n\n",
		o.PCR, cli.Plural(keys, "file"), cli.Plural(lists, "list"))
	for _, v := range o.Values {
		fmt.Fprintf(b, "  %-7s %s\n", v.Value.Algorithm(), v.Value.Hex())
	}
	fmt.Fprintf(b, "\nThe policy to seal to (TPM2_PolicyPCR, SHA-256), of each bank:\n\n")
	for _, v := range o.Values {
		fmt.Fprintf(b, "  %-7s %s\n", v.Value.Algorithm(), v.Policy.Hex())
	}
	fmt.Fprintf(b, "\nIn a policy for attest-verify check (or of another bank):\n\n")
	for _, v := range o.Values {
		if alg := v.Value.Algorithm(); alg == digest.SHA256 {
			fmt.Fprintf(b, "  pcr %s:%d %s \"predicted\"\n", alg, o.PCR, v.Value.Hex())
		}
	}
	return b.Flush()
}
