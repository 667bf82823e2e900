package resolver

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// world is what an answerer talks to.
type world struct {
	zone    map[string][]string // addresses by name
	asked   []string            // of the servers
	learned []string            // "name ttl addresses"
	refuse  bool                // the executor does not acknowledge
	told    []string            // names that were refused
}

func (w *world) lookup(_ context.Context, name string, qtype uint16) (found, error) {
	w.asked = append(w.asked, name+" "+dns.TypeToString[qtype])
	list, ok := w.zone[name]
	if name == "broken.example.test" {
		return found{}, errors.New("no answer")
	}
	if !ok {
		return found{rcode: dns.RcodeNameError, ttl: absentTTL}, nil
	}
	var all []netip.Addr
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return found{addresses: ofType(all, qtype), ttl: 90 * time.Second}, nil
}

func (w *world) learn(name string, list []netip.Addr, ttl uint32) bool {
	for _, a := range list {
		w.learned = append(w.learned, name+" "+a.String())
	}
	return !w.refuse && ttl > 0
}

func (w *world) refused(name string, _ protocol.Reason) { w.told = append(w.told, name) }

func newWorld() (*world, *answerer) {
	w := &world{zone: map[string][]string{
		"a.example.test":    {"192.0.2.1", "2001:db8::1"},
		"plain.test":        {"192.0.2.2"},
		"rebind.plain.test": {"127.0.0.1"},
		"in.example.test":   {"192.0.2.3", "10.0.0.1"},
		"evil.test":         {"192.0.2.66"},
	}}
	c := &configuration{
		rules: []string{"*.example.test", "plain.test", "fixed.test", "from.hosts.test"},
		fixed: map[string][]netip.Addr{"fixed.test": {netip.MustParseAddr("10.1.1.1")}},
		host:  map[string][]netip.Addr{"from.hosts.test": {netip.MustParseAddr("192.0.2.9")}, "evil.test": {netip.MustParseAddr("192.0.2.66")}},
	}
	a := newAnswerer(c, w.lookup, w)
	return w, a
}

func ask(t *testing.T, a *answerer, q *dns.Msg) *dns.Msg {
	t.Helper()
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	r := new(dns.Msg)
	if err := r.Unpack(a.answer(b, true)); err != nil {
		t.Fatal(err)
	}
	if r.Id != q.Id || !r.Response {
		t.Errorf("answer %v to %v", r, q)
	}
	return r
}

func summary(r *dns.Msg) string {
	words := []string{dns.RcodeToString[r.Rcode]}
	for _, rr := range r.Answer {
		fields := strings.Fields(rr.String())
		words = append(words, fields[len(fields)-1])
	}
	return strings.Join(words, " ")
}

func TestAnswer(t *testing.T) {
	for _, tc := range []struct {
		name  string
		qtype uint16
		want  string
		asked bool // the servers
	}{
		{"a.example.test.", dns.TypeA, "NOERROR 192.0.2.1", true},
		{"a.example.test.", dns.TypeAAAA, "NOERROR 2001:db8::1", true},
		{"A.Example.TEST.", dns.TypeA, "NOERROR 192.0.2.1", true},
		{"plain.test.", dns.TypeA, "NOERROR 192.0.2.2", true},
		{"plain.test.", dns.TypeAAAA, "NOERROR", true},
		{"missing.example.test.", dns.TypeA, "NXDOMAIN", true},
		{"broken.example.test.", dns.TypeA, "SERVFAIL", true},
		{"fixed.test.", dns.TypeA, "NOERROR 10.1.1.1", false},
		{"from.hosts.test.", dns.TypeA, "NOERROR 192.0.2.9", false},
		// Nobody is asked for what no rule names.
		{"evil.test.", dns.TypeA, "NXDOMAIN", false},
		{"example.test.", dns.TypeA, "NOERROR", false},
		{"test.", dns.TypeA, "NOERROR", false},
		{".", dns.TypeA, "NXDOMAIN", false},
		{"sub.plain.test.", dns.TypeA, "NXDOMAIN", false},
		{"a.example.test.attacker.tld.", dns.TypeA, "NXDOMAIN", false},
		{"xexample.test.", dns.TypeA, "NXDOMAIN", false},
		{`a\.example.test.`, dns.TypeA, "NXDOMAIN", false},
		{`x.a\.example\.test.`, dns.TypeA, "NXDOMAIN", false},
		{`a\000.example.test.`, dns.TypeA, "NXDOMAIN", false},
		{`a\032.example.test.`, dns.TypeA, "NXDOMAIN", false},
		{`a\@b.example.test.`, dns.TypeA, "NXDOMAIN", false},
		{`a#.example.test.`, dns.TypeA, "NXDOMAIN", false},
		{`\195\164.example.test.`, dns.TypeA, "NXDOMAIN", false},
		{`\226\132\170.example.test.`, dns.TypeA, "NXDOMAIN", false}, // KELVIN SIGN, which lower-cases to k
		{"*.example.test.", dns.TypeA, "NXDOMAIN", false},
		// Nothing but addresses.
		{"a.example.test.", dns.TypeTXT, "NOERROR", false},
		{"a.example.test.", dns.TypeHTTPS, "NOERROR", false},
		{"a.example.test.", dns.TypeMX, "NOERROR", false},
		{"a.example.test.", dns.TypeANY, "NOERROR", false},
		{"a.example.test.", dns.TypeCNAME, "NOERROR", false},
		{"secret.evil.test.", dns.TypeTXT, "NXDOMAIN", false},
	} {
		w, a := newWorld()
		got := summary(ask(t, a, new(dns.Msg).SetQuestion(tc.name, tc.qtype)))
		if got != tc.want || (len(w.asked) > 0) != tc.asked {
			t.Errorf("%s %s: %s, servers asked %q; want %s, asked %t", tc.name, dns.TypeToString[tc.qtype], got, w.asked, tc.want, tc.asked)
		}
	}
}

func TestAnswerLearns(t *testing.T) {
	w, a := newWorld()
	ask(t, a, new(dns.Msg).SetQuestion("A.example.test.", dns.TypeA))
	ask(t, a, new(dns.Msg).SetQuestion("a.example.test.", dns.TypeA)) // from the cache
	if want := []string{"a.example.test 192.0.2.1", "a.example.test 192.0.2.1"}; !slices.Equal(w.learned, want) || len(w.asked) != 1 {
		t.Errorf("learned %q, asked %q; want %q, once", w.learned, w.asked, want)
	}
	w.refuse = true
	if got := summary(ask(t, a, new(dns.Msg).SetQuestion("plain.test.", dns.TypeA))); got != "SERVFAIL" {
		t.Errorf("without the executor's consent: %s, want SERVFAIL", got)
	}
}

func TestAnswerPrivate(t *testing.T) {
	w, a := newWorld()
	a.private = true
	a.rules = append(a.rules, "rebind.plain.test")
	for name, want := range map[string]string{
		"rebind.plain.test.": "NXDOMAIN", "in.example.test.": "NXDOMAIN", "plain.test.": "NOERROR 192.0.2.2", "fixed.test.": "NOERROR 10.1.1.1",
	} {
		if got := summary(ask(t, a, new(dns.Msg).SetQuestion(name, dns.TypeA))); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if slices.Sort(w.told); !slices.Equal(w.told, []string{"in.example.test", "rebind.plain.test"}) {
		t.Errorf("the executor was told of %q", w.told)
	}
}

func TestAnswerOddQueries(t *testing.T) {
	_, a := newWorld()
	question := func(change func(*dns.Msg)) *dns.Msg {
		q := new(dns.Msg).SetQuestion("a.example.test.", dns.TypeA)
		change(q)
		return q
	}
	for _, tc := range []struct {
		name string
		q    *dns.Msg
		want int
	}{
		{"two questions", question(func(q *dns.Msg) { q.Question = append(q.Question, q.Question[0]) }), dns.RcodeFormatError},
		{"no question", question(func(q *dns.Msg) { q.Question = nil }), dns.RcodeFormatError},
		{"class", question(func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		{"opcode", question(func(q *dns.Msg) { q.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"EDNS version", question(func(q *dns.Msg) { q.SetEdns0(4096, true).IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
		{"EDNS", question(func(q *dns.Msg) { q.SetEdns0(4096, true) }), dns.RcodeSuccess},
	} {
		r := ask(t, a, tc.q)
		if r.Rcode != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, dns.RcodeToString[r.Rcode], dns.RcodeToString[tc.want])
		}
		if (r.IsEdns0() != nil) != (tc.q.IsEdns0() != nil) {
			t.Errorf("%s: EDNS in the answer: %v", tc.name, r.IsEdns0())
		}
	}
	response, _ := question(func(q *dns.Msg) { q.Response = true }).Pack()
	if got := a.answer(response, true); got != nil {
		t.Errorf("a response was answered: %x", got)
	}
	r := new(dns.Msg)
	if err := r.Unpack(a.answer([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xff"), true)); err != nil || r.Rcode != dns.RcodeFormatError || r.Id != 0x1234 {
		t.Errorf("a malformed query: %v, %v", r, err)
	}
}

// Answers by UDP fit what the sandbox takes; the rest is had by TCP.
func TestAnswerTruncates(t *testing.T) {
	w, a := newWorld()
	for i := range protocol.MaxAnswer {
		w.zone["many.example.test"] = append(w.zone["many.example.test"], netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String())
	}
	b, _ := new(dns.Msg).SetQuestion("many.example.test.", dns.TypeA).Pack()
	short, long := a.answer(b, true), a.answer(b, false)
	r := new(dns.Msg)
	if err := r.Unpack(short); err != nil || !r.Truncated || len(short) > dns.MinMsgSize {
		t.Errorf("by UDP: %d bytes, truncated %t, %v", len(short), r.Truncated, err)
	}
	if err := r.Unpack(long); err != nil || r.Truncated || len(r.Answer) != protocol.MaxAnswer {
		t.Errorf("by TCP: %d addresses, truncated %t, %v", len(r.Answer), r.Truncated, err)
	}
}

// Whatever is asked, servers are asked for names that rules name, and for addresses; and only such names are learned.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"a.example.test.", "evil.test.", `a\.example.test.`, "A.EXAMPLE.TEST.", "example.test."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT} {
			q := new(dns.Msg).SetQuestion(name, qtype)
			b, _ := q.Pack()
			f.Add(b)
			b, _ = q.SetEdns0(512, true).Pack()
			f.Add(b)
		}
	}
	w, a := newWorld()
	f.Fuzz(func(t *testing.T, b []byte) {
		w.asked, w.learned = nil, nil
		a.cache = newCache()
		answer := a.answer(b, true)
		if len(answer) > payload {
			t.Errorf("%x: an answer of %d bytes", b, len(answer))
		}
		for _, entry := range append(w.asked, w.learned...) {
			name, rest, _ := strings.Cut(entry, " ")
			if !slices.ContainsFunc(a.rules, func(rule string) bool { return query.MatchName(rule, name) }) || !protocol.IsName(name) {
				t.Errorf("%x: asked for or learned %q", b, name)
			}
			if _, err := netip.ParseAddr(rest); rest != "A" && rest != "AAAA" && err != nil {
				t.Errorf("%x: asked for %q", b, entry)
			}
		}
	})
}
