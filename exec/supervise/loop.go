package supervise

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// Loop is the supervisor of one sandbox: it waits for notified calls and for whatever else concerns the sandbox, and
// deals with one at a time. It must run on the thread that cloned the command.
type Loop struct {
	listener   kernel.Listener
	dispatcher *Dispatcher
	poll       []unix.PollFd // the listener, the end, then the sources
	sources    []func()
	later      func()
}

// NewLoop makes a loop that ends when done, the command's pidfd, is readable or no process uses the filter any more.
func NewLoop(l kernel.Listener, d *Dispatcher, done int) *Loop {
	return &Loop{listener: l, dispatcher: d, poll: []unix.PollFd{
		{Fd: int32(l.FD), Events: unix.POLLIN}, {Fd: int32(done), Events: unix.POLLIN},
	}}
}

// Watch has ready called on the loop's thread whenever fd is readable. It must read what is there, and not block.
func (l *Loop) Watch(fd int, ready func()) {
	l.poll = append(l.poll, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	l.sources = append(l.sources, ready)
}

// settled is how long a command must have run before what can wait is done.
const settled = time.Millisecond

// Later has f called once on the loop's thread, a moment after the start: what a short command need not wait for.
func (l *Loop) Later(f func()) { l.later = f }

// Run answers until the end.
//
// RECV alone would be one system call less than poll and RECV, but it cannot be told to stop or to listen to anything
// else, and before Linux 6.11 it does not even return when the last user of the filter is gone.
func (l *Loop) Run() error {
	_ = l.listener.SyncWakeUp() // speed only
	var n kernel.Notification
	call := Call{guest: kernelGuest{l.listener}}
	started := time.Now()
	for {
		patience := -1
		if l.later != nil {
			if time.Since(started) >= settled {
				l.later()
				l.later = nil
			} else {
				patience = int(settled / time.Millisecond)
			}
		}
		if _, err := unix.Poll(l.poll, patience); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return fmt.Errorf("poll listener: %w", err)
		}
		if l.poll[1].Revents != 0 {
			return nil // the command has ended, whoever still asks
		}
		for i, ready := range l.sources {
			if l.poll[2+i].Revents != 0 {
				ready()
			}
		}
		switch {
		case l.poll[0].Revents&unix.POLLIN != 0:
			if err := l.serve(&n, &call); err != nil {
				return err
			}
		case l.poll[0].Revents != 0:
			return nil // POLLHUP: nobody is left to ask
		}
	}
}

// serve answers one notification. A caller whose notification has not been received yet can be interrupted by signals;
// exec/handler/restart keeps that from being seen by a program that forks.
func (l *Loop) serve(n *kernel.Notification, call *Call) error {
	switch err := l.listener.Receive(n); {
	case err == nil:
		call.TID, call.Nr, call.Args, call.id, call.memoryRead = int(n.PID), uint32(n.Nr), n.Args, n.ID, false
		answer(l.listener, n.ID, l.dispatcher.Decide(call))
		return nil
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT):
		return nil // interrupted, or the caller was killed between the wake-up and the receive
	default:
		return fmt.Errorf("receive notification: %w", err)
	}
}

// answer sends a verdict. A signal may interrupt the sending; any other failure means that the caller is gone.
func answer(l kernel.Listener, id uint64, v Verdict) {
	for errors.Is(send(l, id, v), unix.EINTR) {
	}
}

func send(l kernel.Listener, id uint64, v Verdict) error {
	switch v.kind {
	case verdictContinue:
		return l.Continue(id)
	case verdictReturn:
		return l.Return(id, v.value)
	}
	if v.errno == 0 {
		v.errno = unix.EPERM // errno 0 would tell the caller that a refused call succeeded
	}
	return l.Fail(id, v.errno)
}
