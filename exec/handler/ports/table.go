package ports

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// bound is a socket that the sandbox has bound.
type bound struct {
	Port
	onlyV6 bool   // IPV6_V6ONLY
	cookie uint64 // SO_COOKIE: which socket it is
	number uint64 // by which the watch knows it
}

// key is what sockets are looked up by.
type key struct {
	protocol ir.Protocols
	port     uint16
}

// table is the sockets that are bound. Closing one is not notified: whether a socket is still there is asked for when it
// matters, once a look-up has found it. Its port is then still its own: it was named when it was bound, and the kernel
// gives such a port back when the socket is closed, not before.
type table struct {
	watch   kernel.Watch
	last    uint64 // number
	virtual map[key][]*bound
	real    map[key][]*bound
	cookies map[uint64]*bound
	mapped  int // sockets whose real port is not the virtual one
	tidy    int // size at which those that are gone are looked for
	most    int // sockets that there is room for

	mu sync.Mutex // held by the loop while it changes the table, and by ports
}

// maxBound bounds the sockets of a sandbox that are bound at the same time.
const maxBound = 1 << 14

func newTable() (*table, error) {
	watch, err := kernel.NewWatch()
	if err != nil {
		return nil, err
	}
	return &table{watch: watch, virtual: map[key][]*bound{}, real: map[key][]*bound{}, cookies: map[uint64]*bound{}, tidy: 64, most: maxBound}, nil
}

func (t *table) close() { t.watch.Close() }

// enter adds a socket that was just bound.
func (t *table) enter(fd int, p *bound) (err error) {
	if p.cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.cookies[p.cookie]; old != nil {
		// A port that the kernel had picked was given back (shutdown(2) of a listener), and the socket bound again.
		t.remove(old)
		p.number = old.number
	} else {
		t.last++
		p.number = t.last
		if err := t.watch.Add(fd, p.number); err != nil {
			return err
		}
	}
	t.cookies[p.cookie] = p
	byVirtual, byReal := key{p.Protocol, p.Virtual}, key{p.Protocol, p.Real}
	t.virtual[byVirtual] = append(t.virtual[byVirtual], p)
	t.real[byReal] = append(t.real[byReal], p)
	if p.Virtual != p.Real {
		t.mapped++
	}
	return nil
}

func (t *table) remove(p *bound) {
	delete(t.cookies, p.cookie)
	for _, index := range []struct {
		of map[key][]*bound
		at key
	}{{t.virtual, key{p.Protocol, p.Virtual}}, {t.real, key{p.Protocol, p.Real}}} {
		rest := slices.DeleteFunc(index.of[index.at], func(q *bound) bool { return q == p })
		if len(rest) == 0 {
			delete(index.of, index.at)
		} else {
			index.of[index.at] = rest
		}
	}
	if p.Virtual != p.Real {
		t.mapped--
	}
}

// full reports whether there is no room for one more socket.
func (t *table) full() bool {
	if len(t.cookies) >= t.tidy {
		t.sweep()
		t.tidy = min(max(64, 2*len(t.cookies)), t.most)
	}
	return len(t.cookies) >= t.most
}

// sweep removes the sockets that are closed. If that cannot be told, none counts as open: nothing is translated to a port
// that may be somebody else's by now.
func (t *table) sweep() {
	open, _ := t.watch.Open()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.cookies {
		if !open[p.number] {
			t.remove(p)
		}
	}
}

// ports returns the ports of the sockets that are open. It may be called from any goroutine.
func (t *table) ports() []Port {
	t.mu.Lock()
	defer t.mu.Unlock()
	open, _ := t.watch.Open()
	var list []Port
	for _, p := range t.cookies {
		if open[p.number] {
			list = append(list, p.Port)
		}
	}
	slices.SortFunc(list, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Virtual, b.Virtual), a.Address.Compare(b.Address), cmp.Compare(a.Real, b.Real))
	})
	return list
}

// find returns those of the sockets at a key that are open and match.
func (t *table) find(index map[key][]*bound, at key, match func(*bound) bool) []*bound {
	if !slices.ContainsFunc(index[at], match) {
		return nil
	}
	t.sweep()
	var found []*bound
	for _, p := range index[at] {
		if match(p) {
			found = append(found, p)
		}
	}
	return found
}

// rivals returns the sockets that the sandbox has bound to the same virtual port, at an address that overlaps.
func (t *table) rivals(p *bound) []*bound {
	return t.find(t.virtual, key{p.Protocol, p.Virtual}, func(q *bound) bool { return q.overlaps(p) })
}

// means reports whether the sandbox knows a socket by a port.
func (t *table) means(protocol ir.Protocols, port uint16) bool {
	return len(t.find(t.virtual, key{protocol, port}, func(*bound) bool { return true })) > 0
}

// translate returns the real port of a destination on the own host, if that is a socket of the sandbox and the port
// another one.
func (t *table) translate(protocol ir.Protocols, to netip.AddrPort) (uint16, bool) {
	addr := query.Canonical(to.Addr())
	if t.mapped == 0 || !addr.IsLoopback() {
		return 0, false
	}
	at := key{protocol, to.Port()}
	if !slices.ContainsFunc(t.virtual[at], (*bound).isMapped) {
		return 0, false
	}
	var best *bound
	for _, p := range t.find(t.virtual, at, func(p *bound) bool { return p.covers(addr) }) {
		if best == nil || p.Address == addr { // the kernel, too, prefers the socket that is bound to the address itself
			best = p
		}
	}
	if best == nil || !best.isMapped() {
		return 0, false
	}
	return best.Real, true
}

// named returns the virtual port of the socket with a cookie, or of the listener that it was accepted from.
func (t *table) named(protocol ir.Protocols, cookie uint64, local netip.AddrPort) (uint16, bool) {
	if p := t.cookies[cookie]; p != nil && p.Real == local.Port() {
		return p.Virtual, p.isMapped()
	}
	if protocol != ir.TCP {
		return 0, false // no other socket has the port
	}
	return t.meant(protocol, local)
}

// meant returns the virtual port of the socket that an address on the own host leads to.
func (t *table) meant(protocol ir.Protocols, at netip.AddrPort) (uint16, bool) {
	addr := at.Addr().Unmap()
	found := t.find(t.real, key{protocol, at.Port()}, func(p *bound) bool { return p.isMapped() && p.covers(addr) })
	if len(found) == 0 {
		return 0, false
	}
	return found[0].Virtual, true
}

func (p *bound) isMapped() bool { return p.Virtual != p.Real }

// covers reports whether the socket receives what is sent to an address of the own host.
func (p *bound) covers(addr netip.Addr) bool {
	return shared(p.v4(), v4(addr)) || shared(p.v6(), v6(addr))
}

func (p *bound) overlaps(q *bound) bool { return shared(p.v4(), q.v4()) || shared(p.v6(), q.v6()) }

// heldBy returns a real port of the rivals, and whether they are bound to it wherever p would be. Nobody outside was there
// before them: whoever is has come to share the port with the sandbox.
func (p *bound) heldBy(rivals []*bound) (port uint16, held bool) {
	families := map[uint16]struct{ v4, v6 bool }{}
	for _, q := range rivals {
		f := families[q.Real]
		f.v4 = f.v4 || !p.v4().IsValid() || within(p.v4(), q.v4())
		f.v6 = f.v6 || !p.v6().IsValid() || within(p.v6(), q.v6())
		if f.v4 && f.v6 {
			return q.Real, true
		}
		families[q.Real] = f
	}
	return rivals[0].Real, false
}

// v4 is the IPv4 address that a socket is bound to. One for all IPv6 addresses is for IPv4 as well (ipv6(7)).
func (p *bound) v4() netip.Addr {
	if p.Address == netip.IPv6Unspecified() && !p.onlyV6 {
		return netip.IPv4Unspecified()
	}
	return v4(p.Address)
}

func (p *bound) v6() netip.Addr { return v6(p.Address) }

func v4(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	return netip.Addr{}
}

func v6(a netip.Addr) netip.Addr {
	if a.Is6() {
		return a
	}
	return netip.Addr{}
}

// shared reports whether two addresses of one family are the same, or one of them is all of them.
func shared(a, b netip.Addr) bool {
	return a.IsValid() && b.IsValid() && (a == b || a.IsUnspecified() || b.IsUnspecified())
}

// within reports whether b is a, or all addresses of its family.
func within(a, b netip.Addr) bool { return shared(a, b) && (a == b || b.IsUnspecified()) }
