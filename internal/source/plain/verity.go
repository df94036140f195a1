package plain

import (
	"encoding/binary"
	"fmt"
	"io"

	"diglim/internal/digest"
)

const (
	verityBlock    = 4096 // bytes of data, and of the Merkle tree
	verityLogBlock = 12
)

// Verity returns the fs-verity digest of content: the hash of the descriptor
// that holds the root of its Merkle tree, of blocks of 4096 bytes and without
// a salt (Linux Documentation/filesystems/fsverity.rst). The algorithm is
// SHA256 or SHA512. It takes a block of memory for each level of the tree.
func Verity(r io.Reader, alg digest.Algorithm) (digest.Digest, error) {
	var number byte // include/uapi/linux/fsverity.h
	switch alg {
	case digest.SHA256:
		number = 1
	case digest.SHA512:
		number = 2
	default:
		return digest.Digest{}, fmt.Errorf("fs-verity knows sha256 and sha512, not %s", alg)
	}
	t := merkle{alg: alg}
	var size uint64
	block := make([]byte, verityBlock)
	for {
		n, err := io.ReadFull(r, block)
		if err == io.EOF {
			break
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return digest.Digest{}, err
		}
		size += uint64(n)
		clear(block[n:])
		t.add(0, block)
	}

	// struct fsverity_descriptor: version, hash_algorithm, log_blocksize,
	// salt_size, sig_size (4), data_size (8), root_hash (64), salt (32),
	// reserved (144)
	d := make([]byte, 0, 256)
	d = append(d, 1, number, verityLogBlock, 0, 0, 0, 0, 0)
	d = binary.LittleEndian.AppendUint64(d, size)
	d = append(d, t.root()...)
	return digest.Sum(alg, d[:cap(d)]), nil
}

// A merkle tree keeps of each level the block that is not full yet.
type merkle struct {
	alg    digest.Algorithm
	levels [][]byte // level 0 holds hashes of data, each other those of the level below
}

// add adds the hash of a block to a level.
func (t *merkle) add(level int, block []byte) {
	if level == len(t.levels) {
		t.levels = append(t.levels, make([]byte, 0, verityBlock))
	}
	// A level is hashed when there is more to come: the last one is the root,
	// if it has a single hash.
	if len(t.levels[level]) == verityBlock {
		t.add(level+1, t.levels[level])
		t.levels[level] = t.levels[level][:0]
	}
	t.levels[level] = digest.Sum(t.alg, block).Append(t.levels[level])
}

// root returns the root hash; nothing, that is zeros, if there is no data.
func (t *merkle) root() []byte {
	for level := 0; level < len(t.levels); level++ {
		hashes := t.levels[level]
		if level == len(t.levels)-1 && len(hashes) == t.alg.Size() {
			return hashes
		}
		n := len(hashes)
		clear(hashes[n:verityBlock])
		t.add(level+1, hashes[:verityBlock])
	}
	return nil
}
