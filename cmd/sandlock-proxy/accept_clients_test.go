package main_test

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// Clients that verify strictly take the certificates of the sandbox's authority: from the bundle that they find by
// themselves, or from the file that ca_out names.
func Test_http_clients(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		p.reads = append(p.reads, goClientDir(t), filepath.Dir(p.upstream))
		policy := p.policy(hosts, fmt.Sprintf("$TLS\nports: [%s]\nallow: [\"GET api.test/ok/*\", \"GET 127.0.0.1/ok/*\"]", up.secure))
		url := "https://api.test:" + up.secure
		node := []string{"/usr/bin/node", "-e", `
const [base] = process.argv.slice(1);
(async () => {
    for (const path of ["/ok/node", "/denied"]) {
        const r = await fetch(base + path);
        console.log(r.status, (await r.text()).trim().slice(0, 7));
    }
    const h2 = require("http2").connect(base);
    const s = h2.request({":path": "/ok/node2"});
    s.on("response", h => { console.log("h2", h[":status"]); h2.close(); });
})().catch(e => { console.log(e.cause || e); process.exit(1); });`, url}
		for _, tc := range []struct {
			name string
			env  []string
			args []string
			want string
		}{
			{"curl", nil, []string{"/usr/bin/curl", "-sS", url + "/ok/curl", "-w", " %{http_code} %{http_version} %{ssl_verify_result}"}, "ok 200 2 0"},
			{"curl_HTTP1", nil, []string{"/usr/bin/curl", "-sS", "--http1.1", url + "/ok/curl1", "-w", " %{http_code} %{http_version}"}, "ok 200 1.1"},
			{"curl_TLS1.2", nil, []string{"/usr/bin/curl", "-sS", "--tls-max", "1.2", url + "/ok/curl12"}, "ok"},
			{"curl_denied", nil, []string{"/usr/bin/curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url + "/denied"}, "403"},
			{"urllib", nil, []string{python(t), "-c", `
import ssl, sys, urllib.request
print(urllib.request.urlopen(sys.argv[1] + "/ok/urllib").read().decode())
c = ssl.create_default_context()
c.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
c.minimum_version = ssl.TLSVersion.TLSv1_3
print(urllib.request.urlopen(sys.argv[1] + "/ok/strict", context=c).read().decode())
c = ssl.create_default_context()
c.verify_flags |= ssl.VERIFY_X509_STRICT
print(urllib.request.urlopen(sys.argv[2] + "/ok/address", context=c).read().decode())
try: urllib.request.urlopen(sys.argv[1] + "/denied", context=c)
except urllib.error.HTTPError as e: print(e.code)`, url, "https://127.0.0.1:" + up.secure}, "ok\nok\nok\n403"},
			{"requests", []string{"REQUESTS_CA_BUNDLE=" + bundleFile}, []string{python(t), "-c", `
import sys
try: import requests
except ImportError: sys.exit(77)
print(requests.get(sys.argv[1] + "/ok/requests", timeout=60).text)`, url}, "ok"},
			{"go", nil, []string{goClientDir(t) + "/client", goClientArg, "get", url + "/ok/go", "https://127.0.0.1:" + up.secure + "/ok/go", url + "/denied"},
				"HTTP/2.0 200 ok\nHTTP/2.0 200 ok\nHTTP/2.0 403 Blocked by sandlock HTTP ACL policy: GET api.test:" + up.secure + "/denied: no allow rule matches; closest is GET api.test/ok/*"},
			{"node", []string{"NODE_EXTRA_CA_CERTS=" + p.out}, node, "200 ok\n403 {\"error\nh2 200"},
			{"openssl", nil, []string{"/bin/sh", "-c", `printf 'GET /ok/openssl HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n' | ` +
				`openssl s_client -quiet -ign_eof -verify_return_error -x509_strict -verify_hostname api.test -purpose sslserver -CAfile ` + bundleFile +
				` -connect api.test:` + up.secure + ` -servername api.test 2>/dev/null | tail -n 1`}, "ok"},
			{"openssl_without_the_authority", nil, []string{"/bin/sh", "-c", `openssl s_client -verify_return_error -CAfile ` + p.upstream +
				` -connect api.test:` + up.secure + ` -servername api.test </dev/null 2>&1 | grep -o 'certificate verify failed'`}, "certificate verify failed"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				exectest.Program(t, tc.args[0])
				p := p.in(t)
				o := p.Opts(policy, tc.args...)
				o.Env = append(o.Env, tc.env...)
				r := exectest.Run(t, o)
				if r.Code == 77 {
					exectest.Lacks(t, "python3-requests")
				}
				if strings.TrimSpace(r.Stdout) != tc.want {
					t.Errorf("exit %d, printed %q, want %q\nstderr: %s", r.Code, r.Stdout, tc.want, r.Stderr)
				}
			})
		}
		for _, s := range up.take() {
			if !strings.HasPrefix(s.URI, "/ok/") {
				t.Errorf("to the server came %s", s.URI)
			}
		}
	})
}

// git reads a repository over HTTPS, and cannot write it; its requests are chunked, compressed and answered in pieces.
func Test_http_clients_git(t *testing.T) {
	git := exectest.Program(t, "/usr/bin/git")
	asOne(t, func(t *testing.T, p *place) {
		where, err := exec.Command(git, "--exec-path").Output()
		if err != nil {
			t.Fatal(err)
		}
		root := t.TempDir()
		commands := `git init -q --bare repo.git && git -C repo.git config http.receivepack true
git init -q w && cd w && head -c 3000000 /dev/urandom > large && git add large && git -c user.name=a -c user.email=a@a commit -qm one && git push -q ../repo.git HEAD:main && git -C ../repo.git symbolic-ref HEAD refs/heads/main`
		cmd := exec.Command("/bin/sh", "-ec", commands)
		cmd.Dir, cmd.Env = root, []string{"PATH=/usr/bin:/bin", "HOME=" + root}
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		backend := &cgi.Handler{
			Path: filepath.Join(strings.TrimSpace(string(where)), "git-http-backend"), Dir: root,
			Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + root, "REMOTE_USER=me"},
		}
		up := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Basic bWU6R0lUU0VDUkVU" {
				w.Header().Set("WWW-Authenticate", "Basic")
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			backend.ServeHTTP(w, r)
		})
		policy := p.policy(hosts, fmt.Sprintf(`$TLS
ports: [%s]
allow: ["GET api.test/repo.git/*", "POST api.test/repo.git/git-upload-pack"]
deny: ["* */git-receive-pack"]
credentials: git: source: "file:%s", auth: [{rule: "* api.test/repo.git/*", credential: "git", as: "basic:me"}]`, up.secure, p.File(p.Outside+"/key", "GITSECRET\n")))
		script := `
cd "$HOME"
export GIT_TERMINAL_PROMPT=0
git clone -q https://api.test:$0/repo.git got && wc -c < got/large && git -C got log --format=%s
cd got && git -c user.name=a -c user.email=a@a commit -q --allow-empty -m two && git push -q origin HEAD:main 2>&1 | grep -o 'error: 403'
git fetch -q && git log --format=%s origin/main
cd .. && git -c http.version=HTTP/1.1 clone -q --depth 1 https://api.test:$0/repo.git again && cmp got/large again/large && echo equal
`
		r := p.Run(policy, "/bin/sh", "-c", script, up.secure)
		wantOutput(t, r.Stdout, "3000000\none\nerror: 403\none\nequal")
		if r.Stderr != "" {
			t.Log(r.Stderr)
		}
	})
}

// The bundle is one file, whichever way it is opened, and as large as it reads.
func Test_network_6_5_59_bundle(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		host, err := os.ReadFile(bundleFile)
		if err != nil {
			exectest.Lacks(t, err)
		}
		own := p.File(p.Dir("own")+"/own.pem", "my words, without a line's end")
		p.reads = append(p.reads, filepath.Dir(own))
		policy := p.policy(hosts, fmt.Sprintf("inject_ca: [%q, %q]\nca_out: %q\nports: [%s], allow: [\"GET */*\"]", bundleFile, own, p.out, up.secure))
		p.Link(bundleFile, p.Work+"/link")
		p.Link("link", p.Work+"/link2")
		got := p.python(policy, `
import ctypes, subprocess
out, own = sys.argv[1:]
authority = open(out).read()
assert authority.startswith("-----BEGIN CERTIFICATE") and authority.count("BEGIN") == 1
whole = open(BUNDLE).read()
print("host's file first:", len(whole) - len(authority), whole.endswith("\n" + authority))
print("own file:", open(own).read() == "my words, without a line's end\n" + authority)
os.chdir("/etc/ssl/certs")
d = os.open("/etc/ssl", os.O_RDONLY | os.O_DIRECTORY)
up = "../" * 12
def openat(dirfd, path):
    with open(os.open(path, os.O_RDONLY, dir_fd=dirfd)) as f: return f.read()
def openat2(path):
    libc = ctypes.CDLL(None, use_errno=True)
    how = struct.pack("QQQ", os.O_RDONLY | os.O_CLOEXEC, 0, 0)
    fd = libc.syscall(437, -100, path.encode(), how, len(how))
    if fd < 0: raise OSError(ctypes.get_errno(), "openat2")
    with open(fd) as f: return f.read()
def opened(path):
    libc = ctypes.CDLL(None, use_errno=True)
    with open(libc.open(path.encode(), os.O_RDONLY)) as f: return f.read()
def mapped():
    import mmap
    with open(BUNDLE, "rb") as f: return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)[:].decode()
for name, read in {
    "relative": lambda: open("ca-certificates.crt").read(), "dots": lambda: open("/etc/ssl/../ssl/./certs//ca-certificates.crt").read(),
    "from the working directory up": lambda: open(up + "etc/ssl/certs/ca-certificates.crt").read(),
    "dirfd": lambda: openat(d, "certs/ca-certificates.crt"), "dirfd and dots": lambda: openat(d, "certs/../certs/ca-certificates.crt"),
    "link": lambda: open(os.environ["HOME"] + "/link").read(), "link to a link": lambda: open(os.environ["HOME"] + "/link2").read(),
    "root of the process": lambda: open("/proc/self/root/etc/ssl/certs/ca-certificates.crt").read(),
    "root of the thread": lambda: open("/proc/thread-self/root/etc/ssl/certs/ca-certificates.crt").read(),
    "working directory of the process": lambda: open("/proc/self/cwd/ca-certificates.crt").read(),
    "descriptor of the process": lambda: open("/proc/self/fd/%d/certs/ca-certificates.crt" % d).read(),
    "openat2": lambda: openat2("/etc/ssl/certs/ca-certificates.crt"), "open": lambda: opened("/etc/ssl/certs/ca-certificates.crt"),
    "map": mapped, "cat": lambda: subprocess.run(["cat", BUNDLE], capture_output=True, text=True).stdout,
    "cat by standard input": lambda: subprocess.run(["/bin/sh", "-c", "cat < " + BUNDLE], capture_output=True, text=True).stdout,
}.items():
    try: print(name + ":", read() == whole)
    except OSError as e: print(name + ":", e)
n = len(whole.encode())
run = lambda *a: subprocess.run(a, capture_output=True, text=True).stdout.split()
with open(BUNDLE, "rb") as f: print("fstat:", os.fstat(f.fileno()).st_size == n, "seek:", f.seek(0, 2) == n)
print("stat:", os.path.getsize(BUNDLE) == n, os.stat("certs/ca-certificates.crt", dir_fd=d).st_size == n, os.lstat(BUNDLE).st_size == n, os.path.getsize(os.environ["HOME"] + "/link") == n)
print("wc:", run("wc", "-c", BUNDLE)[0] == str(n), "ls:", run("ls", "-lL", BUNDLE)[4] == str(n), "stat -c:", run("stat", "-Lc", "%s", BUNDLE)[0] == str(n),
    "find:", run("find", BUNDLE, "-printf", "%s")[0] == str(n))
attempt("write:", lambda: open(BUNDLE, "a"))
attempt("truncate:", lambda: os.truncate(BUNDLE, 0))
`, p.out, own)
		extra := 0
		if len(host) > 0 && host[len(host)-1] != '\n' {
			extra = 1
		}
		wantOutput(t, got, fmt.Sprintf("host's file first: %d True\nown file: True\n", len(host)+extra)+`relative: True
dots: True
from the working directory up: True
dirfd: True
dirfd and dots: True
link: True
link to a link: True
root of the process: True
root of the thread: True
working directory of the process: True
descriptor of the process: True
openat2: [Errno 38] openat2
open: True
map: True
cat: True
cat by standard input: True
fstat: True seek: True
stat: True True True True
wc: True ls: True stat -c: True find: True
write: EACCES
truncate: EACCES`)
		if now, err := os.ReadFile(bundleFile); err != nil || string(now) != string(host) {
			t.Error("the host's file has changed")
		}
	})
}

// 59: what cannot be shown is an error of the start.
func Test_network_6_5_59_missing_file(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		policy := p.policy("", fmt.Sprintf("inject_ca: [%q]\nports: [1], allow: [\"GET */*\"]", p.Work+"/missing.pem"))
		r := p.Run(policy, "/bin/true")
		if r.Code != 125 || !strings.Contains(r.Stderr, p.Work+"/missing.pem: no such file or directory") || !strings.Contains(r.Stderr, "http.inject_ca") {
			t.Errorf("exit %d: %s", r.Code, r.Stderr)
		}
	})
}
