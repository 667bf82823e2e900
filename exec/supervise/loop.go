package supervise

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// Serve answers notifications until no process uses the filter any more or until done (the command's pidfd) is
// readable. It must run on the thread that cloned the command.
//
// RECV alone would be one system call less, but it cannot be told to stop, and before Linux 6.11 it does not even
// return when the last user of the filter is gone.
//
// A caller whose notification has not been received yet can be interrupted by signals; exec/handler/restart keeps that
// from ever being seen by a program that forks.
func Serve(l kernel.Listener, d *Dispatcher, done int) error {
	_ = l.SyncWakeUp() // speed only
	var n kernel.Notification
	call := Call{guest: kernelGuest{l}}
	set := []unix.PollFd{{Fd: int32(l.FD), Events: unix.POLLIN}, {Fd: int32(done), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(set, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return fmt.Errorf("poll listener: %w", err)
		}
		if set[1].Revents != 0 || set[0].Revents&unix.POLLIN == 0 {
			return nil // done, whoever still asks; or POLLHUP: nobody is left to ask
		}
		switch err := l.Receive(&n); {
		case err == nil:
			call.TID, call.Nr, call.Args, call.id, call.memoryRead = int(n.PID), uint32(n.Nr), n.Args, n.ID, false
			answer(l, n.ID, d.Decide(&call))
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT):
			// Interrupted, or the caller was killed between the wake-up and the receive.
		default:
			return fmt.Errorf("receive notification: %w", err)
		}
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
