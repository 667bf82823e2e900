package main_test

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// running is a sandbox that goes on until it is told to end.
type running struct {
	*exectest.Process
	executor, helper int // process ids
	p                *place
}

// run starts a command, and waits until it is ready.
func (p *place) run(o exectest.Opts) *running {
	p.t.Helper()
	r := &running{Process: exectest.Start(p.t, o), p: p}
	r.executor = r.Cmd.Process.Pid
	limit := o.Timeout
	if limit == 0 {
		limit = time.Minute
	}
	exectest.Within(p.t, limit, "the command is ready", func() bool { return r.at("ready") })
	exectest.Within(p.t, 10*time.Second, "the helper runs", func() bool {
		r.helper = childOf(r.executor, "sandlock-proxy")
		return r.helper > 0
	})
	return r
}

// waiting are the words of scripts that a test leads step by step: they make a file and wait for another.
const waiting = `
WORK = os.environ["HOME"]
def step(name):
    open(WORK + "/" + name, "x").close()
    end = time.time() + 40
    while not os.path.exists(WORK + "/" + name + ".done"):
        if time.time() > end: sys.exit("nobody goes on: " + name)
        time.sleep(0.005)
`

// wait waits for a step of the script.
func (r *running) wait(step string) {
	r.p.t.Helper()
	exectest.Within(r.p.t, 2*time.Minute, "the script comes to "+step, func() bool { return r.at(step) })
}

// at reports whether the command has come to a step.
func (r *running) at(step string) bool {
	_, err := os.Stat(filepath.Join(r.p.Work, step))
	return err == nil
}

func (r *running) goOn(step string) {
	r.p.t.Helper()
	r.p.File(filepath.Join(r.p.Work, step+".done"), "")
}

// childOf finds a child by its name.
func childOf(pid int, name string) int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(b)) {
			comm, _ := os.ReadFile("/proc/" + field + "/comm")
			if strings.HasPrefix(strings.TrimSpace(string(comm)), name) {
				child, _ := strconv.Atoi(field)
				return child
			}
		}
	}
	return 0
}

func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "Z")
}

// statusOf reads a number of kB from /proc/PID/status.
func statusOf(t *testing.T, pid int, field string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + field + `:\s+(\d+)`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no %s in %s", field, b)
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// listening returns the ports on which a process listens. Only root may ask about processes that are not dumpable.
func listening(t *testing.T, pid int) (ports []int) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	inodes := map[string]bool{}
	for _, link := range links {
		to, _ := os.Readlink(link)
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == "0A" && inodes[f[9]] {
			_, number, _ := strings.Cut(f[1], ":")
			p, _ := strconv.ParseUint(number, 16, 16)
			ports = append(ports, int(p))
		}
	}
	return ports
}

func needsRoot(t *testing.T) {
	t.Helper()
	if !exectest.Self().Root() {
		t.Skip("looks into processes that are not dumpable: needs root")
	}
}

// 63: the executor's listener is for the connections of its own sandbox, which it has made itself.
func Test_network_6_5_63_strangers(t *testing.T) {
	needsRoot(t)
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		policy := p.policy(`allow: ["127.0.0.1:*"]`, fmt.Sprintf(`ports: [%s], allow: ["GET 127.0.0.1/*"]
credentials: c: source: "file:%s", auth: [{rule: "* 127.0.0.1", credential: "c", as: "bearer", plain: true}]`, up.plain, p.File(p.Outside+"/key", "SECRET")))
		const ask = `
def stranger(port):
    s = socket.create_connection(("127.0.0.1", int(port)), timeout=60)
    try: s.sendall(b"GET /stranger HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n\r\n" % sys.argv[1].encode())
    except OSError: return "closed"
    try: return s.recv(100) or "closed"
    except ConnectionResetError: return "closed"
`
		o := p.opts(policy, waiting+ask+`
s = reach(sys.argv[1])
s.sendall(b"GET /1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); print(one(reader(s))[0].status)
step("ready")
print("child:", stranger(open(WORK + "/port").read()))
print(get("/2", "127.0.0.1", sys.argv[1])[0])
`, up.plain)
		r := p.run(o)
		ports := listening(t, r.executor)
		if len(ports) != 1 {
			t.Fatalf("the executor listens on %v", ports)
		}
		for _, u := range []exectest.User{p.User, {UID: 12345, GID: 12345}, {}} {
			o := exectest.Opts{User: u, Args: []string{python(t), "-c", prelude + ask + "print(stranger(sys.argv[2]))", up.plain, strconv.Itoa(ports[0])}, Dir: "/"}
			if got := exectest.Run(t, o); strings.TrimSpace(got.Stdout) != "closed" {
				t.Errorf("uid %d: %q %s", u.UID, got.Stdout, got.Stderr)
			}
		}
		p.File(p.Work+"/port", strconv.Itoa(ports[0]))
		r.goOn("ready")
		wantOutput(t, r.Wait(t).Stdout, "200\nchild: closed\n200")
		if got := up.uris(); !slices.Equal(got, []string{"GET /1", "GET /2"}) {
			t.Errorf("to the server came %q", got)
		}
	})
}

// escape 46, 49: without the helper nothing falls through.
func Test_escape_46_helper_killed(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up, other := serve(t, nil), serve(t, nil)
		policy := p.policy(hosts+fmt.Sprintf(", allow: [\"127.0.0.1:%s\"]", other.plain),
			fmt.Sprintf("$TLS\nports: [%s, %s], allow: [\"GET 127.0.0.1/*\", \"GET api.test/*\", {rule: \"* opaque.test\", tls: \"passthrough\"}]", up.plain, up.secure))
		o := p.opts(policy, waiting+`
plain, secure, other = sys.argv[1:]
a, b = reach(plain), reach(secure, tls="api.test")
def ask(s):
    s.sendall(b"GET /x HTTP/1.1\r\nHost: %s\r\n\r\n" % (b"127.0.0.1" if s is a else b"api.test"))
    try: return one(reader(s))[0].status
    except http.client.RemoteDisconnected: return "closed"
def closed(f):
    try: return f()
    except (ConnectionResetError, BrokenPipeError, ssl.SSLError, EOFError): return "closed"
print(ask(a), ask(b))
step("ready")
print(closed(lambda: ask(a)), closed(lambda: ask(b)))
for _ in range(3):
    attempt("new:", lambda: reach(plain))
    attempt("new, TLS:", lambda: reach(secure))
print("not intercepted:", get("/y", "x", other)[0])
`, up.plain, up.secure, other.plain)
		audit := p.Outside + "/audit.jsonl"
		o.Flags = []string{"--audit", audit}
		r := p.run(o)
		if err := syscall.Kill(r.helper, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		exectest.Within(t, 10*time.Second, "the executor sees the end of the helper", func() bool {
			b, err := os.ReadFile(audit)
			return err == nil && strings.Contains(string(b), "requests are no longer served")
		})
		r.goOn("ready")
		got := r.Wait(t)
		wantOutput(t, got.Stdout, "200 200\nclosed closed\n"+strings.Repeat("new: ECONNREFUSED\nnew, TLS: ECONNREFUSED\n", 3)+"not intercepted: 200")
		if got.Code != 0 {
			t.Errorf("exit %d: %s", got.Code, got.Stderr)
		}
		if n := up.count(); n != 2 {
			t.Errorf("%d requests came to the server, want 2", n)
		}
	})
}

// escape 49: no memory of either process comes out: they cannot be looked into, and leave no core file.
func Test_escape_49_processes(t *testing.T) {
	needsRoot(t)
	asUsers(t, func(t *testing.T, p *place) {
		const secret = "NEVERSEEN0123456789"
		up := serve(t, nil)
		policy := p.policy(hosts, fmt.Sprintf(`$TLS
ports: [%s], allow: ["* api.test/*"]
credentials: {api: source: "env:API_TOKEN", unused: source: "env:UNUSED_TOKEN"}
auth: [{rule: "* api.test", credential: "api", as: "bearer"}]`, up.secure))
		start := func(name, trace string) (*place, *running) {
			p := *p
			p.Box = p.In(p.t)
			p.Work = p.Dir("work/" + name)
			o := p.opts(policy, waiting+"print(get('/x', 'api.test', sys.argv[1], tls='api.test')[0], flush=True)\nstep('ready')", up.secure)
			o.Env = append(o.Env, "API_TOKEN="+secret, "UNUSED_TOKEN=UNUSED"+secret, "GOTRACEBACK="+trace)
			o.Wrap = []string{"/bin/sh", "-c", `ulimit -c unlimited; exec "$@"`, "sh"}
			r := p.run(o)
			return &p, r
		}
		for i, tc := range []struct {
			name, trace string
			signal      syscall.Signal
			of          func(*running) int
		}{
			{"helper, ABRT", "crash", syscall.SIGABRT, func(r *running) int { return r.helper }},
			{"helper, SEGV", "crash", syscall.SIGSEGV, func(r *running) int { return r.helper }},
			// With "crash" the runtime takes long to gather all threads.
			{"executor, ABRT", "all", syscall.SIGABRT, func(r *running) int { return r.executor }},
		} {
			q, r := start(fmt.Sprint("run", i), tc.trace)
			for who, pid := range map[string]int{"executor": r.executor, "helper": r.helper} {
				environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
				if err != nil || strings.Contains(string(environ), secret) {
					t.Errorf("environment of the %s: %q, %v", who, environ, err)
				}
				command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				if strings.Contains(string(command), secret) {
					t.Errorf("arguments of the %s: %q", who, command)
				}
				// As its own user.
				o := exectest.Opts{User: exectest.Ordinary(), Dir: "/", Args: []string{"/bin/sh", "-c", fmt.Sprintf(
					"cat /proc/%d/environ; head -c 1 /proc/%d/mem; ls /proc/%d/fd", pid, pid, pid)}}
				if got := exectest.Run(t, o); got.Stdout != "" || strings.Count(got.Stderr, "Permission denied") != 3 {
					t.Errorf("an ordinary user may look into the %s: %q %q", who, got.Stdout, got.Stderr)
				}
			}
			helper := r.helper
			if err := syscall.Kill(tc.of(r), tc.signal); err != nil {
				t.Fatal(err)
			}
			exectest.Within(t, 10*time.Second, tc.name+": the helper ends", func() bool { return gone(helper) })
			r.goOn("ready")
			got := r.Wait(t)
			if strings.Contains(got.Stderr, secret) {
				t.Errorf("%s: the secret is in what is printed", tc.name)
			}
			if !strings.Contains(got.Stdout, "200") {
				t.Errorf("%s: printed %q %s", tc.name, got.Stdout, got.Stderr)
			}
			for _, dir := range []string{q.Work, filepath.Dir(policy)} {
				_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
					if d != nil && strings.HasPrefix(d.Name(), "core") {
						t.Errorf("%s: left %s", tc.name, path)
					}
					return nil
				})
			}
		}
		for _, s := range up.take() {
			if s.Header.Get("Authorization") != "Bearer "+secret {
				t.Errorf("the server got %q", s.Header)
			}
		}
	})
}

// The helper ends with the executor, however that ends.
func Test_http_executor_killed(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		policy := p.policy("", fmt.Sprintf(`ports: [%s], allow: ["GET 127.0.0.1/*"]`, up.plain))
		r := p.run(p.opts(policy, waiting+"print(get('/x', '127.0.0.1', sys.argv[1])[0], flush=True)\nstep('ready')", up.plain))
		listens := 0
		if exectest.Self().Root() {
			listens = listening(t, r.executor)[0]
		}
		r.Signal(t, syscall.SIGKILL)
		exectest.Within(t, 10*time.Second, "the helper ends", func() bool { return gone(r.helper) })
		if listens != 0 {
			exectest.Within(t, 10*time.Second, "nobody listens", func() bool {
				conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", listens))
				if err == nil {
					conn.Close()
				}
				return err != nil
			})
		}
		r.Wait(t)
	})
}
