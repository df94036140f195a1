// Diglim-upload feeds digest lists to the kernel, before anything else runs.
//
// The kernel itself may start it: with an empty environment, and with nothing
// open. (The Go runtime then wants /dev/null to exist.)
package main

import (
	"io"
	"os"

	"diglim/internal/cli"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, errorOutput())) }

func run(args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "diglim-upload",
		Short: "feed digest lists to the kernel",
		Long: `diglim-upload feeds digest lists to the kernel, in the order of their names.

Exit code: 0 if all went well, 1 if a list failed (the others are uploaded all
the same), 2 if there is nobody to feed (usage, no interface).`,
	}
	root.AddCommand(applyCommand("add"), applyCommand("del"), statusCommand())
	return cli.Run(root, args, stdout, stderr)
}

// errorOutput is standard error, or the kernel's log if that was closed:
// somebody will want to know why the boot went wrong.
func errorOutput() io.Writer {
	var st unix.Stat_t
	null := unix.Mkdev(1, 3)
	if err := unix.Fstat(unix.Stderr, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == null {
		if kmsg, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
			return prefixed{kmsg}
		}
	}
	return os.Stderr
}

// prefixed says in front of each line whose it is.
type prefixed struct{ w io.Writer }

func (p prefixed) Write(b []byte) (int, error) {
	if _, err := p.w.Write(append([]byte("diglim-upload: "), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}
