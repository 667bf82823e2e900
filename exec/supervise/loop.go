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
	poll       [3]unix.PollFd // the listener, the end, and sources by way of epoll, so that their number costs nothing
	epoll      int
	sources    map[int32]func()
	later      func()
	deferred   pool
}

// What a loop's poll set holds.
const (
	pollListener = iota
	pollDone
	pollSources
)

// NewLoop makes a loop that ends when done, the command's pidfd, is readable or no process uses the filter any more.
// confine puts a thread that a deferred call runs on under the executor's own Landlock ruleset.
func NewLoop(l kernel.Listener, done int, confine func() error) (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &Loop{
		listener: l, epoll: epoll, sources: map[int32]func(){},
		poll: [3]unix.PollFd{
			{Fd: int32(l.FD), Events: unix.POLLIN}, {Fd: int32(done), Events: unix.POLLIN}, {Fd: int32(epoll), Events: unix.POLLIN},
		},
		deferred: pool{listener: l, confine: confine},
	}, nil
}

// Watch has ready called on the loop's thread whenever fd is readable. It must read what is there, and not block.
func (l *Loop) Watch(fd int, ready func()) error {
	err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	if err != nil {
		return fmt.Errorf("watch descriptor: %w", err)
	}
	l.sources[int32(fd)] = ready
	return nil
}

// Unwatch ends Watch. It is called before fd is closed.
func (l *Loop) Unwatch(fd int) {
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	delete(l.sources, int32(fd))
}

// settled is how long a command must have run before what can wait is done.
const settled = time.Millisecond

// Later has f called once on the loop's thread, a moment after the start: what a short command need not wait for.
func (l *Loop) Later(f func()) { l.later = f }

// Run answers as d decides, until the end. It may be called once.
//
// RECV alone would be one system call less than poll and RECV, but it cannot be told to stop or to listen to anything
// else, and before Linux 6.11 it does not even return when the last user of the filter is gone.
func (l *Loop) Run(d *Dispatcher) error {
	l.dispatcher = d
	defer l.close()
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
		if l.poll[pollDone].Revents != 0 {
			return nil // the command has ended, whoever still asks
		}
		if l.poll[pollSources].Revents != 0 {
			l.serveSources()
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

func (l *Loop) close() {
	l.deferred.close()
	_ = unix.Close(l.epoll)
}

func (l *Loop) serveSources() {
	var events [16]unix.EpollEvent
	n, err := unix.EpollWait(l.epoll, events[:], 0)
	if err != nil {
		return // interrupted: they are ready still
	}
	for _, e := range events[:n] {
		if ready := l.sources[e.Fd]; ready != nil {
			ready()
		}
	}
}

// serve answers one notification. A caller whose notification has not been received yet can be interrupted by signals;
// exec/handler/restart keeps that from being seen by a program that forks.
func (l *Loop) serve(n *kernel.Notification, call *Call) error {
	switch err := l.listener.Receive(n); {
	case err == nil:
		call.TID, call.Nr, call.Args, call.id, call.memoryRead = int(n.PID), uint32(n.Nr), n.Args, n.ID, false
		v := l.dispatcher.Decide(call)
		if v.kind == verdictDefer {
			if !l.deferred.start(n.ID, v.later) && v.drop != nil {
				v.drop()
			}
		} else {
			answer(l.listener, int(n.PID), n.ID, v)
		}
		return nil
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT):
		return nil // interrupted, or the caller was killed between the wake-up and the receive
	default:
		return fmt.Errorf("receive notification: %w", err)
	}
}

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
