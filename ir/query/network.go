package query

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// Network is the network policy as tables that answer for one destination: [ir.Net], with names resolved and parameters
// bound. It does not change.
type Network struct {
	net    *ir.Net
	ports  [][]portRange   // by rule
	tables [3]destinations // by protocol: TCP, UDP, ICMP
}

// destinations holds the rules of one protocol.
type destinations struct {
	any     []portRange                  // of every address
	single  map[netip.Addr][]portRange   // of one address
	blocks  map[netip.Prefix][]portRange // of a block
	lengths [2][]int                     // the lengths of IPv4 and IPv6 blocks that there are
}

// portRange is a range of ports that a rule names.
type portRange struct {
	lo, hi uint16
	rule   int
}

// Pinned gives the addresses of a name in rules. Names that it does not know reach nothing.
type Pinned func(name string) []netip.Addr

// Ports gives the value of a parameter of type port.
type Ports func(param string) (port uint16, bound bool)

// NewNetwork makes the tables.
func NewNetwork(n *ir.Net, pinned Pinned, ports Ports) *Network {
	w := &Network{net: n}
	for i := range n.Rules {
		r := &n.Rules[i]
		ranges := portRanges(r, i, ports)
		w.ports = append(w.ports, ranges)
		for p := range w.tables {
			if r.Protocols&(1<<p) == 0 {
				continue
			}
			t := &w.tables[p]
			switch r.Kind {
			case ir.TargetAny:
				t.any = append(t.any, ranges...)
			case ir.TargetPrefix:
				if prefix, err := netip.ParsePrefix(r.Target); err == nil {
					t.add(prefix, ranges)
				}
			case ir.TargetHost:
				for _, a := range pinned(r.Target) {
					a = Canonical(a)
					t.add(netip.PrefixFrom(a, a.BitLen()), ranges)
				}
			}
		}
	}
	return w
}

func portRanges(r *ir.NetRule, rule int, ports Ports) []portRange {
	if len(r.Ports) == 0 {
		return []portRange{{0, 65535, rule}}
	}
	var list []portRange
	for _, p := range r.Ports {
		if p.Param != "" {
			port, bound := ports(p.Param)
			if !bound {
				continue
			}
			p.Lo, p.Hi = port, port
		}
		list = append(list, portRange{p.Lo, p.Hi, rule})
	}
	return list
}

func (t *destinations) add(prefix netip.Prefix, ranges []portRange) {
	if prefix.IsSingleIP() {
		if t.single == nil {
			t.single = map[netip.Addr][]portRange{}
		}
		t.single[prefix.Addr()] = append(t.single[prefix.Addr()], ranges...)
		return
	}
	if t.blocks == nil {
		t.blocks = map[netip.Prefix][]portRange{}
	}
	t.blocks[prefix] = append(t.blocks[prefix], ranges...)
	lengths := &t.lengths[family(prefix.Addr())]
	if !slices.Contains(*lengths, prefix.Bits()) {
		*lengths = append(*lengths, prefix.Bits())
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// NoMatch is the rule of an answer that no rule gave.
const NoMatch = -1

// Decide says whether a destination may be reached, and which of the rules says so, or NoMatch. It allocates nothing.
// protocol is one of ir.TCP, ir.UDP and ir.ICMP, which ignores the port.
func (w *Network) Decide(protocol ir.Protocols, to netip.AddrPort) (allowed bool, rule int) {
	p := bit(protocol)
	if p < 0 || !to.IsValid() {
		return false, NoMatch
	}
	if w.passesBy(protocol, to.Port()) {
		return false, NoMatch
	}
	addr, port := Canonical(to.Addr()), to.Port()
	rule = w.tables[p].find(addr, port)
	if w.net.Destinations == ir.DestinationsDenied {
		if rule == NoMatch && addr != plain(to.Addr()) {
			rule = w.tables[p].find(plain(to.Addr()), port) // 0.0.0.0 and :: as such
		}
		if inner, ok := Embedded(addr); ok && rule == NoMatch {
			rule = w.tables[p].find(Canonical(inner), port)
		}
		return rule == NoMatch, rule
	}
	return rule != NoMatch, rule
}

// passesBy reports whether datagrams to a port would pass the HTTP proxy by. They are refused whatever rules say: a client
// whose QUIC fails tries TCP.
func (w *Network) passesBy(protocol ir.Protocols, port uint16) bool {
	return protocol == ir.UDP && w.net.Intercepts(port)
}

// Among is Decide for an address that is known to belong to some of the rules (see [Network.NameRules]).
func (w *Network) Among(rules []int, protocol ir.Protocols, port uint16) (allowed bool, rule int) {
	if w.passesBy(protocol, port) {
		return false, NoMatch
	}
	for _, i := range rules {
		if w.net.Rules[i].Protocols&protocol != 0 && w.namesPort(i, port) {
			return true, i
		}
	}
	return false, NoMatch
}

func bit(protocol ir.Protocols) int {
	switch protocol {
	case ir.TCP:
		return 0
	case ir.UDP:
		return 1
	case ir.ICMP:
		return 2
	}
	return -1
}

func (t *destinations) find(addr netip.Addr, port uint16) int {
	if r := contains(t.single[addr], port); r != NoMatch {
		return r
	}
	for _, bits := range t.lengths[family(addr)] {
		prefix, err := addr.Prefix(bits)
		if err != nil {
			continue
		}
		if r := contains(t.blocks[prefix], port); r != NoMatch {
			return r
		}
	}
	return contains(t.any, port)
}

func contains(ranges []portRange, port uint16) int {
	for _, r := range ranges {
		if r.lo <= port && port <= r.hi {
			return r.rule
		}
	}
	return NoMatch
}

// plain is an address without what does not tell destinations apart: the IPv4-mapped form, which the kernel sends to the
// IPv4 address, and the scope of a link-local address.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// Canonical is the address that the kernel sends to: the IPv4 address of a mapped one, and the loopback address for the
// unspecified one (ip(7), ipv6(7): connecting to INADDR_ANY reaches the own machine).
func Canonical(a netip.Addr) netip.Addr {
	a = plain(a)
	switch {
	case a == netip.IPv4Unspecified():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case a == netip.IPv6Unspecified():
		return netip.IPv6Loopback()
	}
	return a
}

// Prefixes of IPv6 addresses that a translator or a tunnel takes to the IPv4 address in them.
var (
	nat64       = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	nat64Local  = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215, the address in its last 32 bits
	translated  = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765
	compatible  = netip.MustParsePrefix("::/96")           // RFC 4291 §2.5.5.1
	sixToFour   = netip.MustParsePrefix("2002::/16")       // RFC 3056
	lastAddress = []netip.Prefix{nat64, nat64Local, translated, compatible}
)

// Embedded returns the IPv4 address that an IPv6 address leads to where it is translated on the way. A rule against the
// one is a rule against the other; nothing that is allowed follows from it.
func Embedded(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() || a == netip.IPv6Loopback() {
		return netip.Addr{}, false
	}
	b := a.As16()
	if sixToFour.Contains(a) {
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	for _, p := range lastAddress {
		if p.Contains(a) {
			return netip.AddrFrom4([4]byte(b[12:16])), true
		}
	}
	return netip.Addr{}, false
}

// NameRules lists the rules that speak of a name: by the name itself or by a wildcard.
func (w *Network) NameRules(name string) []int {
	var rules []int
	for i := range w.net.Rules {
		if w.net.Rules[i].Kind == ir.TargetHost && MatchName(w.net.Rules[i].Target, name) {
			rules = append(rules, i)
		}
	}
	return rules
}

// MatchName reports whether the name of a rule is, or with "*." stands for, a name in lower case without final dot.
// "*.example.com" stands for every name beneath example.com, and not for example.com itself.
func MatchName(rule, name string) bool {
	if domain, ok := strings.CutPrefix(rule, ir.Wildcard); ok {
		return len(name) > len(domain)+1 && strings.HasSuffix(name, domain) && name[len(name)-len(domain)-1] == '.'
	}
	return rule == name
}

// Ask is Decide with the answer in words.
func (w *Network) Ask(protocol ir.Protocols, to netip.AddrPort) Ruling {
	if w.passesBy(protocol, to.Port()) {
		return passesProxyBy(to.Port())
	}
	allowed, rule := w.Decide(protocol, to)
	return w.ruling(allowed, rule, func(_ *ir.NetRule, i int) (target, port bool) {
		return w.targets(i, Canonical(to.Addr())), w.namesPort(i, to.Port())
	}, protocol)
}

// AskName answers for a name whose addresses are not known, as far as rules name it.
func (w *Network) AskName(protocol ir.Protocols, name string, port uint16) Ruling {
	if w.passesBy(protocol, port) {
		return passesProxyBy(port)
	}
	rule := NoMatch
	for i := range w.net.Rules {
		r := &w.net.Rules[i]
		named := r.Kind == ir.TargetAny || r.Kind == ir.TargetHost && MatchName(r.Target, name)
		if named && r.Protocols&protocol != 0 && w.namesPort(i, port) {
			rule = i
			break
		}
	}
	allowed := (rule != NoMatch) == (w.net.Destinations == ir.DestinationsAllowed)
	return w.ruling(allowed, rule, func(r *ir.NetRule, i int) (target, ported bool) {
		return r.Kind == ir.TargetAny || r.Kind == ir.TargetHost && MatchName(r.Target, name), w.namesPort(i, port)
	}, protocol)
}

func passesProxyBy(port uint16) Ruling {
	return Ruling{Reason: "requests to port " + strconv.Itoa(int(port)) + " go through the proxy; QUIC would pass it by"}
}

func (w *Network) ruling(allowed bool, rule int, match func(r *ir.NetRule, i int) (target, port bool), protocol ir.Protocols) Ruling {
	if rule != NoMatch {
		r := &w.net.Rules[rule]
		if allowed {
			return Ruling{true, "granted", r.Describe(), r.Origin}
		}
		return Ruling{false, "denied by " + r.Describe(), r.Describe(), r.Origin}
	}
	if allowed {
		return Ruling{Allowed: true, Reason: "no rule denies it", Origin: w.net.Origin}
	}
	best, score := NoMatch, 0
	for i := range w.net.Rules {
		r := &w.net.Rules[i]
		target, port := match(r, i)
		got := 0
		switch {
		case target && r.Protocols&protocol != 0: // all but the port
			got = 4
		case target && port: // all but the protocol
			got = 3
		case port && len(r.Ports) > 0 && r.Protocols&protocol != 0: // all but the address
			got = 2
		case target && r.Kind != ir.TargetAny:
			got = 1
		}
		if got > score {
			best, score = i, got
		}
	}
	if best == NoMatch {
		return Ruling{Reason: "no allow rule matches", Origin: w.net.Origin}
	}
	r := &w.net.Rules[best]
	return Ruling{false, "no allow rule matches; closest is " + r.Describe(), r.Describe(), r.Origin}
}

// targets reports whether rule i speaks of an address, whatever the port and protocol.
func (w *Network) targets(i int, addr netip.Addr) bool {
	of := func(list []portRange) bool {
		return slices.ContainsFunc(list, func(r portRange) bool { return r.rule == i })
	}
	for p := range w.tables {
		t := &w.tables[p]
		if of(t.any) || of(t.single[addr]) {
			return true
		}
		for _, bits := range t.lengths[family(addr)] {
			if prefix, err := addr.Prefix(bits); err == nil && of(t.blocks[prefix]) {
				return true
			}
		}
	}
	return false
}

func (w *Network) namesPort(rule int, port uint16) bool {
	return contains(w.ports[rule], port) != NoMatch
}

// UnixSocket decides about the unix socket at a path, which must be resolved, as the paths of the ruleset and of the
// network policy must be: beneath a write grant, or beneath a path that the policy names for sockets.
func UnixSocket(n *ir.Net, l *ir.Landlock, path string) Ruling {
	if n.Unix == ir.UnixNone {
		return Ruling{Reason: "unix sockets cannot be reached"}
	}
	for i := range n.UnixPaths {
		if u := &n.UnixPaths[i]; covers(&ir.PathRule{Path: u.Path}, path) {
			return Ruling{true, "granted", "unix " + u.Path, u.Origin}
		}
	}
	r := Path(l, path, abi.FSWriteFile)
	if !r.Allowed {
		r.Reason = "the socket is not beneath a write grant or a path of network.unix"
	}
	return r
}

// IsPrivate reports whether an address is none of the public internet's: loopback, link-local (which metadata services
// use), private (RFC 1918), shared (RFC 6598), unique local (RFC 4193), multicast, unspecified, or one of these in IPv6's
// clothes. Names that lead there are refused under network.private.
func IsPrivate(a netip.Addr) bool {
	a = plain(a)
	if inner, ok := Embedded(a); ok && a != netip.IPv6Unspecified() {
		return IsPrivate(inner)
	}
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsPrivate() || a.IsMulticast() || a.IsUnspecified() ||
		slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(a) })
}

var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("fec0::/10"),
}
