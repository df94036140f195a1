package rpmhdr

import "fmt"

// A NEVRA names a package.
type NEVRA struct {
	Name    string
	Epoch   uint32 // 0 where the header has none, as rpm compares it
	Version string
	Release string
	Arch    string // "src" or "nosrc" of a source package
}

// String returns name-version-release.arch, as package files are called.
func (n NEVRA) String() string {
	return n.Name + "-" + n.Version + "-" + n.Release + "." + n.Arch
}

// NEVRA returns the package's name. It is text from the header: it can have
// any byte but NUL in it.
func (h Header) NEVRA() (NEVRA, error) {
	var n NEVRA
	for _, f := range []struct {
		tag Tag
		to  *string
	}{{tagName, &n.Name}, {tagVersion, &n.Version}, {tagRelease, &n.Release}, {tagArch, &n.Arch}} {
		text, err := h.text(f.tag)
		if err != nil {
			return NEVRA{}, fmt.Errorf("rpm header: %w", err)
		}
		if len(text) == 0 {
			return NEVRA{}, fmt.Errorf("rpm header: no tag %d", f.tag)
		}
		*f.to = string(text)
	}
	epoch, err := h.ints(tagEpoch, typeInt32)
	if err != nil {
		return NEVRA{}, fmt.Errorf("rpm header: %w", err)
	}
	if epoch.len() > 0 {
		n.Epoch = uint32(epoch.at(0))
	}
	if _, binary := h.find(tagSourceRPM); !binary {
		n.Arch = "src"
		for _, tag := range []Tag{tagNoSource, tagNoPatch} {
			if _, ok := h.find(tag); ok {
				n.Arch = "nosrc"
			}
		}
	}
	return n, nil
}
