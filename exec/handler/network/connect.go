package network

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// patience bounds a system call that does not wait unless the caller changes its socket meanwhile.
const patience = 2 * time.Millisecond

// connect carries out connect(2).
func (h *Handler) connect(c *supervise.Call) supervise.Verdict {
	s, err := h.glance(c.TID, c.Arg32(0))
	if err != nil {
		return supervise.FromError(err)
	}
	var to socket.Address
	// Reading proves that the caller still waits, and so that the socket is its own.
	if err = to.Read(c, c.Args[1], c.Arg32(2)); err == nil && to.Size() == 0 && !c.Valid() {
		err = unix.ESRCH
	}
	if err != nil {
		h.close(&s)
		return supervise.FromError(err)
	}
	switch {
	case s.Internet():
		return h.connectInternet(c, s, &to)
	case s.Domain == unix.AF_UNIX:
		return h.connectUnix(c, s, &to)
	}
	h.close(&s)
	return h.refuse(c, "", unix.EAFNOSUPPORT, "sockets of this family connect nowhere")
}

// close closes the duplicate of a socket: it may be the last.
func (h *Handler) close(s *socket.Socket) {
	h.alarm.Set(patience)
	s.Close()
	h.alarm.Clear()
}

func (h *Handler) connectInternet(c *supervise.Call, s socket.Socket, to *socket.Address) supervise.Verdict {
	destination, ok := to.Internet()
	if family := to.Family(); family != unix.AF_INET && family != unix.AF_INET6 {
		ok = false // AF_UNSPEC takes the destination back (connect(2)); the kernel has an errno for the others
	}
	// Decided before the alarm is set, which is not to cut short what rules look at.
	var refused error
	var made func(*socket.Socket) error
	if ok {
		var redirected bool
		if redirected, refused = h.lead(c, &s, to, destination); refused == nil && !redirected {
			made, refused = h.intercept(c, &s, to, destination)
		}
	}
	h.alarm.Set(patience)
	defer h.alarm.Clear()
	if ok && refused == nil && s.Protocol == unix.IPPROTO_TCP {
		return h.connectStream(s, to, made)
	}
	defer s.Close()
	if refused != nil {
		return supervise.FromError(refused)
	}
	return supervise.FromError(kernel.Connect(s.FD, to.Bytes()))
}

// connectStream connects without waiting; where the caller would wait, its call does. made is told of a connection that
// was begun, nil if nobody wants to know; where it fails the call does.
func (h *Handler) connectStream(s socket.Socket, to *socket.Address, made func(*socket.Socket) error) supervise.Verdict {
	blocks, flags, err := s.Blocks()
	if err != nil {
		s.Close()
		return supervise.FromError(err)
	}
	if !blocks {
		defer s.Close()
		err = interruptedInProgress(kernel.Connect(s.FD, to.Bytes()))
		if made != nil && (err == nil || err == unix.EINPROGRESS) {
			if failed := made(&s); failed != nil {
				err = failed
			}
		}
		return supervise.FromError(err)
	}
	begun, err := attempt(&s, flags, to)
	if begun && made != nil {
		if failed := made(&s); failed != nil {
			err = failed
		}
	}
	if !unfinished(err) {
		s.Close()
		return supervise.FromError(err)
	}
	return h.awaitConnection(s, *to, flags)
}

// awaitConnection waits until the socket is connected or has failed. The second connect then says which, and leaves the
// socket as a waiting connect would (connected, not connecting).
func (h *Handler) awaitConnection(s socket.Socket, to socket.Address, flags int) supervise.Verdict {
	return supervise.WaitFD(s.FD, unix.EPOLLOUT, s.Timeout(), func(_ *supervise.Call, ready bool) supervise.Verdict {
		h.alarm.Set(patience)
		defer h.alarm.Clear()
		if !ready {
			s.Close()
			return supervise.Errno(unix.EINPROGRESS) // what SO_SNDTIMEO makes of connect
		}
		_, err := attempt(&s, flags, &to)
		if unfinished(err) {
			return h.awaitConnection(s, to, flags)
		}
		s.Close()
		return supervise.FromError(err)
	}).Interrupted(func(*supervise.Call) supervise.Verdict {
		timed := s.Timeout() > 0
		h.close(&s) // the connection is still being made; who calls connect again waits for it
		if timed {
			return supervise.Errno(unix.EINTR) // and is not begun anew (signal(7))
		}
		return supervise.Restart()
	})
}

// attempt connects without waiting on a socket that waits. Others who have the socket see O_NONBLOCK for that moment:
// connect(2) has no flag for a single call. The second connect finds a connection of the own machine made already. begun
// is true where this call is the one that began the connection.
func attempt(s *socket.Socket, flags int, to *socket.Address) (begun bool, err error) {
	if _, err := unix.FcntlInt(uintptr(s.FD), unix.F_SETFL, flags|unix.O_NONBLOCK); err != nil {
		return false, err
	}
	err = interruptedInProgress(kernel.Connect(s.FD, to.Bytes()))
	if begun = err == nil || err == unix.EINPROGRESS; begun && err != nil {
		err = interruptedInProgress(kernel.Connect(s.FD, to.Bytes()))
	}
	if _, back := unix.FcntlInt(uintptr(s.FD), unix.F_SETFL, flags); back != nil {
		return begun, back
	}
	return begun, err
}

// interruptedInProgress: a connect that the alarm has ended goes on by itself (connect(2), EINTR).
func interruptedInProgress(err error) error {
	if err == unix.EINTR {
		return unix.EINPROGRESS
	}
	return err
}

func unfinished(err error) bool { return err == unix.EINPROGRESS || err == unix.EALREADY }
