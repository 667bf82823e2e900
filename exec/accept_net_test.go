package exec_test

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

const (
	stream       = "1"
	datagram     = "2"
	tcp          = "6"
	mptcp        = "262"
	fastOpen     = "0x20000000" // MSG_FASTOPEN: sendto connects
	refusedByNet = "errno EACCES"
)

// listener counts the connections that reach a TCP port of the host.
type listener struct {
	net.Listener
	accepted atomic.Int32
	last     atomic.Value // string: who was accepted last
}

// seen returns how many connections have come since the last time. Connections are accepted in their order, so once one
// of its own is accepted, all that came before are counted.
func (l *listener) seen(t *testing.T) int {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	exectest.Within(t, 20*time.Second, "an own connection accepted", func() bool { return l.last.Load() == conn.LocalAddr().String() })
	return int(l.accepted.Swap(0)) - 1
}

func listen(t *testing.T, network, address string) *listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	t.Cleanup(func() { l.Close() })
	counting := &listener{Listener: l}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			counting.accepted.Add(1)
			counting.last.Store(conn.RemoteAddr().String())
			conn.Close()
		}
	}()
	return counting
}

func port(l net.Listener) string {
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// freePort is a port that nothing listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return port(l)
}

// netSuite makes attempts against a listener of the host; none may reach it.
func netSuite(t *testing.T, more string, attempts []attempt) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	inside := true
	suite{
		grants: func(*exectest.Box) exectest.Grants { return exectest.Grants{More: more} },
		setup: func(t *testing.T, _ *exectest.Box) []string {
			// Called before the attempt inside, and again before the control: nothing may have come in between.
			if seen := l.seen(t); !inside && seen > 0 {
				t.Errorf("the listener outside saw %d connections from inside", seen)
			}
			inside = !inside
			return []string{"$LISTENER", l.Addr().String(), "$FREE", "127.0.0.1:" + freePort(t)}
		},
		attempts: attempts,
		alone:    true,
	}.run(t)
}

func Test_network_3_11_under_deny_all(t *testing.T) {
	noProtocol := []string{"errno EPROTONOSUPPORT", "errno EPERM", "errno EACCES"}
	noFastOpen := []string{"errno EOPNOTSUPP", "errno EPERM", "errno EACCES"}
	netSuite(t, "", []attempt{
		{"network_6_18_connect", []string{"connect", "$LISTENER", stream, "0"}, eacces, works},
		{"network_6_18_connect_tcp", []string{"connect", "$LISTENER", stream, tcp}, eacces, works},
		{"network_6_18_connect_mapped", []string{"connect", "[::ffff:127.0.0.1]:9", stream, "0"}, eacces, notRefused},
		{"network_6_16_bind", []string{"bind", "$FREE", stream, "0"}, eacces, works},
		{"network_6_16_bind_ephemeral", []string{"bind", "127.0.0.1:0", stream, "0"}, eacces, works},
		{"network_3_11_1_mptcp_connect", []string{"connect", "$LISTENER", stream, mptcp}, noProtocol, works},
		{"network_3_11_1_mptcp_bind", []string{"bind", "$FREE", stream, mptcp}, noProtocol, works},
		{"network_3_11_1_mptcp_high_bits", []string{"call", "socket", "0x100000002", "0x100000001", "0x100000106"}, noProtocol, works},
		{"network_3_11_1_mptcp_ipv6", []string{"socket", "10", stream, mptcp}, noProtocol, works},
		{"network_3_11_1_sctp", []string{"socket", "2", stream, "132"}, noProtocol, notRefused},
		{"network_3_11_1_dccp", []string{"socket", "2", "6", "33"}, append(noProtocol, "errno ESOCKTNOSUPPORT"), notRefused},
		{"network_3_11_1_seqpacket_sctp", []string{"socket", "2", "5", "132"}, append(noProtocol, "errno ESOCKTNOSUPPORT"), notRefused},
		{"network_3_11_1_udplite", []string{"socket", "2", datagram, "136"}, noProtocol, notRefused},
		{"network_3_11_2_fastopen_sendto", []string{"send", "$LISTENER", stream, "0", fastOpen}, noFastOpen, works},
		{"network_3_11_2_fastopen_sendto_high_bits", []string{"call", "sendto", "-1", "b:1", "1", "0x120000000", "b:16", "16"},
			append(noFastOpen, "errno EBADF"), harmful},
		{"network_3_11_2_fastopen_sendmsg", []string{"sendmsg", "$LISTENER", stream, "0", fastOpen}, noFastOpen, works},
		{"network_3_11_2_fastopen_sendmmsg", []string{"sendmmsg", "$LISTENER", stream, "0", fastOpen}, noFastOpen, works},
		{"network_3_11_2_fastopen_connect_option", []string{"fastopen-connect", "$LISTENER"}, noFastOpen, works},
		{"network_3_11_5_listen_unbound", []string{"listen-unbound"}, refused, works},
	})
}

func Test_network_ports(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	other := listen(t, "tcp4", "127.0.0.1:0")
	free, anotherFree := freePort(t), freePort(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		connect := b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf(`network: allow: ["tcp://:%s"]`, port(l))}))
		checkAllowed(t, b, connect, []allowed{
			{"allowed_port", []string{"connect", l.Addr().String(), stream, "0"}, "ok"},
			{"other_port", []string{"connect", other.Addr().String(), stream, "0"}, refusedByNet},
			{"network_3_11_5_listen_unbound", []string{"listen-unbound"}, "errno EACCES"},
			{"bind", []string{"bind", "127.0.0.1:" + free, stream, "0"}, refusedByNet},
			{"mptcp_to_the_allowed_port", []string{"connect", l.Addr().String(), stream, mptcp}, "errno EPROTONOSUPPORT (socket)"},
		})
		bind := b.Policy(b.Base(exectest.Grants{More: fmt.Sprintf(`network: allow_bind: [%s]`, free)}))
		checkAllowed(t, b, bind, []allowed{
			{"network_6_16_allowed_bind", []string{"bind", "127.0.0.1:" + free, stream, "0"}, "ok"},
			{"network_6_16_other_bind", []string{"bind", "127.0.0.1:" + anotherFree, stream, "0"}, refusedByNet},
			{"network_6_17_connect", []string{"connect", l.Addr().String(), stream, "0"}, refusedByNet},
			{"network_3_11_5_listen_unbound", []string{"listen-unbound"}, "errno EACCES"},
		})
		anyPort := b.Policy(b.Base(exectest.Grants{More: `network: allow_bind: ["*"]`}))
		checkAllowed(t, b, anyPort, []allowed{
			{"network_6_16_any_bind", []string{"bind", "127.0.0.1:" + free, stream, "0"}, "ok"},
			{"network_6_38_ephemeral_bind", []string{"bind", "127.0.0.1:0", stream, "0"}, "ok"},
		})
	})
}

// A program that serves must be able to: bind, listen, and accept on the granted port.
func Test_network_allowed_server(t *testing.T) {
	py := python(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		free := freePort(t)
		more := fmt.Sprintf("network: {allow: [\"tcp://:%s\"], allow_bind: [%s]}", free, free)
		script := `
import socket, sys
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
conn, _ = server.accept()
client.sendall(b"hello")
print(conn.recv(5).decode())`
		wantRun(t, b.Run(b.Policy(b.Base(exectest.Grants{More: more})), py, "-c", script, free), 0, "hello")
	})
}

func Test_network_6_27_abstract_sockets(t *testing.T) {
	name := fmt.Sprintf("@sandlock-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	dgram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name + "-dgram", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dgram.Close() })
	listen(t, "unix", name)
	noSocket := append([]string{"errno EAFNOSUPPORT"}, refused...)
	suite{
		setup: func(*testing.T, *exectest.Box) []string { return []string{"$NAME", name} },
		attempts: []attempt{
			{"network_6_27_escape_25_stream", []string{"unix-connect", stream, "$NAME"}, noSocket, works},
			{"network_6_27_escape_25_datagram", []string{"unix-send", "$NAME-dgram"}, noSocket, works},
			{"network_6_27_escape_25_pair_send", []string{"pair-send", "$NAME-dgram"}, noSocket, works},
			{"network_6_27_escape_25_pair_connect", []string{"pair-connect", "$NAME-dgram"}, noSocket, works},
		},
	}.run(t)
}

func Test_escape_24_pathname_sockets(t *testing.T) {
	suite{
		setup: func(t *testing.T, b *exectest.Box) []string {
			clear(t, b.Work)
			l, err := net.Listen("unix", b.Work+"/s")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			if err := os.Chmod(b.Work+"/s", 0o777); err != nil {
				t.Fatal(err)
			}
			return nil
		},
		attempts: []attempt{
			{"escape_24_connect", []string{"unix-connect", stream, "$WORK/s"}, append([]string{"errno EAFNOSUPPORT"}, refused...), works},
		},
	}.run(t)
}

func Test_escape_42_socket_families(t *testing.T) {
	none := []string{"errno EPERM", "errno EACCES", "errno EAFNOSUPPORT", "errno EPROTONOSUPPORT", "errno ESOCKTNOSUPPORT"}
	suite{attempts: []attempt{
		{"escape_42_unix", []string{"socket", "1", stream, "0"}, none, works},
		{"escape_42_unix_high_bits", []string{"call", "socket", "0x100000001", "1", "0"}, none, works},
		{"escape_42_netlink_route_stream", []string{"socket", "16", stream, "0"}, none, notRefused},
		{"escape_42_netlink_diag", []string{"socket", "16", "3", "4"}, none, works},
		{"escape_42_netlink_audit", []string{"socket", "16", "3", "9"}, none, notRefused},
		{"escape_42_packet", []string{"socket", "17", "3", "0x300"}, none, worksForRoot},
		{"escape_42_packet_datagram", []string{"socket", "17", datagram, "0"}, none, worksForRoot},
		{"escape_42_vsock", []string{"socket", "40", stream, "0"}, none, notRefused},
		{"escape_42_alg", []string{"socket", "38", "5", "0"}, none, notRefused},
		{"escape_42_xdp", []string{"socket", "44", "3", "0"}, none, notRefused},
		{"escape_42_tipc", []string{"socket", "30", "5", "0"}, none, notRefused},
		{"escape_42_bluetooth", []string{"socket", "31", "5", "0"}, none, notRefused},
		{"escape_42_can", []string{"socket", "29", "3", "1"}, none, notRefused},
		{"escape_42_smc", []string{"socket", "43", stream, "0"}, none, notRefused},
		{"escape_42_raw", []string{"socket", "2", "3", "255"}, none, worksForRoot},
		{"escape_42_raw_ipv6", []string{"socket", "10", "3", "58"}, none, worksForRoot},
		{"escape_42_old_packet_type", []string{"socket", "2", "10", "0x300"}, none, worksForRoot},
		{"escape_42_unspecified", []string{"socket", "0", "1", "0"}, none, harmful},
		{"escape_42_pair_of_datagrams", []string{"socketpair", "1", datagram, "0"}, none, works},
	}}.run(t)
}
