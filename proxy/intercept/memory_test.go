package intercept

import (
	"bytes"
	"net/http"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// A client that asks for much and takes nothing has little of it held.
func TestHTTP2AnswersThatNobodyTakes(t *testing.T) {
	up, issuer := secureUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 32<<10)
		for range 512 {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	})
	e := begin(t, settings{http: decrypting(t, "* a.test/*"), secrets: map[string]string{protocol.SecretUpstreamCA: issuer}})
	var m0, m1 runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m0)
	f := e.http2(t, up.at, "a.test")
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for range 100 {
		block.Reset()
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "a.test"}, {":path", "/"}} {
			_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.next, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
		f.next += 2
	}
	time.Sleep(3 * time.Second)
	runtime.GC()
	runtime.ReadMemStats(&m1)
	if grown := int64(m1.HeapAlloc) - int64(m0.HeapAlloc); grown > 2*connectionAnswers {
		t.Errorf("%d MiB more are held", grown>>20)
	}
}
