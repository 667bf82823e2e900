package query_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir/query"
)

func TestParseAuthority(t *testing.T) {
	label := strings.Repeat("a", 63)
	longest := label + "." + label + "." + label + "." + label[:61]
	for _, tc := range []struct {
		in, host string
		port     uint16
	}{
		{"example.com", "example.com", 0},
		{"EXAMPLE.com:8080", "example.com", 8080},
		{"a_b-c.x:1", "a_b-c.x", 1},
		{"localhost:65535", "localhost", 65535},
		{"1e100.net", "1e100.net", 0},
		{"1.2.3.4.x", "1.2.3.4.x", 0},
		{"0x7f.example", "0x7f.example", 0},
		{"a.0xyz", "a.0xyz", 0}, // no number
		{"xn--caf-dma.example", "xn--caf-dma.example", 0},
		{longest + ":80", longest, 80},
		{"127.0.0.1:80", "127.0.0.1", 80},
		{"0.0.0.0", "127.0.0.1", 0}, // where the kernel connects
		{"[::]", "::1", 0},
		{"[::1]:443", "::1", 443},
		{"[2001:DB8:0:0::1]", "2001:db8::1", 0},
		{"[::ffff:127.0.0.1]:80", "127.0.0.1", 80},
		{"[::ffff:7f00:1]", "127.0.0.1", 0},
		{"[::ffff:0:0]", "127.0.0.1", 0},
	} {
		host, port, err := query.ParseAuthority(tc.in)
		if err != nil || host != tc.host || port != tc.port {
			t.Errorf("%s: got %s port %d (%v), want %s port %d", tc.in, host, port, err, tc.host, tc.port)
		}
	}
	for _, in := range []string{
		"", ":80", "example.com:", "example.com:0", "example.com:080", "example.com:65536", "example.com:+80", "example.com:8_0", "example.com:http",
		"example.com: 80", "example.com.", ".example.com", "a..b", ".", "*", "*.example.com", "a b", " a", "a\t", "a\x00", "a@b", "user:pw@b", "a:x@evil",
		"a%2eb", "%61", "é.example", "a/b", "a?b", "a#b", "a\\b", "a,b", "a:80:80", label + "a.x", longest + "a",
		"127.1", "127.0.1", "0x7f.1", "0x7f000001", "127.0.0.0x", "0x", "2130706433", "0177.0.0.1", "127.0.0.01", "127.0.0.0x1", "256.0.0.1", "1.2.3.4.5", "a.1", "127.0.0.1.",
		"::1", "2001:db8::1", "[::1", "::1]", "[::1]x", "[::1]:", "[::1]]", "[[::1]]", "[fe80::1%eth0]", "[fe80::1%25eth0]", "[127.0.0.1]", "[v1.a]", "[]",
		"[example.com]", "[::ffff:127.0.0.1.1]", "[::ffff:0127.0.0.1]",
	} {
		if host, port, err := query.ParseAuthority(in); err == nil || host != "" || port != 0 {
			t.Errorf("%q: got %q port %d (%v), want an error", in, host, port, err)
		}
	}
}

func FuzzParseAuthority(f *testing.F) {
	for _, s := range []string{"example.com:80", "[::1]:443", "127.0.0.1", "0177.1", "[::ffff:1.2.3.4]", "a@b", "a.:1", "[fe80::1%25a]", "0x7f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := query.ParseAuthority(s)
		if err != nil {
			return
		}
		text := host
		addr, notAddress := netip.ParseAddr(host)
		switch {
		case notAddress != nil:
			if strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || len(host) > 253 {
				t.Fatalf("%q: host %q", s, host)
			}
		case addr.String() != host || addr.Zone() != "" || addr.Is4In6() || addr.IsUnspecified():
			t.Fatalf("%q: address %q", s, host)
		case addr.Is6():
			text = "[" + host + "]"
		}
		if port > 0 {
			text += ":" + strconv.Itoa(int(port))
		}
		if again, p, err := query.ParseAuthority(text); err != nil || again != host || p != port {
			t.Fatalf("%q: %q port %d, and again %q port %d (%v)", s, host, port, again, p, err)
		}
	})
}
