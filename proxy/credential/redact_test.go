package credential

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	bearer, basic, query := Way{Kind: Bearer}, Way{Kind: Basic, Name: "user"}, Way{Kind: Query, Name: "key"}
	for _, tc := range []struct {
		name   string
		way    Way
		secret string
		in     http.Header
		want   http.Header // nil: as it is
	}{
		{"nothing", bearer, "s3cr3t", http.Header{"A": {"b", "s3cr3"}, "S3cr3": {"S3CR3T"}}, nil},
		{"value", bearer, "s3cr3t", http.Header{"X-Echo": {"Bearer s3cr3t", "ok", "s3cr3ts3cr3t,s3cr3t"}, "A": {"b"}},
			http.Header{"X-Echo": {"Bearer [redacted]", "ok", "[redacted][redacted],[redacted]"}, "A": {"b"}}},
		{"every spelling", bearer, "s3cr3t", http.Header{"x-echo": {"s3cr3t"}, "": {"s3cr3t"}}, http.Header{"x-echo": {"[redacted]"}, "": {"[redacted]"}}},
		{"name", bearer, "s3cR3t", http.Header{"X-S3cr3t-Seen": {"1"}, "A": {"b"}}, http.Header{"A": {"b"}}},
		{"basic", basic, "s3cr3t", http.Header{"A": {"Basic dXNlcjpzM2NyM3Q=", "dXNlcjpzM2NyM3Q", "s3cr3t"}},
			http.Header{"A": {"Basic [redacted]", "[redacted]", "[redacted]"}}},
		{"basic, alphabet of URLs", basic, "??>>??", http.Header{"A": {"dXNlcjo_Pz4-Pz8", "dXNlcjo/Pz4+Pz8="}}, http.Header{"A": {"[redacted]", "[redacted]"}}},
		{"basic in lower case", basic, "s3cr3t", http.Header{"Dxnlcjpzm2nym3q": {"1"}}, http.Header{}},
		{"query", query, "a/b c=d", http.Header{"Location": {"https://x.test/?key=a%2Fb%20c%3Dd&x=1", "/?key=a%2Fb+c%3Dd", "a/b c=d"}},
			http.Header{"Location": {"https://x.test/?key=[redacted]&x=1", "/?key=[redacted]", "[redacted]"}}},
		{"encoded in other ways", query, "a/b c=d", http.Header{"Location": {"/?key=a%2fb%20c%3dd", "/?key=%61/b+c=%64", "/?a%2Fb%20c"}},
			http.Header{"Location": {"[redacted]", "[redacted]", "/?a%2Fb%20c"}}},
		{"joined by redaction", bearer, "abcabd", http.Header{"A": {"abcabcabdabd"}}, http.Header{"A": {"abc[redacted]abd"}}},
		{"joined by an empty mark", bearer, "redacted", http.Header{"A": {"x-redacted-y", "redaredactedcted"}}, http.Header{"A": {"x--y", ""}}},
		{"joined with the mark", bearer, "x[reda", http.Header{"A": {"xx[reda", "x[reda"}}, http.Header{"A": {"[redacted]", "[redacted]"}}},
		{"length", bearer, "1234", http.Header{"Content-Length": {"12345"}, "X": {"12345"}}, http.Header{"Content-Length": {"12345"}, "X": {"[redacted]5"}}},
		{"length that is none", bearer, "1234", http.Header{"Content-Length": {"1234x"}}, http.Header{"Content-Length": {"[redacted]x"}}},
		{"short alone", bearer, "abc", http.Header{"A": {"abc", "Bearer abc", "x=abc;y", "abcd", "text/xabc", "abcd abc", "ABC"}, "Xabc": {"1"}},
			http.Header{"A": {"[redacted]", "[redacted]", "[redacted]", "abcd", "text/xabc", "[redacted]", "ABC"}, "Xabc": {"1"}}},
		{"short in a name", bearer, "abc", http.Header{"X-ABC-Y": {"1"}}, http.Header{}},
		{"short, encoded", query, "a/b", http.Header{"A": {"k=a%2Fb", "k=%61/b", "k=%61/bc"}}, http.Header{"A": {"k=[redacted]", "[redacted]", "k=%61/bc"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := keep(t, tc.secret)
			e, err := s.Echo(tc.way, "s")
			if err != nil {
				t.Fatal(err)
			}
			want, changed := tc.want, true
			if want == nil {
				want, changed = tc.in.Clone(), false
			}
			if got := e.Redact(tc.in); got != changed || !reflect.DeepEqual(tc.in, want) {
				t.Errorf("%q, changed %t; want %q, %t", tc.in, got, want, changed)
			}
		})
	}
}

func TestRedactText(t *testing.T) {
	s, _ := keep(t, "s3cr3t")
	e, err := s.Echo(Way{Kind: Bearer}, "s")
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{"OK": "OK", "no s3cr3t here": "no [redacted] here", "": ""} {
		if got := e.Text(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	var none *Echo
	if h := (http.Header{"A": {"s3cr3t"}}); none.Redact(h) || none.Text("s3cr3t") != "s3cr3t" || h.Get("A") != "s3cr3t" {
		t.Error("without a secret something is redacted")
	}
	if _, err := s.Echo(Way{Kind: Bearer}, "other"); err == nil {
		t.Error("an echo of a secret that is not there")
	}
	if _, err := s.Echo(Way{}, "s"); err == nil {
		t.Error("an echo of no way")
	}
}

// What Apply has put into a request, Redact takes out of an answer that repeats it.
func TestRedactsWhatWasApplied(t *testing.T) {
	for _, way := range []Way{{Kind: Bearer}, {Kind: Basic, Name: "user"}, {Kind: Header, Name: "X-Key"}, {Kind: Query, Name: "a b"}} {
		for _, text := range []string{"s3cr3t", "a b/c?d=e&f+g%20", "ä€", "x", "redacted", "[redacted]"} {
			s, secret := keep(t, text)
			h := http.Header{}
			query, _, err := Apply(way, secret, h, "x=y")
			if err != nil {
				t.Fatal(err)
			}
			e, err := s.Echo(way, "s")
			if err != nil {
				t.Fatal(err)
			}
			answer := http.Header{"Location": {"https://x.test/?" + query, h.Get("Authorization"), h.Get("X-Key")}}
			if !e.Redact(answer) {
				t.Errorf("%+v, %q: nothing found in %q", way, text, answer)
			}
			for _, v := range answer["Location"] {
				if len(text) >= short && strings.Contains(v, text) && !strings.Contains(redacted, text) {
					t.Errorf("%+v, %q: %q", way, text, v)
				}
			}
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("s3cr3t", "user", "X-Echo", "Bearer s3cr3t", "s3cr3t")
	f.Add("a b", "u", "Location", "/?k=a%20b", "a+b")
	f.Add("redacted", "u", "X-Redacted", "redacted", "redredactedacted")
	f.Add("[reda", "u", "A", "[reda[reda", "x")
	f.Add("%61", "u", "Content-Length", "12", "%61%2561")
	f.Fuzz(func(t *testing.T, text, user, name, v1, v2 string) {
		if text == "" || len(text) > 1000 || checkUser(user) != nil {
			return
		}
		s, _ := keep(t, text)
		for _, way := range []Way{{Kind: Bearer}, {Kind: Basic, Name: user}, {Kind: Query, Name: "k"}} {
			e, err := s.Echo(way, "s")
			if err != nil {
				t.Fatal(err)
			}
			h := http.Header{name: {v1, v2 + text, v2}, "X-" + text: {v1}, "Other": {text + v1 + escape(text)}}
			e.Redact(h)
			before := h.Clone()
			if e.Redact(h) && len(text) >= short && !reflect.DeepEqual(h, before) {
				t.Errorf("%q: the second time %q became %q", text, before, h)
			}
			if len(text) < short {
				continue
			}
			for name, values := range h {
				if strings.Contains(string(fold([]byte(name))), string(fold([]byte(text)))) {
					t.Errorf("%q is in the name %q", text, name)
				}
				for _, v := range values {
					length := strings.EqualFold(name, "Content-Length") && strings.Trim(v, "0123456789") == ""
					if !length && (strings.Contains(v, text) || strings.Contains(v, escape(text)) || strings.Contains(unescape(v), text)) {
						t.Errorf("%q is in the value %q of %q", text, v, name)
					}
				}
			}
		}
	})
}
