package supervise

import (
	"time"

	"golang.org/x/sys/unix"
)

// waiting is what a call waits for.
type waiting struct {
	fd      int // -1: nothing but the time
	events  uint32
	timeout time.Duration
	then    func(c *Call, ready bool) Verdict
}

// WaitFD lets the call wait until fd is ready, without a thread and without keeping the loop: then is called on the loop's
// thread, with the call, and its verdict answers; it may be WaitFD or Defer once more.
//
// events are those of epoll_ctl(2), EPOLLIN or EPOLLOUT or both; an error and a hang-up (EPOLLERR, EPOLLHUP) count as
// ready in any case. ready is false where the timeout was over first; 0 is none: then the wait lasts as long as its caller
// does. With -1 as fd there is only the timeout, which must not be 0.
//
// fd must be non-blocking if then is to use it, and known to epoll (what is not, such as a regular file, fails with
// epoll's EPERM). The verdict takes it over. Once then is called it is then's, to close, answer with or wait for again. If
// then never is, because the caller is gone, the sandbox has ended or there is no room for one more pending call (which
// fails with EAGAIN), fd is closed, outside of the loop since it may be the last of a socket; what else then would release
// is for [Verdict.Dropping].
func WaitFD(fd int, events uint32, timeout time.Duration, then func(c *Call, ready bool) Verdict) Verdict {
	return Verdict{kind: verdictWait, wait: &waiting{fd, events, timeout, then}}
}

// Wait lets the call wait for a time, as WaitFD does.
func Wait(d time.Duration, then func(*Call) Verdict) Verdict {
	return WaitFD(-1, 0, max(d, 1), func(c *Call, _ bool) Verdict { return then(c) })
}

// Interrupted has then answer a call that waits once its caller has a signal to take: Restart, or what has been done until
// then. The kernel would end a call of its own at once; here it is looked for four times a second. Without it the signal is
// taken after the call.
func (v Verdict) Interrupted(then func(*Call) Verdict) Verdict {
	v.signal = then
	return v
}

// Waited returns the function that a WaitFD or Wait calls, nil for other verdicts: for tests.
func (v Verdict) Waited() func(c *Call, ready bool) Verdict {
	if v.wait == nil {
		return nil
	}
	return v.wait.then
}

// wait begins a wait.
func (b *backlog) wait(p *pending) {
	w := p.what.wait
	p.state = pendingWaiting
	if w.fd >= 0 {
		if err := b.loop.watch(w.fd, w.events, func() { b.waited(p, true) }); err != nil {
			b.discard(p.what)
			b.remove(p)
			b.loop.answer(&p.call, p.what.unable(FromError(err)))
			return
		}
	}
	if w.timeout > 0 {
		b.alert(p, w.timeout)
	}
}

func (b *backlog) unwatch(p *pending) {
	if fd := p.what.wait.fd; fd >= 0 {
		b.loop.Unwatch(fd)
	}
}

// waited ends a wait.
func (b *backlog) waited(p *pending, ready bool) {
	if !p.call.Valid() {
		b.giveUp(p)
		return
	}
	b.silence(p)
	b.unwatch(p)
	then := p.what.wait.then
	b.back(p, func(c *Call) Verdict { return then(c, ready) })
	b.arm()
}

// interrupted answers a call that waits if its caller has a signal to take. The descriptor that it waited for is then's.
func (b *backlog) interrupted(p *pending) {
	if p.state != pendingWaiting || p.what.signal == nil || !b.signalled(p.call.TID) || !p.call.Valid() {
		return
	}
	b.silence(p)
	b.unwatch(p)
	b.back(p, p.what.signal)
}

// watch has ready called whenever one of some events, an error or a hang-up is there. The error is epoll_ctl's errno.
func (l *Loop) watch(fd int, events uint32, ready func()) error {
	l.watched++
	err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: l.watched})
	if err == nil {
		l.sources[int32(fd)] = source{l.watched, ready}
	}
	return err
}
