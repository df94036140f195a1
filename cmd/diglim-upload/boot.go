//go:build !nobpf && (amd64 || arm64)

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/kernel"
	"diglim/internal/kernel/gate"
	"diglim/internal/kernel/gate/set"
	"diglim/internal/measured"

	"golang.org/x/sys/unix"
)

// exitEmergency is the exit code by which boot asks whoever called it for a
// shell, so that somebody can help.
const exitEmergency = 3

// What becomes of a boot if diglim-upload fails.
const (
	onfailContinue  = "continue"  // it goes on, and nothing is denied
	onfailEmergency = "emergency" // it stops with a shell
	onfailPoweroff  = "poweroff"
)

func parseOnfail(s string) (string, error) {
	switch s {
	case onfailContinue, onfailEmergency, onfailPoweroff:
		return s, nil
	}
	return "", fmt.Errorf("onfail %q is not known: continue, emergency, poweroff are", s)
}

// A machine is what is booted. Tests have one that is made of files.
type machine struct {
	initramfs string // where the initramfs is: "/"
	cmdline   string // file with the kernel command line
	kmsg      string // the kernel's log
	early     func() (bool, error)
	powerOff  func() error
}

func systemMachine() machine {
	return machine{
		initramfs: "/",
		cmdline:   "/proc/cmdline",
		kmsg:      "/dev/kmsg",
		early: func() (bool, error) {
			root, err := os.Open("/")
			if err != nil {
				return false, err
			}
			defer root.Close()
			return kernel.InInitramfs(root)
		},
		powerOff: func() error {
			unix.Sync()
			return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		},
	}
}

func bootCommand(g gateway, m machine) *cli.Command {
	b := boot{machine: m, gate: g}
	f := flag.NewFlagSet("boot", flag.ContinueOnError)
	f.StringVar(&b.root, "root", "", "`directory` of the system that will be switched to: add its lists")
	f.StringVar(&b.conf, "conf", measured.BootConf, "`file` that says what to do, one option of add a line; without it all is as by default")
	return &cli.Command{
		Name: "boot", Flags: f,
		Short: "do in the initramfs what boot.conf says (bpf)",
		Long: `Makes the gate from what the initramfs holds: the files in it that can become
code, as they are, and the lists that it carries. With --root it adds the lists
of the system that is about to be switched to, and locks the gate if that is
wanted. The kernel command line has the last word:

  diglim=off                              do nothing
  diglim.mode=log|enforce                 whatever boot.conf says
  diglim.onfail=continue|emergency|poweroff

What goes wrong is said on the console. Then the boot goes on with nothing
denied (continue, exit code 1), or stops with a shell (emergency, exit code 3: the
caller's task), or ends (poweroff).`,
		Run: func(_ []string, _, stderr io.Writer) error { return b.run(stderr) },
	}
}

// A boot is one of the two stages of one.
type boot struct {
	machine
	gate       gateway
	root, conf string
}

func (b *boot) run(stderr io.Writer) error {
	// Switching a machine off is for the initramfs.
	early, err := b.early()
	if err == nil && !early {
		err = cli.Hint(errors.New("this is no initramfs, and the boot is over"), "diglim-upload add")
	}
	if err != nil {
		return err
	}
	cmdline, err := os.ReadFile(b.cmdline)
	if err != nil {
		return err
	}
	if kernelWants(string(cmdline), "diglim") == "off" {
		b.say(informational, stderr, "off, by diglim=off on the kernel command line")
		return nil
	}
	trouble := b.log(critical, stderr)
	onfail, err := b.try(string(cmdline), trouble, b.log(informational, stderr))
	if err == nil {
		return nil
	}
	cli.Finish(err, trouble)
	trouble.end()
	switch onfail {
	case onfailPoweroff:
		b.say(critical, stderr, "powering off (onfail poweroff)")
		return b.powerOff()
	case onfailEmergency:
		b.say(critical, stderr, "asking for a shell (onfail emergency); diglim.onfail=continue and diglim=off on the kernel command line are ways back")
		if kernelWants(string(cmdline), "diglim.onfail") == "" {
			b.say(critical, stderr, "when the shell ends it is tried again; echo onfail continue >>%s, and it goes on, and denies nothing", b.conf)
		}
		return cli.Exit(exitEmergency)
	}
	b.say(critical, stderr, "going on %s (onfail continue)", b.relax(string(cmdline)))
	return cli.Exit(cli.No)
}

// try does what is to be done, or nothing. It returns what is to become of the
// boot if there is an error.
func (b *boot) try(cmdline string, stderr, stdout io.Writer) (onfail string, err error) {
	apply := applyCommand(b.gate, boots)
	onfail, err = b.configure(apply.Flags, cmdline)
	if err != nil {
		return onfail, err
	}
	if b.root == "" {
		if err := writeInitramfsList(b.initramfs, cmdline); err != nil {
			return onfail, err
		}
	}
	return onfail, apply.Run(b.lists(), stdout, stderr)
}

// relax makes what failed harmless, and says what the boot goes on with: with
// the lists that are good in mode log, or with nothing at all.
func (b *boot) relax(cmdline string) string {
	apply := applyCommand(b.gate, add)
	b.configure(apply.Flags, cmdline) // it has failed already, if it does
	apply.Flags.Set("mode", set.Log.String())
	apply.Flags.Set("lock", "false")
	apply.Run(b.lists(), io.Discard, io.Discard)
	if g, err := b.gate.Open(); err == nil {
		m, err := g.Image()
		g.Close()
		if err == nil && m.Header().Mode == set.Log {
			return "in mode log"
		}
	}
	if err := b.gate.Stop(); err != nil && !errors.Is(err, gate.ErrNone) {
		return "as it is: " + err.Error()
	}
	return "without the gate"
}

// configure sets the flags of add, by the file and the kernel command line.
func (b *boot) configure(f *flag.FlagSet, cmdline string) (onfail string, err error) {
	onfail = onfailContinue
	defer func() {
		if given := kernelWants(cmdline, "diglim.onfail"); given != "" {
			last, e := parseOnfail(given)
			if e == nil {
				onfail = last
			} else {
				err = errors.Join(err, fmt.Errorf("kernel command line: %w", e))
			}
		}
	}()
	f.Set("interface", "bpf")
	text, err := os.ReadFile(b.conf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return onfail, err
	}
	if onfail, err = setFlags(f, string(text)); err != nil {
		return onfail, fmt.Errorf("%s:%w", b.conf, err)
	}
	if b.root == "" {
		f.Set("lock", "false") // that is the last act
	} else {
		f.Set("root", b.root)
	}
	// The gate itself obeys diglim.mode=log, at all times.
	if mode := kernelWants(cmdline, "diglim.mode"); mode != "" && mode != set.Log.String() {
		if err := f.Set("mode", mode); err != nil {
			return onfail, err
		}
	}
	return onfail, nil
}

// setFlags sets the flags that a boot.conf names. Errors begin with the number
// of the line.
func setFlags(f *flag.FlagSet, text string) (onfail string, err error) {
	onfail = onfailContinue
	for o := range measured.BootOptions(text) {
		var err error
		switch o.Name {
		case "onfail":
			var given string
			if given, err = parseOnfail(o.Value); err == nil {
				onfail = given
			}
		case "interface", "root", "json":
			err = fmt.Errorf("%s has no place here", o.Name)
		default:
			flag := "--" + o.Name
			if o.Value != "" {
				flag += "=" + o.Value
			}
			_, err = cli.ParseFlags(f, []string{flag})
		}
		if err != nil {
			return onfail, fmt.Errorf("%d: %w", o.Line, err)
		}
	}
	return onfail, nil
}

// lists are the lists that the set is to be made of. Those that the initramfs
// carries were copied there when it was made, and count until there is another
// root that has lists: what an update has taken out since must not come back.
func (b *boot) lists() []string {
	own := filepath.Join(b.initramfs, measured.ListDir)
	if b.root == "" {
		return []string{own}
	}
	dir := filepath.Join(b.root, measured.ListDir)
	if names, err := digestlist.ReadDir(dir); len(names) == 0 && (err == nil || errors.Is(err, fs.ErrNotExist)) {
		return []string{own}
	}
	return []string{filepath.Join(own, measured.InitramfsList), dir}
}

// Priorities of kernel messages (syslog(2)). A console that is "quiet" shows
// what is below 4, and "loglevel=3" is as common.
const (
	critical      = 2
	informational = 6
)

// maxLogged is how many lines a message may have. A list that fails takes one,
// and nobody reads thousands.
const maxLogged = 10

// A logger writes lines to the kernel's log, each at once, or to another place
// if there is no such log.
type logger struct {
	kmsg     string
	priority int
	other    io.Writer
	rest     []byte // of what was written, behind the last line
	last     string
	lines    int
}

func (b *boot) log(priority int, stderr io.Writer) *logger {
	return &logger{kmsg: b.kmsg, priority: priority, other: stderr}
}

// say logs one line.
func (b *boot) say(priority int, stderr io.Writer, format string, args ...any) {
	fmt.Fprintf(b.log(priority, stderr), format+"\n", args...)
}

func (l *logger) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		if l.lines++; l.lines < maxLogged {
			l.put(string(line))
		}
		l.last, l.rest = string(line), rest
	}
}

// end writes the last line, which mostly says what it all comes to, and how many
// before it were too many.
func (l *logger) end() {
	if n := l.lines - maxLogged; n > 0 {
		l.put("and " + cli.Plural(n, "line") + " more")
	}
	if l.lines >= maxLogged {
		l.put(l.last)
	}
}

// maxLine is less than what the kernel takes in a line (PRINTKRB_RECORD_MAX).
const maxLine = 900

func (l *logger) put(line string) {
	line = "diglim-upload: " + line
	kmsg, err := os.OpenFile(l.kmsg, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		fmt.Fprintln(l.other, line)
		return
	}
	defer kmsg.Close()
	fmt.Fprintf(kmsg, "<%d>%s\n", l.priority, line[:min(len(line), maxLine)])
}

// asInit is for a kernel that was told rdinit=/usr/bin/diglim-upload: this is
// then the first process of all. It does the first stage, and becomes the init
// that would have been there, with the same arguments. For any other process it
// does nothing.
func asInit() {
	var root unix.Statfs_t
	if os.Getpid() != 1 || unix.Statfs("/", &root) != nil || root.Type != unix.RAMFS_MAGIC && root.Type != unix.TMPFS_MAGIC {
		return // in a container, say
	}
	undo, err := kernel.EnsureMounted()
	if err != nil {
		cli.PrintError(os.Stderr, err)
	}
	if early, err := systemMachine().early(); err == nil && !early {
		undo()
		return
	}
	next, args := "/init", os.Args[1:]
	if run([]string{"boot"}, os.Stdout, os.Stderr) == exitEmergency {
		fmt.Fprintln(os.Stderr, "diglim-upload: exec /init goes on")
		next, args = "/bin/sh", nil
	}
	// The next one mounts these itself. What the gate is pinned in cannot be
	// unmounted, and stays.
	undo()
	err = syscall.Exec(next, append([]string{next}, args...), os.Environ())
	fmt.Fprintf(os.Stderr, "diglim-upload: %s: %v\n", next, err)
}
