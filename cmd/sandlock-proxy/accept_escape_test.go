package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

const hosts = `hosts: {"api.test": ["127.0.0.1"], "also.test": ["127.0.0.1"], "opaque.test": ["127.0.0.1"], "evil.test": ["127.0.0.2"]}`

// escape 46: ways round the proxy, and requests that are not for the host that they seem to be for.
func Test_escape_46_bypass(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		curl := exectest.Program(t, "/usr/bin/curl")
		up := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				w.Header().Set("Upgrade", "websocket")
				w.Header().Set("Connection", "Upgrade")
				w.WriteHeader(http.StatusSwitchingProtocols)
			}
		})
		policy := p.policy(hosts, fmt.Sprintf("$TLS\nports: [%s, %s]\nallow: [\"* api.test/ok/*\", \"* also.test/*\", \"* evil.test/*\"]", up.plain, up.secure))
		t.Run("curl_noproxy", func(t *testing.T) {
			p := p.in(t)
			for _, args := range [][]string{
				{"--noproxy", "*", "http://api.test:" + up.plain + "/denied"}, {"--proxy", "", "https://api.test:" + up.secure + "/denied"},
				{"--http0.9", "--http1.0", "http://api.test:" + up.plain + "/denied"}, {"--http2-prior-knowledge", "https://api.test:" + up.secure + "/denied"},
				{"--connect-to", "api.test:80:api.test:" + up.plain, "http://api.test/denied"}, {"--resolve", "x.test:" + up.plain + ":127.0.0.1", "http://x.test:" + up.plain + "/ok/"},
				{"-H", "Host: api.test", "http://127.0.0.1:" + up.plain + "/denied"}, {"--haproxy-protocol", "http://api.test:" + up.plain + "/ok/x"},
				{"-X", "PROPFIND", "--path-as-is", "http://api.test:" + up.plain + "/ok/../denied"}, {"--request-target", "/denied", "http://api.test:" + up.plain + "/ok/"},
			} {
				r := p.Run(policy, append([]string{curl, "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"}, args...)...)
				want := "403"
				if args[0] == "--haproxy-protocol" {
					want = "400"
				}
				if r.Stdout != want {
					t.Errorf("curl %q: %s, want %s (%s)", args, r.Stdout, want, r.Stderr)
				}
			}
			r := p.Run(policy, curl, "-sS", "--max-time", "20", "--proxytunnel", "-x", "http://api.test:"+up.plain, "https://evil.test:"+up.secure+"/", "-w", "%{http_connect}")
			if r.Code != 56 || r.Stdout != "405" {
				t.Errorf("tunnel: exit %d, %q, %s", r.Code, r.Stdout, r.Stderr)
			}
			if got := up.uris(); len(got) > 0 {
				t.Errorf("to the server came %q", got)
			}
			// The control: what is allowed.
			if r := p.Run(policy, curl, "-sS", "--http2", "https://api.test:"+up.secure+"/ok/x", "-w", "%{http_code} %{http_version}"); r.Stdout != "200 2" {
				t.Errorf("allowed: %q %s", r.Stdout, r.Stderr)
			}
			up.take()
		})
		t.Run("raw", func(t *testing.T) {
			p := p.in(t)
			websocket := "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n$CASE\r\n\r\n"
			in := func(name, send string, passes bool, want ...int) wire {
				return wire{Name: name, Send: send, Port: up.plain, want: want, passes: passes}
			}
			over := func(name, sni, send string, passes bool, want ...int) wire {
				return wire{Name: name, Send: send, Port: up.secure, TLS: sni, want: want, passes: passes}
			}
			p.check(policy, up, []wire{
				in("control", request("GET /ok/x", "api.test"), true, 200),
				in("HTTP/1.0 without Host", "GET /ok/x HTTP/1.0\r\n$CASE\r\n\r\n", false, 400),
				in("HTTP/0.9", "GET /ok/x\r\n$CASE\r\n", false, 400),
				in("absolute form, other Host", request("GET http://api.test/ok/x", "evil.test"), false, 400),
				in("absolute form of https", request("GET https://api.test/ok/x", "api.test"), false, 400),
				in("two Hosts", request("GET /ok/x", "api.test", "Host: also.test"), false, 400),
				in("CONNECT", request("CONNECT evil.test:443", "evil.test:443"), false, 405),
				in("CONNECT, then another name", request("CONNECT api.test:443", "api.test:443")+"\x16\x03\x01\x00\x05", false, 405),
				in("WebSocket to a denied path", "GET /denied HTTP/1.1\r\nHost: api.test\r\n"+websocket+request("GET /denied", "api.test"), false, 403, 403),
				in("h2c upgrade", "GET /ok/x HTTP/1.1\r\nHost: api.test\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n$CASE\r\n\r\n"+
					request("GET /denied", "api.test"), true, 200, 403),
				in("h2c by prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", false, 505),
				over("control", "api.test", request("GET /ok/x", "api.test"), true, 200),
				over("SNI is not the Host", "api.test", request("GET /x", "also.test"), false, 421),
				over("SNI is not the Host of the second request", "api.test", "GET /ok/1 HTTP/1.1\r\nHost: api.test\r\n\r\n"+request("GET /x", "also.test"), false, 200, 421),
				over("name that leads elsewhere", "evil.test", request("GET /x", "evil.test"), false, 403),
				over("CONNECT", "api.test", request("CONNECT also.test:443", "also.test:443"), false, 405),
			})
		})
		t.Run("HTTP2", func(t *testing.T) {
			p := p.in(t)
			p.reads = append(p.reads, goClientDir(t))
			policy := p.policy(hosts, fmt.Sprintf("$TLS\nports: [%s]\nallow: [\"* api.test/ok/*\", \"* also.test/*\"]", up.secure))
			fields := func(authority, path string, more ...[2]string) [][2]string {
				return append([][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", authority}, {":path", path}}, more...)
			}
			up.take()
			list := []struct {
				name, want string
				fields     [][2]string
			}{
				{"control", "200", fields("api.test", "/ok/1")},
				{"denied path", "403", fields("api.test", "/denied")},
				{":authority is not the SNI: a connection that another host's requests join", "421", fields("also.test", "/x")},
				{"Host beside :authority", "403", fields("api.test", "/ok/x", [2]string{"host", "also.test"})},
				{"port", "403", fields("api.test:22", "/ok/x")},
				{"userinfo", "stream: PROTOCOL_ERROR", fields("a@api.test", "/ok/x")},
				{"scheme", "200", [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "api.test"}, {":path", "/ok/2"}}},
				{"dots", "403", fields("api.test", "/ok/../denied")},
				{"CR and LF in a value", "stream: PROTOCOL_ERROR", fields("api.test", "/ok/x", [2]string{"x", "a\r\nHost: evil.test"})},
				{"CR and LF in a name", "stream: PROTOCOL_ERROR", fields("api.test", "/ok/x", [2]string{"x\r\nhost", "evil.test"})},
				{"upper case", "stream: PROTOCOL_ERROR", fields("api.test", "/ok/x", [2]string{"X-A", "b"})},
				{"CR and LF in the path", "stream: PROTOCOL_ERROR", fields("api.test", "/ok/x HTTP/1.1\r\nHost: evil.test")},
				{"CR and LF in the method", "stream: PROTOCOL_ERROR", [][2]string{{":method", "GET /ok/y HTTP/1.1\r\nx:"}, {":scheme", "https"}, {":authority", "api.test"}, {":path", "/ok/x"}}},
				{"Transfer-Encoding", "400", fields("api.test", "/ok/x", [2]string{"transfer-encoding", "chunked"})},
				{"Connection", "400", fields("api.test", "/ok/x", [2]string{"connection", "x"})},
				{"CONNECT", "405", [][2]string{{":method", "CONNECT"}, {":authority", "api.test:443"}}},
				{"extended CONNECT", "stream: PROTOCOL_ERROR", append(fields("api.test", "/ok/x", [2]string{":protocol", "websocket"})[1:], [2]string{":method", "CONNECT"})},
				{"no authority", "403", [][2]string{{":method", "GET"}, {":scheme", "https"}, {":path", "/ok/x"}}},
			}
			f := frames{Port: up.secure, SNI: "api.test"}
			for _, c := range list {
				f.Requests = append(f.Requests, c.fields)
			}
			arg, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Split(p.goClient(policy, "frames", string(arg)), "\n")
			for i, c := range list {
				if i >= len(got) || got[i] != c.want {
					t.Errorf("%s: got %q, want %q", c.name, got[min(i, len(got)-1)], c.want)
				}
			}
			if came := strings.Join(up.uris(), ","); came != "GET /ok/1,GET /ok/2" {
				t.Errorf("to the server came %s", came)
			}
		})
	})
}

// escape 46: TLS that is passed on as it is, by the server's name and the place.
func Test_escape_46_passthrough(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		p.reads = append(p.reads, filepath.Dir(p.upstream))
		policy := p.policy(hosts+fmt.Sprintf(", allow: [\"evil.test:%s\"]", up.secure), fmt.Sprintf(`ports: [%s], allow: [{rule: "* opaque.test", tls: "passthrough"}, "GET api.test/*"]`, up.secure))
		got := p.python(policy, `
port, ca = sys.argv[1:]
c = ssl.create_default_context(cafile=ca)
def tls(name, to="127.0.0.1", change=lambda b: b, ask="opaque.test"):
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    o = c.wrap_bio(into, out, server_hostname=name)
    with socket.create_connection((to, int(port)), timeout=60) as s:
        first = True
        def flush():
            nonlocal first
            b = out.read()
            if first: b, first = change(b), False
            if b: s.sendall(b)
        def step(f):
            while True:
                try:
                    r = f()
                    flush()
                    return r
                except ssl.SSLWantReadError:
                    flush()
                    b = s.recv(65536)
                    if not b: raise OSError(errno.EPIPE, "closed")
                    into.write(b)
        step(o.do_handshake)
        step(lambda: o.write(b"GET /opaque HTTP/1.1\r\nHost: " + ask.encode() + b"\r\nConnection: close\r\n\r\n"))
        return dict(x[0] for x in o.getpeercert()["issuer"])["commonName"], step(lambda: o.read(15))
def extended(kind, body):
    "adds an extension to a ClientHello (RFC 8446 section 4.1.2)"
    def change(b):
        record, hello = b[:5], bytearray(b[5:])
        at = 4 + 2 + 32
        at += 1 + hello[at]
        at += 2 + struct.unpack(">H", hello[at:at+2])[0]
        at += 1 + hello[at]
        n = struct.unpack(">H", hello[at:at+2])[0]
        more = struct.pack(">HH", kind, len(body)) + body
        hello[at:at+2] = struct.pack(">H", n + len(more))
        hello += more
        hello[1:4] = struct.pack(">I", len(hello) - 4)[1:]
        return record[:3] + struct.pack(">H", len(hello)) + bytes(hello)
    return change
attempt("by its name:", lambda: tls("opaque.test"))
attempt("another Host inside:", lambda: tls("opaque.test", ask="other.test"))
attempt("in upper case:", lambda: tls("OPAQUE.test"))
attempt("another name:", lambda: tls("api.test"))
attempt("a name without rule:", lambda: tls("other.test"))
attempt("no name:", lambda: tls("127.0.0.1"))
attempt("elsewhere:", lambda: tls("opaque.test", to="127.0.0.2"))
def unknown():
    "the server has another ClientHello than the client takes the keys from: it answers, and the handshake fails"
    try: tls("opaque.test", change=extended(0xfafa, b"x"))
    except ssl.SSLError as e: return "passed on" if "ALERT" not in e.reason else e.reason
attempt("unknown extension:", unknown)
attempt("ECH:", lambda: tls("opaque.test", change=extended(0xfe0d, b"\0\0\1\0\1\0\0\0\0\4abcd")))
attempt("clear:", lambda: get("/x", "opaque.test", port)[2].strip())
`, up.secure, p.upstream)
		wantOutput(t, got, `by its name: ('test authority', b'HTTP/1.1 200 OK')
another Host inside: ('test authority', b'HTTP/1.1 200 OK')
in upper case: ('test authority', b'HTTP/1.1 200 OK')
another name: TLSV1_ALERT_ACCESS_DENIED
a name without rule: TLSV1_ALERT_ACCESS_DENIED
no name: TLSV1_ALERT_ACCESS_DENIED
elsewhere: TLSV1_ALERT_ACCESS_DENIED
unknown extension: passed on
ECH: TLSV1_ALERT_ACCESS_DENIED
clear: Client sent an HTTP request to an HTTPS server.`)
		if got := up.uris(); !slices.Equal(got, []string{"GET /opaque", "GET /opaque", "GET /opaque"}) {
			t.Errorf("to the server came %q", got)
		}
	})
}

// escape 47: requests that hide another one.
func Test_escape_47_smuggling(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		policy := p.policy(hosts, fmt.Sprintf("$TLS\nports: [%s, %s], allow: [\"* api.test/*\"], deny: [\"* */denied\"]", up.plain, up.secure))
		const hidden = "GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n"
		var table []wire
		add := func(name, head, body string, status int) {
			send := "POST /x HTTP/1.1\r\nHost: api.test\r\n$CASE\r\n" + head + "\r\n\r\n" + body
			table = append(table, wire{Name: name, Send: send, Port: up.plain, want: []int{status}},
				wire{Name: name + " over TLS", Send: send, Port: up.secure, TLS: "api.test", want: []int{status}})
		}
		add("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\n"+hidden, 400)
		add("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 3", "8\r\n"+hidden, 400)
		for _, v := range []string{"xchunked", "chunked, identity", "identity, chunked", "chunked;x", " chunked", "chunked ", "\tchunked", "\"chunked\"", "gzip, chunked", "chunk", "cow"} {
			add("coding "+v, "Transfer-Encoding: "+v, "0\r\n\r\n"+hidden, 501)
		}
		add("TE.TE", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "0\r\n\r\n"+hidden, 400)
		add("vertical tab", "Transfer-Encoding: \vchunked", "0\r\n\r\n"+hidden, 400)
		add("space before the colon", "Transfer-Encoding : chunked", "0\r\n\r\n"+hidden, 400)
		add("bare CR", "X: a\rTransfer-Encoding: chunked", "0\r\n\r\n"+hidden, 400)
		add("bare LF", "X: a\nTransfer-Encoding: chunked", "0\r\n\r\n"+hidden, 400)
		add("folded line", "X: a\r\n Transfer-Encoding: chunked", "0\r\n\r\n"+hidden, 400)
		add("folded coding", "Transfer-Encoding:\r\n chunked", "0\r\n\r\n"+hidden, 501)
		add("NUL", "X: a\x00b", hidden, 400)
		add("two lengths", "Content-Length: 5\r\nContent-Length: 0", hidden, 400)
		add("equal lengths", "Content-Length: 5\r\nContent-Length: 5", "hello"+hidden, 400)
		for _, v := range []string{"+5", "-1", "0x5", "5, 5", "05", "5 5", "1_0", "9999999999999999999999"} {
			add("length "+v, "Content-Length: "+v, hidden, 400)
		}
		add("imitation", "Content_Length: 5", hidden, 400)
		add("Connection names the length", "Content-Length: 5\r\nConnection: Content-Length", "hello"+hidden, 400)
		add("trailer", "Trailer: Content-Length\r\nTransfer-Encoding: chunked", "0\r\nContent-Length: 5\r\n\r\n"+hidden, 400)
		add("expectation", "Expect: 100-continue, x\r\nContent-Length: 5", "hello"+hidden, 417)
		for name, body := range map[string]string{
			"negative": "-1\r\n", "sign": "+5\r\nhello\r\n0\r\n\r\n", "prefix": "0x5\r\nhello\r\n0\r\n\r\n", "LF": "5\nhello\n0\n\n", "overflow": "10000000000000005\r\nhello\r\n0\r\n\r\n",
			"space": "5 \r\nhello\r\n0\r\n\r\n", "longer than its size": "5\r\nhello!\r\n0\r\n\r\n", "LF in an extension": "5;a\nhello\r\n0\r\n\r\n", "trailer": "0\r\nTransfer-Encoding: x\r\n\r\n",
		} {
			add("chunk: "+name, "Transfer-Encoding: chunked", body+hidden, 400)
		}
		p.checkHidden(policy, up, table)

		// What is denied is not answered twice: the body of a refused request is no request.
		p.check(policy, up, []wire{
			{Name: "refused while the body is on its way", Port: up.plain, want: []int{403},
				Send: fmt.Sprintf("POST /denied HTTP/1.1\r\nHost: api.test\r\n$CASE\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden)},
			{Name: "continued", Port: up.plain, want: []int{200, 200}, passes: true,
				Send: "POST /x HTTP/1.1\r\nHost: api.test\r\n$CASE\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello" + request("GET /y", "api.test")},
			{Name: "body of GET", Port: up.plain, want: []int{200, 200}, passes: true,
				Send: "GET /x HTTP/1.1\r\nHost: api.test\r\n$CASE\r\nContent-Length: 5\r\n\r\nhello" + request("GET /y", "api.test")},
		})
	})
}

// checkHidden is [place.check] for requests some of which have begun to be sent on when what hides in them is seen: of those
// nothing but the beginning may have come to the server.
func (p *place) checkHidden(policy string, up *upstream, table []wire) {
	p.t.Helper()
	up.take()
	out := p.send(policy, table)
	for i, c := range table {
		if got := statuses(out[i]); !slices.Equal(got, c.want) {
			p.t.Errorf("%s: statuses %v, want %v\n%+v", c.Name, got, c.want, out[i])
		}
	}
	for _, r := range up.take() {
		if r.URI != "/x" || strings.Contains(r.Body, "smuggled") {
			p.t.Errorf("to the server came %s %s, body %q", r.Method, r.URI, r.Body)
		}
	}
}

// escape 48: paths that mean another one to the server.
func Test_escape_48_paths(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		policy := p.policy("", fmt.Sprintf(`ports: [%s], allow: ["GET 127.0.0.1/v1/*", "POST 127.0.0.1/post"], deny: ["* */admin/*", "DELETE */v1/*"]`, up.plain))
		var table []wire
		for path, status := range map[string]int{
			"/v1/x": 200, "/v1": 200, "/v1/": 200, "/v1/a%20b": 200, "/v1/x?../admin": 200, "/v1/./x": 200, "/v1//x": 200, "/v1/y/../x": 200,
			"/v1/../admin": 403, "/v1/%2e%2e/admin": 403, "/v1/%2e./admin": 403, "/v1/.%2E/x": 403, "//admin": 403, "/v1//admin/../../admin": 403,
			"/v1/..;/admin": 403, "/v1/..;x=y/admin": 403, "/admin;jsessionid=1": 403, "/v1/%2f../admin": 403, "/v1%2f..%2fadmin": 403, "/v1/..%2fadmin": 403,
			"/v1/%5c../admin": 403, "/V1/x": 403, "/ADMIN/x": 403, "/Admin": 403, "/v1%00": 403, "/v1/%00/x": 403, "/v1/x%00/../../admin": 403,
			"/v1/%252e%252e/admin": 403, "/v1/%c0%ae%c0%ae/admin": 403, "/%61dmin": 403, "/v1/../%61dmin": 403,
			"/v1/..\\admin": 400, "/v1/%zz": 400, "/v1/x#/../admin": 400, "v1/x": 400, "*": 400, "/v1/\xff": 400, "/v1/\t": 400,
		} {
			table = append(table, up.one("GET "+path, status))
		}
		table = append(table, up.one("POST /v1/x", 403), up.one("POST /post", 200), up.one("GET /post", 403), up.one("get /v1/x", 400), up.one("DELETE /v1/x", 403))
		for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
			table = append(table, wire{Name: name, Port: up.plain, want: []int{403}, Send: request("GET /v1/x", "127.0.0.1", name+": DELETE")})
		}
		for i := range table {
			if table[i].want[0] == 400 { // what cannot be read is refused before its case is known
				table[i].passes = false
			}
		}
		p.check(policy, up, table)

		// What is decided about is what the server gets.
		up.take()
		p.send(policy, []wire{{Port: up.plain, Send: request("GET /v1/a/./b//../c%7E?x=%zz", "127.0.0.1")}, {Port: up.plain, Send: "GET /v1/get HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"}})
		var got []string
		for _, r := range up.take() {
			got = append(got, r.URI+" "+r.Body)
		}
		slices.Sort(got)
		if !slices.Equal(got, []string{"/v1/a/c~?x=%zz ", "/v1/get body"}) {
			t.Errorf("to the server came %q", got)
		}
	})
}

// escape 49: ways to a credential.
func Test_escape_49_credentials(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		const secret = "NEVERSEEN0123456789"
		other := serve(t, nil)
		var up *upstream
		up = serve(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/api/elsewhere":
				http.Redirect(w, r, "https://also.test:"+other.secure+"/taken", http.StatusFound)
			case "/api/path":
				http.Redirect(w, r, "/other/path", http.StatusFound)
			case "/api/clear":
				http.Redirect(w, r, "http://api.test:"+up.plain+"/api/x", http.StatusFound)
			case "/api/reflect":
				w.Header().Set("X-Echo", r.Header.Get("Authorization"))
				w.Header().Add("Set-Cookie", "a="+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
				w.Header().Set("Trailer", "X-Trailer")
				_, _ = io.WriteString(w, "x")
				w.Header().Set("X-Trailer", r.Header.Get("Authorization"))
			}
		})
		p.reads = append(p.reads, goClientDir(t))
		auditFile := p.Outside + "/audit.jsonl"
		policy := p.policy(hosts, fmt.Sprintf(`$TLS
ports: [%s, %s, %s]
allow: ["* api.test/*", "* also.test/*"]
credentials: api: source: "env:API_TOKEN"
auth: [{rule: "* api.test/api/*", credential: "api", as: "bearer"}]`, up.plain, up.secure, other.secure))
		o := p.opts(policy, `
import subprocess
curl = lambda *a: subprocess.run(["/usr/bin/curl", "-sS", "-i", *a], capture_output=True, text=True)
plain, secure, other, secret = sys.argv[1:4] + [sys.argv[4][::-1]]
base = "https://api.test:" + secure
said = ""
for what, args in {
    "control": [base + "/api/x"], "elsewhere": ["-L", base + "/api/elsewhere"], "path": ["-L", base + "/api/path"], "clear": ["-L", base + "/api/clear"],
    "reflect": [base + "/api/reflect"], "reflect by HTTP/1.1": ["--http1.1", base + "/api/reflect"], "TRACE": ["-X", "TRACE", base + "/api/x"],
    "TRACE by HTTP/1.1": ["--http1.1", "-X", "TRACE", "-H", "Max-Forwards: 0", base + "/api/x"],
    "tunnel": ["--http1.1", "-H", "Connection: Upgrade", "-H", "Upgrade: raw", base + "/api/x"], "other path": [base + "/api/../other/x"],
}.items():
    r = curl(*args)
    said += r.stdout + r.stderr
    print(what + ":", *re.findall(r"(?m)^HTTP/[0-9.]+ ([0-9]+)", r.stdout))
print("in answers:", secret in said, "redacted:", said.count("[redacted]") > 0)
found, read = [], 0
for pid in os.listdir("/proc"):
    for name in ("environ", "cmdline"):
        try:
            with open("/proc/%s/%s" % (pid, name), "rb") as f: text = f.read()
            read += 1
            if secret.encode() in text: found.append(pid)
        except OSError: pass
print("in processes:", found, "looked at some:", read > 1)
print("in the environment:", [k for k, v in os.environ.items() if secret in v], os.environ.get("API_TOKEN"))
with open(sys.argv[5]) as f: text = f.read()
print("ca_out:", text.count("BEGIN CERTIFICATE"), text.count("BEGIN"), "PRIVATE" in text)
print("bundle:", "PRIVATE" in open(BUNDLE).read())
`, up.plain, up.secure, other.secure, reversed(secret), p.out)
		o.Env = append(o.Env, "API_TOKEN="+secret)
		o.Flags = []string{"--audit", auditFile}
		r := exectest.Run(t, o)
		wantOutput(t, r.Stdout, `control: 200
elsewhere: 302 200
path: 302 200
clear: 302 403
reflect: 200
reflect by HTTP/1.1: 200
TRACE: 405
TRACE by HTTP/1.1: 405
tunnel: 200
other path: 200
in answers: False redacted: True
in processes: [] looked at some: True
in the environment: [] None
ca_out: 1 1 False
bundle: False`)
		for _, s := range append(up.take(), other.take()...) {
			has := s.Header.Get("Authorization") == "Bearer "+secret
			if want := strings.HasPrefix(s.URI, "/api/"); has != want {
				t.Errorf("%s got the credential: %t, want %t", s.URI, has, want)
			}
		}
		for _, file := range []string{policy, auditFile, p.out} {
			b, err := os.ReadFile(file)
			if err != nil || len(b) == 0 {
				t.Errorf("%s: %d bytes, %v", file, len(b), err)
			}
			if strings.Contains(string(b), secret) {
				t.Errorf("the secret is in %s", file)
			}
		}
		if strings.Contains(r.Stderr, secret) {
			t.Errorf("the secret is in what the executor prints: %s", r.Stderr)
		}
	})
}

func reversed(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}
