package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err    error
		code   int
		stderr string
	}{
		{nil, Yes, ""},
		{errors.New("no such thing"), Unknown, "error: no such thing\n"},
		{Exit(No), No, ""},
		{&ExitError{No, errors.New("refused")}, No, "error: refused\n"},
		{Hint(errors.New("no key"), "give --keyring"), Unknown, "error: no key\nhint: give --keyring\n"},
	} {
		var stderr bytes.Buffer
		if code := Finish(c.err, &stderr); code != c.code || stderr.String() != c.stderr {
			t.Errorf("%v: exit %d, %q", c.err, code, stderr.String())
		}
	}
}

func TestWorse(t *testing.T) {
	for _, c := range [][3]int{{Yes, Yes, Yes}, {Yes, Unknown, Unknown}, {Unknown, No, No}, {No, Unknown, No}, {No, Yes, No}} {
		if got := Worse(c[0], c[1]); got != c[2] {
			t.Errorf("Worse(%d, %d) = %d", c[0], c[1], got)
		}
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"/usr/bin/bash": "/usr/bin/bash",
		"/tmp/größe":    "/tmp/größe",
		"a\x1b[31mb":    `"a\x1b[31mb"`,
		"a\nb":          `"a\nb"`,
		"a\xffb":        `"a\xffb"`,
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %s", in, got)
		}
	}
}

func TestCount(t *testing.T) {
	for in, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567"} {
		if got := Count(in); got != want {
			t.Errorf("Count(%d) = %s", in, got)
		}
	}
}

func TestVersion(t *testing.T) {
	if v := Version(); !strings.Contains(v, "go1") {
		t.Errorf("Version = %q", v)
	}
}
