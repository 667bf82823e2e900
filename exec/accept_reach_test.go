package exec_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// greet serves "hello" to whoever connects.
func greet(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello")
			conn.Close()
		}
	}()
	return l
}

// Rules hold for what the command starts, and those that name every port or every address leave them all open.
func Test_network_6_12_13_14(t *testing.T) {
	py := python(t)
	exectest.Helper(t)
	l := greet(t)
	one, two := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp4", "127.0.0.1:0")
	script := `
import subprocess, sys
read = "import socket, sys; print(socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10).recv(10).decode())"
subprocess.run(["/bin/sh", "-c", '"$@" & wait', "sh", sys.executable, "-c", read, sys.argv[1]])`
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(allowNet(l.Addr().String())))
		t.Run("network_6_12_descendant", func(t *testing.T) { wantRun(t, b.In(t).Run(policy, py, "-c", script, port(l)), 0, "hello") })
		t.Run("network_6_12_other", func(t *testing.T) {
			if r := b.In(t).Run(policy, py, "-c", script, port(one)); r.Stdout != "" || !strings.Contains(r.Stderr, "Connection refused") {
				t.Errorf("%q, want Connection refused\n%s", r.Stdout, r.Stderr)
			}
		})
		for rule, other := range map[string]string{":*": "ok", "localhost:*": "errno ECONNREFUSED", "127.0.0.1": "errno ECONNREFUSED"} {
			elsewhere := listen(t, "tcp4", "127.0.0.2:"+port(one))
			checkAllowed(t, b, b.Policy(b.Base(allowNet(rule))), []allowed{
				{"network_6_13_14/" + rule, []string{"connect", one.Addr().String(), stream, "0"}, "ok"},
				{"network_6_13_14_other_port/" + rule, []string{"connect", two.Addr().String(), stream, "0"}, "ok"},
				{"network_6_13_14_other_address/" + rule, []string{"connect", elsewhere.Addr().String(), stream, "0"}, other},
			})
			elsewhere.Close()
		}
		one.seen(t)
	})
}

// The length of an address is looked at before the address is; a rule about one protocol is none about the other.
func Test_network_6_2_4_30(t *testing.T) {
	py := python(t)
	l, allow, forbid := listen(t, "tcp4", "127.0.0.1:0"), newSink(t, "udp4", "127.0.0.1:0"), newSink(t, "udp4", "127.0.0.1:0")
	abstract := newSink(t, "unixgram", fmt.Sprintf("@sandlock-reach-%d-%d", os.Getpid(), time.Now().UnixNano()))
	script := sendPrelude + `
s = socket.socket(type=socket.SOCK_DGRAM)
for port in sys.argv[1:]:
    name = inet(socket.AF_INET, "127.0.0.1", int(port))
    print(sendto(s, name, 0xffffffff), sendmsg(s, name, 0xffffffff), sendto(s, name, 129))`
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(allowNet("udp://"+allow.LocalAddr().String(), "udp://"+l.Addr().String())))
		r := b.Run(policy, py, "-c", script, fmt.Sprint(allow.port()), fmt.Sprint(forbid.port()))
		wantRun(t, r, 0, "EINVAL EINVAL EINVAL\nEINVAL EINVAL EINVAL")
		checkAllowed(t, b, policy, []allowed{
			{"network_6_4_stream_under_a_rule_of_datagrams", []string{"connect", l.Addr().String(), stream, "0"}, "errno ECONNREFUSED"},
		})
		if n := l.seen(t); n > 0 {
			t.Errorf("the listener saw %d connections", n)
		}
		streams := b.Policy(b.Base(allowNet("tcp://" + allow.LocalAddr().String())))
		checkAllowed(t, b, streams, []allowed{
			{"network_6_44_datagram_under_a_rule_of_streams", []string{"send", allow.LocalAddr().String(), datagram, "0", "0"}, "errno EPERM (socket)"},
			{"network_6_30", []string{"unix-send", abstract.LocalAddr().String()}, "errno EPERM (socket)"},
			{"network_6_30_by_a_pair", []string{"pair-send", abstract.LocalAddr().String()}, "errno EPERM (socketpair)"},
		})
		if n := allow.seen(t) + forbid.seen(t) + abstract.seen(t); n > 0 {
			t.Errorf("%d refused datagrams have arrived", n)
		}
		if got := b.Control("unix-send", abstract.LocalAddr().String()); got != "ok" || abstract.seen(t) != 1 {
			t.Errorf("outside: %q", got)
		}
	})
}

// The errors of connect, bind and listen are the kernel's: the same script prints the same outside.
func Test_network_connect_errors(t *testing.T) {
	l := greet(t)
	script := sendPrelude + `
port = int(sys.argv[1])
good, good6 = inet(2, "127.0.0.1", port), struct.pack("=H", 10) + struct.pack("!H", port) + bytes(4) + socket.inet_pton(10, "::ffff:127.0.0.1") + bytes(4)
lost = []
def new(family=2, kind=1, flags=0):
    lost.append(socket.socket(family, kind | flags))
    return lost[-1].fileno()
def call(f, fd, name, size=None):
    ctypes.set_errno(0)
    n = f(fd, name, ctypes.c_uint(len(name) if size is None else size))
    return n if n >= 0 else errno.errorcode[ctypes.get_errno()]
anywhere = inet(2, "127.0.0.1", 0)
for name, f, at in ("connect", libc.connect, good), ("bind", libc.bind, anywhere):
    print(name, [call(f, fd, at) for fd in (-1, 99, 0)], [call(f, new(), at, n) for n in (0, 1, 2, 15, 17, 128, 129, 0x7fffffff, 0xffffffff)])
    print(name, [call(f, new(2, kind), p, 16) for kind in (1, 2) for p in (None, ctypes.c_void_p(8), ctypes.c_void_p(1 << 63))])
    print(name, [call(f, new(2, kind), good6 if family == 10 else inet(family, "127.0.0.1", port) + bytes(12)) for kind in (1, 2) for family in (1, 10, 16, 38, 0xffff)])
    print(name, [call(f, new(10, kind), inet(family, "127.0.0.1", port) + bytes(12)) for kind in (1, 2) for family in (1, 2, 16, 0xffff)])
    print(name, [call(f, new(10), good6 if f is libc.connect else good6[:2] + bytes(2) + good6[4:], n) for n in (23, 24, 28, 29, 128)])
print("unspecified", [call(libc.connect, new(family, kind), inet(0, "127.0.0.1", port), n) for family in (2, 10) for kind in (1, 2) for n in (2, 16)])
s = new()
print("twice", call(libc.connect, s, good), call(libc.connect, s, good), call(libc.connect, s, good6), call(libc.bind, s, anywhere), libc.listen(s, 1))
s = new(2, 2)
print("datagrams", call(libc.connect, s, good), call(libc.connect, s, good), call(libc.bind, s, anywhere), libc.listen(s, 1), call(libc.connect, s, inet(0, "0.0.0.0", 0)))
s = new()
print("bound", call(libc.bind, s, anywhere), call(libc.bind, s, anywhere), libc.listen(s, -1), libc.listen(s, 0x7fffffff), call(libc.connect, s, good), call(libc.bind, new(), inet(2, "203.0.113.1", 0)))
taken = lost[-2].getsockname()[1]
print("taken", call(libc.bind, new(), inet(2, "127.0.0.1", taken)), call(libc.bind, new(10), struct.pack("=H", 10) + struct.pack("!H", taken) + bytes(24)), call(libc.bind, new(2, 2), inet(2, "127.0.0.1", taken)))
def listen(fd):
    ctypes.set_errno(0)
    return libc.listen(fd, 1) and errno.errorcode[ctypes.get_errno()]
pair = socket.socketpair()
print("listen", [listen(fd) for fd in (-1, 99, 0, new(2, 2), pair[0].fileno())])
s = new(2, 1, socket.SOCK_NONBLOCK)
first = call(libc.connect, s, good)
import select
select.select([], [s], [], 10)
print("nonblocking", first in (0, "EINPROGRESS"), call(libc.connect, s, good) in (0, "EISCONN"), call(libc.connect, s, good))
print("port 0", call(libc.connect, new(), anywhere), call(libc.connect, new(2, 2), anywhere))
`
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		argv := []string{python(t), "-c", script, port(l)}
		outside := b.Run("", argv...)
		if outside.Code != 0 || strings.Count(outside.Stdout, "\n") != 18 {
			t.Fatalf("outside: exit %d\n%s%s", outside.Code, outside.Stdout, outside.Stderr)
		}
		for name, more := range map[string]string{
			"addresses":  `network: {allow: ["127.0.0.1"], allow_bind: ["*"]}`,
			"with_paths": `network: {allow: ["127.0.0.1"], allow_bind: ["*"], unix: "granted"}`,
			"deny_bind":  `network: {allow: ["127.0.0.1"], deny_bind: [1]}`,
			"port_remap": `network: {allow: ["127.0.0.1"], allow_bind: ["*"], port_remap: true}`,
			"denied":     `network: {deny: ["10.0.0.0/8"], allow_bind: ["*"]}`,
		} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				r := b.Run(b.Policy(b.Base(exectest.Grants{More: more})), argv...)
				inside, out := strings.Split(r.Stdout, "\n"), strings.Split(outside.Stdout, "\n")
				if r.Code != 0 || len(inside) != len(out) {
					t.Fatalf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
				}
				for i := range out {
					if inside[i] != out[i] {
						t.Errorf("inside:  %s\noutside: %s", inside[i], out[i])
					}
				}
			})
		}
	})
}

// The same for unix sockets, whose paths are bytes.
func Test_network_unix_errors(t *testing.T) {
	script := sendPrelude + `
made = []
def new(kind=1):
    made.append(socket.socket(socket.AF_UNIX, kind))
    return made[-1]
def call(f, s, name, size=None):
    ctypes.set_errno(0)
    n = f(s.fileno(), name, ctypes.c_uint(len(name) if size is None else size))
    return n if n >= 0 else errno.errorcode[ctypes.get_errno()]
def unix(path): return b"\1\0" + path
def mmsg(s, name, *_):
    at, iov = ctypes.create_string_buffer(name), ctypes.create_string_buffer(struct.pack("=QQ", 0, 0))
    vector = ctypes.create_string_buffer(struct.pack("=QIIQQQQIIII", ctypes.addressof(at), len(name), 0, ctypes.addressof(iov), 1, 0, 0, 0, 0, 0, 0))
    ctypes.set_errno(0)
    n = libc.sendmmsg(s.fileno(), vector, 1, 0)
    return n if n >= 0 else errno.errorcode[ctypes.get_errno()]
ways = ((1, lambda s, name: call(libc.connect, s, name)), (5, lambda s, name: call(libc.connect, s, name)), (2, lambda s, name: call(libc.connect, s, name)),
    (2, lambda s, name: sendto(s, name)), (2, lambda s, name: sendmsg(s, name)), (2, mmsg), (1, lambda s, name: sendto(s, name)), (1, lambda s, name: sendmsg(s, name)))
odd = bytes(range(0x80, 0x100))[:60] + b"\n \xff"
names = {"stream": 1, odd: 1, "datagram": 2, "sequenced": 5, "d/" + "n" * 105: 1, "d/" + "m" * 105: 2}
os.mkdir("d"); os.symlink("loop", "loop"); os.symlink("stream", "link"); os.symlink(odd, "oddlink"); open("file", "w").close(); os.mkfifo("fifo")
for name, kind in names.items():
    s = new(kind)
    s.bind(name)
    if kind != 2: s.listen(100)
gone = new(); gone.bind("gone"); gone.close()
deaf = new(); deaf.bind("deaf")
paths = [b"", b"\0", b"\0none", b"stream", b"stream\0", b"stream\0trailing", b"./stream", b"d/../stream", b"link", b"oddlink", odd, b"datagram", b"sequenced",
    b"d/" + b"n" * 105, b"d/" + b"n" * 106, b"d/" + b"m" * 105, b"d/" + b"n" * 104, b"none", b"none/x", b"file", b"file/x", b"stream/", b"fifo", b"d", b"d/", b".", b"loop", b"gone", b"deaf",
    b"/dev/null", b"/proc/nothing", os.getcwd().encode() + b"/stream"]
for path in paths:
    print(path[:20], *(f(new(kind), unix(path)) for kind, f in ways), flush=True)
for name, size in ((unix(b"stream"), 0), (unix(b"stream"), 1), (unix(b"stream"), 2), (unix(b"stream"), 3), (unix(b"stream"), 111), (unix(b"stream"), 0xffffffff), (None, 8), (ctypes.c_void_p(8), 8), (b"\2\0stream", None), (b"\0\0stream", None)):
    print(size, [call(libc.connect, new(kind), name, size) for kind in (1, 2)])
s = new(2)
print(call(libc.connect, s, unix(b"datagram")), call(libc.connect, s, unix(b"datagram")), call(libc.connect, s, b"\0\0"), call(libc.connect, s, unix(b"none")))
s = new(1)
print(call(libc.connect, s, unix(b"stream")), call(libc.connect, s, unix(b"stream")), outcome(s.getpeername))
os.chdir("d")
print([call(libc.connect, new(), unix(p)) for p in (b"stream", b"../stream", b"n" * 105)])
os.chdir("..")
if os.getuid():
    os.chmod("stream", 0)
    print(call(libc.connect, new(), unix(b"stream")))
`
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		argv := []string{python(t), "-c", script}
		outside := b.Run("", argv...)
		if outside.Code != 0 || strings.Count(outside.Stdout, "\n") < 40 {
			t.Fatalf("outside: exit %d\n%s%s", outside.Code, outside.Stdout, outside.Stderr)
		}
		for name, more := range map[string]string{
			"paths": `network: unix: "granted"`, "paths_and_addresses": `network: {unix: "granted", allow: ["127.0.0.1"]}`, "listed": fmt.Sprintf(`network: unix: [%q, "/dev", "/proc"]`, b.Work),
		} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				clear(t, b.Work)
				r := b.Run(b.Policy(b.Base(exectest.Grants{More: more})), argv...)
				inside, out := strings.Split(r.Stdout, "\n"), strings.Split(outside.Stdout, "\n")
				if r.Code != 0 || len(inside) != len(out) {
					t.Fatalf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
				}
				for i := range out {
					if inside[i] != out[i] {
						t.Errorf("inside:  %s\noutside: %s", inside[i], out[i])
					}
				}
			})
		}
	})
}
