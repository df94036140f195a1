//go:build nobpf || !(amd64 || arm64)

package gate

import (
	"context"
	"errors"

	"diglim/internal/kernel/gate/set"
)

var errBuild = errors.New("built without BPF")

// A Gate cannot be had here.
type Gate struct{}

// Probe says that this program was built without BPF.
func Probe() error { return errBuild }

func Start(*set.Image) (*Gate, error)                  { return nil, errBuild }
func Open() (*Gate, error)                             { return nil, errBuild }
func Stop() error                                      { return errBuild }
func Lock() error                                      { return errBuild }
func Locked() (bool, error)                            { return false, nil }
func (*Gate) Replace(*set.Image) error                 { return errBuild }
func (*Gate) Image() (*set.Image, error)               { return nil, errBuild }
func (*Gate) Status() (Status, error)                  { return Status{}, errBuild }
func (*Gate) Watch(context.Context, func(Event)) error { return errBuild }
func (*Gate) Close() error                             { return nil }
