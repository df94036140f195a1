package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"diglim/internal/attest"
	"diglim/internal/cobracli"
)

// answer is what check prints as JSON.
type answer struct {
	Evidence string `json:"evidence,omitempty"`
	attest.Verdict
	Lists *lists `json:"lists,omitempty"`
	Error string `json:"error,omitempty"`
}

func (a *answer) refused() []refusedList {
	if a.Lists == nil {
		return nil
	}
	return a.Lists.Refused
}

// writeJSON prints empty arrays where there is nothing, never null. The lists
// of what is in the log are written entry by entry: as one text they are many
// times what a verdict keeps.
func (a *answer) writeJSON(w io.Writer) error {
	rest := *a
	rest.Findings, rest.Known, rest.Unproven = []attest.Finding{}, []attest.Measured{}, []attest.Measured{}
	rest.Firmware = append([]attest.Register{}, a.Firmware...)
	rest.Stated = append([]attest.Statement{}, a.Stated...)
	var text bytes.Buffer
	if err := cobracli.WriteJSON(&text, &rest); err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	err := errors.Join(
		fillList(b, &text, "findings", a.Findings),
		fillList(b, &text, "known", a.Known),
		fillList(b, &text, "unproven", a.Unproven))
	_, e := text.WriteTo(b)
	return errors.Join(err, e, b.Flush())
}

// fillList writes the object in text up to the empty list of that name, and
// that list with its elements.
func fillList[T any](w *bufio.Writer, text *bytes.Buffer, name string, list []T) error {
	if len(list) == 0 {
		return nil
	}
	// No string has a newline in it, and what lies deeper is indented by more.
	empty := fmt.Sprintf("\n  %q: []", name)
	at := bytes.Index(text.Bytes(), []byte(empty))
	w.Write(text.Next(at))
	w.WriteString(strings.TrimSuffix(empty, "]"))
	text.Next(len(empty))
	var element bytes.Buffer
	e := json.NewEncoder(&element)
	e.SetIndent("    ", "  ")
	e.SetEscapeHTML(false)
	separator := ""
	for i := range list {
		element.Reset()
		if err := e.Encode(&list[i]); err != nil {
			return err
		}
		w.WriteString(separator + "\n    ")
		w.Write(bytes.TrimSuffix(element.Bytes(), []byte("\n")))
		separator = ","
	}
	_, err := w.WriteString("\n  ]")
	return err
}
