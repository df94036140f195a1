// Package plan is what a host tells the guest's init to do, and the names
// under which the guest leaves its results.
package plan

// Path is where the plan lies in the initramfs, as JSON.
const Path = "/plan.json"

// Out is the directory on the disk that the guest leaves its results in. Each
// command has a file with what it wrote, Name + OutputSuffix, and one with its
// exit code in decimal, Name + ExitSuffix.
const (
	Out          = "/out"
	OutputSuffix = ".output"
	ExitSuffix   = ".exit"
	KernelLog    = "kernel.log"
	Finished     = "finished" // written last
)

// A Plan is carried out from top to bottom.
type Plan struct {
	Modules  []string  // object files of kernel modules, in the initramfs
	Early    []Command // run in the initramfs, before the disk is mounted
	Commands []Command // run with the disk as the root
	Unload   []string  // names of modules to unload
}

// A Command is a program to run and wait for. Its environment is empty but for
// PATH and Env.
type Command struct {
	Name string // of the results; unique in the plan
	Argv []string
	Env  []string
}
