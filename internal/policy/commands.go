package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Commands are the texts that a boot loader may be told: commands, and with what
// it starts a kernel.
type Commands struct {
	texts   []string
	allowed []*regexp.Regexp
}

// wild makes of a quoted text what it stands for.
var wild = strings.NewReplacer(`\\\\`, `\\`, `\\\*`, `\*`, `\*\*`, `(?s:.*)`, `\*`, `[A-Za-z0-9._+\-~:,]*`)

// Add allows a text. In it * stands for any number of letters, digits and of
// . _ + - ~ : and comma, so that it ends with the word that it is in, and ** for
// anything at all; \* is a star and \\ a backslash.
func (c *Commands) Add(text string) error {
	if text == "" || slices.Contains(c.texts, text) {
		return fmt.Errorf("%q is empty, or stands there a second time", text)
	}
	r, err := regexp.Compile("^" + wild.Replace(regexp.QuoteMeta(text)) + "$")
	if err != nil {
		return errors.New("too long, or not UTF-8")
	}
	c.texts, c.allowed = append(c.texts, text), append(c.allowed, r)
	return nil
}

// Has reports whether a text is allowed.
func (c *Commands) Has(text string) bool {
	return slices.ContainsFunc(c.allowed, func(r *regexp.Regexp) bool { return r.MatchString(text) })
}

// IsZero reports whether no text is.
func (c *Commands) IsZero() bool { return len(c.texts) == 0 }

// Len is the number of texts that were added.
func (c *Commands) Len() int { return len(c.texts) }

// Wild are those of the texts that stand for others than themselves.
func (c *Commands) Wild() (texts []string) {
	for i, text := range c.texts {
		if _, whole := c.allowed[i].LiteralPrefix(); !whole {
			texts = append(texts, text)
		}
	}
	return texts
}

// QuoteCommand is how Add takes a text for itself.
func QuoteCommand(text string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`).Replace(text)
}
