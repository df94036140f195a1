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
	ours := []string{"taskset", "-c", "0", gen, "rpm", "--keyring", key, "--jobs", "1", "--output", filepath.Join(dir, "lists")}
	cache := append(slices.Clone(ours), "--cache", filepath.Join(dir, "cache"))
	for _, group := range []struct {
		title    string
		programs [][]string
	}{
		{"signature checked", [][]string{ours, {librpm, "check", db}, {"rpm", "--dbpath", db, "-qp", "--qf", "%{NAME}\n[%{FILEDIGESTS}\n]"}, {"rpmkeys", "--dbpath", db, "-K"}}},
		{"nothing checked (the first one checks)", [][]string{ours, {"cat"}, {librpm, "trust", db}, {"rpm", "-qp", "--nosignature", "--nodigest", "--qf", "%{NAME}\n[%{FILEDIGESTS}\n]"},
			{"/usr/bin/python3", "-c", pythonReader}}},
		{"done before (the first one anew)", [][]string{ours, cache}},
	} {
		fmt.Fprintln(w)
		if err := comparePrograms(ctx, w, group.title, group.programs, files); err != nil {
			return err
		}
	}
	return nil
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

// comparePrograms lets programs take turns on the files. The first is 1.00.
func comparePrograms(ctx context.Context, w io.Writer, title string, programs [][]string, files []string) error {
	programs = slices.DeleteFunc(programs, func(p []string) bool {
		_, err := exec.LookPath(p[0])
		return err != nil
	})
	times := make([][]float64, len(programs))
	for range runs {
		for i, p := range programs {
			cmd := exec.CommandContext(ctx, p[0], append(slices.Clone(p[1:]), files...)...)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%v: %w\n%s", p[:2], err, &stderr)
			}
			cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			times[i] = append(times[i], float64(cpu.Microseconds())/packages)
		}
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "%s, CPU a package\tmedian\tspread\tratio\t\n", title)
	var base float64
	for i, p := range programs {
		slices.Sort(times[i])
		median := times[i][runs/2]
		if i == 0 {
			base = median
		}
		fmt.Fprintf(tw, "%s\t%.0f us\t%.0f-%.0f\t%.2f\t\n", label(p), median, times[i][0], times[i][runs-1], median/base)
	}
	return tw.Flush()
}

// label is a program with what matters of its arguments.
func label(p []string) string {
	words := []string{filepath.Base(p[0])}
	if p[0] == "taskset" {
		words, p = []string{"diglim-gen rpm"}, p[4:]
	}
	for _, a := range p[1:] {
		if slices.Contains([]string{"-qp", "-K", "check", "trust", "--nosignature", "--cache"}, a) {
			words = append(words, a)
		}
	}
	return strings.Join(words, " ")
}
