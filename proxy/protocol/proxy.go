package protocol

import (
	"encoding/binary"
	"net/netip"
)

// An HTTP proxy and the executor talk over a SOCK_SEQPACKET socket pair, in packets as a resolver does. Some of them carry
// descriptors (SCM_RIGHTS). The executor begins:
//
//	executor                      helper
//	Names… ProxyBegin      →               with the program, and with the secrets
//	                       ←      ProxyReady, or the end of the socket
//	Connection             →               with the sandbox's end of it
//	                       ←      Dial     a server is needed
//	Dialed                 →               with a socket that is being connected, or an error
//	                       ←      Access   a request has been answered
//	                       ←      Plain    a credential goes out unencrypted, for the first time
//	                       ←      Closed   the connection's number means nothing any more
//
// The helper makes no socket of its own: where it may connect to, the executor has decided.

// ProxyBegin ends what a proxy is told at first. Names before it are those that lead to certain addresses, those with a
// wildcard included. It carries two descriptors: a file with the program as package ir encodes it, and one with secrets as
// [AppendSecret] writes them.
type ProxyBegin struct {
	Log bool // requests that passed are told of, too
}

// ProxyReady says that the proxy works.
type ProxyReady struct {
	CA []byte // certificate of the authority (PEM), at most MaxCA bytes; empty where TLS is not decrypted
}

// Connection is one that the sandbox has made and that may reach To. It carries the other end.
type Connection struct {
	ID    uint32
	To    netip.AddrPort // where the sandbox meant to connect to
	Names []string       // of those that lead to certain addresses, which lead to To; at most MaxNames
}

// Dial asks for a connection to where a connection of the sandbox leads.
type Dial struct {
	ID         uint32 // of the answer
	Connection uint32
}

// Dialed answers Dial. Where Errno is 0 it carries a socket, non-blocking and perhaps not connected yet.
type Dialed struct {
	ID    uint32
	Errno uint16
}

// Closed says that the helper asks for nothing more on behalf of a connection.
type Closed struct{ Connection uint32 }

// Plain says that a credential is sent unencrypted.
type Plain struct {
	Credential string // its name
	Authority  string // that it is sent to
}

// Access is a request that was answered or refused, or a connection that was.
type Access struct {
	Connection uint32 // that it came by
	Protocol   string // "http/1.0", "http/1.1", "h2"; "tls" for what was not decrypted
	Method     string // "" where there was no request
	Authority  string // host, and port where one was named
	Path       string // as it was asked for, with its query, at most MaxPath bytes of it
	Denied     bool   // by the policy or for its form, and not by the server
	Status     uint16 // of the answer; 0 if there was none
	Rule       string // that decided or comes closest, as goldens write it; "" if there is none
	Origin     uint32 // of the rule, in the program's list; 0 if there is none
	Reason     string
	Credential string // that was added, by its name
	Received   uint64 // bytes of the request's body
	Sent       uint64 // bytes of the answer's body
	Upstream   netip.AddrPort
	Micros     uint64 // duration in microseconds
}

const (
	// MaxCA bounds a certificate (PEM).
	MaxCA = 16 << 10
	// MaxNames bounds the names of one connection.
	MaxNames = 100
	// MaxPath bounds what is told of a request's path, in bytes.
	MaxPath = 4096
	// MaxWords bounds the other texts about a request, in bytes.
	MaxWords = 4400
)

func (m ProxyBegin) append(b []byte) []byte { return append(b, kindProxyBegin, boolean(m.Log)) }

func (m ProxyReady) append(b []byte) []byte {
	return appendText(append(b, kindProxyReady), string(m.CA))
}

func (m Connection) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, kindConnection), m.ID)
	b = append(appendAddrPort(b, m.To), byte(len(m.Names)))
	for _, name := range m.Names {
		b = appendName(b, name)
	}
	return b
}

func (m Dial) append(b []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(append(b, kindDial), m.ID), m.Connection)
}

func (m Dialed) append(b []byte) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(append(b, kindDialed), m.ID), m.Errno)
}

func (m Closed) append(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, kindClosed), m.Connection)
}

func (m Plain) append(b []byte) []byte {
	return appendText(appendText(append(b, kindPlain), m.Credential), m.Authority)
}

func (m Access) append(b []byte) []byte {
	b = append(b, kindAccess, boolean(m.Denied))
	for _, text := range []string{m.Protocol, m.Method, m.Authority, m.Path, m.Rule, m.Reason, m.Credential} {
		b = appendText(b, text)
	}
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, m.Status), m.Origin)
	b = binary.BigEndian.AppendUint32(b, m.Connection)
	for _, n := range []uint64{m.Received, m.Sent, m.Micros} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	if !m.Upstream.IsValid() {
		return append(b, 0)
	}
	return appendAddrPort(append(b, 1), m.Upstream)
}

func appendText(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}

// proxyMessage returns a message of the kinds above, nil for another kind.
func (r *reader) proxyMessage(kind byte) Message {
	switch kind {
	case kindProxyBegin:
		return ProxyBegin{r.boolean()}
	case kindProxyReady:
		return ProxyReady{[]byte(r.words(MaxCA))}
	case kindConnection:
		m := Connection{ID: r.uint32(), To: r.addrPort()}
		for range r.count8(MaxNames) {
			m.Names = append(m.Names, r.name())
		}
		return m
	case kindDial:
		return Dial{r.uint32(), r.uint32()}
	case kindDialed:
		return Dialed{r.uint32(), r.uint16()}
	case kindClosed:
		return Closed{r.uint32()}
	case kindPlain:
		return Plain{r.words(MaxWords), r.words(MaxWords)}
	case kindAccess:
		return r.access()
	}
	return nil
}

func (r *reader) access() Access {
	m := Access{Denied: r.boolean()}
	for _, text := range []*string{&m.Protocol, &m.Method, &m.Authority, &m.Path, &m.Rule, &m.Reason, &m.Credential} {
		*text = r.words(MaxWords)
	}
	m.Status, m.Origin, m.Connection = r.uint16(), r.uint32(), r.uint32()
	for _, n := range []*uint64{&m.Received, &m.Sent, &m.Micros} {
		*n = binary.BigEndian.Uint64(r.take(8))
	}
	if r.boolean() {
		m.Upstream = r.addrPort()
	}
	return m
}

func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }

// words takes a text of any bytes.
func (r *reader) words(most int) string { return string(r.take(r.bounded(int(r.uint16()), most, 1))) }

// Secret is one of the secrets that a proxy is given.
type Secret struct {
	Name  string
	Value []byte
}

// Names of secrets that are no credentials: the authority of the policy (PEM), and certificates of servers.
const (
	SecretCA         = "*ca"
	SecretKey        = "*key"
	SecretUpstreamCA = "*upstream-ca"
)

// MaxSecrets bounds a file of secrets, in bytes.
const MaxSecrets = 32 << 20

// AppendSecret writes one more secret.
func AppendSecret(b []byte, name string, value []byte) []byte {
	b = binary.BigEndian.AppendUint32(appendText(b, name), uint32(len(value)))
	return append(b, value...)
}

// Secrets reads what AppendSecret wrote. The values lie in b.
func Secrets(b []byte) ([]Secret, error) {
	r := &reader{b: b}
	var list []Secret
	for len(r.b) > 0 && !r.failed {
		name, n := r.words(MaxName), int(r.uint32())
		if n > len(r.b) {
			r.failed = true
			break
		}
		list = append(list, Secret{name, r.take(n)})
	}
	if r.failed || len(b) > MaxSecrets {
		return nil, errMalformed
	}
	return list, nil
}
