package exec_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// pingable makes a run happen in a network namespace of its own, where every group may send ICMP echo requests. Making it
// needs root; the run's user comes after that.
func pingable(t *testing.T, o exectest.Opts) exectest.Opts {
	t.Helper()
	if !exectest.Self().Root() {
		t.Skip("making a network namespace needs root")
	}
	setup := `ip link set lo up && echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range || exit 99
exec setpriv --reuid ` + fmt.Sprint(o.User.UID) + ` --regid ` + fmt.Sprint(o.User.GID) + ` --clear-groups "$@"`
	o.Wrap = []string{exectest.Program(t, "/usr/bin/unshare"), "--net", "/bin/sh", "-c", setup, "sh"}
	o.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C"}
	o.User = exectest.Self()
	return o
}

func runPingable(t *testing.T, o exectest.Opts) exectest.Result {
	t.Helper()
	r := exectest.Run(t, pingable(t, o))
	if r.Code == 99 || strings.Contains(r.Stderr, "unshare failed") || strings.Contains(r.Stderr, "setpriv:") {
		exectest.Lacks(t, "network namespaces: "+r.Stderr)
	}
	return r
}

// echoScript sends echo requests as ping does, and prints the answers' types.
const echoScript = `
import errno, socket, sys
def echo(address, how):
    six = ":" in address
    try:
        s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM, 58 if six else 1)
        s.settimeout(10)
        request = bytes([128 if six else 8, 0, 0, 0, 0, 0, 0, 1]) + b"payload"
        if how == "sendto": s.sendto(request, (address, 0))
        elif how == "sendmsg": s.sendmsg([request], [], 0, (address, 0))
        else:
            s.connect((address, 0))
            s.send(request)
        answer, peer = s.recvfrom(100)
        return answer[0], answer[8:] == b"payload", peer[0] == address
    except OSError as e:
        return errno.errorcode[e.errno]
for address in sys.argv[1:]: print(address, *(echo(address, how) for how in ("sendto", "sendmsg", "connect")))
`

// Echo requests reach what a rule about ICMP names.
func Test_network_icmp(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		addresses := []string{"127.0.0.1", "127.0.0.2", "::1"}
		const v4, v6, refused, none = "(0, True, True)", "(129, True, True)", "ECONNREFUSED", "EPROTONOSUPPORT"
		thrice := func(outcomes ...string) string {
			var lines []string
			for i, o := range outcomes {
				lines = append(lines, addresses[i]+strings.Repeat(" "+o, 3))
			}
			return strings.Join(lines, "\n")
		}
		for _, tc := range []struct{ name, network, want string }{
			{"supervisor_8_6_any", `allow: ["icmp://*"]`, thrice(v4, v4, v6)},
			{"address", `allow: ["icmp://127.0.0.1"]`, thrice(v4, refused, refused)},
			{"ipv6", `allow: ["icmp://::1"]`, thrice(refused, refused, v6)},
			{"block", `allow: ["icmp://127.0.0.0/30"]`, thrice(v4, v4, refused)},
			{"denied", `deny: ["icmp://127.0.0.1"]`, thrice(refused, v4, v6)},
			{"denied_otherwise", `deny: ["127.0.0.1"]`, thrice(v4, v4, v6)}, // no scheme: TCP and UDP
			{"allowed_otherwise", `allow: ["127.0.0.1"]`, thrice(none, none, none)},
			{"none", ``, thrice("EPERM", "EPERM", "EPERM")},
		} {
			t.Run(tc.name, func(t *testing.T) {
				b := b.In(t)
				policy := b.Policy(b.Base(exectest.Grants{More: "network: {" + tc.network + "}"}))
				wantRun(t, runPingable(t, b.Opts(policy, append([]string{py, "-c", echoScript}, addresses...)...)), 0, tc.want)
			})
		}
		wantRun(t, runPingable(t, b.Opts("", append([]string{py, "-c", echoScript}, addresses...)...)), 0, thrice(v4, v4, v6))
	})
}

// ping asks its own address of a UDP socket that it connects, so it needs a rule about UDP as well.
func Test_network_ping(t *testing.T) {
	ping := exectest.Program(t, "/usr/bin/ping")
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		ping := ping
		if u.Root() {
			// Distributions give ping capabilities, which root does not start without in a sandbox; a copy has none.
			data, err := os.ReadFile(ping)
			if err != nil {
				t.Fatal(err)
			}
			ping = b.File(b.Work+"/ping", string(data))
			if err := os.Chmod(ping, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		policy := b.Policy(b.Base(exectest.Grants{More: `network: allow: ["icmp://127.0.0.1", "udp://127.0.0.0/8:1025"]`}))
		r := runPingable(t, b.Opts(policy, ping, "-n", "-c", "1", "-W", "10", "127.0.0.1"))
		if r.Code != 0 {
			t.Errorf("ping: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		r = runPingable(t, b.Opts(policy, ping, "-n", "-c", "1", "-W", "1", "127.0.0.2"))
		if r.Code != 1 || !strings.Contains(r.Stdout, "1 packets transmitted, 0 received") {
			t.Errorf("ping of another: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		if r := runPingable(t, b.Opts("", ping, "-n", "-c", "1", "-W", "5", "127.0.0.2")); r.Code != 0 {
			t.Errorf("outside: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
	})
}

// A rule about ICMP or UDP makes those sockets and no others.
func Test_supervisor_8_5_6_7(t *testing.T) {
	for name, more := range map[string]string{
		"any": `network: allow: ["icmp://*", "udp://*:*"]`, "address": `network: allow: ["icmp://127.0.0.1", "udp://127.0.0.1:*", "tcp://127.0.0.1"]`,
	} {
		t.Run(name, func(t *testing.T) {
			noProtocol := []string{"errno EPROTONOSUPPORT", "errno EPERM"}
			netSuite(t, more, []attempt{
				{"supervisor_8_5_raw_icmp", []string{"socket", "2", "3", "1"}, eperm, worksForRoot},
				{"supervisor_8_5_raw_icmp_ipv6", []string{"socket", "10", "3", "58"}, eperm, worksForRoot},
				{"supervisor_8_5_raw_udp", []string{"socket", "2", "3", "17"}, eperm, worksForRoot},
				{"network_6_44_raw", []string{"socket", "2", "3", "255"}, eperm, worksForRoot},
				{"network_6_44_raw_high_bits", []string{"call", "socket", "0x100000002", "0x100000003", "0x100000001"}, eperm, worksForRoot},
				{"network_6_44_packet", []string{"socket", "17", datagram, "0"}, append([]string{"errno EAFNOSUPPORT"}, eperm...), worksForRoot},
				{"network_6_44_sctp", []string{"socket", "2", stream, "132"}, noProtocol, notRefused},
				{"network_6_44_sctp_ipv6", []string{"socket", "10", stream, "132"}, noProtocol, notRefused},
				{"network_6_44_sctp_seqpacket", []string{"socket", "2", "5", "132"}, append(noProtocol, "errno ESOCKTNOSUPPORT"), notRefused},
				{"network_6_44_dccp", []string{"socket", "2", "6", "33"}, append(noProtocol, "errno ESOCKTNOSUPPORT"), notRefused},
				{"network_6_44_udplite", []string{"socket", "2", datagram, "136"}, noProtocol, notRefused},
				{"network_6_44_mptcp", []string{"connect", "$LISTENER", stream, mptcp}, noProtocol, works},
				{"network_6_44_l2tp", []string{"socket", "2", datagram, "115"}, noProtocol, notRefused},
				{"network_6_44_io_uring", []string{"io-uring"}, absent, mayRefuse},
				// socketcall, socket, connect and sendto of the 32-bit ABI, and connect and sendto of x32.
				{"network_6_44_int80_socketcall", []string{"int80", "102"}, killed, notRefused},
				{"network_6_44_int80_socket", []string{"int80", "359"}, killed, notRefused},
				{"network_6_44_int80_connect", []string{"int80", "362"}, killed, notRefused},
				{"network_6_44_int80_sendto", []string{"int80", "369"}, killed, notRefused},
				{"network_6_44_x32_connect", []string{"x32", "connect", "-1", "b:16", "16"}, killed, harmful},
				{"network_6_44_x32_sendmsg", []string{"x32", "518", "-1", "b:64", "0"}, killed, harmful},
			})
		})
	}
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		checkAllowed(t, b, b.Policy(b.Base(exectest.Grants{More: `network: allow: ["udp://*:*"]`})), []allowed{
			{"supervisor_8_7_udp", []string{"socket", "2", datagram, "0"}, "ok"},
			{"supervisor_8_7_udp_by_number", []string{"socket", "2", datagram, "17"}, "ok"},
			{"supervisor_8_7_udp_ipv6", []string{"socket", "10", "0x80802", "0"}, "ok"},
			{"supervisor_8_7_no_echo", []string{"socket", "2", datagram, "1"}, "errno EPROTONOSUPPORT"},
		})
	})
}
