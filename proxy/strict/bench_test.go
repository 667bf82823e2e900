package strict

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// endless sends the same bytes again and again, as many as are asked for.
type endless struct {
	net.Conn
	in string
	at int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.in[e.at:])
	e.at = (e.at + n) % len(e.in)
	return n, nil
}

func small() string {
	return req("GET /v1/items?limit=20 HTTP/1.1", "Host: api.example.com", "User-Agent: curl/8.14.1", "Accept: */*", "Connection: keep-alive")
}

func bodies() map[string]string {
	return map[string]string{
		"length": req("POST / HTTP/1.1", "Host: a.test", "Content-Length: 65536") + strings.Repeat("x", 64<<10),
		"chunks": chunked(strings.Repeat(fmt.Sprintf("%x\r\n%s\r\n", 16<<10, strings.Repeat("x", 16<<10)), 4) + "0\r\n\r\n"),
	}
}

func BenchmarkHead(b *testing.B) {
	in := small()
	c, p := NewConn(&endless{in: in}, Limits{}), make([]byte, 4096)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if n, err := c.Read(p); n != len(in) || err != nil {
			b.Fatal(n, err)
		}
	}
}

// The same bytes without this package are under "plain".
func BenchmarkBody(b *testing.B) {
	for name, in := range bodies() {
		for kind, c := range map[string]net.Conn{"strict": NewConn(&endless{in: in}, Limits{}), "plain": &endless{in: in}} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				p := make([]byte, 32<<10)
				b.SetBytes(int64(len(in)))
				b.ReportAllocs()
				for b.Loop() {
					for got := 0; got < len(in); {
						n, err := c.Read(p[:min(len(p), len(in)-got)])
						if err != nil {
							b.Fatal(err)
						}
						got += n
					}
				}
			})
		}
	}
}

// A request costs no memory, nor does its body.
func TestAllocations(t *testing.T) {
	for _, in := range []string{small(), bodies()["length"], bodies()["chunks"]} {
		c, p := NewConn(&endless{in: in}, Limits{}), make([]byte, len(in))
		if n := testing.AllocsPerRun(100, func() {
			if _, err := io.ReadFull(c, p); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%v allocations for %.20q…", n, in)
		}
	}
}
