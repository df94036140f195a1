//go:build !nobpf && (amd64 || arm64)

package gate

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"io"

	"github.com/cilium/ebpf"
)

//go:generate ./compile .

// The programs of gate.bpf.c and lock.bpf.c.
var (
	//go:embed gate.o.gz
	gateObject []byte
	//go:embed lock.o.gz
	lockObject []byte
)

// readObject describes the programs and maps of an object.
func readObject(packed []byte) (*ebpf.CollectionSpec, error) {
	object, err := unpack(packed)
	if err != nil {
		return nil, err
	}
	return ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
}

func unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}
