// Package resolver answers the DNS queries of one sandbox.
//
// In: messages of the executor (proxy/protocol) that say which names there are, and DNS queries of sockets that the executor
// has announced. Out: DNS answers, each of them after the executor has acknowledged the addresses in it. It answers for
// names that rules name and asks nobody about others; of what it knows of a name it tells addresses and nothing else.
//
// It trusts nobody: not the sandbox, whose queries it reads, not the servers that it asks, and not other processes of the
// host, whose packets it drops. It is confined before it reads the first of them. It decides nothing for good: the executor
// looks at every address once more.
//
// Read next: control.go (the executor), serve.go (the sandbox), answer.go (a query's answer), upstream.go (the servers).
package resolver

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/sandlock-go/sandlock/proxy/confine"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// Descriptor is where the executor's messages are.
const Descriptor = 3

// Descriptors that the process may have: those of the queries that are being answered, and some.
const descriptors = 1024

// Run is the job. It ends when the executor does, or never.
func Run(fd int) error {
	control := newControl(fd)
	c, err := control.configuration()
	if err != nil {
		return err
	}
	if len(c.upstreams) == 0 {
		c.upstreams = nameservers("/etc/resolv.conf")
	}
	c.host = hostsFile("/etc/hosts")
	listeners, ready, err := listen()
	if err != nil {
		return err
	}
	needs := confine.Needs{Files: descriptors}
	for _, u := range c.upstreams {
		needs.Ports = append(needs.Ports, u.Port())
	}
	if err := confine.Enter(needs); err != nil {
		return err
	}
	answers := newAnswerer(c, newUpstream(c.upstreams).lookup, control)
	for _, l := range listeners {
		l.serve(answers, control)
	}
	if err := control.send(ready); err != nil {
		return fmt.Errorf("tell the executor: %w", err)
	}
	control.serve()
	return nil
}

// configuration is what the executor says at first, and what was read of the host.
type configuration struct {
	rules     []string                // names and "*." names, as [query.MatchName] takes them
	fixed     map[string][]netip.Addr // network.hosts
	host      map[string][]netip.Addr // the host's own /etc/hosts
	private   bool
	upstreams []netip.AddrPort
}

// listener is a pair of sockets at a loopback address.
type listener struct {
	udp *net.UDPConn
	tcp *net.TCPListener
}

// listen makes the sockets: on IPv4, and on IPv6 where the host has it.
func listen() (list []listener, ready protocol.Ready, err error) {
	for _, at := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		var l listener
		if l.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0))); err == nil {
			l.tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
		}
		if err != nil && at.Is6() {
			return list, ready, nil
		}
		if err != nil {
			return nil, nil, err
		}
		list = append(list, l)
		ready = append(ready,
			protocol.Listener{Transport: protocol.UDP, At: address(l.udp.LocalAddr())},
			protocol.Listener{Transport: protocol.TCP, At: address(l.tcp.Addr())})
	}
	return slices.Clip(list), ready, nil
}

func address(a net.Addr) netip.AddrPort {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		at = a.AddrPort()
	case *net.TCPAddr:
		at = a.AddrPort()
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
