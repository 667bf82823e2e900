package policy

import (
	"net/netip"
	"strings"
)

// Endpoint is one address and port that a test asks about.
type Endpoint struct {
	Proto string     // "tcp", "udp"
	Host  string     // a name, or "" where Addr is valid
	Addr  netip.Addr // invalid for names, and for a bind without an address
	Port  uint16
}

// ParseConnect parses tests.case.connect: "[tcp://|udp://]host:port"; without scheme, TCP.
func ParseConnect(s string) (Endpoint, error) {
	rule, err := ParseNetRule(s)
	if err != nil {
		return Endpoint{}, err
	}
	single := !rule.Ports.All && len(rule.Ports.Ranges) == 1 && len(rule.Ports.Params) == 0
	if rule.ICMP || rule.Kind == TargetAny || !single || rule.Kind == TargetPrefix && !rule.Prefix.IsSingleIP() ||
		strings.HasPrefix(rule.Host, "*") {
		return Endpoint{}, grammarErrorf("endpoint", `write one address or name and one port, such as "tcp://10.0.0.1:443"`, "%q is not one destination", s)
	}
	return rule.endpoint(), nil
}

// ParseBindEndpoint parses tests.case.bind: "[tcp://|udp://][address:]port"; without scheme, TCP.
func ParseBindEndpoint(s string) (Endpoint, error) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		scheme, rest = "tcp", s
	}
	if allDigits(rest) {
		port, err := parsePort(rest)
		if err != nil {
			return Endpoint{}, err
		}
		if scheme == "tcp" || scheme == "udp" {
			return Endpoint{Proto: scheme, Port: port}, nil
		}
	}
	if e, err := ParseConnect(s); err == nil && e.Addr.IsValid() {
		return e, nil
	}
	return Endpoint{}, grammarErrorf("endpoint", `write a port, or an address and port such as "tcp://127.0.0.1:8080"`, "%q is not one address and port", s)
}

func (r NetRule) endpoint() Endpoint {
	e := Endpoint{Proto: "tcp", Host: r.Host, Port: r.Ports.Ranges[0].Lo}
	if !r.TCP {
		e.Proto = "udp"
	}
	if r.Kind == TargetPrefix {
		e.Addr = r.Prefix.Addr()
	}
	return e
}
