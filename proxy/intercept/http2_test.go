package intercept

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// frames is a client that says in HTTP/2 what it is told to.
type frames struct {
	*http2.Framer
	t    *testing.T
	conn *tls.Conn
	next uint32
}

func (e *executor) http2(t *testing.T, to string, names ...string) *frames {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(e.ca)
	conn := tls.Client(e.open(to, names...), &tls.Config{RootCAs: roots, ServerName: names[0], NextProtos: []string{"h2"}})
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(conn, http2.ClientPreface)
	f := &frames{http2.NewFramer(conn, conn), t, conn, 1}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return f
}

// send sends a request.
func (f *frames) send(fields ...string) {
	f.t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	id := f.next
	f.next += 2
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
		f.t.Error(err)
	}
}

// ask sends a request, and returns the first status that comes, or what else became of a stream.
func (f *frames) ask(fields ...string) string {
	f.t.Helper()
	f.send(fields...)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return "reset"
		case *http2.GoAwayFrame:
			return "closed"
		}
	}
}

// Escapes 46 and 47 over HTTP/2.
func TestHTTP2Requests(t *testing.T) {
	up, issuer := secureUpstream(t, nil)
	old, oldIssuer := secureUpstreamOf(t, nil, "http/1.1")
	e := begin(t, settings{http: decrypting(t, "GET a.test/*", "GET b.test/*", "* a.test/c"), secrets: map[string]string{protocol.SecretUpstreamCA: issuer + oldIssuer}})
	for _, to := range []*upstream{up, old} {
		for _, tc := range []struct {
			name, want string
			fields     []string
		}{
			{"fine", "200", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/"}},
			{"same Host", "200", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", "host", "A.test"}},
			{"Host alone", "200", []string{":method", "GET", ":scheme", "https", ":path", "/", "host", "a.test"}},
			{"other authority", "421", []string{":method", "GET", ":scheme", "https", ":authority", "b.test", ":path", "/"}},
			{"other Host", "403", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", "host", "b.test"}},
			{"two Hosts", "4xx", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", "host", "a.test", "host", "b.test"}},
			{"no authority", "4xx", []string{":method", "GET", ":scheme", "https", ":path", "/"}},
			{"userinfo", "4xx", []string{":method", "GET", ":scheme", "https", ":authority", "x:y@a.test", ":path", "/"}},
			{"absolute path", "400", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "https://b.test/"}},
			{"request in the path", "4xx", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/ HTTP/1.1\r\nX: y"}},
			{"space in the path", "403", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/ HTTP/1.0"}},
			{"space in the query", "400", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/?q HTTP/1.0"}},
			{"line end in a header", "4xx", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", "x", "y\r\nz: 1"}},
			{"transfer-encoding", "4xx", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", "transfer-encoding", "chunked"}},
			{"connection", "4xx", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", "connection", "x"}},
			{"method", "4xx", []string{":method", "GE T", ":scheme", "https", ":authority", "a.test", ":path", "/"}},
			{"CONNECT", "405", []string{":method", "CONNECT", ":authority", "a.test:443"}},
			{"WebSocket", "4xx", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "a.test", ":path", "/"}},
			{"content-length", "4xx", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", "content-length", "5"}},
			{"imitated header", "400", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", "content_length", "5"}},
			{"imitated override", "403", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", "x_http_method_override", "PUT"}},
			{"other punctuation", "400", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", "content.length", "5"}},
			{"override with other punctuation", "403", []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", "x.http~method", "PUT"}},
			{"lower case", "400", []string{":method", "trace", ":scheme", "https", ":authority", "a.test", ":path", "/c"}},
			{"denied", "403", []string{":method", "POST", ":scheme", "https", ":authority", "a.test", ":path", "/"}},
		} {
			before := to.count()
			got := e.http2(t, to.at, "a.test").ask(tc.fields...)
			ok := got == tc.want || tc.want == "4xx" && (got == "reset" || got == "closed" || strings.HasPrefix(got, "4"))
			if !ok {
				t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
			}
			if reached := to.count() > before; reached != (tc.want == "200") {
				t.Errorf("%s: reached the server: %t", tc.name, reached)
			}
		}
	}
}

// Many requests at a time on one connection, which end when it does.
func TestHTTP2Streams(t *testing.T) {
	release := make(chan struct{})
	up, issuer := secureUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			<-release
		}
	})
	e := begin(t, settings{http: decrypting(t, "GET a.test/*"), secrets: map[string]string{protocol.SecretUpstreamCA: issuer}})
	c := e.client(up.at, "a.test")
	e.do(c, request(t, "GET", "https://a.test/first", nil)) // now there is a connection
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if answer, err := c.Get("https://a.test/"); err != nil || answer.StatusCode != 200 {
				t.Errorf("got %v, %v", answer, err)
			} else {
				answer.Body.Close()
			}
		})
	}
	for up.count() < 201 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	all.Wait()
	if n := len(e.to); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// A bug answers, and is the end of nothing else.
func TestPanic(t *testing.T) {
	answer := httptest.NewRecorder()
	x := &exchange{
		s: &session{p: &proxy{control: &control{}}}, inner: answer, request: httptest.NewRequest("GET", "/", nil), since: time.Now(),
	}
	func() {
		defer x.end()
		panic("bug")
	}()
	if answer.Code != 502 || answer.Header().Get("Connection") != "close" {
		t.Errorf("got %d %v", answer.Code, answer.Header())
	}
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("an answer that has begun is not cut off")
		}
	}()
	defer x.end()
	panic("another")
}

// The requests of all connections together are bounded: each may have something kept here.
func TestTooManyRequests(t *testing.T) {
	held := make(chan struct{})
	up, issuer := secureUpstream(t, func(w http.ResponseWriter, r *http.Request) { <-held })
	h := decrypting(t, "GET a.test/*")
	h.Limits.Connections = 1
	e := begin(t, settings{http: h, secrets: map[string]string{protocol.SecretUpstreamCA: issuer}})
	f := e.http2(t, up.at, "a.test")
	fields := []string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/"}
	for range requestsPerConnection {
		f.send(fields...)
	}
	for begun := time.Now(); up.count() < requestsPerConnection; time.Sleep(time.Millisecond) {
		if time.Since(begun) > 8*time.Second {
			t.Fatalf("%d requests have come to the server", up.count())
		}
	}
	if got := f.ask(fields...); got != "503" {
		t.Errorf("one more: got %s, want 503", got)
	}
	close(held)
	if m := e.record(); !m.Denied || !strings.Contains(m.Reason, "too many requests") {
		t.Errorf("got %+v", m)
	}
}
