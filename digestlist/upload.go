package digestlist

import (
	"errors"
	"fmt"

	"diglim/internal/modsig"
)

// MaxUpload is the limit on one upload to DIGLIM v3 in bytes. The kernel copies
// a list with kmalloc, which gives 4 MiB at most, with a NUL behind it and,
// where IMA measures the list, the rest of a log record around it.
const MaxUpload = 4<<20 - 4096

// Uploads returns the digests in a list as DIGLIM v3 is told of them, one upload
// each: a compact list without its signature, and an rpm list converted, the
// files that are never changed apart from the others, as the original rpm_parser
// does. An empty list is an error: the kernel refuses it, or worse, takes it and
// oopses over it later.
func Uploads(format Format, content []byte) ([][]Block, error) {
	var lists [][]Block
	switch format {
	case FormatCompact:
		payload, _, err := modsig.Split(content)
		if err != nil && !errors.Is(err, modsig.ErrNone) {
			return nil, err
		}
		list, err := ParseCompact(V3, LittleEndian, payload)
		if err == nil && len(list) == 0 {
			err = errors.New("empty list")
		}
		if err != nil {
			return nil, err
		}
		lists = [][]Block{list}
	case FormatRPM:
		rpm, err := ParseRPM(content)
		if err != nil {
			return nil, err
		}
		mutable, immutable, err := FromHeader(rpm.Header)
		if err != nil {
			return nil, err
		}
		lists = [][]Block{{mutable}, {immutable}}
	default:
		return nil, fmt.Errorf("format %q cannot be uploaded", format)
	}
	var parts [][]Block
	for _, list := range lists {
		split, err := SplitCompact(list, MaxUpload)
		if err != nil {
			return nil, err
		}
		parts = append(parts, split...)
	}
	return parts, nil
}
