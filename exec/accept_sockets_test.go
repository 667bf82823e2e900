package exec_test

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// remappedView is policy B with one virtual port and a /proc: the host's, or the sandbox's own, which takes namespaces.
func remappedView(proc, port, more string) exectest.Grants {
	return exectest.Grants{Read: []string{"/proc"}, More: fmt.Sprintf(
		"filesystem: proc: %q\nnetwork: {allow: [\"udp://127.0.0.1\", \"127.0.0.1\"], allow_bind: [%s], port_remap: true}\n%s", proc, port, more)}
}

// inBothViews runs a test with the host's /proc and, where this host can, with one of the sandbox's own.
func inBothViews(t *testing.T, test func(t *testing.T, b *exectest.Box, proc string)) {
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		for _, proc := range []string{"host", "auto"} {
			t.Run("proc_"+proc, func(t *testing.T) {
				b := exectest.NewBox(t, u)
				if r := b.Run(b.Policy(b.Base(exectest.Grants{Read: []string{"/proc"}, More: fmt.Sprintf("filesystem: proc: %q", proc)})), "/bin/true"); r.Code != 0 {
					t.Skip("no namespaces: " + r.Stderr)
				}
				test(t, b, proc)
			})
		}
	})
}

// Every way to a list of sockets that a program can take leads to one of its own.
const socketLists = `
import ctypes, os, socket, sys, threading
port = int(sys.argv[1])
def rows(name, where="/proc/net/", **more):
    fd = os.open(where + name, os.O_RDONLY | more.pop("flags", 0), **more)
    head, *lines = os.fdopen(fd).read().splitlines()
    assert "local_address" in head, head
    return [l.split() for l in lines]
def ports(name, where="/proc/net/", **more):
    return sorted(int(r[1].split(":")[1], 16) - port for r in rows(name, where, **more))
def lists(*where, **more): return [ports(n, *where, **more) for n in ("tcp", "tcp6", "udp", "udp6")]
print("none", lists())
s = socket.socket(); s.bind(("127.0.0.1", port)); s.listen()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", port))
want = [[0], [], [0], []]
pid, tid = os.getpid(), threading.get_native_id()
os.symlink("/proc/net", "link"); os.symlink("/proc/self", "self"); os.symlink("/proc/thread-self/root/proc/net", "magic")
os.symlink("../../../../../../../../proc/self/task/%d" % tid, "task")
places = ["/proc/net/", "/proc/self/net/", "/proc/thread-self/net/", "/proc/%d/net/" % pid, "/proc/self/task/%d/net/" % tid,
    "/proc/%d/task/%d/net/" % (pid, tid), "/proc/1/net/", "//proc/./self/../net/", "/proc/self/root/proc/net/", "/proc/%d/root/proc/net/" % pid,
    "/proc//self/cwd/link/", "/proc/%d/cwd/self/net/" % pid, "link/", "self/net/", "magic/", "task/net/"]
for p in places:
    try: got = lists(p)
    except OSError as e: got = e.errno
    hidden = p == "/proc/1/net/" and got == 2 # an own /proc shows no process that may not be inspected
    if got != want and not hidden: print(p, got)
for d in ("/proc", "/proc/self", "/proc/net"):
    fd, back = os.open(d, os.O_PATH), os.getcwd()
    rest = {"/proc": "self/net/", "/proc/self": "net/", "/proc/net": ""}[d]
    print(d, lists(rest, dir_fd=fd) == want, end=" ")
    print(lists("fd/%d/" % fd + rest, dir_fd=os.open("/proc/self", os.O_PATH)) == want, end=" ")
    os.chdir(d)
    print(lists(rest) == want)
    os.chdir(back)
def named(n): return os.open("/proc/net/" + n, os.O_PATH)
print("named", [ports(str(named(n)), "/proc/self/fd/") for n in ("tcp", "udp")], [ports(str(named(n)), "/proc/%d/fd/" % pid) for n in ("tcp", "udp")],
    [ports(str(named(n)), "/dev/fd/") for n in ("tcp", "udp")])
os.chdir("/proc")
print("relative", [ports("self/fd/%d" % named(n), "") for n in ("tcp", "udp")])
for flags in (os.O_NOATIME, os.O_TRUNC, os.O_CREAT, os.O_NONBLOCK | os.O_CLOEXEC, os.O_RDWR):
    try: got = ports("tcp", flags=flags)
    except OSError as e: got = "refused"
    if got not in ([0], "refused"): print(flags, got)
thread = threading.Thread(target=lambda: print("thread", lists("/proc/thread-self/net/") == want)); thread.start(); thread.join()
print("others", sorted(r[7] for r in rows("tcp")) == [str(os.getuid())], [r[11].strip("0") for r in rows("tcp") + rows("udp")])
print("files", open("/proc/self/net/dev").read().count("Inter") == 1, open("/proc/self/stat").read().split()[0] == str(pid), os.stat("/proc/net/tcp").st_size)
c = socket.create_connection(("127.0.0.1", port)); a, _ = s.accept()
print("accepted", ports("tcp"), sorted(r[3] for r in rows("tcp")))
os.close(s.detach()); c.close(); a.close()
print("closed", lists())
`

func Test_supervisor_8_32_33_socket_lists(t *testing.T) {
	py := python(t)
	port, _, _ := occupied(t)
	six, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		defer six.Close()
	}
	inBothViews(t, func(t *testing.T, b *exectest.Box, proc string) {
		r := b.Run(b.Policy(b.Base(remappedView(proc, port, ""))), py, "-c", socketLists, port)
		wantRun(t, r, 0, strings.TrimSpace(`
none [[], [], [], []]
/proc True True True
/proc/self True True True
/proc/net True True True
named [[0], [0]] [[0], [0]] [[0], [0]]
relative [[0], [0]]
thread True
others True ['', '']
files True True 0
accepted [0, 0] ['01', '0A']
closed [[], [], [0], []]`))
	})
}

// Where rules have files opened on behalf, and by the ways that openat2 restricts.
func Test_socket_lists_and_rules(t *testing.T) {
	port, _, _ := occupied(t)
	inBothViews(t, func(t *testing.T, b *exectest.Box, proc string) {
		for _, rules := range []string{"", `rules: [{on: ["open"], then: "audit"}]`, `rules: [{on: ["open"], if: path: "/proc/version", then: "deny"}]`} {
			r := b.Sh(b.Policy(b.Base(remappedView(proc, port, rules))), `for f in tcp tcp6 udp udp6; do grep -c : /proc/self/net/$f; done`)
			wantRun(t, r, 1, "0\n0\n0\n0")
		}
		readable := b.Policy(fmt.Sprintf(`filesystem: {read: ["/usr", "/lib", "/bin", "/proc", %q, {path: "/lib64", optional: true}], proc: %q}
			network: {allow_bind: [%s], port_remap: true}`, strings.TrimSuffix(b.Probe, "/probe"), proc, port))
		for how, want := range map[string]string{"no_xdev": "value lines=1", "in_root": "value lines=1", "beneath": "value lines=1", "no_symlinks": "errno ELOOP (open)"} {
			if got := b.Attempt(readable, "count-lines", "/proc", "self/net/tcp", how); got != want {
				t.Errorf("%s: %s, want %s", how, got, want)
			}
		}
	})
}

// What the policy does not grant is not shown either, and without virtual ports nobody asks.
func Test_socket_lists_open_nothing(t *testing.T) {
	port, _, _ := occupied(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		g := remappedView("host", port, "")
		g.Read = []string{"/proc/version"}
		wantFailure(t, b.Sh(b.Policy(b.Base(g)), "cat /proc/net/tcp"), "Permission denied")
		g = exectest.Grants{Read: []string{"/proc"}, More: fmt.Sprintf("filesystem: proc: \"host\"\nnetwork: allow_bind: [%s]", port)}
		n, _ := strconv.Atoi(port)
		wantRun(t, b.Sh(b.Policy(b.Base(g)), fmt.Sprintf("grep -q ':%04X ' /proc/net/tcp && echo shown", n)), 0, "shown")
	})
}
