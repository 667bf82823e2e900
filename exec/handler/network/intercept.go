package network

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
)

// Intercept leads TCP connections that rules allow to us, who hand the other end to a proxy.
type Intercept struct {
	// At returns where a connection to an allowed destination is to be made instead, a loopback address; ok is false for a
	// destination that stays what it is. The connection is refused where the address is not valid.
	At func(destination netip.AddrPort) (at netip.AddrPort, ok bool)
	// Made tells of a connection that a thread has made there, or is making: its own address, the destination, and where
	// that really is. An error is the call's.
	Made func(tid int, from, destination, real netip.AddrPort) error
}

// intercept has to, the address of an allowed destination, lead to us where connections there are intercepted. made is then
// to be told of the socket once a connection has been begun.
func (h *Handler) intercept(
	c *supervise.Call, s *socket.Socket, to *socket.Address, destination netip.AddrPort,
) (made func(*socket.Socket) error, err error) {
	if h.policy.Intercept == nil || s.Transport() != ir.TCP {
		return nil, nil
	}
	at, ok := h.policy.Intercept.At(destination)
	if !ok {
		return nil, nil
	}
	if !at.IsValid() {
		h.refuse(c, "tcp "+destination.String(), unix.ECONNREFUSED, "the proxy of the sandbox is gone")
		return nil, unix.ECONNREFUSED
	}
	real, _ := to.Internet()
	tid := c.TID
	if *to, err = socket.Of(s.Domain, at); err != nil {
		return nil, err
	}
	return func(s *socket.Socket) error {
		from, err := local(s.FD)
		if err == nil {
			err = h.policy.Intercept.Made(tid, from, destination, real)
		}
		return err
	}, nil
}
