// Package cli is what the three commands have in common: how they end, how
// they speak of errors, and what version they are.
package cli

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Exit codes. A command that did a batch of things ends with No if one was
// refused, otherwise with Unknown if one could not be judged.
const (
	Yes     = 0 // done, trusted
	No      = 1 // refused, not trusted
	Unknown = 2 // could not tell: usage, missing, malformed
)

// An ExitError ends a command with that code. With a nil Err nothing is
// printed: what there was to say has been said.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Exit returns an error that ends the command with that code, silently; nil
// for Yes.
func Exit(code int) error {
	if code == Yes {
		return nil
	}
	return &ExitError{Code: code}
}

// Worse returns the exit code of two things done in one run.
func Worse(a, b int) int {
	if a == No || b == No {
		return No
	}
	return max(a, b)
}

type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// Hint adds to an error what the reader can do about it.
func Hint(err error, format string, args ...any) error {
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// HintOf returns the hint that an error has, "" for none.
func HintOf(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}

// PrintError writes an error as people are to see it, with its hint.
func PrintError(w io.Writer, err error) {
	fmt.Fprintf(w, "error: %v\n", err)
	if hint := HintOf(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// Finish says on stderr what there is to say of the error that a command ended
// with, and returns the exit code. An error that is no ExitError is Unknown.
func Finish(err error, stderr io.Writer) int {
	if err == nil {
		return Yes
	}
	var exit *ExitError
	if !errors.As(err, &exit) {
		PrintError(stderr, err)
		return Unknown
	}
	if exit.Err != nil {
		PrintError(stderr, exit.Err)
	}
	return exit.Code
}

// Version is what the Go linker recorded of the source: a module version, or
// the revision of the repository.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	version := info.Main.Version
	if revision := settings["vcs.revision"]; version == "" || version == "(devel)" {
		version = "devel"
		if revision != "" {
			version += "-" + revision[:min(12, len(revision))]
		}
		if settings["vcs.modified"] == "true" {
			version += "-modified"
		}
	}
	return version + " " + info.GoVersion
}

// Text returns s if it is harmless on a terminal, and quoted otherwise: names
// in packages and logs are whatever their authors wrote.
func Text(s string) string {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// Count writes a number with commas between thousands.
func Count(n int) string {
	s := strconv.Itoa(n)
	var b strings.Builder
	for i, digit := range s {
		if i > 0 && s[i-1] != '-' && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}

// Plural returns "1 list", "2,430 lists".
func Plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return Count(n) + " " + noun
}
