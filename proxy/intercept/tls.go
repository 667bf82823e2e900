package intercept

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"

	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

const (
	recordAlert     = 0x15   // types of TLS records (RFC 8446 §5.1)
	recordHandshake = 0x16   // the first byte of a connection
	extensionECH    = 0xfe0d // encrypted_client_hello (RFC 9849)
	// Alerts (RFC 8446 §6, RFC 6066 §3).
	alertFatal            = 2
	alertAccessDenied     = 49
	alertUnrecognizedName = 112
	// maxHello bounds what is read for a ClientHello, in bytes; crypto/tls takes one of 64 KiB.
	maxHello = 96 << 10

	protocolTLS = "tls"
	protocolH1  = "http/1.1"
	protocolH2  = "h2"
)

// serveTLS decides by the ClientHello what becomes of a TLS connection. It reports whether somebody serves it from now on.
func (s *session) serveTLS() bool {
	hello, read, err := readHello(s.conn)
	if err != nil {
		s.refuse(protocolTLS, "", "malformed TLS ClientHello")
		return false
	}
	name := query.Canonical(s.to.Addr()).String() // whoever connects to an address sends no name (RFC 6066 §3)
	if hello.ServerName != "" {
		host, port, err := query.ParseAuthority(hello.ServerName)
		if err != nil || port != 0 {
			s.refuse(protocolTLS, "", "malformed server name in the TLS ClientHello")
			return false
		}
		name = host
	}
	if rule, ok := s.p.rules.Opaque(name); ok {
		switch {
		case hello.ServerName == "":
			s.refuseTLS(alertAccessDenied, name, "TLS without a server name is not passed on")
		case !s.leadsTo(name):
			s.refuseTLS(alertAccessDenied, name, reasonElsewhere)
		case slices.Contains(hello.Extensions, extensionECH):
			s.refuseTLS(alertAccessDenied, name, "an encrypted TLS ClientHello may hide another server's name")
		default:
			s.passOn(name, rule.Describe(), uint32(rule.Origin), read)
		}
		return false
	}
	switch {
	case s.p.authority == nil:
		s.refuseTLS(alertAccessDenied, name, "TLS is not decrypted on this port: the policy has no http.ca or http.inject_ca and no passthrough rule for "+name)
		return false
	case !s.p.rules.Speaks(name):
		s.refuseTLS(alertUnrecognizedName, name, "no rule is about this host")
		return false
	case !s.p.authority.Permits(name):
		s.refuseTLS(alertUnrecognizedName, name, "the policy's certificate authority may not certify this host")
		return false
	}
	return s.decrypt(name, read)
}

// refuseTLS records a refusal, and tells the client by an alert instead of a handshake.
func (s *session) refuseTLS(alert byte, name, reason string) {
	s.refuse(protocolTLS, name, reason)
	_, _ = s.conn.Write([]byte{recordAlert, 3, 3, 0, 2, alertFatal, alert})
}

// decrypt does the handshake, and has what is in it served.
func (s *session) decrypt(name string, read []byte) bool {
	s.decrypted, s.server = true, name
	conn := tls.Server(&replay{s.conn, read}, s.p.tls)
	// The deadline is that of the session's head.
	if err := conn.Handshake(); err != nil {
		s.refuseUnlessGone(name, err)
		return false
	}
	if s.conn.forever() != nil {
		return false
	}
	if conn.ConnectionState().NegotiatedProtocol == protocolH2 {
		return s.p.ready.add(conn)
	}
	return s.serve(conn)
}

// refuseUnlessGone records a handshake that failed, if what failed is not the connection.
func (s *session) refuseUnlessGone(name string, err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || isTimeout(err) {
		return
	}
	s.refuse(protocolTLS, name, "TLS handshake: "+err.Error())
}

// serverTLS is the part of a server's configuration that all sessions share. Tickets are not given, so that no session
// resumes what another one has negotiated.
func (p *proxy) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{protocolH2, protocolH1},
		SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return p.authority.Leaf(hello.Conn.(*replay).s.server)
		},
	}
}

// replay is a session's socket, with bytes that were read from it before.
type replay struct {
	*wire
	read []byte
}

func (r *replay) Read(b []byte) (int, error) {
	if len(r.read) > 0 {
		n := copy(b, r.read)
		if r.read = r.read[n:]; len(r.read) == 0 {
			r.read = nil
		}
		return n, nil
	}
	return r.wire.Read(b)
}

var errHeard = errors.New("the ClientHello has been read")

// readHello reads a ClientHello, and returns the bytes too.
func readHello(conn net.Conn) (hello *tls.ClientHelloInfo, read []byte, err error) {
	listen := &listener{Conn: conn}
	err = tls.Server(listen, &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			hello = h
			return nil, errHeard
		},
	}).Handshake()
	if hello == nil {
		return nil, nil, err
	}
	return hello, listen.read.Bytes(), nil
}

// listener keeps what is read, and writes nothing.
type listener struct {
	net.Conn
	read bytes.Buffer
}

func (l *listener) Read(b []byte) (int, error) {
	room := maxHello - l.read.Len()
	if room <= 0 {
		return 0, errors.New("the ClientHello is too long")
	}
	n, err := l.Conn.Read(b[:min(len(b), room)])
	l.read.Write(b[:n])
	return n, err
}

func (l *listener) Write(b []byte) (int, error) { return len(b), nil }

func (l *listener) Close() error { return nil }

// passOn connects to where the session leads, and passes all bytes on as they are.
func (s *session) passOn(name, rule string, origin uint32, read []byte) {
	record := protocol.Access{Connection: s.id, Protocol: protocolTLS, Authority: name, Rule: rule, Origin: origin, Upstream: s.to}
	defer func() {
		record.Micros = micros(s.since)
		if s.p.log {
			s.p.control.send(record)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	server, err := s.dial(ctx)
	if err != nil {
		record.Reason = short(err.Error(), protocol.MaxWords)
		return
	}
	defer server.Close()
	if s.conn.forever() != nil {
		return
	}
	if _, err := server.Write(read); err != nil {
		record.Reason = "the server closed the connection"
		return
	}
	done := make(chan uint64)
	go func() { done <- pass(s.conn.TCPConn, server) }()
	record.Received = uint64(len(read)) + pass(server, s.conn.TCPConn)
	record.Sent = <-done
}

// pass copies until the source ends, and tells the destination; the kernel moves the bytes (splice(2)). If one of them
// fails, both are cut off, so that the other direction ends too.
func pass(to, from *net.TCPConn) uint64 {
	n, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		_ = to.SetDeadline(past)
		_ = from.SetDeadline(past)
	}
	return uint64(n)
}
