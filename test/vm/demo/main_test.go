package main

import "testing"

// The recording plays with the programs as they are now.
func TestRecording(t *testing.T) {
	if err := run(t.Context(), t.TempDir(), true, false); err != nil {
		t.Error(err)
	}
}
