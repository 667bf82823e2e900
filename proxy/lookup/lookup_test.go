package lookup

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	zone := map[string][]string{
		"a.example.test.": {"192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"},
		"plain":           {"192.0.2.2"},
		"none.test.":      {},
		"local.test.":     {"fe80::1%eth0"},
	}
	resolve := func(_ context.Context, network, name string) (list []netip.Addr, err error) {
		addresses, ok := zone[name]
		if !ok {
			return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
		}
		for _, a := range addresses {
			list = append(list, netip.MustParseAddr(a))
		}
		return list, nil
	}
	for _, tc := range []struct {
		name, in, out, complaints string
		code                      int
	}{
		{"all found", "a.example.test\nplain\n", "192.0.2.1 a.example.test\n2001:db8::1 a.example.test\n192.0.2.2 plain\n", "", 0},
		{"one missing", "no.test\nplain\n", "192.0.2.2 plain\n", "no.test: no such host\n", 1},
		{"no address", "none.test\nlocal.test\n", "", "none.test: no address\nlocal.test: no address\n", 1},
		{"no name", "A.test\n", "", "\"A.test\" is not a host name in lower case\n", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, complaints strings.Builder
			code := Run(resolve, strings.NewReader(tc.in), &out, &complaints)
			if code != tc.code || out.String() != tc.out || complaints.String() != tc.complaints {
				t.Errorf("code %d, out %q, complaints %q; want %d, %q, %q", code, &out, &complaints, tc.code, tc.out, tc.complaints)
			}
		})
	}
}
