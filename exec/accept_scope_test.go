package exec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// scopeProgram does what its first argument says; any other argument may be what a rule looks for.
const scopeProgram = `
import mmap, os, signal, subprocess, sys, threading, time

me = [sys.executable, __file__]

def forks(n=20):
    """How many of n children could live at a time."""
    children = []
    for _ in range(n):
        try:
            pid = os.fork()
        except BlockingIOError:
            continue
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(children)

def settled(n):
    """How many can live once those that have ended are no longer counted, which should be n."""
    for _ in range(40):
        time.sleep(0.1)
        now = forks()
        if now == n:
            break
    return now

def call(*args):
    r = subprocess.run(me + list(args), stdout=subprocess.PIPE, text=True)
    return r.stdout.strip() or r.returncode

def orphan(f):
    """Runs f in a session of its own, without a parent that is alive, and returns what it prints."""
    read, write = os.pipe()
    gone, alive = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            os.close(alive)
            os.read(gone, 1)
            os.dup2(write, 1)
            f()
            os._exit(0)
        os._exit(0)
    os.close(write)
    os.close(alive)
    os.wait()
    return os.read(read, 100).decode().strip() or "ended"

def hold():
    """Has as many children as there may be until told to end."""
    children = 0
    for _ in range(20):
        try:
            if os.fork() == 0:
                sys.stdin.read()
                os._exit(0)
            children += 1
        except BlockingIOError:
            break
    print(children, flush=True)
    sys.stdin.read()

def write_memfd():
    fd = os.memfd_create("x")
    for _ in range(200):
        os.write(fd, b"x" * (1 << 20))
    time.sleep(20)

allocate = lambda: (bytearray(b"x") * (200 << 20), print("allocated"))
modes = {
    "forks": lambda: print(forks()),
    "hold": hold,
    "allocate": allocate,
    "shared": lambda: (mmap.mmap(-1, 200 << 20), print("mapped")),
    "memfd": lambda: (write_memfd(), print("written")),
}
`

// scopePolicy has rules of scope "process" for programs with one of the arguments "few", "fewer" and "small".
func scopePolicy(b *exectest.Box) string {
	rule := func(argument, do string) string {
		return fmt.Sprintf(`{on: ["execve"], if: argv_contains: %q, do: [%s], scope: "process"}`, argument, do)
	}
	g := ruled(rule("few", "{restrict_processes: 6}"), rule("fewer", "{restrict_processes: 3}"), rule("small", `{restrict_memory: "64M"}`),
		`{on: ["open"], if: path: "`+b.Work+`/marker", do: [{restrict_memory: "64M"}], scope: "process"}`)
	g.More += "\nlimits: {memory: \"1G\", processes: 40}"
	return b.Base(g)
}

func Test_rules_scopes(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		for _, tc := range []struct{ name, script, want string }{
			{"siblings_are_free", `
p = subprocess.Popen(me + ["hold", "few"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(p.stdout.readline().strip(), forks(), call("forks"), call("forks", "fewer"))
p.communicate()
print(forks(), call("forks", "few"))`, "5 20 20 2\n20 5"},
			{"scopes_within_scopes", `
modes["nested"] = lambda: print(call("forks", "fewer"), call("forks"), forks())
def full():
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    print(call("forks", "fewer"), forks())
    [p.kill() for p in children]
modes["full"] = full
print(call("nested", "few"))
print(call("full", "few"))`, "2 4 5\n1 2"},
			{"same_rule_again", `
modes["again"] = lambda: print(call("forks", "few"), forks())
print(call("again", "few"))`, "4 5"},
			{"orphans", `
modes["orphan"] = lambda: print(orphan(lambda: print(forks(), flush=True)), orphan(lambda: os.execv(me[0], me + ["forks"])))
print(call("orphan", "few"), orphan(lambda: print(forks(), flush=True)))`, "4 4 20"},
			{"hidden", `
import ctypes
modes["hidden"] = lambda: (ctypes.CDLL(None).prctl(4, 0, 0, 0, 0), print(forks()))  # PR_SET_DUMPABLE
print(call("hidden", "few"))`, "5"},
			{"threads", `
def threads():
    children, lock = [], threading.Lock()
    def fork():
        try:
            p = subprocess.Popen(["sleep", "60"])
            with lock:
                children.append(p)
        except BlockingIOError:
            pass
    for _ in range(3):
        all = [threading.Thread(target=fork) for _ in range(8)]
        [t.start() for t in all]
        [t.join() for t in all]
        print(0 < len(children) <= 5, end=" ")
    [p.kill() for p in children]
modes["threads"] = threads
print(call("threads", "few"))`, "True True True"},
			{"no_drift", `
def many():
    for i in range(400):
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    for i in range(100):
        if os.fork() == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.wait()
    print(settled(5), end=" ")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    done = 0
    while done < 400:
        try:
            if os.fork() == 0:
                os._exit(0)
            done += 1
        except BlockingIOError:
            time.sleep(0.001)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    print(settled(5))
modes["many"] = many
print(call("many", "few"))`, "5 5"},
			{"many_scopes", `
for i in range(100):
    if subprocess.call(["/bin/true", "few"]) != 0:
        print("failed", i)
print(call("forks", "few"), forks())`, "5 20"},
			{"memory", `
large = bytearray(b"x") * (300 << 20)  # the largest process is outside, and stays
print(call("allocate", "small"), call("shared", "small"), call("memfd", "small"), call("allocate"), call("shared"), call("allocate", "few"))`,
				"-9 -9 -9 allocated mapped allocated"},
			{"memory_of_descendants", `
modes["orphan"] = lambda: print(orphan(allocate), orphan(lambda: os.execv(me[0], me + ["allocate"])))
def children():
    pids = []
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            data = bytearray(b"x") * (20 << 20)
            time.sleep(60)
        pids.append(pid)
    killed = []
    for _ in range(100 if "small" in sys.argv else 10):
        time.sleep(0.1)
        killed += [p for p in pids if p not in killed and os.waitpid(p, os.WNOHANG) != (0, 0)]
        if len(killed) > 1:
            break
    time.sleep(0.2)
    killed += [p for p in pids if p not in killed and os.waitpid(p, os.WNOHANG) != (0, 0)]
    print(2 <= len(killed) <= 3, len(killed))
    [os.kill(p, 9) for p in pids if p not in killed]
modes["children"] = children
print(call("orphan", "small"), orphan(lambda: (allocate(), sys.stdout.flush())))
print(str(call("children", "small")).split()[0], str(call("children")))`, "ended ended allocated\nTrue False 0"},
			{"memory_of_a_parent_outside", `
data = bytearray(b"x") * (300 << 20)
def child(more):
    pid = os.fork()
    if pid == 0:
        open("marker")
        time.sleep(1.2)
        if more:
            b = bytearray(b"x") * (200 << 20)
            time.sleep(20)
        os._exit(0)
    return os.waitpid(pid, 0)[1]
open_ended = child(False), child(True)
print(open_ended, len(data) >> 20)`, "(0, 9) 300"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				b := exectest.NewBox(t, u)
				b.File(b.Work+"/marker", "")
				// Modes are defined before the one that is asked for is run; the command itself asks for none.
				file := b.File(b.Work+"/program.py", scopeProgram+splitScript(tc.script))
				wantRun(t, b.Run(b.Policy(scopePolicy(b)), py, file), 0, tc.want)
			})
		}
	})
}

// splitScript has a script's modes defined in every process, and the rest of it run by the command only.
func splitScript(script string) string {
	var common, rest []string
	body := false
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		if !strings.HasPrefix(line, " ") {
			body = strings.HasPrefix(line, "import ") || strings.HasPrefix(line, "def ") || strings.HasPrefix(line, "modes[")
		}
		if body {
			common = append(common, line)
		} else {
			rest = append(rest, line)
		}
	}
	return strings.Join(common, "\n") + "\nif len(sys.argv) > 1:\n    modes[sys.argv[1]]()\n    sys.exit()\n" + strings.Join(rest, "\n") + "\n"
}

func Test_rules_scope_in_the_audit_stream(t *testing.T) {
	py := python(t)
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(scopePolicy(b))
		file := b.File(b.Work+"/program.py", scopeProgram+splitScript(`print(call("forks", "fewer"), call("allocate", "small"))`))
		r, lines := runAudited(t, b, artifact, py, file)
		if got := strings.TrimSpace(r.Stdout); got != "2 -9" {
			t.Fatalf("printed %q\n%s", got, r.Stderr)
		}
		want := map[string]string{"EAGAIN": "rules[1]", "SIGKILL": "rules[2]"}
		for _, l := range lines {
			if l["event"] != "limit" {
				continue
			}
			verdict := fmt.Sprint(l["verdict"])
			if rule, ok := want[verdict]; ok && (l["rule"] != rule || !strings.Contains(fmt.Sprint(l["origin"]), ".cue:")) {
				t.Errorf("%s by %v, want %s", verdict, l, rule)
			}
			delete(want, verdict)
		}
		if len(want) > 0 {
			t.Errorf("no line for %v", want)
		}
		if said := "the sandbox reached rules[2]: restrict_memory (64M): 1 of its processes were killed"; !strings.Contains(r.Stderr, said) {
			t.Errorf("stderr %q, want %q", r.Stderr, said)
		}
	})
}

// What processes of a scope are known by is not theirs to change, and looking at it is no secret.
func Test_escape_scope_marks(t *testing.T) {
	exectest.InParallel(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		artifact := b.Policy(scopePolicy(b))
		dirty := fmt.Sprint(uint64(1)<<32 | 10)
		for _, tc := range []struct {
			args       []string
			want, free string
		}{
			{[]string{"call", "setrlimit", "10", "b:16"}, "errno EPERM", "ok"},
			{[]string{"call", "setrlimit", dirty, "b:16"}, "errno EPERM", "ok"},
			{[]string{"call", "prlimit64", "0", "10", "b:16", "0"}, "errno EPERM", "ok"},
			{[]string{"call", "prlimit64", "0", dirty, "b:16", "0"}, "errno EPERM", "ok"},
			{[]string{"call", "prlimit64", "0", "10", "b:16", "b:16"}, "errno EPERM", "ok"},
			{[]string{"call", "prlimit64", "0", "10", "0", "b:16"}, "ok", "ok"},
			{[]string{"call", "getrlimit", "10", "b:16"}, "ok", "ok"},
			{[]string{"call", "prlimit64", "0", "4", "b:16", "0"}, "ok", "ok"},
		} {
			if got := b.Attempt(artifact, tc.args...); got != tc.want {
				t.Errorf("probe %q = %q, want %q", tc.args, got, tc.want)
			}
			if got := b.Control(tc.args...); got != tc.free {
				t.Errorf("outside: probe %q = %q, want %q", tc.args, got, tc.free)
			}
		}
	})
}
