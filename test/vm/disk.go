package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"diglim/test/vm/plan"
)

// Build builds a static program for a guest from a Go package of the
// repository, named by its import path.
func Build(ctx context.Context, output, pkg string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	output, err = filepath.Abs(output)
	if err != nil {
		return err
	}
	if _, err := run(ctx, root, "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", output, pkg); err != nil {
		return err
	}

	// go test repeats an old result while the files that the test has looked at
	// are the same. So look at the sources.
	const sources = `{{if not .Standard}}{{$dir := .Dir}}{{range .GoFiles}}{{$dir}}/{{.}}{{"\n"}}{{end}}{{end}}`
	out, err := run(ctx, root, "go", "list", "-deps", "-f", sources, pkg)
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(out) {
		if _, err := os.Stat(name); err != nil {
			return err
		}
	}
	return nil
}

// InitFiles returns the files of an initramfs for k that carries out the plan:
// its first process, which is built below dir, the plan itself and the modules
// for the disk, which come before the plan's own.
func InitFiles(ctx context.Context, dir string, k Kernel, p plan.Plan) ([]File, error) {
	modules, err := k.disk(ctx)
	if err != nil {
		return nil, err
	}
	all := p
	all.Modules = nil
	for _, m := range modules {
		all.Modules = append(all.Modules, "/"+m.Name)
	}
	all.Modules = append(all.Modules, p.Modules...)
	data, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	init := filepath.Join(dir, "guestinit")
	if err := Build(ctx, init, "diglim/test/vm/guestinit"); err != nil {
		return nil, err
	}
	return append(modules,
		File{Name: "init", Mode: 0o755, Path: init},
		File{Name: plan.Path[1:], Mode: 0o644, Data: data}), nil
}

// WriteInitrd writes an initramfs for k that carries out the plan. files are
// what the plan needs of programs, modules and data before the disk is mounted.
func WriteInitrd(ctx context.Context, path string, k Kernel, p plan.Plan, files ...File) error {
	dir, err := os.MkdirTemp("", "init-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	own, err := InitFiles(ctx, dir, k, p)
	if err != nil {
		return err
	}
	return WriteArchive(path, append(files, own...))
}

// WriteArchive writes files as an initramfs.
func WriteArchive(path string, files []File) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(WriteCPIO(f, files), f.Close())
}

// WriteDisk writes an ext4 image of size bytes that holds the tree below dir,
// with owners and extended attributes. There is no journal: what the guest has
// synced is in the image.
func WriteDisk(ctx context.Context, path, dir string, size int64) error {
	return writeDisk(ctx, path, dir, size, "^has_journal,verity")
}

// WriteJournaledDisk is WriteDisk for a machine that may be cut off.
func WriteJournaledDisk(ctx context.Context, path, dir string, size int64) error {
	return writeDisk(ctx, path, dir, size, "has_journal")
}

func writeDisk(ctx context.Context, path, dir string, size int64, features string) error {
	const block = 4096
	_, err := run(ctx, "", "mke2fs", "-q", "-F", "-t", "ext4", "-O", features,
		"-b", strconv.Itoa(block), "-d", dir, path, strconv.FormatInt(size/block, 10))
	return err
}

// readOut copies the results from a disk to dir.
func readOut(ctx context.Context, disk, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	tmp := dir + ".rdump"
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	// What the guest has synced may be in the journal, if there is one.
	if _, err := run(ctx, tmp, "e2fsck", "-y", "-E", "journal_only", disk); err != nil {
		return err
	}
	// debugfs does not fail when its command does.
	if _, err := run(ctx, tmp, "debugfs", "-R", "rdump "+plan.Out+" .", disk); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(tmp, plan.Out), dir); err != nil {
		return fmt.Errorf("no results on the disk: %w", err)
	}
	return nil
}
