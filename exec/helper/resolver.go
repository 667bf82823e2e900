package helper

import (
	"fmt"
	"net/netip"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// ResolverConfig is what a resolver is to do.
type ResolverConfig struct {
	Names       []string // of rules, those with a wildcard included
	Hosts       []protocol.Host
	Private     bool             // names must not lead to private addresses
	Nameservers []netip.AddrPort // to ask; none: those of the host
}

// Resolver is a running resolver.
type Resolver struct {
	*Line
	Listeners protocol.Ready
}

// StartResolver starts a resolver and returns when it listens.
func (p *Program) StartResolver(c ResolverConfig) (*Resolver, error) {
	r := &Resolver{}
	line, err := p.open(protocol.JobResolver, func(l *Line) error { return r.begin(l, c) })
	if err != nil {
		return nil, err
	}
	r.Line = line
	return r, nil
}

// begin tells the resolver what to do, and waits until it listens.
func (r *Resolver) begin(l *Line, c ResolverConfig) error {
	if err := l.tell(c.Names); err != nil {
		return err
	}
	for _, h := range c.Hosts {
		if err := l.send(h, 0); err != nil {
			return err
		}
	}
	if err := l.send(protocol.Begin{Private: c.Private, Upstreams: c.Nameservers}, 0); err != nil {
		return err
	}
	m, err := l.receive(0)
	if err != nil {
		return err
	}
	ready, ok := m.(protocol.Ready)
	if !ok || len(ready) == 0 {
		return fmt.Errorf("it says %T", m)
	}
	for _, listener := range ready {
		if !listener.At.Addr().IsLoopback() || listener.At.Port() == 0 {
			return fmt.Errorf("it listens at %v", listener.At)
		}
	}
	r.Listeners = ready
	return nil
}
