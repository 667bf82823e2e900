package intercept

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/ir"
)

// Whatever a client sends, the server gets requests for the one host and beneath the one path that rules allow.
func FuzzRequests(f *testing.F) {
	for _, seed := range []string{
		"GET /ok/x HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"GET /ok/../x HTTP/1.1\r\nHost: a.test\r\n\r\nGET /ok/ HTTP/1.1\r\nHost: b.test\r\n\r\n",
		"GET http://a.test/ok/%2e%2e/x?q HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"POST /ok/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\nX: y\r\n\r\nGET /no HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"POST /ok/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabcGET /ok/2 HTTP/1.0\r\nHost: a.test\r\n\r\n",
		"GET /ok/ HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nGET /no HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"POST /ok/ HTTP/1.1\r\nHost: a.test\r\nX-HTTP-Method-Override: GET\r\nX-Original-URL: /no\r\n\r\n",
		"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
		"\x16\x03\x01\x00\x00",
	} {
		f.Add([]byte(seed))
	}
	bad := make(chan string, 100)
	up := newUpstream(f, func(w http.ResponseWriter, r *http.Request) {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		if r.Host != "a.test" || !strings.HasPrefix(path+"/", "/ok/") || strings.Contains(r.URL.Path+"/", "/../") {
			bad <- r.Host + " " + r.RequestURI
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})
	e := begin(f, settings{http: ir.HTTP{Allow: rules(f, "* a.test/ok/*")}})
	f.Fuzz(func(t *testing.T, b []byte) {
		conn, err := e.tryOpen(netip.MustParseAddrPort(up.at), []string{"a.test"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = conn.Write(b)
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		select {
		case request := <-bad:
			t.Errorf("the server got %s", request)
		default:
		}
	})
}
