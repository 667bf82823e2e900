package exec

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/handler/network"
	"github.com/sandlock-go/sandlock/exec/handler/peers"
	"github.com/sandlock-go/sandlock/exec/handler/ports"
	"github.com/sandlock-go/sandlock/exec/handler/rules"
	"github.com/sandlock-go/sandlock/exec/handler/shown"
	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// bindNet gives the parameters in the network policy their values.
func (s *sandbox) bindNet() (problems []string) {
	s.net = s.program.Net
	var unbound []string
	s.net.DenyBind, problems = s.bindPortList(s.net.DenyBind, s.net.DenyBindOrigin)
	s.net.Rules, unbound = s.bindPorts(s.net.Rules)
	problems = append(problems, unbound...)
	s.net.UnixPaths = slices.Clone(s.net.UnixPaths)
	for i := range s.net.UnixPaths {
		u := &s.net.UnixPaths[i]
		path, err := ir.ExpandPath(u.Path, s.bound.lookup)
		if err != nil {
			problems = append(problems, s.ruleError(u.Origin, err).Error())
			continue
		}
		// What is not there yet is taken as it is written: links that come later lead nowhere else.
		if u.Path = path; u.Path != "" {
			if real, err := s.root.Real(path); err == nil {
				u.Path = real
			}
		}
	}
	return problems
}

// bindPorts gives the parameters in rules about destinations their values.
func (s *sandbox) bindPorts(rules []ir.NetRule) (bound []ir.NetRule, problems []string) {
	bound = slices.Clone(rules)
	for i := range bound {
		var unbound []string
		bound[i].Ports, unbound = s.bindPortList(bound[i].Ports, bound[i].Origin)
		problems = append(problems, unbound...)
	}
	return bound, problems
}

func (s *sandbox) bindPortList(list []ir.NetPort, at ir.OriginRef) (bound []ir.NetPort, problems []string) {
	bound = slices.Clone(list)
	for i := range bound {
		p := &bound[i]
		if p.Param == "" {
			continue
		}
		value, ok := s.bound.lookup(p.Param)
		n, err := strconv.ParseUint(value, 10, 16)
		if !ok || err != nil {
			problems = append(problems, s.ruleError(at, fmt.Errorf("parameter %q is no port: %q", p.Param, value)).Error())
			continue
		}
		*p = ir.NetPort{Lo: uint16(n), Hi: uint16(n)}
	}
	return bound, problems
}

// maxOwnPorts bounds the rules of the executor's ruleset; a policy with more ports leaves its connections unguarded there.
const maxOwnPorts = 4096

// describeAt names the rule of a ruling and its place in the policy.
func (s *sandbox) describeAt(r query.Ruling) (rule, origin string) {
	return s.describe(r), where(s.program, r.Origin)
}

// ownNet returns the rights of Landlock that the executor must not be without: it connects and binds in place of the
// command. Where the policy lists ports the executor, too, keeps to them.
func (s *sandbox) ownNet() (rights uint64) {
	n := &s.net
	rights = abi.NetBindUDP | abi.NetConnectSendUDP
	if n.PortRemap {
		rights |= abi.NetBindTCP | abi.NetConnectTCP // real ports are any
	}
	if !n.DecidesDestinations() {
		return rights
	}
	ports := 0
	for i := range n.Rules {
		if n.Rules[i].Protocols&ir.TCP == 0 {
			continue
		}
		if len(n.Rules[i].Ports) == 0 {
			return rights | abi.NetConnectTCP
		}
		for _, p := range n.Rules[i].Ports {
			ports += int(p.Hi) - int(p.Lo) + 1
		}
	}
	if n.Destinations == ir.DestinationsDenied || n.Resolver || ports > maxOwnPorts {
		rights |= abi.NetConnectTCP
	}
	return rights
}

// ownPorts grants the executor the ports to which it connects in place of the command.
func (s *sandbox) ownPorts(own *kernel.Ruleset) (problems []string) {
	if s.proxy != nil && s.reach.Handled.Net&^s.ownNet()&abi.NetConnectTCP != 0 {
		for _, l := range s.proxy.listeners {
			if err := own.AllowPort(l.at.Port(), abi.NetConnectTCP); err != nil {
				problems = append(problems, fmt.Sprintf("confine the executor: connect to its own port: %v", err))
			}
		}
	}
	if s.net.Resolver && s.reach.Handled.Net&^s.ownNet()&abi.NetBindTCP != 0 {
		// What is to talk to the resolver is bound to a port first, by which it is known there.
		if err := own.AllowPort(0, abi.NetBindTCP); err != nil {
			problems = append(problems, fmt.Sprintf("confine the executor: bind an ephemeral port: %v", err))
		}
	}
	if !s.net.DecidesDestinations() || s.ownNet()&abi.NetConnectTCP != 0 || s.reach.Handled.Net&abi.NetConnectTCP == 0 {
		return problems
	}
	for i := range s.net.Rules {
		r := &s.net.Rules[i]
		if r.Protocols&ir.TCP == 0 {
			continue
		}
		for _, p := range r.Ports {
			for port := int(p.Lo); port <= int(p.Hi); port++ {
				if err := own.AllowPort(uint16(port), abi.NetConnectTCP); err != nil {
					problems = append(problems, s.ruleError(r.Origin, fmt.Errorf("port %d: %w", port, err)).Error())
				}
			}
		}
	}
	return problems
}

// network wires what connects and sends in place of the command.
func (s *sandbox) network(w *wired, p *ports.Handler, dynamic *rules.Handler, loop *supervise.Loop, j supervise.Journal) error {
	if !slices.ContainsFunc([]string{"connect", "sendto", "sendmsg", "sendmmsg"}, s.notifies) {
		return nil
	}
	table := query.NewNetwork(&s.net, s.pins.Addresses, func(string) (uint16, bool) { return 0, false })
	policy := network.Policy{
		Decide: func(protocol ir.Protocols, to netip.AddrPort) bool {
			allowed, _ := table.Decide(protocol, to)
			return allowed
		},
		Explain:  table.Ask,
		Refusal:  unix.ECONNREFUSED, // as if nobody were there
		Describe: s.describeAt,
		Root:     s.root,
	}
	if !s.net.DecidesDestinations() {
		policy.Decide = func(protocol ir.Protocols, to netip.AddrPort) bool { return s.byLandlock(protocol, to).Allowed }
		policy.Explain, policy.Refusal = s.byLandlock, unix.EACCES // as Landlock itself refuses
	}
	if s.net.Unix != ir.UnixNone {
		policy.Unix = func(path string) query.Ruling { return query.UnixSocket(&s.net, &s.reach, path) }
	}
	if p != nil {
		policy.Translate = p.Translate
	}
	if dynamic != nil {
		policy.Held = dynamic.Network
	}
	resolving, err := s.resolve(table, loop, j)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if resolving != nil {
		policy.Redirect = resolving.redirect()
		policy.Decide = func(protocol ir.Protocols, to netip.AddrPort) bool {
			allowed, _ := table.Decide(protocol, to)
			return allowed || resolving.learned.allows(protocol, to)
		}
		policy.Explain = func(protocol ir.Protocols, to netip.AddrPort) query.Ruling {
			for _, name := range resolving.learned.names(to.Addr()) {
				if r := table.AskName(protocol, name, to.Port()); !r.Allowed {
					r.Reason = name + ": " + r.Reason
					return r
				}
			}
			return table.Ask(protocol, to)
		}
	}
	if s.proxy != nil {
		if policy.Intercept, err = s.proxy.wire(loop, j); err != nil {
			return fmt.Errorf("http: %w", err)
		}
	}
	h, err := network.New(s.arch, policy, j)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	w.list = append(w.list, h)
	before := w.close
	w.close = func() { before(); h.Close() }
	return nil
}

// showsHosts reports whether the command finds the addresses of names in /etc/hosts. Opens are not notified where the policy
// does not let it read that.
func (s *sandbox) showsHosts() bool { return s.program.Net.PinsNames() && s.notifies("openat") }

// hostsFile wires what shows the addresses of names.
func (s *sandbox) hostsFile(w *wired, limits *lowered, j supervise.Journal) {
	if !s.showsHosts() || s.mountsFiles() {
		return
	}
	h := shown.New(s.arch, shown.Config{Name: "hosts", File: shown.Hosts, Content: s.pins.HostsFile(), Grants: s.granted, Journal: j, Root: s.root, IDs: s.ids()})
	limits.instead = append(limits.instead, h.Instead)
	w.list = append(w.list, h)
}

// peers wires what tells of the peer that a connection was meant for, where the proxy has it.
func (s *sandbox) peers(w *wired) error {
	if s.proxy == nil || !s.notifies("getpeername") {
		return nil
	}
	h, err := peers.New(s.arch, s.proxy.peerOf)
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	w.list = append(w.list, h)
	before := w.close
	w.close = func() { before(); h.Close() }
	return nil
}

// bundles wires what shows files of certificates with the proxy's own.
func (s *sandbox) bundles(w *wired, limits *lowered, j supervise.Journal) {
	if s.proxy == nil || s.mountsFiles() {
		return
	}
	for _, b := range s.proxy.bundles {
		h := shown.New(s.arch, shown.Config{Name: "certificates", File: b.path, Read: b.read, Content: b.content, Grants: s.granted, Journal: j, Root: s.root, IDs: s.ids()})
		limits.instead = append(limits.instead, h.Instead)
		w.list = append(w.list, h)
	}
}

// byLandlock decides about a destination where the supervisor connects for another reason than destinations: TCP ports as
// the command's ruleset has them, and everything that a socket can be made for.
func (s *sandbox) byLandlock(protocol ir.Protocols, to netip.AddrPort) query.Ruling {
	if protocol == ir.TCP {
		return s.connectPort(to.Port())
	}
	return query.ByLandlock(&s.reach, protocol, to.Port())
}
