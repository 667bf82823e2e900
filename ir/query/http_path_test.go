package query_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir/query"
)

func TestParsePath(t *testing.T) {
	for _, tc := range []struct{ raw, forward, text string }{
		{"/", "/", "/"},
		{"//", "/", "/"},
		{"/..", "/", "/"},
		{"/a/..", "/", "/"},
		{"/a/b", "/a/b", "/a/b"},
		{"/a/b/", "/a/b/", "/a/b/"},
		{"/a//b//", "/a/b/", "/a/b/"},
		{"/a/.", "/a/", "/a/"},
		{"/a/b/..", "/a/", "/a/"},
		{"/a/%2E", "/a/", "/a/"},
		{"/../../a", "/a", "/a"},
		{"/a/./b/../c", "/a/c", "/a/c"},
		{"/a/.../.b", "/a/.../.b", "/a/.../.b"},
		{"/v1/%2e%2e/admin/x", "/admin/x", "/admin/x"},
		{"/v1/.%2E/admin", "/admin", "/admin"},
		{"/%61dmin/%7ex", "/admin/~x", "/admin/~x"},
		{"/caf%c3%a9/%20", "/caf%C3%A9/%20", "/café/ "},
		{"/a%3ab:c@d", "/a%3Ab:c@d", "/a:b:c@d"},
		{"/100%25/%25z1", "/100%25/%25z1", "/100%/%z1"},
		{"/a\"<>[]^`{|}", "/a%22%3C%3E%5B%5D%5E%60%7B%7C%7D", "/a\"<>[]^`{|}"},
		{"/@types%2fnode", "/@types%2Fnode", "/@types%2Fnode"},
		{"/group%2Fproject/x", "/group%2Fproject/x", "/group%2Fproject/x"},
		{"/a%3Bb", "/a%3Bb", "/a;b"},
		{"/a%3Fb%23c", "/a%3Fb%23c", "/a?b#c"},
		{"/a;v=1/b;w", "/a;v=1/b;w", "/a;v=1/b;w"},
		{"/a*!$&'()+,=-._~", "/a*!$&'()+,=-._~", "/a*!$&'()+,=-._~"},
		{"/x/..;/../b", "/x/b", "/x/b"}, // what is sent on is not ambiguous
		{"*", "*", "*"},
	} {
		p, err := query.ParsePath(tc.raw)
		if err != nil || p.Forward != tc.forward || p.Text() != tc.text {
			t.Errorf("%s: got %q, read as %q (%v), want %q, read as %q", tc.raw, p.Forward, p.Text(), err, tc.forward, tc.text)
		}
	}
}

func TestParsePathRefuses(t *testing.T) {
	for raw, want := range map[string]error{
		"":                               query.ErrPathRelative,
		"a":                              query.ErrPathRelative,
		"*/":                             query.ErrPathRelative,
		"http://a/b":                     query.ErrPathRelative,
		"/" + strings.Repeat("a", 8192):  query.ErrPathLong,
		"/" + strings.Repeat("[", 3000):  query.ErrPathLong, // encoded
		"/a b":                           query.ErrPathBytes,
		"/é":                             query.ErrPathBytes,
		"/a?b":                           query.ErrPathBytes,
		"/a#b":                           query.ErrPathBytes,
		"/a\tb":                          query.ErrPathBytes,
		"/a\x7f":                         query.ErrPathBytes,
		"/%":                             query.ErrPathEscape,
		"/%a":                            query.ErrPathEscape,
		"/%a/1":                          query.ErrPathEscape,
		"/%g1":                           query.ErrPathEscape,
		"/%u002f":                        query.ErrPathEscape,
		"/v1%00":                         query.ErrPathControl,
		"/v1%0d%0aX:%20y":                query.ErrPathControl,
		"/%7F":                           query.ErrPathControl,
		"/%c0%af":                        query.ErrPathUTF8,
		"/%c0%ae%c0%ae/x":                query.ErrPathUTF8,
		"/%e0%80%af":                     query.ErrPathUTF8,
		"/%ed%a0%80":                     query.ErrPathUTF8,
		"/%ff":                           query.ErrPathUTF8,
		"/%c3/%a9":                       query.ErrPathUTF8,
		"/%2561dmin/x":                   query.ErrPathDouble,
		"/%252e%252e/x":                  query.ErrPathDouble,
		"/%25%32%66":                     query.ErrPathDouble,
		"/a%252Fb":                       query.ErrPathDouble,
		"/%25u002f":                      query.ErrPathDouble,
		"/a\\b":                          query.ErrPathBackslash,
		"/..%5cadmin":                    query.ErrPathBackslash,
		"/a%2f..%2fadmin":                query.ErrPathSlash,
		"/%2fadmin":                      query.ErrPathSlash,
		"/a%2F":                          query.ErrPathSlash,
		"/a%2F/b":                        query.ErrPathSlash,
		"/a%2f%2fb":                      query.ErrPathSlash,
		"/a%2f%2e/b":                     query.ErrPathSlash,
		"/v1/..;/admin/x":                query.ErrPathParameters,
		"/v1/..;x=y/admin":               query.ErrPathParameters,
		"/v1/%2e%2e;/admin":              query.ErrPathParameters,
		"/v1/..%3b/admin":                query.ErrPathParameters,
		"/v1/;x":                         query.ErrPathParameters,
		"/;/x":                           query.ErrPathParameters,
		"/a/.;":                          query.ErrPathParameters,
		"/a%2f..;%2fb":                   query.ErrPathParameters,
		"/a;b/c%3bd":                     query.ErrPathSemicolons,
		"/a/..%3Fx":                      query.ErrPathCut,
		"/a/%23":                         query.ErrPathCut,
		"/a%2f%3fx":                      query.ErrPathCut,
		"/" + strings.Repeat("a/", 4096): query.ErrPathLong,
	} {
		if p, err := query.ParsePath(raw); !errors.Is(err, want) || p.Forward != "" {
			t.Errorf("%.40q: got %q (%v), want %v", raw, p.Forward, err, want)
		}
	}
}

// What is sent on must mean to a server what was decided about, and again if it is read again.
func FuzzParsePath(f *testing.F) {
	for _, raw := range []string{
		"/", "*", "//a/./b/../c/", "/%61%2f%20", "/a;b/c;d%2Fe", "/a%3Fb;c%2Fd", "/100%25", "/caf%C3%A9", "/..;/x", "/%252f", "/a%25%2fb", "/\"", "/a%3Bb", "/%2F", "/%25u00",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := query.ParsePath(raw)
		if err != nil {
			if p.Forward != "" || p.Text() != "" {
				t.Fatalf("%q: %v, and yet %+v", raw, err, p)
			}
			return
		}
		again, err := query.ParsePath(p.Forward)
		if err != nil || again.Forward != p.Forward || again.Readings() != p.Readings() {
			t.Fatalf("%q is sent on as %q, which is read as %s, not as %s (%v)", raw, p.Forward, again.Readings(), p.Readings(), err)
		}
		if p.Forward == "*" {
			return
		}
		for i := range len(p.Forward) {
			if c := p.Forward[i]; c <= 0x20 || c >= 0x7f || strings.IndexByte("?#\\\"<>[]^`{|}", c) >= 0 {
				t.Fatalf("%q is sent on as %q", raw, p.Forward)
			}
		}
		for _, bad := range []string{"//", "/./", "/../", "%2e", "%00", "%5c", "/..;", "/;"} {
			if where := strings.TrimSuffix(p.Forward, "/") + "/"; strings.Contains(strings.ToLower(where), bad) {
				t.Fatalf("%q is sent on as %q, which has %q", raw, p.Forward, bad)
			}
		}
		if !strings.HasPrefix(p.Forward, "/") || strings.HasSuffix(p.Forward, "/") != strings.HasSuffix(p.Text(), "/") {
			t.Fatalf("%q is sent on as %q, read as %q", raw, p.Forward, p.Text())
		}
	})
}
