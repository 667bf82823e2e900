package exec

import (
	"errors"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/helper"
	"github.com/sandlock-go/sandlock/exec/socket"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// newTestProxy has a listener, and the helper's end of its line.
func newTestProxy(t *testing.T) (p *proxy, theirs int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := listenAt(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	p = &proxy{
		s: &sandbox{program: &ir.Program{}, pins: &pins{}}, helper: &helper.Proxy{Line: &helper.Line{FD: pair[0]}}, listeners: []listener{l},
		begun: map[netip.AddrPort]begun{}, open: map[uint32]proxied{},
	}
	t.Cleanup(func() {
		unix.Close(l.fd)
		unix.Close(pair[0])
		unix.Close(pair[1])
	})
	return p, pair[1]
}

// dialed returns a socket that is connected to the proxy's listener, from a port if that is not 0.
func dialed(t *testing.T, p *proxy, port int) (fd int, from netip.AddrPort, err error) {
	t.Helper()
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	to := &unix.SockaddrInet4{Port: int(p.listeners[0].at.Port()), Addr: p.listeners[0].at.Addr().As4()}
	if port != 0 {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: to.Addr})
	}
	if err == nil {
		err = unix.Connect(fd, to)
	}
	if err == nil {
		name, err := socket.NameOf(fd, false)
		if err != nil {
			t.Fatal(err)
		}
		from, _ = name.Internet()
	}
	return fd, from, err
}

// told are the connections that the helper has been told of.
func told(t *testing.T, theirs int) (n int) {
	t.Helper()
	b := make([]byte, protocol.MaxMessage)
	for {
		size, err := unix.Read(theirs, b)
		if errors.Is(err, unix.EAGAIN) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		if m, err := protocol.Decode(b[:size]); err == nil {
			if _, ok := m.(protocol.Connection); ok {
				n++
			}
		}
	}
}

// flood fills a line until no more fits.
func flood(t *testing.T, fd int) {
	t.Helper()
	m := protocol.Encode(protocol.Access{Reason: "x"})
	for {
		if err := unix.Sendto(fd, m, unix.MSG_DONTWAIT, nil); errors.Is(err, unix.EAGAIN) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A connection that was begun and given up before it was accepted leaves its address to nobody else.
func TestBegunIsNobodyElses(t *testing.T) {
	destination := netip.MustParseAddrPort("192.0.2.1:80")
	for _, reset := range []bool{false, true} {
		p, theirs := newTestProxy(t)
		flood(t, p.helper.FD) // the helper does not read for now
		p.stalled = true
		fd, from, err := dialed(t, p, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.made(1, fd, from, destination, destination); err != nil || len(p.begun) != 1 {
			t.Fatalf("%v, %d begun", err, len(p.begun))
		}
		want := 1
		if reset { // as the end of the sandbox's process would with SO_LINGER
			if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
				t.Fatal(err)
			}
			unspecified := [16]byte{} // connect(2), AF_UNSPEC
			_ = unix.Shutdown(fd, unix.SHUT_RDWR)
			_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), 16)
			want = 0
		}
		unix.Close(fd)
		if _, _, err := dialed(t, p, int(from.Port())); err == nil && !reset {
			t.Errorf("somebody else connects from %v", from)
		}
		told(t, theirs)
		p.accept(p.listeners[0].fd)
		if n := told(t, theirs); n != want || len(p.begun) != 0 {
			t.Errorf("reset %v: the helper has %d connections, want %d; %d are still begun", reset, n, want, len(p.begun))
		}
	}
}

// A helper that never says that a connection is over has no more than so many.
func TestMaxOpen(t *testing.T) {
	p, theirs := newTestProxy(t)
	for i := range uint32(maxOpen) {
		p.open[i+1] = proxied{}
	}
	fd, from, err := dialed(t, p, 0)
	if err != nil {
		t.Fatal(err)
	}
	destination := netip.MustParseAddrPort("192.0.2.1:80")
	if err := p.made(1, fd, from, destination, destination); err != nil || told(t, theirs) != 0 || len(p.open) != maxOpen {
		t.Errorf("%v, %d are open", err, len(p.open))
	}
}

// slow is a journal that takes its time, as a file on a busy disk.
type slow struct{}

func (slow) Record(supervise.Event) { time.Sleep(100 * time.Microsecond) }

// A helper that has always something to tell does not keep a run from ending.
func TestDrainEnds(t *testing.T) {
	p, theirs := newTestProxy(t)
	p.journal = slow{}
	stop := make(chan struct{})
	go func() {
		m := protocol.Encode(protocol.Access{Connection: 1})
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Sendto(theirs, m, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
			}
		}
	}()
	defer close(stop)
	ended := make(chan struct{})
	go func() {
		p.drain()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(5 * drainTime):
		t.Fatal("it goes on")
	}
}

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
