package exec_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// client is a program that fetches from an address of the host, whatever way it does so.
type client struct {
	name, path string
	args       []string // $ADDRESS, $HOST and $PORT stand for where
	want       string   // what it prints
	code       int      // what it exits with when it may not
}

var clients = []client{
	{"curl", "/usr/bin/curl", []string{"-sS", "--max-time", "20", "http://$ADDRESS/"}, "hello", 7},
	{"python_urllib", "/usr/bin/python3", []string{"-c", `
import sys, urllib.request
print(urllib.request.urlopen("http://$ADDRESS/").read().decode())`}, "hello", 1},
	{"python_asyncio", "/usr/bin/python3", []string{"-c", `
import asyncio
async def main():
    r, w = await asyncio.wait_for(asyncio.open_connection("$HOST", $PORT), 20)
    w.write(b"GET / HTTP/1.0\r\n\r\n")
    print((await r.read()).decode().split("\r\n\r\n")[1])
asyncio.run(main())`}, "hello", 1},
	{"python_requests", "/usr/bin/python3", []string{"-c", `
import sys
try: import requests
except ImportError: sys.exit(77)
print(requests.get("http://$ADDRESS/", timeout=20).text)`}, "hello", 1},
	{"node_fetch", "/usr/bin/node", []string{"-e", `fetch("http://$ADDRESS/").then(r => r.text()).then(console.log)`}, "hello", 1},
	{"node_net", "/usr/bin/node", []string{"-e", `
const s = require("net").connect($PORT, "$HOST", () => s.end("GET / HTTP/1.0\r\n\r\n"));
let all = ""; s.on("data", d => all += d); s.on("end", () => console.log(all.split("\r\n\r\n")[1]));`}, "hello", 1},
	{"go_http", "$GO", []string{"http", "http://$ADDRESS/"}, "hello", 1},
	{"git_http", "/usr/bin/git", []string{"ls-remote", "http://$ADDRESS/repository.git"}, strings.Repeat("1", 40) + "\trefs/heads/main", 128},
}

// Clients that people use reach what they may, and fail in their own words where they may not.
func Test_network_clients(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/repository.git/info/refs") {
			fmt.Fprintf(w, "%s\trefs/heads/main\n", strings.Repeat("1", 40))
			return
		}
		fmt.Fprint(w, "hello")
	})
	server, other := httptest.NewServer(handler), httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a request arrived where none may")
	}))
	defer server.Close()
	defer other.Close()
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		g := exectest.Grants{Read: []string{filepath.Dir(exectest.GoClient(t))}, Write: []string{"/dev/null"}}
		g.More = fmt.Sprintf("network: allow: [%q]", server.Listener.Addr())
		runClients(t, b, b.Policy(b.Base(g)), clients, server.Listener.Addr().String(), other.Listener.Addr().String())
	})
}

// runClients has each client try an address that it may reach, and one that it may not.
func runClients(t *testing.T, b *exectest.Box, policy string, clients []client, allowed, forbidden string) {
	t.Helper()
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			path := exectest.GoClient(t)
			if c.path != "$GO" {
				path = exectest.Program(t, c.path)
			}
			b := b.In(t)
			run := func(address string) exectest.Result {
				host, port, _ := net.SplitHostPort(address)
				args := replaceAll(c.args, []string{"$ADDRESS", address, "$HOST", host, "$PORT", port})
				return b.Run(policy, append([]string{path}, args...)...)
			}
			r := run(allowed)
			if r.Code == 77 {
				exectest.Lacks(t, "python3-requests")
			}
			wantRun(t, r, 0, c.want)
			if r := run(forbidden); r.Code != c.code {
				t.Errorf("where it may not: exit %d, want %d\nstdout: %s\nstderr: %s", r.Code, c.code, r.Stdout, r.Stderr)
			}
		})
	}
}

var datagramClients = []client{
	{"python", "/usr/bin/python3", []string{"-c", `
import socket
s = socket.socket(type=socket.SOCK_DGRAM)
s.settimeout(20)
s.sendto(b"hello", ("$HOST", $PORT))
print(s.recvfrom(64)[0].decode())`}, "olleh", 1},
	{"python_asyncio", "/usr/bin/python3", []string{"-c", `
import asyncio
async def main():
    done = asyncio.get_running_loop().create_future()
    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data, peer): done.set_result(data.decode())
        def error_received(self, e): done.set_exception(e)
    t, _ = await asyncio.get_running_loop().create_datagram_endpoint(Client, remote_addr=("$HOST", $PORT))
    t.sendto(b"hello")
    print(await asyncio.wait_for(done, 20))
asyncio.run(main())`}, "olleh", 1},
	{"node_dgram", "/usr/bin/node", []string{"-e", `
const s = require("dgram").createSocket("udp4");
s.on("message", m => { console.log(m.toString()); s.close(); });
s.send("hello", $PORT, "$HOST", e => { if (e) throw e; });`}, "olleh", 1},
	{"node_dgram_connected", "/usr/bin/node", []string{"-e", `
const s = require("dgram").createSocket("udp4");
s.on("message", m => { console.log(m.toString()); s.close(); });
s.connect($PORT, "$HOST", e => { if (e) throw e; s.send("hello"); });`}, "olleh", 1},
	{"go_dial", "$GO", []string{"dial", "$ADDRESS"}, "olleh", 1},
	{"go_listen", "$GO", []string{"listen", "$ADDRESS"}, "olleh", 1},
}

// The same for clients that send datagrams: the server turns round what it receives.
func Test_network_clients_datagrams(t *testing.T) {
	t.Parallel()
	server, other := echoBackwards(t), newSink(t, "udp4", "127.0.0.1:0")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		g := exectest.Grants{Read: []string{filepath.Dir(exectest.GoClient(t))}, Write: []string{"/dev/null"}}
		g.More = fmt.Sprintf("network: allow: [\"udp://%s\"]", server)
		runClients(t, b, b.Policy(b.Base(g)), datagramClients, server, other.LocalAddr().String())
		if n := other.seen(t); n > 0 {
			t.Errorf("%d datagrams have arrived where none may", n)
		}
	})
}

func echoBackwards(t *testing.T) (address string) {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			n, peer, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			slices.Reverse(buf[:n])
			_, _ = conn.WriteTo(buf[:n], peer)
		}
	}()
	return conn.LocalAddr().String()
}

// git's own protocol, server outside.
func Test_network_git_daemon(t *testing.T) {
	git := exectest.Program(t, "/usr/bin/git")
	exectest.Program(t, "/usr/lib/git-core/git-daemon")
	dir := t.TempDir()
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", dir + "/r"},
		{"-C", dir + "/r", "-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "--allow-empty", "-m", "m"},
	} {
		if out, err := exec.Command(git, args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	free := freePort(t)
	daemon := exec.Command(git, "-c", "safe.directory=*", "daemon", "--export-all", "--base-path="+dir, "--listen=127.0.0.1", "--port="+free, "--reuseaddr")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })
	exectest.Within(t, 20*time.Second, "git daemon listens", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+free)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		policy := b.Policy(b.Base(exectest.Grants{Write: []string{"/dev/null"}, More: fmt.Sprintf(`network: allow: ["tcp://127.0.0.1:%s"]`, free)}))
		r := b.Run(policy, git, "clone", "-q", "git://127.0.0.1:"+free+"/r", "clone")
		if r.Code != 0 {
			t.Errorf("clone: exit %d\n%s", r.Code, r.Stderr)
		}
		if _, err := os.Stat(b.Work + "/clone/.git/HEAD"); err != nil {
			t.Error(err)
		}
	})
}

// Servers serve on the ports that they may, to clients inside and outside.
func Test_network_redis(t *testing.T) {
	server, cli := exectest.Program(t, "/usr/bin/redis-server"), exectest.Program(t, "/usr/bin/redis-benchmark")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		free := freePort(t)
		policy := b.Policy(b.Base(exectest.Grants{Write: []string{"/dev/null"}, More: fmt.Sprintf(`network: {allow: ["tcp://127.0.0.1:%s"], allow_bind: [%[1]s]}`, free)}))
		script := fmt.Sprintf(`
%s --bind 127.0.0.1 --port %s --save "" >/dev/null & server=$!
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do redis-cli -p %[2]s ping >/dev/null 2>&1 && break; sleep 0.2; done
%s -p %[2]s -q -t ping_mbulk,get,set -n 2000 -c 50 >/dev/null || exit 1
redis-cli -p %[2]s set key value
redis-cli -p %[2]s get key
kill $server; wait $server`, server, free, cli)
		wantRun(t, b.Sh(policy, script), 0, "OK\nvalue")
	})
}

func Test_network_nginx(t *testing.T) {
	nginx, curl := exectest.Program(t, "/usr/sbin/nginx"), exectest.Program(t, "/usr/bin/curl")
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		b := exectest.NewBox(t, u)
		free := freePort(t)
		config := b.File(b.Work+"/nginx.conf", fmt.Sprintf(`
daemon off; worker_processes 2; pid %[1]s/pid; error_log stderr;
events {}
http {
	access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	server { listen 127.0.0.1:%[2]s; location / { return 200 "hello from nginx"; } }
}
`, b.Work, free))
		if u.Root() {
			// Without capabilities its workers cannot become another user.
			text, _ := os.ReadFile(config)
			b.File(config, "user root;\n"+string(text))
		}
		more := fmt.Sprintf(`network: {allow: ["tcp://127.0.0.1:%s"], allow_bind: [%[1]s], unix: "granted"}`, free)
		policy := b.Policy(b.Base(exectest.Grants{Write: []string{"/dev/null"}, More: more}))
		script := fmt.Sprintf(`
%s -e stderr -c %s 2>log & server=$!
%s -sS --retry 40 --retry-connrefused --retry-delay 0 http://127.0.0.1:%s/ || cat log
kill $server; wait $server`, nginx, config, curl, free)
		wantRun(t, b.Sh(policy, script), 0, "hello from nginx")
	})
}

// PostgreSQL serves over its unix socket.
func Test_network_postgres(t *testing.T) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		exectest.Lacks(t, "postgresql")
	}
	bin := filepath.Dir(found[len(found)-1])
	// As root the server refuses to start, wherever it is.
	t.Run("ordinary", func(t *testing.T) {
		b := exectest.NewBox(t, exectest.Ordinary())
		policy := b.Policy(b.Base(exectest.Grants{Read: []string{"/usr/share"}, Write: []string{"/dev/null", "/dev/shm"}, More: `
network: unix: "granted"
syscalls: extra_allow: ["sysv_ipc"]`}))
		script := fmt.Sprintf(`
export TZ=UTC PGTZ=UTC
%[1]s/initdb -D data -U me -A trust --no-sync -c dynamic_shared_memory_type=mmap >log 2>&1 ||
%[1]s/initdb -D data -U me -A trust --no-sync >log 2>&1 || { cat log; exit 1; }
%[1]s/postgres -D data -k "$PWD" -c listen_addresses= -c fsync=off >log 2>&1 & server=$!
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do %[1]s/psql -h "$PWD" -U me -c '' postgres >/dev/null 2>&1 && break; sleep 0.3; done
%[1]s/psql -h "$PWD" -U me -Atc 'select 6*7' postgres || cat log
kill $server; wait $server`, bin)
		wantRun(t, b.Sh(policy, script), 0, "42")
	})
}
