package policy

import (
	"errors"
	"strings"
	"testing"
)

func TestParseNetRule(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"foo.com:443", "foo.com:443"},
		{"foo.com:22,443", "foo.com:22,443"},
		{"foo.com: 443 , 22,443", "foo.com:22,443"},
		{":8080", "*:8080"},
		{"*:8080", "*:8080"},
		{"foo.com", "foo.com"},
		{"FOO.com.", "foo.com"},
		{"foo.com:*", "foo.com"},
		{"foo.com:*,*", "foo.com"},
		{"*", "*"},
		{":*", "*"},
		{"*:*", "*"},
		{"udp://*:*", "udp://*"},
		{"10.0.0.0/8:80", "10.0.0.0/8:80"},
		{"10.1.2.3/8", "10.0.0.0/8"},
		{"10.1.2.3/32", "10.1.2.3"},
		{"::1", "::1"},
		{"::1:443", "::1:443"},
		{"[::1]:443", "[::1]:443"},
		{"[fc00::/7]:443", "[fc00::/7]:443"},
		{"fc00::/7", "fc00::/7"},
		{"fc00::/7:80", "[fc00::/7]:80"},
		{"::ffff:10.0.0.1", "10.0.0.1"},
		{"[::ffff:10.0.0.1]:80", "10.0.0.1:80"},
		{"::ffff:0:0/96", "0.0.0.0/0"},
		{"tcp://foo.com:443", "tcp://foo.com:443"},
		{"icmp://*", "icmp://*"},
		{"icmp://::1", "icmp://::1"},
		{"icmp://foo.com", "icmp://foo.com"},
		{"*.example.com:443", "*.example.com:443"},
		{"tcp://db:${port}", "tcp://db:${port}"},
		{"tcp://db:${port},80", "tcp://db:80,${port}"},
	} {
		rule, err := ParseNetRule(tc.in)
		if err != nil {
			t.Errorf("ParseNetRule(%q): %v", tc.in, err)
			continue
		}
		if got := rule.String(); got != tc.want {
			t.Errorf("ParseNetRule(%q): got %q, want %q", tc.in, got, tc.want)
		}
	}
}

func TestParseNetRuleErrors(t *testing.T) {
	for _, tc := range []struct{ in, rule, want string }{
		{"", "net-rule", "is empty"},
		{"tcp://", "net-rule", "is empty"},
		{"foo.com:abc", "port", `"abc" is not a port`},
		{"foo.com:0", "port-range", "port 0 is not valid"},
		{"foo.com:", "port", `"" is not a port`},
		{"foo.com:70000", "port-range", "70000 is above 65535"},
		{"foo.com:99999999999999999999", "port-range", "above 65535"},
		{"foo.com:+80", "port", "is not a port"},
		{"foo.com:80-90", "port", "is not a port"},
		{"h:80,*", "net-ports", "cannot mix"},
		{"h:80,", "port", `"" is not a port`},
		{"icmp://", "net-rule", "needs a host"},
		{"icmp://h:80", "net-rule", "takes no port"},
		{"icmp://[::1]", "net-rule", "takes no port"},
		{"ftp://h", "net-scheme", "unknown scheme"},
		{"TCP://h", "net-scheme", "unknown scheme"},
		{"10.0.0.0/33", "net-cidr", "is not a CIDR block"},
		{"10.0.0.0/x", "net-cidr", "is not a CIDR block"},
		{"foo.com/24:80", "net-cidr", "is not a CIDR block"},
		{"[::1]", "net-rule", "malformed bracketed"},
		{"[10.0.0.1]:80", "net-rule", "is not an IPv6"},
		{"fe80::1%eth0", "net-rule", "is not a host or address"},
		{"host:80:443", "net-rule", "is not a host or address"},
		{"foo..com", "host", "is not a host name"},
		{"-foo.com", "host", "is not a host name"},
		{"foo_bar", "host", "is not a host name"},
		{"127.1", "host", "read as an address"},
		{"0x7f.0x1", "host", "read as an address"},
		{"2130706433:80", "host", "read as an address"},
		{"${host}:80", "net-rule", "not a host"},
		{"h:8${port}", "port", "is not a port"},
		{"h:${port}0", "port", "whole port"},
		{"a\x00b", "text", "NUL"},
		{strings.Repeat("a", 64) + ".com", "host", "is not a host name"},
	} {
		_, err := ParseNetRule(tc.in)
		wantGrammarError(t, "ParseNetRule", tc.in, err, tc.rule, tc.want)
	}
	_, err := ParseNetDeny("foo.com:80")
	wantGrammarError(t, "ParseNetDeny", "foo.com:80", err, "net-deny-host", "take no host names")
	if _, err := ParseNetDeny("10.0.0.0/8"); err != nil {
		t.Errorf("ParseNetDeny(10.0.0.0/8): %v", err)
	}
}

func wantGrammarError(t *testing.T, fn, in string, err error, rule, want string) {
	t.Helper()
	var g *GrammarError
	if !errors.As(err, &g) {
		t.Errorf("%s(%q): got error %v, want a grammar error", fn, in, err)
		return
	}
	if g.Rule != rule || !strings.Contains(g.Msg, want) {
		t.Errorf("%s(%q): got [%s] %s, want [%s] …%s…", fn, in, g.Rule, g.Msg, rule, want)
	}
}

func FuzzParseNetRule(f *testing.F) {
	for _, s := range []string{"foo.com:443", "[::1]:80,443", "icmp://*", "::ffff:0:0/90", "10.0.0.0/8:*", "h:${p}", "*.a:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rule, err := ParseNetRule(s)
		if err != nil {
			return
		}
		if !rule.TCP && !rule.UDP && !rule.ICMP || rule.Kind == 0 {
			t.Fatalf("ParseNetRule(%q) = %+v, which matches nothing", s, rule)
		}
		again, err := ParseNetRule(rule.String())
		if err != nil || again.String() != rule.String() {
			t.Fatalf("ParseNetRule(%q) prints %q, which parses as %q, %v", s, rule, again, err)
		}
	})
}
