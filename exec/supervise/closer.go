package supervise

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Closer closes duplicates of a caller's descriptors outside of the loop. If the caller has closed its own meanwhile, ours
// is the last, and to close the last descriptor of a socket can take as long as its owner wished (SO_LINGER, socket(7)).
type Closer struct{ active atomic.Int32 }

// maxClosing bounds the threads that closing holds up.
const maxClosing = 32

// Busy reports whether no more should be closed for now: a handler asks before it duplicates a descriptor.
func (c *Closer) Busy() bool { return c.active.Load() >= maxClosing }

// Close closes fd, at once or a little later.
func (c *Closer) Close(fd int) {
	c.active.Add(1)
	go func() {
		defer c.active.Add(-1)
		_ = unix.Close(fd)
	}()
}
