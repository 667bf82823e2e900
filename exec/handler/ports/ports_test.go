package ports

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir"
)

// unbound makes a socket that a table can watch.
func unbound(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func entered(t *testing.T, tab *table, protocol ir.Protocols, at string, real uint16) int {
	t.Helper()
	to := netip.MustParseAddrPort(at)
	fd := unbound(t)
	if err := tab.enter(fd, &bound{Port: Port{protocol, to.Addr(), to.Port(), real}}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func made(t *testing.T) *table {
	t.Helper()
	tab, err := newTable()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tab.close)
	return tab
}

func TestTranslate(t *testing.T) {
	tab := made(t)
	var fds []int
	for _, e := range []struct {
		protocol ir.Protocols
		at       string
		real     uint16
	}{
		{ir.TCP, "127.0.0.1:80", 1001},
		{ir.TCP, "127.0.0.2:80", 80},
		{ir.TCP, "[::1]:80", 1002},
		{ir.UDP, "0.0.0.0:53", 1003},
		{ir.UDP, "127.0.0.2:53", 1004},
		{ir.TCP, "[::]:90", 1005},
		{ir.TCP, "0.0.0.0:91", 91},
		{ir.TCP, "127.0.0.3:91", 1006},
	} {
		fds = append(fds, entered(t, tab, e.protocol, e.at, e.real))
	}
	look := func(want map[string]uint16) {
		t.Helper()
		for key, want := range want {
			protocol, text := ir.TCP, key
			if key[0] == 'u' {
				protocol, text = ir.UDP, key[1:]
			}
			got, ok := tab.translate(protocol, netip.MustParseAddrPort(text))
			if got != want || ok != (want != 0) {
				t.Errorf("%s leads to %d, %v; want %d", key, got, ok, want)
			}
		}
	}
	all := map[string]uint16{
		"127.0.0.1:80": 1001, "0.0.0.0:80": 1001, "[::ffff:127.0.0.1]:80": 1001, "127.0.0.2:80": 0, "127.0.0.3:80": 0, "[::1]:80": 1002, "[::]:80": 1002,
		"u127.0.0.1:53": 1003, "u127.0.0.2:53": 1004, "u127.0.0.1:80": 0, "127.0.0.1:53": 0, "u[::1]:53": 0,
		"127.0.0.9:90": 1005, "[::1]:90": 1005, "127.0.0.1:91": 0, "127.0.0.3:91": 1006,
		"192.0.2.1:80": 0, "192.0.2.1:90": 0, "127.0.0.1:1001": 0,
	}
	look(all)
	unix.Close(fds[0])
	all["127.0.0.1:80"], all["0.0.0.0:80"], all["[::ffff:127.0.0.1]:80"] = 0, 0, 0
	look(all)
	for _, fd := range fds[1:] {
		unix.Close(fd)
	}
	for key := range all {
		all[key] = 0
	}
	look(all)
	tab.sweep(nil)
	if tab.mapped != 0 || len(tab.cookies)+len(tab.virtual)+len(tab.real) != 0 {
		t.Errorf("left over: %d mapped, %v %v %v", tab.mapped, tab.cookies, tab.virtual, tab.real)
	}
}

func TestRivals(t *testing.T) {
	for _, tc := range []struct {
		a, b         string
		onlyA, onlyB bool
		want         bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", false, false, true},
		{"127.0.0.1:1", "127.0.0.2:1", false, false, false},
		{"127.0.0.1:1", "127.0.0.1:2", false, false, false},
		{"0.0.0.0:1", "127.0.0.2:1", false, false, true},
		{"127.0.0.2:1", "0.0.0.0:1", false, false, true},
		{"[::]:1", "127.0.0.1:1", false, false, true},
		{"[::]:1", "127.0.0.1:1", true, false, false},
		{"0.0.0.0:1", "[::]:1", false, true, false},
		{"0.0.0.0:1", "[::1]:1", false, false, false},
		{"[::]:1", "[::1]:1", true, false, true},
		{"[::1]:1", "[::2]:1", false, false, false},
	} {
		tab := made(t)
		a, b := netip.MustParseAddrPort(tc.a), netip.MustParseAddrPort(tc.b)
		fd := unbound(t)
		if err := tab.enter(fd, &bound{Port: Port{ir.TCP, a.Addr(), a.Port(), 9}, onlyV6: tc.onlyA}); err != nil {
			t.Fatal(err)
		}
		p := &bound{Port: Port{ir.TCP, b.Addr(), b.Port(), 0}, onlyV6: tc.onlyB}
		if got := tab.rival(p) != nil; got != tc.want {
			t.Errorf("%s and %s: %v, want %v", tc.a, tc.b, got, tc.want)
		}
		p.Protocol = ir.UDP
		if tab.rival(p) != nil {
			t.Errorf("%s and %s: TCP and UDP are in each other's way", tc.a, tc.b)
		}
		p.Protocol = ir.TCP
		unix.Close(fd)
		if tab.rival(p) != nil {
			t.Errorf("%s and %s: a closed socket is in the way", tc.a, tc.b)
		}
	}
}

func TestNamed(t *testing.T) {
	tab := made(t)
	at := netip.MustParseAddrPort
	defer unix.Close(entered(t, tab, ir.TCP, "127.0.0.1:80", 1001))
	defer unix.Close(entered(t, tab, ir.UDP, "0.0.0.0:80", 1002))
	listener := tab.virtual[key{ir.TCP, 80}][0]
	for _, tc := range []struct {
		name     string
		protocol ir.Protocols
		cookie   uint64
		local    string
		want     uint16
	}{
		{"the listener", ir.TCP, listener.cookie, "127.0.0.1:1001", 80},
		{"the listener bound anew", ir.TCP, listener.cookie, "127.0.0.1:1007", 0},
		{"accepted", ir.TCP, 1, "127.0.0.1:1001", 80},
		{"accepted, mapped", ir.TCP, 1, "[::ffff:127.0.0.1]:1001", 80},
		{"another address", ir.TCP, 1, "127.0.0.2:1001", 0},
		{"another port", ir.TCP, 1, "127.0.0.1:1002", 0},
		{"a datagram socket beside it", ir.UDP, 1, "127.0.0.1:1002", 0},
	} {
		got, ok := tab.named(tc.protocol, tc.cookie, at(tc.local))
		if got != tc.want || ok != (tc.want != 0) {
			t.Errorf("%s: %d, %v; want %d", tc.name, got, ok, tc.want)
		}
	}
}

// A socket that is bound again stands for its new port alone.
func TestBoundAgain(t *testing.T) {
	tab := made(t)
	fd := unbound(t)
	defer unix.Close(fd)
	for _, port := range []uint16{80, 81} {
		if err := tab.enter(fd, &bound{Port: Port{ir.TCP, netip.MustParseAddr("127.0.0.1"), port, 1000 + port}}); err != nil {
			t.Fatal(err)
		}
	}
	if tab.means(ir.TCP, 80) || !tab.means(ir.TCP, 81) || tab.mapped != 1 || len(tab.real) != 1 {
		t.Errorf("80 %v, 81 %v, %d mapped", tab.means(ir.TCP, 80), tab.means(ir.TCP, 81), tab.mapped)
	}
}

func TestTableIsBounded(t *testing.T) {
	tab := made(t)
	tab.most = 100
	next := uint16(0)
	bind := func() int {
		next++
		return entered(t, tab, ir.UDP, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), next).String(), next)
	}
	for range 500 {
		unix.Close(bind())
		if tab.full() {
			t.Fatal("full of closed sockets")
		}
	}
	if len(tab.cookies) > 64 {
		t.Errorf("%d closed sockets are kept", len(tab.cookies))
	}
	var fds []int
	for !tab.full() {
		fds = append(fds, bind())
	}
	if len(fds) < tab.most || len(fds) > 2*tab.most || !tab.full() {
		t.Errorf("full with %d sockets, want %d to %d", len(fds), tab.most, 2*tab.most)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	if tab.full() {
		t.Error("still full when all are closed")
	}
}
