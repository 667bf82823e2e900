package credential

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// keep is a store with one secret, "s".
func keep(t testing.TB, secret string) (*Store, Secret) {
	t.Helper()
	s := NewStore()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Put("s", []byte(secret)); err != nil {
		t.Fatal(err)
	}
	held, ok := s.Get("s")
	if !ok {
		t.Fatal("not there")
	}
	return s, held
}

func TestCheckHeaderName(t *testing.T) {
	for name, want := range map[string]bool{
		"Authorization": true, "X-Api-Key": true, "x-api-key": true, "PRIVATE-TOKEN": true, "Cookie": true, "a!#$%&'*+-.^_`|~9": true,
		"": false, "a b": false, "a:": false, "a\n": false, "ä": false, "a(": false, "[a]": false,
		"Host": false, "content-length": false, "Transfer-Encoding": false, "CONNECTION": false, "Upgrade": false, "TE": false, "te": false,
		"Trailer": false, "Proxy-Authorization": false, "proxy-connection": false, "Proxy-": false, "Expect": false, "Keep-Alive": false,
		"Proxyx": true, "Hosts": true,
	} {
		if err := CheckHeaderName(name); (err == nil) != want {
			t.Errorf("%q: %v, want it to be taken: %t", name, err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		way  Way
		want bool
	}{
		{Way{Kind: Bearer}, true}, {Way{Kind: Bearer, Name: "x"}, false},
		{Way{Kind: Basic, Name: "user"}, true}, {Way{Kind: Basic, Name: "Zoë x"}, true}, {Way{Kind: Basic}, false},
		{Way{Kind: Basic, Name: "a:b"}, false}, {Way{Kind: Basic, Name: "a\nb"}, false}, {Way{Kind: Basic, Name: "a\x7f"}, false},
		{Way{Kind: Header, Name: "X-Key"}, true}, {Way{Kind: Header, Name: "Host"}, false}, {Way{Kind: Header}, false},
		{Way{Kind: Query, Name: "a key&="}, true}, {Way{Kind: Query}, false},
		{Way{}, false}, {Way{Kind: 9, Name: "x"}, false},
	} {
		if err := tc.way.Check(); (err == nil) != tc.want {
			t.Errorf("%+v: %v, want it to be taken: %t", tc.way, err, tc.want)
		}
	}
}

func TestApplyHeader(t *testing.T) {
	bearer, basic, header := Way{Kind: Bearer}, Way{Kind: Basic, Name: "user"}, Way{Kind: Header, Name: "x-api-KEY"}
	addOnly := func(w Way) Way { w.AddOnly = true; return w }
	for _, tc := range []struct {
		name    string
		way     Way
		secret  string
		in      http.Header
		want    http.Header
		outcome Outcome
	}{
		{"bearer", bearer, "s3cr3t", http.Header{"Accept": {"*/*"}}, http.Header{"Accept": {"*/*"}, "Authorization": {"Bearer s3cr3t"}}, Injected},
		{"basic", basic, "pass word", http.Header{}, http.Header{"Authorization": {"Basic dXNlcjpwYXNzIHdvcmQ="}}, Injected},
		{"basic holds any byte", basic, "a\x00\r\n", http.Header{}, http.Header{"Authorization": {"Basic dXNlcjphAA0K"}}, Injected},
		{"header", header, "k:ä =", http.Header{}, http.Header{"X-Api-Key": {"k:ä ="}}, Injected},
		{"header holds tabs", header, "a\tb", http.Header{}, http.Header{"X-Api-Key": {"a\tb"}}, Injected},
		{"replace all values", bearer, "new", http.Header{"Authorization": {"Bearer old", "Basic old"}}, http.Header{"Authorization": {"Bearer new"}}, Injected},
		{"replace all spellings", header, "new", http.Header{"X-Api-Key": {"a"}, "x-api-key": {"b"}, "X-API-KEY": {"c"}, "X-Api-Key2": {"d"}},
			http.Header{"X-Api-Key": {"new"}, "X-Api-Key2": {"d"}}, Injected},
		{"add", addOnly(bearer), "new", http.Header{}, http.Header{"Authorization": {"Bearer new"}}, Injected},
		{"keep", addOnly(bearer), "new", http.Header{"Authorization": {"Bearer own"}}, http.Header{"Authorization": {"Bearer own"}}, Kept},
		{"keep an empty one", addOnly(bearer), "new", http.Header{"Authorization": {""}}, http.Header{"Authorization": {""}}, Kept},
		{"keep in another spelling", addOnly(header), "new", http.Header{"x-API-key": {"own"}}, http.Header{"x-API-key": {"own"}}, Kept},
		{"none is not one", addOnly(bearer), "new", http.Header{"Authorization": nil}, http.Header{"Authorization": {"Bearer new"}}, Injected},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, secret := keep(t, tc.secret)
			query, outcome, err := Apply(tc.way, secret, tc.in, "a=b&authorization=x")
			if err != nil || outcome != tc.outcome || query != "a=b&authorization=x" || !reflect.DeepEqual(tc.in, tc.want) {
				t.Errorf("%v, %v, query %s, header %q; want %v, %q", outcome, err, query, tc.in, tc.outcome, tc.want)
			}
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	for _, tc := range []struct {
		way    Way
		secret string
	}{
		{Way{Kind: Bearer}, "a\r\nX: y"}, {Way{Kind: Bearer}, "a\n"}, {Way{Kind: Bearer}, "a\x00"}, {Way{Kind: Bearer}, "a\x7f"}, {Way{Kind: Bearer}, "a\x1b[0m"},
		{Way{Kind: Header, Name: "X-Key"}, "s\r"}, {Way{Kind: Header, Name: "X-Key"}, " s"}, {Way{Kind: Header, Name: "X-Key"}, "s\t"}, {Way{Kind: Bearer}, " "},
		{Way{Kind: Header, Name: "Host"}, "evil.test"}, {Way{Kind: Header, Name: "X\r\nY"}, "secret"}, {Way{Kind: Basic, Name: "a:b"}, "secret"}, {Way{}, "secret"},
	} {
		_, secret := keep(t, tc.secret)
		h := http.Header{"Authorization": {"own"}, "x-key": {"own"}}
		query, outcome, err := Apply(tc.way, secret, h, "q")
		if err == nil || query != "q" || outcome != 0 || !reflect.DeepEqual(h, http.Header{"Authorization": {"own"}, "x-key": {"own"}}) {
			t.Errorf("%+v, %q: %v, %v, query %q, header %q", tc.way, tc.secret, outcome, err, query, h)
		}
		if err != nil && strings.Contains(err.Error(), "evil.test") {
			t.Errorf("the secret is in %q", err)
		}
	}
	for _, way := range []Way{{Kind: Bearer}, {Kind: Query, Name: "key"}} {
		if _, outcome, err := Apply(way, Secret{}, http.Header{}, ""); err == nil {
			t.Errorf("without a secret: %v", outcome)
		}
	}
}
