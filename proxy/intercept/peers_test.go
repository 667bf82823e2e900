package intercept

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/sandlock-go/sandlock/proxy/ca"
)

// client is an HTTP client of the sandbox whose connections all lead to one place.
func (e *executor) client(to string, names ...string) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(e.ca)
	transport := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return e.tryOpen(netip.MustParseAddrPort(to), names)
		},
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true, DisableCompression: true,
	}
	e.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// said is an answer, read to its end.
type said struct {
	*http.Response
	text string
}

func (e *executor) do(c *http.Client, r *http.Request) said {
	e.t.Helper()
	answer, err := c.Do(r)
	if err != nil {
		e.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		e.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return said{answer, string(b)}
}

func request(t testing.TB, method, url string, body io.Reader, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// upstream is a server that counts what reaches it.
type upstream struct {
	*httptest.Server
	at       string // its address and port
	mu       sync.Mutex
	requests []*http.Request
	accepted int
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.requests)
}

func newUpstream(t testing.TB, h http.HandlerFunc) *upstream { return startUpstream(t, h, nil) }

// secureUpstream has a certificate for every name, of an authority that it returns.
func secureUpstream(t testing.TB, h http.HandlerFunc) (up *upstream, authority string) {
	t.Helper()
	return secureUpstreamOf(t, h, "h2", "http/1.1")
}

func secureUpstreamOf(t testing.TB, h http.HandlerFunc, protocols ...string) (up *upstream, authority string) {
	t.Helper()
	issuer, err := ca.Ephemeral(ca.Config{Any: true})
	if err != nil {
		t.Fatal(err)
	}
	return startUpstream(t, h, &tls.Config{NextProtos: protocols, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return issuer.Leaf(cmp.Or(hello.ServerName, "127.0.0.1"))
	}}), string(issuer.PEM())
}

func startUpstream(t testing.TB, h http.HandlerFunc, secure *tls.Config) *upstream {
	t.Helper()
	u := &upstream{}
	if h == nil {
		h = func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") }
	}
	u.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.requests = append(u.requests, r)
		u.mu.Unlock()
		h(w, r)
	}))
	u.Config.ErrorLog = silent
	u.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			u.mu.Lock()
			u.accepted++
			u.mu.Unlock()
		}
	}
	if secure != nil {
		u.EnableHTTP2, u.TLS = slices.Contains(secure.NextProtos, "h2"), secure
		u.StartTLS()
		u.TLS.Certificates = nil // httptest's own
	} else {
		u.Start()
	}
	u.at = u.Listener.Addr().String()
	t.Cleanup(u.Close)
	return u
}
