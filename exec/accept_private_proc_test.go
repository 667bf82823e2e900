package exec_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec"
	"github.com/sandlock-go/sandlock/exec/exectest"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// spellings are Python text for the names of a file of the system, given as the first argument: names maps each to how to open
// it. Links to it are in HOME.
const spellings = `
import os, sys
target = sys.argv[1]
parent, leaf = os.path.split(target)
def at(path, name, flags=0):
    d = os.open(path, os.O_PATH | os.O_DIRECTORY)
    return lambda f: f(name, d, flags)
def plain(name, flags=0):
    return lambda f: f(name, None, flags)
for link, to in ("link", target), ("chain", leaf + "-link"), ("dir", parent), ("magic", "/proc/self/root" + target):
    try: os.symlink(to, os.environ["HOME"] + "/" + leaf + "-" + link)
    except FileExistsError: pass
home = os.environ["HOME"] + "/" + leaf
os.chdir(parent)
inside = os.open(parent, os.O_PATH | os.O_DIRECTORY)
names = {
    "plain": plain(target), "double": plain("/" + target), "dot": plain(parent + "/./" + leaf), "up": plain(parent + "/.." + target if parent.count("/") == 1 else parent + "/../" + os.path.basename(parent) + "/" + leaf),
    "relative": plain(leaf), "relative_up": plain("../" + os.path.basename(parent) + "/" + leaf), "dirfd": at(parent, leaf), "dirfd_of_root": at("/", target[1:]),
    "dirfd_up": at("/usr", ".." + target), "nofollow": at(parent, leaf, os.O_NOFOLLOW), "self_root": plain("/proc/self/root" + target),
    "thread_root": plain("/proc/thread-self/root" + target), "pid_root": plain("/proc/%d/root" % os.getpid() + target), "self_cwd": plain("/proc/self/cwd/" + leaf),
    "fd_of_directory": plain("/proc/self/fd/%d/%s" % (inside, leaf)), "dev_fd": plain("/dev/fd/%d/%s" % (inside, leaf)),
    "link": plain(home + "-link"), "chain": plain(home + "-chain"), "through_link": plain(home + "-dir/" + leaf), "magic": plain(home + "-magic"),
}
def outcome(how):
    try: return how()
    except OSError as e: return e.strerror
def content(name, d, flags):
    fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=d)
    with os.fdopen(fd) as f:
        return f.read()
def reopened(name, d, flags):
    fd = os.open(name, os.O_PATH | flags, dir_fd=d)
    with open("/proc/self/fd/%d" % fd) as f:
        return f.read()
def written(name, d, flags):
    os.close(os.open(name, os.O_WRONLY | os.O_NONBLOCK | flags, dir_fd=d))
    return "opened for writing"
`

// everywhere is Python text that does something for each argument, with the names of it.
func everywhere(script string) string {
	return "import sys\nfor argument in sys.argv[1:]:\n    sys.argv[1] = argument\n    exec(\"\"\"" + strings.ReplaceAll(spellings+script, `\`, `\\`) + "\"\"\")\n"
}

// What tells of the kernel's memory, of others' keys, or acts on the machine stays closed under every name, for reading and
// writing, even where all of /proc is granted; what stat says is one thing.
func Test_namespaces_supervisor_8_28_29_closed_files(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		g := private("")
		g.Write = append(g.Write, "/proc")
		artifact := b.Policy(b.Base(g))
		args := []string{py, "-c", ""}
		for _, file := range []string{"kcore", "kallsyms", "kmsg", "keys", "key-users", "sysrq-trigger", "timer_list", "kpageflags"} {
			if exists("/proc/" + file) {
				args = append(args, "/proc/"+file)
			}
		}
		args[2] = everywhere(`
seen = {n: [outcome(lambda: how(f)) for f in (content, reopened, written)] for n, how in names.items()}
refused = ("Permission denied", "Read-only file system", "Operation not permitted")
print(len(seen), {n: s for n, s in seen.items() if any(r not in refused for r in s)})
stats = {outcome(lambda: how(lambda name, d, flags: str(os.stat(name, dir_fd=d)))) for how in names.values()}
print(len(stats), "st_size=0," in stats.pop(), outcome(lambda: os.readlink(target)))
`)
		want := strings.TrimSpace(strings.Repeat("20 {}\n1 True Invalid argument\n", len(args)-3))
		if len(args) < 6 {
			t.Errorf("too few files are here: %q", args[3:])
		}
		wantRun(t, b.Run(artifact, args...), 0, want)
		if _, err := os.ReadFile("/proc/keys"); err != nil {
			t.Errorf("outside: %v", err)
		}
		// They can be looked at where no sandbox is, and other files inside.
		r := b.Run("", py, "-c", spellings+"print([n for n, how in names.items() if len(outcome(lambda: how(content))) < 100])", "/proc/kallsyms")
		wantRun(t, r, 0, "[]")
		r = b.Run(artifact, py, "-c", spellings+"print(len({outcome(lambda: how(content)) for n, how in names.items()}))", "/proc/version")
		wantRun(t, r, 0, "1")
	})
}

// The machine's settings cannot be written, by root neither, where all of /proc may be; a process's own files can.
func Test_namespaces_proc_sys_is_read_only(t *testing.T) {
	exectest.UserNamespaces(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policies := map[string]string{"plain": "", "fake_root": "program: {uid: 0, gid: 0}"}
		if u.Root() {
			policies["capable"] = capable
		}
		for name, more := range policies {
			g := private(more)
			g.Write = append(g.Write, "/proc", "/sys")
			g.Read = append(g.Read, "/sys")
			r, artifact := b.Compile(b.Base(g))
			if r.Code != 0 {
				t.Fatal(r.Stderr)
			}
			t.Run(name, func(t *testing.T) {
				b := b.In(t)
				for _, file := range []string{
					"/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe",
					"/proc/sys/vm/drop_caches", "/proc/sys/kernel/ns_last_pid", "/proc/sys/user/max_user_namespaces", "/proc/sys/net/ipv4/ip_forward",
					"/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/self/root/proc/sys/kernel/hostname", "/proc/sys/kernel/shmmax",
				} {
					if _, err := os.Stat(file); err != nil {
						continue
					}
					if got := b.Attempt(artifact, "openat", file, "w"); !refusedAs(got, []string{"errno EROFS", "errno EACCES", "errno EPERM"}) {
						t.Errorf("%s: %q", file, got)
					}
				}
				for _, file := range []string{"/proc/self/oom_score_adj", "/proc/self/comm"} {
					if got := b.Attempt(artifact, "openat", file, "w"); got != "ok" {
						t.Errorf("%s: %q, want ok", file, got)
					}
				}
				wantRun(t, b.Sh(artifact, "read name < /proc/sys/kernel/ostype; echo $name"), 0, "Linux")
			})
		}
		if got := b.RootControl("openat", "/proc/sys/kernel/hostname", "w"); got != "ok" {
			t.Errorf("outside: %q", got)
		}
	})
}

// Number 36: who else runs is not to be seen, in any way.
func Test_namespaces_supervisor_8_36_other_processes(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(private("")))
		script := `
import os, sys
host = int(sys.argv[1])
def outcome(f, *a):
    try: return f(*a)
    except OSError as e: return e.strerror
print(sorted(int(n) for n in os.listdir("/proc") if n.isdigit()) == [os.getpid()], os.getpid(), os.getppid())
wrong = []
for pid in list(range(0, 2)) + list(range(3, 400)) + [host, os.getppid(), 4194303]:
    for name in "", "/cmdline", "/status", "/stat", "/fd", "/task":
        for how in os.stat, os.listdir, lambda p: open(p).read(), os.readlink:
            got = outcome(how, "/proc/%d%s" % (pid, name))
            if got != "No such file or directory":
                wrong.append((pid, name, got))
print(wrong)
print("Pid:\t2" in open("/proc/self/status").read(), os.readlink("/proc/self"), os.readlink("/proc/thread-self"))
print([n for n in ("/proc/self/cmdline", "/proc/self/environ", "/proc/self/maps", "/proc/self/mem", "/proc/self/fd") if isinstance(outcome(os.stat, n), str)])
`
		wantRun(t, b.Run(artifact, py, "-c", script, fmt.Sprint(os.Getpid())), 0, "True 2 0\n[]\nTrue 2 2/task/2\n[]")
		// Numbers 31 and 35: nothing of it is in the way of the rest. The kernel's own list of mounts is shown, see docs/policy.md.
		wantRun(t, b.Sh(artifact, "cat /proc/version /proc/uptime /proc/loadavg /proc/filesystems /proc/self/mountinfo >/dev/null; echo $?"), 0, "0")
		if r := b.Sh(artifact, "cat /proc/mounts /proc/self/mountinfo /proc/self/mountstats"); strings.Contains(r.Stdout, b.Outside) || strings.Contains(r.Stdout, "sandlock") {
			t.Errorf("mounts tell of the executor:\n%s", r.Stdout)
		}
	})
}

// Numbers 26, 27 and 30: what limits say of the machine, under every name, without a call that is looked at.
func Test_namespaces_supervisor_8_26_27_30_machine_files(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		bigMachine(t, b)
		g := private(`limits: {num_cpus: 1, memory: "1G"}`)
		g.Read = append(g.Read, "/sys")
		artifact := b.Policy(b.Base(g))
		wantRun(t, b.Sh(artifact, "grep -c ^processor /proc/cpuinfo; nproc; grep MemTotal: /proc/meminfo; cat /sys/devices/system/cpu/online; grep -c '^cpu[0-9]' /proc/stat"), 0,
			"1\n1\nMemTotal:        "+memTotal+" kB\n0\n1")
		args := []string{py, "-c", everywhere(`
def right(f):
    if target == "/proc/cpuinfo": return f.count("processor\t:") == 1
    if target == "/proc/meminfo": return " 1048576 kB" in f
    if target == "/proc/stat": return "cpu0 " in f and "cpu1 " not in f
    return f == "0\n"
print({n for n, how in names.items() for g in (content, reopened) if not right(outcome(lambda: how(g)))} or "right", {outcome(lambda: how(written)) for how in names.values()} <= {'Permission denied', 'Read-only file system'})
`), "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu/online", "/sys/devices/system/cpu/possible", "/sys/devices/system/cpu/present"}
		wantRun(t, b.Run(artifact, args...), 0, strings.TrimSpace(strings.Repeat("right True\n", len(args)-3)))
		if r := b.Run("", args...); r.Code != 0 || strings.Contains(r.Stdout, "right") {
			t.Errorf("outside: exit %d, %q, want another machine\n%s", r.Code, r.Stdout, r.Stderr)
		}
		wantRun(t, b.Run(artifact, py, "-c", `
import time
def free(): return int([l for l in open("/proc/meminfo") if l.startswith("MemFree:")][0].split()[1])
def moves(what):
    for _ in range(100):
        if what(): return True
        time.sleep(0.01)
before = free()
block = bytearray(200 << 20)
grown = moves(lambda: before - free() >= 200 << 10)
print(grown)
one = open("/proc/uptime").read(); time.sleep(0.05)
print(open("/proc/uptime").read() != one, len(open("/proc/loadavg").read().split()))
`), 0, "True\nTrue 5")
		program, err := exec.Load(artifact)
		if err != nil {
			t.Fatal(err)
		}
		noOpens(t, program.Program)
	})
}

// noOpens wants no call that opens files to be notified: the kernel alone serves them.
func noOpens(t *testing.T, p *ir.Program) {
	t.Helper()
	for i := range p.Seccomp.Filters {
		for _, name := range []string{"open", "openat", "openat2", "newfstatat", "statx", "readlinkat", "getdents64", "uname", "execve"} {
			nr, ok := abi.SyscallNumber(p.Seccomp.Filters[i].Arch, name)
			if !ok {
				continue
			}
			if query.Syscall(p.Seccomp.Filters[i].Table, uint32(nr), [6]uint64{}).Action == ir.Notify {
				t.Errorf("%s is notified", name)
			}
		}
	}
}

// Numbers 43 and 44: the hostname, however one asks.
func Test_namespaces_supervisor_8_43_44_hostname(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(private("name: \"box-of-mine\"")))
		wantRun(t, b.Sh(artifact, "hostname; uname -n; cat /etc/hostname /proc/sys/kernel/hostname"), 0, strings.TrimSpace(strings.Repeat("box-of-mine\n", 4)))
		for _, file := range []string{"/etc/hostname", "/proc/sys/kernel/hostname"} {
			r := b.Run(artifact, py, "-c", spellings+`print({outcome(lambda: how(f)) for how in names.values() for f in (content, reopened)})`, file)
			wantRun(t, r, 0, `{'box-of-mine\n'}`)
		}
		wantRun(t, b.Run(artifact, py, "-c", "import os, socket; print(os.uname().nodename, socket.gethostname())"), 0, "box-of-mine box-of-mine")
		if host, err := os.Hostname(); err != nil || host == "box-of-mine" {
			t.Errorf("outside: %q, %v", host, err)
		}
	})
}

// Number network 43: the hosts file, and 40: no network device but the loopback one where the policy has no network.
func Test_namespaces_network_6_40_43_hosts_and_devices(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(b.Base(private("")))
		for policy, want := range map[string]string{
			artifact: "127.0.0.1 localhost\n::1 localhost\n", b.Policy(b.Base(private(pinned))): pinnedFile,
		} {
			r := b.Run(policy, py, "-c", spellings+`print({outcome(lambda: how(f)) for how in names.values() for f in (content, reopened)} == {sys.argv[2]}, {outcome(lambda: how(written)) for how in names.values()})`, "/etc/hosts", want)
			if got := strings.TrimSpace(r.Stdout); r.Code != 0 || got != "True {'Permission denied'}" && got != "True {'Read-only file system'}" {
				t.Errorf("exit %d, %q\n%s", r.Code, r.Stdout, r.Stderr)
			}
		}
		devices := `
import socket
print([l.split(":")[0].strip() for l in open("/proc/net/dev").readlines()[2:]], {l.split()[-1] for l in open("/proc/net/if_inet6")} <= {"lo"}, [n for _, n in socket.if_nameindex()])
print(sorted({f.name for f, *_ in socket.getaddrinfo(None, 443, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE | socket.AI_ADDRCONFIG)}))
print(sorted({f.name for f, *_ in socket.getaddrinfo("localhost", 443, 0, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)}))`
		wantRun(t, b.Run(artifact, py, "-c", devices), 0, "['lo'] True ['lo']\n['AF_INET', 'AF_INET6']\n['AF_INET', 'AF_INET6']")
		wantRun(t, b.Sh(artifact, "cat /proc/net/tcp /proc/net/udp /proc/net/unix /proc/net/route | grep -vc '[a-z]'; true"), 0, "0")
	})
}

// With a network policy the host's network is there, and what is allowed of it.
func Test_namespaces_with_a_network(t *testing.T) {
	py := python(t)
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		l := listen(t, "tcp4", "127.0.0.1:0")
		other := listen(t, "tcp4", "127.0.0.1:0")
		artifact := b.Policy(b.Base(private(fmt.Sprintf("network: allow: [\"tcp://127.0.0.1:%s\"]", port(l)))))
		connect := `
import socket, sys
for p in sys.argv[1:]:
    try: print(socket.create_connection(("127.0.0.1", int(p)), 10).getpeername()[0])
    except OSError as e: print(e.errno)
`
		want := fmt.Sprintf("127.0.0.1\n%d", unix.ECONNREFUSED)
		r := b.Run(artifact, py, "-c", connect, port(l), port(other))
		if got := strings.TrimSpace(r.Stdout); r.Code != 0 || got != want && got != fmt.Sprintf("127.0.0.1\n%d", unix.EACCES) {
			t.Errorf("exit %d, %q\n%s", r.Code, r.Stdout, r.Stderr)
		}
		if got := l.seen(t); got != 1 {
			t.Errorf("the listener saw %d connections, want 1", got)
		}
		// Without one there is nothing to reach, and a server of its own is there for its own.
		r = b.Run(b.Policy(b.Base(private(""))), py, "-c", connect, port(l))
		wantRun(t, r, 0, fmt.Sprint(int(unix.EACCES)))
		bound := b.Policy(b.Base(private(`network: {allow: ["tcp://127.0.0.1:8099"], allow_bind: ["8099"]}`)))
		wantRun(t, b.Run(bound, py, "-c", `
import socket, threading
s = socket.create_server(("127.0.0.1", 8099))
threading.Thread(target=lambda: s.accept()[0].sendall(b"hello")).start()
print(socket.create_connection(("127.0.0.1", 8099), 10).recv(5))`), 0, "b'hello'")
	})
}
