package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"diglim/internal/source/rpmfile"
	"diglim/test/vm"
	"diglim/test/vm/rpmbuild"
)

const (
	packages = 1000 // copies of one, so that rpmbuild runs once
	runs     = 5
)

// peers compares whole programs on the same package files: the CPU time that
// each takes, user and system. What is not installed is left out, and named.
func peers(ctx context.Context, w io.Writer) error {
	if _, err := exec.LookPath("rpmbuild"); err != nil {
		fmt.Fprintln(w, "no comparison with rpm: not installed (Debian packages rpm, librpm-dev, python3-rpm, createrepo-c)")
		return nil
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files, err := copies(ctx, dir)
	if err != nil {
		return err
	}
	gen := filepath.Join(dir, "diglim-gen")
	if err := vm.Build(ctx, gen, "diglim/cmd/diglim-gen"); err != nil {
		return err
	}
	key, db, librpm := filepath.Join(dir, "vendor.asc"), filepath.Join(dir, "db"), filepath.Join(dir, "librpm")
	if out, err := exec.CommandContext(ctx, "rpmkeys", "--dbpath", db, "--import", key).CombinedOutput(); err != nil {
		return fmt.Errorf("rpmkeys: %w\n%s", err, out)
	}
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-o", librpm, "bench/librpm/librpm.c", "-lrpm", "-lrpmio").CombinedOutput(); err != nil {
		fmt.Fprintf(w, "no comparison with librpm: %v\n%s", err, out)
		librpm = ""
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	links, err := link(dir, files)
	if err != nil {
		return err
	}
	generate := func(jobs string, more ...string) []string {
		return append([]string{gen, "rpm", "--keyring", key, "--output", filepath.Join(dir, "lists"), "--jobs", jobs}, more...)
	}
	one := func(args []string) []string { return append([]string{"taskset", "-c", "0"}, args...) }
	cached := generate("1", "--cache", filepath.Join(dir, "cache"))
	query := []string{"-qp", "--qf", "%{NAME}\n[%{FILEDIGESTS}\n]"}
	for _, g := range []group{
		{title: "signature checked, CPU a package", args: files, packages: packages, programs: []program{
			{"diglim-gen rpm", "", one(generate("1"))},
			{"librpm", "at least 1.25", []string{librpm, "check", db}},
			{"rpm -qp", "more than 1", append([]string{"rpm", "--dbpath", db}, query...)},
			{"rpm -K", "more than 1", []string{"rpmkeys", "--dbpath", db, "-K"}},
			{"python3-rpm, nothing checked", "more than 1", []string{"/usr/bin/python3", "-c", pythonReader}},
		}},
		{title: "no signature checked, CPU a package", args: files, packages: packages, programs: []program{
			{"cat", "", one([]string{"cat"})},
			{"diglim: read, check a digest, list the files", "at most 1.2", one([]string{self, readCommand})},
			{"librpm", "", []string{librpm, "trust", db}},
			{"rpm -qp", "", append([]string{"rpm", "--nosignature", "--nodigest"}, query...)},
			{"python3-rpm", "", []string{"/usr/bin/python3", "-c", pythonReader}},
		}},
		{title: "done before, CPU a package", args: []string{links}, packages: packages * linked, programs: []program{
			{"diglim-gen rpm --cache", "at most 5 us", one(cached)},
			{"list the directory, stat package and list", "", one([]string{self, statCommand})},
		}},
		{title: "elapsed time a package", args: files, packages: packages, elapsed: true, programs: []program{
			{"diglim-gen rpm --jobs 2", "", generate("2")},
			{"diglim-gen rpm --jobs 1, on one core", "at least 1.7", one(generate("1"))},
		}},
	} {
		fmt.Fprintln(w)
		if err := g.compare(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// linked is how many names each package has where there is hardly anything to
// do for a package: starting a program takes some milliseconds.
const linked = 20

// link makes a directory with that many names for each file.
func link(dir string, files []string) (string, error) {
	links := filepath.Join(dir, "links")
	for i := range linked {
		sub := filepath.Join(links, fmt.Sprint(i))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return "", err
		}
		for _, f := range files {
			if err := os.Link(f, filepath.Join(sub, filepath.Base(f))); err != nil {
				return "", err
			}
		}
	}
	return links, nil
}

// What this program can do instead of comparing, as a program to compare.
const (
	readCommand = "read" // packages: parse them, list their files
	statCommand = "stat" // a directory: stat what is below it twice
)

// readPackages does what comes before checking a signature.
func readPackages(files []string) error {
	buf := make([]byte, 64<<10)
	for _, path := range files {
		p, _, err := rpmfile.At(path).Read(buf)
		if err != nil {
			return err
		}
		for _, err := range p.Header.Files() {
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// statTwice does what a run with a cache cannot do without.
func statTwice(dir string) error {
	files, errs := rpmfile.Find([]string{dir})
	for _, f := range files {
		rpmfile.At(f.Path)
	}
	return errors.Join(errs...)
}

// pythonReader is what policy tools do: headers, without a look at signatures.
const pythonReader = `
import rpm, sys
ts = rpm.TransactionSet()
ts.setVSFlags(rpm._RPMVSF_NOSIGNATURES | rpm._RPMVSF_NODIGESTS)
for path in sys.argv[1:]:
    with open(path) as f:
        h = ts.hdrFromFdno(f)
        for f in rpm.files(h): f.digest
`

// copies builds and signs a package, and copies it.
func copies(ctx context.Context, dir string) ([]string, error) {
	var contents []vm.File
	for i := range 100 {
		contents = append(contents, vm.File{Name: fmt.Sprintf("usr/share/bench/%02d/file-%d", i%7, i), Mode: 0o644, Data: []byte(fmt.Sprint(i))})
	}
	b, err := rpmbuild.New(ctx, filepath.Join(dir, "packages"), filepath.Join(dir, "vendor.asc"), "rsa4096")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(b.Pack(ctx, "bench", contents...), b.Close()); err != nil {
		return nil, err
	}
	made, err := filepath.Glob(filepath.Join(dir, "packages", "*.rpm"))
	if err != nil || len(made) != 1 {
		return nil, fmt.Errorf("packages %v, %w", made, err)
	}
	data, err := os.ReadFile(made[0])
	if err != nil {
		return nil, err
	}
	var files []string
	for i := range packages {
		path := filepath.Join(dir, "packages", fmt.Sprintf("%04d.rpm", i))
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return nil, err
		}
		files = append(files, path)
	}
	return files, nil
}

// A program is one of a group, with what it is given before the packages.
type program struct {
	label string
	asked string // of its ratio, if anything is
	args  []string
}

// A group is programs that do the same.
type group struct {
	title    string
	args     []string // what stands for the packages
	packages int
	elapsed  bool // time, not CPU time
	programs []program
}

// compare lets programs take turns. The first is 1.00.
func (g group) compare(ctx context.Context, w io.Writer) error {
	programs := slices.DeleteFunc(g.programs, func(p program) bool {
		_, err := exec.LookPath(p.args[0])
		return err != nil
	})
	times := make([][]float64, len(programs))
	for round := range runs + 1 { // the first one fills caches, and does not count
		for i, p := range programs {
			cmd := exec.CommandContext(ctx, p.args[0], append(slices.Clone(p.args[1:]), g.args...)...)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			start := time.Now()
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s: %w\n%s", p.label, err, &stderr)
			}
			took := time.Since(start)
			if !g.elapsed {
				took = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			}
			if round > 0 {
				times[i] = append(times[i], float64(took)/float64(time.Microsecond)/float64(g.packages))
			}
		}
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "%s\tmedian\tspread\tratio\tasked\t\n", g.title)
	var base float64
	for i, p := range programs {
		slices.Sort(times[i])
		median := times[i][runs/2]
		if i == 0 {
			base = median
		}
		fmt.Fprintf(tw, "%s\t%.1f us\t%.1f-%.1f\t%.2f\t%s\t\n", p.label, median, times[i][0], times[i][runs-1], median/base, p.asked)
	}
	return tw.Flush()
}
