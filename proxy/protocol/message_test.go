package protocol

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func samples() []Message {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	return []Message{
		Names{"a.test", "*.b.test", "_x.c.test"},
		Host{"a.test", []netip.Addr{v4, v6}},
		Begin{Private: true, Upstreams: []netip.AddrPort{netip.AddrPortFrom(v4, 53), netip.AddrPortFrom(v6, 5353)}},
		Ready{{UDP, netip.MustParseAddrPort("127.0.0.1:1")}, {TCP, netip.MustParseAddrPort("[::1]:2")}},
		Announce{TCP, netip.MustParseAddrPort("127.0.0.1:4711")},
		Learned{ID: 7, TTL: 60, Name: "x.b.test", Addresses: []netip.Addr{v6}},
		Ack{7, true},
		Refused{"evil.test", NotNamed},
		ProxyBegin{true},
		ProxyReady{[]byte("-----BEGIN CERTIFICATE-----\n")},
		Connection{9, netip.AddrPortFrom(v6, 443), []string{"a.test", "b.test"}},
		Dial{1, 9},
		Dialed{1, 111},
		Closed{9},
		Plain{"api", "a.test:80"},
		Access{
			Connection: 9, Protocol: "http/1.1", Method: "GET", Authority: "a.test", Path: "/x?y", Denied: true, Status: 403, Rule: "* a.test/*", Origin: 3,
			Reason: "no", Credential: "api", Received: 1, Sent: 2, Upstream: netip.AddrPortFrom(v4, 80), Micros: 4,
		},
		Access{Protocol: "tls"},
	}
}

func TestRoundTrip(t *testing.T) {
	for _, m := range samples() {
		got, err := Decode(Encode(m))
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%#v became %#v, %v", m, got, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, b := range [][]byte{
		nil, {0}, {99}, {kindAck}, {kindAck, 0, 0, 0, 1, 2}, append(Encode(Ack{1, true}), 0),
		make([]byte, MaxMessage+1),
		{kindNames, 255, 255, 1, 'a'},
		Encode(Names{"A.test"}), Encode(Names{"a..test"}), Encode(Names{"**.test"}), Encode(Names{"a.*.test"}),
		Encode(Refused{"a\n.test", NotNamed}), Encode(Refused{"a.test", 9}), Encode(Learned{Name: "*.a.test"}),
		Encode(Learned{Name: "a.test", Addresses: make([]netip.Addr, 1)}),
		Encode(Learned{Name: "a.test", Addresses: []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1")}}),
		Encode(Learned{Name: "a.test", Addresses: make33()}),
		Encode(Announce{3, netip.MustParseAddrPort("127.0.0.1:1")}),
	} {
		if m, err := Decode(b); err == nil {
			t.Errorf("%q: got %#v, want an error", b[:min(len(b), 60)], m)
		}
	}
}

func make33() []netip.Addr {
	list := make([]netip.Addr, MaxAnswer+1)
	for i := range list {
		list[i] = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
	}
	return list
}

func TestIsName(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, want := range map[string]bool{
		"a": true, "a.b-c.d_e": true, "xn--e1afmkfd.test": true, long + ".test": true,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "A": false, "a b": false, "a@b": false, "a#b": false, "a\x00b": false,
		"ä.test": false, "*.a": false, long + "a.test": false, strings.Repeat(long+".", 4) + "a": false,
	} {
		if got := IsName(name); got != want {
			t.Errorf("IsName(%q) = %t, want %t", name, got, want)
		}
	}
}

// Whatever is taken is what the encoder makes: there is one encoding of each message.
func FuzzDecode(f *testing.F) {
	for _, m := range samples() {
		f.Add(Encode(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if again := Encode(m); string(again) != string(b) {
			t.Errorf("%x decodes to %#v, which encodes to %x", b, m, again)
		}
	})
}
