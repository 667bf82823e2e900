package exec_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/exectest"
)

// nameServer is the host's name server of a test.
type nameServer struct {
	at    netip.AddrPort
	mu    sync.Mutex
	asked []string // "name TYPE"
}

func serveNames(t *testing.T, zone map[string][]string) *nameServer {
	t.Helper()
	s := &nameServer{}
	var udp net.PacketConn
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	for range 10 { // somebody may have the port for UDP
		if err != nil {
			t.Fatal(err)
		}
		s.at = tcp.Addr().(*net.TCPAddr).AddrPort()
		if udp, err = net.ListenPacket("udp4", s.at.String()); err == nil {
			break
		}
		tcp.Close()
		tcp, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if udp == nil {
		t.Fatal("no port is free for both TCP and UDP")
	}
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		name := strings.TrimSuffix(q.Question[0].Name, ".")
		s.mu.Lock()
		s.asked = append(s.asked, name+" "+dns.TypeToString[q.Question[0].Qtype])
		s.mu.Unlock()
		r := new(dns.Msg).SetReply(q)
		lines, ok := zone[name]
		if !ok {
			r.Rcode = dns.RcodeNameError
		}
		for _, line := range lines {
			if rr, err := dns.NewRR(line); err == nil && (rr.Header().Rrtype == q.Question[0].Qtype || rr.Header().Rrtype == dns.TypeCNAME) {
				r.Answer = append(r.Answer, rr)
			}
		}
		_ = w.WriteMsg(r)
	})
	for _, server := range []*dns.Server{{PacketConn: udp, Handler: answer}, {Listener: tcp, Handler: answer}} {
		go func() { _ = server.ActivateAndServe() }()
		t.Cleanup(func() { _ = server.Shutdown() })
	}
	return s
}

func (s *nameServer) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

var zone = map[string][]string{
	"a.example.test":       {"a.example.test. 60 IN A 127.0.0.1"},
	"both.example.test":    {"both.example.test. 60 IN A 127.0.0.1", "both.example.test. 60 IN AAAA ::1"},
	"alias.example.test":   {"alias.example.test. 60 IN CNAME cdn.other.test.", "cdn.other.test. 60 IN A 127.0.0.2"},
	"b.other.test":         {"b.other.test. 60 IN A 127.0.0.1"},
	"public.example.test":  {"public.example.test. 60 IN A 192.0.2.1"},
	"rebind.example.test":  {"rebind.example.test. 0 IN A 127.0.0.1"},
	"host-only.other.test": {"host-only.other.test. 60 IN A 127.0.0.1"},
	"seen.example.test":    {"seen.example.test. 60 IN A 127.0.0.1"},
}

// resolving returns a command in a sandbox whose names are resolved by s.
func resolving(t *testing.T, b *exectest.Box, s *nameServer, network string, name string, args ...string) *exec.Cmd {
	t.Helper()
	a := load(t, b, exectest.Grants{Read: []string{filepath.Dir(exectest.Lookup(t))}, More: "network: {resolver: true, " + network + "}"})
	c := a.Command(bounded(t), name, args...)
	c.Helper, c.Nameservers = exectest.Helper(t), []netip.AddrPort{s.at}
	c.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + b.Work, "LANG=C", "RES_OPTIONS=attempts:1"}
	return c
}

// preamble are the words that the scripts are written in. Any address on port 53 is a name server.
const preamble = `
import os, socket, struct, sys
def attempt(what, f):
    try: print(what, f(), flush=True)
    except socket.gaierror: print(what, "no such name", flush=True)
    except OSError as e: print(what, os.strerror(e.errno) if e.errno else e, flush=True)
def reach(host, port):
    with socket.create_connection((host, int(port)), timeout=10) as s: return "ok"
def query(labels, qtype):
    return struct.pack(">6H", 77, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(l)]) + l for l in labels) + b"\0" + struct.pack(">2H", qtype, 1)
def outcome(r):
    return "rcode %d answers %d" % (r[3] & 15, struct.unpack(">H", r[6:8])[0])
def udp(labels, qtype, server=("192.0.2.53", 53), family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        s.connect(server)
        s.send(query(labels, qtype))
        return outcome(s.recv(4096))
def tcp(labels, qtype, server=("192.0.2.53", 53)):
    with socket.create_connection(server, timeout=10) as s:
        q = query(labels, qtype)
        s.sendall(struct.pack(">H", len(q)) + q)
        n = struct.unpack(">H", s.recv(2, socket.MSG_WAITALL))[0]
        return outcome(s.recv(n, socket.MSG_WAITALL))
`

func Test_network_3_12_escape_43_45_resolver(t *testing.T) {
	py := python(t)
	exectest.Helper(t)
	exectest.Lookup(t)
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		l, other := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp4", "127.0.0.1:0")
		s := serveNames(t, zone)
		allow := fmt.Sprintf(`allow: ["*.example.test:%s", "tcp://fixed.test:%s"], hosts: "fixed.test": ["127.0.0.1"]`, port(l), port(other))
		script := preamble + `
P, Q = sys.argv[1:]
attempt("address that was not looked up:", lambda: reach("127.0.0.1", P))
attempt("fixed address:", lambda: reach("127.0.0.1", Q))
attempt("fixed name:", lambda: reach("fixed.test", Q))
attempt("allowed name:", lambda: reach("a.example.test", P))
attempt("its address:", lambda: reach("127.0.0.1", P))
attempt("name without a rule:", lambda: reach("b.other.test", P))
attempt("domain itself:", lambda: reach("example.test", P))
attempt("longer name:", lambda: reach("a.example.test.attacker.tld", P))
attempt("upper case and final dot:", lambda: reach("A.Example.TEST.", P))
attempt("IDN homograph:", lambda: reach("\u0430.ex\u0430mple.test", P))
attempt("missing:", lambda: reach("missing.example.test", P))
attempt("alias:", lambda: socket.gethostbyname("alias.example.test"))
attempt("address of another name:", lambda: reach("127.0.0.3", P))
A, TXT, HTTPS = 1, 16, 65
good = [b"seen", b"example", b"test"]
attempt("UDP:", lambda: udp(good, A))
attempt("UDP on IPv6:", lambda: udp(good, A, ("2001:db8::53", 53), socket.AF_INET6))
attempt("UDP on mapped IPv4:", lambda: udp(good, A, ("::ffff:192.0.2.53", 53), socket.AF_INET6))
attempt("TCP:", lambda: tcp(good, A))
attempt("TCP on IPv6:", lambda: tcp(good, A, ("2001:db8::53", 53)))
attempt("TXT:", lambda: udp(good, TXT))
attempt("HTTPS:", lambda: udp(good, HTTPS))
attempt("TXT elsewhere:", lambda: udp([b"secret", b"attacker", b"tld"], TXT))
attempt("dot in a label:", lambda: udp([b"a.example", b"test"], A))
for what, l in ("NUL", b"a\0"), ("space", b"a b"), ("at", b"a@b"), ("hash", b"a#b"), ("UTF-8", "\u00e4".encode()):
    attempt(what + ":", lambda: udp([l, b"example", b"test"], A))
def bound():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("0.0.0.0", 0))
        s.connect(("192.0.2.53", 53))
        s.send(query(good, A))
        s.settimeout(10)
        return outcome(s.recv(4096)), "peer on loopback:", s.getpeername()[0] == "127.0.0.1"
attempt("bound socket:", bound)
def unconnected(send):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        send(s, query(good, A), ("192.0.2.53", 53))
        r, peer = s.recvfrom(4096)
        return outcome(r), "from loopback:", peer[0] == "127.0.0.1"
attempt("sendto:", lambda: unconnected(lambda s, q, to: s.sendto(q, to)))
attempt("sendmsg:", lambda: unconnected(lambda s, q, to: s.sendmsg([q], [], 0, to)))
attempt("sendto another port:", lambda: unconnected(lambda s, q, to: s.sendto(q, ("192.0.2.53", 54))))
attempt("DNS over TLS:", lambda: reach("192.0.2.53", 853))
attempt("multicast DNS:", lambda: udp(good, A, ("224.0.0.251", 5353)))
`
		want := `address that was not looked up: Connection refused
fixed address: ok
fixed name: ok
allowed name: ok
its address: ok
name without a rule: no such name
domain itself: no such name
longer name: no such name
upper case and final dot: ok
IDN homograph: no such name
missing: no such name
alias: 127.0.0.2
address of another name: Connection refused
UDP: rcode 0 answers 1
UDP on IPv6: rcode 0 answers 1
UDP on mapped IPv4: rcode 0 answers 1
TCP: rcode 0 answers 1
TCP on IPv6: rcode 0 answers 1
TXT: rcode 0 answers 0
HTTPS: rcode 0 answers 0
TXT elsewhere: rcode 3 answers 0
dot in a label: rcode 3 answers 0
NUL: rcode 3 answers 0
space: rcode 3 answers 0
at: rcode 3 answers 0
hash: rcode 3 answers 0
UTF-8: rcode 3 answers 0
bound socket: ('rcode 0 answers 1', 'peer on loopback:', True)
sendto: ('rcode 0 answers 1', 'from loopback:', True)
sendmsg: ('rcode 0 answers 1', 'from loopback:', True)
sendto another port: Connection refused
DNS over TLS: Connection refused
multicast DNS: Connection refused
`
		wantOutput(t, resolving(t, b, s, allow, py, "-c", script, port(l), port(other)), want)
		for _, q := range s.questions() {
			name, qtype, _ := strings.Cut(q, " ")
			if !strings.HasSuffix(name, ".example.test") || name != strings.ToLower(name) || qtype != "A" && qtype != "AAAA" || strings.ContainsAny(name, `\ `) {
				t.Errorf("the host's name server was asked for %q", q)
			}
		}
		wantOutput(t, resolving(t, b, s, allow, exectest.Lookup(t), "both.example.test"), "127.0.0.1\n::1\n")
		if out, err := resolving(t, b, s, allow, exectest.Lookup(t), "b.other.test").Output(); err == nil {
			t.Errorf("Go resolves b.other.test: %q", out)
		}
		if left := helpersOf(os.Getpid()); len(left) > 0 {
			t.Errorf("helpers are left: %v", left)
		}
	})
}

func Test_network_resolver_node(t *testing.T) {
	node, err := osexec.LookPath("node")
	if err != nil {
		exectest.Lacks(t, err)
	}
	exectest.Helper(t)
	exectest.Lookup(t)
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		l := listen(t, "tcp4", "127.0.0.1:0")
		s := serveNames(t, zone)
		script := `
const show = (what, promise) => promise.then(v => console.log(what, v), e => console.log(what, e.code));
const dns = require("dns").promises, net = require("net");
const reach = host => new Promise((ok, no) => { const c = net.connect(+process.argv[1], host, () => { c.destroy(); ok("ok"); }); c.on("error", no); });
(async () => {
	await show("connect:", reach("a.example.test"));
	dns.setServers(["127.0.0.1"]); // c-ares takes answers from the address that it has asked alone
	await show("c-ares:", dns.resolve4("seen.example.test"));
	await show("other name:", dns.lookup("b.other.test"));
	await show("other name by c-ares:", dns.resolve4("b.other.test"));
})();`
		wantOutput(t, resolving(t, b, s, fmt.Sprintf(`allow: ["*.example.test:%s"]`, port(l)), node, "-e", script, port(l)),
			"connect: ok\nc-ares: [ '127.0.0.1' ]\nother name: ENOTFOUND\nother name by c-ares: ENOTFOUND\n")
	})
}

// A name of ours that leads to an address inside: with network.private it leads nowhere, whatever the answer's time is.
func Test_escape_44_rebinding(t *testing.T) {
	py := python(t)
	exectest.Helper(t)
	exectest.Lookup(t)
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		l := listen(t, "tcp4", "127.0.0.1:0")
		s := serveNames(t, zone)
		script := preamble + `
for _ in range(3): attempt("rebinding:", lambda: reach("rebind.example.test", sys.argv[1]))
attempt("its address:", lambda: reach("127.0.0.1", sys.argv[1]))
attempt("public:", lambda: socket.gethostbyname("public.example.test"))`
		wantOutput(t, resolving(t, b, s, `private: true, allow: ["*.example.test"]`, py, "-c", script, port(l)),
			strings.Repeat("rebinding: no such name\n", 3)+"its address: Connection refused\npublic: 192.0.2.1\n")
		if n := l.seen(t); n > 0 {
			t.Errorf("the listener outside saw %d connections", n)
		}
		wantOutput(t, resolving(t, b, s, `allow: ["*.example.test"]`, py, "-c", script, port(l)),
			strings.Repeat("rebinding: ok\n", 3)+"its address: ok\npublic: 192.0.2.1\n")
	})
}

// conversation is a script that waits for a line of ours where it says so.
type conversation struct {
	t  *testing.T
	c  *exec.Cmd
	in io.Writer
	r  *bufio.Reader
}

func converse(t *testing.T, c *exec.Cmd) *conversation {
	t.Helper()
	in, inside := pipe(t)
	out, outside := pipe(t)
	c.Stdin, c.Stdout, c.Stderr = in, outside, os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	outside.Close()
	t.Cleanup(func() { _ = c.Kill(); _ = c.Wait() })
	return &conversation{t, c, inside, bufio.NewReader(out)}
}

func (v *conversation) hear(want string) string {
	v.t.Helper()
	line, err := v.r.ReadString('\n')
	if line = strings.TrimSuffix(line, "\n"); err != nil || !strings.HasPrefix(line, want) {
		v.t.Fatalf("heard %q, %v; want %q", line, err, want)
	}
	return strings.TrimPrefix(line, want)
}

func (v *conversation) say() { fmt.Fprintln(v.in) }

// helpersOf returns the helpers that a process has started.
func helpersOf(parent int) (pids []int) {
	processes, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range processes {
		b, _ := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(b), " (sandlock-proxy) ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// The helper's ports are the sandbox's alone, and without the helper there are no names and no way around it.
func Test_network_resolver_helper(t *testing.T) {
	py := python(t)
	exectest.Helper(t)
	exectest.Lookup(t)
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		l := listen(t, "tcp4", "127.0.0.1:0")
		s := serveNames(t, zone)
		script := preamble + `
def peer(kind):
    with socket.socket(socket.AF_INET, kind) as s:
        s.connect(("192.0.2.53", 53))
        return s.getpeername()[1]
attempt("UDP port", lambda: peer(socket.SOCK_DGRAM))
attempt("TCP port", lambda: peer(socket.SOCK_STREAM))
sys.stdin.readline()
attempt("with the helper:", lambda: reach("a.example.test", sys.argv[1]))
sys.stdin.readline()
attempt("without:", lambda: reach("seen.example.test", sys.argv[1]))
attempt("UDP without:", lambda: udp([b"a"], 1))
attempt("TCP without:", lambda: tcp([b"a"], 1))
attempt("what was looked up:", lambda: reach("127.0.0.1", sys.argv[1]))
attempt("what was not:", lambda: reach("127.0.0.2", sys.argv[1]))
`
		c := resolving(t, b, s, fmt.Sprintf(`allow: ["*.example.test:%s", "host-only.other.test"]`, port(l)), py, "-c", script, port(l))
		// The C library sends two questions at a time, misses that the first was refused, and waits for an answer.
		c.Env[len(c.Env)-1] += " timeout:2"
		v := converse(t, c)
		udpPort, tcpPort := v.hear("UDP port "), v.hear("TCP port ")
		q, _ := new(dns.Msg).SetQuestion("host-only.other.test.", dns.TypeA).Pack()
		udp, err := net.Dial("udp4", "127.0.0.1:"+udpPort)
		if err != nil {
			t.Fatal(err)
		}
		defer udp.Close()
		if _, err := udp.Write(q); err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Dial("tcp4", "127.0.0.1:"+tcpPort)
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		_, _ = tcp.Write(append([]byte{0, byte(len(q))}, q...))
		if n, err := tcp.Read(make([]byte, 1)); err == nil {
			t.Errorf("the helper answers a process of the host by TCP: %d bytes", n)
		}
		v.say()
		v.hear("with the helper: ok") // it has read by now what came before
		_ = udp.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := udp.Read(make([]byte, 1)); err == nil {
			t.Errorf("the helper answers a process of the host by UDP: %d bytes", n)
		}
		if slices.ContainsFunc(s.questions(), func(q string) bool { return strings.HasPrefix(q, "host-only") }) {
			t.Errorf("the helper asked for what a process of the host wants to know: %q", s.questions())
		}

		helpers := helpersOf(os.Getpid())
		if len(helpers) != 1 || unix.Kill(helpers[0], unix.SIGKILL) != nil {
			t.Fatalf("the helpers of this process are %v, want one", helpers)
		}
		v.say()
		v.hear("without: no such name")
		v.hear("UDP without: Connection refused")
		v.hear("TCP without: Connection refused")
		v.hear("what was looked up: ok")
		v.hear("what was not: Connection refused")
		if err := v.c.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// The helper ends with its executor, however that ends.
func Test_network_resolver_ends(t *testing.T) {
	exectest.Helper(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(exectest.Grants{More: `network: {resolver: true, allow: ["*.example.test"]}`}))
		p := exectest.Start(t, b.Opts(policy, b.Probe, "sleep", "60"))
		var helpers []int
		exectest.Within(t, 10*time.Second, "the helper runs", func() bool {
			helpers = helpersOf(p.Cmd.Process.Pid)
			return len(helpers) == 1
		})
		p.Signal(t, unix.SIGKILL)
		exectest.Within(t, 10*time.Second, "the helper ends", func() bool {
			st, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", helpers[0]))
			return err != nil || strings.Contains(string(st), ") Z ")
		})
	})
}
