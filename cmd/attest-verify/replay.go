package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"diglim/internal/cli"
	"diglim/internal/cobracli"
	"diglim/internal/digest"
	"diglim/internal/evidence"
	"diglim/tpm"
	"diglim/tpm/cel"
	"diglim/tpm/eventlog"
	"diglim/tpm/imalog"

	"github.com/spf13/cobra"
)

type replay struct {
	bank          string
	ima, firmware string
	padded, json  bool
}

func replayCommand() *cobra.Command {
	var r replay
	cmd := &cobra.Command{
		Use:   "replay [--bank NAME] [--ima-log FILE] [--firmware-log FILE] [EVIDENCE_DIR]",
		Short: "print the PCR values that logs make",
		Long: `Replays the firmware log, those of the running system and the IMA log, to their
ends, and prints what the PCRs come to. Nothing is compared and nothing is judged: a log proves nothing by
itself.

PCRs without events are printed too, with the value that they start with. The
exit code is 2 if a log is missing, or cannot be read to its end.`,
		Args: cobra.MaximumNArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&r.bank, "bank", "sha256", "bank of PCRs: sha1, sha256, sha384 or sha512")
	f.StringVar(&r.ima, "ima-log", "", "IMA log `file`, instead of the evidence's "+evidence.IMAFile)
	f.StringVar(&r.firmware, "firmware-log", "", "firmware log `file`, instead of the evidence's "+evidence.FirmwareFile)
	f.BoolVar(&r.padded, "padded", false, "replay the IMA log of a kernel before 5.8, which extends all banks with SHA-1")
	f.BoolVar(&r.json, "json", false, "answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := r.run(args)
		if err != nil && len(p.PCRs) == 0 {
			return err
		}
		if r.json {
			return errors.Join(cobracli.WriteJSON(cmd.OutOrStdout(), p), err)
		}
		return errors.Join(p.writeText(cmd.OutOrStdout()), err)
	}
	return cmd
}

// replayed is what replay prints as JSON.
type replayed struct {
	Bank     string        `json:"bank"`
	Locality int           `json:"startup_locality"`
	PCRs     []replayedPCR `json:"pcrs"`
	Keys     []replayedKey `json:"secure_boot_keys"`
	Oddities []string      `json:"oddities"` // of the firmware log
}

// replayedKey is one that Secure Boot goes by, as PCR 7 proves it.
type replayedKey struct {
	Event    int           `json:"event"`
	Variable string        `json:"variable"` // PK, KEK, db or dbx
	Kind     string        `json:"kind"`     // x509, sha256, …
	Owner    string        `json:"owner"`
	Digest   digest.Digest `json:"digest"` // of the certificate, or what the variable has
}

type replayedPCR struct {
	PCR     int           `json:"pcr"`
	Value   digest.Digest `json:"value"`
	Events  int           `json:"events"`            // that extended it
	Log     string        `json:"log"`               // firmware or IMA
	Records int           `json:"records,omitempty"` // of the running system's logs, after the events
}

// run replays both logs. With an error there may be values up to it.
func (r *replay) run(args []string) (replayed, error) {
	p := replayed{Bank: r.bank, PCRs: []replayedPCR{}, Keys: []replayedKey{}, Oddities: []string{}}
	bank, err := digest.ByName(r.bank)
	if _, ok := bank.TPM(); err != nil || !ok || !bank.Available() {
		return p, fmt.Errorf("bank %q: sha1, sha256, sha384 and sha512 are known", r.bank)
	}
	dir := ""
	if len(args) == 1 {
		dir = args[0]
	}
	firmware, err := r.firmwareLog(dir)
	if err != nil {
		return p, err
	}
	ima, done, err := r.imaLog(dir)
	if err != nil {
		return p, err
	}
	if firmware == nil && ima == nil {
		return p, cli.Hint(errors.New("no log"), "give an evidence directory, --ima-log or --firmware-log")
	}
	if firmware != nil {
		err = errors.Join(p.firmware(bank, firmware), p.later(bank, dir))
	}
	if ima != nil {
		err = errors.Join(err, p.ima(bank, ima, r.padded), done())
	}
	return p, err
}

func (r *replay) firmwareLog(dir string) ([]byte, error) {
	switch {
	case r.firmware != "":
		return readFile(r.firmware, evidence.Limit(evidence.FirmwareFile))
	case dir == "":
		return nil, nil
	}
	b, err := readPart(dir, evidence.FirmwareFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (r *replay) imaLog(dir string) (log io.ReaderAt, done func() error, err error) {
	switch {
	case r.ima != "":
		return openLog(r.ima)
	case dir == "":
		return nil, nil, nil
	}
	log, done, err = openLogIn(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	return log, done, err
}

func (p *replayed) firmware(bank digest.Algorithm, log []byte) error {
	l, err := eventlog.Parse(log)
	if err != nil {
		err = fmt.Errorf("firmware log: %w", err)
	}
	p.Locality = l.Locality
	for _, o := range l.Oddities {
		p.Oddities = append(p.Oddities, o.String())
	}
	keys, odd := l.Keys(bank)
	for _, k := range keys {
		p.Keys = append(p.Keys, replayedKey{k.Event, k.Variable, k.Kind, k.Owner.String(), k.Digest()})
	}
	for _, o := range odd {
		p.Oddities = append(p.Oddities, o.String())
	}
	registers, ok := l.Replay(bank)
	if !ok {
		return errors.Join(err, fmt.Errorf("firmware log: no digests of bank %s, there are %v", bank, l.Banks))
	}
	for i, register := range registers {
		p.PCRs = append(p.PCRs, replayedPCR{PCR: i, Value: register.Value, Events: register.Events, Log: "firmware"})
	}
	return err
}

// later extends what firmware left by what the running system measured, if the
// evidence has logs of that.
func (p *replayed) later(bank digest.Algorithm, dir string) (err error) {
	if dir == "" || len(p.PCRs) != tpm.PCRCount {
		return nil
	}
	for _, name := range []string{evidence.SystemdFile, evidence.DiglimFile} {
		log, e := readPart(dir, name)
		if errors.Is(e, fs.ErrNotExist) {
			continue
		}
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		records, e := cel.Parse(log)
		if e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, e))
		}
		for _, r := range records {
			if d, ok := r.Digest(bank); ok && r.PCR >= 0 {
				row := &p.PCRs[r.PCR]
				row.Value = digest.Sum(bank, row.Value.Bytes(), d.Bytes())
				row.Records++
			}
		}
	}
	return err
}

// ima replays the log by the first of its layouts, which is that by which the
// template hashes are right.
func (p *replayed) ima(bank digest.Algorithm, log io.ReaderAt, padded bool) error {
	log, _, err := imalog.Binary(log)
	if err != nil {
		return fmt.Errorf("IMA log: %w", err)
	}
	layouts, err := imalog.Layouts(log)
	switch {
	case err != nil:
		return fmt.Errorf("IMA log: %w", err)
	case len(layouts) == 0:
		return errors.New("IMA log: empty")
	}
	var chains [tpm.PCRCount]*imalog.Replay
	var entries [tpm.PCRCount]int
	for e, err := range imalog.Entries(log, layouts[0]) {
		if err != nil {
			return errors.Join(p.chains(chains, entries), fmt.Errorf("IMA log: %w", err))
		}
		c := chains[e.PCR]
		if c == nil {
			c = imalog.NewReplay(imalog.Zero(bank), imalog.Zero(bank))
			if padded {
				c.Pad()
			}
			chains[e.PCR] = c
		}
		c.Add(e)
		entries[e.PCR]++
	}
	return p.chains(chains, entries)
}

// chains puts what IMA extended into the place of what firmware left alone.
func (p *replayed) chains(chains [tpm.PCRCount]*imalog.Replay, entries [tpm.PCRCount]int) (err error) {
	for pcr, c := range chains {
		if c == nil {
			continue
		}
		row := replayedPCR{PCR: pcr, Value: c.Value(), Events: entries[pcr], Log: "IMA"}
		switch {
		case len(p.PCRs) != tpm.PCRCount:
			p.PCRs = append(p.PCRs, row)
		case p.PCRs[pcr].Events+p.PCRs[pcr].Records > 0:
			err = errors.Join(err, fmt.Errorf("PCR %d is in IMA's log and in another: nothing says in which order it was extended", pcr))
		default:
			p.PCRs[pcr] = row
		}
	}
	return err
}

func (p *replayed) writeText(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, r := range p.PCRs {
		fmt.Fprintf(b, "PCR %-2d  %s  ", r.PCR, r.Value)
		switch {
		case r.Log == "IMA":
			fmt.Fprintln(b, logEntries(r.Events))
		case r.Events+r.Records > 0:
			if fmt.Fprint(b, cli.Plural(r.Events, "firmware event")); r.Records > 0 {
				fmt.Fprint(b, ", ", cli.Plural(r.Records, "record"))
			}
			fmt.Fprintln(b)
		default:
			fmt.Fprintln(b, "not extended")
		}
	}
	if p.Locality > 0 {
		fmt.Fprintf(b, "note: the TPM was started from locality %d\n", p.Locality)
	}
	for _, o := range p.Oddities {
		fmt.Fprintf(b, "odd: firmware log: %s\n", cli.Text(o))
	}
	return b.Flush()
}
