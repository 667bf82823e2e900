package ports

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// binder binds sockets as a sandbox with virtual ports.
func binder(t *testing.T) *Handler {
	t.Helper()
	return &Handler{table: made(t), policy: Policy{Bind: func(ir.Protocols, uint16) query.Ruling { return query.Ruling{Allowed: true} }}}
}

// want is a socket to bind.
type want struct {
	at      string // address; the port is the test's
	kind    int    // SOCK_STREAM or SOCK_DGRAM
	options []int  // of SOL_SOCKET
	only    bool   // IPV6_V6ONLY
	listen  bool
}

func (w want) open(t *testing.T, port uint16) (s socket.Socket, a socket.Address, to netip.AddrPort) {
	t.Helper()
	to = netip.AddrPortFrom(netip.MustParseAddr(w.at), port)
	s.Domain, s.Kind = unix.AF_INET, w.kind
	if to.Addr().Is6() {
		s.Domain = unix.AF_INET6
	}
	var err error
	if s.FD, err = unix.Socket(s.Domain, w.kind|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { unix.Close(s.FD) })
	for _, o := range w.options {
		if err := unix.SetsockoptInt(s.FD, unix.SOL_SOCKET, o, 1); err != nil {
			t.Fatal(err)
		}
	}
	if w.only {
		if err := unix.SetsockoptInt(s.FD, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Identify(); err != nil {
		t.Fatal(err)
	}
	if a, err = socket.Of(s.Domain, to); err != nil {
		t.Fatal(err)
	}
	return s, a, to
}

// outside binds a socket of the host, and inside one of the sandbox.
func (w want) outside(t *testing.T, port uint16) uint16 {
	t.Helper()
	s, a, to := w.open(t, port)
	if err := kernel.Bind(s.FD, a.Bytes()); err != nil {
		t.Fatalf("outside: %s: %v", to, err)
	}
	w.serve(t, s.FD)
	port, err := localPort(s.FD)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func (w want) inside(t *testing.T, h *Handler, port uint16) (Port, error) {
	t.Helper()
	s, a, to := w.open(t, port)
	p, err := h.bindVirtual(&s, &a, to)
	if err == nil {
		w.serve(t, s.FD)
	}
	return p, err
}

func (w want) serve(t *testing.T, fd int) {
	t.Helper()
	if w.listen {
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(err)
		}
	}
}

// A sandbox that has a port at one address does not get into the company of those who have it, outside, at another.
func TestRivalsDoNotLeadOutside(t *testing.T) {
	share, reuse := []int{unix.SO_REUSEPORT}, []int{unix.SO_REUSEADDR}
	for name, of := range map[string]want{
		"tcp":           {kind: unix.SOCK_STREAM, options: share, listen: true},
		"tcp, reuse":    {kind: unix.SOCK_STREAM, options: append(reuse, share...), listen: true},
		"udp":           {kind: unix.SOCK_DGRAM, options: share},
		"udp, any user": {kind: unix.SOCK_DGRAM, options: reuse},
	} {
		at := func(address string) want { w := of; w.at = address; return w }
		for _, address := range []string{"0.0.0.0", "::"} {
			t.Run(name+" "+address, func(t *testing.T) {
				h := binder(t)
				port := at("127.0.0.1").outside(t, 0)
				if p, err := at("127.0.0.2").inside(t, h, port); err != nil || p.Real != port {
					t.Fatalf("beside the host: %+v, %v; want the port itself", p, err)
				}
				if p, err := at(address).inside(t, h, port); err != unix.EADDRINUSE {
					t.Errorf("all addresses: %+v, %v; want EADDRINUSE", p, err)
				}
				if p, err := at("127.0.0.1").inside(t, h, port); err != nil || p.Real == port {
					t.Errorf("the host's address: %+v, %v; want a stand-in", p, err)
				}
			})
		}
	}
}

// The sockets of one program share a port as on any host, be it the host's own or a stand-in.
func TestRivalsShare(t *testing.T) {
	share, reuse := []int{unix.SO_REUSEPORT}, []int{unix.SO_REUSEADDR}
	stream := func(at string, options []int) want {
		return want{at: at, kind: unix.SOCK_STREAM, options: options, listen: true}
	}
	datagram := func(at string, options []int) want { return want{at: at, kind: unix.SOCK_DGRAM, options: options} }
	only := func(w want) want { w.only = true; return w }
	for _, tc := range []struct {
		name  string
		binds []want
		errs  []error
	}{
		{"workers", []want{stream("127.0.0.1", share), stream("127.0.0.1", share), stream("127.0.0.1", share)}, []error{nil, nil, nil}},
		{"workers, all addresses", []want{stream("0.0.0.0", share), stream("0.0.0.0", share)}, []error{nil, nil}},
		{"workers, both families", []want{stream("::", share), stream("::", share), stream("0.0.0.0", share)}, []error{nil, nil, nil}},
		{"workers, each family", []want{stream("0.0.0.0", share), only(stream("::", share)), only(stream("::", share)), stream("0.0.0.0", share)},
			[]error{nil, nil, nil, nil}},
		{"datagrams", []want{datagram("0.0.0.0", reuse), datagram("0.0.0.0", reuse), datagram("127.0.0.1", reuse)}, []error{nil, nil, nil}},
		{"two addresses", []want{stream("127.0.0.1", nil), stream("127.0.0.2", nil)}, []error{nil, nil}},
		{"two families", []want{stream("0.0.0.0", nil), only(stream("::", nil))}, []error{nil, nil}},
		{"not shared", []want{stream("127.0.0.1", share), stream("127.0.0.1", nil), stream("0.0.0.0", nil)}, []error{nil, unix.EADDRINUSE, unix.EADDRINUSE}},
		{"all addresses after one", []want{stream("127.0.0.1", share), stream("0.0.0.0", share)}, []error{nil, unix.EADDRINUSE}},
		{"an address of nobody", []want{stream("0.0.0.0", share), stream("203.0.113.1", share)}, []error{nil, unix.EADDRNOTAVAIL}},
	} {
		for _, taken := range []bool{false, true} {
			name := tc.name
			if taken {
				name += ", taken"
			}
			t.Run(name, func(t *testing.T) {
				h := binder(t)
				s, a, _ := want{at: "::", kind: tc.binds[0].kind}.open(t, 0)
				port, err := try(&s, &a, 0)
				if err != nil {
					t.Fatal(err)
				}
				if taken {
					want{at: "::", kind: tc.binds[0].kind}.outside(t, port)
				}
				for i, w := range tc.binds {
					p, err := w.inside(t, h, port)
					if err != tc.errs[i] {
						t.Errorf("%d, %s: %+v, %v; want %v", i, w.at, p, err, tc.errs[i])
					}
				}
			})
		}
	}
}

func TestHolds(t *testing.T) {
	at := func(address string, only bool) *bound {
		return &bound{Port: Port{Protocol: ir.UDP, Address: netip.MustParseAddr(address)}, onlyV6: only}
	}
	for _, tc := range []struct {
		a, b         string
		onlyA, onlyB bool
		want         bool
	}{
		{"127.0.0.1", "127.0.0.1", false, false, true},
		{"127.0.0.1", "127.0.0.2", false, false, false},
		{"127.0.0.1", "0.0.0.0", false, false, false},
		{"0.0.0.0", "127.0.0.1", false, false, true},
		{"0.0.0.0", "0.0.0.0", false, false, true},
		{"0.0.0.0", "::", false, false, false},
		{"0.0.0.0", "::", false, true, false},
		{"::", "0.0.0.0", false, false, true},
		{"::", "0.0.0.0", true, false, false},
		{"::", "127.0.0.1", false, false, true},
		{"::", "::1", true, false, true},
		{"::", "::", true, false, false},
		{"::", "::", false, true, true},
		{"::1", "::", false, true, false},
	} {
		if got := at(tc.a, tc.onlyA).holds(at(tc.b, tc.onlyB)); got != tc.want {
			t.Errorf("%s (%v) and %s (%v): %v, want %v", tc.a, tc.onlyA, tc.b, tc.onlyB, got, tc.want)
		}
	}
}
