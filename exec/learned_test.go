package exec

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

func sampleLearned() (*learned, *time.Time) {
	n := &ir.Net{Destinations: ir.DestinationsAllowed, Resolver: true, Rules: []ir.NetRule{
		{Protocols: ir.TCP, Kind: ir.TargetHost, Target: "*.example.test", Ports: []ir.NetPort{{Lo: 443, Hi: 443}}},
		{Protocols: ir.UDP, Kind: ir.TargetHost, Target: "time.example.test", Ports: []ir.NetPort{{Lo: 123, Hi: 123}}},
		{Protocols: ir.ICMP, Kind: ir.TargetHost, Target: "ping.example.test"},
	}}
	table := query.NewNetwork(n, func(string) []netip.Addr { return nil }, func(string) (uint16, bool) { return 0, false })
	l := newLearned(table)
	now := time.Now()
	l.now = func() time.Time { return now }
	return l, &now
}

func TestLearnedAllows(t *testing.T) {
	l, now := sampleLearned()
	web, clock := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for name, want := range map[string]bool{"evil.test": false, "example.test": false, "A.example.test": true, "": false} {
		// Names come in lower case (package protocol); others match by what they are.
		if got := l.add(name, time.Minute, netip.MustParseAddr("192.0.2.99")); got != want {
			t.Errorf("add %q: %t, want %t", name, got, want)
		}
	}
	l.add("a.example.test", 10*time.Minute, web)
	l.add("time.example.test", 0, clock)
	l.add("ping.example.test", 0, netip.MustParseAddr("2001:db8::1"))
	check := func(p ir.Protocols, to string, want bool) {
		t.Helper()
		if got := l.allows(p, netip.MustParseAddrPort(to)); got != want {
			t.Errorf("%v to %s: %t, want %t", p, to, got, want)
		}
	}
	check(ir.TCP, "192.0.2.1:443", true)
	check(ir.TCP, "[::ffff:192.0.2.1]:443", true)
	check(ir.TCP, "192.0.2.1:80", false)
	check(ir.UDP, "192.0.2.1:443", false)
	check(ir.UDP, "192.0.2.2:123", true)
	check(ir.TCP, "192.0.2.2:443", true) // by the wildcard
	check(ir.ICMP, "[2001:db8::1]:0", true)
	check(ir.TCP, "192.0.2.3:443", false)

	// A short time is lengthened, and a long one is over some time.
	*now = now.Add(leastLease + grace - time.Second)
	check(ir.UDP, "192.0.2.2:123", true)
	*now = now.Add(2 * time.Second)
	check(ir.UDP, "192.0.2.2:123", false)
	check(ir.TCP, "192.0.2.1:443", true)
	*now = now.Add(10 * time.Minute)
	check(ir.TCP, "192.0.2.1:443", false)
	l.add("a.example.test", 0, web)
	check(ir.TCP, "192.0.2.1:443", true)
	l.add("a.example.test", 1000*time.Hour, web)
	*now = now.Add(longestLease + grace + time.Second)
	check(ir.TCP, "192.0.2.1:443", false)
	if n := testing.AllocsPerRun(100, func() { l.allows(ir.TCP, netip.AddrPortFrom(web, 443)) }); n > 0 {
		t.Errorf("a decision allocates %v times", n)
	}
}

// What a hostile helper says stays bounded, and the latest counts.
func TestLearnedIsBounded(t *testing.T) {
	l, _ := sampleLearned()
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	const many = 3 * maxLearned
	for i := range many {
		l.add("a.example.test", time.Hour, address(i))
		l.add("b.example.test", time.Hour, address(0))
	}
	if l.order.Len() > maxLearned || len(l.of) > maxLearned {
		t.Errorf("%d leases of %d addresses, want at most %d", l.order.Len(), len(l.of), maxLearned)
	}
	for i, want := range map[int]bool{1: false, many - maxLearned - 1: false, many - 1: true, 0: true} {
		if got := l.allows(ir.TCP, netip.AddrPortFrom(address(i), 443)); got != want {
			t.Errorf("address %d: %t, want %t", i, got, want)
		}
	}
}

// The helper's word for what is private is not taken.
func TestResolvingRefusesPrivate(t *testing.T) {
	l, _ := sampleLearned()
	r := &resolving{s: &sandbox{program: &ir.Program{}}, learned: l, journal: &journal{}}
	m := protocol.Learned{Name: "a.example.test", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("169.254.169.254")}}
	if !r.learn(m) {
		t.Error("without network.private a private address is refused")
	}
	r.learned, _ = sampleLearned()
	r.s.net.Private = true
	if r.learn(m) || r.learned.order.Len() > 0 {
		t.Error("with network.private a private address is learned")
	}
	m.Addresses, m.Name = m.Addresses[:1], "evil.test"
	if r.learn(m) {
		t.Error("a name that no rule names is learned")
	}
}
