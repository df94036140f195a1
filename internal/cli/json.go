package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// An Object is a JSON object whose members stand in order, for programs where
// size counts: encoding/json is a tenth of a small one.
type Object []Member

// A Member is a name and a value: a string, an integer, a bool, a float64, an
// Object, a slice of strings or of Objects.
type Member struct {
	Name  string
	Value any
}

// WriteObject writes an object as people and jq read it: indented if it is not
// to be a line of many.
func WriteObject(w io.Writer, o Object, indented bool) error {
	indent := -1
	if indented {
		indent = 0
	}
	_, err := w.Write(append(appendValue(nil, o, indent), '\n'))
	return err
}

// appendValue appends a value, indented by that many steps; -1 is not at all.
func appendValue(b []byte, v any, indent int) []byte {
	switch v := v.(type) {
	case Object:
		return appendList(b, "{}", len(v), indent, func(b []byte, i, indent int) []byte {
			b = append(appendString(b, v[i].Name), ':')
			if indent >= 0 {
				b = append(b, ' ')
			}
			return appendValue(b, v[i].Value, indent)
		})
	case []Object:
		return appendList(b, "[]", len(v), indent, func(b []byte, i, indent int) []byte { return appendValue(b, v[i], indent) })
	case []string:
		return appendList(b, "[]", len(v), indent, func(b []byte, i, indent int) []byte { return appendString(b, v[i]) })
	case string:
		return appendString(b, v)
	case float64:
		return strconv.AppendFloat(b, v, 'f', 6, 64)
	}
	return fmt.Append(b, v) // integers and bools
}

func appendList(b []byte, brackets string, n, indent int, element func(b []byte, i, indent int) []byte) []byte {
	b = append(b, brackets[0])
	inner := indent
	if indent >= 0 {
		inner++
	}
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = element(newLine(b, inner), i, inner)
	}
	if n > 0 {
		b = newLine(b, indent)
	}
	return append(b, brackets[1])
}

func newLine(b []byte, indent int) []byte {
	if indent < 0 {
		return b
	}
	return append(append(b, '\n'), strings.Repeat("  ", indent)...)
}

// appendString appends a string (RFC 8259 section 7). Bytes that are no UTF-8
// become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029':
			b = fmt.Appendf(b, "\\u%04x", r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
