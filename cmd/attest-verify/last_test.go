package main

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"diglim/internal/attest"
	"diglim/internal/digest"
	"diglim/tpm"
)

const goodLast = `{"version":1,"ak":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","at":"2026-03-02T00:00:00Z",
"clock_ms":18446744073709551615,"clock_safe":true,"reset_count":4294967295,"restart_count":2,"firmware_version":"0xffffffffffffffff","policy_serial":18446744073709551615}`

func TestLastGoesAndComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last")
	if s, err := readLast(path); s != nil || err != nil {
		t.Errorf("before the first time: %+v, %v", s, err)
	}
	want := &attest.Seen{
		AK:     digest.Sum(digest.SHA256, []byte("abc")),
		At:     time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC),
		Policy: 1<<64 - 1,
		State:  tpm.State{Clock: 1<<64 - 1, Safe: true, ResetCount: 1<<32 - 1, RestartCount: 2, Firmware: 1<<64 - 1},
	}
	if got, err := parseLast([]byte(goodLast)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for range 2 {
		if err := writeLast(path, want); err != nil {
			t.Fatal(err)
		}
		if got, err := readLast(path); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestLastDamaged(t *testing.T) {
	for i := range goodLast {
		if s, err := parseLast([]byte(goodLast[:i])); err == nil {
			t.Errorf("first %d bytes: %+v", i, s)
		}
	}
	for _, bad := range []string{
		"{}", "null", "[]", goodLast + "{}", goodLast + "}", `{"version":2` + goodLast[len(`{"version":1`):], `{"extra":1,` + goodLast[1:],
		`{"version":1,"at":"2026-03-02T00:00:00Z","firmware_version":"0"}`,
	} {
		if s, err := parseLast([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, s)
		}
	}
}

func FuzzParseLast(f *testing.F) {
	f.Add([]byte(goodLast))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseLast(b); (s == nil) == (err == nil) {
			t.Fatalf("%v, %v", s, err)
		}
	})
}
