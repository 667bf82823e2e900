package main_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

func Test_network_6_5_63_limits(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		policy := p.policy(hosts, fmt.Sprintf(`$TLS
ports: [%s, %s], allow: ["* api.test/*"]
limits: {header_bytes: "4K", body_bytes: "1000", connections: 8, header_time: "700ms", idle: "1500ms"}`, up.plain, up.secure))
		got := p.python(policy, `
plain, secure = sys.argv[1:]
def statuses(text, **more): return [a[0] for a in raw(text, plain, **more)]
HEAD = "GET / HTTP/1.1\r\nHost: api.test\r\n"
END = "Connection: close\r\n\r\n"
print("header:", statuses(HEAD + "X: " + "x" * 3000 + "\r\n" + END), statuses(HEAD + "X: " + "x" * 9000 + "\r\n" + END), statuses(HEAD + "X: x\r\n" * 2000 + END))
print("target:", statuses("GET /" + "x" * 9000 + " HTTP/1.1\r\nHost: api.test\r\n" + END))
POST = "POST / HTTP/1.1\r\nHost: api.test\r\n"
print("body:", statuses(POST + "Content-Length: 1000\r\n" + END + "x" * 1000), statuses(POST + "Content-Length: 1001\r\n" + END + "x" * 1001))
print("chunks:", statuses(POST + "Transfer-Encoding: chunked\r\n" + END + "3e8\r\n" + "x" * 1000 + "\r\n0\r\n\r\n"),
    statuses(POST + "Transfer-Encoding: chunked\r\n" + END + "3e8\r\n" + "x" * 1000 + "\r\n1\r\nx\r\n0\r\n\r\n"))
def slow(data=b"", tls=None, drip=b"", unfinished=False):
    "how long until the proxy closes"
    since = time.time()
    s = socket.create_connection(("127.0.0.1", int(secure if tls else plain)), timeout=60)
    if tls and not unfinished: s = context().wrap_socket(s, server_hostname=tls)
    with s:
        try:
            s.sendall(data)
            s.settimeout(0.05)
            while time.time() - since < 15:
                try:
                    if not s.recv(4096): break
                except TimeoutError: 
                    if drip: s.sendall(drip)
        except (OSError, ssl.SSLError): pass
    return time.time() - since
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    runs = {what: pool.submit(lambda a=a: slow(**a)) for what, a in {
        "nothing": {}, "half a head": {"data": HEAD.encode()}, "slow head": {"data": HEAD.encode(), "drip": b"X: y\r\n"}, "nothing by TLS": {"tls": "api.test"},
        "half a hello": {"data": b"\x16\x03\x01\x02\x00\x01", "tls": "x", "unfinished": True}, "idle": {"data": HEAD.encode() + b"\r\n"},
    }.items()}
    for what, run in runs.items():
        took = run.result()
        print(what + ":", "closed in time" if 0.5 < took < 6 else took)
held = [reach(plain) for _ in range(8)]
for s in held: s.sendall(HEAD.encode() + b"\r\n")
print("held:", [one(reader(s))[0].status for s in held] == [200] * 8)
def more():
    s = reach(plain)
    try: s.sendall(HEAD.encode() + b"\r\n"); return s.recv(100) or "closed"
    except ConnectionError: return "closed"
print("one more:", more())
held.pop().close(); time.sleep(0.2)
print("after one has ended:", statuses(HEAD + END))
`, up.plain, up.secure)
		wantOutput(t, got, `header: [200] [431] [431]
target: [431]
body: [200] [413]
chunks: [200] [413]
nothing: closed in time
half a head: closed in time
slow head: closed in time
nothing by TLS: closed in time
half a hello: closed in time
idle: closed in time
held: True
one more: closed
after one has ended: [200]`)
	})
}

// modest is what the helper may need beside what a Go program needs, in kB.
const modest = 192 << 10

// 63: many connections that do nothing. Their memory is the kernel's for the most part.
func Test_network_6_5_63_idle_connections(t *testing.T) {
	asOne(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		policy := p.policy(hosts, fmt.Sprintf("$TLS\nports: [%s, %s], allow: [\"* api.test/*\"]\nlimits: {connections: 2000, header_time: \"5m\"}", up.plain, up.secure))
		r := p.run(p.opts(policy, waiting+`
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
plain, secure = sys.argv[1:]
ask = b"GET /x HTTP/1.1\r\nHost: api.test\r\n\r\n"
first = reach(plain)
first.sendall(ask); print(one(reader(first))[0].status)
step("ready")
held = [reach(plain) for _ in range(1000)]
for s in held[:500]: s.sendall(ask)
print([one(reader(s))[0].status for s in held[:500]] == [200] * 500)
held += [reach(secure, tls="api.test") for _ in range(100)]
step("held")
for s in (held[0], held[700], held[-1]):
    s.sendall(ask); print(one(reader(s))[0].status)
for s in held: s.close()
step("closed")
`, up.plain, up.secure))
		before := map[int]int{r.executor: statusOf(t, r.executor, "VmRSS"), r.helper: statusOf(t, r.helper, "VmRSS")}
		r.goOn("ready")
		r.wait("held")
		grown := statusOf(t, r.executor, "VmRSS") - before[r.executor]
		if grown > 16<<10 {
			t.Errorf("the executor has grown by %d kB", grown)
		}
		helper := statusOf(t, r.helper, "VmRSS") - before[r.helper]
		if helper > 100<<10 {
			t.Errorf("the helper has grown by %d kB", helper)
		}
		t.Logf("1100 connections: executor +%d kB, helper +%d kB", grown, helper)
		r.goOn("held")
		r.wait("closed")
		if exectest.Self().Root() {
			exectest.Within(t, 20*time.Second, "the helper lets all go", func() bool {
				entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.helper))
				return err == nil && len(entries) < 300 // connections to servers are kept
			})
		}
		r.goOn("closed")
		wantOutput(t, r.Wait(t).Stdout, "200\nTrue\n200\n200\n200")
	})
}

// 63: each name of a server costs a certificate, and their number is the sandbox's choice.
func Test_network_6_5_63_many_names(t *testing.T) {
	asOne(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		p.reads = append(p.reads, goClientDir(t))
		policy := p.policy(fmt.Sprintf("allow: [\"127.0.0.1:%s\"]", up.secure), fmt.Sprintf("$TLS\nports: [%s], allow: [\"GET */*\"]", up.secure))
		const names = 10000
		o := p.Opts(policy, "/bin/sh", "-c", `"$0" "$@" && touch ready && while [ ! -e ready.done ]; do sleep 0.05; done`,
			goClientDir(t)+"/client", goClientArg, "names", up.secure, strconv.Itoa(names))
		r := p.run(o)
		most := statusOf(t, r.helper, "VmHWM")
		if most > modest {
			t.Errorf("the helper had %d kB", most)
		}
		t.Logf("%d names: helper %d kB at most", names, most)
		r.goOn("ready")
		wantOutput(t, r.Wait(t).Stdout, fmt.Sprintf("map[ok:%d]", names))
		if n := up.count(); n > 0 {
			t.Errorf("%d requests came to the server", n)
		}
	})
}

// Large bodies pass in both directions, and are kept nowhere: 1 GiB, or as many as SANDLOCK_TEST_BODY_GIB says.
func Test_http_large_bodies(t *testing.T) {
	asOne(t, func(t *testing.T, p *place) {
		size := int64(1 << 30)
		if n, err := strconv.Atoi(os.Getenv("SANDLOCK_TEST_BODY_GIB")); err == nil {
			size = int64(n) << 30
		}
		up := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, 256<<10))
				fmt.Fprint(w, n, err)
				return
			}
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
			_, _ = io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(zeros{}, size), make([]byte, 256<<10))
		})
		p.reads = append(p.reads, goClientDir(t))
		policy := p.policy(hosts, fmt.Sprintf("$TLS\nports: [%s, %s], allow: [\"* api.test/*\"]", up.plain, up.secure))
		var commands strings.Builder
		want := ""
		for _, url := range []string{"http://api.test:" + up.plain, "https://api.test:" + up.secure} {
			n := size
			if strings.HasPrefix(url, "https") {
				n = size / 8 // what is encrypted twice takes long
			}
			if strings.HasPrefix(url, "http:") {
				fmt.Fprintf(&commands, "\"$0\" %s download %s/x\n", goClientArg, url)
				want += fmt.Sprintf("200 %d\n", n)
			}
			fmt.Fprintf(&commands, "\"$0\" %s upload %s/x %d\n", goClientArg, url, n)
			want += fmt.Sprintf("200 %d <nil>\n", n)
		}
		since := time.Now()
		o := p.Opts(policy, "/bin/sh", "-c", commands.String()+"touch ready; while [ ! -e ready.done ]; do sleep 0.05; done", goClientDir(t)+"/client")
		o.Timeout = time.Duration(size>>30) * 2 * time.Minute
		r := p.run(o)
		most := statusOf(t, r.helper, "VmHWM")
		if most > 96<<10 {
			t.Errorf("the helper had %d kB", most)
		}
		t.Logf("%d bytes in %v on %d processors: helper %d kB at most", size, time.Since(since), runtime.NumCPU(), most)
		r.goOn("ready")
		wantOutput(t, r.Wait(t).Stdout, want)
	})
}
