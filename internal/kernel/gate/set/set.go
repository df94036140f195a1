// Package set is the digest set of the gate as bytes: what a BPF map holds, and
// everything that decides with it (mode, scope, anchor), so that one update of
// one map slot replaces all of it. docs/formats/digest-set.md has the layout.
//
// The package knows no kernel: it builds images and reads them back.
package set

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
	"time"

	"diglim/internal/digest"
)

// BlockSize is the size in bytes of what an image is made of: a value of the
// map. The first block is the header, then comes a block for each rule, then
// come the buckets of all tables.
const BlockSize = 256

// The limits of an image.
const (
	MaxRules  = 32
	MaxTables = 8
	MaxPath   = 232     // bytes of a rule's path
	MaxBlocks = 1 << 22 // 1 GiB, 31 million digests
)

// A Kind says what the digests of a table are digests of.
type Kind uint8

// The kinds.
const (
	Content Kind = iota + 1 // a file's content, as bpf_ima_file_hash computes it
	Verity                  // a file under fs-verity, as bpf_get_fsverity_digest returns it
	Parser                  // the content of a program that may replace the set under the lock
)

func (k Kind) valid() bool { return k >= Content && k <= Parser }

func (k Kind) String() string {
	switch k {
	case Content:
		return "content"
	case Verity:
		return "verity"
	case Parser:
		return "parser"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// A Mode says what becomes of a file that is not in the set.
type Mode uint32

// The modes.
const (
	Log     Mode = iota + 1 // it is used, and reported
	Enforce                 // it is refused, where the scope says so
)

func (m Mode) valid() bool { return m == Log || m == Enforce }

func (m Mode) String() string {
	switch m {
	case Log:
		return "log"
	case Enforce:
		return "enforce"
	}
	return fmt.Sprintf("mode(%d)", uint32(m))
}

// ParseMode reads what String prints.
func ParseMode(s string) (Mode, error) {
	for m := Log; m <= Enforce; m++ {
		if m.String() == s {
			return m, nil
		}
	}
	return 0, fmt.Errorf("mode %q is not known: log and enforce are", s)
}

// A Rule says for the files it matches, and that are not in the set, whether
// they are refused or only reported. A condition that is not there matches
// every file; so does a rule without any.
type Rule struct {
	Enforce bool
	Owner   *uint32 // the user who owns the file
	FS      *uint64 // the file system, by its magic number (statfs f_type)
	Path    string  // the file, or a directory above it: absolute, clean, not "/"
}

func (r Rule) check() error {
	switch {
	case r.Path == "":
		return nil
	case len(r.Path) > MaxPath:
		return fmt.Errorf("path of %d bytes, the limit is %d", len(r.Path), MaxPath)
	case r.Path == "/" || !path.IsAbs(r.Path) || path.Clean(r.Path) != r.Path || strings.ContainsRune(r.Path, 0):
		return fmt.Errorf("path %q is not an absolute, clean path below the root", r.Path)
	}
	return nil
}

// A Header is what an image holds besides digests.
type Header struct {
	Generation uint64    // 1 for the first set since boot, and one more each time
	Loaded     time.Time // when the set was made, to the nanosecond, 1970 to 2262
	Mode       Mode
	Lists      uint32   // how many lists the digests come from
	Initramfs  bool     // whether it was loaded in the initramfs
	Anchor     [32]byte // SHA-256 over the keyring that proved the lists; zero: none did
	Rules      []Rule   // the scope, of mode Enforce: the first that matches decides, else it is Enforce
}

func (h *Header) check() error {
	switch {
	case h.Generation == 0:
		return errors.New("generation 0")
	case h.Loaded.Before(time.Unix(0, 0)) || h.Loaded.After(time.Unix(0, math.MaxInt64)):
		return fmt.Errorf("loaded in the year %d", h.Loaded.Year())
	case !h.Mode.valid():
		return fmt.Errorf("%s is not known", h.Mode)
	case len(h.Rules) > MaxRules:
		return fmt.Errorf("%d rules, the limit is %d", len(h.Rules), MaxRules)
	}
	for i, r := range h.Rules {
		if err := r.check(); err != nil {
			return fmt.Errorf("rule %d: %w", i, err)
		}
	}
	return nil
}

// A Table is where the digests of one kind and algorithm stand in an image.
type Table struct {
	Kind      Kind
	Algorithm digest.Algorithm
	First     uint32 // its first bucket, in blocks from the start of the image
	Buckets   uint32
	Digests   uint32 // of different value, see Image.Has
}

func (t Table) id() tableID { return tableID{t.Kind, t.Algorithm} }

// A tableID is what tables are told apart and ordered by.
type tableID struct {
	kind Kind
	alg  digest.Algorithm
}

func (a tableID) compare(b tableID) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.alg, b.alg))
}

func (a tableID) String() string { return fmt.Sprintf("%s %s", a.kind, a.alg) }

// An Image is a complete set. It is made by Build or Parse alone, and is not
// changed afterwards.
type Image struct {
	header  Header
	tables  []Table
	digests int
	b       []byte
}

// Bytes returns the image, len(Bytes())/BlockSize values of the map. It is not
// a copy: whoever changes it breaks the image.
func (m *Image) Bytes() []byte { return m.b }

// Header returns what the image holds besides digests. The rules are not a copy.
func (m *Image) Header() Header { return m.header }

// Tables returns the tables, ordered by kind, then by algorithm. It is not a copy.
func (m *Image) Tables() []Table { return m.tables }

// Digests returns how many digests there are, in all tables together.
func (m *Image) Digests() int { return m.digests }

// Has reports whether the digest is in the set, as the program in the kernel
// sees it: of a digest longer than 32 bytes the first 32 count.
func (m *Image) Has(kind Kind, d digest.Digest) bool {
	k := keyOf(d)
	return m.has(tableID{kind, d.Algorithm()}, &k)
}

func (m *Image) has(id tableID, k *key) bool {
	for _, t := range m.tables {
		if t.id() != id {
			continue
		}
		buckets := m.buckets(t)
		i, j := choices(k, t.Buckets)
		return !k.empty() && (slotOf(buckets, i, k) >= 0 || slotOf(buckets, j, k) >= 0)
	}
	return false
}

// buckets returns a table's part of the image.
func (m *Image) buckets(t Table) []byte {
	return m.b[int(t.First)*BlockSize : int(t.First+t.Buckets)*BlockSize]
}

const (
	keySize = 32
	slots   = BlockSize / keySize // of a bucket
)

// A key is what stands for a digest in a bucket: its first 32 bytes, or all of
// a shorter one and then zeros. The zero key marks an empty slot.
type key [keySize]byte

func keyOf(d digest.Digest) (k key) {
	var b [digest.MaxSize]byte
	copy(k[:], d.Append(b[:0]))
	return k
}

// first and second choose the buckets: digests are as good as random.
func (k *key) first() uint32  { return binary.LittleEndian.Uint32(k[0:]) }
func (k *key) second() uint32 { return binary.LittleEndian.Uint32(k[4:]) }

// word is what two keys are compared by first.
func (k *key) word() uint64 { return binary.LittleEndian.Uint64(k[0:]) }

func (k *key) empty() bool { return k.word() == 0 && *k == key{} }

// choices returns the two buckets that a key may stand in, which may be the same.
func choices(k *key, buckets uint32) (i, j uint32) {
	return uint32(uint64(k.first()) * uint64(buckets) >> 32), uint32(uint64(k.second()) * uint64(buckets) >> 32)
}

// slot returns a slot of a bucket, in place.
func slot(buckets []byte, bucket uint32, n int) *key {
	at := int(bucket)*BlockSize + n*keySize
	return (*key)(buckets[at : at+keySize])
}

// slotOf returns the slot of a bucket that a key stands in, -1 if it does not.
func slotOf(buckets []byte, bucket uint32, k *key) int {
	block := (*[BlockSize]byte)(buckets[int(bucket)*BlockSize:])
	word := k.word()
	for n := range slots {
		s := block[n*keySize:][:keySize]
		if binary.LittleEndian.Uint64(s) == word && key(s) == *k {
			return n
		}
	}
	return -1
}
