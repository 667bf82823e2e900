package network

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
)

// Redirect leads some destinations to a process of ours, whatever rules say of them. What the sandbox then sees of its peer
// (getpeername, the source of a datagram) is that process.
type Redirect struct {
	// To returns where a destination leads instead, a loopback address; ok is false for a destination that stays what it
	// is. It is refused where the address is not valid.
	To func(protocol ir.Protocols, to netip.AddrPort) (at netip.AddrPort, ok bool)
	// Announce tells the process that a socket of the sandbox at this address may talk to it. It is called before the
	// process can hear of the socket.
	Announce func(protocol ir.Protocols, from netip.AddrPort) error
}

// instead returns where what a socket is to connect or send to leads instead, once the socket has been announced there; ok
// is false where it leads nowhere else. An error is the call's.
//
// A datagram that an unconnected socket sends is answered from an address that its program has not sent to, which some
// resolvers do not accept (musl's, for one).
func (h *Handler) instead(c *supervise.Call, s *socket.Socket, destination netip.AddrPort) (to socket.Address, ok bool, err error) {
	if h.policy.Redirect == nil {
		return to, false, nil
	}
	transport := s.Transport()
	at, ok := h.policy.Redirect.To(transport, destination)
	switch {
	case !ok:
		return to, false, nil
	case !at.IsValid():
		h.refuse(c, transport.String()+" "+destination.String(), unix.ECONNREFUSED, "the resolver of the sandbox is gone")
		return to, true, unix.ECONNREFUSED
	}
	if to, err = socket.Of(s.Domain, at); err == nil {
		err = h.announce(s, at)
	}
	return to, true, err
}

// announce announces the address from which the socket will be heard at a loopback address. One that has none yet gets a
// port; connect(2) and sendto(2) would give it one, too.
func (h *Handler) announce(s *socket.Socket, at netip.AddrPort) error {
	from, err := local(s.FD)
	if err == nil && from.Port() == 0 {
		var any socket.Address
		if any, err = socket.Of(s.Domain, netip.AddrPortFrom(unspecified(at.Addr()), 0)); err == nil {
			if err = kernel.Bind(s.FD, any.Bytes()); err == nil {
				from, err = local(s.FD)
			}
		}
	}
	if err != nil {
		return err
	}
	if from.Addr().IsUnspecified() {
		from = netip.AddrPortFrom(at.Addr(), from.Port()) // the kernel takes the address nearest to the destination
	}
	if h.policy.Redirect.Announce(s.Transport(), from) != nil {
		return unix.ECONNREFUSED
	}
	return nil
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// local returns the address of an internet socket, an IPv4-mapped one as the IPv4 address that it is.
func local(fd int) (netip.AddrPort, error) {
	name, err := socket.NameOf(fd, false)
	if err != nil {
		return netip.AddrPort{}, err
	}
	at, ok := name.Internet()
	if !ok {
		return netip.AddrPort{}, unix.EAFNOSUPPORT
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), nil
}
