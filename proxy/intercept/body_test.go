package intercept

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/ir"
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
