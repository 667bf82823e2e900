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
func Test_network_6_12_13_14_17(t *testing.T) {
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
