package network

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/query"
)

// unixTarget pins the socket that a path leads to, from where the caller stands, and decides about it by where it is, not
// by how it was named. The address through leads to the pinned socket as long as the pin is open: whatever happens to
// names meanwhile, it is the one that was decided about. The error is what the call fails with.
func (h *Handler) unixTarget(c *supervise.Call, to *socket.Address) (pin kernel.Pin, through socket.Address, err error) {
	path, ok := to.Path()
	if !ok {
		return pin, through, unix.EINVAL
	}
	pin, err = h.policy.Root.Resolve(kernel.Base{TID: c.TID, DirFD: kernel.AtCWD}, path, true, 0)
	if err != nil {
		return pin, through, kernel.ErrnoOf(err)
	}
	if !c.Valid() {
		pin.Close()
		return kernel.Pin{}, through, unix.ESRCH
	}
	if err := h.mayReach(c, &pin); err != nil {
		pin.Close()
		return kernel.Pin{}, through, err
	}
	through.SetPath(pin.SelfPath())
	return pin, through, nil
}

// mayReach decides about a pinned socket.
func (h *Handler) mayReach(c *supervise.Call, pin *kernel.Pin) error {
	_, mode, err := pin.ID()
	if err != nil {
		return kernel.ErrnoOf(err)
	}
	if mode&unix.S_IFMT != unix.S_IFSOCK {
		return unix.ECONNREFUSED // what connecting to another kind of file fails with
	}
	r := query.Ruling{Reason: "the socket has no path"}
	if pin.Path != "" {
		r = h.policy.Unix(pin.Path)
	}
	if r.Allowed {
		return nil
	}
	rule, origin := h.policy.Describe(r)
	h.journal.Record(supervise.Event{
		Kind: "denied", PID: c.TID, Syscall: h.calls[c.Nr].name, Path: pin.Path, Verdict: "EACCES", Reason: r.Reason, Rule: rule, Origin: origin, Closest: true,
	})
	return unix.EACCES
}

// connectUnix connects to the socket at a path; the peer sees the executor's pid in SO_PEERCRED, and the caller's uid and
// gid, which are the executor's. An abstract name means sockets of the sandbox alone: the executor's Landlock domain sees
// to that.
func (h *Handler) connectUnix(c *supervise.Call, s socket.Socket, to *socket.Address) supervise.Verdict {
	if h.policy.Unix == nil {
		defer s.Close()
		return h.refuse(c, "unix", unix.EACCES, "unix sockets cannot be reached")
	}
	if to.Abstract() || to.Family() != unix.AF_UNIX || to.Size() <= 2 || to.Size() > unix.SizeofSockaddrUnix {
		return h.attemptUnix(s, kernel.Pin{FD: -1}, *to, 0)
	}
	pin, through, err := h.unixTarget(c, to)
	if err != nil {
		s.Close()
		return supervise.FromError(err)
	}
	return h.attemptUnix(s, pin, through, 0)
}

// How often a listener with a full queue is tried again: nothing tells when it has taken a connection.
const (
	firstRetry = time.Millisecond
	lastRetry  = 50 * time.Millisecond
)

// attemptUnix connects without waiting, and again later where the caller would wait. waited is how long it has.
func (h *Handler) attemptUnix(s socket.Socket, pin kernel.Pin, to socket.Address, waited time.Duration) supervise.Verdict {
	release := func() {
		s.Close()
		if pin.FD >= 0 {
			pin.Close()
		}
	}
	h.alarm.Set(patience)
	defer h.alarm.Clear()
	blocks, flags, err := s.Blocks()
	if err == nil && blocks {
		_, err = attempt(&s, flags, &to)
	} else if err == nil {
		err = kernel.Connect(s.FD, to.Bytes())
	}
	limit := s.Timeout()
	if err != unix.EAGAIN && err != unix.EINPROGRESS || !blocks || limit > 0 && waited >= limit {
		release()
		return supervise.FromError(err)
	}
	pause := min(max(waited, firstRetry), lastRetry)
	return supervise.Wait(pause, func(*supervise.Call) supervise.Verdict {
		return h.attemptUnix(s, pin, to, waited+pause)
	}).Dropping(release).Interrupted(func(*supervise.Call) supervise.Verdict {
		release()
		if limit > 0 {
			return supervise.Errno(unix.EINTR) // not begun anew (signal(7))
		}
		return supervise.Restart()
	})
}
