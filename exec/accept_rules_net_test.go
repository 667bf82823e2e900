package exec_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// connecting is a policy with two TCP ports and rules. By Landlock alone, or with addresses: then the supervisor decides.
func connecting(addresses bool, a, b string, rules ...string) exectest.Grants {
	g := ruled(rules...)
	host := "*"
	if addresses {
		host = "127.0.0.0/8"
	}
	g.More += fmt.Sprintf("\nnetwork: allow: [\"tcp://%s:%s,%s\"]\n", host, a, b)
	return g
}

// eachWay runs a test with Landlock deciding alone, and with the supervisor.
func eachWay(t *testing.T, test func(t *testing.T, b *exectest.Box, addresses bool)) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for name, addresses := range map[string]bool{"landlock": false, "supervisor": true} {
			t.Run(name, func(t *testing.T) { test(t, b.In(t), addresses) })
		}
	})
}

func Test_rules_connect_by_program_and_port(t *testing.T) {
	t.Parallel()
	py := python(t)
	eachWay(t, func(t *testing.T, b *exectest.Box, addresses bool) {
		one, two := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp4", "127.0.0.1:0")
		artifact := b.Policy(b.Base(connecting(addresses, port(one), port(two),
			fmt.Sprintf(`{on: ["connect"], if: {exe: %q, port: %s, protocol: "tcp"}, then: "deny", reason: "not by Python"}`, py, port(one)))))
		script := "import socket, sys\nfor p in sys.argv[1:]:\n try:\n  socket.create_connection(('127.0.0.1', int(p)), 10); print('ok')\n except OSError as e: print(e.errno)\n"
		wantRun(t, b.Run(artifact, py, "-c", script, port(one), port(two)), 0, "1\nok")
		if got := one.seen(t); got != 0 {
			t.Errorf("the listener saw %d connections, want none", got)
		}
		wantRun(t, b.Run("", py, "-c", script, port(one), port(two)), 0, "ok\nok")
		for _, address := range []string{one.Addr().String(), two.Addr().String()} {
			if got := b.Attempt(artifact, "connect", address, stream, "0"); got != "ok" {
				t.Errorf("another program, %s: %q", address, got)
			}
		}
		_, lines := runAudited(t, b, artifact, py, "-c", script, port(one), port(two))
		var got []string
		for _, l := range lines {
			if l["syscall"] == "connect" {
				got = append(got, fmt.Sprint(l["event"], " ", l["address"], " ", l["verdict"], " ", l["rule"], " ", l["reason"]))
			}
		}
		want := "denied tcp " + one.Addr().String() + " EPERM rules[0] not by Python\nheld tcp " + two.Addr().String() + " allow <nil> <nil>"
		if strings.Join(got, "\n") != want {
			t.Errorf("audit:\n%s\nwant\n%s", strings.Join(got, "\n"), want)
		}
	})
}

func Test_rules_connect_outcomes(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, b *exectest.Box, addresses bool) {
		l := listen(t, "tcp4", "127.0.0.1:0")
		for _, tc := range []struct{ rule, want string }{
			{`if: host: "127.0.0.1", then: "allow"`, "ok"},
			{`if: host: "127.0.0.1", then: "audit"`, "ok"},
			{`if: host: "127.0.0.0/8", then: "deny"`, "errno EPERM"},
			{`if: host: "10.0.0.0/8", then: "deny"`, "ok"},
			{`if: protocol: "udp", then: "deny"`, "ok"},
			{`if: host: "pinned.example", then: {errno: "ENETUNREACH"}`, "errno ENETUNREACH"},
			{`if: host: "other.example", then: "deny"`, "ok"},
			{`if: count: 2, then: "deny"`, "ok"},
			{`then: "kill"`, "signal 9"},
		} {
			g := connecting(addresses, port(l), "1", `{on: ["connect"], `+tc.rule+"}")
			g.More += `network: hosts: {"pinned.example": ["127.0.0.1"], "other.example": ["192.0.2.1"]}` + "\n"
			if got := b.Attempt(b.Policy(b.Base(g)), "connect", l.Addr().String(), stream, "0"); got != tc.want {
				t.Errorf("%s: %q, want %q", tc.rule, got, tc.want)
			}
		}
		// What a rule lets through is still the rest of the policy's.
		allowing := b.Policy(b.Base(connecting(addresses, "1", "2", `{on: ["connect"], then: "allow"}`)))
		want := map[bool]string{false: "errno EACCES", true: "errno ECONNREFUSED"}[addresses]
		if got := b.Attempt(allowing, "connect", l.Addr().String(), stream, "0"); got != want {
			t.Errorf("a port that the policy does not allow: %q, want %q", got, want)
		}
	})
}

func Test_rules_restrict_network(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, b *exectest.Box, addresses bool) {
		one, two := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp4", "127.0.0.1:0")
		attempt := func(l *listener) string { return b.Probe + " connect " + l.Addr().String() + " 1 0" }
		both := attempt(one) + "; " + attempt(two)
		const refused, ok = "errno ECONNREFUSED", "ok"
		for _, tc := range []struct{ name, rule, script, want string }{
			{"process", `scope: "process", do: [{restrict_network: ["tcp://127.0.0.0/8:` + port(two) + `"]}]`,
				both + "; env sh -c '" + both + "'; " + both, "ok ok errno ECONNREFUSED ok ok ok"},
			{"sandbox", `do: [{restrict_network: ["tcp://127.0.0.0/8:` + port(two) + `"]}]`,
				both + "; env true; " + both, "ok ok errno ECONNREFUSED ok"},
			{"running_child", `do: [{restrict_network: []}]`,
				"mkfifo f; (read x < f; " + both + ") & env true; echo > f; wait", "errno ECONNREFUSED errno ECONNREFUSED"},
			{"supervisor_8_57_empty", `do: [{restrict_network: []}]`, both + "; env true; " + both, "ok ok errno ECONNREFUSED errno ECONNREFUSED"},
			{"supervisor_8_47_address", `do: [{restrict_network: ["tcp://127.0.0.2", "tcp://[::ffff:127.0.0.1]:` + port(one) + `"]}]`,
				"env true; " + both, "ok errno ECONNREFUSED"},
			{"protocol", `do: [{restrict_network: ["udp://*"]}]`, "env true; " + both, "errno ECONNREFUSED errno ECONNREFUSED"},
			{"name", `do: [{restrict_network: ["tcp://pinned.example:` + port(one) + `"]}]`, "env true; " + both, "ok errno ECONNREFUSED"},
			{"intersection", `do: [{restrict_network: ["tcp://127.0.0.1"]}, {restrict_network: ["tcp://*:` + port(one) + `", "tcp://10.0.0.0/8"]}]`,
				"env true; " + both, "ok errno ECONNREFUSED"},
			{"no_wider", `do: [{restrict_network: ["*"]}]`, "env true; " + both + "; " + b.Probe + " connect 127.0.0.1:9 1 0",
				"ok ok " + map[bool]string{false: "errno EACCES", true: refused}[addresses]},
			{"this_event", `on: ["connect"], if: {port: ` + port(one) + `}, do: [{restrict_network: ["tcp://*:` + port(two) + `"]}]`, both, "errno ECONNREFUSED ok"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				rule := tc.rule
				if !strings.HasPrefix(rule, "on:") {
					rule = `on: ["execve"], if: exe: "/usr/bin/env", ` + rule
				}
				g := connecting(addresses, port(one), port(two), "{"+rule+"}")
				g.More += `network: hosts: "pinned.example": ["127.0.0.1"]` + "\n"
				clear(t, b.Work)
				b := b.In(t)
				r := b.Sh(b.Policy(b.Base(g)), tc.script)
				if got := strings.Join(strings.Fields(r.Stdout), " "); got != tc.want {
					t.Errorf("%q, want %q\n%s", got, tc.want, r.Stderr)
				}
			})
		}
	})
}

// Datagram sockets are connected as well.
func Test_rules_connected_datagrams(t *testing.T) {
	t.Parallel()
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for name, allow := range map[string]string{"landlock": "udp://*", "supervisor": "udp://127.0.0.0/8"} {
			g := ruled(`{on: ["connect"], if: {protocol: "udp", port: 53}, then: "deny"}`, `{on: ["connect"], if: protocol: "tcp", then: "kill"}`,
				`{on: ["execve"], if: exe: "/usr/bin/env", do: [{restrict_network: ["udp://127.0.0.1"]}]}`)
			g.More += "\nnetwork: allow: [\"" + allow + "\"]\n"
			connect := func(to string) string { return b.Probe + " connect " + to + " 2 0; " }
			r := b.Sh(b.Policy(b.Base(g)), connect("127.0.0.1:53")+connect("127.0.0.1:54")+connect("127.0.0.2:54")+
				"env true; "+connect("127.0.0.1:54")+connect("127.0.0.2:54")+connect("[::ffff:127.0.0.2]:54"))
			want := "errno EPERM ok ok ok errno ECONNREFUSED errno ECONNREFUSED"
			if got := strings.Join(strings.Fields(r.Stdout), " "); got != want {
				t.Errorf("%s: %q, want %q\n%s", name, got, want, r.Stderr)
			}
		}
	})
}

// A connection that is there stays; the audit stream names the rule that narrowed the network.
func Test_rules_restrict_network_keeps_connections(t *testing.T) {
	t.Parallel()
	py := python(t)
	eachWay(t, func(t *testing.T, b *exectest.Box, addresses bool) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					_, _ = io.Copy(conn, conn)
					conn.Close()
				}()
			}
		}()
		artifact := b.Policy(b.Base(connecting(addresses, port(l), "1", `{on: ["execve"], if: exe: "/usr/bin/env", do: [{restrict_network: []}], reason: "offline"}`)))
		script := `
import socket, subprocess
s = socket.create_connection(("127.0.0.1", ` + port(l) + `), 10)
subprocess.run(["/usr/bin/env", "true"])
s.sendall(b"still here")
print(s.recv(100))
try: socket.create_connection(("127.0.0.1", ` + port(l) + `), 10)
except OSError as e: print(e.errno)
`
		wantRun(t, b.Run(artifact, py, "-c", script), 0, "b'still here'\n111")
		_, lines := runAudited(t, b, artifact, py, "-c", script)
		var got []string
		for _, line := range lines {
			if line["syscall"] == "connect" {
				got = append(got, fmt.Sprint(line["event"], " ", line["address"], " ", line["verdict"], " ", line["rule"], " ", line["reason"]))
			}
		}
		to := "tcp " + l.Addr().String()
		if want := "held " + to + " allow <nil> <nil>\ndenied " + to + " ECONNREFUSED rules[0] offline"; strings.Join(got, "\n") != want {
			t.Errorf("audit:\n%s\nwant\n%s", strings.Join(got, "\n"), want)
		}
	})
}

// Each datagram that names where it goes is an event, by whatever call it is sent.
func Test_supervisor_8_63_rules_datagrams(t *testing.T) {
	t.Parallel()
	one, two := newSink(t, "udp4", "127.0.0.1:0"), newSink(t, "udp4", "127.0.0.1:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for name, allow := range map[string]string{"any": "udp://*", "address": "udp://127.0.0.0/8"} {
			for _, tc := range []struct{ name, rule, want string }{
				{"deny", fmt.Sprintf(`{on: ["sendto"], if: port: %d, then: "deny"}`, one.port()), "errno EPERM"},
				{"errno", fmt.Sprintf(`{on: ["network"], if: {host: "127.0.0.1", port: %d, protocol: "udp"}, then: {errno: "EHOSTUNREACH"}}`, one.port()), "errno EHOSTUNREACH"},
				{"restrict", fmt.Sprintf(`{on: ["execve"], if: exe: %q, do: [{restrict_network: ["udp://127.0.0.1:%d"]}]}`, b.Probe, two.port()), "errno ECONNREFUSED"},
				{"audit", `{on: ["sendto"], then: "audit"}`, "ok"},
			} {
				t.Run(name+"/"+tc.name, func(t *testing.T) {
					b := b.In(t)
					g := ruled(tc.rule)
					g.More += "\nnetwork: allow: [\"" + allow + "\"]\n"
					var script []string
					for _, to := range []*sink{one, two} {
						for _, call := range []string{"send", "sendmsg", "sendmmsg"} {
							script = append(script, fmt.Sprint(b.Probe, " ", call, " ", to.LocalAddr(), " 2 0 0"))
						}
					}
					script = append(script, b.Probe+" send-vector "+two.LocalAddr().String()+" "+one.LocalAddr().String())
					vector := "value sent=1 lengths=1,0"
					if tc.want == "ok" {
						vector = "value sent=2 lengths=1,1"
					}
					wantRun(t, b.Sh(b.Policy(b.Base(g)), strings.Join(script, "\n")), 0,
						strings.Repeat(tc.want+"\n", 3)+strings.Repeat("ok\n", 3)+vector)
					want := 0
					if tc.want == "ok" {
						want = 4
					}
					if n, m := one.seen(t), two.seen(t); n != want || m != 4 {
						t.Errorf("%d and %d datagrams have arrived, want %d and 4", n, m, want)
					}
				})
			}
		}
	})
}
