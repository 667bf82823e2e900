package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// A resolver and the executor talk over a SOCK_SEQPACKET socket pair. The executor begins:
//
//	executor                      helper
//	Names… Hosts… Begin    →
//	                       ←      Ready, or the end of the socket
//	Announce               →               before a socket of the sandbox is connected to the helper
//	                       ←      Learned  before the sandbox gets an answer
//	Ack                    →
//	                       ←      Refused  a name that no rule names was asked for
//
// Each message is one packet: a byte for the kind, then the fields, numbers in network order. The helper ends when the
// executor's end is closed.

// MaxMessage bounds a message, in bytes.
const MaxMessage = 32 << 10

// Message is one of the types below.
type Message interface{ append(b []byte) []byte }

// Transport is what DNS is spoken over.
type Transport uint8

// Transports.
const (
	UDP Transport = 1
	TCP Transport = 2
)

// Names are names in rules, those with a wildcard included. There may be several such messages.
type Names []string

// Host is a name with fixed addresses. There may be any number of such messages.
type Host struct {
	Name      string
	Addresses []netip.Addr
}

// Begin ends what the helper is told at first.
type Begin struct {
	Private   bool             // names must not lead to private addresses
	Upstreams []netip.AddrPort // servers to ask; none: those of /etc/resolv.conf
}

// Ready says where the helper listens.
type Ready []Listener

// Listener is one socket that listens.
type Listener struct {
	Transport Transport
	At        netip.AddrPort // on a loopback address
}

// Announce says that a socket of the sandbox at this address may ask the helper.
type Announce struct {
	Transport Transport
	From      netip.AddrPort
}

// Learned are addresses that the sandbox is about to be given.
type Learned struct {
	ID        uint32
	TTL       uint32 // seconds
	Name      string
	Addresses []netip.Addr // at most MaxAnswer
}

// Ack answers Learned: whether the sandbox may be given the addresses.
type Ack struct {
	ID uint32
	OK bool
}

// Refused is a name that was asked for and that the helper did not resolve.
type Refused struct {
	Name   string
	Reason Reason
}

// Reason is why a name was not resolved.
type Reason uint8

// Reasons.
const (
	NotNamed Reason = 1 // by any rule
	Private  Reason = 2 // it leads to a private address, and the policy forbids that
)

const (
	// MaxAnswer bounds the addresses of one answer.
	MaxAnswer    = 32
	maxUpstreams = 8
	maxListeners = 4
)

const (
	kindNames = iota + 1
	kindHost
	kindBegin
	kindReady
	kindAnnounce
	kindLearned
	kindAck
	kindRefused
	kindProxyBegin
	kindProxyReady
	kindConnection
	kindDial
	kindDialed
	kindClosed
	kindAccess
	kindPlain
)

// Encode returns a message's bytes.
func Encode(m Message) []byte { return m.append(nil) }

func (m Names) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, kindNames), uint16(len(m)))
	for _, name := range m {
		b = appendName(b, name)
	}
	return b
}

func (m Host) append(b []byte) []byte {
	return appendAddresses(appendName(append(b, kindHost), m.Name), m.Addresses)
}

func (m Begin) append(b []byte) []byte {
	b = append(b, kindBegin, boolean(m.Private), byte(len(m.Upstreams)))
	for _, u := range m.Upstreams {
		b = appendAddrPort(b, u)
	}
	return b
}

func (m Ready) append(b []byte) []byte {
	b = append(b, kindReady, byte(len(m)))
	for _, l := range m {
		b = appendAddrPort(append(b, byte(l.Transport)), l.At)
	}
	return b
}

func (m Announce) append(b []byte) []byte {
	return appendAddrPort(append(b, kindAnnounce, byte(m.Transport)), m.From)
}

func (m Learned) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, kindLearned), m.ID)
	b = binary.BigEndian.AppendUint32(b, m.TTL)
	return appendAddresses(appendName(b, m.Name), m.Addresses)
}

func (m Ack) append(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(append(b, kindAck), m.ID), boolean(m.OK))
}

func (m Refused) append(b []byte) []byte {
	return appendName(append(b, kindRefused, byte(m.Reason)), m.Name)
}

func boolean(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func appendName(b []byte, name string) []byte { return append(append(b, byte(len(name))), name...) }

func appendAddr(b []byte, a netip.Addr) []byte {
	raw := a.AsSlice()
	return append(append(b, byte(len(raw))), raw...)
}

func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(appendAddr(b, a.Addr()), a.Port())
}

func appendAddresses(b []byte, list []netip.Addr) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(list)))
	for _, a := range list {
		b = appendAddr(b, a)
	}
	return b
}

var errMalformed = errors.New("malformed message of the helper's protocol")

// Decode returns the message in b.
func Decode(b []byte) (Message, error) {
	if len(b) == 0 || len(b) > MaxMessage {
		return nil, errMalformed
	}
	r := &reader{b: b[1:]}
	var m Message
	switch b[0] {
	case kindNames:
		list := make(Names, r.count16(MaxMessage/2, 2))
		for i := range list {
			list[i] = r.rule()
		}
		m = list
	case kindHost:
		m = Host{r.name(), r.addresses(MaxAddresses)}
	case kindBegin:
		begin := Begin{Private: r.boolean()}
		for range r.count8(maxUpstreams) {
			begin.Upstreams = append(begin.Upstreams, r.addrPort())
		}
		m = begin
	case kindReady:
		var list Ready
		for range r.count8(maxListeners) {
			list = append(list, Listener{r.transport(), r.addrPort()})
		}
		m = list
	case kindAnnounce:
		m = Announce{r.transport(), r.addrPort()}
	case kindLearned:
		m = Learned{r.uint32(), r.uint32(), r.name(), r.addresses(MaxAnswer)}
	case kindAck:
		m = Ack{r.uint32(), r.boolean()}
	case kindRefused:
		m = Refused{Reason: Reason(r.oneOf(byte(NotNamed), byte(Private))), Name: r.name()}
	default:
		if m = r.proxyMessage(b[0]); m == nil {
			return nil, fmt.Errorf("%w: kind %d", errMalformed, b[0])
		}
	}
	if r.failed || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: kind %d", errMalformed, b[0])
	}
	return m, nil
}

// reader takes fields off a message. After a failure all of them are zero.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.b) {
		r.failed = true
		return make([]byte, n)
	}
	var field []byte
	field, r.b = r.b[:n], r.b[n:]
	return field
}

func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }

func (r *reader) oneOf(allowed ...byte) byte {
	v := r.take(1)[0]
	for _, a := range allowed {
		if v == a {
			return v
		}
	}
	r.failed = true
	return 0
}

func (r *reader) boolean() bool { return r.oneOf(0, 1) == 1 }

func (r *reader) transport() Transport { return Transport(r.oneOf(byte(UDP), byte(TCP))) }

// count8 and count16 take the length of a list, which must not claim more than the message holds.
func (r *reader) count8(most int) int { return r.bounded(int(r.take(1)[0]), most, 1) }

func (r *reader) count16(most, least int) int {
	return r.bounded(int(binary.BigEndian.Uint16(r.take(2))), most, least)
}

func (r *reader) bounded(n, most, least int) int {
	if r.failed || n > most || n*least > len(r.b) {
		r.failed = true
		return 0
	}
	return n
}

func (r *reader) text() string { return string(r.take(int(r.take(1)[0]))) }

func (r *reader) name() string {
	s := r.text()
	r.failed = r.failed || !IsName(s)
	return s
}

// rule is a name that may begin with a wildcard.
func (r *reader) rule() string {
	s := r.text()
	r.failed = r.failed || !IsRule(s)
	return s
}

func (r *reader) addr() netip.Addr {
	a, ok := netip.AddrFromSlice(r.take(int(r.oneOf(4, 16))))
	r.failed = r.failed || !ok || a.Is4In6()
	return a
}

func (r *reader) addrPort() netip.AddrPort {
	a := r.addr()
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(r.take(2)))
}

func (r *reader) addresses(most int) []netip.Addr {
	var list []netip.Addr
	for range r.count16(most, 5) {
		list = append(list, r.addr())
	}
	return list
}
