// Guestseal prints a secret that the guest's TPM gives out while a PCR has the
// value that the secret is sealed to.
package main

import (
	"fmt"
	"os"
	"strconv"

	"diglim/test/vm/seal"

	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "guestseal:", err)
		os.Exit(1)
	}
}

func run(file, pcr string) error {
	n, err := strconv.ParseUint(pcr, 10, 8)
	if err != nil {
		return err
	}
	blob, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	t, err := linuxtpm.Open("/dev/tpm0")
	if err != nil {
		return err
	}
	defer t.Close()
	secret, err := seal.Unseal(t, blob, uint(n))
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", secret)
	return nil
}
