// Package listen keeps listen(2) within network.allow_bind and network.deny_bind: on a socket that was never bound the kernel picks a port
// by itself, and Landlock is not asked (spec: the autobind hole).
//
// It answers listen. The socket is duplicated, its port looked at, and the call made on the duplicate, so a descriptor
// swapped by another thread changes nothing. It never blocks.
package listen

import (
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
	// Rule is the policy's list that decides.
	Rule string
}

// Handler is the listen gate of one sandbox.
type Handler struct {
	policy  Policy
	call    abi.Sysno
	journal supervise.Journal
	closer  supervise.Closer
}

// New makes the gate.
func New(arch abi.Arch, p Policy, j supervise.Journal) *Handler {
	nr, _ := abi.SyscallNumber(arch, "listen")
	return &Handler{policy: p, call: nr, journal: j}
}

// Name is the concern.
func (h *Handler) Name() string { return "listen" }

// Syscalls lists listen.
func (h *Handler) Syscalls() []abi.Sysno { return []abi.Sysno{h.call} }

// Handle listens on behalf of the caller.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	if h.closer.Busy() {
		return supervise.Errno(unix.ENOBUFS)
	}
	fd, err := kernel.DuplicateFD(c.TID, int(c.Arg32(0)))
	if err != nil {
		return supervise.FromError(err)
	}
	defer h.closer.Close(fd)
	if !c.Valid() {
		return supervise.Errno(unix.ESRCH)
	}
	if !h.allowed(fd) {
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
	if !h.allowed(fd) {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		return h.deny(c)
	}
	return supervise.Return(0)
}

// allowed reports whether the socket's local port may be listened on. Families without ports are not this gate's.
func (h *Handler) allowed(fd int) bool {
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	port, ok := portOf(addr)
	if !ok {
		return true
	}
	if port != 0 && h.policy.Virtual != nil {
		port = h.policy.Virtual(fd, port)
	}
	return h.policy.May(port)
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
		Reason: "the socket is not bound to a port that " + h.policy.Rule + " lets it serve", Rule: h.policy.Rule,
	})
	return supervise.Errno(unix.EACCES)
}
