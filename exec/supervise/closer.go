package supervise

import (
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Closer closes duplicates of a caller's descriptors outside of the loop. If the caller has closed its own meanwhile, ours
// is the last, and to close the last descriptor of a socket can take as long as its owner wished (SO_LINGER, socket(7)).
type Closer struct{ active atomic.Int32 }

// maxClosing bounds the threads that closing holds up.
const maxClosing = 32

// patience is how often Busy lets other goroutines run first.
const patience = 100

// Busy reports whether no more should be closed for now: a handler asks before it duplicates a descriptor. Those that only
// wait for a processor, as when a program asks in a tight loop, do not count: they are given one.
func (c *Closer) Busy() bool {
	for range patience {
		if c.active.Load() < maxClosing {
			return false
		}
		runtime.Gosched()
	}
	return true
}

// Close closes fd, at once or a little later.
func (c *Closer) Close(fd int) {
	c.active.Add(1)
	go func() {
		defer c.active.Add(-1)
		_ = unix.Close(fd)
	}()
}
