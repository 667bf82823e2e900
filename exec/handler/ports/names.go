package ports

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
)

// Translate returns where a destination really is: a port of the own host that the sandbox has bound may be another one.
// The decision about the destination must have been made before.
func (h *Handler) Translate(protocol ir.Protocols, to netip.AddrPort) (netip.AddrPort, bool) {
	if h.table == nil {
		return to, false
	}
	port, ok := h.table.translate(protocol, to)
	if !ok {
		return to, false
	}
	return netip.AddrPortFrom(to.Addr(), port), true
}

// Ports returns the ports that are bound, where ports are virtual. It may be called from any goroutine.
func (h *Handler) Ports() []Port { return h.table.ports() }

// Virtual returns the port by which the sandbox knows the one that a socket is bound to.
func (h *Handler) Virtual(fd int, port uint16) uint16 {
	if h.table == nil {
		return port
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return port
	}
	if p := h.table.cookies[cookie]; p != nil && p.Real == port {
		return p.Virtual
	}
	return port
}

func (h *Handler) ownName(c *supervise.Call) supervise.Verdict  { return h.name(c, false) }
func (h *Handler) peerName(c *supervise.Call) supervise.Verdict { return h.name(c, true) }

// name answers for sockets whose address has a port that the sandbox knows by another number. The kernel answers for all
// others, which decides nothing.
func (h *Handler) name(c *supervise.Call, peer bool) supervise.Verdict {
	asItIs := supervise.Continue(supervise.DecidedOnRegisters)
	if h.table.mapped == 0 {
		return asItIs
	}
	s, err := socket.Pin(c, c.Arg32(0), h.close)
	if err != nil {
		return asItIs
	}
	defer h.release(&s)
	if !s.Internet() {
		return asItIs
	}
	name, err := socket.NameOf(s.FD, peer)
	if err != nil {
		return asItIs
	}
	at, ok := name.Internet()
	if !ok {
		return asItIs
	}
	port, ok := h.virtual(&s, at, peer)
	if !ok {
		return asItIs
	}
	name.SetPort(port)
	return supervise.FromError(socket.Tell(c, c.Args[1], c.Args[2], name.Bytes()))
}

func (h *Handler) virtual(s *socket.Socket, at netip.AddrPort, peer bool) (uint16, bool) {
	if peer {
		if !at.Addr().Unmap().IsLoopback() {
			return 0, false
		}
		return h.table.meant(s.Transport(), at)
	}
	cookie, err := unix.GetsockoptUint64(s.FD, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return 0, false
	}
	return h.table.named(s.Transport(), cookie, at)
}
