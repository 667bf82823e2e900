package network

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/socket"

	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// guest calls the handler with this process's own descriptors and memory of the test's making.
type guest struct {
	t      *testing.T
	h      *Handler
	memory *supervisetest.Memory
	events []supervise.Event
}

func (g *guest) Record(e supervise.Event) { g.events = append(g.events, e) }

// newGuest allows port 53.
func newGuest(t *testing.T) *guest {
	t.Helper()
	runtime.LockOSThread()
	g := &guest{t: t, memory: &supervisetest.Memory{Bytes: make([]byte, 2<<20)}}
	h, err := New(abi.AMD64, Policy{
		Decide:   func(_ ir.Protocols, to netip.AddrPort) bool { return to.Port() == 53 },
		Explain:  func(ir.Protocols, netip.AddrPort) query.Ruling { return query.Ruling{Reason: "no rule"} },
		Refusal:  unix.ECONNREFUSED,
		Describe: func(query.Ruling) (string, string) { return "rule", "policy.cue:1:1" },
		Unix:     func(string) query.Ruling { return query.Ruling{} },
	}, g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Close()
		runtime.UnlockOSThread()
	})
	g.h = h
	return g
}

// put writes to memory and returns the address.
func (g *guest) put(at int, b []byte) uint64 {
	copy(g.memory.Bytes[at:], b)
	return supervisetest.Base + uint64(at)
}

func (g *guest) call(name string, args ...uint64) supervise.Verdict {
	g.t.Helper()
	nr, ok := abi.SyscallNumber(abi.AMD64, name)
	if !ok {
		g.t.Fatal(name)
	}
	var list [6]uint64
	copy(list[:], args)
	return g.h.Handle(supervise.NewCall(unix.Gettid(), nr, list, g.memory))
}

func (g *guest) want(got supervise.Verdict, want string) {
	g.t.Helper()
	if got.String() != want {
		g.t.Errorf("verdict %v, want %s", got, want)
	}
}

func (g *guest) socket(domain, kind, protocol int) uint64 {
	g.t.Helper()
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		g.t.Skipf("socket: %v", err)
	}
	g.t.Cleanup(func() { unix.Close(fd) })
	return uint64(fd)
}

func (g *guest) pair(kind int) (ours, peer int) {
	g.t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { unix.Close(pair[1]) })
	return pair[0], pair[1]
}

func inet(port uint16, ip ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
	b = binary.BigEndian.AppendUint16(b, port)
	return append(append(b, ip...), make([]byte, 8)...)
}

// message writes a msghdr at 0 with one segment, and control data.
func (g *guest) message(data uint64, size int, control []byte) uint64 {
	iov := g.put(1<<10, binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, data), uint64(size)))
	b := make([]byte, headerSize)
	binary.NativeEndian.PutUint64(b[16:], iov)
	binary.NativeEndian.PutUint64(b[24:], 1)
	if len(control) > 0 {
		binary.NativeEndian.PutUint64(b[32:], g.put(2<<10, control))
		binary.NativeEndian.PutUint64(b[40:], uint64(len(control)))
	}
	return g.put(0, b)
}

func descriptors(t *testing.T) int {
	t.Helper()
	var st unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &st)
	n := 0
	for fd := range 4096 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			n++
		}
	}
	return n
}

func TestRefusalIsRecorded(t *testing.T) {
	g := newGuest(t)
	fd := g.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	data := g.put(4096, []byte("x"))
	g.want(g.call("sendto", fd, data, 1, 0, g.put(0, inet(9, 127, 0, 0, 1)), 16), "errno ECONNREFUSED")
	if len(g.events) != 1 || g.events[0].Address != "udp 127.0.0.1:9" || g.events[0].Rule != "rule" || g.events[0].Syscall != "sendto" {
		t.Errorf("recorded %+v", g.events)
	}
	g.want(g.call("sendto", fd, data, 1, 0, g.put(0, inet(53, 127, 0, 0, 1)), 16), "return 1")
	g.want(g.call("sendto", fd, data, 1, unix.MSG_FASTOPEN, g.put(0, inet(53, 127, 0, 0, 1)), 16), "errno ENOTSUP")
}

func TestDatagramsDoNotAllocate(t *testing.T) {
	g := newGuest(t)
	fd := g.socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	data, to := g.put(4096, []byte("x")), g.put(0, inet(53, 127, 0, 0, 1))
	nr, _ := abi.SyscallNumber(abi.AMD64, "sendto")
	c := supervise.NewCall(unix.Gettid(), nr, [6]uint64{fd, data, 1, 0, to, 16}, g.memory)
	if n := testing.AllocsPerRun(100, func() { g.h.Handle(c) }); n > 0 {
		t.Errorf("%v allocations for a datagram", n)
	}
}

// A caller that is gone has nothing sent in its name, whatever was copied of it.
func TestGoneCaller(t *testing.T) {
	g := newGuest(t)
	ours, peer := g.pair(unix.SOCK_STREAM)
	defer unix.Close(ours)
	data := g.put(4096, []byte("x"))
	msg := g.message(data, 1, nil)
	g.memory.Gone = true
	g.want(g.call("sendto", uint64(ours), data, 1), "errno ESRCH")
	g.want(g.call("sendto", uint64(ours), data, 0), "errno ESRCH")
	g.want(g.call("sendmsg", uint64(ours), msg), "errno ESRCH")
	if n, _, err := unix.Recvfrom(peer, make([]byte, 1), unix.MSG_DONTWAIT); err == nil && n > 0 {
		t.Error("it was sent")
	}
}

func TestRightsAreReleased(t *testing.T) {
	g := newGuest(t)
	ours, peer := g.pair(unix.SOCK_STREAM)
	defer unix.Close(ours)
	data := g.put(4096, []byte("x"))
	msg := g.message(data, 1, cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, slices.Concat([]byte{byte(ours), 0, 0, 0}, []byte{byte(peer), 0, 0, 0})...))
	g.want(g.call("sendmsg", uint64(ours), msg), "return 1")
	before := descriptors(t)
	for range 20 {
		g.want(g.call("sendmsg", uint64(ours), msg), "return 1")
	}
	bad := g.message(data, 1, cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, slices.Concat([]byte{byte(ours), 0, 0, 0}, []byte{0xff, 0xff, 0, 0})...))
	g.want(g.call("sendmsg", uint64(ours), bad), "errno EBADF")
	for range 1000 { // they are closed by others
		if descriptors(t) <= before {
			break
		}
		runtime.Gosched()
	}
	if now := descriptors(t); now > before || g.h.held != 0 {
		t.Errorf("%d descriptors, %d before; %d held", now, before, g.h.held)
	}
}

// Messages that wait hold no more of their callers' descriptors than there is room for.
func TestHeldRightsAreBounded(t *testing.T) {
	g := newGuest(t)
	ours, _ := g.pair(unix.SOCK_STREAM)
	defer unix.Close(ours)
	if _, err := unix.SendmsgN(ours, make([]byte, 1<<20), nil, nil, unix.MSG_DONTWAIT); err != nil {
		t.Fatal(err)
	}
	var fds []byte
	for range maxRights {
		fds = append(fds, byte(ours), 0, 0, 0)
	}
	msg := g.message(g.put(4096, []byte("x")), 1, cmsg(0, unix.SOL_SOCKET, unix.SCM_RIGHTS, fds...))
	var waiting []supervise.Verdict
	for range maxHeld / maxRights {
		v := g.call("sendmsg", uint64(ours), msg)
		g.want(v, "wait")
		waiting = append(waiting, v)
	}
	g.want(g.call("sendmsg", uint64(ours), msg), "errno ETOOMANYREFS")
	g.want(g.call("sendmsg", uint64(ours), msg, unix.MSG_DONTWAIT), "errno ETOOMANYREFS")
	if err := unix.SetNonblock(ours, true); err != nil { // so that they give up
		t.Fatal(err)
	}
	for _, v := range waiting {
		g.want(v.Waited()(supervise.NewCall(unix.Gettid(), 0, [6]uint64{}, g.memory), true), "errno EAGAIN")
	}
	if g.h.held != 0 {
		t.Errorf("%d descriptors held", g.h.held)
	}
}

// What waits is read again from the caller's memory, and what was decided about is not.
func TestStreamsGoOn(t *testing.T) {
	g := newGuest(t)
	ours, peer := g.pair(unix.SOCK_STREAM)
	defer unix.Close(ours)
	size := 1 << 20
	for i := range size {
		g.memory.Bytes[4096+i] = byte(i % 251)
	}
	v := g.call("sendmsg", uint64(ours), g.message(supervisetest.Base+4096, size, nil))
	var got []byte
	for buf := make([]byte, 64<<10); v.Waited() != nil; {
		n, err := unix.Read(peer, buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
		clear(g.memory.Bytes[:4096]) // header and segments are copies
		v = v.Waited()(supervise.NewCall(unix.Gettid(), 0, [6]uint64{}, g.memory), true)
	}
	g.want(v, "return 1048576")
	for rest := make([]byte, size); len(got) < size; {
		n, err := unix.Read(peer, rest)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, rest[:n]...)
	}
	for i, b := range got {
		if b != byte(i%251) {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
}

func TestNetlinkAsksOnly(t *testing.T) {
	g := newGuest(t)
	fd := g.socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	other := g.socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC)
	get, set := request(0, unix.RTM_GETLINK, make([]byte, 16)...), request(0, unix.RTM_NEWLINK, make([]byte, 16)...)
	kernel := binary.NativeEndian.AppendUint16(nil, unix.AF_NETLINK)
	kernel = append(kernel, make([]byte, 10)...)
	port, groups := slices.Clone(kernel), slices.Clone(kernel)
	port[4], groups[8] = 1, 1
	size := uint64(len(get))
	for _, tc := range []struct {
		fd   uint64
		data []byte
		to   []byte
		want string
	}{
		{fd, get, kernel, "return 32"},
		{fd, get, nil, "return 32"},
		{fd, set, kernel, "errno EPERM"},
		{fd, get, port, "errno EPERM"},
		{fd, get, groups, "errno EPERM"},
		{fd, get, inet(53, 127, 0, 0, 1), "errno EPERM"},
		{other, get, kernel, "errno EPERM"},
	} {
		to := uint64(0)
		if tc.to != nil {
			to = g.put(0, tc.to)
		}
		g.want(g.call("sendto", tc.fd, g.put(4096, tc.data), size, 0, to, uint64(len(tc.to))), tc.want)
	}
	g.want(g.call("sendmsg", fd, g.message(g.put(4096, get), len(get), cmsg(0, unix.SOL_SOCKET, unix.SCM_CREDENTIALS, make([]byte, 12)...))), "errno EPERM")
	if !strings.Contains(g.events[0].Reason, "netlink") {
		t.Errorf("recorded %+v", g.events[0])
	}
}

// The place of a descriptor that was another socket's is not taken for that.
func TestKnownSockets(t *testing.T) {
	g := newGuest(t)
	first := int(g.socket(unix.AF_INET, unix.SOCK_DGRAM, 0))
	for _, want := range []socket.Socket{
		{Domain: unix.AF_INET6, Kind: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP},
		{Domain: unix.AF_INET, Kind: unix.SOCK_DGRAM, Protocol: unix.IPPROTO_UDP},
		{Domain: unix.AF_UNIX, Kind: unix.SOCK_SEQPACKET},
	} {
		for range 2 {
			fd := g.socket(want.Domain, want.Kind, 0)
			if err := unix.Dup3(int(fd), first, 0); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s, err := g.h.hold(unix.Gettid(), int32(first))
				if err != nil {
					t.Fatal(err)
				}
				s.Close()
				if s.FD = 0; s != want {
					t.Errorf("%+v, want %+v", s, want)
				}
			}
		}
	}
	if _, err := g.h.hold(unix.Gettid(), -1); err != unix.EBADF {
		t.Errorf("descriptor -1: %v", err)
	}
	if _, err := g.h.hold(unix.Gettid(), 0); err != unix.ENOTSOCK {
		t.Errorf("standard input: %v", err)
	}
}
