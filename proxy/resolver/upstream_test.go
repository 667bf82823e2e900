package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

func records(t *testing.T, lines ...string) (list []dns.RR) {
	t.Helper()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rr)
	}
	return list
}

func TestReadFollowsAliases(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lines []string
		want  string
		ttl   time.Duration
	}{
		{"address", []string{"a.test. 60 IN A 192.0.2.1", "A.TEST. 30 IN A 192.0.2.2"}, "[192.0.2.1 192.0.2.2]", 30 * time.Second},
		{"alias", []string{"a.test. 20 IN CNAME b.test.", "b.test. 600 IN CNAME c.test.", "c.test. 60 IN A 192.0.2.3"}, "[192.0.2.3]", 20 * time.Second},
		{"alias in another order", []string{"c.test. 60 IN A 192.0.2.3", "a.test. 60 IN CNAME c.test."}, "[192.0.2.3]", time.Minute},
		{"address of another name", []string{"evil.test. 60 IN A 192.0.2.66", "a.test. 60 IN A 192.0.2.1"}, "[192.0.2.1]", time.Minute},
		{"address beside an alias", []string{"a.test. 60 IN CNAME b.test.", "a.test. 60 IN A 192.0.2.66", "b.test. 60 IN A 192.0.2.1"}, "[192.0.2.1]", time.Minute},
		{"alias that leads nowhere", []string{"a.test. 60 IN CNAME b.test."}, "[]", absentTTL},
		{"aliases in a circle", []string{"a.test. 60 IN CNAME b.test.", "b.test. 60 IN CNAME a.test."}, "[]", absentTTL},
		{"other type", []string{"a.test. 60 IN AAAA 2001:db8::1", "a.test. 60 IN TXT \"x\""}, "[]", absentTTL},
		{"short time", []string{"a.test. 0 IN A 192.0.2.1"}, "[192.0.2.1]", minTTL},
		{"long time", []string{"a.test. 604800 IN A 192.0.2.1"}, "[192.0.2.1]", maxTTL},
	} {
		got := read(&dns.Msg{Answer: records(t, tc.lines...)}, "a.test", dns.TypeA)
		if text := fmt.Sprint(got.addresses); text != tc.want || got.ttl != tc.ttl {
			t.Errorf("%s: %s for %v, want %s for %v", tc.name, text, got.ttl, tc.want, tc.ttl)
		}
	}
}

// A server's answer counts only if it is one to the question; a truncated one is asked for again by TCP, and what fails is
// asked of the next server.
func TestUpstream(t *testing.T) {
	good := func(q *dns.Msg) *dns.Msg {
		r := new(dns.Msg).SetReply(q)
		r.Answer = records(t, "a.test. 60 IN A 192.0.2.1")
		return r
	}
	spoilt := func(change func(*dns.Msg)) func(string, *dns.Msg) (*dns.Msg, error) {
		return func(_ string, q *dns.Msg) (*dns.Msg, error) {
			r := good(q)
			change(r)
			return r, nil
		}
	}
	servers := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("192.0.2.54:53")}
	for _, tc := range []struct {
		name  string
		first func(network string, q *dns.Msg) (*dns.Msg, error) // the first server
		want  []string
	}{
		{"good", spoilt(func(*dns.Msg) {}), []string{"udp 192.0.2.53:53"}},
		{"silent", func(string, *dns.Msg) (*dns.Msg, error) { return nil, errors.New("timeout") }, []string{"udp 192.0.2.53:53", "udp 192.0.2.54:53"}},
		{"wrong id", spoilt(func(r *dns.Msg) { r.Id++ }), []string{"udp 192.0.2.53:53", "udp 192.0.2.54:53"}},
		{"no response", spoilt(func(r *dns.Msg) { r.Response = false }), []string{"udp 192.0.2.53:53", "udp 192.0.2.54:53"}},
		{"other question", spoilt(func(r *dns.Msg) { r.Question[0].Name = "b.test." }), []string{"udp 192.0.2.53:53", "udp 192.0.2.54:53"}},
		{"other type", spoilt(func(r *dns.Msg) { r.Question[0].Qtype = dns.TypeTXT }), []string{"udp 192.0.2.53:53", "udp 192.0.2.54:53"}},
		{"failure", spoilt(func(r *dns.Msg) { r.Rcode = dns.RcodeServerFailure }), []string{"udp 192.0.2.53:53", "udp 192.0.2.54:53"}},
		{"truncated", func(network string, q *dns.Msg) (*dns.Msg, error) {
			r := good(q)
			r.Truncated = network == "udp"
			return r, nil
		}, []string{"udp 192.0.2.53:53", "tcp 192.0.2.53:53"}},
	} {
		var asked []string
		u := &upstream{servers, func(_ context.Context, network string, q *dns.Msg, server string) (*dns.Msg, error) {
			asked = append(asked, network+" "+server)
			if len(q.Question) != 1 || q.Question[0].Name != "a.test." || !q.RecursionDesired || len(q.IsEdns0().Option) > 0 {
				t.Errorf("%s: asked %v", tc.name, q)
			}
			if server == servers[0].String() {
				return tc.first(network, q)
			}
			return good(q), nil
		}}
		got, err := u.lookup(context.Background(), "a.test", dns.TypeA)
		if err != nil || len(got.addresses) != 1 || !slices.Equal(asked, tc.want) {
			t.Errorf("%s: %v, %v; asked %q, want %q", tc.name, got, err, asked, tc.want)
		}
	}
	silent := &upstream{servers, func(context.Context, string, *dns.Msg, string) (*dns.Msg, error) { return nil, errors.New("timeout") }}
	if _, err := silent.lookup(context.Background(), "a.test", dns.TypeA); !errors.Is(err, errNoAnswer) {
		t.Errorf("silent servers: %v, want %v", err, errNoAnswer)
	}
}

// Whatever a server answers, addresses are those of the chain that begins at the name.
func FuzzRead(f *testing.F) {
	r := new(dns.Msg).SetQuestion("a.test.", dns.TypeA)
	r.Response = true
	for _, line := range []string{"a.test. 60 IN A 192.0.2.1", "a.test. 60 IN CNAME b.test.", "b.test. 0 IN AAAA ::ffff:1.2.3.4"} {
		rr, _ := dns.NewRR(line)
		r.Answer = append(r.Answer, rr)
		b, _ := r.Pack()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := new(dns.Msg)
		if r.Unpack(b) != nil {
			return
		}
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			got := read(r, "a.test", qtype)
			if len(got.addresses) > protocol.MaxAnswer || got.ttl < minTTL || got.ttl > maxTTL {
				t.Errorf("%x: %v", b, got)
			}
			for _, a := range got.addresses {
				if !a.IsValid() || a.Is4() != (qtype == dns.TypeA) || a.Is4In6() {
					t.Errorf("%x: address %v", b, a)
				}
			}
		}
	})
}

func TestCache(t *testing.T) {
	now := time.Now()
	c := newCache()
	c.now = func() time.Time { return now }
	asked, fails := 0, false
	ask := func(context.Context, string, uint16) (found, error) {
		if asked++; fails {
			return found{}, errNoAnswer
		}
		return found{ttl: time.Minute}, nil
	}
	get := func(name string) (found, error) { return c.get(context.Background(), name, dns.TypeA, ask) }
	get("a.test")
	now = now.Add(50 * time.Second)
	if f, _ := get("a.test"); asked != 1 || f.ttl != 10*time.Second {
		t.Errorf("asked %d times, ttl %v; want once, 10s", asked, f.ttl)
	}
	now = now.Add(10 * time.Second)
	if get("a.test"); asked != 2 {
		t.Errorf("asked %d times after the time was over, want 2", asked)
	}
	fails = true
	get("b.test")
	if _, err := get("b.test"); err == nil || asked != 4 {
		t.Errorf("a failure was kept: asked %d times, %v", asked, err)
	}
	fails = false
	for i := range 2 * maxCached {
		get(fmt.Sprintf("n%d.test", i))
	}
	if len(c.answers) > maxCached {
		t.Errorf("%d answers are kept, want at most %d", len(c.answers), maxCached)
	}
}

func TestAnnounced(t *testing.T) {
	now := time.Now()
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port) }
	var a announced
	a.add(at(1), now)
	for _, tc := range []struct {
		what string
		from netip.AddrPort
		when time.Duration
		once bool
		want bool
	}{
		{"another port", at(2), 0, false, false},
		{"another address", netip.MustParseAddrPort("127.0.0.2:1"), 0, false, false},
		{"again and again", at(1), remembered, false, true},
		{"since its last use", at(1), 2 * remembered, false, true},
		{"one use", at(1), 2 * remembered, true, true},
		{"after one use", at(1), 2 * remembered, true, false},
	} {
		if got := a.has(tc.from, now.Add(tc.when), tc.once); got != tc.want {
			t.Errorf("%s: %t, want %t", tc.what, got, tc.want)
		}
	}
	a.add(at(1), now)
	if a.has(at(1), now.Add(remembered+1), false) {
		t.Error("a socket may ask for ever")
	}
	for i := range uint16(3 * maxAnnounced) {
		a.add(at(i), now)
	}
	if n := len(a.young) + len(a.old); n > maxAnnounced {
		t.Errorf("%d sockets are known, want at most %d", n, maxAnnounced)
	}
	if !a.has(at(3*maxAnnounced-1), now, false) {
		t.Error("the last socket is forgotten")
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	got := nameservers(file("resolv.conf", "# nameserver 192.0.2.1\nsearch test\nnameserver 192.0.2.2 ; x\nnameserver\nnameserver x\nnameserver 2001:db8::1\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n"))
	if want := "[192.0.2.2:53 [2001:db8::1]:53 192.0.2.3:53]"; fmt.Sprint(got) != want {
		t.Errorf("nameservers %v, want %s", got, want)
	}
	if got := nameservers(dir + "/missing"); fmt.Sprint(got) != "[127.0.0.1:53]" {
		t.Errorf("without a file: %v", got)
	}
	hosts := hostsFile(file("hosts", "127.0.0.1 localhost\n::1 localhost # x y\n192.0.2.1\tA.test a\n# 192.0.2.2 b\nfe80::1%lo c\n192.0.2.1 a\n"))
	if want := "map[a:[192.0.2.1] a.test:[192.0.2.1] localhost:[127.0.0.1 ::1]]"; fmt.Sprint(hosts) != want {
		t.Errorf("hosts %v, want %s", hosts, want)
	}
}
