package imalog_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"diglim/internal/corpus"
	"diglim/tpm/imalog"
)

// TestCorpus keeps what becomes of every log and non-log of the corpus in
// testdata/corpus.tsv.
func TestCorpus(t *testing.T) {
	samples, err := filepath.Glob(filepath.Join(corpus.Path(t, "ima"), "*/*"))
	if err != nil || len(samples) < 10 {
		t.Fatalf("%d samples, %v", len(samples), err)
	}
	guests, err := filepath.Glob(filepath.Join(corpus.Path(t, "vm-evidence"), "*/*ima.bin*"))
	if err != nil || len(guests) < 6 {
		t.Fatalf("%d logs of guests, %v", len(guests), err)
	}
	var b strings.Builder
	fmt.Fprintln(&b, "file\tlayout\tentries\tknown\tviolations\thash wrong\tresult")
	for _, name := range slices.Concat(samples, guests) {
		log, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		layout := "none"
		if layouts, _ := imalog.Layouts(bytes.NewReader(log)); len(layouts) > 0 {
			layout = fmt.Sprint(layouts)
		}
		all, err := parse(log)
		known, violations, wrong := 0, 0, 0
		for _, e := range all {
			switch {
			case e.Violation:
				violations++
			case !e.Authentic():
				wrong++
			}
			if e.Known {
				known++
			}
		}
		result := "ok"
		if err != nil {
			result = err.Error()
		}
		parts := strings.Split(filepath.ToSlash(name), "/")
		fmt.Fprintf(&b, "%s\t%s\t%d\t%d\t%d\t%d\t%s\n", strings.Join(parts[len(parts)-3:], "/"), layout, len(all), known, violations, wrong, result)
	}
	corpus.Table(t, "testdata/corpus.tsv", b.String())
}
