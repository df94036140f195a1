package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"diglim/digestlist"
	"diglim/internal/cli"
	"diglim/internal/kernel"
	"diglim/internal/kernel/diglim"

	"github.com/spf13/cobra"
)

// target is the flags that say which kernel interface to speak to.
type target struct {
	name       string
	securityfs string
}

func (t *target) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.name, "interface", "auto", "kernel interface: auto or diglim (DIGLIM v3)")
	f.StringVar(&t.securityfs, "securityfs", kernel.Securityfs, "where securityfs is mounted; the usual `directory` is mounted if it is not")
}

// open mounts what is missing and finds the interface. The function returned
// undoes the mounts, whether there is an error or not.
func (t *target) open() (*diglim.Interface, func() error, error) {
	undo := func() error { return nil }
	if t.name != "auto" && t.name != "diglim" {
		return nil, undo, fmt.Errorf("interface %q is not known: auto and diglim are", t.name)
	}
	if t.securityfs == kernel.Securityfs {
		var err error
		if undo, err = kernel.EnsureMounted(); err != nil {
			return nil, undo, cli.Hint(err, "run this as root")
		}
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, undo, err
	}
	i, err := diglim.Open(t.securityfs, string(cmdline))
	if err != nil {
		return nil, undo, cli.Hint(fmt.Errorf("no kernel interface accepts digest lists here\n  diglim  %w", err),
			"boot a kernel with DIGLIM v3")
	}
	return i, undo, nil
}

func applyCommand(verb string) *cobra.Command {
	var t target
	var buffered bool
	op := map[string]diglim.Op{"add": diglim.Add, "del": diglim.Del}[verb]
	cmd := &cobra.Command{
		Use:   verb + " [flags] LIST|DIR...",
		Short: map[diglim.Op]string{diglim.Add: "add digest lists to what the kernel knows", diglim.Del: "take digest lists away from the kernel"}[op],
		Long: `Goes through the lists, and those in directories, in the order of their names:
by the number in front, then by bytes. Compact lists are given to the kernel by
path; rpm lists are converted. A list that the kernel has already (or, for del,
does not have) is no error. Nothing is checked of the lists' signatures: that is
the kernel's part, by its IMA policy.`,
		Args: cobra.MinimumNArgs(1),
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&buffered, "buffer", false, "give the kernel the content of compact lists instead of their path")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		start := time.Now()
		i, undo, err := t.open()
		defer func() { err = errors.Join(err, undo()) }()
		if err != nil {
			return err
		}
		stderr := cmd.ErrOrStderr()
		paths, failed := findLists(args, stderr)
		var digests, lists, before int
		for _, path := range paths {
			r, err := apply(i, op, path, buffered)
			if err != nil {
				fmt.Fprintf(stderr, "error: %s: %s\n", cli.Text(path), cli.Text(err.Error()))
				failed++
				continue
			}
			digests += r.Digests
			lists++
			if !r.Done {
				before++
			}
		}
		already := map[diglim.Op]string{diglim.Add: "there before", diglim.Del: "not there"}[op]
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "diglim: %s %s from %s in %.2f s (%s %s, %s failed)\n",
			map[diglim.Op]string{diglim.Add: "added", diglim.Del: "deleted"}[op], cli.Plural(digests, "digest"), cli.Plural(lists, "list"),
			time.Since(start).Seconds(), cli.Count(before), already, cli.Count(failed))
		if err != nil {
			return err
		}
		if failed > 0 {
			return cli.Exit(cli.No)
		}
		return nil
	}
	return cmd
}

// findLists returns the lists that the arguments stand for, absolute and in
// the order of their names, and how many arguments led nowhere.
func findLists(args []string, stderr io.Writer) (paths []string, failed int) {
	fail := func(err error) {
		fmt.Fprintf(stderr, "error: %v\n", err)
		failed++
	}
	for _, arg := range args {
		arg, err := filepath.Abs(arg)
		if err != nil {
			fail(err)
			continue
		}
		info, err := os.Stat(arg)
		if err != nil {
			fail(err)
			continue
		}
		if !info.IsDir() {
			paths = append(paths, arg)
			continue
		}
		names, err := digestlist.ReadDir(arg)
		if err != nil {
			fail(err)
		}
		for _, name := range names {
			paths = append(paths, filepath.Join(arg, name))
		}
	}
	slices.SortStableFunc(paths, func(a, b string) int {
		return digestlist.CompareNames(filepath.Base(a), filepath.Base(b))
	})
	return paths, failed
}

func apply(i *diglim.Interface, op diglim.Op, path string, buffered bool) (diglim.Result, error) {
	content, format, err := digestlist.ReadFile(path)
	if err != nil {
		return diglim.Result{}, err
	}
	return i.Apply(op, diglim.List{Path: path, Format: format, Content: content}, buffered)
}
