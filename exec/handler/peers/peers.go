// Package peers tells programs the peer that they have connected to, where their connection was led to us: who is asked
// about such a socket is told of its destination, and not of the executor.
//
// It answers getpeername. The socket is duplicated, and recognised by its own address and that of its peer. It decides
// nothing about access: what it does not know the kernel answers.
package peers

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Of returns where a connection was meant to go, by its own address and its peer's; ok is false for one that was not led to us.
type Of func(own, peer netip.AddrPort) (destination netip.AddrPort, ok bool)

// Handler answers for the sockets of one sandbox.
type Handler struct {
	call  abi.Sysno
	alarm *kernel.Alarm // of the loop's thread
	of    Of
}

// patience bounds a close that does not wait unless the caller has given its own descriptor up meanwhile.
const patience = 2 * time.Millisecond

// New makes the handler. It must be called on the thread of the loop.
func New(arch abi.Arch, of Of) (*Handler, error) {
	nr, _ := abi.SyscallNumber(arch, "getpeername")
	alarm, err := kernel.NewAlarm()
	if err != nil {
		return nil, err
	}
	return &Handler{call: nr, alarm: alarm, of: of}, nil
}

// Close releases what the handler holds.
func (h *Handler) Close() { h.alarm.Close() }

// Name is the concern.
func (h *Handler) Name() string { return "peers" }

// Syscalls lists getpeername.
func (h *Handler) Syscalls() []abi.Sysno { return []abi.Sysno{h.call} }

// Handle tells of the destination, or leaves the answer to others.
func (h *Handler) Handle(c *supervise.Call) supervise.Verdict {
	others := supervise.Pass(supervise.DecidedOnRegisters)
	s, err := socket.Pin(c, c.Arg32(0), h.discard)
	if err != nil {
		return others
	}
	defer h.discard(s.FD)
	if !s.Internet() || s.Protocol != unix.IPPROTO_TCP {
		return others
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		name, err := socket.NameOf(s.FD, i == 1)
		if err != nil {
			return others // it is not connected
		}
		at, _ := name.Internet()
		ends[i] = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	destination, ok := h.of(ends[0], ends[1])
	if !ok {
		return others
	}
	name, err := socket.Of(s.Domain, destination)
	if err != nil {
		return others
	}
	return supervise.FromError(socket.Tell(c, c.Args[1], c.Args[2], name.Bytes()))
}

func (h *Handler) discard(fd int) {
	h.alarm.Set(patience)
	_ = unix.Close(fd)
	h.alarm.Clear()
}
