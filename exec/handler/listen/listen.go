// Package listen keeps listen(2) within network.allow_bind: on a socket that was never bound the kernel picks a port
// by itself, and Landlock is not asked (spec: the autobind hole).
//
// It answers listen. The socket is duplicated, its port looked at, and the call made on the duplicate, so a descriptor
// swapped by another thread changes nothing. It never blocks.
package listen

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Handler is the listen gate of one sandbox.
type Handler struct {
	ports   []uint16 // sorted; 0 allows an ephemeral port
	call    abi.Sysno
	journal supervise.Journal
}

// New makes the gate for the ports that may be bound.
func New(arch abi.Arch, ports []uint16, j supervise.Journal) *Handler {
	nr, _ := abi.SyscallNumber(arch, "listen")
	ports = slices.Clone(ports)
	slices.Sort(ports)
	return &Handler{ports: ports, call: nr, journal: j}
}

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
	defer unix.Close(fd)
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
	if slices.Contains(h.ports, 0) {
		return true
	}
	return port != 0 && slices.Contains(h.ports, uint16(port))
}

func (h *Handler) deny(c *supervise.Call) supervise.Verdict {
	h.journal.Record(supervise.Event{
		Kind: "denied", PID: c.TID, Command: kernel.CommandName(c.TID), Syscall: "listen", Verdict: "EACCES",
		Reason: "the socket is not bound to a port of network.allow_bind", Rule: "network.allow_bind",
	})
	return supervise.Errno(unix.EACCES)
}
