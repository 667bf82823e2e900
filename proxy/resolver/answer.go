package resolver

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// found is what is known of a name and a type.
type found struct {
	rcode     int // dns.RcodeSuccess, …
	addresses []netip.Addr
	ttl       time.Duration
}

// lookup asks for the addresses of a name, dns.TypeA or dns.TypeAAAA. An error is a server that gave no answer.
type lookup func(ctx context.Context, name string, qtype uint16) (found, error)

// executor is who must agree.
type executor interface {
	learn(name string, list []netip.Addr, ttl uint32) bool
	refused(name string, why protocol.Reason)
}

// answerer answers queries.
type answerer struct {
	*configuration
	lookup   lookup
	executor executor
	cache    *cache
}

func newAnswerer(c *configuration, l lookup, e executor) *answerer {
	return &answerer{configuration: c, lookup: l, executor: e, cache: newCache()}
}

const (
	// fixedTTL is told with addresses that do not come from DNS.
	fixedTTL = 60 * time.Second
	// payload is what an answer by UDP may have at most (RFC 9715), in bytes.
	payload = 1232
	// answerTime bounds the time for one query: after that nobody waits for the answer.
	answerTime = 15 * time.Second
	headerSize = 12
)

// answer returns the answer to a query, nil where there is to be none.
func (a *answerer) answer(b []byte, udp bool) []byte {
	if len(b) < headerSize {
		return nil
	}
	q := new(dns.Msg)
	if err := q.Unpack(b); err != nil {
		q = &dns.Msg{MsgHdr: dns.MsgHdr{Id: binary.BigEndian.Uint16(b), Response: b[2]&0x80 != 0}}
		if q.Response {
			return nil
		}
		return pack(new(dns.Msg).SetRcodeFormatError(q), payload)
	}
	if q.Response {
		return nil // an answer to an answer would go on for ever
	}
	limit := dns.MaxMsgSize
	opt := q.IsEdns0()
	if udp {
		limit = dns.MinMsgSize
		if opt != nil {
			limit = min(max(int(opt.UDPSize()), dns.MinMsgSize), payload)
		}
	}
	r := new(dns.Msg).SetReply(q)
	r.RecursionAvailable, r.Authoritative, r.AuthenticatedData, r.CheckingDisabled = true, false, false, false
	if opt != nil {
		r.SetEdns0(payload, false)
	}
	switch {
	case opt != nil && opt.Version() != 0:
		r.Rcode = dns.RcodeBadVers
	case q.Opcode != dns.OpcodeQuery:
		r.Rcode = dns.RcodeNotImplemented
	case len(q.Question) != 1 || len(q.Answer) > 0 || len(q.Ns) > 0:
		r.Rcode = dns.RcodeFormatError
	case q.Question[0].Qclass != dns.ClassINET:
		r.Rcode = dns.RcodeRefused
	default:
		a.resolve(r, q.Question[0])
	}
	return pack(r, limit)
}

func pack(r *dns.Msg, limit int) []byte {
	r.Truncate(limit)
	b, err := r.Pack()
	if err != nil {
		return nil
	}
	return b
}

// canonical returns the name of a question as rules have it: in lower case, without final dot. A name with bytes that no
// host name has is none; package dns shows those behind a backslash, also a dot within a label.
func canonical(question string) (name string, ok bool) {
	name = strings.ToLower(strings.TrimSuffix(question, "."))
	return name, protocol.IsName(name)
}

func (a *answerer) resolve(r *dns.Msg, q dns.Question) {
	name, ok := canonical(q.Name)
	if !ok {
		r.Rcode = dns.RcodeNameError
		explain(r)
		return
	}
	if !a.named(name) {
		// Nothing beneath a name that does not exist exists (RFC 8020), but what rules name does.
		if !a.above(name) {
			r.Rcode = dns.RcodeNameError
		}
		explain(r)
		a.executor.refused(name, protocol.NotNamed)
		return
	}
	if q.Qtype != dns.TypeA && q.Qtype != dns.TypeAAAA {
		return // no data: a name has addresses, and nothing that could carry messages
	}
	f, err := a.find(name, q.Qtype)
	if err != nil {
		r.Rcode = dns.RcodeServerFailure
		return
	}
	if r.Rcode = f.rcode; len(f.addresses) == 0 {
		return
	}
	ttl := uint32(max(f.ttl/time.Second, 1))
	if a.fixed[name] == nil {
		if a.private && slices.ContainsFunc(f.addresses, query.IsPrivate) {
			r.Rcode = dns.RcodeNameError
			explain(r)
			a.executor.refused(name, protocol.Private)
			return
		}
		if !a.executor.learn(name, f.addresses, ttl) {
			r.Rcode = dns.RcodeServerFailure
			return
		}
	}
	for _, addr := range f.addresses {
		r.Answer = append(r.Answer, record(q, addr, ttl))
	}
}

// record is an address as an answer has it. Aliases on the way are not told: they are one more thing that a server could
// send messages by.
func record(q dns.Question, addr netip.Addr, ttl uint32) dns.RR {
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
	if q.Qtype == dns.TypeA {
		return &dns.A{Hdr: header, A: addr.AsSlice()}
	}
	return &dns.AAAA{Hdr: header, AAAA: addr.AsSlice()}
}

// explain says that policy is why (RFC 8914), to those who can read it.
func explain(r *dns.Msg) {
	if opt := r.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeProhibited})
	}
}

// named reports whether a rule names a name, or the policy gives it addresses.
func (a *answerer) named(name string) bool {
	return a.fixed[name] != nil || slices.ContainsFunc(a.rules, func(rule string) bool { return query.MatchName(rule, name) })
}

// above reports whether something beneath a name may be asked for.
func (a *answerer) above(name string) bool {
	return slices.ContainsFunc(a.rules, func(rule string) bool {
		domain, wild := strings.CutPrefix(rule, ir.Wildcard)
		return wild && domain == name || strings.HasSuffix(domain, "."+name)
	})
}

// find returns the addresses of a name that rules name.
func (a *answerer) find(name string, qtype uint16) (found, error) {
	for _, hosts := range []map[string][]netip.Addr{a.fixed, a.host} {
		if list, ok := hosts[name]; ok {
			return found{addresses: ofType(list, qtype), ttl: fixedTTL}, nil
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	return a.cache.get(ctx, name, qtype, a.lookup)
}

func ofType(list []netip.Addr, qtype uint16) (some []netip.Addr) {
	for _, addr := range list {
		if addr.Is4() == (qtype == dns.TypeA) && len(some) < protocol.MaxAnswer {
			some = append(some, addr)
		}
	}
	return some
}
