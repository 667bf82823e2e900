package ports

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir"
)

// What a look-up costs does not depend on how many other sockets are bound.
func TestFindAsksFewWatches(t *testing.T) {
	tab := made(t)
	const n = 4 * maxWatched
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", i+1) }
	var fds []int
	for i := range n {
		fds = append(fds, entered(t, tab, ir.UDP, at(i), uint16(20000+i)))
	}
	if len(tab.watches) != 4 {
		t.Errorf("%d sockets are in %d watches, want 4", n, len(tab.watches))
	}
	for _, w := range tab.watches {
		if open, err := w.Open(); err != nil || len(open) > maxWatched || len(open) != w.sockets {
			t.Errorf("a watch has %d sockets (%v), counts %d; want at most %d", len(open), err, w.sockets, maxWatched)
		}
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	if tab.means(ir.UDP, 1) || len(tab.cookies) != n-1 {
		t.Errorf("looking for one left %d of %d: others were looked for as well", len(tab.cookies), n)
	}
	for i := range n {
		entered(t, tab, ir.UDP, at(i), uint16(20000+i))
		if tab.full() {
			t.Fatal("full of closed sockets")
		}
	}
	if len(tab.watches) > 2*n/maxWatched {
		t.Errorf("%d watches for %d sockets", len(tab.watches), n)
	}

	// The first that is open will do.
	group := made(t)
	for range n {
		fds = append(fds, entered(t, group, ir.UDP, "0.0.0.0:80", 9))
	}
	first, last := fds[n], fds[2*n-1]
	unix.Close(last)
	unix.Close(first)
	if port, ok := group.translate(ir.UDP, netip.MustParseAddrPort("127.0.0.1:80")); port != 9 || !ok || len(group.cookies) != n-1 {
		t.Errorf("leads to %d, %v; %d of %d are left, want all but the first", port, ok, len(group.cookies), n)
	}
}

// While there is no room a bind asks one watch, and takes notice of those that are closed there.
func TestNoRoom(t *testing.T) {
	tab := made(t)
	tab.most = 2 * maxWatched
	var fds []int
	for i := 0; !tab.full(); i++ {
		fds = append(fds, entered(t, tab, ir.UDP, fmt.Sprintf("127.0.0.1:%d", i+1), 9))
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	for before := len(tab.cookies); tab.full(); before = len(tab.cookies) {
		if gone := before - len(tab.cookies); gone == 0 || gone > maxWatched {
			t.Fatalf("%d closed sockets were found by one bind, want 1 to %d", gone, maxWatched)
		}
	}
	if n := len(tab.cookies); n >= tab.most || n < tab.most-maxWatched {
		t.Errorf("room with %d sockets, want just below %d", n, tab.most)
	}
}

// BenchmarkTable: a look-up of one socket among others that are bound, of a group at the same port, of whatever is in the way
// of all addresses, and a sweep.
func BenchmarkTable(b *testing.B) {
	old := unix.Rlimit{}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{64, maxBound, 2 * maxBound} {
		if uint64(2*n) > old.Cur {
			b.Skipf("at most %d descriptors", old.Cur)
		}
		for name, of := range map[string]struct {
			at   func(i int) netip.AddrPort
			call func(*table)
		}{
			"one": {
				func(i int) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(i+1)) },
				func(tab *table) { tab.translate(ir.UDP, netip.MustParseAddrPort("127.0.0.1:7")) },
			},
			"group": {
				func(int) netip.AddrPort { return netip.MustParseAddrPort("0.0.0.0:7") },
				func(tab *table) { tab.translate(ir.UDP, netip.MustParseAddrPort("127.0.0.1:7")) },
			},
			"all": {
				func(i int) netip.AddrPort {
					return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 7)
				},
				func(tab *table) {
					p := &bound{Port: Port{Protocol: ir.UDP, Address: netip.IPv4Unspecified(), Virtual: 7}}
					tab.rival(p)
				},
			},
			"sweep": {
				func(i int) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(i+1)) },
				func(tab *table) { tab.tidy, tab.exhausted = 0, false; tab.full() },
			},
		} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				tab, err := newTable()
				if err != nil {
					b.Fatal(err)
				}
				defer tab.close()
				for i := range n {
					fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
					if err != nil {
						b.Fatal(err)
					}
					defer unix.Close(fd)
					to := of.at(i)
					if err := tab.enter(fd, &bound{Port: Port{ir.UDP, to.Addr(), to.Port(), 20000 + to.Port()}}); err != nil {
						b.Fatal(err)
					}
				}
				for b.Loop() {
					of.call(tab)
				}
			})
		}
	}
}
