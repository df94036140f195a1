package measured

import (
	"iter"
	"strings"
)

// A BootOption is a line of a boot.conf.
type BootOption struct {
	Line  int // counts from 1
	Name  string
	Value string // "" if there is none; words are apart by one space
}

// BootOptions are the options in the text of a boot.conf: one a line, a name and
// a value. What follows a # is a comment.
func BootOptions(text string) iter.Seq[BootOption] {
	return func(yield func(BootOption) bool) {
		n := 0
		for line := range strings.Lines(text) {
			n++
			line, _, _ = strings.Cut(line, "#")
			fields := strings.Fields(line)
			if len(fields) > 0 && !yield(BootOption{Line: n, Name: fields[0], Value: strings.Join(fields[1:], " ")}) {
				return
			}
		}
	}
}
