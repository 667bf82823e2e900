package exec

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/throttle"
)

// Freezer pauses and resumes one run, from any goroutine: hand it to Run as Options.Freezer. The zero value is ready.
//
// Only the supervisor's thread may signal the sandbox, so that requests wait for their turn on its loop.
type Freezer struct {
	mu       sync.Mutex
	wake     int // eventfd
	state    freezerState
	requests []pauseRequest
}

type freezerState uint8

const (
	freezerNew freezerState = iota
	freezerServed
	freezerEnded
)

type pauseRequest struct {
	pause bool
	done  chan<- error // has room
}

// Pause stops every process of the sandbox. When it returns, none gets to run outside of the kernel. A paused sandbox can be
// paused again, which changes nothing. Its time limit goes on, and signals to the executor reach it when it is resumed, save
// a second SIGTERM or SIGINT, which ends it.
func (f *Freezer) Pause() error { return f.ask(true) }

// Resume continues a paused sandbox, and does nothing to another.
func (f *Freezer) Resume() error { return f.ask(false) }

func (f *Freezer) ask(pause bool) error {
	done := make(chan error, 1)
	if err := f.enqueue(pauseRequest{pause, done}); err != nil {
		return err
	}
	return <-done
}

func (f *Freezer) enqueue(r pauseRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch f.state {
	case freezerNew:
		return ErrNotStarted
	case freezerEnded:
		return ErrEnded
	}
	one := [8]byte{1} // as a number not 0 on either byte order
	if _, err := unix.Write(f.wake, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("wake the supervisor: %w", err)
	}
	f.requests = append(f.requests, r)
	return nil
}

// serve has the loop answer requests from now on, until end.
func (f *Freezer) serve(l *supervise.Loop, freezer *throttle.Freezer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state != freezerNew {
		return errors.New("a Freezer serves one run")
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if err := l.Watch(fd, func() { f.answer(freezer) }); err != nil {
		_ = unix.Close(fd)
		return err
	}
	f.wake, f.state = fd, freezerServed
	return nil
}

// answer carries out what was asked for, on the loop's thread.
func (f *Freezer) answer(freezer *throttle.Freezer) {
	f.mu.Lock()
	var count [8]byte
	_, _ = unix.Read(f.wake, count[:])
	requests := f.requests
	f.requests = nil
	f.mu.Unlock()
	for _, r := range requests {
		var err error
		if r.pause {
			err = freezer.Hold(throttle.Paused)
		}
		if !r.pause || err != nil {
			freezer.Release(throttle.Paused)
		}
		r.done <- err
	}
}

// end refuses whatever is still waiting or comes later. f may be nil.
func (f *Freezer) end() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == freezerServed {
		_ = unix.Close(f.wake)
	}
	f.state = freezerEnded
	for _, r := range f.requests {
		r.done <- ErrEnded
	}
	f.requests = nil
}
