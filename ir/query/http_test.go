package query_test

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/abi"
	"github.com/sandlock-go/sandlock/ir/query"
)

// httpRule takes "GET example.com/v1/*", its path as the program holds it.
func httpRule(text string) ir.HTTPRule {
	method, rest, _ := strings.Cut(text, " ")
	host, path, _ := strings.Cut(rest, "/")
	path, prefix := strings.CutSuffix("/"+path, "*")
	return ir.HTTPRule{Method: method, Host: strings.Trim(host, "[]"), Path: path, Prefix: prefix}
}

func httpRules(texts ...string) []ir.HTTPRule {
	var list []ir.HTTPRule
	for i, text := range texts {
		r := httpRule(text)
		r.Origin = ir.OriginRef(i + 1)
		list = append(list, r)
	}
	return list
}

func lists(rules ...string) *ir.HTTP {
	h := &ir.HTTP{}
	for _, text := range rules {
		if denied, ok := strings.CutPrefix(text, "!"); ok {
			h.Deny = append(h.Deny, httpRule(denied))
		} else {
			h.Allow = append(h.Allow, httpRule(text))
		}
	}
	return h
}

// decide takes "GET example.com/path". A path that cannot be read is refused.
func decide(t *testing.T, h *ir.HTTP, request string) query.HTTPRuling {
	t.Helper()
	method, rest, _ := strings.Cut(request, " ")
	host, path, found := strings.Cut(rest, "/")
	if path = "/" + path; !found {
		host, path = strings.TrimSuffix(host, "*"), "*"
	}
	host, err := query.CanonicalHost(host)
	if err != nil {
		t.Fatal(err)
	}
	p, err := query.ParsePath(path)
	if err != nil {
		return query.HTTPRuling{Reason: err.Error()}
	}
	return query.NewHTTP(h).Decide(method, host, &p)
}

func TestHTTP(t *testing.T) {
	for _, tc := range []struct {
		name           string
		rules          []string // "!" before those that deny
		allowed, other []string
	}{
		{"number 48, prefix", []string{"GET 127.0.0.1/*"}, []string{"GET 127.0.0.1/get", "GET 127.0.0.1/"}, []string{"GET 127.0.0.2/get"}},
		{"number 48, exact", []string{"GET 127.0.0.1/allowed"}, []string{"GET 127.0.0.1/allowed", "GET [::ffff:127.0.0.1]/./allowed"}, []string{
			"GET 127.0.0.1/denied", "GET 127.0.0.1/allowed/", "GET 127.0.0.1/allowed/x", "GET 127.0.0.1/Allowed", "GET 127.0.0.1/allowedx",
		}},
		{"number 49", []string{"* 127.0.0.1/*", "!* 127.0.0.1/secret"}, []string{"GET 127.0.0.1/public", "GET 127.0.0.1/secrets", "GET 127.0.0.1/secret/x"}, []string{
			"GET 127.0.0.1/secret", "POST 127.0.0.1/secret/", "GET 127.0.0.1/SECRET", "GET 127.0.0.1//secret", "GET 127.0.0.1/secret;a=b", "GET 127.0.0.1/secret%3Fx",
		}},
		{"number 51", []string{"GET 127.0.0.1/anything"}, []string{"GET 127.0.0.1/anything"}, []string{
			"POST 127.0.0.1/anything", "HEAD 127.0.0.1/anything", "get 127.0.0.1/anything",
		}},
		{"number 52", []string{"GET 127.0.0.1/get", "POST 127.0.0.1/post"}, []string{"GET 127.0.0.1/get", "POST 127.0.0.1/post"}, []string{
			"GET 127.0.0.1/anything", "GET 127.0.0.1/post", "POST 127.0.0.1/get",
		}},
		{
			"number 53", []string{"* 127.0.0.1/*", "!* */admin/*"},
			[]string{"GET 127.0.0.1/get", "GET 127.0.0.1/administrator", "GET 127.0.0.1/x/admin", "GET 127.0.0.1/admi%C3%B1/x"},
			[]string{
				"GET 127.0.0.1/admin/settings", "GET 127.0.0.1//admin/x", "GET 127.0.0.1/./admin/x", "GET 127.0.0.1/public/../admin/x",
				"GET 127.0.0.1/%61dmin/x", "GET 127.0.0.1/v1/%2e%2e/admin/x", "GET 127.0.0.1/admin", "GET 127.0.0.1/admin/", "GET 127.0.0.1/%2561dmin/x",
				"GET 127.0.0.1/v1/..;/admin/x", "GET 127.0.0.1/admin;x/y", "GET 127.0.0.1/Admin/x", "GET 127.0.0.1/v1%00", "GET 127.0.0.1/a%2f..%2fadmin",
				"GET 127.0.0.1/admin%2fx", "GET 127.0.0.1/ADMIN;a/x;b", "GET 127.0.0.1/admin%3Bx/y", "GET 127.0.0.1/admin;a%2Fx", "GET 127.0.0.1/admin;a%3Fx",
				"GET 127.0.0.1/admin%23/x", "GET 127.0.0.1/admin;", "GET 127.0.0.1/%c0%ae%c0%ae/admin", "GET 127.0.0.1/x\\..\\admin", "GET 127.0.0.1/v1/%252e%252e/admin",
			},
		},
		{"number 55, any path", []string{"GET */*"}, []string{"GET [::1]/", "GET a.example/x"}, []string{"POST [::1]/"}},
		{"number 55, exact", []string{"GET */allowed"}, []string{"GET [::1]/allowed"}, []string{"GET [::1]/denied"}},
		{"what an allow list means by a segment", []string{"* a.example/v1/*"}, []string{
			"GET a.example/v1", "GET a.example/v1/", "GET a.example/v1/a%2Fb", "GET a.example/v1/a;b", "GET a.example/v1/%C3%A9", "GET a.example/v1/a%3Fb",
		}, []string{
			"GET a.example/v1beta", "GET a.example/v1%2Fa", "GET a.example/v1;x/a", "GET a.example/V1/a", "GET a.example/v1/../admin", "GET a.example/v1/a%2f..%2f..%2fadmin",
			"GET a.example/v1/..;/admin", "GET a.example/v1/..%2fadmin", "GET a.example/", "GET a.example*",
		}},
		{"prefix within a segment", []string{"* a.example/v1*"}, []string{"GET a.example/v1", "GET a.example/v1beta", "GET a.example/v1%2Fa"}, []string{"GET a.example/v"}},
		{"npm", []string{"GET r.example/*"}, []string{"GET r.example/@types%2fnode", "GET r.example/@types/node"}, nil},
		{"rule of an encoded slash", []string{"GET r.example/group%2Fproject/*", "GET r.example/@types%2F*"}, []string{
			"GET r.example/group%2fproject/x", "GET r.example/group%2Fproject", "GET r.example/@types%2Fnode",
		}, []string{"GET r.example/group/project/x", "GET r.example/group%2Fproject%2Fx", "GET r.example/@types/node"}},
		{"rule of parameters", []string{"GET r.example/a;v=1/*"}, []string{"GET r.example/a;v=1/x"}, []string{"GET r.example/a;v=2/x", "GET r.example/a/x"}},
		{"deny rule of an encoded slash", []string{"!* */a%2Fb"}, []string{"GET r.example/a"}, []string{"GET r.example/a%2fb", "GET r.example/a/b", "GET r.example/A/B/"}},
		{"several readings, several rules", []string{"GET r.example/a%2Fb", "GET r.example/a/*"}, []string{"GET r.example/a%2Fb"}, []string{"GET r.example/a%2Fc"}},
		{"deny alone", []string{"!POST a.example/*"}, []string{"GET a.example/", "POST b.example/"}, []string{"POST a.example/", "post a.example/", "POST a.example*"}},
		{"server", []string{"OPTIONS a.example/*", "* b.example/x*"}, []string{"OPTIONS a.example*"}, []string{"GET a.example*", "OPTIONS b.example*"}},
		{"root", []string{"* a.example/", "!* b.example/"}, []string{"GET a.example/"}, []string{"GET a.example/x", "GET a.example*", "GET b.example/"}},
		{"case of other letters", []string{"* */*", "!* */%C3"}, []string{"GET a.example/%C3%A4"}, nil},
		{"no rule", []string{"* a.example/*"}, nil, []string{"GET b.example/"}},
	} {
		h := lists(tc.rules...)
		for _, request := range tc.allowed {
			if r := decide(t, h, request); !r.Allowed || r.Reason == "" || r.Rule == nil && len(h.Allow) > 0 {
				t.Errorf("%s: %s: got %+v, want it allowed", tc.name, request, r)
			}
		}
		for _, request := range tc.other {
			if r := decide(t, h, request); r.Allowed || r.Reason == "" {
				t.Errorf("%s: %s: got %+v, want it refused", tc.name, request, r)
			}
		}
	}
	if r := query.NewHTTP(lists("!GET a.example/x")).Decide("GET", "b.example", &query.HTTPPath{Forward: "/"}); r.Allowed {
		t.Error("a path that nobody has read is allowed")
	}
}

func TestHTTPInWords(t *testing.T) {
	h := &ir.HTTP{
		Allow: httpRules("GET api.example.com/v1/*", "POST api.example.com/v2/items", "GET [::1]/*"),
		Deny:  httpRules("* */v1/admin/*", "* api.example.com/v1/old"),
	}
	h.Deny[0].Reason = "not for machines"
	for request, want := range map[string]string{
		"GET api.example.com/v1/x":         "allowed by GET api.example.com/v1/*",
		"GET [::1]/":                       "allowed by GET [::1]/*",
		"GET api.example.com/v1/admin/":    "denied by * */v1/admin/*: not for machines",
		"GET api.example.com/v1/admin%2Fx": "denied by * */v1/admin/*: not for machines; to some servers the request is GET api.example.com/v1/admin/x",
		"GET api.example.com/v1/old":       "denied by * api.example.com/v1/old",
		"POST api.example.com/v1/x":        "no allow rule matches; closest is GET api.example.com/v1/*",
		"GET api.example.com/v2/items":     "no allow rule matches; closest is POST api.example.com/v2/items",
		"GET api.example.com/v":            "no allow rule matches; closest is GET api.example.com/v1/*",
		"POST api.example.com/":            "no allow rule matches; closest is POST api.example.com/v2/items",
		"GET api.example.com/v1%2Fx":       "no allow rule matches; closest is GET api.example.com/v1/*",
		"POST api.example.com/v2/items;x":  "no allow rule matches; closest is POST api.example.com/v2/items",
		"GET example.com/v1/x":             "no allow rule matches",
		"GET api.example.com/v1/..;/x":     "path is ambiguous: segment of parameters alone, or of dots and parameters",
	} {
		if got := decide(t, h, request); got.Reason != want || got.Allowed != strings.HasPrefix(want, "allowed") {
			t.Errorf("%s: got %+v, want %q", request, got, want)
		}
	}
	if got := decide(t, lists("* */group%2Fproject"), "GET a.example/x"); got.Reason != "no allow rule matches; closest is * */group%2Fproject" {
		t.Errorf("an encoded slash in words: %+v", got)
	}
	if got := decide(t, h, "POST api.example.com/v1/x"); got.Rule != nil || got.Closest != &h.Allow[0] {
		t.Errorf("got %+v, want the first rule as the closest", got)
	}
	if got := decide(t, h, "GET api.example.com/v1/old"); got.Rule != &h.Deny[1] {
		t.Errorf("got %+v, want the second deny rule", got)
	}
}

func TestOpaque(t *testing.T) {
	opaque := func(host string) ir.HTTPRule {
		return ir.HTTPRule{Method: "*", Host: host, Path: "/", Prefix: true, Opaque: true}
	}
	h := &ir.HTTP{
		Allow: append(httpRules("* clear.example/*"), opaque("a.example"), opaque("b.example"), opaque("c.example")),
		Deny:  httpRules("* b.example/*", "* c.example/admin/*", "POST */*"),
	}
	w := query.NewHTTP(h)
	for host, want := range map[string]bool{"a.example": true, "b.example": false, "c.example": true, "clear.example": false, "d.example": false, "*": false} {
		if r, got := w.Opaque(host); got != want || got && (!r.Opaque || r.Host != host) {
			t.Errorf("%s: %v (%v)", host, got, r)
		}
	}
	if r := decide(t, h, "GET a.example/x"); !r.Allowed {
		t.Errorf("in clear text: %+v", r)
	}
	h.Deny = append(h.Deny, httpRule("* */*"))
	if _, got := query.NewHTTP(h).Opaque("a.example"); got {
		t.Error("every host is denied, but TLS is passed on")
	}
}

func TestSpeaks(t *testing.T) {
	w := query.NewHTTP(lists("GET a.example/x", "!* b.example/*"))
	for host, want := range map[string]bool{"a.example": true, "b.example": true, "c.example": false, "*": false} {
		if got := w.Speaks(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
	for _, rule := range []string{"* */x", "!* */x"} {
		if !query.NewHTTP(lists(rule)).Speaks("c.example") {
			t.Errorf("%s speaks of every host", rule)
		}
	}
}

func TestAuth(t *testing.T) {
	h := &ir.HTTP{}
	for i, r := range httpRules("GET a.example/v1/*", "* a.example/*", "* */public") {
		h.Auth = append(h.Auth, ir.HTTPAuth{Rule: r, Credential: string(rune('a' + i))})
	}
	w := query.NewHTTP(h)
	for request, want := range map[string]string{
		"GET a.example /v1/x": "a", "POST a.example /v1/x": "b", "GET a.example /": "b", "GET a.example *": "b", "GET b.example /public": "c",
		"GET a.example /v1%2Fx": "b", "GET a.example /public": "b", "GET b.example /Public": "", "GET b.example /public;x": "", "GET b.example /": "",
	} {
		words := strings.Fields(request)
		p, err := query.ParsePath(words[2])
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if a := w.Auth(words[0], words[1], &p); a != nil {
			got = a.Credential
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", request, got, want)
		}
	}
	if w.Auth("GET", "a.example", &query.HTTPPath{}) != nil {
		t.Error("a path that nobody has read is given a credential")
	}
}

func manyHosts() *query.HTTP {
	h := &ir.HTTP{Deny: httpRules("* */admin/*", "POST */x")}
	for i := range 4000 {
		h.Allow = append(h.Allow, httpRule(fmt.Sprintf("GET h%d.example/v1/*", i)))
		h.Auth = append(h.Auth, ir.HTTPAuth{Rule: h.Allow[i]})
	}
	return query.NewHTTP(h)
}

func TestHTTPAllocates(t *testing.T) {
	w := manyHosts()
	for _, request := range []string{"GET h3999.example /v1/x", "GET h7.example /Admin/x", "GET h7.example /v2/", "GET other.example /"} {
		words := strings.Fields(request)
		p, err := query.ParsePath(words[2])
		if err != nil {
			t.Fatal(err)
		}
		if got := testing.AllocsPerRun(100, func() {
			w.Decide(words[0], words[1], &p)
			w.Auth(words[0], words[1], &p)
			w.Opaque(words[1])
			w.Speaks(words[1])
		}); got > 0 {
			t.Errorf("%s: %v allocations", request, got)
		}
	}
}

func BenchmarkHTTP(b *testing.B) {
	w := manyHosts()
	for b.Loop() {
		p, err := query.ParsePath("/v1/a/b")
		if r := w.Decide("GET", "h3999.example", &p); err != nil || !r.Allowed {
			b.Fatal(r, err)
		}
	}
}

func TestHTTPEvent(t *testing.T) {
	p := program()
	p.HTTP = ir.HTTP{Allow: httpRules("GET api.example.com/v1/*"), Deny: httpRules("* */v1/admin/*"), Origin: 9}
	for _, tc := range []struct {
		target  string
		allowed bool
		rule    string
		origin  ir.OriginRef
	}{
		{"GET api.example.com/v1/x", true, "GET api.example.com/v1/*", 1},
		{"get API.example.com/v1/x?a=/../b%zz", true, "GET api.example.com/v1/*", 1},
		{"GET api.example.com/v1/admin/x", false, "* */v1/admin/*", 1},
		{"POST api.example.com/v1/x", false, "GET api.example.com/v1/*", 1},
		{"GET api.example.com", false, "GET api.example.com/v1/*", 1},
		{"GET other.example/", false, "", 9},
		{"GET api.example.com/v1/%2561", false, "", 9},
	} {
		r, err := query.Event(p, abi.AMD64, &ir.Test{Kind: ir.TestHTTP, Target: tc.target})
		if err != nil || r.Allowed != tc.allowed || r.Rule != tc.rule || r.Origin != tc.origin || r.Reason == "" {
			t.Errorf("%s: got %+v (%v), want %+v", tc.target, r, err, tc)
		}
	}
	for _, target := range []string{"GET", "GET ", " a.example/", "GET a.example:80/", "GET /x", "GET 127.1/", "GET */x"} {
		if r, err := query.Event(p, abi.AMD64, &ir.Test{Kind: ir.TestHTTP, Target: target}); err == nil {
			t.Errorf("%q: got %+v, want an error", target, r)
		}
	}
	if r, err := query.Event(program(), abi.AMD64, &ir.Test{Kind: ir.TestHTTP, Target: "GET a.example/"}); err == nil {
		t.Errorf("without rules: got %+v, want an error", r)
	}
}

// reference decides as slowly as it is said in words, from the path that is sent on alone.
func reference(h *ir.HTTP, method, host, forward string) bool {
	views := spellings(forward)
	names := func(r *ir.HTTPRule) bool { return r.Host == "*" || r.Host == host }
	for _, view := range views {
		for i := range h.Deny {
			r := &h.Deny[i]
			if !names(r) || r.Method != "*" && fold(r.Method) != fold(method) {
				continue
			}
			for _, path := range []string{r.Path, strings.ReplaceAll(r.Path, "%2F", "/")} {
				pattern := regexp.QuoteMeta(fold(strings.TrimSuffix(path, "/"))) + "/?$"
				if r.Prefix {
					pattern = regexp.QuoteMeta(fold(path))
					if strings.HasSuffix(path, "/") {
						pattern = regexp.QuoteMeta(fold(strings.TrimSuffix(path, "/"))) + "(/|$)"
					}
				}
				if r.Path == "/" && r.Prefix || view != "*" && regexp.MustCompile("^"+pattern).MatchString(fold(view)) {
					return false
				}
			}
		}
	}
	if len(h.Allow) == 0 {
		return true
	}
	for how, view := range views {
		matched := false
		for i := range h.Allow {
			r := &h.Allow[i]
			path := liberty(r.Path, how)
			ok := view == path
			if r.Prefix {
				ok = path == "/" && how == 0 || strings.HasPrefix(view, path) || view+"/" == path
			}
			if view == "*" {
				ok = r.Path == "/" && r.Prefix
			}
			matched = matched || ok && names(r) && (r.Method == "*" || r.Method == method)
		}
		if !matched {
			return false
		}
	}
	return true
}

// fold leaves letters beyond ASCII alone.
func fold(s string) string {
	return strings.Map(func(c rune) rune {
		if c < 0x80 {
			return unicode.ToLower(c)
		}
		return c
	}, s)
}

func spellings(forward string) map[int]string {
	text := regexp.MustCompile("%2F").ReplaceAllString(forward, "%252F")
	text, err := url.PathUnescape(text)
	if err != nil {
		panic(err)
	}
	views := map[int]string{0: text}
	for how := 1; how < 8; how++ {
		if how&1 != 0 && !strings.Contains(text, "%2F") || how&2 != 0 && !strings.Contains(text, ";") || how&4 != 0 && !strings.ContainsAny(text, "?#") {
			continue
		}
		views[how] = liberty(text, how)
	}
	return views
}

var (
	tail       = regexp.MustCompile(`(?s)[?#].*$`)
	parameters = regexp.MustCompile(`;[^/]*`)
)

func liberty(text string, how int) string {
	if how&1 != 0 {
		text = strings.Join(strings.Split(text, "%2F"), "/")
	}
	if how&4 != 0 {
		text = tail.ReplaceAllString(text, "")
	}
	if how&2 != 0 {
		text = parameters.ReplaceAllString(text, "")
	}
	return text
}

// FuzzHTTPMatch compares the tables with the reference. Rules are lines as httpRules takes them, "!" before those that deny,
// their paths as requests spell them.
func FuzzHTTPMatch(f *testing.F) {
	const rules = "ABC a.b/v1/*\n* a.b/x%2Fy*\n* [::1]/a;b/\nABC */a%3Fb\n!* */admin/*\n!XYZ a.b/secret\n!* */q%2Fr"
	for _, path := range []string{"/v1/a", "/v1%2Fa", "/x%2Fyz", "/a;b/c", "/Admin;x", "/secret/", "/a%3Fb", "/q/r/", "*", "/v1", "/"} {
		f.Add(rules, "ABC", "a.b", path)
		f.Add(rules, "xyz", "[::1]", path)
		f.Add("* */*\n!* */v1/", "ABC", "c", path)
	}
	f.Fuzz(func(t *testing.T, rules, method, host, raw string) {
		host, err := query.CanonicalHost(host)
		if err != nil || len(rules) > 1000 || strings.Trim(method, "ABCKSXYZabcksxyz") != "" {
			return
		}
		p, err := query.ParsePath(raw)
		if err != nil {
			return
		}
		h := &ir.HTTP{}
		for line := range strings.Lines(rules) {
			line, denies := strings.CutPrefix(strings.TrimSpace(line), "!")
			r := httpRule(line)
			path := r.Path
			if r.Prefix {
				path += "*"
			}
			parsed, err := query.ParsePath(path)
			if err != nil || r.Host != "*" && r.Host == "" {
				continue
			}
			r.Path = parsed.Text()
			if r.Prefix {
				r.Path = strings.TrimSuffix(r.Path, "*")
			}
			if denies {
				h.Deny = append(h.Deny, r)
			} else {
				h.Allow = append(h.Allow, r)
			}
		}
		w := query.NewHTTP(h)
		got := w.Decide(method, host, &p)
		if want := reference(h, method, host, p.Forward); got.Allowed != want {
			t.Fatalf("%s %s %q (%s): got %+v, want allowed %v by %+v", method, host, raw, p.Readings(), got, want, h)
		}
		if got.Reason == "" || got.Allowed && len(h.Allow) > 0 && got.Rule == nil {
			t.Fatalf("%s %s %q: got %+v", method, host, raw, got)
		}
	})
}
