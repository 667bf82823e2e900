package exec_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// sink counts the datagrams that reach a socket of the host.
type sink struct {
	net.PacketConn
	got  atomic.Int64
	mark atomic.Int64
}

const markText = "the test's own"

// newSink receives on a network of net.ListenPacket.
func newSink(t *testing.T, network, at string) *sink {
	t.Helper()
	conn, err := net.ListenPacket(network, at)
	if err != nil {
		t.Skipf("receive on %s: %v", at, err)
	}
	s := &sink{PacketConn: conn}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 256)
		for {
			n, _, err := conn.ReadFrom(buf)
			switch {
			case err != nil:
				return
			case string(buf[:n]) == markText:
				s.mark.Add(1)
			default:
				s.got.Add(1)
			}
		}
	}()
	return s
}

// seen returns how many datagrams have come since the last time. They come in their order, so once one of its own is there
// all that were sent before are counted, but for those that found the queue full: the mark is repeated until it is there.
func (s *sink) seen(t *testing.T) int {
	t.Helper()
	conn, err := net.Dial(s.LocalAddr().Network(), s.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before := s.mark.Load()
	exectest.Within(t, 20*time.Second, "an own datagram received", func() bool {
		_, _ = conn.Write([]byte(markText))
		return s.mark.Load() > before
	})
	return int(s.got.Swap(0))
}

func (s *sink) port() int { return s.LocalAddr().(*net.UDPAddr).Port }

func allowNet(rules ...string) exectest.Grants {
	return exectest.Grants{More: fmt.Sprintf("network: allow: [\"%s\"]", strings.Join(rules, `", "`))}
}

func Test_network_6_1_datagrams(t *testing.T) {
	allow, forbid := newSink(t, "udp4", "127.0.0.1:0"), newSink(t, "udp4", "127.0.0.1:0")
	good, bad := allow.LocalAddr().String(), forbid.LocalAddr().String()
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(allowNet("udp://" + good)))
		refused := "errno ECONNREFUSED"
		checkAllowed(t, b, policy, []allowed{
			{"network_6_1_allowed", []string{"send", good, datagram, "0", "0"}, "ok"},
			{"network_6_1_sendmsg", []string{"sendmsg", good, datagram, "0", "0"}, "ok"},
			{"network_6_1_sendmmsg", []string{"sendmmsg", good, datagram, "0", "0"}, "ok"},
			{"network_6_1_mapped", []string{"send", "[::ffff:127.0.0.1]:" + fmt.Sprint(allow.port()), datagram, "0", "0"}, "ok"},
			{"network_6_1_unspecified", []string{"send", "0.0.0.0:" + fmt.Sprint(allow.port()), datagram, "0", "0"}, "ok"},
			{"network_6_5_vector_of_two", []string{"send-vector", good, bad}, "value sent=1 lengths=1,0"},
			{"network_6_7_connected_vector", []string{"send-vector", "connected", good, good}, "value sent=2 lengths=1,1"},
			{"vector_of_a_thousand", append([]string{"send-vector"}, repeat(good, 1000)...), "value sent=1000 lengths=" + strings.Join(repeat("1", 1000), ",")},
		})
		if got := allow.seen(t); got < 9 || got > 1009 { // a full queue drops some of the thousand
			t.Errorf("the allowed socket got %d datagrams", got)
		}
		checkAllowed(t, b, policy, []allowed{
			{"network_6_1_refused", []string{"send", bad, datagram, "0", "0"}, refused},
			{"network_6_1_sendmsg_refused", []string{"sendmsg", bad, datagram, "0", "0"}, refused},
			{"network_6_6_sendmmsg_refused", []string{"sendmmsg", bad, datagram, "0", "0"}, refused},
			{"network_6_1_mapped_refused", []string{"send", "[::ffff:127.0.0.1]:" + fmt.Sprint(forbid.port()), datagram, "0", "0"}, refused},
			{"network_6_1_unspecified_refused", []string{"send", "0.0.0.0:" + fmt.Sprint(forbid.port()), datagram, "0", "0"}, refused},
			{"network_6_1_ipv6_refused", []string{"send", "[::1]:" + fmt.Sprint(allow.port()), datagram, "0", "0"}, refused},
			{"network_3_11_fastopen_sendmsg", []string{"sendmsg", good, stream, "0", fastOpen}, "errno EOPNOTSUPP"},
			{"network_6_2_length", []string{"call", "sendto", "0", "b:1", "1", "0", "b:16", "0xffffffff"}, "errno ENOTSOCK"},
		})
		if got := forbid.seen(t) + allow.seen(t); got > 0 {
			t.Errorf("%d refused datagrams have arrived", got)
		}
		any := b.Policy(b.Base(allowNet("udp://*:*")))
		checkAllowed(t, b, any, []allowed{
			{"network_6_3_any", []string{"send", bad, datagram, "0", "0"}, "ok"},
			{"network_6_4_tcp", []string{"connect", "127.0.0.1:" + freePort(t), stream, "0"}, "errno EACCES"},
		})
		if forbid.seen(t) != 1 {
			t.Error("what any rule allows has not arrived")
		}
	})
}

func repeat(s string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s
	}
	return list
}

func Test_network_6_1_datagrams_ipv6(t *testing.T) {
	allow, forbid := newSink(t, "udp6", "[::1]:0"), newSink(t, "udp6", "[::1]:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		checkAllowed(t, b, b.Policy(b.Base(allowNet("udp://"+allow.LocalAddr().String()))), []allowed{
			{"allowed", []string{"send", allow.LocalAddr().String(), datagram, "0", "0"}, "ok"},
			{"unspecified", []string{"send", fmt.Sprintf("[::]:%d", allow.port()), datagram, "0", "0"}, "ok"},
			{"refused", []string{"send", forbid.LocalAddr().String(), datagram, "0", "0"}, "errno ECONNREFUSED"},
		})
		if good, bad := allow.seen(t), forbid.seen(t); good != 2 || bad != 0 {
			t.Errorf("%d allowed and %d refused datagrams have arrived, want 2 and 0", good, bad)
		}
	})
}

// What Python's socket module does not do, ctypes does. The prelude has what the scripts share.
const sendPrelude = `
import array, ctypes, errno, os, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def outcome(f):
    try:
        return str(f())
    except OSError as e:
        return errno.errorcode[e.errno]
def inet(family, address, port):
    return struct.pack("=H", family) + struct.pack("!H", port) + socket.inet_aton(address) + bytes(8)
def sendto(s, name, size=None, data=b"x", flags=0):
    ctypes.set_errno(0)
    n = libc.sendto(s.fileno(), data, ctypes.c_size_t(len(data)), flags, name, ctypes.c_uint(len(name or b"") if size is None else size))
    return n if n >= 0 else errno.errorcode[ctypes.get_errno()]
def sendmsg(s, name=None, namelen=0, iov=0, iovlen=0, control=0, controllen=0, flags=0):
    buf = ctypes.create_string_buffer(name) if name else None
    at = ctypes.addressof(buf) if buf else 0
    hdr = struct.pack("=QIIQQQQII", at, namelen or (len(name) if name else 0), 0, iov, iovlen, control, controllen, 0, 0)
    ctypes.set_errno(0)
    n = libc.sendmsg(s.fileno(), hdr, flags)
    return n if n >= 0 else errno.errorcode[ctypes.get_errno()]
`

// sendScript runs a script under a policy and compares what it prints with a control outside, where it can be compared.
func sendScript(t *testing.T, b *exectest.Box, g exectest.Grants, script, want string, args ...string) {
	t.Helper()
	argv := append([]string{python(t), "-c", sendPrelude + script}, args...)
	wantRun(t, b.Run(b.Policy(b.Base(g)), argv...), 0, want)
}

// The errors are the kernel's: the same script prints the same outside.
func Test_network_send_errors(t *testing.T) {
	t.Parallel()
	allow := newSink(t, "udp4", "127.0.0.1:0")
	script := `
port = int(sys.argv[1])
u, u6, t = socket.socket(type=socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), socket.socket()
good = inet(socket.AF_INET, "127.0.0.1", port)
print(sendto(u, good), sendto(u, good, 0xffffffff), sendto(u, good, 129), sendto(u, good, 15), sendto(u, good, 1), sendto(u, good, 0))
print(sendto(u, inet(0, "127.0.0.1", port)), sendto(u6, inet(0, "127.0.0.1", port)), sendto(u6, good))
print(sendto(u, inet(1, "127.0.0.1", port)), sendto(u6, inet(1, "127.0.0.1", port)), sendto(u, inet(10, "127.0.0.1", port) + bytes(12)))
print(sendto(u, good, data=bytes(65507)), sendto(u, good, data=bytes(65508)), sendto(u, good, data=bytes(200000)), sendto(u, good, data=b""))
print(sendmsg(u), sendmsg(u, good), sendmsg(u, good, iov=1, iovlen=1), sendmsg(u, good, iovlen=1025), sendmsg(u, good, namelen=0xffffffff))
data = ctypes.create_string_buffer(b"abcdef")
vec = struct.pack("=QQQQ", ctypes.addressof(data), 2, ctypes.addressof(data) + 3, 3)
huge = struct.pack("=QQ", ctypes.addressof(data), 1 << 63)
bad = struct.pack("=QQ", 8, 1)
at = lambda b: ctypes.cast(ctypes.c_char_p(b), ctypes.c_void_p).value
print(sendmsg(u, good, iov=at(vec), iovlen=2), sendmsg(u, good, iov=at(huge), iovlen=1), sendmsg(u, good, iov=at(bad), iovlen=1))
print(sendmsg(u, good, control=8, controllen=16), sendmsg(u, good, control=at(vec), controllen=32))
c = socket.socket(type=socket.SOCK_DGRAM)
c.connect(("127.0.0.1", port))
print(outcome(lambda: c.sendmsg([b"ab", b"c"])), sendto(c, None), sendto(c, inet(0, "127.0.0.1", port)))
print(outcome(lambda: u.sendmsg([b"x"], [(socket.IPPROTO_IP, socket.IP_TOS, struct.pack("i", 16))], 0, ("127.0.0.1", port))))
print(sendto(t, good), sendmsg(t, good, iov=at(vec), iovlen=2, flags=socket.MSG_NOSIGNAL))
print(libc.sendmmsg(u.fileno(), 0, 0, 0), libc.sendmmsg(u.fileno(), 8, 1, 0), libc.sendmsg(u.fileno(), 8, 0), libc.sendmsg(99, 8, 0))
`
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		argv := []string{python(t), "-c", "import signal; signal.signal(signal.SIGPIPE, signal.SIG_IGN)\n" + sendPrelude + script, fmt.Sprint(allow.port())}
		outside := b.Run("", argv...)
		if outside.Code != 0 || strings.Count(outside.Stdout, "\n") != 11 {
			t.Fatalf("outside: exit %d\n%s%s", outside.Code, outside.Stdout, outside.Stderr)
		}
		policy := b.Policy(b.Base(allowNet("udp://" + allow.LocalAddr().String())))
		wantRun(t, b.Run(policy, argv...), 0, strings.TrimSpace(outside.Stdout))
	})
}

// Source routes and routing headers lead packets by way of another host than they are sent to.
func Test_network_3_11_8_source_routes(t *testing.T) {
	t.Parallel()
	allow := newSink(t, "udp4", "127.0.0.1:0")
	script := `
to = ("127.0.0.1", int(sys.argv[1]))
u, u6 = socket.socket(type=socket.SOCK_DGRAM), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
route = bytes([131, 7, 4, 127, 0, 0, 1, 0])
print(outcome(lambda: u.sendmsg([b"x"], [(socket.IPPROTO_IP, 7, route)], 0, to)))
print(outcome(lambda: u.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, route)))
print(outcome(lambda: u6.setsockopt(socket.IPPROTO_IPV6, 57, b"")))
`
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		g := allowNet("udp://" + allow.LocalAddr().String())
		sendScript(t, b, g, script, "EPERM\nEPERM\nEPERM", fmt.Sprint(allow.port()))
		if got := allow.seen(t); got > 0 {
			t.Errorf("%d datagrams with a source route have arrived", got)
		}
		if !u.Root() {
			return // the kernel allows source routes to the privileged only
		}
		if r := b.Run("", python(t), "-c", sendPrelude+script, fmt.Sprint(allow.port())); !strings.HasPrefix(r.Stdout, "1\nNone\n") {
			t.Errorf("outside: %s%s", r.Stdout, r.Stderr)
		}
		allow.seen(t)
	})
}

// The address is decided about and sent to as one copy, whatever another thread writes over it.
func Test_network_3_11_send_races(t *testing.T) {
	t.Parallel()
	accepted := listen(t, "tcp4", "127.0.0.1:0")
	allow, forbid := newSink(t, "udp4", "127.0.0.1:0"), newSink(t, "udp4", "127.0.0.1:0")
	good, bad := allow.LocalAddr().String(), forbid.LocalAddr().String()
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(allowNet("udp://"+good, "tcp://"+accepted.Addr().String())))
		checkAllowed(t, b, policy, []allowed{
			{"sendto", []string{"send-race", "sendto", good, bad, raced(u, often(100000))}, "value sent=some refused=some"},
			{"sendmmsg", []string{"send-race", "sendmmsg", good, bad, raced(u, 20000)}, "value sent=some refused=some"},
			{"dup", []string{"send-dup-race", accepted.Addr().String(), bad, raced(u, 100000)}, "value streamed=some refused=some"},
		})
		if got := forbid.seen(t); got > 0 {
			t.Errorf("%d datagrams have reached the forbidden socket", got)
		}
		if got := allow.seen(t); got == 0 {
			t.Error("no datagram has reached the allowed socket")
		}
	})
	if b := exectest.NewBox(t, exectest.Self()); b.Control("send-race", "sendto", good, bad, "20000") != "value sent=some refused=none" || forbid.seen(t) == 0 {
		t.Error("outside, the race leads nowhere")
	}
}

// collect receives all of each connection, and passes what came on.
func collect(t *testing.T, l net.Listener, pause time.Duration) <-chan int {
	got := make(chan int, 16)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			time.Sleep(pause)
			n := 0
			buf := make([]byte, 64<<10)
			for {
				k, err := conn.Read(buf)
				for i, c := range buf[:k] {
					if c != byte((n+i)%251) {
						n = -1 << 40 // not what was sent
						break
					}
				}
				n += k
				if err != nil {
					break
				}
			}
			conn.Close()
			got <- n
		}
	}()
	return got
}

func wantCollected(t *testing.T, got <-chan int, want int) {
	t.Helper()
	select {
	case n := <-got:
		if n != want {
			t.Errorf("%d bytes have arrived as they were sent, want %d", n, want)
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing has arrived")
	}
}

// A blocking send of more than the kernel takes waits, while calls of others are answered.
func Test_network_send_streams(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got := collect(t, l, 300*time.Millisecond)
	script := `
size, port, probe = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
data = bytes(i % 251 for i in range(251)) * (size // 251 + 1)
s = socket.create_connection(("127.0.0.1", port))
answered = []
def other():
    while not answered or answered[0] < 20:
        if socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", int(probe))) == 1:
            answered[:] = [answered[0] + 1 if answered else 1]
thread = threading.Thread(target=other)
thread.start()
thread.join() if size < 1 << 20 else None
sent = s.sendmsg([data[:size // 2], data[size // 2:size]])
thread.join()
print(sent, answered[0])
`
	udp := newSink(t, "udp4", "127.0.0.1:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for _, size := range []int{200 << 10, 16 << 20} {
			sendScript(t, b, allowNet("tcp://"+l.Addr().String(), "udp://"+udp.LocalAddr().String()), script,
				fmt.Sprint(size, " ", 20), fmt.Sprint(size), port(l), fmt.Sprint(udp.port()))
			wantCollected(t, got, size)
		}
	})
}

// SO_SNDTIMEO, O_NONBLOCK, MSG_DONTWAIT, SIGPIPE: the same script prints the same outside.
func Test_network_send_waiting(t *testing.T) {
	t.Parallel()
	udp := newSink(t, "udp4", "127.0.0.1:0")
	script := `
def pair(kind=socket.SOCK_STREAM):
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
    return a, b
big = bytes(8 << 20)
def short(n):
    return 0 < n < len(big)
a, b = pair()
a.setblocking(False)
print("nonblocking", short(a.sendmsg([big])), outcome(lambda: a.sendmsg([big])))
a, b = pair()
print("dontwait", short(a.sendmsg([big], [], socket.MSG_DONTWAIT)), outcome(lambda: a.sendmsg([big], [], socket.MSG_DONTWAIT)))
a, b = pair()
a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 50000))
begin = time.monotonic()
print("timeout", short(a.sendmsg([big])), outcome(lambda: a.sendmsg([big])), time.monotonic() - begin > 0.09)
for kind in socket.SOCK_DGRAM, socket.SOCK_SEQPACKET:
    a, b = pair(kind)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 50000))
    n = 0
    try:
        while True:
            n += a.sendmsg([bytes(1000)])
    except OSError as e:
        print(kind, n > 0, errno.errorcode[e.errno])
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
    reader = threading.Timer(0.05, lambda: [b.recv(1000) for _ in range(n // 1000)])
    reader.start()
    print(a.sendmsg([bytes(1000)]), outcome(lambda: a.sendmsg([bytes(4 << 20)])))
    reader.join()
signal.signal(signal.SIGALRM, lambda *a: None)
a, b = pair()
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
print("signal", short(a.sendmsg([big])))
signal.setitimer(signal.ITIMER_REAL, 0)
pipes = []
signal.signal(signal.SIGPIPE, lambda *a: pipes.append(threading.get_ident() == me))
me = threading.get_ident()
for kind in socket.SOCK_STREAM, socket.SOCK_SEQPACKET:
    a, b = pair(kind)
    b.close()
    print("pipe", outcome(lambda: a.sendmsg([b"x"])), pipes)
    print("nosignal", outcome(lambda: a.sendmsg([b"x"], [], socket.MSG_NOSIGNAL)), pipes)
t = socket.socket()
print("tcp", outcome(lambda: t.sendmsg([b"x"])), pipes)
a, b = pair()
b.close()
sys.stdout.flush()
if os.fork() == 0:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    a.sendmsg([b"x"])
    os._exit(0)
print("killed", os.wait()[1])
`
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		argv := []string{python(t), "-c", sendPrelude + script}
		outside := b.Run("", argv...)
		if outside.Code != 0 || !strings.HasSuffix(outside.Stdout, "killed 13\n") {
			t.Fatalf("outside: exit %d\n%s%s", outside.Code, outside.Stdout, outside.Stderr)
		}
		g := allowNet("udp://" + udp.LocalAddr().String())
		g.More += "\nnetwork: unix: \"granted\""
		wantRun(t, b.Run(b.Policy(b.Base(g)), argv...), 0, strings.TrimSpace(outside.Stdout))
	})
}

// A datagram to a virtual port reaches the socket of the sandbox that has it, and not the one outside that has it in fact.
func Test_network_6_46_datagrams_to_virtual_ports(t *testing.T) {
	outside := newSink(t, "udp4", "127.0.0.1:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		sendScript(t, b, exectest.Grants{More: `network: {allow: ["udp://*"], allow_bind: [0], port_remap: true}`}, `
port = int(sys.argv[1])
s, c = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
s.bind(("127.0.0.1", port))
s.settimeout(5)
print(c.sendto(b"one", ("127.0.0.1", port)), s.recv(10), c.sendmsg([b"two"], [], 0, ("127.0.0.1", port)), s.recv(10))
`, "3 b'one' 3 b'two'", fmt.Sprint(outside.port()))
		if got := outside.seen(t); got > 0 {
			t.Errorf("%d datagrams have arrived outside", got)
		}
	})
}

// serveUnix listens in a folder and leaves what connects to a function.
func serveUnix(t *testing.T, path string, serve func(*net.UnixConn)) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
}

func Test_network_6_19_unix_streams(t *testing.T) {
	t.Parallel()
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		udp := newSink(t, "udp4", "127.0.0.1:0")
		texts := make(chan string, 1)
		serveUnix(t, b.Work+"/s", func(conn *net.UnixConn) {
			defer conn.Close()
			data, oob := make([]byte, 16), make([]byte, 64)
			n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
			text := fmt.Sprint(string(data[:n]), " ", err)
			if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) == 1 {
				if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 2 {
					f := os.NewFile(uintptr(fds[0]), "passed")
					content, _ := io.ReadAll(f)
					f.Close()
					unix.Close(fds[1])
					text += " " + string(content)
				}
			}
			texts <- text
		})
		slow := make(chan int, 1)
		serveUnix(t, b.Work+"/slow", func(conn *net.UnixConn) {
			defer conn.Close()
			time.Sleep(300 * time.Millisecond)
			n, _ := io.Copy(io.Discard, conn)
			slow <- int(n)
		})
		b.File(b.Work+"/file", "content")
		g := allowNet("udp://" + udp.LocalAddr().String())
		g.More += "\nnetwork: unix: \"granted\""
		sendScript(t, b, g, `
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1] + "/s")
print(s.sendmsg([b"hello"]))
`, "5", b.Work)
		if got := <-texts; got != "hello <nil>" {
			t.Errorf("network_6_19: received %q", got)
		}
		sendScript(t, b, g, `
def rights(fds): return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1] + "/s")
f = open(sys.argv[1] + "/file")
print(outcome(lambda: s.sendmsg([b"x"], rights([99]))), outcome(lambda: s.sendmsg([b"x"], rights([-1]))), outcome(lambda: s.sendmsg([b"x"], rights([1] * 254))))
print(outcome(lambda: s.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("iii", os.getpid(), os.getuid(), os.getgid()))])))
print(s.sendmsg([b"x"], rights([f.fileno(), 1])))
`, "EBADF EBADF EINVAL\nEPERM\n1", b.Work)
		if got := <-texts; got != "x <nil> content" {
			t.Errorf("network_6_20: received %q", got)
		}
		for i, script := range []string{`
print(s.sendmsg([bytes(4 << 20)]))`, `
data = ctypes.create_string_buffer(4 << 20)
vec = struct.pack("=QQ", ctypes.addressof(data), 4 << 20)
vector = ctypes.create_string_buffer(struct.pack("=QIIQQQQIIII", 0, 0, 0, ctypes.addressof(ctypes.create_string_buffer(vec)), 1, 0, 0, 0, 0, 0, 0))
keep = ctypes.create_string_buffer(vec)
struct.pack_into("=Q", vector, 16, ctypes.addressof(keep))
n = libc.sendmmsg(s.fileno(), vector, 1, 0)
print(n, struct.unpack_from("=I", vector, 56)[0])`} {
			want := []string{"4194304", "1 4194304"}[i]
			sendScript(t, b, g, "s = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1] + '/slow')\n"+script, want, b.Work)
			select {
			case n := <-slow:
				if n != 4<<20 {
					t.Errorf("network_6_%d: %d bytes have arrived", 21+i, n)
				}
			case <-time.After(20 * time.Second):
				t.Error("nothing has arrived")
			}
		}
	})
}

func Test_network_6_29_unix_datagrams(t *testing.T) {
	t.Parallel()
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		readable := b.Dir("readable")
		udp := newSink(t, "udp4", "127.0.0.1:0")
		good, bad := newSink(t, "unixgram", b.Work+"/s"), newSink(t, "unixgram", readable+"/s")
		abstract := newSink(t, "unixgram", fmt.Sprintf("@sandlock-send-%d-%d", os.Getpid(), time.Now().UnixNano()))
		for _, path := range []string{b.Work + "/s", readable + "/s"} {
			if err := os.Chmod(path, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		b.Link(readable+"/s", b.Work+"/link")
		script := `
work, readable, abstract = sys.argv[1:4]
u = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
os.chdir(work)
def mmsg(path):
    name, data = struct.pack("=H", 1) + path.encode() + b"\0" * (path[0] != "\0"), ctypes.create_string_buffer(b"payload")
    at, iov = ctypes.create_string_buffer(name), ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(data), 7))
    vector = ctypes.create_string_buffer(struct.pack("=QIIQQQQIIII", ctypes.addressof(at), len(name), 0, ctypes.addressof(iov), 1, 0, 0, 0, 0, 0, 0))
    n = libc.sendmmsg(u.fileno(), vector, 1, 0)
    return n if n >= 0 else errno.errorcode[ctypes.get_errno()]
for path in work + "/s", "s", readable + "/s", work + "/link", work + "/none", work, "\0" + abstract[1:]:
    print(outcome(lambda: u.sendto(b"payload", path)), outcome(lambda: u.sendmsg([b"payload"], [], 0, path)), mmsg(path))
inside = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
inside.bind("\0inside-" + str(os.getpid()))
print(outcome(lambda: u.sendto(b"payload", inside.getsockname())), inside.recv(10))
inside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
u.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 20000))
n = 0
while outcome(lambda: u.sendto(b"payload", inside.getsockname())) == "7":
    n += 1
u.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
threading.Timer(0.05, lambda: [inside.recv(10) for _ in range(n)]).start()
print(n > 0, u.sendto(b"payload", inside.getsockname()))
`
		want := strings.Join([]string{"7 7 1", "7 7 1", "EACCES EACCES EACCES", "EACCES EACCES EACCES", "ENOENT ENOENT ENOENT",
			"ECONNREFUSED ECONNREFUSED ECONNREFUSED", "EPERM EPERM EPERM", "7 b'payload'", "True 7"}, "\n")
		for _, more := range []string{`network: unix: "granted"`, `network: {unix: "granted", allow: ["` + "udp://" + udp.LocalAddr().String() + `"]}`} {
			sendScript(t, b, exectest.Grants{Read: []string{readable}, More: more}, script, want, b.Work, readable, abstract.LocalAddr().String())
			if got := good.seen(t); got != 6 {
				t.Errorf("%d datagrams have arrived, want 6", got)
			}
			if got := bad.seen(t) + abstract.seen(t); got != 0 {
				t.Errorf("%d refused datagrams have arrived", got)
			}
		}
	})
}
