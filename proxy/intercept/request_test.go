package intercept

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/ir"
)

// raw sends bytes on a connection of the sandbox, and returns the statuses of the answers until it ends.
func raw(t testing.TB, conn net.Conn, text string) (statuses []int, bodies []string) {
	t.Helper()
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for {
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			return statuses, bodies
		}
		b, _ := io.ReadAll(answer.Body)
		statuses, bodies = append(statuses, answer.StatusCode), append(bodies, string(b))
		if answer.Close {
			return statuses, bodies
		}
	}
}

// Number 53, and escapes 48.
func TestPaths(t *testing.T) {
	up := newUpstream(t, nil)
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "* 127.0.0.1/*"), Deny: rules(t, "* */admin/*")}})
	for path, want := range map[string]int{
		"/get": 200, "/admin/settings": 403, "//admin/x": 403, "/./admin/x": 403, "/public/../admin/x": 403, "/%61dmin/x": 403,
		"/v1/%2e%2e/admin/x": 403, "/admin": 403, "/admin/": 403, "/%2561dmin/x": 403, "/v1/../admin": 403, "/admin;jsessionid=1/x": 403,
		"/%2fadmin/x": 403, "/Admin/x": 403, "/v1%00": 403, "/a\\..\\admin/x": 400,
	} {
		before := up.count()
		got, _ := raw(t, e.open(up.at), "GET "+path+" HTTP/1.1\r\nHost: "+up.at+"\r\nConnection: close\r\n\r\n")
		if len(got) != 1 || got[0] != want && (want != 400 || got[0] != 403) {
			t.Errorf("%s: got %v, want %d", path, got, want)
		}
		if reached := up.count() > before; reached != (want == 200) {
			t.Errorf("%s reached the server: %t", path, reached)
		}
	}
}

// What is decided about is what the server gets.
func TestForwardsTheCanonicalPath(t *testing.T) {
	var target string
	up := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) { target = r.RequestURI })
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "* 127.0.0.1/*")}})
	for asked, want := range map[string]string{
		"/a/./b//c/../d?x=%zz&y;z&q": "/a/b/d?x=%zz&y;z&q",
		"/%7Euser/%e4?":              "/~user/%E4?",
		"/a%20b%2Fc":                 "/a%20b%2Fc",
		"http://" + up.at + "/x?y":   "/x?y",
		"http://" + up.at + "?y":     "/?y",
		"http://" + up.at:            "/",
		"/a:b@c":                     "/a:b@c",
	} {
		target = ""
		got, _ := raw(t, e.open(up.at), "GET "+asked+" HTTP/1.1\r\nHost: "+up.at+"\r\nConnection: close\r\n\r\n")
		if len(got) == 1 && got[0] == 403 && strings.Contains(asked, "%e4") {
			continue // not UTF-8
		}
		if target != want {
			t.Errorf("%s: the server got %q (%v), want %q", asked, target, got, want)
		}
	}
}

// Numbers 61 and 63: one host, and it must be where the connection goes.
func TestAuthority(t *testing.T) {
	up := newUpstream(t, nil)
	_, port, _ := net.SplitHostPort(up.at)
	e := begin(t, settings{
		http: ir.HTTP{Allow: rules(t, "* a.test/*", "* b.test/*", "* */*")}, pinned: []string{"a.test", "b.test", "*.wild.test"},
	})
	for _, tc := range []struct {
		name, head string
		names      []string
		ok         bool
	}{
		{"name", "GET / HTTP/1.1\r\nHost: a.test\r\n", []string{"a.test"}, true},
		{"case and port", "GET / HTTP/1.1\r\nHost: A.test:" + port + "\r\n", []string{"a.test"}, true},
		{"absolute form", "GET http://a.test/ HTTP/1.1\r\nHost: A.TEST\r\n", []string{"a.test"}, true},
		{"address", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", nil, true},
		{"unspecified address", "GET / HTTP/1.1\r\nHost: 0.0.0.0\r\n", nil, true},
		{"name that nobody knows", "GET / HTTP/1.1\r\nHost: else.test\r\n", []string{"a.test"}, true},
		{"1.0 with Host", "GET / HTTP/1.0\r\nHost: a.test\r\n", []string{"a.test"}, true},
		{"two names", "GET / HTTP/1.1\r\nHost: b.test\r\n", []string{"a.test", "b.test"}, true},
		{"wildcard", "GET / HTTP/1.1\r\nHost: x.wild.test\r\n", []string{"x.wild.test"}, true},

		{"other name", "GET / HTTP/1.1\r\nHost: b.test\r\n", []string{"a.test"}, false},
		{"other name of the wildcard", "GET / HTTP/1.1\r\nHost: y.wild.test\r\n", []string{"x.wild.test"}, false},
		{"other address", "GET / HTTP/1.1\r\nHost: 127.0.0.2\r\n", nil, false},
		{"other form of an address", "GET / HTTP/1.1\r\nHost: 127.1\r\n", nil, false},
		{"number as address", "GET / HTTP/1.1\r\nHost: 2130706433\r\n", nil, false},
		{"absolute form, other Host", "GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n", []string{"a.test", "b.test"}, false},
		{"absolute form, other name", "GET http://b.test/ HTTP/1.1\r\nHost: b.test\r\n", []string{"a.test"}, false},
		{"absolute form of https", "GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n", []string{"a.test"}, false},
		{"userinfo", "GET / HTTP/1.1\r\nHost: a:x@b.test\r\n", []string{"a.test"}, false},
		{"userinfo in absolute form", "GET http://a:x@a.test/ HTTP/1.1\r\nHost: a.test\r\n", []string{"a.test"}, false},
		{"no Host", "GET / HTTP/1.1\r\n", []string{"a.test"}, false},
		{"1.0 without Host", "GET / HTTP/1.0\r\n", []string{"a.test"}, false},
		{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n", []string{"a.test"}, false},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n", []string{"a.test"}, false},
		{"other port", "GET / HTTP/1.1\r\nHost: a.test:22\r\n", []string{"a.test"}, false},
		{"final dot", "GET / HTTP/1.1\r\nHost: a.test.\r\n", []string{"a.test"}, false},
		{"CONNECT", "CONNECT a.test:" + port + " HTTP/1.1\r\nHost: a.test:" + port + "\r\n", []string{"a.test"}, false},
		{"TRACE", "TRACE / HTTP/1.1\r\nHost: a.test\r\n", []string{"a.test"}, false},
		{"h2 preface", "PRI * HTTP/2.0\r\n", []string{"a.test"}, false},
	} {
		before := up.count()
		got, text := raw(t, e.open(up.at, tc.names...), tc.head+"Connection: close\r\n\r\n")
		if len(got) != 1 || (got[0] == 200) != tc.ok {
			t.Errorf("%s: got %v %q, want ok %t", tc.name, got, text, tc.ok)
		}
		if reached := up.count() > before; reached != tc.ok {
			t.Errorf("%s: reached the server: %t", tc.name, reached)
		}
	}
}

// Number 63: every request of a connection is checked.
func TestKeepAlive(t *testing.T) {
	up := newUpstream(t, nil)
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "GET a.test/*", "GET b.test/*")}, log: true})
	got, _ := raw(t, e.open(up.at, "a.test"), "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n"+
		"GET /2 HTTP/1.1\r\nHost: b.test\r\n\r\n"+"POST /3 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nxy"+
		"GET /4 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	if fmt.Sprint(got) != "[200 403 403 200]" {
		t.Errorf("got %v", got)
	}
	for _, want := range []struct {
		path   string
		denied bool
	}{{"/1", false}, {"/2", true}, {"/3", true}, {"/4", false}} {
		if m := e.record(); m.Path != want.path || m.Denied != want.denied {
			t.Errorf("got %+v, want %+v", m, want)
		}
	}
	if up.count() != 2 {
		t.Errorf("%d requests reached the server, want 2", up.count())
	}
}

// Number 55.
func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		if os.Getenv("SANDLOCK_TEST_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip("no IPv6 here")
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	at := l.Addr().String()
	for _, tc := range []struct {
		rule, method, path string
		want               int
	}{{"GET */*", "GET", "/", 200}, {"GET */*", "POST", "/", 403}, {"GET */allowed", "GET", "/denied", 403}, {"GET [::1]/*", "GET", "/x", 200}} {
		r := tc.rule
		h := ir.HTTP{Allow: rules(t, r)}
		if strings.Contains(r, "[::1]") {
			h.Allow[0].Host = "::1"
		}
		e := begin(t, settings{http: h})
		got := e.do(e.client(at), request(t, tc.method, "http://"+at+tc.path, nil))
		if got.StatusCode != tc.want || tc.want == 200 && got.text != at {
			t.Errorf("%+v: got %d %q", tc, got.StatusCode, got.text)
		}
	}
}

// A request must not be another one to the server than to us.
func TestMethodOverride(t *testing.T) {
	up := newUpstream(t, nil)
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "GET 127.0.0.1/*", "POST 127.0.0.1/*")}})
	for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"} {
		for value, want := range map[string]int{"DELETE": 403, "delete": 403, "GET": 200, "get": 200, "GET, DELETE": 403, "": 403} {
			got := e.do(e.client(up.at), request(t, "POST", "http://"+up.at+"/", nil, name, value))
			if got.StatusCode != want {
				t.Errorf("%s: %s: got %d, want %d", name, value, got.StatusCode, want)
			}
		}
	}
}

// The same for headers that name another path.
func TestPathOverride(t *testing.T) {
	up := newUpstream(t, nil)
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "GET 127.0.0.1/*"), Deny: rules(t, "* */admin/*")}})
	for _, name := range []string{"X-Original-URL", "X-Rewrite-Url"} {
		for value, want := range map[string]int{"/admin/x": 403, "/a/../admin?x": 403, "/other": 200, "admin": 403, "": 403} {
			got := e.do(e.client(up.at), request(t, "GET", "http://"+up.at+"/", nil, name, value))
			if got.StatusCode != want {
				t.Errorf("%s: %s: got %d, want %d", name, value, got.StatusCode, want)
			}
		}
	}
}

// Escapes 47: nothing of what is ambiguous leaves, nor what comes after it.
func TestSmuggling(t *testing.T) {
	up := newUpstream(t, nil)
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "* a.test/*")}})
	const hidden = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n"
	for name, text := range map[string]string{
		"CL.TE":             "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
		"TE.CL":             "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n",
		"xchunked":          "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: xchunked\r\n\r\n",
		"two TE":            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"space before TE":   "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"tab in TE":         "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding:\tchunked, identity\r\n\r\n0\r\n\r\n",
		"TE in 1.0":         "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two CL":            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n",
		"CL list":           "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0, 44\r\n\r\n",
		"CL sign":           "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +0\r\n\r\n",
		"CL hex":            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0x0\r\n\r\n",
		"bare LF":           "GET / HTTP/1.1\nHost: a.test\n\n",
		"bare CR":           "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\rContent-Length: 44\r\n\r\n",
		"obs-fold":          "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\r\n Content-Length: 44\r\n\r\n",
		"fold first":        "GET / HTTP/1.1\r\n Host: b.test\r\nHost: a.test\r\n\r\n",
		"space in name":     "GET / HTTP/1.1\r\nHost: a.test\r\nX Y: a\r\n\r\n",
		"no colon":          "GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length\r\n\r\n",
		"NUL":               "GET / HTTP/1.1\r\nHost: a.test\r\nX: \x00\r\n\r\n",
		"bad method":        "GE(T / HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"two spaces":        "GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"bad version":       "GET / HTTP/1.2x\r\nHost: a.test\r\n\r\n",
		"0.9":               "GET /\r\n",
		"space in target":   "GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"authority form":    "GET a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"opaque target":     "GET http:a.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"header too large":  "GET / HTTP/1.1\r\nHost: a.test\r\nX: " + strings.Repeat("x", 65<<10) + "\r\n\r\n",
		"unknown Expect":    "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 200-maybe\r\nContent-Length: 1\r\n\r\nx",
		"space before line": " GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
	} {
		before := up.count()
		got, _ := raw(t, e.open(up.at, "a.test"), text+hidden)
		after := up.count()
		if after != before {
			t.Errorf("%s: %d requests reached the server; answers %v", name, after-before, got)
		}
		if len(got) > 1 || len(got) == 1 && (got[0] < 400 || got[0] > 505) {
			t.Errorf("%s: got %v, want one refusal", name, got)
		}
	}
	for _, r := range up.requests {
		if r.URL.Path == "/hidden" {
			t.Error("the hidden request reached the server")
		}
	}
}
