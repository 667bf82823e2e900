package supervise

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// CanDefer reports whether a call that is deferred now would find room. Who would rather do the work on the loop than fail
// the call asks first.
func (l *Loop) CanDefer() bool { return !l.deferred.full() }

// resumed holds deferred calls that are back, until the loop's thread takes them up.
type resumed struct {
	mu    sync.Mutex
	event int // eventfd: readable when there are any; 0 until a call is deferred
	calls []resumedCall
}

type resumedCall struct {
	call Call
	then func(*Call) Verdict
}

// awaitResumed has the loop look for calls that come back. Most sandboxes never defer one.
func (l *Loop) awaitResumed() error {
	if l.resumed.event != 0 {
		return nil
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	l.resumed.event = fd
	return l.Watch(fd, func() {
		for _, r := range l.resumed.take() {
			if err := l.carryOut(&r.call, l.dispatcher.resume(&r.call, r.then)); err != nil {
				answer(l.listener, r.call.TID, r.call.id, Errno(unix.EPERM))
			}
		}
	})
}

func (r *resumed) add(c Call, then func(*Call) Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.event < 0 {
		return // the command has ended, and with it the caller
	}
	r.calls = append(r.calls, resumedCall{c, then})
	_, _ = unix.Write(r.event, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // any non-zero number, in either byte order
}

func (r *resumed) take() []resumedCall {
	r.mu.Lock()
	defer r.mu.Unlock()
	var count [8]byte
	_, _ = unix.Read(r.event, count[:])
	calls := r.calls
	r.calls = nil
	return calls
}

func (r *resumed) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.event > 0 {
		_ = unix.Close(r.event)
	}
	r.event = -1
}
