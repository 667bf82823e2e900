package exec

import (
	"container/list"
	"net/netip"
	"time"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

const (
	// maxLearned bounds the addresses that are learned, each for each of its names. The one that was not looked up for the
	// longest time is forgotten for the next.
	maxLearned = 4096
	// leastLease and grace are how much longer an address may be reached than DNS says that it is the name's: programs look
	// a name up once and connect later. A connection stays in any case.
	leastLease = time.Minute
	grace      = time.Minute
	// longestLease bounds what DNS may say.
	longestLease = time.Hour
)

// learned are the addresses that the sandbox was given for names in rules. It is used on the loop's thread only.
type learned struct {
	table *query.Network
	now   func() time.Time
	of    map[netip.Addr][]*list.Element
	order *list.List // of *lease, the one that was looked up last at the back
}

// lease is an address that belongs to a name for a time.
type lease struct {
	name    string
	address netip.Addr
	rules   []int
	expires time.Time
}

func newLearned(table *query.Network) *learned {
	return &learned{table: table, now: time.Now, of: map[netip.Addr][]*list.Element{}, order: list.New()}
}

// add takes addresses of a name. It reports whether a rule speaks of the name; if none does, nothing is learned.
func (l *learned) add(name string, ttl time.Duration, addresses ...netip.Addr) bool {
	rules := l.table.NameRules(name)
	if len(rules) == 0 {
		return false
	}
	expires := l.now().Add(min(max(ttl, leastLease), longestLease) + grace)
	for _, a := range addresses {
		l.addLease(&lease{name, query.Canonical(a), rules, expires})
	}
	return true
}

func (l *learned) addLease(next *lease) {
	for _, e := range l.of[next.address] {
		if known := e.Value.(*lease); known.name == next.name {
			if next.expires.After(known.expires) {
				known.expires = next.expires
			}
			l.order.MoveToBack(e)
			return
		}
	}
	if l.order.Len() >= maxLearned {
		l.remove(l.order.Front())
	}
	l.of[next.address] = append(l.of[next.address], l.order.PushBack(next))
}

func (l *learned) remove(e *list.Element) {
	address := l.order.Remove(e).(*lease).address
	kept := l.of[address][:0]
	for _, other := range l.of[address] {
		if other != e {
			kept = append(kept, other)
		}
	}
	if l.of[address] = kept; len(kept) == 0 {
		delete(l.of, address)
	}
}

// allows reports whether a rule allows a destination by a name that it was looked up by. It does not allocate.
func (l *learned) allows(protocol ir.Protocols, to netip.AddrPort) bool {
	leases := l.of[query.Canonical(to.Addr())]
	if len(leases) == 0 {
		return false
	}
	now := l.now()
	for _, e := range leases {
		known := e.Value.(*lease)
		if now.Before(known.expires) {
			if allowed, _ := l.table.Among(known.rules, protocol, to.Port()); allowed {
				return true
			}
		}
	}
	return false
}

// names returns the names that an address is reached by.
func (l *learned) names(a netip.Addr) (names []string) {
	now := l.now()
	for _, e := range l.of[query.Canonical(a)] {
		if known := e.Value.(*lease); now.Before(known.expires) {
			names = append(names, known.name)
		}
	}
	return names
}
