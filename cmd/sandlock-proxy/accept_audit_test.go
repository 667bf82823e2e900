package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// auditLine is what the audit stream says of a request.
type auditLine struct {
	Event, Verdict, Reason, Rule, Origin, Address, Time string
	PID                                                 int
	HTTP                                                *struct {
		Protocol, Method, Authority, Path, Credential, Upstream string
		Status                                                  int
		Received                                                int `json:"bytes_received"`
		Sent                                                    int `json:"bytes_sent"`
		Micros                                                  int `json:"duration_us"`
	}
}

func (l *auditLine) String() string {
	h := l.HTTP
	return fmt.Sprintf("%s %s %s %s %s%s %d %d/%d cred=%s rule=%q reason=%q", l.Event, l.Verdict, h.Protocol, h.Method, h.Authority, h.Path, h.Status,
		h.Received, h.Sent, h.Credential, l.Rule, l.Reason)
}

func Test_http_audit(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		const secret = "NEVERSEEN0123456789"
		up := serve(t, nil)
		p.reads = append(p.reads, "/dev/urandom")
		for _, redact := range []bool{false, true} {
			policy := p.policy(hosts, fmt.Sprintf(`$TLS
ports: [%s, %s]
redact_query: %t
allow: ["* api.test/ok/*", {rule: "* opaque.test", tls: "passthrough"}]
deny: [{rule: "* api.test/admin/*", reason: "not for agents"}]
credentials: key: source: "env:API_TOKEN"
auth: [{rule: "* api.test/ok/key/*", credential: "key", as: "query:key"}]`, up.plain, up.secure, redact))
			o := p.opts(policy, `
plain, secure = sys.argv[1:]
def body(target, text): return raw("POST %s HTTP/1.1\r\nHost: api.test\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (target, len(text), text), plain)[0][0]
print(get("/ok/1?q=private", "api.test", plain)[0], body("/ok/2", "hello"), get("/admin/x?q=private", "api.test", plain)[0], get("/else", "api.test", plain)[0])
print(get("/ok/key/3?a=b", "api.test", secure, tls="api.test")[0], get("/ok/../else", "api.test", secure, tls="api.test")[0])
print(get("/bad", "a@b", plain)[0], get("/ok/4", "opaque.test", secure, tls="api.test")[0])
try:
    with reach(secure, tls="opaque.test") as s: pass
except ssl.SSLError as e: print("opaque")
try:
    with reach(secure, tls="nobody.test") as s: pass
except OSError as e: print("nobody")
print(get("/ok/last", "api.test", plain)[0])
sys.stdout.flush()
os._exit(0)
`, up.plain, up.secure)
			file := fmt.Sprintf("%s/audit%t.jsonl", p.Outside, redact)
			o.Flags = []string{"--audit", file}
			o.Env = append(o.Env, "API_TOKEN="+secret)
			since := time.Now()
			r := exectest.Run(t, o)
			took := time.Since(since)
			wantOutput(t, r.Stdout, "200 200 403 403\n200 403\n400 421\nopaque\nnobody\n200")
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), secret) {
				t.Errorf("the secret is in the stream")
			}
			query := func(q string) string {
				if redact {
					return ""
				}
				return q
			}
			var got []string
			for line := range strings.Lines(string(b)) {
				var l auditLine
				if err := json.Unmarshal([]byte(line), &l); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				if l.HTTP == nil {
					continue
				}
				got = append(got, l.String())
				where := "127.0.0.1:" + up.plain
				if l.HTTP.Protocol != "http/1.1" || strings.Contains(l.HTTP.Path, "key") || l.HTTP.Path == "/ok/../else" || l.HTTP.Path == "/ok/4" {
					where = "127.0.0.1:" + up.secure
				}
				if l.PID == 0 || l.Address != "tcp "+where || l.Time == "" || l.HTTP.Micros < 0 || time.Duration(l.HTTP.Micros)*time.Microsecond > took {
					t.Errorf("pid, address, time or duration of %s", line)
				}
				forwarded := l.Event == "request"
				if forwarded != (l.HTTP.Upstream == where) || !forwarded && l.HTTP.Upstream != "" {
					t.Errorf("upstream of %s", line)
				}
				if (l.Rule != "") != strings.Contains(l.Origin, ".cue:") {
					t.Errorf("origin of %s", line)
				}
			}
			want := []string{
				`request allowed http/1.1 GET api.test/ok/1` + query("?q=private") + ` 200 0/2 cred= rule="* api.test/ok/*" reason=""`,
				`request allowed http/1.1 POST api.test/ok/2 200 5/2 cred= rule="* api.test/ok/*" reason=""`,
				`denied refused http/1.1 GET api.test/admin/x` + query("?q=private") + ` 403 0/N cred= rule="* api.test/admin/*" reason="denied by * api.test/admin/*: not for agents"`,
				`denied refused http/1.1 GET api.test/else 403 0/N cred= rule="* api.test/ok/*" reason="no allow rule matches; closest is * api.test/ok/*"`,
				`request allowed http/1.1 GET api.test/ok/key/3` + query("?a=b") + ` 200 0/2 cred=key rule="* api.test/ok/*" reason=""`,
				`denied refused http/1.1 GET api.test/ok/../else 403 0/N cred= rule="* api.test/ok/*" reason="no allow rule matches; closest is * api.test/ok/*"`,
				`denied refused http/1.1   400 0/N cred= rule="" reason="malformed Host"`,
				`denied refused http/1.1 GET opaque.test/ok/4 421 0/N cred= rule="" reason="host is not the one of the TLS connection"`,
				`request allowed tls  opaque.test 0 N/N cred= rule="* opaque.test/*" reason=""`,
				`denied refused tls  nobody.test 0 0/0 cred= rule="" reason="no rule is about this host"`,
				`request allowed http/1.1 GET api.test/ok/last 200 0/2 cred= rule="* api.test/ok/*" reason=""`,
			}
			// What is not decrypted is told of at its end.
			tunnel := func(s string) bool { return strings.Contains(s, " tls  ") }
			for _, list := range [][]string{got, want} {
				slices.SortStableFunc(list, func(a, b string) int {
					if !tunnel(a) && !tunnel(b) {
						return 0
					}
					if tunnel(a) && tunnel(b) {
						return strings.Compare(a, b)
					}
					if tunnel(a) {
						return 1
					}
					return -1
				})
			}
			for i := range max(len(got), len(want)) {
				switch {
				case i >= len(want):
					t.Errorf("more: %s", got[i])
				case i >= len(got):
					t.Errorf("missing: %s", want[i])
				case !matches(got[i], want[i]):
					t.Errorf("line %d: %s\nwant:  %s", i, got[i], want[i])
				}
			}
		}
	})
}

// What the last requests were is told, however soon the command ends, and of those too that it does not wait for.
func Test_http_audit_end(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				<-r.Context().Done()
			}
		})
		policy := p.policy("", fmt.Sprintf(`ports: [%s], allow: ["GET 127.0.0.1/*"]`, up.plain))
		o := p.opts(policy, `
s = reach(sys.argv[1]); f = reader(s)
s.sendall(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200)
slow = reach(sys.argv[1])
slow.sendall(b"GET /slow HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
for _ in range(200): one(f)
time.sleep(0.2)
os._exit(0)
`, up.plain)
		file := p.Outside + "/audit.jsonl"
		o.Flags = []string{"--audit", file}
		since := time.Now()
		if r := exectest.Run(t, o); r.Code != 0 {
			t.Errorf("exit %d: %s", r.Code, r.Stderr)
		}
		if took := time.Since(since); took > time.Minute {
			t.Errorf("the run took %v", took)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if x, slow := strings.Count(string(b), `"path":"/x"`), strings.Count(string(b), `"path":"/slow"`); x != 200 || slow != 1 {
			t.Errorf("%d and %d requests are told of, want 200 and 1", x, slow)
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, `"event":"exit"`) {
			t.Errorf("the last line is %s", last)
		}
	})
}

// matches compares words; N in the wanted ones stands for any number above 0.
func matches(got, want string) bool {
	g, w := strings.Split(got, " "), strings.Split(want, " ")
	if len(g) != len(w) {
		return false
	}
	for i := range g {
		if strings.Contains(w[i], "/N") || strings.Contains(w[i], "N/") {
			a, b, _ := strings.Cut(g[i], "/")
			x, y, _ := strings.Cut(w[i], "/")
			if (x == "N") != (a != "0" && x == "N") || x != "N" && a != x || (y == "N") != (b != "0" && y == "N") {
				return false
			}
			continue
		}
		if g[i] != w[i] {
			return false
		}
	}
	return true
}
