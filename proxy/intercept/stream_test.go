package intercept

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

func TestExpectContinue(t *testing.T) {
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusConflict)
			return
		}
		_, _ = io.Copy(w, r.Body)
	})
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "POST a.test/*"), Deny: rules(t, "* a.test/denied")}})
	for path, want := range map[string]string{"/yes": "100 200", "/no": "409", "/denied": "403"} {
		conn := e.open(up.at, "a.test")
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n", path)
		r := bufio.NewReader(conn)
		var got []string
		for {
			answer, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("%s: %v after %v", path, err, got)
			}
			got = append(got, fmt.Sprint(answer.StatusCode))
			if answer.StatusCode == 100 {
				_, _ = io.WriteString(conn, "body")
				continue
			}
			b, _ := io.ReadAll(answer.Body)
			if path == "/yes" && string(b) != "body" {
				t.Errorf("got %q", b)
			}
			break
		}
		if fmt.Sprint(got) != "["+want+"]" {
			t.Errorf("%s: got %v, want %s", path, got, want)
		}
	}
}

// Trailers arrive in both directions, announced or not, and on both versions.
func TestTrailers(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Announced")
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s|%s|%s|%s", b, r.Trailer.Get("X-First"), r.Trailer.Get("X-Late"), r.Trailer.Get("Authorization"))
		w.Header().Set("X-Announced", "a")
		w.Header().Set(http.TrailerPrefix+"X-Unannounced", "u")
	}
	up := newUpstream(t, handler)
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "POST a.test/*")}})
	conn := e.open(up.at, "a.test")
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-First\r\n\r\n"+
		"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-First: 1\r\nX-Late: 2\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(answer.Body)
	if err != nil || string(b) != "abcde|1|2|" {
		t.Errorf("got %q, %v", b, err)
	}
	if answer.Trailer.Get("X-Announced") != "a" || answer.Trailer.Get("X-Unannounced") != "u" {
		t.Errorf("trailer %v", answer.Trailer)
	}

	secure, issuer := secureUpstream(t, handler)
	e = begin(t, settings{http: decrypting(t, "POST a.test/*"), secrets: map[string]string{protocol.SecretUpstreamCA: issuer}})
	r := request(t, "POST", "https://a.test/", io.MultiReader(strings.NewReader("abc")))
	r.Trailer = http.Header{"X-First": {"1"}}
	got := e.do(e.client(secure.at, "a.test"), r)
	if got.text != "abc|1||" || got.ProtoMajor != 2 || got.Trailer.Get("X-Announced") != "a" || got.Trailer.Get("X-Unannounced") != "u" {
		t.Errorf("got %q over %s with trailer %v", got.text, got.Proto, got.Trailer)
	}
}

// What is about the connection is not sent on, what is about the request is, and nothing is made up.
func TestHeaders(t *testing.T) {
	var seen http.Header
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		seen["Host"] = []string{r.Host}
		w.Header().Set("Proxy-Status", "sandlock; error=http_request_denied")
		w.Header().Add("Proxy-Status", "cdn; hit")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, "<html>")
	})
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "GET a.test/*")}})
	conn := e.open(up.at, "a.test")
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: A.test\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\n"+
		"Proxy-Authorization: x\r\nProxy-Connection: x\r\nTE: trailers\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Kept: 1\r\nX-Kept: 2\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "map[Host:[a.test] Te:[trailers] X-Forwarded-For:[10.0.0.1] X-Forwarded-Proto:[https] X-Kept:[1 2]]"
	if fmt.Sprint(seen) != want {
		t.Errorf("the server got %v, want %s", seen, want)
	}
	if fmt.Sprint(answer.Header["Proxy-Status"]) != "[cdn; hit]" || answer.Header.Get("X-Hop") != "" || answer.Header["Content-Type"] != nil {
		t.Errorf("the client got %v", answer.Header)
	}
}

func TestInterimAnswers(t *testing.T) {
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "ok")
	})
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "GET a.test/*")}})
	var hints []string
	r := request(t, "GET", "http://a.test/", nil)
	r = r.WithContext(httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, h.Get("Link")))
			return nil
		},
	}))
	if got := e.do(e.client(up.at, "a.test"), r); got.text != "ok" || fmt.Sprint(hints) != "[103</style.css>]" {
		t.Errorf("got %q, hints %v", got.text, hints)
	}
}

// Events arrive when they are sent, and so does the begin of an answer whose end is far.
func TestEvents(t *testing.T) {
	next := make(chan struct{})
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			w.Header().Set("Content-Type", "text/event-stream")
		} else {
			w.Header().Set("Content-Length", "27")
		}
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	})
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "GET a.test/*")}})
	for _, path := range []string{"/events", "/length"} {
		answer, err := e.client(up.at, "a.test").Get("http://a.test" + path)
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(answer.Body)
		for i := range 3 {
			line, err := r.ReadString('\n')
			_, _ = r.ReadString('\n')
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Errorf("got %q, %v", line, err)
			}
			next <- struct{}{}
		}
		answer.Body.Close()
	}
}

// As gRPC does it: both sides speak in turn on one stream, and the end is in the trailer.
func TestStreamsBothWays(t *testing.T) {
	up, issuer := secureUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintf(w, "echo %s\n", lines.Text())
			w.(http.Flusher).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
	})
	e := begin(t, settings{http: decrypting(t, "POST a.test/*"), secrets: map[string]string{protocol.SecretUpstreamCA: issuer}})
	body, in := io.Pipe()
	r := request(t, "POST", "https://a.test/service/Method", body, "Content-Type", "application/grpc", "Te", "trailers")
	answer, err := e.client(up.at, "a.test").Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for i := range 5 {
		fmt.Fprintf(in, "%d\n", i)
		if !lines.Scan() || lines.Text() != fmt.Sprintf("echo %d", i) {
			t.Fatalf("got %q, %v", lines.Text(), lines.Err())
		}
	}
	in.Close()
	if lines.Scan() || answer.Trailer.Get("Grpc-Status") != "0" || answer.ProtoMajor != 2 {
		t.Errorf("got %q, trailer %v, %s", lines.Text(), answer.Trailer, answer.Proto)
	}
}

// The same over HTTP/1: an answer may begin before the request has ended.
func TestAnswersEarly(t *testing.T) {
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.(http.Flusher).Flush()
		_, _ = io.Copy(w, r.Body)
	})
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "POST a.test/*")}})
	body, in := io.Pipe()
	answer, err := e.client(up.at, "a.test").Do(request(t, "POST", "http://a.test/", body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	go func() {
		_, _ = in.Write(bytes.Repeat([]byte("x"), 1<<20))
		in.Close()
	}()
	if n, err := io.Copy(io.Discard, answer.Body); n != 1<<20 || err != nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

const webSocketKey = "dGhlIHNhbXBsZSBub25jZQ=="

// webSocket answers the handshake of RFC 6455 §4.2.2, and then whatever it gets by the same.
func webSocket(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "websocket" || r.URL.Path == "/no" {
		w.Header().Set("X-Upgrade", r.Header.Get("Upgrade"))
		_, _ = io.WriteString(w, "no")
		return
	}
	conn, b, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	if r.URL.Path == "/h2c" {
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
		return
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	_, _ = io.Copy(conn, b)
}

const askWebSocket = " HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + webSocketKey + "\r\n\r\n"

func TestWebSocket(t *testing.T) {
	up := newUpstream(t, webSocket)
	secure, issuer := secureUpstream(t, webSocket)
	h := decrypting(t, "GET a.test/*")
	h.Deny = rules(t, "* a.test/denied")
	e := begin(t, settings{http: h, log: true, secrets: map[string]string{protocol.SecretUpstreamCA: issuer}})
	for _, encrypted := range []bool{false, true} {
		open := func() net.Conn {
			if !encrypted {
				return e.open(up.at, "a.test")
			}
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(e.ca)
			return tls.Client(e.open(secure.at, "a.test"), &tls.Config{RootCAs: roots, ServerName: "a.test"})
		}
		conn := open()
		echo := func(conn net.Conn, path string) (*http.Response, *bufio.Reader) {
			t.Helper()
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.WriteString(conn, "GET "+path+askWebSocket)
			r := bufio.NewReader(conn)
			answer, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			return answer, r
		}
		answer, r := echo(conn, "/chat")
		if answer.StatusCode != 101 || answer.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Fatalf("got %d %v", answer.StatusCode, answer.Header)
		}
		for _, frame := range []string{"\x81\x85\x01\x02\x03\x04hello", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("x", 100_000)} {
			go func() { _, _ = io.WriteString(conn, frame) }()
			b := make([]byte, len(frame))
			if _, err := io.ReadFull(r, b); err != nil || string(b) != frame {
				t.Fatalf("got %.40q, %v", b, err)
			}
		}
		conn.Close()
		if m := e.record(); m.Status != 101 || m.Path != "/chat" || m.Sent < 100_000 || m.Sent != m.Received {
			t.Errorf("got %+v", m)
		}
		// An answer that is none leaves HTTP as it was.
		conn = open()
		answer, r = echo(conn, "/no")
		b, _ := io.ReadAll(answer.Body)
		if answer.StatusCode != 200 || string(b) != "no" {
			t.Errorf("got %d %q", answer.StatusCode, b)
		}
		_, _ = io.WriteString(conn, "GET /no HTTP/1.1\r\nHost: a.test\r\n\r\n")
		if answer, err := http.ReadResponse(r, nil); err != nil || answer.StatusCode != 200 {
			t.Errorf("after a refusal: %v", err)
		}
		conn.Close()
		conn = open()
		if answer, _ = echo(conn, "/denied"); answer.StatusCode != 403 {
			t.Errorf("denied: got %d", answer.StatusCode)
		}
		conn.Close()
		// A protocol that was not asked for would hide requests.
		conn = open()
		if answer, _ = echo(conn, "/h2c"); answer.StatusCode != 502 {
			t.Errorf("other protocol: got %d", answer.StatusCode)
		}
		conn.Close()
		for range 4 {
			e.record()
		}
	}
}

// Number 63: an upgrade to anything else is not sent on.
func TestOtherUpgrades(t *testing.T) {
	up := newUpstream(t, webSocket)
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "* a.test/*")}})
	for _, head := range []string{
		"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
		"GET / HTTP/1.1\r\nUpgrade: websocket, h2c\r\nConnection: Upgrade\r\n",
		"GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
		"POST / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n",
	} {
		conn := e.open(up.at, "a.test")
		_, _ = io.WriteString(conn, head+"Host: a.test\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode == 101 || answer.Header.Get("X-Upgrade") != "" {
			t.Errorf("%q: got %d %v", head, answer.StatusCode, answer.Header)
		}
	}
}
