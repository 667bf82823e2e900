package exec

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// at returns our listener for a destination whose connections are intercepted, in the same family.
func (p *proxy) at(destination netip.AddrPort) (at netip.AddrPort, ok bool) {
	if !p.s.net.Intercepts(destination.Port()) {
		return at, false
	}
	if p.helper.FD < 0 {
		return at, true
	}
	for _, l := range p.listeners {
		if l.at.Addr().Is4() == destination.Addr().Unmap().Is4() {
			return l.at, true
		}
	}
	return at, true
}

// made expects a connection of a socket that has this address.
func (p *proxy) made(tid, socket int, from, destination, real netip.AddrPort) error {
	if len(p.begun) >= maxBegun {
		p.forget(begunTime)
	}
	if len(p.begun) >= maxBegun {
		return unix.EAGAIN
	}
	canonical := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(query.Canonical(a.Addr()), a.Port()) }
	p.drop(from)
	p.begun[from] = begun{proxied{tid, canonical(destination), canonical(real)}, time.Now(), socket, false}
	p.meant.add(from, destination)
	// As a rule it has arrived by now.
	for _, l := range p.listeners {
		if l.at.Addr().Is4() == from.Addr().Is4() {
			p.accept(l.fd)
		}
	}
	b, waits := p.begun[from]
	if !waits {
		return nil
	}
	duplicate, err := unix.FcntlInt(uintptr(socket), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		delete(p.begun, from)
		return unix.EAGAIN
	}
	b.socket, b.held = duplicate, true
	p.begun[from] = b
	return nil
}

// forget drops what was begun and has not arrived for long.
func (p *proxy) forget(after time.Duration) {
	for from, b := range p.begun {
		if time.Since(b.when) >= after {
			p.drop(from)
		}
	}
}

// drop forgets a connection that was begun.
func (p *proxy) drop(from netip.AddrPort) {
	if b, ok := p.begun[from]; ok && b.held {
		p.closer.Close(b.socket)
	}
	delete(p.begun, from)
}

// leads reports whether the socket is connected to one of our listeners from an address.
func (p *proxy) leads(fd int, from netip.AddrPort) bool {
	var ends [2]netip.AddrPort
	for i := range ends {
		name, err := socket.NameOf(fd, i == 1)
		if err != nil {
			return false
		}
		at, _ := name.Internet()
		ends[i] = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return ends[0] == from && slices.ContainsFunc(p.listeners, func(l listener) bool { return l.at == ends[1] })
}

// accept takes connections that have arrived at a listener, as long as the helper has room for them.
func (p *proxy) accept(fd int) {
	for range fairShare {
		if p.helper.FD >= 0 && !writable(p.helper.FD) {
			p.stall()
			return
		}
		conn, name, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return
		}
		p.hand(conn, peer(name))
		_ = unix.Close(conn)
	}
}

// hand gives a connection to the helper if the sandbox has made it; all others are somebody else's.
func (p *proxy) hand(conn int, from netip.AddrPort) {
	b, ok := p.begun[from]
	if !ok || p.helper.FD < 0 {
		return
	}
	defer p.drop(from)
	if len(p.open) >= maxOpen || !p.leads(b.socket, from) {
		return
	}
	for p.last++; p.last == 0 || p.taken(p.last); p.last++ {
	}
	names := p.names(b.destination.Addr())
	if len(names) > protocol.MaxNames {
		names = names[:protocol.MaxNames]
	}
	if p.helper.Send(protocol.Connection{ID: p.last, To: b.destination, Names: names}, conn) == nil {
		p.open[p.last] = b.proxied
	}
}

// peerOf returns what a socket of the sandbox takes for its peer.
func (p *proxy) peerOf(own, peer netip.AddrPort) (destination netip.AddrPort, ok bool) {
	if !slices.ContainsFunc(p.listeners, func(l listener) bool { return l.at == peer }) {
		return destination, false
	}
	destination, ok = p.meant.of[own]
	return destination, ok
}

// meant is where connections were meant to go, by their own address. What their sockets are is not known to us any more once
// the helper has closed its end, so the last ones are remembered.
type meant struct {
	of    map[netip.AddrPort]netip.AddrPort
	order []netip.AddrPort // a ring, once it is full
	next  int
}

const maxMeant = 4096

func (m *meant) add(own, destination netip.AddrPort) {
	if m.of == nil {
		m.of = map[netip.AddrPort]netip.AddrPort{}
	}
	_, known := m.of[own]
	m.of[own] = destination
	switch {
	case known:
	case len(m.order) < maxMeant:
		m.order = append(m.order, own)
	default:
		delete(m.of, m.order[m.next])
		m.order[m.next] = own
		m.next = (m.next + 1) % maxMeant
	}
}

func (p *proxy) taken(id uint32) bool {
	_, taken := p.open[id]
	return taken
}

// names returns the names that lead to an address.
func (p *proxy) names(a netip.Addr) []string {
	names := p.s.pins.leadTo(a)
	if p.s.learned != nil {
		names = append(names, p.s.learned.names(a)...)
	}
	return names
}

func peer(name unix.Sockaddr) netip.AddrPort {
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

func writable(fd int) bool {
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(set, 0)
	return err == nil && n > 0
}
