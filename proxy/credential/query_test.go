package credential

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestApplyQuery(t *testing.T) {
	for _, tc := range []struct {
		name, secret, in string
		want             string // where the parameter is replaced
		added            string // where it is added only
	}{
		{"key", "s", "", "key=s", "key=s"},
		{"key", "s", "a=b", "a=b&key=s", "a=b&key=s"},
		{"key", "s", "key=old&a=b&key=old2", "a=b&key=s", ""},
		{"key", "s", "key", "key=s", ""},
		{"key", "s", "a&key&b", "a&b&key=s", ""},
		{"key", "s", "key=", "key=s", ""},
		{"key", "s", "k%65y=old&%6b%65%79=old&kEy=other", "kEy=other&key=s", ""},
		{"key", "s", "a==&&=x&%zz&%&%4&b=%C3%28&é", "a==&&=x&%zz&%&%4&b=%C3%28&é&key=s", "a==&&=x&%zz&%&%4&b=%C3%28&é&key=s"},
		{"key", "s", "&", "&&key=s", "&&key=s"},
		{"key", "s", "a=1?key=2#key=3", "a=1?key=2#key=3&key=s", "a=1?key=2#key=3&key=s"},
		{"key", "s", "a=key&keys=1&xkey=2", "a=key&keys=1&xkey=2&key=s", "a=key&keys=1&xkey=2&key=s"},
		{"key", "s", "key%=1&key%3=1&key%00=1&key+=1", "key%=1&key%3=1&key%00=1&key+=1&key=s", "key%=1&key%3=1&key%00=1&key+=1&key=s"},
		{"a b", "s", "a+b=1&a%20b=2&a b=3", "a+b=1&a%20b=s", ""},
		{"a+b", "s", "a+b=1&a%2Bb=2&a%20b=3", "a%20b=3&a%2Bb=s", ""},
		{"é&=", "s", "%c3%A9%26%3d=1", "%C3%A9%26%3D=s", ""},
		{"key", "a b+c/d=e&f%\r\n\x00\xff-._~", "", "key=a%20b%2Bc%2Fd%3De%26f%25%0D%0A%00%FF-._~", "key=a%20b%2Bc%2Fd%3De%26f%25%0D%0A%00%FF-._~"},
	} {
		_, secret := keep(t, tc.secret)
		h := http.Header{"Key": {"own"}}
		got, outcome, err := Apply(Way{Kind: Query, Name: tc.name}, secret, h, tc.in)
		if got != tc.want || outcome != Injected || err != nil {
			t.Errorf("%q in %q: %q, %v, %v; want %q", tc.name, tc.in, got, outcome, err, tc.want)
		}
		want, wantOutcome := tc.added, Injected
		if want == "" {
			want, wantOutcome = tc.in, Kept
		}
		got, outcome, err = Apply(Way{Kind: Query, Name: tc.name, AddOnly: true}, secret, h, tc.in)
		if got != want || outcome != wantOutcome || err != nil {
			t.Errorf("%q added to %q: %q, %v, %v; want %q, %v", tc.name, tc.in, got, outcome, err, want, wantOutcome)
		}
		if !reflect.DeepEqual(h, http.Header{"Key": {"own"}}) {
			t.Errorf("the header became %q", h)
		}
	}
}

// slowUnescape decodes with net/url, escape by escape.
func slowUnescape(s string) (decoded string) {
	for s != "" {
		if s[0] == '%' && len(s) >= 3 {
			if c, err := url.PathUnescape(s[:3]); err == nil && len(c) == 1 {
				decoded, s = decoded+c, s[3:]
				continue
			}
		}
		decoded, s = decoded+s[:1], s[1:]
	}
	return decoded
}

// slowSet is setParameter, slow and by other means.
func slowSet(query, name, value string) (result string, had bool) {
	for query != "" {
		i := strings.IndexByte(query, '&')
		part := query
		if i >= 0 {
			part = query[:i]
		}
		key, _, _ := strings.Cut(part, "=")
		if slowUnescape(key) == name {
			had = true
		} else {
			result += part + "&"
		}
		if i < 0 {
			break
		}
		if query = query[i+1:]; query == "" { // behind the last "&" is a part as well
			result += "&"
		}
	}
	// What QueryEscape leaves as it is, is unreserved; but for the space it writes "+".
	encode := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	return result + encode(name) + "=" + encode(value), had
}

func FuzzQuery(f *testing.F) {
	f.Add("a=b&key=old&k%65y", "key", "secret")
	f.Add("", "a b", "a+b/ä")
	f.Add("&&a&=&%zz%4&%", "%", "\x00\xff")
	f.Add("a+b=1&a%20b=1&a%2bb=1", "a+b", "+ ")
	f.Add("key=1&", "key", "v")
	f.Fuzz(func(t *testing.T, query, name, value string) {
		if name == "" || value == "" {
			return
		}
		got := setParameter(query, name, value)
		want, had := slowSet(query, name, value)
		if got != want || hasParameter(query, name) != had {
			t.Errorf("%q in %q: %q, was there %t; want %q, %t", name, query, got, hasParameter(query, name), want, had)
		}
		// What a server makes of it, if it is a query that net/url takes.
		values, err := url.ParseQuery(got)
		if err != nil || strings.Contains(query, "+") {
			return
		}
		if !slices.Equal(values[name], []string{value}) {
			t.Errorf("%q in %q: %q, which has %q; want %q", name, query, got, values[name], value)
		}
		before, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		delete(before, name)
		delete(values, name)
		if !reflect.DeepEqual(before, values) {
			t.Errorf("%q in %q: the others were %q, and are %q", name, query, before, values)
		}
	})
}
