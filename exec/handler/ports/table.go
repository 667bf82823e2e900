package ports

import (
	"cmp"
	"iter"
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
	watch  *watch // that knows whether it is open
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
	watches []*watch
	last    uint64 // number
	virtual map[key][]*bound
	real    map[key][]*bound
	cookies map[uint64]*bound
	mapped  int // sockets whose real port is not the virtual one

	tidy      int  // size at which those that are gone are looked for
	most      int  // sockets that there is room for in any case, and for twice as many in none
	exhausted bool // there is no room
	next      int  // watch to ask then

	mu sync.Mutex // held by the loop while it changes the table, and by ports
}

// watch is a kernel.Watch and how many sockets of the table it has. Asking it takes time in proportion to what it has, about
// 1.5 µs each: so there are many small ones, and only those are asked that have the sockets in question.
type watch struct {
	kernel.Watch
	sockets int
}

const (
	// maxBound is how many sockets of a sandbox can be bound at the same time. It bounds how long a call keeps the loop.
	maxBound = 1 << 11
	// maxWatched bounds the sockets of a watch. There are up to 2*maxBound/maxWatched watches, each a descriptor.
	maxWatched = 64
)

func newTable() (*table, error) {
	t := &table{virtual: map[key][]*bound{}, real: map[key][]*bound{}, cookies: map[uint64]*bound{}, tidy: maxWatched, most: maxBound}
	_, err := t.roomy() // proves that watches can be had
	return t, err
}

func (t *table) close() {
	for _, w := range t.watches {
		w.Close()
	}
}

// roomy returns a watch with room for a socket.
func (t *table) roomy() (*watch, error) {
	for _, w := range t.watches {
		if w.sockets < maxWatched {
			return w, nil
		}
	}
	made, err := kernel.NewWatch()
	if err != nil {
		return nil, err
	}
	w := &watch{Watch: made}
	t.watches = append(t.watches, w)
	return w, nil
}

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
		p.watch, p.number = old.watch, old.number
	} else {
		t.last++
		p.number = t.last
		if p.watch, err = t.roomy(); err != nil {
			return err
		}
		if err := p.watch.Add(fd, p.number); err != nil {
			return err
		}
	}
	p.watch.sockets++
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
	p.watch.sockets--
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

// full reports whether there is no room for one more socket. As many are bound before the next sweep as the last one left;
// where it left too many each call asks one watch, until there is room again.
func (t *table) full() bool {
	switch {
	case t.exhausted:
		t.next = (t.next + 1) % len(t.watches)
		t.sweep(t.watches[t.next])
	case len(t.cookies) >= t.tidy:
		t.sweep(nil)
	default:
		return !t.canWatch()
	}
	t.exhausted = len(t.cookies) >= t.most
	t.tidy = max(maxWatched, 2*len(t.cookies))
	return t.exhausted || !t.canWatch()
}

func (t *table) canWatch() bool {
	_, err := t.roomy()
	return err == nil
}

// open reports which sockets are open, with a memory of what it was told. What cannot be told counts as closed: nothing is
// translated to a port that may be somebody else's by now.
func open() func(*bound) bool {
	known := map[*watch]map[uint64]bool{}
	return func(p *bound) bool {
		numbers, asked := known[p.watch]
		if !asked {
			numbers, _ = p.watch.Open()
			known[p.watch] = numbers
		}
		return numbers[p.number]
	}
}

// sweep removes the sockets of a watch that are closed; of all watches for nil.
func (t *table) sweep(of *watch) {
	open := open()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.cookies {
		if (of == nil || p.watch == of) && !open(p) {
			t.remove(p)
		}
	}
}

// ports returns the ports of the sockets that are open. It may be called from any goroutine.
func (t *table) ports() []Port {
	t.mu.Lock()
	defer t.mu.Unlock()
	open := open()
	var list []Port
	for _, p := range t.cookies {
		if open(p) {
			list = append(list, p.Port)
		}
	}
	slices.SortFunc(list, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Virtual, b.Virtual), a.Address.Compare(b.Address), cmp.Compare(a.Real, b.Real))
	})
	return list
}

// find returns those of the sockets at a key that are open and match. Whoever stops at the first has asked few watches: those
// that had none left are rid of what is closed.
func (t *table) find(index map[key][]*bound, at key, match func(*bound) bool) iter.Seq[*bound] {
	return func(yield func(*bound) bool) {
		open := open()
		for _, p := range slices.Clone(index[at]) { // changes meanwhile
			switch {
			case !match(p):
			case !open(p):
				t.mu.Lock()
				t.remove(p)
				t.mu.Unlock()
			case !yield(p):
				return
			}
		}
	}
}

// first returns the first of some sockets, nil for none.
func first(sockets iter.Seq[*bound]) *bound {
	for p := range sockets {
		return p
	}
	return nil
}

// rival returns a socket that the sandbox has bound to the same virtual port, at an address that overlaps; nil for none. One
// that holds all of p is preferred.
func (t *table) rival(p *bound) *bound {
	at := key{p.Protocol, p.Virtual}
	if q := first(t.find(t.virtual, at, func(q *bound) bool { return q.holds(p) })); q != nil {
		return q
	}
	return first(t.find(t.virtual, at, func(q *bound) bool { return q.overlaps(p) }))
}

// means reports whether the sandbox knows a socket by a port.
func (t *table) means(protocol ir.Protocols, port uint16) bool {
	return first(t.find(t.virtual, key{protocol, port}, func(*bound) bool { return true })) != nil
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
	// The kernel, too, prefers the socket that is bound to the address itself.
	best := first(t.find(t.virtual, at, func(p *bound) bool { return p.Address == addr }))
	if best == nil {
		best = first(t.find(t.virtual, at, func(p *bound) bool { return p.covers(addr) }))
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
	p := first(t.find(t.real, key{protocol, at.Port()}, func(p *bound) bool { return p.isMapped() && p.covers(addr) }))
	if p == nil {
		return 0, false
	}
	return p.Virtual, true
}

// shows returns the virtual port of the socket that has a real address and port, or that a connection with these was accepted
// from.
func (t *table) shows(protocol ir.Protocols, at netip.AddrPort) (uint16, bool) {
	addr := at.Addr().Unmap()
	p := first(t.find(t.real, key{protocol, at.Port()}, func(p *bound) bool {
		own := p.Address.WithZone("")
		return own == addr || own.IsUnspecified() && !addr.IsUnspecified() && p.covers(addr)
	}))
	if p == nil {
		return 0, false
	}
	return p.Virtual, true
}

func (p *bound) isMapped() bool { return p.Virtual != p.Real }

// covers reports whether the socket receives what is sent to an address of the own host.
func (p *bound) covers(addr netip.Addr) bool {
	return shared(p.v4(), v4(addr)) || shared(p.v6(), v6(addr))
}

func (p *bound) overlaps(q *bound) bool { return shared(p.v4(), q.v4()) || shared(p.v6(), q.v6()) }

// holds reports whether p is bound wherever q would be.
func (p *bound) holds(q *bound) bool { return within(q.v4(), p.v4()) && within(q.v6(), p.v6()) }

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

// within reports whether b is a, or all addresses of its family. No address is within any.
func within(a, b netip.Addr) bool {
	return !a.IsValid() || shared(a, b) && (a == b || b.IsUnspecified())
}
