package intercept

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/proxy/credential"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

const (
	// A large buffer moves half as many bytes again as one of 64 KiB, but there is only memory for some.
	largeBuffer, smallBuffer = 256 << 10, 32 << 10
	maxLarge                 = 64
	// flushAfter bounds how long a part of an answer is kept for what follows it. An answer of unknown length, or of events,
	// is not kept at all.
	flushAfter = 5 * time.Millisecond
)

type exchangeKey struct{}

// buffers are for bodies: large ones as long as few are in use.
type buffers struct {
	large, small sync.Pool
	inUse        atomic.Int64 // of the large ones
}

func (b *buffers) Get() []byte {
	if b.inUse.Add(1) <= maxLarge {
		if b, ok := b.large.Get().(*[largeBuffer]byte); ok {
			return b[:]
		}
		return make([]byte, largeBuffer)
	}
	b.inUse.Add(-1)
	if b, ok := b.small.Get().(*[smallBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, smallBuffer)
}

func (b *buffers) Put(buffer []byte) {
	if len(buffer) == smallBuffer {
		b.small.Put((*[smallBuffer]byte)(buffer))
		return
	}
	b.large.Put((*[largeBuffer]byte)(buffer))
	b.inUse.Add(-1)
}

func (p *proxy) newForwarder() *httputil.ReverseProxy {
	of := func(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }
	return &httputil.ReverseProxy{
		Transport:      p,
		Rewrite:        func(r *httputil.ProxyRequest) { of(r.In).rewrite(r) },
		ModifyResponse: func(r *http.Response) error { return of(r.Request).answered(r) },
		ErrorHandler:   func(_ http.ResponseWriter, r *http.Request, err error) { of(r).failed(err) },
		FlushInterval:  flushAfter,
		BufferPool:     &buffers{},
		ErrorLog:       silent,
	}
}

// RoundTrip sends what could be prepared.
func (p *proxy) RoundTrip(r *http.Request) (*http.Response, error) {
	if x := r.Context().Value(exchangeKey{}).(*exchange); x.failure != nil {
		return nil, x.failure
	}
	return p.transport.RoundTrip(r)
}

// forward sends the request on, and its answer back.
func (x *exchange) forward() {
	r := x.request
	x.upgrade = isWebSocket(r)
	if x.s.strict != nil {
		if !x.upgrade {
			x.s.strict.NotUpgraded() // whatever it asks for, it will not get
		}
		if r.ContentLength != 0 {
			// The answer may begin before the request has ended.
			_ = http.NewResponseController(x.inner).EnableFullDuplex()
		}
	}
	in := r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	in.Body = x.body
	x.s.p.forward.ServeHTTP(x, in)
}

// isWebSocket reports whether a request asks for a WebSocket (RFC 6455 §4.1). No other protocol is passed: it might hold
// requests that nobody decides about.
func isWebSocket(r *http.Request) bool {
	upgrade := r.Header["Upgrade"]
	return r.ProtoMajor == 1 && r.ProtoAtLeast(1, 1) && r.Method == http.MethodGet &&
		len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket") &&
		httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade")
}

// rewrite makes the request that is sent on. ReverseProxy has taken out what is about the connection.
func (x *exchange) rewrite(r *httputil.ProxyRequest) {
	out := r.Out
	x.keepForwarded(r.In.Header, out.Header)
	if !x.upgrade {
		delete(out.Header, "Connection")
		delete(out.Header, "Upgrade")
	}
	delete(out.Header, "Host")
	x.prepareTrailer(out)
	raw := x.query
	if x.auth != nil {
		raw, x.failure = x.addCredential(out.Header, raw)
	}
	scheme := "http"
	if x.s.decrypted {
		scheme = "https"
	}
	out.Host = x.authority
	// Opaque is written as it is, which a path might not be.
	out.URL = &url.URL{
		Scheme: scheme, Host: x.key(), Opaque: x.canonical.Forward,
		RawQuery: raw, ForceQuery: raw == "" && r.In.URL.ForceQuery,
	}
	x.forwarded = true
}

// keepForwarded puts back what ReverseProxy takes out for proxies that the client has not chosen.
func (x *exchange) keepForwarded(in, out http.Header) {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := in[name]; ok && !httpguts.HeaderValuesContainsToken(in["Connection"], name) {
			out[name] = slices.Clone(values)
		}
	}
}

// prepareTrailer has the request's trailer sent on: what was announced is announced, and whatever is there at the end of
// the body is sent, unless it may not be.
func (x *exchange) prepareTrailer(out *http.Request) {
	if out.Body == nil {
		return
	}
	out.Trailer = http.Header{}
	for name := range x.request.Trailer {
		if x.mayTrail(name) {
			out.Trailer[name] = nil
		}
	}
	x.body.trailer = out.Trailer
}

// mayTrail reports whether a field may be in a trailer. Some servers take trailers for headers.
func (x *exchange) mayTrail(name string) bool {
	if !httpguts.ValidTrailerHeader(name) || isOneOf(name, methodHeaders) || isOneOf(name, pathHeaders) {
		return false
	}
	return x.auth == nil || x.auth.Scheme != ir.AuthHeader || !strings.EqualFold(x.auth.Name, name)
}

// errCredential is a credential that could not be added.
type errCredential struct{ name string }

func (e errCredential) Error() string { return "credential " + e.name + " could not be added" }

func (x *exchange) addCredential(h http.Header, raw string) (string, error) {
	secret := x.s.p.secrets[x.auth]
	added, outcome, err := credential.Apply(secret.way, secret.held, h, raw)
	if err != nil {
		return raw, errCredential{x.auth.Credential}
	}
	if outcome == credential.Injected {
		x.record.Credential = x.auth.Credential
		x.echo = secret.echo
		if !x.s.decrypted {
			x.s.p.warn.Do(func() { x.s.p.control.send(protocol.Plain{Credential: x.auth.Credential, Authority: x.authority}) })
		}
	}
	return added, nil
}

// answered looks at a server's answer before the client gets it.
func (x *exchange) answered(r *http.Response) error {
	r.Header["Proxy-Status"] = slices.DeleteFunc(r.Header["Proxy-Status"], func(value string) bool {
		return strings.Contains(strings.ToLower(value), proxyName)
	})
	if len(r.Header["Proxy-Status"]) == 0 {
		delete(r.Header, "Proxy-Status")
	}
	if x.echo != nil {
		x.echo.Redact(r.Header)
		x.echo.Redact(r.Trailer) // of which there are the names that were announced
		r.Status = x.echo.Text(r.Status)
	}
	if r.StatusCode != http.StatusSwitchingProtocols {
		if x.echo != nil {
			r.Body = &redacted{r.Body, r, x.echo}
		}
		return nil
	}
	if !x.upgrade || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || !accepts(r) ||
		!httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") {
		return errUpgrade
	}
	x.upgraded = true
	x.s.strict.Upgraded() // the client may speak as soon as it has the answer
	return nil
}

// accepts reports whether a server has understood a request for a WebSocket (RFC 6455 §4.2.2): whoever can have it give the
// status 101 for another reason is not to get a connection on which it still reads requests.
func accepts(r *http.Response) bool {
	keys, accepted := r.Request.Header["Sec-Websocket-Key"], r.Header["Sec-Websocket-Accept"]
	if len(keys) != 1 || len(accepted) != 1 {
		return false
	}
	sum := sha1.Sum([]byte(keys[0] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return accepted[0] == base64.StdEncoding.EncodeToString(sum[:])
}

var errUpgrade = errors.New("the server switched to a protocol that was not asked for")

// redacted takes credentials out of the trailer, which is there once the body has ended.
type redacted struct {
	io.ReadCloser
	response *http.Response
	echo     *credential.Echo
}

func (r *redacted) Close() error {
	err := r.ReadCloser.Close()
	r.echo.Redact(r.response.Trailer)
	return err
}
