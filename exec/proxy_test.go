package exec

import (
	"net/netip"
	"testing"
)

// The last connections are remembered, and no others.
func TestMeant(t *testing.T) {
	var m meant
	at := func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, byte(n >> 16), 1}), uint16(n))
	}
	destination := netip.MustParseAddrPort("192.0.2.1:80")
	for n := range maxMeant + 10 {
		m.add(at(n), destination)
		m.add(at(n), destination)
	}
	if len(m.of) != maxMeant || len(m.order) != maxMeant {
		t.Errorf("%d are remembered, %d in order, want %d", len(m.of), len(m.order), maxMeant)
	}
	for n, want := range map[int]bool{0: false, 9: false, 10: true, maxMeant + 9: true} {
		if _, ok := m.of[at(n)]; ok != want {
			t.Errorf("connection %d: remembered %v, want %v", n, ok, want)
		}
	}
}
