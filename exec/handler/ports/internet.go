package ports

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
)

// maxTries bounds how many ports are tried where any will do.
const maxTries = 64

// randomID is a port id as the kernel picks them: not a process id.
func randomID() uint32 { return rand.Uint32() | 1<<31 }

// bindInternet binds an IPv4 or IPv6 socket. What the kernel takes for no address of the socket's family it refuses.
func (h *Handler) bindInternet(c *supervise.Call, s *socket.Socket, a *socket.Address) supervise.Verdict {
	to, ok := a.Internet()
	if !ok {
		return supervise.FromError(kernel.Bind(s.FD, a.Bytes())) // for the errno
	}
	if h.policy.Held != nil {
		// The rules record what they refuse themselves.
		switch o := h.policy.Held(c, "bind", ir.EventBind, s.Transport(), to); {
		case o.Kind == ir.OutcomeKill:
			return supervise.Kill()
		case o.Narrows():
			return supervise.Errno(unix.Errno(o.Errno))
		}
	}
	if s.Kind == unix.SOCK_STREAM {
		if r := h.policy.Bind(ir.TCP, to.Port()); !r.Allowed {
			rule, origin := h.policy.Describe(r)
			if rule == "" {
				rule = "network.allow_bind"
			}
			return h.refuse(c, supervise.Event{
				Address: "tcp " + to.String(), Reason: r.Reason, Rule: rule, Origin: origin,
			}, unix.EACCES)
		}
	}
	if h.table == nil || s.Transport()&(ir.TCP|ir.UDP) == 0 {
		return supervise.FromError(h.bindPlain(s, a, to))
	}
	p, err := h.bindVirtual(s, a, to)
	if err == nil && p.Virtual != p.Real {
		h.journal.Record(supervise.Event{
			Kind: "bind", PID: c.TID, Syscall: "bind", Address: p.Protocol.String() + " " + netip.AddrPortFrom(p.Address, p.Virtual).String(),
			Reason: fmt.Sprintf("the port is taken outside of the sandbox: its real one is %d", p.Real),
		})
	}
	return supervise.FromError(err)
}

func (h *Handler) bindPlain(s *socket.Socket, a *socket.Address, to netip.AddrPort) error {
	if to.Port() == 0 && s.Kind == unix.SOCK_STREAM {
		return h.bindEphemeral(s, a, func(port uint16) bool { return h.policy.mayPick(ir.TCP, port) })
	}
	return kernel.Bind(s.FD, a.Bytes())
}

// bindEphemeral binds to a port that the kernel picks, and that is acceptable. A port cannot be given back, so it is first
// picked for a socket of our own.
func (h *Handler) bindEphemeral(s *socket.Socket, a *socket.Address, acceptable func(port uint16) bool) error {
	late, err := unix.GetsockoptInt(s.FD, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT)
	if err == nil && late != 0 {
		// No port is bound before the socket connects; listen(2) is answered by exec/handler/listen.
		return kernel.Bind(s.FD, a.Bytes())
	}
	for range maxTries {
		port, err := try(s, a, 0)
		if err != nil {
			return err
		}
		if !acceptable(port) {
			continue
		}
		b := *a
		b.SetPort(port)
		if err := kernel.Bind(s.FD, b.Bytes()); err != unix.EADDRINUSE {
			return err
		}
	}
	return unix.EADDRINUSE
}

// bindVirtual binds to the port that was asked for, or where somebody outside has it, to another.
func (h *Handler) bindVirtual(s *socket.Socket, a *socket.Address, to netip.AddrPort) (Port, error) {
	p := &bound{Port: Port{Protocol: s.Transport(), Address: to.Addr().Unmap(), Virtual: to.Port()}}
	if s.Domain == unix.AF_INET6 {
		only, err := unix.GetsockoptInt(s.FD, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		p.onlyV6 = err == nil && only != 0
	}
	if h.table.full() {
		return p.Port, unix.ENOBUFS
	}
	if p.Virtual == 0 {
		err := h.bindEphemeral(s, a, func(port uint16) bool {
			p.Virtual = port
			return h.table.rival(p) == nil && h.policy.mayPick(p.Protocol, port)
		})
		if err != nil {
			return p.Port, err
		}
		if p.Real, err = localPort(s.FD); err != nil || p.Real == 0 {
			return p.Port, err
		}
		p.Virtual = p.Real
		return p.Port, h.enter(s, p)
	}
	if rival := h.table.rival(p); rival != nil {
		// In the way of a socket of the sandbox, or beside it: as the kernel says about the port that both would have. Nobody
		// outside was there before the rival, but where that is not: it then is shared with nobody at all.
		if !rival.holds(p) {
			if _, err := try(s, a, rival.Real); err != nil {
				return p.Port, err
			}
		}
		return p.Port, h.bindReal(s, a, p, rival.Real)
	}
	if _, err := try(s, a, p.Virtual); err != unix.EADDRINUSE {
		if err := h.bindReal(s, a, p, p.Virtual); err != unix.EADDRINUSE {
			return p.Port, err
		}
	}
	for range maxTries {
		port, err := try(s, a, 0)
		if err != nil {
			return p.Port, err
		}
		if h.table.means(p.Protocol, port) {
			continue // the sandbox knows another socket by that number
		}
		if err := h.bindReal(s, a, p, port); err != unix.EADDRINUSE {
			return p.Port, err
		}
	}
	return p.Port, unix.EADDRINUSE
}

// mayPick says whether a port may be what the kernel picks: where ephemeral ports are granted any may, that is not denied.
func (p *Policy) mayPick(protocol ir.Protocols, port uint16) bool {
	return p.Ephemeral || p.Bind(protocol, port).Allowed
}

// bindReal binds to a port and enters it. The port is named, never picked by the kernel: so it stays the socket's until
// that is closed, whatever the caller does with it (SOCK_BINDPORT_LOCK).
func (h *Handler) bindReal(s *socket.Socket, a *socket.Address, p *bound, port uint16) error {
	b := *a
	b.SetPort(port)
	if err := kernel.Bind(s.FD, b.Bytes()); err != nil {
		return err
	}
	p.Real = port
	return h.enter(s, p)
}

func (h *Handler) enter(s *socket.Socket, p *bound) error {
	if err := h.table.enter(s.FD, p); err != nil {
		return unix.ENOBUFS
	}
	if h.policy.OnBind != nil {
		h.policy.OnBind(p.Port)
	}
	return nil
}

// try binds a socket of our own, like s but for SO_REUSEPORT, to a port: EADDRINUSE says that somebody has it. Sharing it
// (socket(7)) would take connections from them that are not the sandbox's. For 0 the kernel picks one that nobody has.
func try(s *socket.Socket, a *socket.Address, port uint16) (uint16, error) {
	fd, err := unix.Socket(s.Domain, s.Kind|unix.SOCK_CLOEXEC, s.Protocol)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	options := []struct{ level, name int }{{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}, {unix.SOL_SOCKET, unix.SO_REUSEADDR}}
	if s.Domain != unix.AF_INET6 {
		options = options[1:]
	}
	if s.Kind != unix.SOCK_STREAM || port == 0 {
		options = options[:len(options)-1] // where SO_REUSEADDR shares a port as SO_REUSEPORT does
	}
	for _, o := range options {
		value, err := unix.GetsockoptInt(s.FD, o.level, o.name)
		if err == nil {
			err = unix.SetsockoptInt(fd, o.level, o.name, value)
		}
		if err != nil {
			return 0, err
		}
	}
	b := *a
	b.SetPort(port)
	if err := kernel.Bind(fd, b.Bytes()); err != nil {
		return 0, err
	}
	return localPort(fd)
}

// localPort is the port that a socket is bound to, 0 for none.
func localPort(fd int) (uint16, error) {
	name, err := socket.NameOf(fd, false)
	if err != nil {
		return 0, err
	}
	at, ok := name.Internet()
	if !ok {
		return 0, unix.EAFNOSUPPORT
	}
	return at.Port(), nil
}

// Assign binds a socket that is not bound, as listen(2) does by itself: to a port that the kernel picks and that may be
// bound.
func (h *Handler) Assign(fd int) error {
	s := socket.Socket{FD: fd}
	if err := s.Identify(); err != nil {
		return err
	}
	if s.Kind != unix.SOCK_STREAM {
		return nil // it does not listen
	}
	var a socket.Address
	if s.Domain == unix.AF_INET6 {
		a.Set(make([]byte, unix.SizeofSockaddrInet6))
	} else {
		a.Set(make([]byte, unix.SizeofSockaddrInet4))
	}
	a.SetFamily(uint16(s.Domain))
	to, _ := a.Internet()
	if h.table == nil || s.Transport() != ir.TCP {
		return h.bindPlain(&s, &a, to)
	}
	_, err := h.bindVirtual(&s, &a, to)
	return err
}
