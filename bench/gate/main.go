// Gate measures what the gate costs a program that it knows, in guests: they
// are emulated, so only the ratios mean something.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"diglim/test/vm"
	"diglim/test/vm/plan"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
}

func run(ctx context.Context, w io.Writer) error {
	for _, series := range vm.Series {
		k, err := vm.Fetch(ctx, series)
		if err != nil {
			return err
		}
		if err := measure(ctx, w, k); err != nil {
			return err
		}
	}
	return nil
}

// Where the program runs from: a file system where digests are kept, and one
// where each run hashes the file.
var places = []struct{ name, dir string }{
	{"ext4", "/gate"},
	{"overlayfs", "/merged"},
}

func measure(ctx context.Context, w io.Writer, k vm.Kernel) error {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m, err := machine(ctx, dir, k)
	if err != nil {
		return err
	}
	r, err := vm.Boot(ctx, m)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "%s: a known program of 2 MB runs\tfirst\tmedian\tspread\tratio\t\n", k.Release)
	for _, place := range places {
		without, err := result(r, "without "+place.name)
		if err != nil {
			return err
		}
		fmt.Fprintf(tw, "%s, no gate\t%d us\t%d us\t%d-%d\t1.00\t\n", place.name, without[0], without[1], without[2], without[3])
		for _, when := range []string{"gate", "another set"} {
			with, err := result(r, when+" "+place.name)
			if err != nil {
				return err
			}
			fmt.Fprintf(tw, "%s, %s\t%d us\t%d us\t%d-%d\t%.2f\t\n", place.name, when, with[0], with[1], with[2], with[3], float64(with[1])/float64(without[1]))
		}
	}
	return tw.Flush()
}

// machine makes a guest that measures first without, then with a gate, then
// after its set was replaced.
func machine(ctx context.Context, dir string, k vm.Kernel) (vm.Machine, error) {
	m := vm.Machine{Kernel: k, Initrd: filepath.Join(dir, "initrd"), Disk: filepath.Join(dir, "disk")}
	tree := filepath.Join(dir, "tree")
	gate := filepath.Join(tree, "gate")
	if err := os.MkdirAll(gate, 0o755); err != nil {
		return m, err
	}
	if err := vm.Build(ctx, filepath.Join(gate, "guestgate"), "diglim/test/vm/guestgate"); err != nil {
		return m, err
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return m, err
	}
	if err := os.WriteFile(filepath.Join(gate, "busybox"), busybox, 0o755); err != nil {
		return m, err
	}
	overlay, err := k.Module(ctx, "overlay")
	if err != nil {
		return m, err
	}

	guestgate := func(name string, args ...string) plan.Command {
		return plan.Command{Name: name, Argv: append([]string{"/gate/guestgate"}, args...)}
	}
	p := plan.Plan{Modules: []string{"/overlay.ko"}, Commands: []plan.Command{{
		Name: "overlay",
		Argv: []string{"/gate/busybox", "sh", "-c", "cd /gate && ./busybox mkdir -p /merged /tmp/upper /tmp/work && ./busybox mount -t overlay overlay -o lowerdir=/gate,upperdir=/tmp/upper,workdir=/tmp/work /merged"},
	}}}
	for _, when := range []string{"without", "gate", "another set"} {
		switch when {
		case "gate":
			p.Commands = append(p.Commands, guestgate("start", "start", "enforce", "/gate/busybox"))
		case "another set":
			p.Commands = append(p.Commands, guestgate("renew", "renew"))
		}
		for _, place := range places {
			p.Commands = append(p.Commands, guestgate(when+" "+place.name, "cost", place.dir+"/busybox"))
		}
	}
	if err := vm.WriteInitrd(ctx, m.Initrd, k, p, vm.File{Name: "overlay.ko", Mode: 0o644, Data: overlay}); err != nil {
		return m, err
	}
	return m, vm.WriteDisk(ctx, m.Disk, tree, 64<<20)
}

// result reads what "guestgate cost" printed: first run, median, least, most.
func result(r vm.Result, command string) (times [4]int64, err error) {
	output, exit, err := r.Command(command)
	if err != nil {
		return times, err
	}
	if _, err := fmt.Sscanf(output, "cost\t%d %d %d %d\n", &times[0], &times[1], &times[2], &times[3]); err != nil || exit != 0 {
		return times, fmt.Errorf("%s: exit code %d: %s", command, exit, output)
	}
	return times, nil
}
