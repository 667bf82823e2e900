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

func FuzzOpenHow(f *testing.F) {
	f.Add(append([]byte("/etc/passwd\x00"), make([]byte, 24)...), uint64(12), uint64(24))
	f.Fuzz(func(t *testing.T, memory []byte, how, size uint64) {
		c := supervise.NewCall(1, 437, [6]uint64{0, supervisetest.Base, supervisetest.Base + how, size}, &supervisetest.Memory{Bytes: memory})
		r, err := readOpenat2(c)
		if err != nil {
			return
		}
		o := r.(*openRequest)
		if o.flags&^openFlags != 0 || o.mode&^0o7777 != 0 || len(o.path) >= unix.PathMax || size < 24 || size > 4096 {
			t.Errorf("accepted %+v of %d bytes", o, size)
		}
	})
}
