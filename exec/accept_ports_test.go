package exec_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/exectest"
)

func Test_network_6_15_deny_bind(t *testing.T) {
	denied, free := freePort(t), freePort(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf(`network: {allow: ["udp://*"], deny_bind: [%s]}`, denied)}))
		checkAllowed(t, b, policy, []allowed{
			{"denied", []string{"bind", "127.0.0.1:" + denied, stream, "0"}, refusedByNet},
			{"denied_any", []string{"bind", "0.0.0.0:" + denied, stream, "0"}, refusedByNet},
			{"denied_ipv6", []string{"bind", "[::1]:" + denied, stream, "0"}, refusedByNet},
			{"denied_mapped", []string{"bind", "[::ffff:127.0.0.1]:" + denied, stream, "0"}, refusedByNet},
			{"network_3_8_denied_unspec", []string{"bind-unspec", denied}, refusedByNet},
			{"other", []string{"bind", "127.0.0.1:" + free, stream, "0"}, "ok"},
			{"other_unspec", []string{"bind-unspec", free}, "ok"},
			{"other_listen", []string{"bind-listen", "127.0.0.1:" + free}, "ok"},
			{"denied_udp", []string{"bind", "127.0.0.1:" + denied, datagram, "0"}, "ok"},
			{"ephemeral", []string{"bind", "127.0.0.1:0", stream, "0"}, "ok"},
			{"ephemeral_udp", []string{"bind", "127.0.0.1:0", datagram, "0"}, "ok"},
			{"ephemeral_listen", []string{"bind-listen", "[::1]:0"}, "ok"},
			{"listen_unbound", []string{"listen-unbound"}, "ok"},
			{"not_of_the_host", []string{"bind", "203.0.113.1:" + free, stream, "0"}, "errno EADDRNOTAVAIL"},
		})
		t.Run("names_the_rule", func(t *testing.T) {
			o := b.In(t).Opts(policy, b.Probe, "bind", "127.0.0.1:"+denied, stream, "0")
			o.Flags = []string{"--audit", "-"}
			want := `"address":"tcp 127.0.0.1:` + denied + `","verdict":"EACCES"`
			if r := exectest.Run(t, o); !strings.Contains(r.Stderr, want) || !strings.Contains(r.Stderr, `"rule":"network.deny_bind"`) {
				t.Errorf("audit: %s\nwant %s and the rule", r.Stderr, want)
			}
		})
		none := b.Policy(b.Base(exectest.Grants{More: `network: deny_bind: ["1024-65535"]`}))
		checkAllowed(t, b, none, []allowed{
			{"no_ephemeral_is_left", []string{"bind", "127.0.0.1:0", stream, "0"}, "errno EADDRINUSE"},
			{"no_ephemeral_is_left_to_listen", []string{"listen-unbound"}, "errno EADDRINUSE"},
		})
	})
}

// Neither an address nor a descriptor that another thread changes gets a socket a port that may not be bound.
func Test_network_3_11_bind_races(t *testing.T) {
	t.Parallel()
	denied := neverEphemeral(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for name, more := range map[string]string{
			"deny_bind":  fmt.Sprintf(`network: {allow: ["udp://*"], deny_bind: [%s], unix: "granted"}`, denied),
			"port_remap": `network: {allow: ["udp://*"], allow_bind: [0], port_remap: true}`,
		} {
			policy := b.Policy(b.Base(exectest.Grants{More: more}))
			for _, race := range []string{"bind-address-race", "bind-descriptor-race"} {
				if name == "port_remap" && race == "bind-descriptor-race" {
					continue // the same code
				}
				t.Run(name+"/"+race, func(t *testing.T) {
					b := b.In(t)
					if got := b.Attempt(policy, race, denied, raced(u, 100000)); got != "value leaks=none bound=some" {
						t.Errorf("inside: %s", got)
					}
					if name == "deny_bind" {
						if got := b.Control(race, denied, "20000"); got != "value leaks=some bound=some" {
							t.Errorf("outside: %s", got)
						}
					}
				})
			}
		}
	})
}

// neverEphemeral is a free port that the kernel does not pick by itself.
func neverEphemeral(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Skip(err)
	}
	var lo, hi int
	if _, err := fmt.Sscan(string(text), &lo, &hi); err != nil {
		t.Fatal(err)
	}
	for port := 1024 + os.Getpid()%1000; port < lo; port++ {
		l, err := net.Listen("tcp4", "0.0.0.0:"+strconv.Itoa(port))
		if err == nil {
			l.Close()
			return strconv.Itoa(port)
		}
	}
	t.Skip("the kernel picks any port")
	return ""
}

func Test_network_6_17_47_bind_beside_destinations(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	free, other := freePort(t), freePort(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		destination := `"127.0.0.1:` + other + `"`
		for name, more := range map[string]string{
			"network_6_17": fmt.Sprintf(`network: {allow: [%s], allow_bind: ["*"]}`, destination),
			"listed":       fmt.Sprintf(`network: {allow: [%s], allow_bind: [%s]}`, destination, free),
			"remapped":     fmt.Sprintf(`network: {allow: [%s], allow_bind: [%s], port_remap: true}`, destination, free),
		} {
			checkAllowed(t, b, b.Policy(b.Base(exectest.Grants{More: more})), []allowed{
				{name + "/bind", []string{"bind", "127.0.0.1:" + free, stream, "0"}, "ok"},
				{name + "/connect", []string{"connect", l.Addr().String(), stream, "0"}, "errno ECONNREFUSED"},
			})
		}
		for _, remap := range []string{"false", "true"} {
			more := fmt.Sprintf(`network: {allow: [%s], allow_bind: [%s], port_remap: %s}`, destination, other, remap)
			checkAllowed(t, b, b.Policy(b.Base(exectest.Grants{More: more})), []allowed{
				{"network_6_47/" + remap, []string{"bind", "127.0.0.1:" + free, stream, "0"}, refusedByNet},
				{"network_6_47_unspec/" + remap, []string{"bind-unspec", free}, refusedByNet},
				{"network_6_47_ephemeral/" + remap, []string{"bind", "127.0.0.1:0", stream, "0"}, refusedByNet},
				{"network_3_11_5_listen_unbound/" + remap, []string{"listen-unbound"}, "errno EACCES"},
			})
		}
		ephemeral := b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf(`network: {allow: [%s], allow_bind: [0], port_remap: true}`, destination)}))
		checkAllowed(t, b, ephemeral, []allowed{
			{"network_6_38", []string{"bind-listen", "127.0.0.1:0"}, "ok"},
			{"network_6_38_listen_unbound", []string{"listen-unbound"}, "ok"},
		})
	})
}

// Sockets that are files, made by the supervisor, are made as the command would.
func Test_bound_unix_sockets(t *testing.T) {
	t.Parallel()
	py := python(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(exectest.Grants{Read: []string{b.Outside}, More: `network: {deny_bind: [1], unix: "granted"}`}))
		script := `
import errno, os, socket, stat, sys
outside = sys.argv[1]
def bind(path, kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_UNIX, kind)
    try:
        s.bind(path)
        return s.getsockname()
    except OSError as e:
        return errno.errorcode[e.errno]
    finally:
        s.close()
def mode(path): return oct(os.lstat(path).st_mode)
os.umask(0o027)
print(bind("relative"), mode("relative"))
os.umask(0)
print(bind("./open", socket.SOCK_DGRAM) , mode("open"))
os.mkdir("d"); os.chdir("d")
print(bind("../up") == "../up", mode("../up"))
os.chdir("..")
print(bind(os.getcwd() + "/absolute") == os.getcwd() + "/absolute", bind("relative"))
os.symlink(outside, "away"); os.symlink(outside + "/new", "dangling")
print(bind(outside + "/s"), bind("away/s"), bind("dangling"), bind("missing/s"), bind("d/."), bind("d/x/"))
fd = os.open("d", os.O_RDONLY)
print(bind("/proc/self/fd/%d/short" % fd), os.path.exists("d/short"), bind("/proc/self/cwd/cwd"), os.path.exists("cwd"))
long = "d/" + "n" * 105
print(bind(long) == long, os.path.exists(long), bind(b"\0abstract") == b"\0abstract")
s = socket.socket(socket.AF_UNIX); s.bind("served"); s.listen()
os.chmod("served", 0o700)
print(os.listdir(outside), stat.S_ISSOCK(os.lstat("served").st_mode), os.getcwd() == os.environ["HOME"])
`
		wantRun(t, b.Run(policy, py, "-c", script, b.Outside), 0, strings.Join([]string{
			"relative 0o140750", "./open 0o140777", "True 0o140777", "True EADDRINUSE",
			"EACCES EACCES EADDRINUSE ENOENT EADDRINUSE ENOENT", "short True cwd True", "True True True", "[] True True",
		}, "\n"))
	})
}

// virtualScript serves TCP and UDP on a port, as several programs would.
const virtualScript = `
import errno, os, socket, sys
port = int(sys.argv[1])
def attempt(f):
    try: return f()
    except OSError as e: return errno.errorcode[e.errno]
def bound(address=("127.0.0.1", port), kind=socket.SOCK_STREAM, family=socket.AF_INET, *options):
    s = socket.socket(family, kind)
    for o in options: s.setsockopt(socket.SOL_SOCKET, o, 1)
    s.bind(address)
    return s
server = bound(("127.0.0.1", port), socket.SOCK_STREAM, socket.AF_INET, socket.SO_REUSEADDR)
server.listen()
print("name", server.getsockname()[1] == port)
print("again", attempt(bound), attempt(lambda: bound(("", port))), attempt(lambda: bound(("::", port), socket.SOCK_STREAM, socket.AF_INET6)),
    attempt(lambda: bound(("127.0.0.1", port), socket.SOCK_STREAM, socket.AF_INET, socket.SO_REUSEADDR)))
def echo(address, family=socket.AF_INET):
    client = socket.socket(family)
    client.connect(address)
    conn, peer = server.accept()
    client.sendall(b"hello")
    return (conn.recv(5), client.getpeername()[1] == port, conn.getsockname()[1] == port, peer[1] == client.getsockname()[1] == conn.getpeername()[1])
print("echo", echo(("127.0.0.1", port)), echo(("0.0.0.0", port)), echo(("::ffff:127.0.0.1", port), socket.AF_INET6))
dup = server.dup()
server.close()
server = dup
pid = os.fork()
if pid == 0:
    print("child", server.getsockname()[1] == port, attempt(bound), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
r, w = os.pipe()
if os.fork() == 0:
    os.read(r, 1) # keeps its copy
    os._exit(0)
os.close(r)
server.close()
print("kept by a child", attempt(bound))
os.write(w, b"x"); os.wait()
server = bound(); server.listen()
print("closed", server.getsockname()[1] == port, echo(("127.0.0.1", port))[0])
server.shutdown(socket.SHUT_RDWR)
print("shut down", attempt(lambda: socket.create_connection(("127.0.0.1", port))))
u = bound(("127.0.0.1", port), socket.SOCK_DGRAM)
print("udp", u.getsockname()[1] == port, attempt(lambda: bound(("", port), socket.SOCK_DGRAM)))
c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); c.connect(("127.0.0.1", port)); c.send(b"ping")
data, peer = u.recvfrom(10)
u.connect(peer); u.send(data[::-1])
print("udp echo", data, peer[1] == c.getsockname()[1], c.recv(10), c.getpeername()[1] == port)
try: socket.socket().getsockname()[1] == 0 and print("unbound")
except OSError as e: print(e)
`

const virtualOutput = `name True
again EADDRINUSE EADDRINUSE EADDRINUSE EADDRINUSE
echo (b'hello', True, True, True) (b'hello', True, True, True) (b'hello', True, True, True)
child True EADDRINUSE
kept by a child EADDRINUSE
closed True b'hello'
shut down ECONNREFUSED
udp True EADDRINUSE
udp echo b'ping' True b'gnip' True
unbound
`

// remapped is a policy with a virtual port.
func remapped(t *testing.T, b *exectest.Box, port string) *exec.Artifact {
	return load(t, b, exectest.Grants{More: fmt.Sprintf(
		`network: {allow: ["127.0.0.1"], allow_bind: [%s], port_remap: true}`, port)})
}

// occupied is a port of the host that is taken for TCP and UDP, by sockets that let others share it where they can.
func occupied(t *testing.T) (port string, tcp net.Listener, udp net.PacketConn) {
	t.Helper()
	share := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	}}
	for range 20 {
		tcp, err := share.Listen(t.Context(), "tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(tcp.Addr().String())
		if udp, err = share.ListenPacket(t.Context(), "udp4", "127.0.0.1:"+port); err == nil {
			t.Cleanup(func() { tcp.Close(); udp.Close() })
			return port, tcp, udp
		}
		tcp.Close()
	}
	t.Fatal("no port is free for both TCP and UDP")
	return "", nil, nil
}

func Test_network_6_45_46_47_virtual_ports(t *testing.T) {
	py := python(t)
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		taken, _, _ := occupied(t)
		for name, port := range map[string]string{"network_6_45_free": freePort(t), "network_6_46_taken": taken} {
			t.Run(name, func(t *testing.T) {
				var mu sync.Mutex
				var seen []exec.Port
				c := remapped(t, b, port).Command(bounded(t), py, "-c", virtualScript, port)
				if err := c.OnBind(func(p exec.Port) { mu.Lock(); seen = append(seen, p); mu.Unlock() }); err != nil {
					t.Fatal(err)
				}
				wantOutput(t, c, virtualOutput)
				if len(seen) != 3 {
					t.Fatalf("bound: %v, want 3", seen)
				}
				for _, p := range seen {
					if got := strconv.Itoa(int(p.Virtual)); got != port || (p.Real == p.Virtual) != (port != taken) || p.Address.String() != "127.0.0.1" {
						t.Errorf("bound %+v, want port %s", p, port)
					}
				}
			})
		}
		t.Run("without_port_remap", func(t *testing.T) {
			if err := load(t, b, exectest.Grants{}).Command(bounded(t), "/bin/true").OnBind(func(exec.Port) {}); err == nil {
				t.Error("OnBind was accepted")
			}
		})
	})
}

// serveScript serves its name on a port, waits until it is told to, and asks whoever it finds there.
const serveScript = `
import socket, sys, threading
port, name = int(sys.argv[1]), sys.argv[2]
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind(("127.0.0.1", port)); server.listen()
def serve():
    while True: server.accept()[0].sendall(name.encode())
threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
print(*{socket.create_connection(("127.0.0.1", port)).recv(10).decode() for _ in range(20)})
`

// Escape 50: no sandbox gets what is meant for another, or for the host, though all share the port (SO_REUSEPORT) and the
// user.
func Test_network_6_46_escape_50_same_port(t *testing.T) {
	py := python(t)
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		t.Run("free", func(t *testing.T) {
			port := freePort(t)
			first, second := serving(t, b, py, port)
			first("first\n")
			second("second\n")
		})
		t.Run("taken", func(t *testing.T) {
			port, host, _ := occupied(t)
			first, second := serving(t, b, py, port)
			if err := host.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				conn, err := net.Dial("tcp", "127.0.0.1:"+port)
				if err != nil {
					t.Fatal(err)
				}
				got, err := host.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if got.RemoteAddr().String() != conn.LocalAddr().String() {
					t.Errorf("the host's server was reached from %s, not from %s", got.RemoteAddr(), conn.LocalAddr())
				}
				got.Close()
				conn.Close()
			}
			first("first\n")
			second("second\n")
		})
	})
}

// joinScript gets a port at an address that nobody has, and asks for more with that.
const joinScript = `
import errno, socket, sys
port, kept = int(sys.argv[1]), []
def bind(kind, option, *addresses):
    for address in addresses:
        s = socket.socket(socket.AF_INET, kind)
        s.setsockopt(socket.SOL_SOCKET, option, 1)
        try: s.bind((address, port))
        except OSError as e: print(address, errno.errorcode[e.errno])
        else:
            kept.append(s)
            print(address, "bound")
            if kind == socket.SOCK_STREAM: s.listen()
bind(socket.SOCK_STREAM, socket.SO_REUSEPORT, "127.0.0.2", "0.0.0.0", "127.0.0.2", "127.0.0.1")
bind(socket.SOCK_DGRAM, socket.SO_REUSEPORT, "127.0.0.2", "0.0.0.0", "127.0.0.2", "127.0.0.1")
`

// A port that the sandbox has at another address is no way to that of the host.
func Test_network_6_46_escape_50_another_address(t *testing.T) {
	py := python(t)
	exectest.InProcess(t, func(t *testing.T, b *exectest.Box) {
		port, _, _ := occupied(t)
		var mu sync.Mutex
		var shared []exec.Port
		c := remapped(t, b, port).Command(bounded(t), py, "-c", joinScript, port)
		if err := c.OnBind(func(p exec.Port) {
			mu.Lock()
			defer mu.Unlock()
			if p.Virtual == p.Real && p.Address.String() != "127.0.0.2" {
				shared = append(shared, p)
			}
		}); err != nil {
			t.Fatal(err)
		}
		wantOutput(t, c, strings.Repeat("127.0.0.2 bound\n0.0.0.0 EADDRINUSE\n127.0.0.2 bound\n127.0.0.1 bound\n", 2))
		if len(shared) > 0 {
			t.Errorf("joined the host: %+v", shared)
		}
	})
}

// serving starts two sandboxes that serve a port. The functions have each ask whom it finds there.
func serving(t *testing.T, b *exectest.Box, py, port string) (first, second func(want string)) {
	a := remapped(t, b, port)
	start := func(name string) func(string) {
		c := a.Command(bounded(t), py, "-c", serveScript, port, name)
		in, begin := pipe(t)
		out, inside := pipe(t)
		c.Stdin, c.Stdout, c.Stderr = in, inside, os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		inside.Close()
		lines := bufio.NewReader(out)
		if line, err := lines.ReadString('\n'); line != "ready\n" {
			t.Fatalf("%s: %q %v", name, line, err)
		}
		return func(want string) {
			t.Helper()
			begin.Close()
			if got, _ := lines.ReadString('\n'); got != want {
				t.Errorf("sandbox %s reached %q, want its own server", name, got)
			}
			if err := c.Wait(); err != nil {
				t.Errorf("sandbox %s: %v", name, err)
			}
		}
	}
	return start("first"), start("second")
}

// Escape 50: SO_REUSEPORT shares no port that the policy does not allow to be served, and who comes from outside is served
// where it does.
func Test_escape_50_ports_of_the_host(t *testing.T) {
	py := python(t)
	script := `
import errno, socket, sys
def serve(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try: s.bind(("127.0.0.1", port))
    except OSError as e: return errno.errorcode[e.errno]
    s.listen()
    return s
print(serve(int(sys.argv[1])), serve(0))
s = serve(int(sys.argv[2]))
open("ready", "w").close()
conn, peer = s.accept()
print(conn.recv(10).decode())`
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		taken, _, _ := occupied(t)
		for name, more := range map[string]string{
			"landlock": `network: allow_bind: [%s]`, "supervisor": `network: {allow: ["127.0.0.2:9"], allow_bind: [%s]}`, "remapped": `network: {allow: ["127.0.0.2:9"], allow_bind: [%s], port_remap: true}`,
		} {
			t.Run(name, func(t *testing.T) {
				clear(t, b.Work)
				free := freePort(t)
				b := b.In(t)
				p := exectest.Start(t, b.Opts(b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf(more, free)})), py, "-c", script, taken, free))
				exectest.Within(t, 20*time.Second, "the server listens", func() bool { _, err := os.Stat(b.Work + "/ready"); return err == nil })
				conn, err := net.Dial("tcp", "127.0.0.1:"+free)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				fmt.Fprint(conn, "outside")
				wantRun(t, p.Wait(t), 0, "EACCES EACCES\noutside")
			})
		}
	})
}

// Landlock's TCP ports hold where the supervisor connects only for virtual ports.
func Test_network_virtual_ports_keep_landlock(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	other := listen(t, "tcp4", "127.0.0.1:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf(`network: {allow: ["tcp://:%s"], allow_bind: [0], port_remap: true}`, port(l))}))
		if got := b.Attempt(policy, "connect", l.Addr().String(), stream, "0"); got != "ok" {
			t.Errorf("allowed port: %s", got)
		}
		if got := b.Attempt(policy, "connect", other.Addr().String(), stream, "0"); !slices.Contains([]string{"errno EACCES", "errno ECONNREFUSED"}, got) {
			t.Errorf("other port: %s", got)
		}
		if got := b.Control("connect", other.Addr().String(), stream, "0"); got != "ok" {
			t.Errorf("control: %s", got)
		}
	})
}

// What is shown of a running sandbox is what it has bound and not closed yet, to its user and to root.
func Test_ports_command(t *testing.T) {
	py := python(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		port, _, _ := occupied(t)
		policy := b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf("name: \"shown\"\nnetwork: {allow: [\"udp://127.0.0.1\"], allow_bind: [%s], port_remap: true}", port)}))
		script := `
import os, socket, sys, time
s = socket.socket(); s.bind(("127.0.0.1", int(sys.argv[1])))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("0.0.0.0", int(sys.argv[1])))
closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); closed.bind(("127.0.0.1", 0)); closed.close()
open("ready", "w").close()
while os.path.exists("ready"): time.sleep(0.01)
`
		done := make(chan exectest.Result, 1)
		go func() { done <- b.Run(policy, py, "-c", script, port) }()
		exectest.Within(t, 20*time.Second, "both ports bound", func() bool { _, err := os.Stat(b.Work + "/ready"); return err == nil })
		for _, asker := range []exectest.User{u, exectest.Self()} {
			r := exectest.Run(t, exectest.Opts{User: asker, Args: []string{exectest.Executor(t), "ports"}})
			var shown []string
			for line := range strings.Lines(r.Stdout) {
				if strings.Contains(line, "127.0.0.1:"+port+"→") || strings.Contains(line, "0.0.0.0:"+port+"→") {
					_, rest, _ := strings.Cut(line, " ")
					shown = append(shown, rest[:strings.Index(rest, "→")])
				}
			}
			if want := []string{`"shown" tcp 127.0.0.1:` + port, `"shown" udp 0.0.0.0:` + port}; r.Code != 0 || !slices.Equal(shown, want) {
				t.Errorf("to uid %d: %q of %q (%s), want %q", asker.UID, shown, r.Stdout, r.Stderr, want)
			}
		}
		if u.Root() {
			r := exectest.Run(t, exectest.Opts{User: exectest.User{UID: exectest.Nobody, GID: exectest.Nobody}, Args: []string{exectest.Executor(t), "ports"}})
			if r.Code != 0 || strings.Contains(r.Stdout, `"shown"`) {
				t.Errorf("to another user: %q (%s)", r.Stdout, r.Stderr)
			}
		}
		if err := os.Remove(b.Work + "/ready"); err != nil {
			t.Fatal(err)
		}
		wantRun(t, <-done, 0, "")
	})
}

// A rule about bind decides before Landlock does, and about what is bound only.
func Test_rules_bind(t *testing.T) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		free, other, third := freePort(t), freePort(t), freePort(t)
		policy := b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf(`
network: {allow: ["udp://*"], allow_bind: [%s, %s]}
rules: [{on: ["bind"], if: port: %[2]s, then: "deny"}, {on: ["network"], if: {protocol: "udp", port: %[3]s}, then: {errno: "EADDRINUSE"}}]`, free, other, third)}))
		checkAllowed(t, b, policy, []allowed{
			{"let_through", []string{"bind", "127.0.0.1:" + free, stream, "0"}, "ok"},
			{"denied", []string{"bind", "127.0.0.1:" + other, stream, "0"}, "errno EPERM"},
			{"not_granted", []string{"bind", "127.0.0.1:" + third, stream, "0"}, refusedByNet},
			{"datagram", []string{"bind", "127.0.0.1:" + third, datagram, "0"}, "errno EADDRINUSE"},
			{"other_datagram", []string{"bind", "127.0.0.1:" + other, datagram, "0"}, "errno EPERM"},
			{"network", []string{"connect", "127.0.0.1:" + third, datagram, "0"}, "errno EADDRINUSE"},
			{"network_other", []string{"connect", "127.0.0.1:" + free, datagram, "0"}, "ok"},
			{"interfaces", []string{"interfaces"}, onlyLoopback},
		})
	})
}
