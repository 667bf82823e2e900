// Package listen keeps listen(2) within network.allow_bind: on a socket that was never bound the kernel picks a port
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

// Handler is the listen gate of one sandbox.
type Handler struct {
	mayBind func(port uint16) bool
	call    abi.Sysno
	journal supervise.Journal
	closer  supervise.Closer
}

// New makes the gate. mayBind says whether a port may be bound; port 0 stands for an ephemeral one.
func New(arch abi.Arch, mayBind func(port uint16) bool, j supervise.Journal) *Handler {
	nr, _ := abi.SyscallNumber(arch, "listen")
	return &Handler{mayBind: mayBind, call: nr, journal: j}
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
	port := 0
	switch a := addr.(type) {
	case *unix.SockaddrInet4:
		port = a.Port
	case *unix.SockaddrInet6:
		port = a.Port
	default:
		return true
	}
	// A bound port was checked by Landlock at bind; where ephemeral ports are granted any port may be one.
	return h.mayBind(0) || port != 0 && h.mayBind(uint16(port))
}

func (h *Handler) deny(c *supervise.Call) supervise.Verdict {
	h.journal.Record(supervise.Event{
		Kind: "denied", PID: c.TID, Syscall: "listen", Verdict: "EACCES",
		Reason: "the socket is not bound to a port of network.allow_bind", Rule: "network.allow_bind",
	})
	return supervise.Errno(unix.EACCES)
}
