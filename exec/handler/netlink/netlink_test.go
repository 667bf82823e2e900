package netlink

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/exec/supervise"
	"github.com/sandlock-go/sandlock/exec/supervise/supervisetest"
	"github.com/sandlock-go/sandlock/ir/abi"
)

// watcher is a loop that the test turns.
type watcher map[int]func()

func (w watcher) Watch(fd int, ready func()) error { w[fd] = ready; return nil }
func (w watcher) Unwatch(fd int)                   { delete(w, fd) }

type events []supervise.Event

func (e *events) Record(event supervise.Event) { *e = append(*e, event) }

// setting is a handler whose only caller is the test itself.
type setting struct {
	*Handler
	watcher watcher
	events  events
	memory  supervisetest.Memory
}

func newSetting(t *testing.T) *setting {
	s := &setting{watcher: watcher{}, memory: supervisetest.Memory{Bytes: make([]byte, 64)}}
	s.Handler = New(abi.AMD64, kernel.Root{}, s.watcher, &s.events, true)
	t.Cleanup(s.Close)
	return s
}

func (s *setting) call(nr abi.Sysno, args ...uint64) supervise.Verdict {
	var all [6]uint64
	copy(all[:], args)
	return s.Handle(supervise.NewCall(unix.Gettid(), nr, all, &s.memory))
}

// newOwn makes a socket whose command's end the test holds.
func (s *setting) newOwn(t *testing.T) (int, *socket) {
	t.Helper()
	fd, own, err := newSocket(s.freePort(port), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	s.sockets[own.inode] = own
	return fd, own
}

func wantVerdict(t *testing.T, got supervise.Verdict, want string) {
	t.Helper()
	if got.String() != want {
		t.Errorf("verdict: got %s, want %s", got, want)
	}
}

// messages reads all that is in a queue.
func messages(t *testing.T, fd int) (list [][]byte) {
	t.Helper()
	for {
		b, from, size := make([]byte, 8192), [16]byte{}, uint32(16)
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
		if errno != 0 {
			return list
		}
		if size != addressSize || native.Uint32(from[4:]) != 0 {
			t.Errorf("a message from %x, which does not read as the kernel's port", from[:size])
		}
		list = append(list, b[:n])
	}
}

func TestOpen(t *testing.T) {
	const pass = "next"
	s := newSetting(t)
	for _, tc := range []struct {
		args []uint64
		want string
	}{
		{[]uint64{unix.AF_NETLINK, unix.SOCK_RAW, 0}, "descriptor with flags 0x0"},
		{[]uint64{unix.AF_NETLINK, unix.SOCK_DGRAM | unix.SOCK_NONBLOCK, 0}, "descriptor with flags 0x0"},
		{[]uint64{unix.AF_NETLINK | 1<<40, unix.SOCK_RAW | unix.SOCK_CLOEXEC | 1<<32, 1 << 33}, "descriptor with flags 0x80000"},
		{[]uint64{unix.AF_NETLINK, unix.SOCK_RAW | 0x100, 0}, "errno EINVAL"},
		{[]uint64{unix.AF_NETLINK, unix.SOCK_STREAM, 0}, pass},
		{[]uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}, pass},
		{[]uint64{unix.AF_INET, unix.SOCK_RAW, 0}, pass},
	} {
		wantVerdict(t, s.call(s.socket, tc.args...), tc.want)
	}
	if len(s.watcher) != 3 || len(s.sockets) != 3 {
		t.Errorf("%d sockets, %d watched; want 3", len(s.sockets), len(s.watcher))
	}
}

func TestTooMany(t *testing.T) {
	s := newSetting(t)
	for i := range uint64(maxSockets) {
		s.sockets[i] = &socket{end: -1}
	}
	wantVerdict(t, s.call(s.socket, unix.AF_NETLINK, unix.SOCK_RAW, 0), "errno ENFILE")
	if len(s.events) != 1 || s.events[0].Kind != "limit" {
		t.Errorf("events: %+v", s.events)
	}
}

func TestServe(t *testing.T) {
	s := newSetting(t)
	fd, own := s.newOwn(t)
	copy(s.memory.Bytes, native.AppendUint16(nil, unix.AF_NETLINK))
	wantVerdict(t, s.call(s.bind, uint64(fd), supervisetest.Base, addressSize), "return 0")
	if left := messages(t, fd); len(left) != 0 {
		t.Errorf("after bind there are %d answers to what was not asked", len(left))
	}
	for _, b := range [][]byte{request(unix.RTM_GETLINK, unix.NLM_F_DUMP, 0), {}, request(unix.RTM_GETROUTE, unix.NLM_F_DUMP, 0)} {
		if err := unix.Sendto(fd, b, 0, nil); err != nil {
			t.Fatal(err)
		}
		s.serve(own)
	}
	if got := summary(t, messages(t, fd)); got != `link+ 1 "lo\x00", done+; error -95 about 17 bytes` {
		t.Errorf("got %s", got)
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if s.serve(own); len(s.sockets) != 0 {
		t.Error("a socket that can send no more is still watched")
	}
}

// What musl does: no bind, and no wait for the answer.
func TestForetold(t *testing.T) {
	s := newSetting(t)
	fd, own := s.newOwn(t)
	for i, want := range foretold {
		b := sized(append(header(nil, want, 0, want.kind, want.flags), 0, 0, 0, 0), 0)
		if err := unix.Sendto(fd, b, 0, nil); err != nil {
			t.Fatal(err)
		}
		reply := make([]byte, 8192)
		n, _, err := unix.Recvfrom(fd, reply, unix.MSG_DONTWAIT)
		if err != nil {
			t.Fatalf("request %d: no answer yet: %v", i, err)
		}
		if m, _, ok := next(reply[:n]); !ok || m.kind != want.kind-2 || m.sequence != want.sequence {
			t.Errorf("request %d: answer %x", i, reply[:n])
		}
		s.serve(own)
	}
	if left := messages(t, fd); len(left) != 0 || own.foretold != 0 {
		t.Errorf("answered twice: %d more", len(left))
	}
	if err := unix.Sendto(fd, request(unix.RTM_GETADDR, unix.NLM_F_DUMP, unix.AF_INET), 0, nil); err != nil {
		t.Fatal(err)
	}
	s.serve(own)
	if got := summary(t, messages(t, fd)); got != "address+ 127.0.0.1/8 on 1, done+" {
		t.Errorf("got %s", got)
	}
}

func TestNames(t *testing.T) {
	s := newSetting(t)
	fd, own := s.newOwn(t)
	_, other := s.newOwn(t)
	if own.port != port || int32(other.port) >= 0 {
		t.Errorf("ports %d and %d, want %d and a negative one", own.port, int32(other.port), port)
	}
	bind := func(family uint16, to uint32) supervise.Verdict {
		copy(s.memory.Bytes, native.AppendUint32(native.AppendUint32(nil, uint32(family)), to))
		return s.call(s.bind, uint64(fd), supervisetest.Base, addressSize)
	}
	wantVerdict(t, bind(unix.AF_UNIX, 0), "errno EINVAL")
	wantVerdict(t, bind(unix.AF_NETLINK, other.port), "errno EADDRINUSE")
	wantVerdict(t, bind(unix.AF_NETLINK, 77), "return 0")
	wantVerdict(t, bind(unix.AF_NETLINK, 78), "errno EINVAL")
	wantVerdict(t, bind(unix.AF_NETLINK, 0), "return 0")
	name := func(room uint32) supervise.Verdict {
		clear(s.memory.Bytes)
		binary.NativeEndian.PutUint32(s.memory.Bytes[32:], room)
		return s.call(s.getsockname, uint64(fd), supervisetest.Base, supervisetest.Base+32)
	}
	for _, tc := range []struct {
		room uint32
		want string
		name string
	}{
		{112, "return 0", "\x10\x00\x00\x00\x4d\x00\x00\x00"},
		{5, "return 0", "\x10\x00\x00\x00\x4d\x00\x00\x00"[:5] + "\x00\x00\x00"},
		{0, "return 0", "\x00\x00\x00\x00\x00\x00\x00\x00"},
		{1 << 31, "errno EINVAL", "\x00\x00\x00\x00\x00\x00\x00\x00"},
	} {
		wantVerdict(t, name(tc.room), tc.want)
		length := binary.NativeEndian.Uint32(s.memory.Bytes[32:])
		if got := string(s.memory.Bytes[:8]); got != tc.name || tc.want == "return 0" && length != addressSize {
			t.Errorf("room %d: %x of length %d", tc.room, got, length)
		}
	}
	wantVerdict(t, s.call(s.getsockname, uint64(fd), supervisetest.Base, 0), "errno EFAULT")
	wantVerdict(t, s.call(s.bind, uint64(fd), 0, addressSize), "errno EFAULT")
	// Everybody else's sockets.
	wantVerdict(t, s.call(s.getsockname, 0, supervisetest.Base, supervisetest.Base), "pass: the kernel decides")
	wantVerdict(t, s.call(s.bind, uint64(own.end), supervisetest.Base, addressSize), "pass: the kernel decides")
}

const strangerEnv = "NETLINK_TEST_CONNECT"

// Who else of the host knows the name may connect as well, and gets nothing.
func TestStrangersConnection(t *testing.T) {
	name := "@sandlock-netlink-test-" + strconv.Itoa(os.Getpid())
	if os.Getenv(strangerEnv) != "" {
		name = os.Getenv(strangerEnv)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	at := &unix.SockaddrUnix{Name: name}
	if os.Getenv(strangerEnv) != "" {
		if err := unix.Connect(fd, at); err != nil {
			t.Fatal(err)
		}
		return
	}
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	if err := errors.Join(unix.Bind(listener, at), unix.Listen(listener, 2)); err != nil {
		t.Fatal(err)
	}
	stranger := exec.Command(os.Args[0], "-test.run=^TestStrangersConnection$")
	stranger.Env = append(os.Environ(), strangerEnv+"="+name)
	if out, err := stranger.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := unix.Connect(fd, at); err != nil {
		t.Fatal(err)
	}
	got, err := acceptOwn(listener)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(got)
	if err := unix.Sendto(fd, []byte("x"), 0, nil); err != nil {
		t.Fatal(err)
	}
	if n, _, err := unix.Recvfrom(got, make([]byte, 1), unix.MSG_DONTWAIT); n != 1 {
		t.Errorf("what was accepted is not the own connection: %d, %v", n, err)
	}
}
