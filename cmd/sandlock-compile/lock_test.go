package main

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/compiler/load"
)

func TestResolve(t *testing.T) {
	look := func(_ context.Context, name string) ([]netip.Addr, error) {
		addrs := map[string][]string{
			"api.example.com": {"93.184.216.34", "2606:2800::1", "::ffff:93.184.216.34"},
			"a.example.com":   {"93.184.216.9", "93.184.216.10"},
			"inner.example":   {"10.0.0.1"},
			"empty.example":   {},
		}[name]
		if addrs == nil {
			return nil, errors.New("no such host")
		}
		var list []netip.Addr
		for _, a := range addrs {
			list = append(list, netip.MustParseAddr(a))
		}
		return list, nil
	}
	for _, tc := range []struct{ network, want, fails string }{
		{
			network: `allow: ["api.example.com:443", "A.example.com.", "API.example.com:80", "*.example.com", "given.example", "10.0.0.1", "*:53"]
				hosts: "given.example": ["10.0.0.5"], resolver: true`,
			want: "93.184.216.9 a.example.com\n93.184.216.10 a.example.com\n93.184.216.34 api.example.com\n2606:2800::1 api.example.com\n",
		},
		{network: `allow: ["inner.example"]`, want: "10.0.0.1 inner.example\n"},
		{network: `allow: ["inner.example"], private: true`, fails: "-:1:19: inner.example leads to 10.0.0.1, a private address, which network.private refuses"},
		{network: `allow: ["api.example.com", "gone.example"]`, fails: "-:1:38: gone.example: no such host"},
		{network: `allow: ["empty.example"]`, fails: "empty.example has no address"},
	} {
		p, diags := load.Load(load.Options{Args: []string{"-"}, Stdin: strings.NewReader("network: {" + tc.network + "}")})
		if p == nil {
			t.Fatalf("%s: %v", tc.network, diags)
		}
		text, n, err := resolve(p, "p.cue", look)
		if tc.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tc.fails) {
				t.Errorf("%s: %v, want %s", tc.network, err, tc.fails)
			}
			continue
		}
		_, body, _ := strings.Cut(string(text), "like one of the policy.\n")
		if err != nil || body != tc.want || n != strings.Count(tc.want, "\n") {
			t.Errorf("%s: %v, %d addresses\n%s", tc.network, err, n, text)
		}
	}
}
