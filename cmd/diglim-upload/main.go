// Diglim-upload feeds digest lists to the kernel, before anything else runs.
//
// The kernel itself may start it: with an empty environment, and with nothing
// open. (The Go runtime then wants /dev/null to exist.)
package main

import (
	"io"
	"os"

	"diglim/internal/cli"

	"golang.org/x/sys/unix"
)

func main() {
	asInit()
	os.Exit(run(os.Args[1:], os.Stdout, errorOutput()))
}

func run(args []string, stdout, stderr io.Writer) int {
	return program(systemGate()).Run(args, stdout, stderr)
}

// program is all commands; those of BPF work on that gate.
func program(g gateway) *cli.Program {
	return &cli.Program{
		Name: "diglim-upload",
		Long: `diglim-upload feeds digest lists to the kernel, in the order of their names.

Exit code: 0 if all went well, 1 if a list failed (the others are uploaded all
the same) or what was asked for is refused, 2 if there is nobody to feed (usage,
no interface), 3 if boot asks for a shell.` + lacks,
		Commands: append([]*cli.Command{
			applyCommand(g, "add"),
			applyCommand(g, "del"),
			statusCommand(g),
			queryCommand(g),
			countCommand(g),
		}, gateCommands(g)...),
	}
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
