package main_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// one asks for one thing by HTTP/1.1 in clear.
func (u *upstream) one(line string, status int) wire {
	want := []int{status}
	return wire{Name: line, Send: request(line, "127.0.0.1:"+u.plain), Port: u.plain, want: want, passes: status == 200}
}

func Test_network_6_5_48_51_52_57_rules(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		for _, tc := range []struct {
			name, rules string
			table       []wire
		}{
			{"48", `allow: ["GET 127.0.0.1/*"]`, []wire{up.one("GET /get", 200)}},
			{"48_57", `allow: ["GET 127.0.0.1/allowed"]`, []wire{
				up.one("GET /denied", 403), up.one("GET /allowed", 200), up.one("GET /allowed?x", 200), up.one("GET /allowed/", 403),
				up.one("GET /allowed/x", 403), up.one("GET /allowedx", 403), up.one("GET /secret", 403), up.one("GET /Allowed", 403),
			}},
			{"51_52", `allow: ["GET 127.0.0.1/anything", "GET 127.0.0.1/get", "POST 127.0.0.1/post"]`, []wire{
				up.one("GET /anything", 200), up.one("POST /anything", 403), up.one("HEAD /anything", 403), up.one("OPTIONS /anything", 403),
				up.one("GET /get", 200), up.one("POST /post", 200), up.one("GET /post", 403), up.one("POST /get", 403), up.one("GET /else", 403),
			}},
		} {
			policy := p.policy("", fmt.Sprintf("ports: [%s]\n%s", up.plain, tc.rules))
			t.Run(tc.name, func(t *testing.T) { p.in(t).check(policy, up, tc.table) })
		}
	})
}

func Test_network_6_5_49_53_deny(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		policy := p.policy("", fmt.Sprintf(
			`ports: [%s], allow: ["* 127.0.0.1/*"], deny: ["* 127.0.0.1/secret", {rule: "* */admin/*", reason: "not for agents"}]`, up.plain))
		table := []wire{
			up.one("GET /public", 200), up.one("GET /secret", 403), up.one("POST /secret", 403), up.one("GET /secret/", 403), up.one("GET /secretx", 200),
			up.one("GET /get", 200), up.one("GET /administrator", 200), up.one("GET /x/admin/y", 200),
		}
		for _, path := range []string{"/admin/settings", "//admin/x", "/./admin/x", "/public/../admin/x", "/%61dmin/x", "/v1/%2e%2e/admin/x", "/admin", "/admin/", "/%2561dmin/x"} {
			table = append(table, up.one("GET "+path, 403))
		}
		p.check(policy, up, table)

		// What the client is told: by the policy, in a form that programs read.
		told := p.send(policy, []wire{
			{Send: request("GET /admin/x", "127.0.0.1"), Port: up.plain},
			{Send: request("GET /admin/x", "127.0.0.1", "Accept: application/json"), Port: up.plain},
		})
		text, data := told[0][0], told[1][0]
		if text.Body != "Blocked by sandlock HTTP ACL policy: GET 127.0.0.1/admin/x: not for agents (* */admin/*)\n" || text.Header["Content-Type"] != "text/plain; charset=utf-8" {
			t.Errorf("text: %+v", text)
		}
		if data.Body != `{"error":"blocked by sandlock HTTP policy","status":403,"method":"GET","host":"127.0.0.1","path":"/admin/x","rule":"* */admin/*","reason":"not for agents"}`+"\n" ||
			data.Header["Content-Type"] != "application/json" {
			t.Errorf("JSON: %+v", data)
		}
		for _, a := range []answer{text, data} {
			if a.Header["Proxy-Status"] != "sandlock; error=http_request_denied" {
				t.Errorf("Proxy-Status %q", a.Header["Proxy-Status"])
			}
		}
	})
}

// 50: without rules there is no proxy. 54: ports without interception are untouched.
func Test_network_6_5_50_54_not_intercepted(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up, up6 := serve(t, nil), serveAt(t, "::1", nil)
		echo := serveRaw(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
		p50 := p.Policy(p.Base(exectest.Grants{More: fmt.Sprintf("network: allow: [\":%s\"]", up.plain)}))
		wantOutput(t, p.python(p50, `
s = reach(sys.argv[1])
print(s.getpeername())
print(get("/x", "whatever", sys.argv[1])[0])`, up.plain), fmt.Sprintf("('127.0.0.1', %s)\n200", up.plain))
		if got := strings.Join(up.uris(), ","); got != "GET /x" {
			t.Errorf("to the server came %s", got)
		}
		policy := p.policy(fmt.Sprintf(`allow: [":%s", ":%s"], hosts: "api.test": ["127.0.0.1"]`, echo, up6.plain),
			fmt.Sprintf(`ports: [%s], allow: ["GET api.test/get"]`, up.plain))
		wantOutput(t, p.python(policy, `
s = reach(sys.argv[2])
print(s.getpeername()[1] == int(sys.argv[2]))
s.sendall(b"\0anything \xff"); print(s.recv(100))
s6 = reach(sys.argv[3], "::1")
s6.sendall(b"GET /raw HTTP/1.1\r\nHost: bytes\r\nX-Case:  kept\r\n\r\n"); print(s6.recv(15))
print(get("/get", "api.test", sys.argv[1])[0], get("/raw", "api.test", sys.argv[1])[0])
attempt("no rule:", lambda: reach(int(sys.argv[4])))
`, up.plain, echo, up6.plain, up.secure), `True
b'\x00anything \xff'
b'HTTP/1.1 200 OK'
200 403
no rule: ECONNREFUSED`)
	})
}

func Test_network_6_5_55_IPv6(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serveAt(t, "::1", nil)
		line := func(line string, status int) wire {
			return wire{Name: line, Host: "::1", Send: request(line, "[::1]:"+up.plain), Port: up.plain, want: []int{status}, passes: status == 200}
		}
		network := fmt.Sprintf(`allow: ["[::1]:%s"]`, up.plain)
		p.check(p.policy(network, fmt.Sprintf(`ports: [%s], allow: ["GET */*"]`, up.plain)), up, []wire{line("GET /x", 200), line("POST /x", 403)})
		p.check(p.policy(network, fmt.Sprintf(`ports: [%s], allow: ["GET */allowed"]`, up.plain)), up, []wire{
			line("GET /allowed", 200), line("GET /denied", 403),
			{Name: "other address", Host: "::1", Send: request("GET /allowed", "[::2]"), Port: up.plain, want: []int{403}},
			{Name: "name of the address with a zone", Host: "::1", Send: request("GET /allowed", "[::1%25lo]"), Port: up.plain, want: []int{400}},
		})
	})
}

func Test_network_6_5_56_58_62_credentials(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		key := p.File(p.Outside+"/key", "FILESECRET\n")
		policy := p.policy(`hosts: "api.test": ["127.0.0.1"]`, fmt.Sprintf(`$TLS
ports: [%s, %s]
allow: ["GET 127.0.0.1/*", "GET api.test/*"]
credentials: {
	api: source: "file:%s"
	env: source: "env:API_TOKEN"
	unused: source: "env:UNUSED_TOKEN"
	given: source: "fd:3"
}
auth: [
	{rule: "* api.test/basic", credential: "env", as: "basic:me"},
	{rule: "* api.test/header", credential: "env", as: "header:X-Api-Key"},
	{rule: "* api.test/kept", credential: "env", as: "header:X-Api-Key", mode: "add-only"},
	{rule: "* api.test/query", credential: "env", as: "query:key"},
	{rule: "* api.test/fd", credential: "given", as: "bearer"},
	{rule: "GET 127.0.0.1/*", credential: "api", as: "bearer", plain: true},
	{rule: "* api.test/api/*", credential: "api", as: "bearer"},
]`, up.plain, up.secure, key))
		read, write := pipe(t)
		if _, err := io.WriteString(write, "FDSECRET\r\n"); err != nil {
			t.Fatal(err)
		}
		write.Close()
		o := p.opts(policy, `
plain, secure = sys.argv[1:]
print(get("/plain", "127.0.0.1", plain)[0], get("/plain", "127.0.0.1", plain, headers=["Authorization: Bearer placeholder", "authorization: x"])[0])
for path in ("/api/x", "/basic", "/header", "/kept", "/query?a=1&key=mine&b", "/fd", "/none"):
    print(get(path, "api.test", secure, tls="api.test", headers=["X-Api-Key: mine", "Authorization: Bearer placeholder"][:1 if path == "/fd" else 2])[0])
print("clear:", get("/api/x", "api.test", plain)[0])
print(sorted(k for k in os.environ if "TOKEN" in k), "FDSECRET" in str(os.listdir("/proc/self/fd")))
`, up.plain, up.secure)
		o.Env = append(o.Env, "API_TOKEN=ENVSECRET", "UNUSED_TOKEN=UNUSEDSECRET")
		o.Files = append(o.Files, read)
		r := exectest.Run(t, o)
		wantOutput(t, r.Stdout, "200 200\n200\n200\n200\n200\n200\n200\n200\nclear: 403\n[] False")
		var got []string
		for _, s := range up.take() {
			got = append(got, fmt.Sprintf("%s %s %q %q", s.Proto, s.URI, s.Header["Authorization"], s.Header["X-Api-Key"]))
		}
		wantOutput(t, strings.Join(got, "\n"), `HTTP/1.1 /plain ["Bearer FILESECRET"] []
HTTP/1.1 /plain ["Bearer FILESECRET"] []
HTTP/1.1 /api/x ["Bearer FILESECRET"] ["mine"]
HTTP/1.1 /basic ["Basic bWU6RU5WU0VDUkVU"] ["mine"]
HTTP/1.1 /header ["Bearer placeholder"] ["ENVSECRET"]
HTTP/1.1 /kept ["Bearer placeholder"] ["mine"]
HTTP/1.1 /query?a=1&b&key=ENVSECRET ["Bearer placeholder"] ["mine"]
HTTP/1.1 /fd ["Bearer FDSECRET"] ["mine"]
HTTP/1.1 /none ["Bearer placeholder"] ["mine"]`)
		if strings.Contains(r.Stderr, "SECRET") {
			t.Errorf("stderr: %s", r.Stderr)
		}
		// Of many requests, two of them unencrypted, the first one is warned of.
		warning := "warning: credential api is sent unencrypted to 127.0.0.1 ("
		if strings.Count(r.Stderr, "unencrypted") != 1 || !strings.Contains(r.Stderr, warning) {
			t.Errorf("stderr %q, want once %q", r.Stderr, warning)
		}
	})
}

// 62: who writes a policy that sends a credential unencrypted is warned once, when it is compiled.
func Test_network_6_5_62_cleartext_warning(t *testing.T) {
	t.Parallel()
	b := exectest.NewBox(t, exectest.Self())
	policy := func(auth, tls string) string {
		return fmt.Sprintf(`http: {
	allow: ["* a.test"]
	credentials: c: source: "env:X"
	auth: [{rule: "* a.test", credential: "c", as: "bearer"%s}]
	%s
}
`, auth, tls)
	}
	for _, tc := range []struct {
		name, auth, tls string
		warnings        int
	}{
		{"never sent", "", "", 1}, {"decrypted", "", `inject_ca: ["/etc/ssl/certs/ca-certificates.crt"]`, 0},
	} {
		r, _ := b.Compile(policy(tc.auth, tc.tls))
		if n := strings.Count(r.Stderr, "unencrypted the credential is not sent"); r.Code != 0 || n != tc.warnings {
			t.Errorf("%s: exit %d, %d warnings, want %d\n%s", tc.name, r.Code, n, tc.warnings, r.Stderr)
		}
	}
}

func Test_network_6_5_60_decrypted(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		policy := p.policy(`hosts: {"denied.test": ["127.0.0.1"], "api.test": ["127.0.0.1"]}`,
			fmt.Sprintf("$TLS\nports: [%s]\nallow: [\"GET denied.test/public\", \"GET api.test/*\"], deny: [\"GET denied.test/secret\"]", up.secure))
		wantOutput(t, p.python(policy, `
port = sys.argv[1]
with reach(port, tls="denied.test") as s:
    print(s.version(), dict(x[0] for x in s.getpeercert()["issuer"])["commonName"].split()[0], s.getpeercert()["subjectAltName"])
for path in ("/secret", "/else", "/public"):
    status, _, body = get(path, "denied.test", port, tls="denied.test")
    print(status, body.strip())
attempt("no rule:", lambda: reach(port, tls="nobody.test"))
c = ssl._create_unverified_context()
with socket.create_connection(("127.0.0.1", int(port))) as s:
    attempt("no rule, unverified:", lambda: c.wrap_socket(s, server_hostname="nobody.test"))
`, up.secure), `TLSv1.3 sandlock (('DNS', 'denied.test'),)
403 Blocked by sandlock HTTP ACL policy: GET denied.test/secret: a rule denies it (GET denied.test/secret)
403 Blocked by sandlock HTTP ACL policy: GET denied.test/else: no allow rule matches; closest is GET denied.test/public
200 ok
no rule: TLSV1_UNRECOGNIZED_NAME
no rule, unverified: TLSV1_UNRECOGNIZED_NAME`)
		if got := strings.Join(up.uris(), ","); got != "GET /public" {
			t.Errorf("to the server came %s", got)
		}
		if up.connections != 1 {
			t.Errorf("%d connections to the server, want 1", up.connections)
		}
	})
}

func Test_network_6_5_61_authority(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		policy := p.policy(`hosts: {"api.test": ["127.0.0.1"], "evil.test": ["127.0.0.2"]}`,
			fmt.Sprintf(`ports: [%s], allow: ["GET api.test/*", "GET evil.test/*"]`, up.plain))
		head := func(name, head string, status int) wire {
			head = strings.ReplaceAll(head, "$PORT", up.plain)
			return wire{Name: name, Send: head + "\r\n$CASE\r\nConnection: close\r\n\r\n", Port: up.plain, want: []int{status}, passes: status == 200}
		}
		p.check(policy, up, []wire{
			head("agree", "GET http://api.test/x HTTP/1.1\r\nHost: api.test", 200),
			head("agree but for case", "GET http://api.test/x HTTP/1.1\r\nHost: API.test", 200),
			head("agree, with port", "GET http://api.test:$PORT/x HTTP/1.1\r\nHost: api.TEST:$PORT", 200),
			head("port", "GET /x HTTP/1.1\r\nHost: api.test:$PORT", 200),
			head("HTTP/1.0 with Host", "GET /x HTTP/1.0\r\nHost: api.test", 200),
			head("absolute form, other Host", "GET http://api.test/x HTTP/1.1\r\nHost: evil.test", 400),
			head("absolute form, other Host, other way round", "GET http://evil.test/x HTTP/1.1\r\nHost: api.test", 400),
			head("userinfo", "GET /x HTTP/1.1\r\nHost: a:x@evil", 400),
			head("userinfo before the host", "GET /x HTTP/1.1\r\nHost: api.test@evil.test", 400),
			head("userinfo in absolute form", "GET http://a:x@api.test/ HTTP/1.1\r\nHost: api.test", 400),
			head("no Host", "GET /x HTTP/1.1\r\nAccept: */*", 400),
			head("no Host in HTTP/1.0", "GET /x HTTP/1.0\r\nAccept: */*", 400),
			head("empty Host", "GET /x HTTP/1.1\r\nHost:", 400),
			head("host without rule", "GET /x HTTP/1.1\r\nHost: else.test", 403),
			head("host that leads elsewhere", "GET /x HTTP/1.1\r\nHost: evil.test", 403),
			head("address as host", "GET /x HTTP/1.1\r\nHost: 127.0.0.1", 403),
		})
	})
}

func Test_network_6_5_63_connections(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		policy := p.policy(`hosts: {"api.test": ["127.0.0.1"], "evil.test": ["127.0.0.2"]}`,
			fmt.Sprintf(`ports: [%s], allow: ["* api.test/*"]`, up.plain))
		get := "GET /1 HTTP/1.1\r\nHost: api.test\r\n\r\n"
		host := func(h string) string { return request("GET /2", h) }
		post := func(fields string) string {
			return "POST /3 HTTP/1.1\r\nHost: api.test\r\n$CASE\r\n" + fields + "\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n"
		}
		p.check(policy, up, []wire{
			{Name: "keep-alive", Send: get + host("api.test"), want: []int{200, 200}, passes: true, Port: up.plain},
			{Name: "other Host on the second request", Send: get + host("evil.test"), want: []int{200, 403}, Port: up.plain},
			{Name: "unknown Host on the second request", Send: get + host("else.test"), want: []int{200, 403}, Port: up.plain},
			{Name: "other port", Send: host("api.test:22"), want: []int{403}, Port: up.plain},
			{Name: "other port on the second request", Send: get + host("api.test:22"), want: []int{200, 403}, Port: up.plain},
			{Name: "two Hosts", Send: request("GET /2", "api.test", "Host: evil.test"), want: []int{400}, Port: up.plain},
			{Name: "two equal Hosts", Send: request("GET /2", "api.test", "Host: api.test"), want: []int{400}, Port: up.plain},
			{Name: "CL+TE", Send: post("Content-Length: 5\r\nTransfer-Encoding: chunked"), want: []int{400}, Port: up.plain},
			{Name: "TE+CL", Send: post("Transfer-Encoding: chunked\r\nContent-Length: 5"), want: []int{400}, Port: up.plain},
			{Name: "CONNECT", Send: request("CONNECT api.test:443", "api.test:443"), want: []int{405}, Port: up.plain},
			{Name: "CONNECT to where the connection goes", Send: request("CONNECT api.test:"+up.plain, "api.test:"+up.plain), want: []int{405}, Port: up.plain},
			{Name: "Upgrade", Send: strings.Replace(request("GET /2", "api.test", "Upgrade: foo"), "close", "Upgrade", 1) + request("GET /4", "api.test"),
				want: []int{200, 200}, passes: true, Port: up.plain},
		})
	})
}

// hopByHop are about one connection, and pass no further.
func Test_network_6_5_63_hop_by_hop(t *testing.T) {
	asOne(t, func(t *testing.T, p *place) {
		up := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Keep-Alive", "timeout=5")
			w.Header().Set("Proxy-Authenticate", "Basic")
			w.Header().Set("X-End", "1")
		})
		policy := p.policy("", fmt.Sprintf(`ports: [%s], allow: ["* 127.0.0.1/*"]`, up.plain))
		out := p.send(policy, []wire{{Port: up.plain, Send: request("GET /", "127.0.0.1", "Keep-Alive: 5", "Proxy-Connection: keep-alive",
			"Proxy-Authorization: Basic eA==", "TE: trailers, gzip", "X-End: 2")}})
		for _, r := range up.take() {
			for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Upgrade", "X-Forwarded-For"} {
				if v, ok := r.Header[name]; ok {
					t.Errorf("the server got %s: %q", name, v)
				}
			}
			if te := r.Header.Get("TE"); te != "" && te != "trailers" || r.Header.Get("X-End") != "2" || r.Host != "127.0.0.1" {
				t.Errorf("the server got %+v", r)
			}
		}
		if len(out[0]) != 1 || out[0][0].Status != 200 || out[0][0].Header["X-End"] != "1" || out[0][0].Header["Keep-Alive"]+out[0][0].Header["Proxy-Authenticate"] != "" {
			t.Errorf("the client got %+v", out[0])
		}
	})
}
