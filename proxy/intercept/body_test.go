package intercept

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// A large body passes in both directions, and memory stays what it was.
func TestLargeBody(t *testing.T) {
	const size = 1 << 30
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Received", fmt.Sprint(n))
		w.Header().Set("Content-Length", fmt.Sprint(size))
		b := make([]byte, 256<<10)
		for range size / len(b) {
			_, _ = w.Write(b)
		}
	})
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "POST a.test/*")}})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	conn := e.open(up.at, "a.test")
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", size/4)
	b := make([]byte, 256<<10)
	for range size / 4 / len(b) {
		_, _ = conn.Write(b)
	}
	answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 256<<10), nil)
	if err != nil || answer.Header.Get("X-Received") != fmt.Sprint(size/4) {
		t.Fatalf("got %v, %v", answer, err)
	}
	begun := time.Now()
	n := int64(0)
	for {
		k, err := answer.Body.Read(b)
		if n += int64(k); err != nil {
			break
		}
	}
	t.Logf("%.0f MB/s", float64(n)/1e6/time.Since(begun).Seconds())
	runtime.ReadMemStats(&after)
	if n != size {
		t.Errorf("got %d bytes", n)
	}
	if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > 64<<20 {
		t.Errorf("%d MiB were allocated for a body of %d MiB", grown>>20, size>>20)
	}
}

// A body whose end is not where the client says is the end of the connection, and no request of the server's.
func TestMalformedBodies(t *testing.T) {
	complete := make(chan string, 10)
	up := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			complete <- r.RequestURI
		}
	})
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "* a.test/*")}, log: true})
	const hidden = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n"
	for _, chunks := range []string{"-1\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "5\r\nhello!\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "5\nhello\n0\n\n", "ffffffffffffffff1\r\nx",
		"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"} {
		got, _ := raw(t, e.open(up.at, "a.test"), "POST /first HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"+chunks+hidden)
		if len(got) != 1 || got[0] != 400 {
			t.Errorf("%q: got %v", chunks, got)
		}
		if m := e.record(); !m.Denied || m.Status != 400 {
			t.Errorf("%q: got %+v", chunks, m)
		}
	}
	select {
	case target := <-complete:
		t.Errorf("the server has read all of %s", target)
	default:
	}
}

// A message without its descriptor is a connection that was refused.
func TestConnectionWithoutDescriptor(t *testing.T) {
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "* a.test/*")}})
	e.send(protocol.Connection{ID: 7, To: netip.MustParseAddrPort("127.0.0.1:80")})
	if m := e.record(); !m.Denied || m.Reason == "" {
		t.Errorf("got %+v", m)
	}
	e.wait("end", func() bool { return e.closed[7] })
}
