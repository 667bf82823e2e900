package exec_test

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// datagrams counts what arrives at a UDP port of the host.
type datagrams struct {
	net.PacketConn
	received atomic.Int64
}

func datagramListener(t *testing.T, address string) *datagrams {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { conn.Close() })
	d := &datagrams{PacketConn: conn}
	go func() {
		var b [64]byte
		for {
			if _, _, err := conn.ReadFrom(b[:]); err != nil {
				return
			}
			d.received.Add(1)
		}
	}()
	return d
}

// policy compiles policy B with a network section.
func withNetwork(b *exectest.Box, network string) string {
	return b.Policy(b.Base(exectest.Grants{More: "network: " + network}))
}

// One listener may be reached, its neighbours may not; and what may not is refused as if nobody were there.
func Test_network_connect(t *testing.T) {
	l, other := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp4", "127.0.0.1:0")
	l6 := listen(t, "tcp6", "[::1]:0")
	const nobody = "errno ECONNREFUSED"
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		free := freePort(t)
		policy := withNetwork(b, fmt.Sprintf(`allow: ["tcp://127.0.0.1:%s,%s", "tcp://[::1]:%s"]`, port(l), free, port(l6)))
		checkAllowed(t, b, policy, []allowed{
			{"allowed", []string{"connect", l.Addr().String(), stream, "0"}, "ok"},
			{"network_6_10_reaches_the_kernel", []string{"connect", "127.0.0.1:" + free, stream, "0"}, nobody},
			{"network_6_11_other_port", []string{"connect", other.Addr().String(), stream, "0"}, nobody},
			{"network_6_8_other_address", []string{"connect", "127.0.0.2:" + port(l), stream, "0"}, nobody},
			{"mapped", []string{"connect", "[::ffff:127.0.0.1]:" + port(l), stream, "0"}, "ok"},
			{"network_6_23_mapped_other", []string{"connect", "[::ffff:127.0.0.1]:" + port(other), stream, "0"}, nobody},
			{"network_3_11_7_unspecified", []string{"connect", "0.0.0.0:" + port(l), stream, "0"}, "ok"},
			{"network_3_11_7_unspecified_other", []string{"connect", "0.0.0.0:" + port(other), stream, "0"}, nobody},
			{"ipv6", []string{"connect", "[::1]:" + port(l6), stream, "0"}, "ok"},
			{"ipv6_other", []string{"connect", "[::1]:" + port(l), stream, "0"}, nobody},
			{"network_3_11_1_mptcp", []string{"connect", l.Addr().String(), stream, mptcp}, "errno EPROTONOSUPPORT (socket)"},
			{"network_3_11_2_fastopen", []string{"send", l.Addr().String(), stream, "0", fastOpen}, "errno EOPNOTSUPP"},
			{"network_3_11_2_fastopen_option", []string{"fastopen-connect", l.Addr().String()}, "ok"},
			{"network_3_11_2_fastopen_option_other", []string{"fastopen-connect", other.Addr().String()}, nobody},
			{"no_datagrams", []string{"socket", "2", datagram, "0"}, "errno EPERM"},
			{"network_6_17_no_bind", []string{"bind", "127.0.0.1:" + free, stream, "0"}, refusedByNet},
		})
		if n := other.seen(t); n > 0 {
			t.Errorf("a listener that may not be reached saw %d connections", n)
		}
	})
}

// network.deny leaves everything open but what it names.
func Test_network_deny(t *testing.T) {
	l, other := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp4", "127.0.0.1:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := withNetwork(b, fmt.Sprintf(`deny: ["127.0.0.1:%s", "10.0.0.0/8"]`, port(other)))
		checkAllowed(t, b, policy, []allowed{
			{"other", []string{"connect", l.Addr().String(), stream, "0"}, "ok"},
			{"denied", []string{"connect", other.Addr().String(), stream, "0"}, "errno ECONNREFUSED"},
			{"network_6_23_mapped", []string{"connect", "[::ffff:127.0.0.1]:" + port(other), stream, "0"}, "errno ECONNREFUSED"},
			{"network_3_11_7_unspecified", []string{"connect", "0.0.0.0:" + port(other), stream, "0"}, "errno ECONNREFUSED"},
			{"block", []string{"connect", "10.1.2.3:80", stream, "0"}, "errno ECONNREFUSED"},
		})
		if n := other.seen(t); n > 0 {
			t.Errorf("a listener that may not be reached saw %d connections", n)
		}
	})
}

// Nothing that another thread changes during a call leads it elsewhere than it was decided.
func Test_escape_41_connect_races(t *testing.T) {
	t.Parallel()
	l, forbidden := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp4", "127.0.0.1:0")
	udp, forbiddenUDP := datagramListener(t, "127.0.0.1:0"), datagramListener(t, "127.0.0.1:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := withNetwork(b, fmt.Sprintf(`allow: ["tcp://127.0.0.1:%s", "udp://127.0.0.1:%d"]`,
			port(l), udp.LocalAddr().(*net.UDPAddr).Port))
		ok, no := udp.LocalAddr().String(), forbiddenUDP.LocalAddr().String()
		both := "value connected=some refused=some"
		if got := b.Attempt(policy, "connect-race", ok, no, datagram, raced(u, often(100000))); got != both {
			t.Errorf("datagrams: %s", got)
		}
		if got := b.Attempt(policy, "connect-race", l.Addr().String(), forbidden.Addr().String(), stream, raced(u, 3000)); got != both {
			t.Errorf("streams: %s", got)
		}
		if got := b.Attempt(policy, "family-race", no, raced(u, 20000)); got != "value sent=none" {
			t.Errorf("families: %s", got)
		}
		// The port of the allowed datagrams is no stream's, and the other way round.
		if got := b.Attempt(policy, "dup-race", ok, "127.0.0.1:"+port(l), raced(u, 20000)); got != "value sent=some" {
			t.Errorf("descriptors: %s", got)
		}
		if n := forbiddenUDP.received.Load(); n > 0 {
			t.Errorf("%d datagrams arrived where none may", n)
		}
		if n := forbidden.seen(t); n > 0 {
			t.Errorf("%d connections arrived where none may", n)
		}
		if udp.received.Load() == 0 {
			t.Error("no datagram arrived where they may")
		}
		got, outside := "", datagramListener(t, "127.0.0.1:0")      // another one: what comes late must not count as the sandbox's
		for _, rounds := range []string{"100", "10000", "100000"} { // on a busy machine the other thread may not run meanwhile
			if got = b.Control("family-race", outside.LocalAddr().String(), rounds); got == "value sent=some" {
				break
			}
		}
		if got != "value sent=some" {
			t.Errorf("without a sandbox: %s", got)
		}
		exectest.Within(t, 10*time.Second, "a datagram arrives where no sandbox is", func() bool { return outside.received.Load() > 0 })
	})
}

// blackHole is a TCP port that answers nothing: its queue of connections is full.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	for range 8 {
		conn, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Skip("the queue of a listening socket does not fill up")
	return ""
}

// A connection that is not answered delays its caller alone, ends when its socket's time is over or a signal comes, and
// leaves nothing behind when its caller is killed.
func Test_network_blocked_connect(t *testing.T) {
	py := python(t)
	hole := blackHole(t)
	l := listen(t, "tcp4", "127.0.0.1:0")
	_, holePort, _ := strings.Cut(hole, ":")
	script := `
import os, signal, socket, struct, sys, threading, time
hole, other = int(sys.argv[1]), int(sys.argv[2])
def blocked():
    s = socket.socket()
    try: s.connect(("127.0.0.1", hole))
    except OSError: pass
# Ten threads and a process wait; others go on.
for _ in range(10): threading.Thread(target=blocked, daemon=True).start()
child = os.fork()
if child == 0:
    blocked()
    os._exit(0)
time.sleep(0.3)
for _ in range(20): socket.create_connection(("127.0.0.1", other)).close()
print("others connect")
os.kill(child, signal.SIGKILL)
print("killed by", os.waitpid(child, 0)[1])
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300000))
print("timeout", s.connect_ex(("127.0.0.1", hole)))
s = socket.socket()
s.settimeout(0.3)
try: s.connect(("127.0.0.1", hole))
except TimeoutError: print("python's timeout")
s = socket.socket()
s.setblocking(False)
print("at once", s.connect_ex(("127.0.0.1", hole)))
sys.stdout.flush()
if os.fork() == 0:
    class Alarm(Exception): pass
    def alarm(*_): raise Alarm
    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try: blocked()
    except Alarm: print("interrupted")
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    threading.Thread(target=lambda: (time.sleep(1), print("still waits", flush=True), os._exit(0)), daemon=True).start()
    blocked()
    print("restarts no call")
    sys.stdout.flush()
    os._exit(1)
os.wait()
os._exit(0)`
	want := "others connect\nkilled by 9\ntimeout 115\npython's timeout\nat once 115\ninterrupted\nstill waits"
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := withNetwork(b, fmt.Sprintf(`allow: ["tcp://127.0.0.1:%s,%s"]`, holePort, port(l)))
		wantRun(t, b.Run(policy, py, "-c", script, holePort, port(l)), 0, want)
		// The same without a sandbox: what is expected is what the kernel does.
		o := b.Opts("", py, "-c", script, holePort, port(l))
		wantRun(t, exectest.Run(t, o), 0, want)
	})
}

func Test_network_unix_sockets(t *testing.T) {
	t.Parallel()
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		granted, outside, named := b.Dir("granted"), b.Dir("readable"), b.Dir("named")
		for _, dir := range []string{granted, outside, named} {
			listen(t, "unix", dir+"/s")
			if err := unix.Chmod(dir+"/s", 0o777); err != nil {
				t.Fatal(err)
			}
		}
		b.Link(outside+"/s", granted+"/link")
		g := exectest.Grants{Read: []string{outside, named}, Write: []string{granted}, More: `network: unix: "granted"`}
		policy := b.Policy(b.Base(g))
		checkAllowed(t, b, policy, []allowed{
			{"network_6_28_write_grant", []string{"unix-connect", stream, granted + "/s"}, "ok"},
			{"network_6_28_read_grant", []string{"unix-connect", stream, outside + "/s"}, "errno EACCES"},
			{"network_6_28_link", []string{"unix-connect", stream, granted + "/link"}, "errno EACCES"},
			{"missing", []string{"unix-connect", stream, granted + "/none"}, "errno ENOENT"},
			{"no_socket", []string{"unix-connect", stream, granted}, "errno ECONNREFUSED"},
			{"wrong_type", []string{"unix-connect", "5", granted + "/s"}, "errno EPROTOTYPE"},
			{"dot_dot", []string{"unix-connect", stream, granted + "/../readable/s"}, "errno EACCES"},
			{"own_root", []string{"unix-connect", stream, "/proc/self/root" + outside + "/s"}, "errno EACCES"},
		})
		g.More = fmt.Sprintf(`network: unix: [%q]`, named)
		policy = b.Policy(b.Base(g))
		checkAllowed(t, b, policy, []allowed{
			{"listed", []string{"unix-connect", stream, named + "/s"}, "ok"},
			{"granted_too", []string{"unix-connect", stream, granted + "/s"}, "ok"},
			{"not_listed", []string{"unix-connect", stream, outside + "/s"}, "errno EACCES"},
		})
	})
}

// Abstract names of the host stay out of reach, those of the sandbox do not; and servers inside can be reached by path.
func Test_network_unix_inside(t *testing.T) {
	t.Parallel()
	py := python(t)
	name := fmt.Sprintf("sandlock-test-%d", time.Now().UnixNano())
	listen(t, "unix", "@"+name)
	script := `
import os, socket, sys, threading
def connect(address):
    s = socket.socket(socket.AF_UNIX)
    try: s.connect(address)
    except OSError as e: return e.errno
    return 0
print("host's", connect("\0" + sys.argv[1]))
for address in "\0own" + sys.argv[1], "here.sock":
    l = socket.socket(socket.AF_UNIX)
    l.bind(address)
    l.listen(1)
    print("own", connect(address))
os.unlink("here.sock")
full = socket.socket(socket.AF_UNIX)
full.bind("full.sock")
full.listen(0)
first = socket.socket(socket.AF_UNIX)
first.connect("full.sock")
second = socket.socket(socket.AF_UNIX)
second.setblocking(False)
print("full", second.connect_ex("full.sock"))
third = threading.Thread(target=lambda: print("waited", connect("full.sock")))
third.start()
full.accept()
third.join(10)
os.unlink("full.sock")
a, b = socket.socketpair()
a.sendall(b"pair"); print(b.recv(9).decode())`
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		wantRun(t, b.Run(withNetwork(b, `unix: "granted"`), py, "-c", script, name), 0, "host's 1\nown 0\nown 0\nfull 11\nwaited 0\npair")
	})
}

// What the kernel takes for no address of the socket's family is none of ours either, and costs the executor nothing.
func Test_network_foreign_addresses(t *testing.T) {
	t.Parallel()
	py := python(t)
	l := listen(t, "tcp4", "127.0.0.1:0")
	script := `
import ctypes, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
port = int(sys.argv[1])
errors = set()
for i in range(1500):
    s = socket.socket()
    for family, size in (3, 16), (16, 16), (1, 16), (2, 8), (10, 16), (2, 200), (0xffff, 28):
        address = struct.pack("=HH", family, socket.htons(port)) + bytes(24)
        libc.connect(s.fileno(), address.ljust(200, b"\0"), size)
        errors.add(ctypes.get_errno())
    s.close()
print(*sorted(errors))
s = socket.create_connection(("127.0.0.1", port))
print("connects")`
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		o := b.Opts(withNetwork(b, fmt.Sprintf(`allow: ["tcp://127.0.0.1:%s"]`, port(l))), py, "-c", script, port(l))
		bare := b.Opts("", py, "-c", script, port(l))
		want := strings.TrimSpace(exectest.Run(t, bare).Stdout)
		o.Wrap = []string{"/bin/sh", "-c", `ulimit -n 256; exec "$@"`, "sh"}
		wantRun(t, exectest.Run(t, o), 0, want)
	})
}
