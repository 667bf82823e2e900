package resolver

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

const (
	tries     = 2               // rounds through all servers
	tryTime   = 5 * time.Second // for one server
	maxChain  = 8               // aliases that lead to an address
	minTTL    = 5 * time.Second
	maxTTL    = time.Hour
	absentTTL = minTTL // of what does not exist
)

// upstream asks the host's servers.
type upstream struct {
	servers  []netip.AddrPort
	exchange func(ctx context.Context, network string, q *dns.Msg, server string) (*dns.Msg, error)
}

func newUpstream(servers []netip.AddrPort) *upstream {
	return &upstream{servers, func(ctx context.Context, network string, q *dns.Msg, server string) (*dns.Msg, error) {
		// A socket for each query: its port is as hard to guess as the kernel makes it.
		c := dns.Client{Net: network, Timeout: tryTime, UDPSize: payload}
		r, _, err := c.ExchangeContext(ctx, q, server)
		return r, err
	}}
}

var errNoAnswer = errors.New("no server has answered")

// lookup asks for one name, exactly as it is written in lower case. Nothing else of the sandbox's query is passed on.
func (u *upstream) lookup(ctx context.Context, name string, qtype uint16) (found, error) {
	for range tries {
		for _, server := range u.servers {
			r, err := u.ask(ctx, name, qtype, server.String())
			if err == nil {
				return read(r, name, qtype), nil
			}
			if ctx.Err() != nil {
				return found{}, ctx.Err()
			}
		}
	}
	return found{}, errNoAnswer
}

func (u *upstream) ask(ctx context.Context, name string, qtype uint16, server string) (*dns.Msg, error) {
	q := new(dns.Msg).SetQuestion(name+".", qtype) // with a random id
	q.SetEdns0(payload, false)
	r, err := u.exchange(ctx, "udp", q, server)
	if err == nil && answers(r, q) && r.Truncated {
		r, err = u.exchange(ctx, "tcp", q, server)
	}
	if err != nil {
		return nil, err
	}
	if !answers(r, q) || r.Truncated || r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		return nil, errNoAnswer
	}
	return r, nil
}

// answers reports whether r is an answer to q.
func answers(r, q *dns.Msg) bool {
	return r.Response && r.Id == q.Id && r.Opcode == dns.OpcodeQuery && len(r.Question) == 1 &&
		strings.EqualFold(r.Question[0].Name, q.Question[0].Name) &&
		r.Question[0].Qtype == q.Question[0].Qtype && r.Question[0].Qclass == dns.ClassINET
}

// read takes the addresses that an answer gives a name, along the chain of its aliases. What the answer holds besides is
// left alone.
func read(r *dns.Msg, name string, qtype uint16) found {
	if r.Rcode != dns.RcodeSuccess {
		return found{rcode: r.Rcode, ttl: absentTTL}
	}
	ttl := uint32(maxTTL / time.Second)
	owner := name + "."
	for range maxChain {
		alias := next(r.Answer, owner, &ttl)
		if alias == "" {
			break
		}
		owner = alias
	}
	var list []netip.Addr
	for _, rr := range r.Answer {
		h := rr.Header()
		if h.Rrtype != qtype || h.Class != dns.ClassINET || !strings.EqualFold(h.Name, owner) || len(list) == protocol.MaxAnswer {
			continue
		}
		if addr, ok := addressOf(rr); ok {
			list = append(list, addr)
			ttl = min(ttl, h.Ttl)
		}
	}
	if len(list) == 0 {
		return found{ttl: absentTTL}
	}
	return found{addresses: list, ttl: max(time.Duration(ttl)*time.Second, minTTL)}
}

// next returns the name that another is an alias of, "" if it is none.
func next(list []dns.RR, owner string, ttl *uint32) string {
	for _, rr := range list {
		if c, ok := rr.(*dns.CNAME); ok && c.Hdr.Class == dns.ClassINET && strings.EqualFold(c.Hdr.Name, owner) {
			*ttl = min(*ttl, c.Hdr.Ttl)
			return c.Target
		}
	}
	return ""
}

func addressOf(rr dns.RR) (addr netip.Addr, ok bool) {
	switch rr := rr.(type) {
	case *dns.A:
		addr, ok = netip.AddrFromSlice(rr.A)
		addr = addr.Unmap()
		return addr, ok && addr.Is4()
	case *dns.AAAA:
		addr, ok = netip.AddrFromSlice(rr.AAAA)
		return addr, ok && addr.Is6() && !addr.Is4In6() // a mapped address would be one of another family
	}
	return addr, false
}
