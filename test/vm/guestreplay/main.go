// Command guestreplay makes, in a guest, the system calls on the DIGLIM
// interface whose outcome with the original code has been recorded, and prints
// one line a case: case id, list written, result, errno, observed, as the
// recording has them, separated by tabs. The case ids and the words of what was
// observed are those of the recording.
//
// The argument says which cases: nopol, crash, big or stress.
package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: guestreplay nopol|crash|big|stress")
		os.Exit(2)
	}
	r := &replay{out: bufio.NewWriter(os.Stdout)}
	switch os.Args[1] {
	case "nopol":
		r.scenario = "nopol"
		r.openCases()
		r.busyCases()
		r.bufferCases()
		r.pathCases()
		r.signatureCases()
		r.formatCases()
		r.duplicateCases()
		r.writeCases()
		r.labelCases()
		r.queryCases()
		r.endCases()
		r.fileCases()
	case "crash":
		r.crashCases()
	case "big":
		r.scenario = "big"
		r.bigCases()
	case "stress":
		r.scenario = "stress"
		r.stress()
		r.memory()
	default:
		r.fail(fmt.Errorf("no cases %q", os.Args[1]))
	}
	if r.err == nil {
		r.err = r.out.Flush()
	}
	if r.err != nil {
		fmt.Fprintln(os.Stderr, "guestreplay:", r.err)
		os.Exit(1)
	}
}
