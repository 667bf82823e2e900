// Package listen keeps listen(2) within network.allow_bind and network.deny_bind: on a socket that was never bound the
// kernel picks a port by itself, and Landlock is not asked (spec: the autobind hole).
//
// It answers listen. The socket is duplicated, its port looked at, and the call made on the duplicate, so a descriptor
// swapped by another thread changes nothing. It never blocks.
package listen

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Policy is what the gate asks.
type Policy struct {
	// May says whether a port may be listened on; 0 stands for one that the kernel is still to pick.
	May func(port uint16) bool
	// Virtual returns the port by which the policy knows the one that a socket is bound to. nil: they are the same.
	Virtual func(fd int, port uint16) uint16
	// Assign binds a socket to a port that the kernel picks, if any will not do. nil: the kernel does.
	Assign func(fd int) error
	// Rule is the policy's list that decides, and Origin its place, if that is known.
	Rule, Origin string
}

// Handler is the listen gate of one sandbox.
type Handler struct {
	policy  Policy
	call    abi.Sysno
	journal supervise.Journal
	alarm   *kernel.Alarm // of the loop's thread
}

// patience bounds a close that does not wait unless the caller has given its own descriptor up meanwhile.
const patience = 2 * time.Millisecond

// New makes the gate. It must be called on the thread of the loop.
func New(arch abi.Arch, p Policy, j supervise.Journal) (*Handler, error) {
	nr, _ := abi.SyscallNumber(arch, "listen")
	alarm, err := kernel.NewAlarm()
	if err != nil {
		return nil, err
	}
	return &Handler{policy: p, call: nr, journal: j, alarm: alarm}, nil
}

// Close releases what the handler holds.
func (h *Handler) Close() { h.alarm.Close() }

// Name is the concern.
func (h *Handler) Name() string { return "listen" }

// Syscalls lists listen.
func (h *Handler) Syscalls() []abi.Sysno { return []abi.Sysno{h.call} }

// Handle listens on behalf of the caller.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	fd, err := kernel.DuplicateFD(c.TID, int(c.Arg32(0)))
	if err != nil {
		return supervise.FromError(err)
	}
	defer h.release(fd)
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	if ok, err := h.allowed(fd); err != nil {
		return supervise.FromError(err)
	} else if !ok {
		return h.deny(c)
	}
	if h.policy.Assign != nil && unbound(fd) {
		if err := h.policy.Assign(fd); err != nil {
			return supervise.FromError(err)
		}
	}
	if err := unix.Listen(fd, int(c.Arg32(1))); err != nil {
		return supervise.FromError(err)
	}
	// Another thread may have disconnected the socket between look and call, which frees a port that was not bound
	// explicitly; the kernel then picked a new one.
	if ok, err := h.allowed(fd); err != nil || !ok {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		return h.deny(c)
	}
	return supervise.Return(0)
}

// release closes the duplicate before the caller goes on: what the caller then closes is to be free at once.
func (h *Handler) release(fd int) {
	h.alarm.Set(patience)
	_ = unix.Close(fd)
	h.alarm.Clear()
}

// allowed reports whether the socket's local port may be listened on. Families without ports are not this gate's. The error is
// ENOTSOCK: the call fails with it whatever the policy says.
func (h *Handler) allowed(fd int) (bool, error) {
	addr, err := unix.Getsockname(fd)
	if err == unix.ENOTSOCK {
		return false, err
	}
	if err != nil {
		return false, nil
	}
	port, ok := portOf(addr)
	if !ok {
		return true, nil
	}
	if port != 0 && h.policy.Virtual != nil {
		port = h.policy.Virtual(fd, port)
	}
	return h.policy.May(port), nil
}

// unbound reports whether an internet socket has no port yet.
func unbound(fd int) bool {
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	port, ok := portOf(addr)
	return ok && port == 0
}

// portOf returns the port of an internet address.
func portOf(addr unix.Sockaddr) (port uint16, ok bool) {
	switch a := addr.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port), true
	case *unix.SockaddrInet6:
		return uint16(a.Port), true
	}
	return 0, false
}

func (h *Handler) deny(c *supervise.Call) supervise.Verdict {
	h.journal.Record(supervise.Event{
		Kind: "denied", PID: c.TID, Syscall: "listen", Verdict: "EACCES",
		Reason: "the socket is not bound to a port that " + h.policy.Rule + " lets it serve", Rule: h.policy.Rule, Origin: h.policy.Origin,
	})
	return supervise.Errno(unix.EACCES)
}
