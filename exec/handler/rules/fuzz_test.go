package rules

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
)

// The caller's memory is hostile: whatever stands there, reading it ends, and what is read is bounded.
func FuzzArguments(f *testing.F) {
	f.Add(vector("echo", "a"), uint64(supervisetest.Base))
	f.Add([]byte{1, 2, 3}, uint64(0))
	f.Fuzz(func(t *testing.T, memory []byte, at uint64) {
		c := supervise.NewCall(1, 59, [6]uint64{}, &supervisetest.Memory{Bytes: memory})
		argv, err := arguments(c, at)
		if len(argv) > maxArgs || err != nil && argv != nil {
			t.Errorf("%d arguments, %v", len(argv), err)
		}
		for _, a := range argv {
			if len(a) > unix.PathMax {
				t.Errorf("argument of %d bytes", len(a))
			}
		}
	})
}
