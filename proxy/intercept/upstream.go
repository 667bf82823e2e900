package intercept

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dialTime bounds how long a connection to a server may take, and a TLS handshake with it.
	dialTime = 30 * time.Second
	// maxIdle and maxIdleOfOne bound the connections to servers that are kept, all and to one of them, for idleServer.
	maxIdle      = 256
	maxIdleOfOne = 64
	idleServer   = 90 * time.Second
	// streamAnswer and connectionAnswers bound what is held of the answers of an HTTP/2 server that the client does not take,
	// in bytes. net/http would hold 4 MiB of each. One stream at a time is as fast as streamAnswer in the time of a round trip.
	streamAnswer      = 1 << 20
	connectionAnswers = 64 << 20
)

func (p *proxy) newTransport() *http.Transport {
	return &http.Transport{
		DialContext:            dialPlain,
		DialTLSContext:         dialTLS,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdleOfOne,
		IdleConnTimeout:        idleServer,
		MaxResponseHeaderBytes: int64(p.limits.HeaderBytes),
		ExpectContinueTimeout:  time.Second,
		// A server that has gone without a word is noticed.
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: dialTime, PingTimeout: dialTime / 2,
			MaxReceiveBufferPerStream: streamAnswer, MaxReceiveBufferPerConnection: connectionAnswers,
		},
	}
}

// key is what connections to servers are kept by, in the form of a host: the address where the session leads, and the name
// that the server must prove to have. One without the other would let a request go where it was not meant to. The protocol
// is the client's: see protocols.
func (x *exchange) key() string {
	key := hex.EncodeToString(x.s.to.Addr().AsSlice())
	if x.s.strict == nil {
		key = protocolH2 + "." + key
	}
	if x.host != "" {
		key += "." + hex.EncodeToString([]byte(x.host))
	}
	return net.JoinHostPort(key, strconv.Itoa(int(x.s.to.Port())))
}

// dialPlain is for a request that goes unencrypted. Which one, the context says; the address is its key.
func dialPlain(ctx context.Context, _, _ string) (net.Conn, error) {
	x := ctx.Value(exchangeKey{}).(*exchange)
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := x.s.dial(ctx)
	if err != nil {
		return nil, err // no nil *net.TCPConn
	}
	return conn, nil
}

// dialTLS is for the others: the server must have a certificate for the request's host.
func dialTLS(ctx context.Context, network, key string) (net.Conn, error) {
	x := ctx.Value(exchangeKey{}).(*exchange)
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	plain, err := dialPlain(ctx, network, key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		RootCAs: x.s.p.roots(), ServerName: x.host, MinVersion: tls.VersionTLS12, NextProtos: x.protocols(),
	}
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		plain.Close()
		return nil, err
	}
	return conn, nil
}

// protocols are what a server is offered. A client of HTTP/1 gets HTTP/1 there too, as it would without a proxy: HTTP/2 has
// no upgrade (RFC 9113 §8.6), and would have all requests of the sandbox share one connection and its windows, which costs
// half of a body's throughput and two thirds of the requests.
func (x *exchange) protocols() []string {
	if x.s.strict != nil {
		return []string{protocolH1}
	}
	return []string{protocolH2, protocolH1}
}

// dial connects to where the session leads.
func (s *session) dial(ctx context.Context) (*net.TCPConn, error) {
	fd, err := s.p.control.dial(ctx, s)
	if err != nil {
		return nil, err
	}
	return connected(ctx, fd)
}

// connected waits until a socket is connected, and takes it.
func connected(ctx context.Context, fd int) (*net.TCPConn, error) {
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := f.SetWriteDeadline(deadline); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(past) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	if err := raw.Write(func(fd uintptr) bool {
		var done bool
		done, failed = isConnected(int(fd))
		return done
	}); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, failed
	}
	return asTCP(f)
}

// isConnected reports whether waiting is over: the socket is connected, or failed (connect(2), EINPROGRESS).
func isConnected(fd int) (done bool, err error) {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return true, err
	}
	switch errno := syscall.Errno(code); errno {
	case 0:
	case unix.EINPROGRESS, unix.EALREADY, unix.EINTR:
		return false, nil
	default:
		return true, errno
	}
	if _, err := unix.Getpeername(fd); err != nil {
		if errors.Is(err, unix.ENOTCONN) {
			return false, nil
		}
		return true, err
	}
	return true, nil
}
