package measured

import (
	"slices"
	"strings"

	"diglim/digestlist"
	"diglim/internal/digest"
)

// InitramfsList is the file name of the list of what is in the initramfs, which
// the uploader makes at boot and which vouches for it: whoever loaded the
// initramfs measured it as a whole.
const InitramfsList = "0-file_list-compact-initramfs"

// Where things lie in an initramfs, below its root.
const (
	ListDir  = "/etc/digest_lists"
	KeyDir   = "/etc/diglim/keys"
	BootConf = "/etc/diglim/boot.conf"
)

// Where the administrator's policy for IMA lies; the first that is there counts.
const (
	// EarlyPolicy is its place in an initramfs. systemd, where it is the first
	// process there, would give the kernel the other one before anything else can.
	EarlyPolicy = "/etc/diglim/ima-policy"
	PolicyFile  = "/etc/ima/ima-policy" // where systemd looks for it
)

// IsCode reports whether a file of an initramfs can become code: it can be
// executed by its mode, begins as an ELF file, or is what the kernel reads for
// itself, a module or firmware. path is absolute, below the root of the initramfs.
func IsCode(path string, mode uint32, elf bool) bool {
	path = strings.TrimPrefix(path, "/usr")
	return mode&0o111 != 0 || elf || strings.HasPrefix(path, "/lib/modules/") || strings.HasPrefix(path, "/lib/firmware/")
}

// AppendInitramfsList appends a compact list (DIGLIM v3, little-endian) of the
// code in an initramfs, in the order of digests, each once. The program, which
// makes the list, is in it as a parser. The digests are of one algorithm.
func AppendInitramfsList(b []byte, program digest.Digest, code []digest.Digest) ([]byte, error) {
	code = slices.Clone(code)
	slices.SortFunc(code, digest.Digest.Compare)
	return digestlist.AppendCompact(b, digestlist.V3, digestlist.LittleEndian, []digestlist.Block{
		{Type: digestlist.Parser, Modifiers: digestlist.Immutable, Algorithm: program.Algorithm(), Digests: []digest.Digest{program}},
		{Type: digestlist.File, Modifiers: digestlist.Immutable, Algorithm: program.Algorithm(), Digests: slices.Compact(code)},
	})
}
