package exec_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// connectAll tries spellings of addresses, by streams and by datagrams, and prints what each comes to.
const connectAll = `
import errno, socket, sys
def attempt(kind, host, port):
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, 0, kind, 0, socket.AI_NUMERICHOST)[0]
    except socket.gaierror: return "no address"
    s = socket.socket(family, kind)
    s.settimeout(10)
    try:
        s.connect(address)
        return s.send(b"x") and "ok"
    except OSError as e: return errno.errorcode[e.errno]
for to in sys.argv[1:]:
    host, _, port = to.rpartition(" ")
    print(to.replace(" " + port, ":"), attempt(socket.SOCK_STREAM, host, int(port)), attempt(socket.SOCK_DGRAM, host, int(port)))
`

// However an address is written, what it means is what counts.
func Test_escape_40_spellings(t *testing.T) {
	py := python(t)
	allowed, forbidden := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp4", "127.0.0.1:0")
	forbidden6 := listen(t, "tcp6", "[::1]:0")
	udp := newSink(t, "udp4", forbidden.Addr().String())
	spellings := []string{"127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "0", "0.0.0.0", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:0.0.0.0"}
	elsewhere := []string{"169.254.169.254 80", "2852039166 80", "::ffff:169.254.169.254 80", "8.8.8.8 53", "1.1.1.1 443", "224.0.0.251 5353",
		"255.255.255.255 9", "64:ff9b::7f00:1 80", "64:ff9b::a9fe:a9fe 80", "2002:7f00:1:: 80", "::127.0.0.1 80", "fe80::1%1 80", "ff02::1%1 80", "fd00:ec2::254 80"}
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(allowNet(allowed.Addr().String())))
		args := []string{py, "-c", connectAll}
		var want []string
		add := func(host, port, tcp, udp string) {
			args = append(args, host+" "+port)
			want = append(want, host+": "+tcp+" "+udp)
		}
		for _, s := range spellings {
			add(s, port(allowed), "ok", "ok")
			add(s, port(forbidden), "ECONNREFUSED", "ECONNREFUSED")
		}
		for _, s := range []string{"::1", "::", "::1%1", "::%1"} {
			add(s, port(forbidden6), "ECONNREFUSED", "ECONNREFUSED")
		}
		local := args
		for _, s := range elsewhere {
			host, port, _ := strings.Cut(s, " ")
			add(host, port, "ECONNREFUSED", "ECONNREFUSED")
		}
		wantRun(t, b.Run(policy, args...), 0, strings.Join(want, "\n"))
		if n := forbidden.seen(t) + forbidden6.seen(t) + udp.seen(t); n > 0 {
			t.Errorf("%d connections and datagrams have arrived where none may", n)
		}
		r := b.Run("", local...)
		if n := forbidden.seen(t); n != len(spellings) {
			t.Errorf("outside, %d of %d spellings connect\n%s%s", n, len(spellings), r.Stdout, r.Stderr)
		}
		if n := forbidden6.seen(t); n < 2 {
			t.Errorf("outside, %d spellings of the loopback address connect\n%s", n, r.Stdout)
		}
		udp.seen(t)
		allowed.seen(t)
	})
}

// A rule that denies IPv4 addresses denies them as they are written in IPv6, and by way of a translator.
func Test_escape_40_denied_spellings(t *testing.T) {
	py := python(t)
	l, forbidden := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp4", "127.0.0.2:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(exectest.Grants{More: `network: deny: ["127.0.0.2", "10.0.0.0/8", "169.254.0.0/16", "fe80::/10", "::1"]`}))
		args := []string{py, "-c", connectAll}
		var want []string
		for _, s := range []string{"127.0.0.2", "127.2", "0x7f000002", "::ffff:127.0.0.2", "10.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:a00:1::", "::10.0.0.1",
			"169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1%1", "::1%1", "::1", "::"} {
			args = append(args, s+" "+port(forbidden))
			want = append(want, s+": ECONNREFUSED ECONNREFUSED")
		}
		args = append(args, "127.0.0.1 "+port(l), "::ffff:127.0.0.1 "+port(l))
		want = append(want, "127.0.0.1: ok ok", "::ffff:127.0.0.1: ok ok")
		wantRun(t, b.Run(policy, args...), 0, strings.Join(want, "\n"))
		if n := forbidden.seen(t); n > 0 {
			t.Errorf("%d connections have arrived where none may", n)
		}
	})
}

// A socket keeps to the rules whoever has it: connected again, disconnected, duplicated, in another process, with control
// messages.
func Test_escape_41_sockets(t *testing.T) {
	py := python(t)
	allowed, forbidden := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp4", "127.0.0.1:0")
	udp, forbiddenUDP := newSink(t, "udp4", "127.0.0.1:0"), newSink(t, "udp4", "127.0.0.1:0")
	script := sendPrelude + `
good, bad, ugood, ubad = (("127.0.0.1", int(p)) for p in sys.argv[1:])
def connect(s, family, to):
    ctypes.set_errno(0)
    n = libc.connect(s.fileno(), inet(family, *to), 16)
    return n if n >= 0 else errno.errorcode[ctypes.get_errno()]
u = socket.socket(type=socket.SOCK_DGRAM)
for to in ugood, ubad, ugood: print("again", connect(u, 2, to), end=" ")
print(u.getpeername() == ugood, u.send(b"x"))
print("unspecified", connect(u, 0, ubad), outcome(u.getpeername), outcome(lambda: u.send(b"x")), sendto(u, inet(0, *ubad)), sendto(u, inet(0, *ugood)))
s = socket.create_connection(good)
print("stream", connect(s, 0, bad), outcome(s.getpeername), connect(s, 2, bad), outcome(s.getpeername))
s, u = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
a, b = socket.socketpair()
sys.stdout.flush()
if os.fork() == 0:
    _, mine, _, _ = socket.recv_fds(b, 10, 2)
    t, v = socket.socket(fileno=mine[0]), socket.socket(fileno=mine[1])
    print("passed", connect(t, 2, bad), connect(v, 2, ubad), sendto(v, inet(2, *ubad)), connect(v, 2, ugood), flush=True)
    os._exit(0)
socket.send_fds(a, [b"x"], [s.fileno(), u.fileno()])
os.wait()
print("passed back", outcome(s.getpeername), u.getpeername() == ugood, u.send(b"x"))
u = socket.socket(type=socket.SOCK_DGRAM)
pktinfo = (socket.IPPROTO_IP, 8, struct.pack("=I", 0) + socket.inet_aton("127.0.0.1") + socket.inet_aton(bad[0]))
print("control", outcome(lambda: u.sendmsg([b"x"], [pktinfo], 0, ubad)), outcome(lambda: u.sendmsg([b"x"], [pktinfo], 0, ugood)))
`
	want := "again 0 again ECONNREFUSED again 0 True 1\n" +
		"unspecified 0 ENOTCONN EDESTADDRREQ ECONNREFUSED 1\n" +
		"stream 0 ENOTCONN ECONNREFUSED ENOTCONN\n" +
		"passed ECONNREFUSED ECONNREFUSED ECONNREFUSED 0\n" +
		"passed back ENOTCONN True 1\n" +
		"control ECONNREFUSED 1"
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(allowNet("tcp://"+allowed.Addr().String(), "udp://"+udp.LocalAddr().String())))
		args := []string{py, "-c", script, port(allowed), port(forbidden), fmt.Sprint(udp.port()), fmt.Sprint(forbiddenUDP.port())}
		wantRun(t, b.Run(policy, args...), 0, want)
		if n := udp.seen(t); n != 4 {
			t.Errorf("%d datagrams have arrived where they may, want 4", n)
		}
		if n := forbidden.seen(t) + forbiddenUDP.seen(t); n > 0 {
			t.Errorf("%d connections and datagrams have arrived where none may", n)
		}
		b.Run("", args...)
		if n, m := forbidden.seen(t), forbiddenUDP.seen(t); n == 0 || m == 0 {
			t.Errorf("outside, %d connections and %d datagrams have arrived", n, m)
		}
		udp.seen(t)
	})
}

// A server that is reached by its socket learns which user it is, but not which process: the executor connects.
func Test_network_unix_credentials(t *testing.T) {
	py := python(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		peers := make(chan *unix.Ucred, 1)
		serveUnix(t, b.Work+"/s", func(conn *net.UnixConn) {
			defer conn.Close()
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Error(err)
				return
			}
			_ = raw.Control(func(fd uintptr) {
				cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
				if err != nil {
					t.Error(err)
				}
				peers <- cred
			})
		})
		policy := b.Policy(b.Base(exectest.Grants{More: `network: unix: "granted"`}))
		o := b.Opts(policy, py, "-c", `import socket; s = socket.socket(socket.AF_UNIX); s.connect("s"); s.recv(1)`)
		p := exectest.Start(t, o)
		var cred *unix.Ucred
		select {
		case cred = <-peers:
		case <-time.After(20 * time.Second):
			t.Fatalf("nobody has connected: %+v", p.Wait(t))
		}
		if int(cred.Uid) != u.UID || int(cred.Gid) != u.GID || int(cred.Pid) != p.Cmd.Process.Pid {
			t.Errorf("the peer is %+v, want the user %v and the executor's process %d", cred, u, p.Cmd.Process.Pid)
		}
		wantRun(t, p.Wait(t), 0, "")
	})
}

// 64 threads that connect, send and bind keep no other process from doing so.
func Test_escape_36_network_floods(t *testing.T) {
	udp, forbidden := newSink(t, "udp4", "127.0.0.1:0"), newSink(t, "udp4", "127.0.0.1:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		allow := fmt.Sprintf(`network: {allow: ["udp://%s"], deny_bind: [1], port_remap: true}`, udp.LocalAddr())
		policy := b.Policy(b.Base(exectest.Grants{More: allow}))
		for _, tc := range []struct{ call, to, answer string }{
			{"connect", udp.LocalAddr().String(), "ok"},
			{"connect", forbidden.LocalAddr().String(), "errno ECONNREFUSED"},
			{"sendto", udp.LocalAddr().String(), "ok"},
			{"sendto", forbidden.LocalAddr().String(), "errno ECONNREFUSED"},
			{"bind", "127.0.0.1:0", "ok"},
		} {
			t.Run(tc.call+"_"+tc.answer, func(t *testing.T) {
				b := b.In(t)
				clear(t, b.Work)
				script := strings.NewReplacer("$PROBE", b.Probe, "$CALL", tc.call, "$TO", tc.to, "$UDP", udp.LocalAddr().String()).Replace(`
$PROBE after ready datagram-loop 20 $UDP > progress & victim=$!
$PROBE hammer 64 $CALL $TO ready stop > hammered &
wait $victim
echo > stop
wait
cat hammered progress`)
				r := b.Sh(policy, script)
				if r.Code != 0 || !strings.HasPrefix(r.Stdout, "value "+tc.answer+"\nvalue ") || strings.Contains(r.Stdout, "\nerrno") {
					t.Errorf("exit %d, printed %q, want %q and a finished loop\n%s", r.Code, r.Stdout, tc.answer, r.Stderr)
				}
			})
		}
		if n := forbidden.seen(t); n > 0 {
			t.Errorf("%d datagrams have arrived where none may", n)
		}
		udp.seen(t)
	})
}
