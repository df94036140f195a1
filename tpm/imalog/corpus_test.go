package imalog_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"diglim/internal/corpus"
	"diglim/internal/digest"
	"diglim/tpm/imalog"
)

// TestCorpus keeps what becomes of every log and non-log of the corpus in
// testdata/corpus.tsv.
func TestCorpus(t *testing.T) {
	samples, err := filepath.Glob(filepath.Join(corpus.Path(t, "ima"), "*/*"))
	if err != nil || len(samples) < 10 {
		t.Fatalf("%d samples, %v", len(samples), err)
	}
	guests, err := filepath.Glob(filepath.Join(corpus.Path(t, "vm-evidence"), "*/*ima.[ba]*"))
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
		var all []imalog.Entry
		layout := "none"
		r, isText, err := imalog.Binary(bytes.NewReader(log))
		if err == nil {
			if layouts, _ := imalog.Layouts(r); len(layouts) > 0 {
				layout = fmt.Sprint(layouts)
			}
			if log, err = io.ReadAll(io.NewSectionReader(r, 0, 1<<30)); err != nil {
				t.Fatal(err)
			}
			all, err = parse(log)
		}
		if isText {
			layout = "text " + layout
		}
		known, violations, wrong := 0, 0, 0
		for _, e := range all {
			switch {
			case e.Violation:
				violations++
			case !e.Authentic(digest.SHA256):
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
