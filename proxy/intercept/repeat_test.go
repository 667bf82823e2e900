package intercept

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir"
)

// says answers each connection's first request with bytes, in which SECRET is what the request had for Authorization.
func says(t *testing.T, answer string) (at string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				secret := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
				_, _ = conn.Write([]byte(strings.ReplaceAll(answer, "SECRET", secret)))
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// What is wrong with an answer is not told in the server's words where these may have the secret in them: neither to the
// client nor in the record.
func TestCredentialInErrors(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nX SECRET\r\n\r\n", "SECRET", "HTTP/1.1 SECRET\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: SECRET\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: SECRET\r\n\r\n",
	} {
		h := withAuth(ir.HTTP{Allow: rules(t, "GET a.test/*")}, ir.HTTPAuth{Rule: rule(t, "GET a.test/*"), Scheme: ir.AuthBearer, Credential: "api", Plain: true})
		e := begin(t, settings{http: h, log: true, secrets: map[string]string{"api": secretText}})
		got := e.do(e.client(says(t, answer), "a.test"), request(t, "GET", "http://a.test/", nil))
		if m := fmt.Sprintf("%+v", e.record()); got.StatusCode != 502 || strings.Contains(got.text, secretText) || strings.Contains(m, secretText) {
			t.Errorf("%q: got %d %q, record %s", answer, got.StatusCode, got.text, m)
		}
	}
}

// Escapes 49: the names of a trailer are announced in the head.
func TestCredentialInTrailerNames(t *testing.T) {
	at := says(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: SECRET, X-Other\r\n\r\n0\r\nSECRET: 1\r\nX-Other: 1\r\n\r\n")
	h := withAuth(ir.HTTP{Allow: rules(t, "GET a.test/*")}, ir.HTTPAuth{Rule: rule(t, "GET a.test/*"), Scheme: ir.AuthBearer, Credential: "api", Plain: true})
	e := begin(t, settings{http: h, secrets: map[string]string{"api": secretText}})
	got := e.do(e.client(at, "a.test"), request(t, "GET", "http://a.test/", nil))
	if all := fmt.Sprint(got.Header, got.Trailer); got.StatusCode != 200 || strings.Contains(strings.ToLower(all), secretText) || got.Trailer.Get("X-Other") != "1" {
		t.Errorf("got %d %s", got.StatusCode, all)
	}
}

// A server that says 101 and does not mean a WebSocket goes on to read requests.
func TestUpgradeThatIsNone(t *testing.T) {
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "GET a.test/*")}})
	for accept, want := range map[string]int{"": 502, "Sec-WebSocket-Accept: x\r\n": 502, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n": 101} {
		at := says(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+accept+"\r\n")
		conn := e.open(at, "a.test")
		_, _ = conn.Write([]byte("GET /" + askWebSocket))
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || answer.StatusCode != want {
			t.Errorf("%q: got %+v, %v, want %d", accept, answer, err, want)
		}
	}
}
