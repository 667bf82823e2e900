package network

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
)

// patience bounds a system call that does not wait unless the caller changes its socket meanwhile.
const patience = 2 * time.Millisecond

// connect carries out connect(2).
func (h *Handler) connect(c *supervise.Call) supervise.Verdict {
	var to address
	if err := to.read(c, c.Args[1], c.Arg32(2)); err != nil {
		return supervise.FromError(err)
	}
	s, err := pin(c, c.Arg32(0))
	if err != nil {
		return supervise.FromError(err)
	}
	switch {
	case s.internet():
		return h.connectInternet(c, s, &to)
	case s.domain == unix.AF_UNIX:
		return h.connectUnix(c, s, &to)
	}
	defer s.close()
	return h.refuse(c, "", unix.EAFNOSUPPORT, "sockets of this family connect nowhere")
}

func (h *Handler) connectInternet(c *supervise.Call, s socket, to *address) supervise.Verdict {
	h.alarm.Set(patience)
	defer h.alarm.Clear()
	if to.family() == unix.AF_UNSPEC {
		// Takes the destination back (connect(2)).
		defer s.close()
		return supervise.FromError(kernel.Connect(s.fd, to.bytes()))
	}
	destination, ok := to.internet()
	if !ok {
		defer s.close()
		return supervise.FromError(kernel.Connect(s.fd, to.bytes())) // for the errno: the kernel takes no such address either
	}
	if !h.allowed(c, s.transport(), destination) {
		s.close()
		return supervise.Errno(h.policy.Refusal)
	}
	if s.protocol != unix.IPPROTO_TCP {
		defer s.close()
		return supervise.FromError(kernel.Connect(s.fd, to.bytes()))
	}
	return h.connectStream(s, to)
}

// connectStream connects without waiting; where the caller would wait, its call does.
func (h *Handler) connectStream(s socket, to *address) supervise.Verdict {
	blocks, flags, err := s.blocks()
	if err != nil {
		s.close()
		return supervise.FromError(err)
	}
	if !blocks {
		defer s.close()
		return supervise.FromError(interruptedInProgress(kernel.Connect(s.fd, to.bytes())))
	}
	if err = s.attempt(flags, to); !unfinished(err) {
		s.close()
		return supervise.FromError(err)
	}
	return h.awaitConnection(s, *to, flags)
}

// awaitConnection waits until the socket is connected or has failed. The second connect then says which, and leaves the
// socket as a waiting connect would (connected, not connecting).
func (h *Handler) awaitConnection(s socket, to address, flags int) supervise.Verdict {
	return supervise.WaitFD(s.fd, unix.EPOLLOUT, s.timeout(), func(_ *supervise.Call, ready bool) supervise.Verdict {
		h.alarm.Set(patience)
		defer h.alarm.Clear()
		if !ready {
			s.close()
			return supervise.Errno(unix.EINPROGRESS) // what SO_SNDTIMEO makes of connect
		}
		err := s.attempt(flags, &to)
		if unfinished(err) {
			return h.awaitConnection(s, to, flags)
		}
		s.close()
		return supervise.FromError(err)
	}).Interrupted(func(*supervise.Call) supervise.Verdict {
		s.close() // the connection is still being made; who calls connect again waits for it
		return supervise.Restart()
	})
}

// attempt connects without waiting on a socket that waits. Others who have the socket see O_NONBLOCK for that moment:
// connect(2) has no flag for a single call. The second connect finds a connection of the own machine made already.
func (s *socket) attempt(flags int, to *address) error {
	if _, err := unix.FcntlInt(uintptr(s.fd), unix.F_SETFL, flags|unix.O_NONBLOCK); err != nil {
		return err
	}
	err := kernel.Connect(s.fd, to.bytes())
	if err == unix.EINPROGRESS {
		err = kernel.Connect(s.fd, to.bytes())
	}
	if _, back := unix.FcntlInt(uintptr(s.fd), unix.F_SETFL, flags); back != nil {
		return back
	}
	return interruptedInProgress(err)
}

// interruptedInProgress: a connect that the alarm has ended goes on by itself (connect(2), EINTR).
func interruptedInProgress(err error) error {
	if err == unix.EINTR {
		return unix.EINPROGRESS
	}
	return err
}

func unfinished(err error) bool { return err == unix.EINPROGRESS || err == unix.EALREADY }
