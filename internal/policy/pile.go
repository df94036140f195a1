package policy

// A pile is values that grow in number without being moved: a slice that grows
// is there twice for a time, and too large from then on.
type pile[T any] struct {
	chunks [][]T // of chunkLen values, but the last
	len    int
}

const chunkLen = 1 << 13

func (p *pile[T]) add(v T) {
	p.chunks = appendChunk(p.chunks, p.len, v)
	p.len++
}

func (p *pile[T]) at(i int) *T { return &p.chunks[i/chunkLen][i%chunkLen] }

// appendChunk appends row number n, of so many values as every row has.
func appendChunk[T any](chunks [][]T, n int, row ...T) [][]T {
	last := n / chunkLen
	if last == len(chunks) {
		var chunk []T // the first one grows: most piles are small
		if last > 0 {
			chunk = make([]T, 0, chunkLen*len(row))
		}
		chunks = append(chunks, chunk)
	}
	chunks[last] = append(chunks[last], row...)
	return chunks
}

// Names are the last parts of paths, each with a byte before it that says how
// long it is.
type names [][]byte

const (
	namesSize = 1 << 20 // bytes of a chunk
	maxName   = 255
	maxNames  = 1 << 12 // chunks: a place in them has 32 bits
)

// add returns the place of a name, counted from 1. It is 0 if the name is
// empty or too long, or if there is no room.
func (n *names) add(name string) uint32 {
	if name == "" || len(name) > maxName {
		return 0
	}
	last := len(*n) - 1
	if last < 0 || len((*n)[last])+1+len(name) >= namesSize {
		if len(*n) == maxNames {
			return 0
		}
		var chunk []byte
		if last >= 0 {
			chunk = make([]byte, 0, namesSize)
		}
		*n = append(*n, chunk)
		last++
	}
	at := len((*n)[last])
	(*n)[last] = append(append((*n)[last], byte(len(name))), name...)
	return uint32(last*namesSize+at) + 1
}

// at returns the name at a place.
func (n names) at(place uint32) []byte {
	if place == 0 {
		return nil
	}
	place--
	b := n[place/namesSize][place%namesSize:]
	return b[1 : 1+int(b[0])]
}
