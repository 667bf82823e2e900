package exec

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/handler/network"
	"github.com/sandlock-go/sandlock/exec/helper"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// startResolver starts the sandbox's own resolver where the policy has one. As pinNames it must be called before this
// thread is confined.
func (s *sandbox) startResolver() error {
	if !s.net.Resolver {
		return nil
	}
	c := helper.ResolverConfig{Private: s.net.Private, Nameservers: s.options.Nameservers}
	seen := map[string]bool{}
	for i := range s.net.Rules {
		if r := &s.net.Rules[i]; r.Kind == ir.TargetHost && !seen[r.Target] {
			seen[r.Target] = true
			c.Names = append(c.Names, r.Target)
		}
	}
	for i := range s.net.Hosts {
		name := s.net.Hosts[i].Name
		c.Hosts = append(c.Hosts, protocol.Host{Name: name, Addresses: s.net.Fixed(name)})
	}
	program, err := s.helper()
	if err == nil {
		s.resolver, err = program.StartResolver(c)
		program.Close()
	}
	if err != nil {
		return fmt.Errorf("network.resolver: %w", err)
	}
	return nil
}

// endHelpers ends the helpers that run beside the sandbox, and waits. It may be called again.
func (s *sandbox) endHelpers() {
	if s.resolver != nil {
		s.resolver.End()
	}
	if s.proxy != nil {
		s.proxy.end()
	}
}

// resolving answers the helper's resolver, on the loop's thread. The helper is less trusted than the executor: whatever it
// says, an address becomes one of a name that rules speak of, on their ports.
type resolving struct {
	s       *sandbox
	helper  *helper.Resolver
	loop    *supervise.Loop
	learned *learned
	journal supervise.Journal
}

// resolve wires the resolver; nil where the policy has none.
func (s *sandbox) resolve(table *query.Network, loop *supervise.Loop, j supervise.Journal) (*resolving, error) {
	if s.resolver == nil {
		return nil, nil
	}
	s.learned = newLearned(table)
	r := &resolving{s: s, helper: s.resolver, loop: loop, learned: s.learned, journal: j}
	return r, loop.Watch(r.helper.FD, r.receive)
}

// fairShare is how many messages are taken before something else of the sandbox has its turn.
const fairShare = 16

func (r *resolving) receive() {
	for range fairShare {
		m, err := r.helper.Receive()
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err == nil {
			err = r.take(m)
		}
		if err != nil {
			r.loop.Unwatch(r.helper.FD)
			r.helper.Hang()
			reason := err.Error()
			if said := r.helper.Complaint(); said != "" {
				reason += ": " + said
			}
			r.journal.Record(supervise.Event{Kind: "error", Reason: "names are no longer resolved: " + reason})
			return
		}
	}
}

func (r *resolving) take(m protocol.Message) error {
	switch m := m.(type) {
	case protocol.Learned:
		// An acknowledgement that finds no room is one that never comes: then the sandbox gets no answer.
		_ = r.helper.Send(protocol.Ack{ID: m.ID, OK: r.learn(m)})
	case protocol.Refused:
		reason := "no rule names it"
		if m.Reason == protocol.Private {
			reason = "it leads to a private address, which network.private refuses"
		}
		r.refused(m.Name, reason)
	default:
		return fmt.Errorf("unexpected %T", m)
	}
	return nil
}

func (r *resolving) learn(m protocol.Learned) bool {
	if r.s.net.Private && slices.ContainsFunc(m.Addresses, query.IsPrivate) {
		r.refused(m.Name, "it leads to a private address, which network.private refuses")
		return false
	}
	return r.learned.add(m.Name, time.Duration(m.TTL)*time.Second, m.Addresses...)
}

func (r *resolving) refused(name, reason string) {
	r.journal.Record(supervise.Event{
		Kind: "denied", Address: "dns " + name, Verdict: "NXDOMAIN", Reason: reason, Origin: where(r.s.program, r.s.net.Origin),
	})
}

// redirect has what goes to a name server go to the helper.
func (r *resolving) redirect() *network.Redirect {
	return &network.Redirect{To: r.instead, Announce: r.announce}
}

const portDNS = 53

// instead returns where the helper listens for what goes to a name server: in the same family, else by IPv4. Without a
// helper the address is invalid.
func (r *resolving) instead(p ir.Protocols, to netip.AddrPort) (at netip.AddrPort, ok bool) {
	if to.Port() != portDNS || p != ir.TCP && p != ir.UDP {
		return at, false
	}
	if r.helper.FD < 0 {
		return at, true // its ports may be another's
	}
	for _, l := range r.helper.Listeners {
		if l.Transport == transport(p) && (!at.IsValid() || l.At.Addr().Is4() == to.Addr().Unmap().Is4()) {
			at = l.At
		}
	}
	return at, true
}

func (r *resolving) announce(p ir.Protocols, from netip.AddrPort) error {
	return r.helper.Send(protocol.Announce{Transport: transport(p), From: from})
}

func transport(p ir.Protocols) protocol.Transport {
	if p == ir.TCP {
		return protocol.TCP
	}
	return protocol.UDP
}
