// Demo plays the story of package story and shows it: every command that a
// user would type, with what it really prints. Where there is no way to boot a
// guest, the guest's part is taken from a recording, and it says so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"diglim/rpmhdr"
	"diglim/test/vm"
	"diglim/test/vm/story"
)

func main() {
	recorded := flag.Bool("recorded", false, "play the recording, also where a guest could be booted")
	record := flag.Bool("record", false, "replace the recording by this run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, filepath.Join("build", "demo"), *recorded, *record); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// series is that of the kernel that the demo boots.
const series = "6.12"

type demo struct {
	*story.Story
	recorded bool // the guest's part is
}

// run plays the demo in a directory, which it empties first.
func run(ctx context.Context, dir string, recorded, record bool) error {
	start := time.Now()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	root, err := vm.Root()
	if err != nil {
		return err
	}
	recording := filepath.Join(root, "test", "vm", "demo", "recorded")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	d := demo{recorded: recorded}
	if missing := story.Missing(); len(missing) > 0 {
		say("Not installed, and so no guest can be booted: %s.", strings.Join(missing, " "))
		d.recorded = true
	}
	if d.recorded {
		say("THE GUEST IS A RECORDING of an earlier run of this demo: the headers of its packages, what it\nprinted, and the evidence that it collected. All that a vendor and a verifier do is done now.")
		err = d.load(ctx, dir, recording)
	} else {
		say("The guest is real: a stock Debian kernel in QEMU, with a TPM in software.")
		err = d.prepare(ctx, dir)
	}
	if err != nil {
		return err
	}
	if err := d.play(ctx); err != nil {
		return err
	}
	say("Packages, lists and evidence lie in %s. All this took %.0f s.", dir, time.Since(start).Seconds())
	if record {
		return saveRecording(dir, recording)
	}
	return nil
}

// prepare makes the vendor's packages.
func (d *demo) prepare(ctx context.Context, dir string) error {
	k, err := vm.Fetch(ctx, series)
	if err != nil {
		return err
	}
	d.Story = story.New(dir, k)
	return d.Package(ctx)
}

// load takes the recording, and builds the programs only.
func (d *demo) load(ctx context.Context, dir, recording string) error {
	if err := os.CopyFS(dir, os.DirFS(recording)); err != nil {
		return err
	}
	var err error
	if d.Story, err = story.Load(dir); err != nil {
		return err
	}
	return d.Build(ctx)
}

func (d *demo) play(ctx context.Context) error {
	say("1. A vendor has built and signed packages: a program called hello, a shell, these tools, and what\n   boots the machine. Their signed headers become digest lists.")
	if err := d.commands(0,
		"ls packages",
		"diglim-gen rpm --keyring vendor.asc --output lists packages",
		"diglim-gen show --keyring vendor.asc lists/0-file_list-rpm-hello-1.0-1.x86_64",
	); err != nil {
		return err
	}

	say("2. A machine boots, with the lists in its initramfs. They are proved by the vendor's key, and\n   become the set of a gate in the kernel before anything else runs. Then one program is changed by a\n   byte, and run: the gate tells of it. Before and after, the machine is asked for evidence. At last\n   the gate is told to deny what is in no list. (Linux %s, stock.)", d.Release)
	if !d.recorded {
		if err := d.Boot(ctx); err != nil {
			return err
		}
	}
	for _, r := range d.Runs {
		fmt.Printf("guest# %s\n%s", line(r.Argv), r.Output)
		if r.Exit != 0 && r.Name != story.Denied {
			return fmt.Errorf("in the guest: %s: exit code %d", r.Name, r.Exit)
		}
	}

	say("3. The verifier knows the key of this machine's TPM, and asked a question that nobody asked before.\n   What ran before the change is all in the lists.")
	check := "attest-verify check --lists lists --keyring vendor.asc --ak enrolled.pub --nonce "
	if err := d.commands(0, "cp evidence/before/ak.pub enrolled.pub", check+d.NonceBefore+" --verbose evidence/before"); err != nil {
		return err
	}
	say("4. One byte more in one program, and the verifier names it.")
	return d.commands(1, check+d.NonceAfter+" evidence/after")
}

// commands shows commands, runs them in the story's directory and wants that
// exit code of each.
func (d *demo) commands(want int, lines ...string) error {
	for _, text := range lines {
		fmt.Printf("$ %s\n", text)
		args := strings.Fields(text)
		if own := filepath.Join(d.Dir, "bin", args[0]); exists(own) {
			args[0] = own
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = d.Dir, os.Stdout, os.Stdout
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return err
		}
		got := cmd.ProcessState.ExitCode()
		if got != 0 {
			fmt.Printf("exit code %d\n", got)
		}
		if got != want {
			return fmt.Errorf("%s: exit code %d, want %d", text, got, want)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// line is a command line as one types it; of a call of the shell, its script.
func line(argv []string) string {
	if len(argv) == 4 && argv[1] == "sh" {
		return argv[3]
	}
	return strings.Join(argv, " ")
}

func say(format string, args ...any) { fmt.Printf("\n"+format+"\n\n", args...) }

// saveRecording keeps of a run what a verifier needs: of the packages, what
// stands before the payload.
func saveRecording(dir, recording string) error {
	if err := os.RemoveAll(recording); err != nil {
		return err
	}
	for _, name := range []string{"evidence", "packages"} {
		if err := os.CopyFS(filepath.Join(recording, name), os.DirFS(filepath.Join(dir, name))); err != nil {
			return err
		}
	}
	packages, err := filepath.Glob(filepath.Join(recording, "packages", "*.rpm"))
	if err != nil {
		return err
	}
	for _, path := range packages {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		p, err := rpmhdr.ParsePackage(b)
		if err != nil {
			return err
		}
		if err := os.Truncate(path, p.Size); err != nil {
			return err
		}
	}
	for _, name := range []string{"vendor.asc", "told.json"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(recording, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
