package main

import (
	"bytes"
	"strings"
	"testing"

	"diglim/internal/attest"
	"diglim/internal/cobracli"
	"diglim/internal/digest"
	"diglim/internal/policy"
)

// pieces is a writer that knows the largest piece that it was given.
type pieces struct {
	bytes.Buffer
	largest int
}

func (p *pieces) Write(b []byte) (int, error) {
	p.largest = max(p.largest, len(b))
	return p.Buffer.Write(b)
}

// An answer is written as encoding/json writes it at once, and not at once:
// paths are the host's, and may be of bytes that take five each.
func TestAnswerIsWrittenInPieces(t *testing.T) {
	path := attest.Path(strings.Repeat("\x1b", 4000) + "\n  \"known\": [] <&>")
	d := digest.Sum(digest.SHA256, []byte("x"))
	many := answer{Evidence: "web-1", Lists: &lists{}, Error: "e"}
	many.Firmware, many.Stated = []attest.Register{{PCR: 7}}, []attest.Statement{}
	for i := range 50 {
		many.Findings = append(many.Findings, attest.Finding{Code: attest.UnknownFile, Entry: i, Path: path, Digest: d, Why: "in no list"})
		many.Known = append(many.Known, attest.Measured{Entry: i, Path: path, Digest: d, Sources: []policy.Source{{}, {}}})
		many.Unproven = append(many.Unproven, attest.Measured{Entry: i, Path: path})
	}
	for name, a := range map[string]answer{"many": many, "none": {
		Verdict: attest.Verdict{Findings: []attest.Finding{}, Known: []attest.Measured{}, Unproven: []attest.Measured{}, Firmware: []attest.Register{}, Stated: []attest.Statement{}},
	}} {
		var want bytes.Buffer
		if err := cobracli.WriteJSON(&want, &a); err != nil {
			t.Fatal(err)
		}
		var got pieces
		if err := a.writeJSON(&got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("%s: %d bytes, want %d as encoding/json has them", name, got.Len(), want.Len())
		}
		if got.largest > 64<<10 {
			t.Errorf("%s: %d bytes at once", name, got.largest)
		}
	}
}
