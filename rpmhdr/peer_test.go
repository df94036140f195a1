package rpmhdr_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"diglim/internal/corpus"
	"diglim/rpmhdr"

	"github.com/sassoftware/go-rpmutils"
)

// What this package reads of real packages, another reader reads too: names
// and, file by file, path, mode, size and digest.
func TestSameAsPeer(t *testing.T) {
	compared := 0
	for path := range corpus.Manifest(t, "rpm") {
		b := corpus.Read(t, path)
		p, err := rpmhdr.ParsePackage(b)
		if err != nil {
			continue // the table of the corpus has the reason
		}
		peer, err := rpmutils.ReadHeader(bytes.NewReader(b))
		if err != nil {
			t.Errorf("%s: the peer refuses it: %v", path, err)
			continue
		}
		samePackage(t, filepath.Base(path), p.Header, peer)
		compared++
	}
	if compared < 150 {
		t.Errorf("%d packages compared", compared)
	}
}

func samePackage(t *testing.T, name string, h rpmhdr.Header, peer *rpmutils.RpmHeader) {
	t.Helper()
	nevra, err := h.NEVRA()
	theirs, err2 := peer.GetNEVRA()
	if err != nil || err2 != nil {
		t.Errorf("%s: %v, peer %v", name, err, err2)
		return
	}
	if theirs.Name != nevra.Name || theirs.Version != nevra.Version || theirs.Release != nevra.Release ||
		theirs.Arch != nevra.Arch && nevra.Arch != "src" && nevra.Arch != "nosrc" {
		t.Errorf("%s: %v, peer %v", name, nevra, theirs)
	}
	files, err := peer.GetFiles()
	if err != nil {
		t.Errorf("%s: the peer finds no files: %v", name, err)
		return
	}
	i := 0
	for f, err := range h.Files() {
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		if i >= len(files) {
			t.Errorf("%s: the peer has %d files only", name, len(files))
			return
		}
		g := files[i]
		digest := ""
		if !f.Digest.IsZero() {
			digest = f.Digest.Hex()
		}
		if g.Name() != f.Path() || uint64(g.Size()) != f.Size || uint16(g.Mode()) != f.Mode || g.Digest() != digest || g.Linkname() != string(f.Link) {
			t.Errorf("%s: file %d: %s %d %o %s, peer %s %d %o %s", name, i, f.Path(), f.Size, f.Mode, digest, g.Name(), g.Size(), g.Mode(), g.Digest())
		}
		i++
	}
	if i != len(files) {
		t.Errorf("%s: %d files, the peer has %d", name, i, len(files))
	}
}
