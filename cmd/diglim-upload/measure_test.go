//go:build !nobpf && (amd64 || arm64)

package main

import (
	"flag"
	"strings"
	"testing"

	"diglim/internal/cli"
)

// The last one counts, on the command line and in a boot.conf.
func TestMeasureFlags(t *testing.T) {
	for line, want := range map[string]int{
		"":                           0,
		"--measure":                  12,
		"--measure-pcr 13":           13,
		"--measure-pcr=13":           13,
		"--measure --measure-pcr=13": 13,
		"--measure-pcr 13 --measure": 12,
		"--measure --measure=false":  0,
	} {
		var m measuring
		f := flag.NewFlagSet("add", flag.ContinueOnError)
		m.flags(f)
		rest, err := cli.ParseFlags(f, append(strings.Fields(line), "lists"))
		if err != nil || m.pcr != want || len(rest) != 1 {
			t.Errorf("%q: PCR %d, want %d; %q is left, %v", line, m.pcr, want, rest, err)
		}
	}
	for text, want := range map[string]int{"measure": 12, "measure-pcr 13": 13, "measure # 12\nmeasure-pcr 14\n": 14} {
		var m measuring
		f := flag.NewFlagSet("boot", flag.ContinueOnError)
		m.flags(f)
		if _, err := setFlags(f, text); err != nil || m.pcr != want {
			t.Errorf("%q: PCR %d, want %d, %v", text, m.pcr, want, err)
		}
	}
	for text, want := range map[string]string{
		"measure\nmeasure no": `2: flag --measure: "no": neither true nor false`,
		"measure-pcr":         `1: flag --measure-pcr wants a value`,
		"measure-pcr 10":      `1: flag --measure-pcr: "10": nothing can be measured into PCR 10: 8, 9, 12, 13 and 14 are possible`,
	} {
		var m measuring
		f := flag.NewFlagSet("boot", flag.ContinueOnError)
		m.flags(f)
		if _, err := setFlags(f, text); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
