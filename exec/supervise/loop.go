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
	poll       [2]unix.PollFd // the listener, and all sources by way of epoll, so that their number costs nothing
	epoll      int
	sources    map[int32]source
	watched    int32 // sources so far: tells one from a later one with the same descriptor
	ended      bool
	later      func()
	backlog    *backlog
	atEnd      []func()
}

// What a loop's poll set holds.
const (
	pollListener = iota
	pollSources
)

// source is what Watch was given.
type source struct {
	number int32
	ready  func()
}

// NewLoop makes a loop that ends when done, the command's pidfd, is readable or no process uses the filter any more.
// confine puts a thread that a deferred call runs on under the executor's own Landlock ruleset.
func NewLoop(l kernel.Listener, done int, confine func() error) (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	loop := &Loop{
		listener: l, epoll: epoll, sources: map[int32]source{},
		poll: [2]unix.PollFd{{Fd: int32(l.FD), Events: unix.POLLIN}, {Fd: int32(epoll), Events: unix.POLLIN}},
	}
	loop.backlog = newBacklog(loop, confine)
	// Whoever still asks once the command has ended is not answered.
	if err := loop.Watch(done, func() { loop.ended = true }); err != nil {
		_ = unix.Close(epoll)
		return nil, err
	}
	return loop, nil
}

// Watch has ready called on the loop's thread whenever fd is readable. It must read what is there, and not block.
func (l *Loop) Watch(fd int, ready func()) error {
	if err := l.watch(fd, unix.EPOLLIN, ready); err != nil {
		return fmt.Errorf("watch descriptor: %w", err)
	}
	return nil
}

// WatchWrites has ready called whenever fd can be written to, or its other end is gone. A descriptor is watched for one of both.
func (l *Loop) WatchWrites(fd int, ready func()) error {
	if err := l.watch(fd, unix.EPOLLOUT, ready); err != nil {
		return fmt.Errorf("watch descriptor: %w", err)
	}
	return nil
}

// Unwatch ends Watch and WatchWrites. It is called before fd is closed.
func (l *Loop) Unwatch(fd int) {
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	delete(l.sources, int32(fd))
}

// settled is how long a command must have run before what can wait is done.
const settled = time.Millisecond

// Later has f called once on the loop's thread, a moment after the start: what a short command need not wait for.
func (l *Loop) Later(f func()) { l.later = f }

// AtEnd has f called when Run is over: to close what was watched, above all. No call and no source is served any more.
func (l *Loop) AtEnd(f func()) { l.atEnd = append(l.atEnd, f) }

// Run answers as d decides, until the end. It may be called once.
//
// RECV alone would be one system call less than poll and RECV, but it cannot be told to stop or to listen to anything
// else, and before Linux 6.11 it does not even return when the last user of the filter is gone.
func (l *Loop) Run(d *Dispatcher) error {
	l.dispatcher = d
	defer l.Close()
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
		if _, err := unix.Poll(l.poll[:], patience); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return fmt.Errorf("poll listener: %w", err)
		}
		// The sources first: a flood of notifications must not keep the time limit or a signal waiting.
		if l.poll[pollSources].Revents != 0 {
			if err := l.serveSources(); err != nil || l.ended {
				return err
			}
		}
		switch {
		case l.poll[pollListener].Revents&unix.POLLIN != 0:
			if err := l.serve(&n, &call); err != nil {
				return err
			}
		case l.poll[pollListener].Revents != 0:
			return nil // POLLHUP: nobody is left to ask
		}
	}
}

// Close ends a loop that is not to be run. Run ends with it.
func (l *Loop) Close() {
	l.backlog.close()
	for _, f := range l.atEnd {
		f()
	}
	_ = unix.Close(l.epoll)
}

// serveSources calls those that are ready. A panic ends the loop: what a source left undone cannot be refused as a call
// can.
func (l *Loop) serveSources() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("internal error: %v", r)
		}
	}()
	var events [16]unix.EpollEvent
	n, err := unix.EpollWait(l.epoll, events[:], 0)
	if err != nil {
		return nil // interrupted: they are ready still
	}
	for _, e := range events[:n] {
		// What was served before may have unwatched this one, and watched another with its descriptor.
		if s, ok := l.sources[e.Fd]; ok && s.number == e.Pad {
			s.ready()
		}
	}
	return nil
}

// serve answers one notification. A caller whose notification has not been received yet can be interrupted by signals;
// exec/handler/restart keeps that from being seen by a program that forks.
func (l *Loop) serve(n *kernel.Notification, call *Call) error {
	switch err := l.listener.Receive(n); {
	case err == nil:
		l.notified(n, call)
		return nil
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT):
		return nil // interrupted, or the caller was killed between the wake-up and the receive
	default:
		return fmt.Errorf("receive notification: %w", err)
	}
}

// notified decides and answers a received notification. It does not allocate where its handlers do not.
func (l *Loop) notified(n *kernel.Notification, call *Call) {
	call.TID, call.Nr, call.Args, call.id, call.memoryRead = int(n.PID), uint32(n.Nr), n.Args, n.ID, false
	if v := l.dispatcher.Decide(call); v.Defers() {
		l.backlog.leave(call, v)
	} else {
		l.answer(call, v)
	}
}

func (l *Loop) answer(c *Call, v Verdict) { answer(l.listener, c.TID, c.id, v) }

// answer carries a verdict out. A signal may interrupt the sending; any other failure means that the caller is gone.
func answer(l kernel.Listener, tid int, id uint64, v Verdict) {
	if v.kind == verdictAddFD {
		v = install(l, id, v)
	}
	if v.kind == verdictKill {
		kill(l, tid, id)
		v = Errno(unix.EPERM) // if it could not be killed, the call fails at least
	}
	for errors.Is(send(l, id, v), unix.EINTR) {
	}
}

// install answers with a descriptor. What it returns remains to be sent if that failed; an answered or dead caller no
// longer minds.
func install(l kernel.Listener, id uint64, v Verdict) Verdict {
	fd := int(v.value)
	defer unix.Close(fd)
	err := l.AddFD(id, fd, v.flags)
	for errors.Is(err, unix.EINTR) {
		err = l.AddFD(id, fd, v.flags)
	}
	if errors.Is(err, unix.EMFILE) {
		return Errno(unix.EMFILE)
	}
	return Errno(unix.EACCES)
}

// kill ends the caller's process. The pidfd is opened first and the notification checked then: as long as the caller
// waits, its pid is its own.
func kill(l kernel.Listener, tid int, id uint64) {
	pidfd, err := kernel.ThreadPIDFD(tid)
	if err != nil {
		return
	}
	defer unix.Close(pidfd)
	if l.Valid(id) {
		_ = kernel.KillProcessOf(pidfd)
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
