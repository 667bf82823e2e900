package intercept

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// quick is a server that costs little: whatever it is asked, it answers by the same bytes.
func quick(b *testing.B, answer string) (at string) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := make([]byte, 4096)
				for {
					if _, err := conn.Read(in); err != nil {
						return
					}
					if _, err := io.WriteString(conn, answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

const small = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nok"

// ask measures requests on connections that are kept.
func ask(b *testing.B, connect func() net.Conn, host string) {
	request := "GET /some/path HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		conn := connect()
		defer conn.Close()
		r := bufio.NewReader(conn)
		for pb.Next() {
			if _, err := io.WriteString(conn, request); err != nil {
				b.Error(err)
				return
			}
			answer, err := http.ReadResponse(r, nil)
			if err != nil || answer.StatusCode != 200 {
				b.Errorf("%v, %v", answer, err)
				return
			}
			_, _ = io.Copy(io.Discard, answer.Body)
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

func BenchmarkRequests(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		at := quick(b, small)
		ask(b, func() net.Conn { c, _ := net.Dial("tcp", at); return c }, "a.test")
	})
	b.Run("http", func(b *testing.B) {
		at := quick(b, small)
		e := begin(b, settings{http: ir.HTTP{Allow: rules(b, "GET a.test/*")}})
		ask(b, func() net.Conn { return e.open(at, "a.test") }, "a.test")
	})
	b.Run("https", func(b *testing.B) {
		up, issuer := secureUpstreamOf(b, nil, "http/1.1")
		e := begin(b, settings{http: decrypting(b, "GET a.test/*"), secrets: map[string]string{protocol.SecretUpstreamCA: issuer}})
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(e.ca)
		ask(b, func() net.Conn {
			return tls.Client(e.open(up.at, "a.test"), &tls.Config{RootCAs: roots, ServerName: "a.test"})
		}, "a.test")
	})
}

// BenchmarkBody measures an answer of 256 MiB.
func BenchmarkBody(b *testing.B) {
	const size = 256 << 20
	up := newUpstream(b, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		block := make([]byte, 256<<10)
		for range size / len(block) {
			_, _ = w.Write(block)
		}
	})
	read := func(b *testing.B, connect func() net.Conn) {
		b.SetBytes(size)
		for b.Loop() {
			conn := connect()
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
			block := make([]byte, 256<<10)
			n := 0
			for {
				k, err := conn.Read(block)
				if n += k; err != nil {
					break
				}
			}
			if conn.Close(); n < size {
				b.Fatalf("got %d bytes", n)
			}
		}
	}
	b.Run("bare", func(b *testing.B) {
		read(b, func() net.Conn { c, _ := net.Dial("tcp", up.at); return c })
	})
	b.Run("http", func(b *testing.B) {
		e := begin(b, settings{http: ir.HTTP{Allow: rules(b, "GET a.test/*")}})
		read(b, func() net.Conn { return e.open(up.at, "a.test") })
	})
}
