package intercept

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/proxy/credential"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// exchange is a request and its answer. It is the http.ResponseWriter of both our own answers and those of servers.
type exchange struct {
	s       *session
	inner   http.ResponseWriter
	request *http.Request // as net/http made it, with another Body
	since   time.Time

	unknown   bool // the request is one that stands for what could not be read
	path      string
	query     string
	host      string // canonical
	authority string // host with the port that the client named
	canonical query.HTTPPath
	rule      *ir.HTTPRule // that allows it
	auth      *ir.HTTPAuth

	body      *body
	upgrade   bool // the request asks for a WebSocket
	upgraded  bool // and the answer is one
	forwarded bool
	failure   error // of preparing what is sent on
	echo      *credential.Echo

	record   protocol.Access
	status   int
	sent     atomic.Uint64
	received atomic.Uint64
}

// begin puts a counter into the body's place.
func (x *exchange) begin() {
	x.s.beginRequest()
	x.body = &body{x: x, from: x.request.Body}
	if limit := x.s.p.limits.BodyBytes; limit > 0 {
		x.body.from = http.MaxBytesReader(x.inner, x.request.Body, int64(min(limit, 1<<62)))
	}
}

func (x *exchange) Header() http.Header { return x.inner.Header() }

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.inner }

// WriteHeader begins the answer, or sends an interim one. Of "100 Continue" (RFC 9110 §15.2.1) a client that waits for it
// gets the one that net/http sends when the body is first read, which is when the server has sent its own: written here
// as well, there would at times be two.
func (x *exchange) WriteHeader(status int) {
	if status == http.StatusContinue && x.request.Header["Expect"] != nil {
		clear(x.Header())
		return
	}
	if x.echo != nil {
		x.echo.Redact(x.Header()) // of an interim answer; others have been looked at
	}
	if status >= 200 && x.status == 0 {
		x.status = status
		if x.s.strict != nil {
			x.s.strict.NotUpgraded()
		}
		if h := x.Header(); h["Content-Type"] == nil {
			h["Content-Type"] = nil // net/http would guess it
		}
	}
	x.inner.WriteHeader(status)
}

func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	n, err := x.inner.Write(b)
	x.sent.Add(uint64(n))
	return n, err
}

// Hijack takes the connection over for a WebSocket.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(x.inner).Hijack()
	if err != nil {
		return nil, nil, err
	}
	x.status = http.StatusSwitchingProtocols
	return &tunnel{conn, buffered.Reader, x}, buffered, nil
}

// tunnel is a connection that has become a WebSocket's.
type tunnel struct {
	net.Conn
	buffered *bufio.Reader // what net/http has read already
	x        *exchange
}

func (t *tunnel) Read(b []byte) (n int, err error) {
	if t.buffered != nil && t.buffered.Buffered() > 0 {
		n, err = t.buffered.Read(b[:min(len(b), t.buffered.Buffered())])
	} else {
		t.buffered = nil
		n, err = t.Conn.Read(b)
	}
	t.x.received.Add(uint64(n))
	return n, err
}

func (t *tunnel) Write(b []byte) (int, error) {
	n, err := t.Conn.Write(b)
	t.x.sent.Add(uint64(n))
	return n, err
}

func (t *tunnel) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// body is a request's body on its way to the server.
type body struct {
	x       *exchange
	from    io.ReadCloser
	trailer http.Header           // of the request that is sent on: what is in it at the end of the body is sent
	failed  atomic.Pointer[error] // what reading ended with
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	b.x.received.Add(uint64(n))
	switch {
	case err == io.EOF:
		b.takeTrailer()
	case err != nil:
		b.failed.CompareAndSwap(nil, &err)
	}
	return n, err
}

func (b *body) Close() error { return b.from.Close() }

// failure is what reading the client's body ended with, if it failed.
func (b *body) failure() error {
	if err := b.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// takeTrailer moves the trailer, which net/http has read with the end of the body, to the request that is sent on.
func (b *body) takeTrailer() {
	if b.trailer == nil {
		return
	}
	for name, values := range b.x.request.Trailer {
		if b.x.mayTrail(name) && values != nil {
			b.trailer[name] = values
		}
	}
}

// end records the exchange. A panic is a bug, and must not be the end of the process.
func (x *exchange) end() {
	problem := recover()
	defer x.s.endRequest()
	if problem != nil && problem != http.ErrAbortHandler && x.status == 0 && !x.upgraded {
		x.refuse(&refusal{status: http.StatusBadGateway, kind: "proxy_internal_error", reason: "internal error", close: true})
		problem = nil
	}
	if x.record.Denied || x.s.p.log {
		x.report(problem != nil)
	}
	if problem != nil {
		panic(http.ErrAbortHandler) // cuts the connection off, or the stream
	}
}

func (x *exchange) report(broken bool) {
	m := &x.record
	m.Connection, m.Protocol = x.s.id, x.protocolName()
	m.Status = uint16(x.status)
	if broken && m.Reason == "" {
		m.Reason = "the answer was cut off"
	}
	if !x.unknown {
		r := x.request
		m.Method = short(r.Method, protocol.MaxWords)
		m.Authority = short(r.Host, protocol.MaxWords)
		m.Path = x.path
		if x.query != "" && !x.s.p.redact {
			m.Path += "?" + x.query
		}
		m.Path = short(m.Path, protocol.MaxPath)
	}
	if x.rule != nil && m.Rule == "" {
		m.Rule, m.Origin = short(x.rule.Describe(), protocol.MaxWords), uint32(x.rule.Origin)
	}
	m.Reason = short(m.Reason, protocol.MaxWords)
	m.Received, m.Sent = x.received.Load(), x.sent.Load()
	m.Micros = micros(x.since)
	if x.forwarded {
		m.Upstream = x.s.to
	}
	x.s.p.control.send(*m)
}

func (x *exchange) protocolName() string {
	if x.s.strict == nil {
		return protocolH2
	}
	if x.unknown {
		return protocolH1
	}
	return strings.ToLower(fmt.Sprintf("http/%d.%d", x.request.ProtoMajor, x.request.ProtoMinor))
}

func short(s string, most int) string {
	if len(s) > most {
		return s[:most]
	}
	return s
}

func micros(since time.Time) uint64 { return uint64(time.Since(since).Microseconds()) }
