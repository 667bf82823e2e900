package exec

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sandlock-go/sandlock/ir"
)

func TestPins(t *testing.T) {
	host := func(name string) ir.NetRule { return ir.NetRule{Protocols: ir.TCP, Kind: ir.TargetHost, Target: name} }
	n := &ir.Net{
		Destinations: ir.DestinationsAllowed,
		Rules: []ir.NetRule{
			host("b.test"), {Protocols: ir.TCP, Kind: ir.TargetPrefix, Target: "192.0.2.0/24"}, host("fixed.test"), host("a.test"), host("b.test"), host("localhost"),
		},
		Hosts: []ir.NetHost{{Name: "also.test", Addresses: []string{"192.0.2.9"}}, {Name: "fixed.test", Addresses: []string{"192.0.2.8", "2001:db8::8"}}},
	}
	names, _ := unresolved(n)
	if want := []string{"b.test", "a.test", "localhost"}; !slices.Equal(names, want) {
		t.Errorf("to be looked up: %q, want %q", names, want)
	}
	addr := netip.MustParseAddr
	p := newPins(n, map[string][]netip.Addr{
		"b.test": {addr("192.0.2.1"), addr("2001:db8::1")}, "a.test": {addr("192.0.2.1")}, "localhost": {addr("127.0.0.1"), addr("127.0.0.2")},
	})
	want := `127.0.0.1 localhost
::1 localhost
192.0.2.1 b.test
2001:db8::1 b.test
192.0.2.8 fixed.test
2001:db8::8 fixed.test
192.0.2.1 a.test
127.0.0.2 localhost
192.0.2.9 also.test
`
	if got := string(p.HostsFile()); got != want {
		t.Errorf("hosts file:\n%swant:\n%s", got, want)
	}
	if got := p.Addresses("fixed.test"); len(got) != 2 || p.Addresses("c.test") != nil {
		t.Errorf("addresses of fixed.test: %v; of c.test: %v", got, p.Addresses("c.test"))
	}
	n.Resolver = true
	if names, _ := unresolved(n); names != nil {
		t.Errorf("with a resolver: %q are looked up at the start", names)
	}
}
