package query_test

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

func ports(list ...uint16) []ir.NetPort {
	var p []ir.NetPort
	for _, n := range list {
		p = append(p, ir.NetPort{Lo: n, Hi: n})
	}
	return p
}

func network(d ir.Destinations, rules ...ir.NetRule) *query.Network {
	pinned := func(name string) []netip.Addr {
		if name == "api.example.com" {
			return []netip.Addr{netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr("::ffff:93.184.216.35"), netip.MustParseAddr("2001:db8::34")}
		}
		return nil
	}
	param := func(name string) (uint16, bool) { return 8080, name == "port" }
	return query.NewNetwork(&ir.Net{Destinations: d, Rules: rules}, pinned, param)
}

func TestNetworkAllowed(t *testing.T) {
	w := network(ir.DestinationsAllowed,
		ir.NetRule{Protocols: ir.TCP | ir.UDP, Kind: ir.TargetHost, Target: "api.example.com", Ports: ports(443)},
		ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetPrefix, Target: "10.0.0.0/8", Ports: []ir.NetPort{{Lo: 80, Hi: 90}, {Param: "port"}, {Param: "unbound"}}},
		ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetPrefix, Target: "10.1.2.3/32"},
		ir.NetRule{Protocols: ir.UDP, Kind: ir.TargetAny, Ports: ports(53)},
		ir.NetRule{Protocols: ir.ICMP, Kind: ir.TargetPrefix, Target: "192.0.2.0/24"},
		ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetPrefix, Target: "127.0.0.1/32", Ports: ports(1)},
		ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetPrefix, Target: "fe80::/10", Ports: ports(1)},
		ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetPrefix, Target: "::1/128", Ports: ports(2)},
		ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetHost, Target: "*.example.org", Ports: ports(443)},
	)
	for _, tc := range []struct {
		protocol ir.Protocols
		to       string
		rule     int
	}{
		{ir.TCP, "93.184.216.34:443", 0},
		{ir.UDP, "93.184.216.35:443", 0},
		{ir.TCP, "[::ffff:93.184.216.34]:443", 0},
		{ir.TCP, "[2001:db8::34]:443", 0},
		{ir.TCP, "93.184.216.34:80", query.NoMatch},
		{ir.TCP, "[64:ff9b::5db8:d822]:443", query.NoMatch}, // allowing the IPv4 address allows no translator
		{ir.ICMP, "93.184.216.34:0", query.NoMatch},
		{ir.TCP, "10.9.9.9:85", 1},
		{ir.TCP, "10.9.9.9:8080", 1},
		{ir.TCP, "10.9.9.9:0", query.NoMatch},
		{ir.TCP, "10.9.9.9:91", query.NoMatch},
		{ir.UDP, "10.9.9.9:85", query.NoMatch},
		{ir.TCP, "10.1.2.3:9999", 2},
		{ir.UDP, "8.8.8.8:53", 3},
		{ir.UDP, "[::1]:53", 3},
		{ir.TCP, "8.8.8.8:53", query.NoMatch},
		{ir.ICMP, "192.0.2.77:0", 4},
		{ir.ICMP, "192.0.2.77:99", 4},
		{ir.ICMP, "192.0.3.1:0", query.NoMatch},
		{ir.TCP, "127.0.0.1:1", 5},
		{ir.TCP, "0.0.0.0:1", 5},
		{ir.TCP, "[::ffff:0.0.0.0]:1", 5},
		{ir.TCP, "[::]:1", query.NoMatch},
		{ir.TCP, "[::]:2", 7},
		{ir.TCP, "127.0.0.2:1", query.NoMatch},
		{ir.TCP, "[fe80::1%eth0]:1", 6},
		{ir.TCP, "[fec0::1]:1", query.NoMatch},
		{8, "127.0.0.1:1", query.NoMatch},
		{ir.TCP | ir.UDP, "127.0.0.1:1", query.NoMatch},
	} {
		to := netip.MustParseAddrPort(tc.to)
		allowed, rule := w.Decide(tc.protocol, to)
		if rule != tc.rule || allowed != (rule != query.NoMatch) {
			t.Errorf("%s %s: allowed %v by rule %d, want rule %d", tc.protocol, tc.to, allowed, rule, tc.rule)
		}
		if r := w.Ask(tc.protocol, to); r.Allowed != allowed {
			t.Errorf("%s %s: %+v in words, decided %v", tc.protocol, tc.to, r, allowed)
		}
	}
	if allowed, _ := w.Decide(ir.TCP, netip.AddrPort{}); allowed {
		t.Error("an address that is none is allowed")
	}
	if allowed, rule := w.Among([]int{0, 8}, ir.TCP, 443); !allowed || rule != 0 {
		t.Errorf("among rules: %v by %d", allowed, rule)
	}
	if allowed, _ := w.Among([]int{8}, ir.UDP, 443); allowed {
		t.Error("an address of a TCP rule is allowed for UDP")
	}
	if got := testing.AllocsPerRun(100, func() { w.Decide(ir.TCP, netip.MustParseAddrPort("10.9.9.9:91")) }); got > 0 {
		t.Errorf("%v allocations per decision", got)
	}
}

func TestNetworkDenied(t *testing.T) {
	w := network(ir.DestinationsDenied,
		ir.NetRule{Protocols: ir.TCP | ir.UDP, Kind: ir.TargetPrefix, Target: "10.0.0.0/8"},
		ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetPrefix, Target: "127.0.0.0/8", Ports: ports(80)},
		ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetPrefix, Target: "::1/128", Ports: ports(80)},
		ir.NetRule{Protocols: ir.UDP, Kind: ir.TargetAny, Ports: ports(443)},
		ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetPrefix, Target: "0.0.0.0/32", Ports: ports(81)},
	)
	for _, tc := range []struct {
		protocol ir.Protocols
		to       string
		rule     int
	}{
		{ir.TCP, "10.1.1.1:5", 0},
		{ir.TCP, "[::ffff:10.1.1.1]:5", 0},
		{ir.TCP, "[64:ff9b::a01:101]:5", 0},
		{ir.TCP, "[64:ff9b:1::a01:101]:5", 0},
		{ir.TCP, "[2002:a01:101::1]:5", 0},
		{ir.TCP, "[::10.1.1.1]:5", 0},
		{ir.TCP, "[::ffff:0:10.1.1.1]:5", 0},
		{ir.TCP, "11.1.1.1:5", query.NoMatch},
		{ir.TCP, "0.0.0.0:80", 1},
		{ir.TCP, "[64:ff9b::]:80", 1},
		{ir.TCP, "[::]:80", 2},
		{ir.TCP, "[::1]:81", query.NoMatch},
		{ir.TCP, "0.0.0.0:81", 4},
		{ir.UDP, "8.8.8.8:443", 3},
		{ir.TCP, "8.8.8.8:443", query.NoMatch},
		{ir.ICMP, "10.0.0.1:0", query.NoMatch}, // a rule without scheme is for TCP and UDP
	} {
		allowed, rule := w.Decide(tc.protocol, netip.MustParseAddrPort(tc.to))
		if rule != tc.rule || allowed != (rule == query.NoMatch) {
			t.Errorf("%s %s: allowed %v by rule %d, want rule %d", tc.protocol, tc.to, allowed, rule, tc.rule)
		}
	}
}

func TestNetworkInWords(t *testing.T) {
	w := network(ir.DestinationsAllowed,
		ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetHost, Target: "api.example.com", Ports: ports(80), Origin: 1},
		ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetPrefix, Target: "10.0.0.0/8", Ports: ports(443), Origin: 2},
	)
	for _, tc := range []struct {
		ruling query.Ruling
		origin ir.OriginRef
		reason string
	}{
		{w.Ask(ir.TCP, netip.MustParseAddrPort("93.184.216.34:443")), 1, "no allow rule matches; closest is tcp api.example.com:80"},
		{w.Ask(ir.TCP, netip.MustParseAddrPort("9.9.9.9:443")), 2, "no allow rule matches; closest is tcp 10.0.0.0/8:443"},
		{w.Ask(ir.UDP, netip.MustParseAddrPort("10.0.0.1:443")), 2, "no allow rule matches; closest is tcp 10.0.0.0/8:443"},
		{w.Ask(ir.TCP, netip.MustParseAddrPort("9.9.9.9:9")), 0, "no allow rule matches"},
		{w.AskName(ir.TCP, "api.example.com", 80), 1, "granted"},
		{w.AskName(ir.TCP, "api.example.com", 81), 1, "no allow rule matches; closest is tcp api.example.com:80"},
	} {
		if tc.ruling.Reason != tc.reason || tc.ruling.Origin != tc.origin || tc.ruling.Allowed != (tc.reason == "granted") {
			t.Errorf("got %+v, want %q at %d", tc.ruling, tc.reason, tc.origin)
		}
	}
}

func TestMatchName(t *testing.T) {
	for _, tc := range []struct {
		rule, name string
		want       bool
	}{
		{"a.b", "a.b", true}, {"a.b", "x.a.b", false}, {"*.b.c", "a.b.c", true}, {"*.b.c", "x.a.b.c", true}, {"*.b.c", "b.c", false},
		{"*.b.c", "ab.c", false}, {"*.b.c", "evil-b.c", false}, {"*.b.c", "a.b.c.evil", false}, {"*.b.c", ".b.c", false}, {"*.b.c", "", false},
	} {
		if got := query.MatchName(tc.rule, tc.name); got != tc.want {
			t.Errorf("%q for %q: %v", tc.rule, tc.name, got)
		}
	}
}

func TestIsPrivate(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "10.1.2.3": true, "172.16.0.1": true, "192.168.1.1": true, "169.254.169.254": true, "100.64.0.1": true, "0.0.0.0": true,
		"224.0.0.1": true, "255.255.255.255": true, "::1": true, "::": true, "fe80::1": true, "fd00::1": true, "fec0::1": true, "::ffff:10.0.0.1": true,
		"64:ff9b::a00:1": true, "2002:a00:1::": true, "64:ff9b::808:808": false, "8.8.8.8": false, "172.32.0.1": false, "2001:4860::8888": false,
	} {
		if got := query.IsPrivate(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

// UDP to a port whose TCP connections lead to the proxy is refused whatever the rules say; TCP is as they say.
func TestInterceptedDatagrams(t *testing.T) {
	anything := ir.NetRule{Protocols: ir.TCP | ir.UDP, Kind: ir.TargetAny}
	for _, n := range []ir.Net{
		{Destinations: ir.DestinationsAllowed, Rules: []ir.NetRule{anything}},
		{Destinations: ir.DestinationsDenied},
	} {
		n.Intercepted = []uint16{80, 443}
		p := program()
		p.Net, p.HTTP = n, ir.HTTP{Allow: httpRules("* */*"), Origin: 3}
		for i := range p.Seccomp.Filters {
			for nr := range p.Seccomp.Filters[i].Table {
				p.Seccomp.Filters[i].Table[nr].Action = ir.Allow
			}
		}
		w := query.NewNetwork(&n, n.Fixed, func(string) (uint16, bool) { return 0, false })
		for _, tc := range []struct {
			protocol ir.Protocols
			port     uint16
			allowed  bool
		}{{ir.TCP, 443, true}, {ir.UDP, 443, false}, {ir.UDP, 80, false}, {ir.UDP, 444, true}, {ir.TCP, 80, true}} {
			want := "requests to port " + strconv.Itoa(int(tc.port)) + " go through the proxy; QUIC would pass it by"
			for _, host := range []string{"192.0.2.1", "::1", "::ffff:192.0.2.1"} {
				to := netip.AddrPortFrom(netip.MustParseAddr(host), tc.port)
				allowed, rule := w.Decide(tc.protocol, to)
				if r := w.Ask(tc.protocol, to); allowed != tc.allowed || r.Allowed != allowed || !allowed && (rule != query.NoMatch || r.Reason != want) {
					t.Errorf("%d: %s %s: %v by %d, in words %+v", n.Destinations, tc.protocol, to, allowed, rule, r)
				}
			}
			if r := w.AskName(tc.protocol, "a.example", tc.port); r.Allowed != tc.allowed || !r.Allowed && r.Reason != want {
				t.Errorf("%d: %s by name, port %d: %+v", n.Destinations, tc.protocol, tc.port, r)
			}
			if len(n.Rules) > 0 {
				if allowed, _ := w.Among([]int{0}, tc.protocol, tc.port); allowed != tc.allowed {
					t.Errorf("%s port %d among rules: %v", tc.protocol, tc.port, allowed)
				}
			}
			for _, host := range []string{"a.example", "192.0.2.1", "[::1]"} {
				target := tc.protocol.String() + " " + host + ":" + strconv.Itoa(int(tc.port))
				r, err := query.Event(p, abi.AMD64, &ir.Test{Kind: ir.TestConnect, Target: target})
				if err != nil || r.Allowed != tc.allowed || !r.Allowed && (r.Reason != want || r.Origin != 3) {
					t.Errorf("%d: connect %s: %+v (%v)", n.Destinations, target, r, err)
				}
			}
		}
	}
}
