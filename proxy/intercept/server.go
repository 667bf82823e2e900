package intercept

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sandlock-go/sandlock/proxy/strict"
)

// maxStreams bounds the requests at a time of an HTTP/2 connection.
const maxStreams = 250

// connectionBodies bounds what is held of the bodies of its requests, in bytes.
const connectionBodies = 256 << 10

// past is a deadline that is over.
var past = time.Unix(1, 0)

// silent is the log of libraries: what they say is about bytes of the sandbox, as often as it likes.
var silent = log.New(io.Discard, "", 0)

// feed is a listener whose connections are there already.
type feed struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (f *feed) add(conn net.Conn) bool {
	select {
	case f.conns <- conn:
		return true
	case <-f.done:
		return false
	}
}

func (f *feed) Accept() (net.Conn, error) {
	select {
	case conn := <-f.conns:
		return conn, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

func (f *feed) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}

func (f *feed) Addr() net.Addr { return &net.TCPAddr{} }

// served is a connection with HTTP/1.
type served struct {
	*strict.Conn
	s *session
}

// Read notes that a body is malformed before net/http sees it, who takes it for the client's end.
func (c *served) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, strict.ErrBody) {
		c.s.malformed.Store(true)
	}
	return n, err
}

type sessionKey struct{}

func (p *proxy) newServer() (*http.Server, *feed) {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	server := &http.Server{
		Handler:   http.HandlerFunc(p.handle),
		Protocols: &protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: connectionBodies, MaxReceiveBufferPerConnection: connectionBodies,
		},
		ReadHeaderTimeout: p.headTime(),
		IdleTimeout:       p.idleTime(),
		MaxHeaderBytes:    int(p.limits.HeaderBytes),
		ErrorLog:          silent,
		// Requests that strict counts must all come to the handler.
		DisableGeneralOptionsHandler: true,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			switch conn := conn.(type) {
			case *served:
				return context.WithValue(ctx, sessionKey{}, conn.s)
			case *tls.Conn:
				return context.WithValue(ctx, sessionKey{}, conn.NetConn().(*replay).s)
			}
			return ctx
		},
	}
	return server, &feed{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (p *proxy) handle(w http.ResponseWriter, r *http.Request) {
	s := r.Context().Value(sessionKey{}).(*session)
	x := &exchange{s: s, inner: w, request: r, since: time.Now()}
	x.begin()
	defer x.end()
	p.requests.Add(1)
	defer p.requests.Add(-1)
	if bad := x.check(); bad != nil {
		x.refuse(bad)
		return
	}
	x.forward()
}
