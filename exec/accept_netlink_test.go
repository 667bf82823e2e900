package exec_test

import (
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

const onlyLoopback = "value lo up|loopback|running 127.0.0.1/8 ::1/128"

// Programs learn of the loopback interface only, by whatever library they ask.
func Test_network_6_37_interfaces(t *testing.T) {
	t.Parallel()
	py := python(t)
	const nameIndex = "import socket; print(socket.if_nameindex())"
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		for name, more := range map[string]string{
			"no_network": "", "connect": `network: allow: ["tcp://:9"]`, "bind": `network: allow_bind: ["*"]`,
			"memory": `limits: memory: "512M"`,
		} {
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				artifact := b.Policy(b.Base(exectest.Grants{More: more}))
				wantRun(t, b.Run(artifact, py, "-c", nameIndex), 0, "[(1, 'lo')]")
				asGo := onlyLoopback
				if !strings.HasPrefix(more, "network") {
					asGo = "errno EINVAL" // Go looks at the socket's own name, which only policies about the network pay for
				}
				checkAllowed(t, b, artifact, []allowed{
					{"go", []string{"interfaces"}, asGo},
					{"musl", []string{"netlink-nowait"}, "ok"},
				})
			})
		}
		artifact := b.Policy(b.Base(exectest.Grants{More: `network: allow: ["tcp://:9"]`}))
		t.Run("network_6_39_getaddrinfo", func(t *testing.T) {
			script := `
import socket
flags = socket.AI_PASSIVE | socket.AI_ADDRCONFIG
print(*sorted(a[0].name for a in socket.getaddrinfo(None, 443, type=socket.SOCK_STREAM, flags=flags)))`
			wantRun(t, b.In(t).Run(artifact, py, "-c", script), 0, "AF_INET AF_INET6")
		})
		t.Run("node", func(t *testing.T) {
			node := exectest.Program(t, "/usr/bin/node")
			script := `for (const [name, list] of Object.entries(require("os").networkInterfaces())) console.log(name, ...list.map(a => a.cidr))`
			wantRun(t, b.In(t).Run(artifact, node, "-e", script), 0, "lo 127.0.0.1/8 ::1/128")
			wantRun(t, b.In(t).Run(b.Policy(b.Base(exectest.Grants{})), node, "-e", script), 0, "lo 127.0.0.1/8 ::1/128")
		})
		t.Run("iproute2", func(t *testing.T) {
			ip := exectest.Program(t, "/usr/sbin/ip")
			r := b.In(t).Run(artifact, ip, "-oneline", "addr")
			if lines := strings.Split(strings.TrimSpace(r.Stdout), "\n"); r.Code != 0 || len(lines) != 2 ||
				!strings.Contains(lines[0], "127.0.0.1/8") || !strings.Contains(lines[1], "::1/128") {
				t.Errorf("exit %d, printed %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
			}
		})
		t.Run("explained", func(t *testing.T) {
			o := b.Opts(artifact, b.Probe, "interfaces")
			o.Flags = []string{"--explain-denials"}
			wantRun(t, exectest.Run(t, o), 0, onlyLoopback)
		})
		t.Run("no_user_namespaces", func(t *testing.T) {
			o := b.Opts(artifact, b.Probe, "interfaces")
			o.Wrap = []string{exectest.Program(t, "/usr/bin/unshare"), "--user", "--map-root-user", "/bin/sh", "-c",
				`echo 0 > /proc/sys/user/max_user_namespaces && ! unshare --user true 2> /dev/null || exit 99; exec "$@"`, "sh"}
			r := exectest.Run(t, o)
			if r.Code == 99 || strings.Contains(r.Stderr, "unshare failed") {
				t.Skipf("user namespaces cannot be limited here: %s", r.Stderr)
			}
			wantRun(t, r, 0, onlyLoopback)
		})
		alone := b.Policy(b.Base(exectest.Grants{More: "program: no_supervisor: true"}))
		checkAllowed(t, b, alone, []allowed{{"no_supervisor", []string{"netlink-flags", "3"}, "errno EAFNOSUPPORT (socket)"}})
		if got := b.Control("interfaces"); !strings.HasPrefix(got, "value lo ") {
			t.Errorf("outside: interfaces: %q", got)
		}
	})
}

func Test_netlink_is_for_reading(t *testing.T) {
	suite{attempts: []attempt{
		{"new_address_to_the_kernel", []string{"netlink-change", "sendto", "20"}, eperm, notRefused},
		{"new_address_by_sendmsg", []string{"netlink-change", "sendmsg", "20"}, eperm, notRefused},
		{"new_address_by_write", []string{"netlink-change", "write", "20"}, eperm, notRefused},
		{"change_link", []string{"netlink-change", "sendto", "16"}, eperm, notRefused},
		{"new_route", []string{"netlink-change", "sendto", "24"}, eperm, notRefused},
		{"new_queue", []string{"netlink-change", "sendto", "36"}, eperm, notRefused},
		{"network_6_41_SIOCGIFCONF", []string{"call", "ioctl", "0", "0x8912", "0"}, eperm, notRefused},
		{"network_6_41_SIOCETHTOOL", []string{"call", "ioctl", "0", "0x8946", "0"}, eperm, notRefused},
		{"network_6_40_proc_net", []string{"open", "/proc/net/dev", "0"}, eacces, works},
		{"network_6_40_proc_net_ipv6", []string{"open", "/proc/self/net/if_inet6", "0"}, eacces, works},
		{"network_6_41_sys_class_net", []string{"open", "/sys/class/net", "0"}, eacces, works},
	}}.run(t)
}

// A capability that the policy keeps is none over this netlink.
func Test_netlink_is_for_reading_with_net_admin(t *testing.T) {
	b := exectest.NewBox(t, exectest.Self())
	if !b.User.Root() {
		t.Skip("needs root")
	}
	artifact := b.Policy(b.Base(exectest.Grants{More: `program: capabilities: ["net_admin"], network: allow: ["tcp://:9"]`}))
	checkAllowed(t, b, artifact, []allowed{
		{"new_address", []string{"netlink-change", "sendto", "20"}, "errno EPERM"},
		{"interfaces", []string{"interfaces"}, onlyLoopback},
	})
}

func Test_netlink_sockets_behave(t *testing.T) {
	t.Parallel()
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(exectest.Grants{More: `network: allow: ["tcp://:9"]`}))
		table := []allowed{
			{"plain", []string{"netlink-flags", "3"}, "value nonblock false cloexec false netlink true own pid true"},
			{"datagram", []string{"netlink-flags", "2"}, "value nonblock false cloexec false netlink true own pid true"},
			{"nonblock", []string{"netlink-flags", "0x803"}, "value nonblock true cloexec false netlink true own pid true"},
			{"cloexec", []string{"netlink-flags", "0x80003"}, "value nonblock false cloexec true netlink true own pid true"},
			{"inherited", []string{"netlink-inherit"}, "ok"},
			{"loopback_by_name", []string{"netlink-link", "lo"}, "ok"},
			{"other_flags", []string{"netlink-flags", "0x103"}, "errno EINVAL (socket)"},
		}
		checkAllowed(t, b, artifact, table)
		for _, a := range table {
			if got := b.Control(a.args...); got != a.want {
				t.Errorf("outside: probe %q = %q, want %q", a.args, got, a.want)
			}
		}
		checkAllowed(t, b, artifact, []allowed{
			{"no_other_link", []string{"netlink-link", "eth0"}, "errno ENODEV"},
			{"hoard", []string{"netlink-hoard", "128"}, "ok"},
			{"larger_hoard", []string{"netlink-hoard", "129"}, "errno ENFILE"},
		})
		t.Run("closed", func(t *testing.T) {
			o := b.Opts(artifact, b.Probe, "netlink-cycles", "1000")
			o.Wrap = []string{"/bin/sh", "-c", `ulimit -n 64; exec "$@"`, "sh"} // the executor, too, may have no more
			wantRun(t, exectest.Run(t, o), 0, "ok")
		})
		t.Run("other_sockets", func(t *testing.T) {
			// Both names are 12 bytes long, as netlink's.
			script := `
import os, socket
n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
n.bind((0, 0))
a, b = socket.socketpair()
a.bind("abcdefghij")
b.bind("\0bcdefgh" + "%02d" % (os.getpid() % 100))
t = socket.socket()
print(n.getsockname() == (os.getpid(), 0), os.path.exists("abcdefghij"), a.getsockname(), b.getsockname()[:8], t.getsockname())`
			wantRun(t, b.In(t).Run(artifact, python(t), "-c", script), 0,
				`True True abcdefghij b'\x00bcdefgh' ('0.0.0.0', 0)`)
		})
	})
}
