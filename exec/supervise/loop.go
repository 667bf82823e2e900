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
// settled is called once, when the command has made its first notified call or has run for a millisecond: work
// that the supervisor can put off until then costs a short command nothing.
func Serve(l kernel.Listener, d *Dispatcher, done int, settled func()) error {
	_ = l.SyncWakeUp() // speed only
	var n kernel.Notification
	call := Call{guest: kernelGuest{l}}
	set := []unix.PollFd{{Fd: int32(l.FD), Events: unix.POLLIN}, {Fd: int32(done), Events: unix.POLLIN}}
	timeout := settleMillis
	for {
		ready, err := unix.Poll(set, timeout)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("poll listener: %w", err)
		}
		if ready == 0 {
			timeout = -1
			settled()
			continue
		}
		if set[1].Revents != 0 || set[0].Revents&unix.POLLIN == 0 {
			return nil // done, whoever still asks; or POLLHUP: nobody is left to ask
		}
		switch err := l.Receive(&n); {
		case err == nil:
			call.TID, call.Nr, call.Args, call.id, call.memoryRead = int(n.PID), uint32(n.Nr), n.Args, n.ID, false
			answer(l, n.ID, d.Decide(&call))
			if timeout >= 0 {
				timeout = -1
				settled()
			}
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT):
			// Interrupted, or the caller was killed between the wake-up and the receive.
		default:
			return fmt.Errorf("receive notification: %w", err)
		}
	}
}

const settleMillis = 1

// answer sends a verdict. A failure means that the caller is gone: there is nobody to tell.
func answer(l kernel.Listener, id uint64, v Verdict) {
	switch v.kind {
	case verdictContinue:
		_ = l.Continue(id)
	case verdictReturn:
		_ = l.Return(id, v.value)
	default:
		if v.errno == 0 {
			v.errno = unix.EPERM // errno 0 would tell the caller that a refused call succeeded
		}
		_ = l.Fail(id, v.errno)
	}
}
