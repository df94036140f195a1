//go:build !nobpf && (amd64 || arm64)

package main

import (
	"cmp"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"diglim/internal/cli"
	"diglim/internal/digest"
	"diglim/internal/kernel"
	"diglim/internal/kernel/gate"
	"diglim/internal/kernel/gate/set"
	"diglim/internal/measured"
	"diglim/internal/scope"
	"diglim/internal/trust"

	"golang.org/x/sys/unix"
)

// A gateway is what package gate does. Tests have one that is not in a kernel.
type gateway interface {
	Probe() error
	// Enter says whether the gate is locked, and makes this process one that may
	// then speak to it, if it can be.
	Enter() (locked bool, err error)
	Open() (openGate, error)
	Start(*set.Image) (openGate, error)
	Lock() error
	Stop() error
}

// An openGate is a gate that is there.
type openGate interface {
	watched
	Image() (*set.Image, error)
	Replace(*set.Image) error
	Status() (gate.Status, error)
	Close() error
}

// kernelGate is the gate in the kernel.
type kernelGate struct{}

func systemGate() gateway { return kernelGate{} }

func (kernelGate) Probe() error { return gate.Probe() }
func (kernelGate) Lock() error  { return gate.Lock() }
func (kernelGate) Stop() error  { return gate.Stop() }

// Enter starts this program again, if the gate is locked: under the lock only
// one can be a parser that nobody holds anything of.
func (kernelGate) Enter() (locked bool, err error) {
	locked, err = gate.Locked()
	if !locked || err != nil {
		return locked, err
	}
	return locked, errors.Join(gate.Sealed(), gate.TrustedWorld())
}

func (kernelGate) Open() (openGate, error) {
	g, err := gate.Open()
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (kernelGate) Start(m *set.Image) (openGate, error) {
	g, err := gate.Start(m)
	if err != nil {
		return nil, err
	}
	return g, nil
}

// gateFlags are the flags of an application to the gate. Those that are empty
// were not given.
type gateFlags struct {
	mode, scope, keyring, root string
	lock                       bool

	given string // the name of one that was given, "" if none was
}

func (g *gateFlags) flags(f *flag.FlagSet) {
	f.StringVar(&g.mode, "mode", "", "what becomes of files that are in no list: `log|enforce` (bpf; default: as it is, log at first)")
	f.StringVar(&g.scope, "scope", "", "the files that enforce is for: `all|vendor|FILE` of rules (bpf; default: as it is, vendor at first)")
	f.BoolVar(&g.lock, "lock", false, "nobody switches the gate off until reboot, root included (bpf)")
	f.StringVar(&g.keyring, "keyring", measured.KeyDir, "`directory` of the keys that prove lists, OpenPGP and X.509 (bpf)")
	f.StringVar(&g.root, "root", "", "`directory` of the system that will be switched to: its init must be known, to enforce (bpf)")
}

func (g *gateFlags) set(f *flag.FlagSet) {
	f.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "mode", "scope", "lock", "keyring", "root":
			g.given = f.Name
		}
	})
}

// gateSystem is the kernel's BPF LSM.
type gateSystem struct {
	gateway
	cmdline string
	locked  bool
}

// openGateSystem says what the kernel lacks if it can have no gate.
func openGateSystem(g gateway, cmdline string) (system, error) {
	if err := g.Probe(); err != nil {
		return nil, hinted(err)
	}
	locked, err := g.Enter()
	if err != nil {
		return nil, hinted(err)
	}
	return gateSystem{g, cmdline, locked}, nil
}

// hinted makes a hint of what package gate says behind an error.
func hinted(err error) error {
	text, hint, ok := strings.Cut(err.Error(), "\nhint: ")
	if !ok {
		return err
	}
	return cli.Hint(errors.New(text), "%s", hint)
}

// refused is an error that ends the command with cli.No.
func refused(err error) error { return &cli.ExitError{Code: cli.No, Err: hinted(err)} }

// running returns the gate and its set, or nothing if there is none, or one
// that decides nothing yet.
func (s gateSystem) running() (openGate, *set.Image, error) {
	g, err := s.Open()
	if errors.Is(err, gate.ErrNone) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	m, err := g.Image()
	if err == nil {
		return g, m, nil
	}
	err = errors.Join(err, g.Close())
	if errors.Is(err, gate.ErrNone) {
		err = nil
	}
	return nil, nil, err
}

func (s gateSystem) apply(a *application) (o outcome, err error) {
	running, old, err := s.running()
	if err != nil {
		return o, err
	}
	defer func() {
		if running != nil {
			err = errors.Join(err, running.Close())
		}
	}()
	header, err := s.header(a, old)
	if err != nil {
		return o, err
	}
	if err := a.measure.config(measured.Config{
		Interface: "bpf", Mode: header.Mode.String(), Scope: scope.Format(header.Rules), Lock: a.gate.lock || s.locked,
	}); err != nil {
		return o, refused(err)
	}
	ring, err := loadRing(a)
	if err != nil {
		return o, err
	}

	if old == nil || old.Digests() <= fewDigests {
		debug.SetMemoryLimit(memoryLimit)
	}
	var b set.Builder
	var crypto []byte
	if kernelWants(s.cmdline, "ima_hash") != "" {
		if crypto, err = os.ReadFile("/proc/crypto"); err != nil {
			return o, err
		}
	}
	p := prover{ring: ring, unsigned: !s.locked, root: a.gate.root, measured: measuredWith(s.cmdline, string(crypto))}
	if a.verb == add && old != nil {
		b.AddImage(old)
		p.old = old
		header.Lists = old.Header().Lists
	}
	if !ring.Empty() {
		header.Anchor = ring.Anchor()
	}
	p.prove(&b, a.paths, a.measure.list, a.fail)
	switch {
	case p.lists == 0:
		return o, refused(errors.New("no list is left, and nothing was changed"))
	case a.verb == replace && a.failed > 0:
		return o, refused(errors.New("a list failed, and nothing was replaced"))
	case a.verb == boots && a.failed > 0:
		return o, refused(errors.New("a list failed, and nothing was added"))
	}
	if a.verb == replace && !p.parsers && old != nil {
		if err := keepParser(&b, old, p.measured); err != nil {
			return o, err
		}
	}
	header.Lists += uint32(p.lists - p.already)
	image, err := b.Build(header)
	if err != nil {
		return o, err
	}
	if header.Mode == set.Enforce {
		if err := checkKnown(image, p.measured, a.gate.root, s.cmdline); err != nil {
			return o, refused(err)
		}
	}
	if a.gate.lock && !s.locked {
		s.warnParser(image, p.measured, a.stderr)
	}
	if running == nil {
		if running, err = s.Start(image); err != nil {
			return o, refused(err)
		}
	} else {
		if err := gate.MayReplace(old.Header(), header, s.locked); err != nil {
			return o, refused(err)
		}
		if err := running.Replace(image); err != nil {
			return o, refused(err)
		}
	}
	st, err := running.Status()
	if err != nil {
		return o, err
	}
	// The last act: from then on this process, which is no parser, is kept out.
	if a.gate.lock && !s.locked {
		if err := s.Lock(); err != nil {
			return o, refused(fmt.Errorf("the set is in force, %w", err))
		}
		s.locked = true
	}
	return outcome{digests: p.digests, lists: p.lists, already: p.already, gate: &gateOutcome{
		mode: header.Mode.String(), scope: scope.Name(header.Rules), locked: s.locked, generation: header.Generation,
		digests: image.Digests(), bytes: int(st.Bytes), useless: p.useless, measured: p.measured,
	}}, nil
}

// header says what the set is to be besides digests: what is asked for, and
// otherwise as it was.
func (s gateSystem) header(a *application, old *set.Image) (h set.Header, err error) {
	mode, rules := a.gate.mode, a.gate.scope
	if old != nil {
		h = old.Header()
	} else {
		mode, rules = cmp.Or(mode, set.Log.String()), cmp.Or(rules, scope.Vendor)
	}
	if mode != "" {
		if h.Mode, err = set.ParseMode(mode); err != nil {
			return h, err
		}
	}
	if rules != "" {
		if h.Rules, err = scope.Load(rules); err != nil {
			return h, err
		}
	}
	if h.Mode == set.Enforce && kernelWants(s.cmdline, "diglim.mode") == set.Log.String() {
		fmt.Fprintln(a.stderr, "mode log and not enforce, by diglim.mode=log on the kernel command line")
		h.Mode = set.Log
	}
	h.Generation++
	h.Loaded = time.Now()
	h.Lists = 0
	root, err := os.Open("/")
	if err != nil {
		return h, err
	}
	defer root.Close()
	h.Initramfs, err = kernel.InInitramfs(root)
	return h, err
}

// keepParser leaves this program a parser, if it was one. Most lists of systems say
// nothing of parsers: the list of the initramfs does, and without it nobody could
// replace the set of a locked gate a second time.
func keepParser(b *set.Builder, old *set.Image, alg digest.Algorithm) error {
	f, err := os.Open("/proc/self/exe")
	if err != nil || !alg.Available() {
		return err
	}
	defer f.Close()
	d, _, err := (knownChecker{old, alg}).look(f)
	if err != nil || !old.Has(set.Parser, d) {
		return err
	}
	return b.Add(set.Parser, d)
}

// warnParser says so if the lock would keep this program out.
func (s gateSystem) warnParser(m *set.Image, alg digest.Algorithm, stderr io.Writer) {
	f, err := os.Open("/proc/self/exe")
	if err != nil || !alg.Available() {
		return
	}
	defer f.Close()
	if d, _, err := (knownChecker{m, alg}).look(f); err == nil && !m.Has(set.Parser, d) {
		fmt.Fprintln(stderr, "under the lock this set stays until reboot: no parser list has this program")
	}
}

// loadRing reads the keys. Without the usual directory there are none.
func loadRing(a *application) (*trust.Ring, error) {
	ring, err := trust.Load(a.gate.keyring, func(name string, data []byte) error {
		return a.measure.file(measured.KeyName(name), data)
	})
	if errors.Is(err, fs.ErrNotExist) && a.gate.keyring == measured.KeyDir {
		return &trust.Ring{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	for _, err := range ring.Skipped {
		fmt.Fprintf(a.stderr, "keyring: %s\n", cli.Text(err.Error()))
	}
	return ring, nil
}

// kernelWants returns the value of a parameter on the kernel command line, of
// the last if there are several, "" if there is none.
func kernelWants(cmdline, name string) (value string) {
	for _, field := range strings.Fields(cmdline) {
		if n, v, _ := strings.Cut(field, "="); n == name {
			value = v
		}
	}
	return value
}

// measuredWith is the algorithm that IMA hashes files with, and so
// bpf_ima_file_hash. It is ima_hash= if the kernel had that built in when IMA
// began; with an algorithm that is a module IMA falls back on its default
// (ima_init_crypto in security/integrity/ima/ima_crypto.c), SHA-256 as kernels
// are built. crypto is the content of /proc/crypto. It is zero if it is not known.
func measuredWith(cmdline, crypto string) digest.Algorithm {
	name := kernelWants(cmdline, "ima_hash")
	if name == "" || !builtIn(crypto, name) {
		return digest.SHA256
	}
	alg, err := digest.ByName(name)
	if err != nil {
		return 0
	}
	return alg
}

// builtIn reports whether /proc/crypto has an algorithm that is no module's.
func builtIn(crypto, name string) bool {
	for entry := range strings.SplitSeq(crypto, "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(entry) {
			key, value, _ := strings.Cut(line, ":")
			fields[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
		if fields["name"] == name && fields["module"] == "kernel" {
			return true
		}
	}
	return false
}

func (s gateSystem) count() (int, error) {
	g, m, err := s.running()
	if g == nil {
		return 0, err
	}
	return m.Digests(), g.Close()
}

func (s gateSystem) query(d digest.Digest) (answer, error) {
	g, m, err := s.running()
	if g == nil {
		return nil, err
	}
	var a answer
	for _, kind := range []set.Kind{set.Content, set.Verity, set.Parser} {
		if m.Has(kind, d) {
			a = append(a, kind.String())
		}
	}
	return a, g.Close()
}

// gateReport is the gate's status.
type gateReport struct {
	kernel          string
	running, locked bool
	gate.Status
}

func (s gateSystem) status() (report, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, err
	}
	r := gateReport{kernel: unix.ByteSliceToString(u.Release[:])}
	g, _, err := s.running()
	if g == nil {
		return r, err
	}
	r.running = true
	r.Status, err = g.Status()
	r.locked = s.locked
	return r, errors.Join(err, g.Close())
}

// total is how often a verdict was given, at all hooks.
func (r gateReport) total(v gate.Verdict) (n uint64) {
	for _, counts := range r.Counts {
		n += counts[v]
	}
	return n
}

func (r gateReport) text(w io.Writer) error {
	if !r.running {
		_, err := fmt.Fprintf(w, "interface  bpf (kernel %s)     no gate\n", r.kernel)
		return err
	}
	locked, where := "no", ""
	if r.locked {
		locked = "yes"
	}
	if r.Header.Initramfs {
		where = " in the initramfs"
	}
	_, err := fmt.Fprintf(w, `interface  bpf (kernel %s)     mode  %s     scope  %s     locked  %s
set        generation %d, %s, %s, loaded %s%s
memory     %s for the set
known      %s   let through: %s by mode log, %s by the scope
denied     %s since boot   (diglim-upload watch --since boot)
`,
		r.kernel, r.Header.Mode, scope.Name(r.Header.Rules), locked,
		r.Header.Generation, cli.Plural(r.Digests, "digest"), cli.Plural(int(r.Header.Lists), "list"), r.Header.Loaded.Local().Format(time.DateTime), where,
		size(int(r.Bytes)),
		cli.Count(int(r.total(gate.Known))), cli.Count(int(r.total(gate.Logged))), cli.Count(int(r.total(gate.Scoped))),
		cli.Count(int(r.total(gate.Denied))))
	if err == nil && r.Lost+r.Suppressed > 0 {
		_, err = fmt.Fprintf(w, "events     %s sent, %s lost, %s not sent\n", cli.Count(int(r.Sent)), cli.Count(int(r.Lost)), cli.Count(int(r.Suppressed)))
	}
	return err
}

func (r gateReport) object() cli.Object {
	o := cli.Object{
		{Name: "interface", Value: "bpf"},
		{Name: "kernel", Value: r.kernel},
		{Name: "running", Value: r.running},
	}
	if !r.running {
		return o
	}
	var counts cli.Object
	for h, c := range r.Counts {
		var verdicts cli.Object
		for v, n := range c {
			verdicts = append(verdicts, cli.Member{Name: gate.Verdict(v).String(), Value: n})
		}
		counts = append(counts, cli.Member{Name: gate.Hook(h).String(), Value: verdicts})
	}
	return append(o, cli.Object{
		{Name: "mode", Value: r.Header.Mode.String()},
		{Name: "scope", Value: scope.Name(r.Header.Rules)},
		{Name: "locked", Value: r.locked},
		{Name: "generation", Value: r.Header.Generation},
		{Name: "digests", Value: r.Digests},
		{Name: "lists", Value: r.Header.Lists},
		{Name: "loaded", Value: r.Header.Loaded.Format(time.RFC3339Nano)},
		{Name: "initramfs", Value: r.Header.Initramfs},
		{Name: "anchor", Value: hex.EncodeToString(r.Header.Anchor[:])},
		{Name: "bytes", Value: r.Bytes},
		{Name: "denied", Value: r.total(gate.Denied)},
		{Name: "counts", Value: counts},
		{Name: "events", Value: cli.Object{{Name: "sent", Value: r.Sent}, {Name: "lost", Value: r.Lost}, {Name: "suppressed", Value: r.Suppressed}}},
	}...)
}
