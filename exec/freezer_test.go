package exec

import (
	"errors"
	"testing"
)

func TestFreezerOutsideOfARun(t *testing.T) {
	var f Freezer
	for _, ask := range []func() error{f.Pause, f.Resume} {
		if err := ask(); !errors.Is(err, ErrNotStarted) {
			t.Errorf("before the start: %v, want %v", err, ErrNotStarted)
		}
	}
	f.end()
	f.end()
	for _, ask := range []func() error{f.Pause, f.Resume} {
		if err := ask(); !errors.Is(err, ErrEnded) {
			t.Errorf("after the end: %v, want %v", err, ErrEnded)
		}
	}
	var none *Freezer
	none.end()
}
