package supervise

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// Closer closes duplicates of a caller's descriptors outside of the loop. If the caller has closed its own meanwhile, ours
// is the last, and to close the last descriptor of a socket can take as long as its owner wished (SO_LINGER, socket(7)):
// an alarm ends that wait, and the kernel goes on with the connection by itself.
type Closer struct {
	mu     sync.Mutex
	active int   // goroutines that close
	queue  []int // descriptors that none of them has taken up
}

const (
	maxClosing = 4 // threads
	// closeTime is how long a descriptor may take.
	closeTime = 2 * time.Millisecond
)

// patience is how often Busy lets other goroutines run first.
const patience = 100

// Busy reports whether no more should be closed for now: a handler asks before it duplicates a descriptor. Those that only
// wait for a processor, as when a program asks in a tight loop, do not count: they are given one.
func (c *Closer) Busy() bool {
	for range patience {
		if c.open() < maxClosing {
			return false
		}
		runtime.Gosched()
	}
	return true
}

// open returns how many descriptors are not closed yet.
func (c *Closer) open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active + len(c.queue)
}

// Close closes fd, at once or a little later. No more than maxClosing goroutines close at the same time; further
// descriptors stay open until one of them is done, and who brings many waits a little, so that they do not pile up.
func (c *Closer) Close(fd int) {
	c.Busy()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active == maxClosing {
		c.queue = append(c.queue, fd)
		return
	}
	c.active++
	go c.run(fd)
}

func (c *Closer) run(fd int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	alarm, err := kernel.NewAlarm()
	if err == nil {
		defer alarm.Close()
	}
	for {
		if alarm != nil {
			alarm.Set(closeTime)
		}
		_ = unix.Close(fd)
		if alarm != nil {
			alarm.Clear()
		}
		c.mu.Lock()
		if len(c.queue) == 0 {
			c.active--
			c.mu.Unlock()
			return
		}
		fd, c.queue = c.queue[0], c.queue[1:]
		c.mu.Unlock()
	}
}
