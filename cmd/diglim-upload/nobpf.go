//go:build nobpf || !(amd64 || arm64)

package main

import (
	"errors"
	"flag"

	"diglim/internal/cli"
	"diglim/internal/measured"
)

// lacks is what --help says of this build.
const lacks = "\n\nBuilt without BPF: there is no gate, no boot, and nothing is measured."

// gateway is the gate, which is not built in.
type gateway struct{}

func systemGate() gateway { return gateway{} }

func openGateSystem(gateway, string) (system, error) { return nil, errors.New("built without BPF") }

func gateCommands(gateway) []*cli.Command { return nil }

func asInit() {}

// gateFlags are the flags of an application to the gate: none.
type gateFlags struct{ given string }

func (gateFlags) flags(*flag.FlagSet) {}
func (gateFlags) set(*flag.FlagSet)   {}

// measuring is not built in: kernels that verify lists measure them, too.
type measuring struct{}

func (measuring) flags(*flag.FlagSet)           {}
func (measuring) begin(securityfs string) error { return nil }
func (measuring) config(measured.Config) error  { return nil }
func (measuring) list(string, []byte) error     { return nil }
func (measuring) end() error                    { return nil }
