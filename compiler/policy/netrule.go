package policy

import (
	"net/netip"
	"strings"
)

// NetRule is one rule of network.allow or network.deny.
type NetRule struct {
	TCP, UDP, ICMP bool // which protocols; a rule without scheme means TCP and UDP
	Kind           TargetKind
	Prefix         netip.Prefix // for TargetPrefix: masked, never IPv4-mapped; a single address has full length
	Host           string       // for TargetHost: lower case, without final dot; may begin with "*."
	Ports          PortSet      // All for ICMP
}

// TargetKind is the kind of a rule's target.
type TargetKind uint8

// Kinds of target.
const (
	TargetAny    TargetKind = 1
	TargetPrefix TargetKind = 2
	TargetHost   TargetKind = 3
)

const (
	netHint    = "write [tcp://|udp://|icmp://]host|ip|cidr|*[:port[,port…]]"
	schemeHint = `schemes are tcp, udp and icmp, in lower case; https is "tcp://example.com:443"`
)

// ParseNetRule parses a rule of network.allow:
//
//	rule   = [ ("tcp" | "udp") "://" ] body | "icmp://" ( "*" | ip | cidr | host )
//	body   = "[" ip6 [ "/" len ] "]:" ports | ip | cidr | target [ ":" ports ]
//	target = "" | "*" | ip | cidr | host          ; "" and "*" mean any address
//	ports  = "*" | port { "," port }              ; 1–65535, or "${name}"
//
// A body that is an address as a whole means all of its ports, so "::1:443" is an address; write "[::1]:443".
func ParseNetRule(s string) (NetRule, error) {
	if err := CheckText(s); err != nil {
		return NetRule{}, err
	}
	rule, body, err := parseScheme(s)
	if err != nil {
		return NetRule{}, err
	}
	if body == "" {
		if rule.ICMP {
			return NetRule{}, grammarErrorf("net-rule", netHint, "%q: an icmp rule needs a host, an address or *", s)
		}
		return NetRule{}, grammarErrorf("net-rule", `write "*" for any host`, "rule %q is empty", s)
	}
	if rule.ICMP {
		rule.Ports.All = true
		return rule, rule.parseICMP(body)
	}
	if strings.HasPrefix(body, "[") {
		return rule, rule.parseBracketed(body)
	}
	if prefix, err := parsePrefix(body); err == nil {
		rule.Kind, rule.Prefix, rule.Ports.All = TargetPrefix, prefix, true
		return rule, nil
	}
	target, ports, hasPorts := cutLast(body, ":")
	if err := rule.parseTarget(target); err != nil {
		return NetRule{}, err
	}
	if !hasPorts {
		rule.Ports.All = true
		return rule, nil
	}
	return rule, rule.parsePorts(ports)
}

// ParseNetDeny parses a rule of network.deny: as [ParseNetRule], but without host names, since a name denied by the
// addresses it has today is reachable by those it has tomorrow.
func ParseNetDeny(s string) (NetRule, error) {
	rule, err := ParseNetRule(s)
	if err == nil && rule.Kind == TargetHost {
		err = grammarErrorf("net-deny-host", "list what may be reached in network.allow instead", "%q is not an address or CIDR block; deny rules take no host names", rule.Host)
	}
	return rule, err
}

func parseScheme(s string) (rule NetRule, body string, err error) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		return NetRule{TCP: true, UDP: true}, s, nil
	}
	switch scheme {
	case "tcp":
		return NetRule{TCP: true}, rest, nil
	case "udp":
		return NetRule{UDP: true}, rest, nil
	case "icmp":
		return NetRule{ICMP: true}, rest, nil
	}
	return NetRule{}, "", grammarErrorf("net-scheme", schemeHint, "unknown scheme %q in %q", scheme, s)
}

func (r *NetRule) parseICMP(body string) error {
	if prefix, err := parsePrefix(body); err == nil {
		r.Kind, r.Prefix = TargetPrefix, prefix
		return nil
	}
	if strings.ContainsAny(body, ":[") {
		return grammarErrorf("net-rule", "", "%q: an icmp rule takes no port and no brackets", body)
	}
	return r.parseTarget(body)
}

func (r *NetRule) parseBracketed(body string) error {
	inside, ports, ok := strings.Cut(body[1:], "]:")
	if !ok {
		return grammarErrorf("net-rule", `write "[::1]:443", or "::1" for every port`, "malformed bracketed address %q", body)
	}
	prefix, err := parsePrefix(inside)
	if err != nil || !strings.Contains(inside, ":") {
		return grammarErrorf("net-rule", `write "[::1]:443"`, "%q is not an IPv6 address or CIDR block", inside)
	}
	r.Kind, r.Prefix = TargetPrefix, prefix
	return r.parsePorts(ports)
}

func (r *NetRule) parseTarget(s string) error {
	if s == "" || s == "*" {
		r.Kind = TargetAny
		return nil
	}
	prefix, err := parsePrefix(s)
	if err == nil {
		r.Kind, r.Prefix = TargetPrefix, prefix
		return nil
	}
	if strings.Contains(s, "/") {
		return err
	}
	if strings.Contains(s, "${") {
		return grammarErrorf("net-rule", "", "%q: a parameter can be a port here, not a host", s)
	}
	if strings.Contains(s, ":") {
		return grammarErrorf("net-rule", `ports are separated by commas; an IPv6 address with a port is written "[::1]:443"`, "%q is not a host or address", s)
	}
	host, wildcard := strings.CutPrefix(s, "*.")
	if host, err = checkHost(host); err != nil {
		return err
	}
	if wildcard {
		host = "*." + host
	}
	r.Kind, r.Host = TargetHost, host
	return nil
}

// parsePrefix parses an address or a CIDR block and clears the host bits. IPv4-mapped IPv6 becomes IPv4, which is
// what the kernel connects to.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, grammarErrorf("net-address", "", "%q is not an address", s)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, grammarErrorf("net-cidr", "for example 10.0.0.0/8 or fc00::/7", "%q is not a CIDR block", s)
	}
	if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), nil
}

func (r *NetRule) parsePorts(s string) error {
	items := strings.Split(s, ",")
	for _, item := range items {
		if err := r.Ports.addPort(strings.TrimSpace(item)); err != nil {
			return err
		}
	}
	if r.Ports.All && len(r.Ports.Ranges)+len(r.Ports.Params) > 0 {
		return grammarErrorf("net-ports", "", "%q: cannot mix * with concrete ports", s)
	}
	r.Ports.normalise(false)
	return nil
}

func (p *PortSet) addPort(item string) error {
	if item == "*" {
		p.All = true
		return nil
	}
	if name, ok, err := portParam(item); err != nil {
		return err
	} else if ok {
		p.Params = append(p.Params, name)
		return nil
	}
	port, err := parsePort(item)
	if err != nil {
		return err
	}
	if port == 0 {
		return grammarErrorf("port-range", portHint, "port 0 is not valid")
	}
	p.Ranges = append(p.Ranges, PortRange{port, port})
	return nil
}

// String returns the rule in its shortest form; parsing it gives the same rule.
func (r NetRule) String() string {
	scheme := ""
	switch {
	case r.ICMP:
		scheme = "icmp://"
	case r.TCP && !r.UDP:
		scheme = "tcp://"
	case r.UDP && !r.TCP:
		scheme = "udp://"
	}
	target := "*"
	switch r.Kind {
	case TargetHost:
		target = r.Host
	case TargetPrefix:
		target = r.Prefix.String()
		if r.Prefix.IsSingleIP() {
			target = r.Prefix.Addr().String()
		}
	}
	if r.Ports.All {
		return scheme + target
	}
	if r.Kind == TargetPrefix && r.Prefix.Addr().Is6() {
		target = "[" + target + "]"
	}
	return scheme + target + ":" + r.Ports.String()
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
