//go:build !nobpf && (amd64 || arm64)

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"diglim/internal/cli"
	"diglim/internal/kernel/measure"
	"diglim/internal/measured"
)

// measuring is what is measured of an application, each part before it is used.
type measuring struct {
	pcr      int               // 0 is the one that was measured into since the boot, if there is one
	measurer *measure.Measurer // nil measures nothing
}

func (m *measuring) flags(f *flag.FlagSet) {
	f.Func("measure-pcr", "`PCR` to measure the settings, the keys and the lists into: 8, 9, 12, 13 or 14 (default: as it is, none at first)", func(value string) error {
		pcr, err := strconv.Atoi(value)
		if err != nil {
			return errors.New("not a number")
		}
		m.pcr = pcr
		return measured.CheckPCR(pcr)
	})
	f.BoolFunc("measure", fmt.Sprintf("the same as --measure-pcr %d, the usual one", measured.UsualPCR), func(value string) error {
		on, err := strconv.ParseBool(value)
		if err != nil {
			return errors.New("neither true nor false")
		}
		m.pcr = 0
		if on {
			m.pcr = measured.UsualPCR
		}
		return nil
	})
}

// begin has the kernel take the policy for it, if it has not.
func (m *measuring) begin(securityfs string) error {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	m.measurer, err = measure.Open(securityfs, string(cmdline), m.pcr)
	switch {
	case errors.Is(err, measure.ErrTooLate):
		err = cli.Hint(err, "give it to diglim-upload, which has to be first, as %s", measured.EarlyPolicy)
	case errors.Is(err, measure.ErrNoTPM):
		err = cli.Hint(err, "it takes a TPM 2.0 that is there before modules are loaded (/sys/class/tpm)")
	}
	if err != nil {
		return &cli.ExitError{Code: cli.No, Err: err}
	}
	return nil
}

// config measures the settings that will be in force, and this program.
func (m *measuring) config(c measured.Config) error {
	if m.measurer == nil {
		return nil
	}
	c.PCR = m.measurer.PCR()
	if err := m.file(measured.ConfigName, c.Text()); err != nil {
		return err
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return m.file(measured.ProgramName, program)
}

// list measures what was read of a list.
func (m *measuring) list(path string, content []byte) error {
	return m.file(measured.ListName(filepath.Base(path)), content)
}

func (m *measuring) file(name string, content []byte) error { return m.measurer.File(name, content) }

func (m *measuring) end() error { return m.measurer.Close() }
