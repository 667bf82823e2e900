package strict

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
)

// script is a connection on which a client's bytes arrive in pieces. Before each piece there is a timeout, if pauses is set.
type script struct {
	net.Conn
	in     []byte
	piece  func() int
	pauses bool
	paused bool
}

func (s *script) Read(p []byte) (int, error) {
	if s.paused = !s.paused; s.pauses && s.paused {
		return 0, os.ErrDeadlineExceeded
	}
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.in[:min(len(s.in), max(1, s.piece()))])
	s.in = s.in[n:]
	return n, nil
}

func whole() int     { return 1 << 20 }
func oneByOne() int  { return 1 }
func threeEach() int { return 3 }

// outcome is what came of a stream.
type outcome struct {
	out      []byte
	end      string // as in reference
	requests int
	refusal  *Refusal
	err      error
}

// drain reads all of a stream, in slices of some size, and answers each request for an upgrade.
func drain(t testing.TB, s *script, l Limits, slice int, answer upgrade) (o outcome) {
	t.Helper()
	c := NewConn(s, l)
	p := make([]byte, slice)
	for o.err == nil {
		n, err := c.Read(p)
		o.out = append(o.out, p[:n]...)
		switch answer {
		case gotUpgrade:
			c.Upgraded()
		case noUpgrade:
			c.NotUpgraded()
		}
		switch {
		case n > 0 && err != nil || n == 0 && err == nil:
			t.Fatalf("Read gave %d, %v", n, err)
		case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
		case err == io.EOF:
			o.end, o.err = "EOF", err
		case err == io.ErrUnexpectedEOF:
			o.end, o.err = "cut", err
		case errors.Is(err, ErrBody):
			o.end, o.err = "body", err
		case err == ErrEarly:
			o.end, o.err = "early", err
		default:
			t.Fatalf("Read gave %v", err)
		}
	}
	for range 2 {
		if n, err := c.Read(p); n != 0 || err != o.err && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %v, Read gave %d, %v", o.err, n, err)
		}
	}
	o.requests, o.refusal = c.requests, c.Refusal(c.requests)
	for _, n := range []int{-1, 0, c.requests - 1, c.requests + 1} {
		if r := c.Refusal(n); r != nil && n != c.requests {
			t.Errorf("refusal of request %d of %d: %v", n, c.requests, r)
		}
	}
	return o
}

// Each case must come out as the table says and as the reference says, however the bytes arrive and are read.
func TestCases(t *testing.T) {
	for _, tc := range cases() {
		t.Run(tc.name, func(t *testing.T) {
			for _, piece := range []func() int{whole, oneByOne, threeEach} {
				for _, slice := range []int{1, 7, 4096} {
					got := drain(t, &script{in: []byte(tc.in), piece: piece}, Limits{}, slice, noUpgrade)
					n, status, reason := got.requests, 0, ""
					if got.refusal != nil {
						n, status, reason = n-1, got.refusal.Status, got.refusal.Reason
					} else if got.end == "body" {
						reason = strings.TrimPrefix(got.err.Error(), ErrBody.Error()+": ")
					}
					if n != tc.good || status != tc.status || reason != tc.reason {
						t.Fatalf("%d good, then %d %q, want %d, then %d %q", n, status, reason, tc.good, tc.status, tc.reason)
					}
					compare(t, []byte(tc.in), got, reference{limit: DefaultHeadBytes, answer: noUpgrade})
				}
			}
		})
	}
}

func compare(t *testing.T, in []byte, got outcome, want reference) {
	t.Helper()
	want.read(in)
	if want.refused {
		want.out = append(want.out, refusedHead...)
	}
	if got.requests != want.requests || (got.refusal != nil) != want.refused || got.end != want.end || !bytes.Equal(got.out, want.out) {
		t.Fatalf("%q:\n got %d requests, refusal %v, %s, %q\nwant %d requests, refusal %v, %s, %q", in,
			got.requests, got.refusal, got.end, got.out, want.requests, want.refused, want.end, want.out)
	}
}

// parse counts the requests that net/http sees.
func parse(t *testing.T, out []byte, broken bool) (n int, last *http.Request) {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(out))
	for {
		if _, err := r.Peek(1); err != nil {
			return n, last
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", out, err)
		}
		n, last = n+1, req
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			if !broken {
				t.Fatalf("net/http refuses a body of %q: %v", out, err)
			}
			return n, last
		}
	}
}

// Whatever arrives, and in whatever pieces, the outcome is that of the reference, and net/http sees the same requests.
func FuzzRead(f *testing.F) {
	for i, tc := range cases() {
		f.Add([]byte(tc.in), uint8(i), uint8(i/3), uint8(i))
	}
	websocket := get("Connection: upgrade", "Upgrade: websocket")
	for i := range 3 {
		f.Add([]byte(websocket+"\x81\x00"+smuggled), uint8(1), uint8(1), uint8(i))
	}
	f.Fuzz(func(t *testing.T, in []byte, pieces, slice, mode uint8) {
		limit := []int{DefaultHeadBytes, 64, 5000}[int(mode/3)%3]
		answer := upgrade(mode % 3)
		piece := func() int { pieces = pieces*5 + 1; return int(pieces) >> (mode & 7) }
		s := &script{in: in, piece: piece, pauses: mode&0x80 != 0}
		got := drain(t, s, Limits{limit}, int(slice)+1, answer)
		compare(t, in, got, reference{limit: limit, answer: answer})
		compare(t, in, drain(t, &script{in: in, piece: oneByOne}, Limits{limit}, 4096, answer), reference{limit: limit, answer: answer})
		if answer == gotUpgrade {
			return // what follows is not HTTP
		}
		n, last := parse(t, got.out, got.end != "EOF")
		if n != got.requests {
			t.Errorf("net/http sees %d requests in %q, want %d", n, got.out, got.requests)
		}
		if (got.refusal != nil) != (last != nil && last.Host == RefusedHost) {
			t.Errorf("refusal %v, but the last request of %q is to %v", got.refusal, got.out, last)
		}
	})
}

// What is too long is refused once the limit is reached, and nothing more is read.
func TestLimits(t *testing.T) {
	const limit = 200
	fill := func(n int, head string) string {
		return strings.Replace(head, "?", strings.Repeat("x", n-len(head)+1), 1)
	}
	for _, tc := range []struct {
		name, in string
		want     string
	}{
		{"head", fill(limit, get("X: ?")), "1 <nil> EOF"},
		{"longer head", fill(limit+1, get("X: ?")), "1 431 EOF"},
		{"request line without end, at the limit", ("GET /" + strings.Repeat("x", limit))[:limit], "1 431 EOF"},
		{"request line without end, below it", ("GET /" + strings.Repeat("x", limit))[:limit-1], "0 <nil> cut"},
		{"head after a stray line", chunked("0\r\n\r\n") + "\r\n" + fill(limit, get("X: ?")), "2 <nil> EOF"},
		{"request line without end", "GET /" + strings.Repeat("x", 1<<20), "1 431 EOF"},
		{"head without end", "GET / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 1<<18), "1 431 EOF"},
		{"chunk line", chunked(fill(limit, "1;?\r\n")) + "x\r\n0\r\n\r\n", "1 <nil> EOF"},
		{"longer chunk line", chunked(fill(limit+1, "1;?\r\n")) + "x\r\n0\r\n\r\n", "1 <nil> body"},
		{"trailer", chunked("0\r\n" + fill(limit, "X: ?\r\n\r\n")), "1 <nil> EOF"},
		{"longer trailer", chunked("0\r\n" + fill(limit+1, "X: ?\r\n\r\n")), "1 <nil> body"},
	} {
		for _, piece := range []func() int{whole, oneByOne} {
			s := &script{in: []byte(tc.in), piece: piece}
			got := drain(t, s, Limits{limit}, 4096, noUpgrade)
			status := "<nil>"
			if got.refusal != nil {
				status = fmt.Sprint(got.refusal.Status)
			}
			if text := fmt.Sprint(got.requests, " ", status, " ", got.end); text != tc.want {
				t.Errorf("%s: %s, want %s", tc.name, text, tc.want)
			}
			if read := len(tc.in) - len(s.in); read > limit+bufferBytes {
				t.Errorf("%s: %d bytes were read", tc.name, read)
			}
		}
	}
}

// A timeout at any place loses nothing.
func TestTimeouts(t *testing.T) {
	in := get() + chunked("5;x\r\nhello\r\n0\r\nX: y\r\n\r\n") + "\r\n" + req("POST / HTTP/1.1", "Host: a.test", "Content-Length: 5") + "hello"
	for _, piece := range []func() int{whole, oneByOne, threeEach} {
		got := drain(t, &script{in: []byte(in), piece: piece, pauses: true}, Limits{}, 4096, noUpgrade)
		compare(t, []byte(in), got, reference{limit: DefaultHeadBytes})
		if got.requests != 3 {
			t.Errorf("%d requests, want 3", got.requests)
		}
	}
}

// A stream that ends anywhere ends as the reference says: only between messages is that an end.
func TestEnds(t *testing.T) {
	in := get() + chunked("5;x\r\nhello\r\n0\r\nX: y\r\n\r\n") + "\r\n" + req("POST / HTTP/1.1", "Host: a.test", "Content-Length: 5") + "hello"
	clean := 0
	for n := range len(in) + 1 {
		got := drain(t, &script{in: []byte(in[:n]), piece: whole}, Limits{}, 4096, noUpgrade)
		compare(t, []byte(in[:n]), got, reference{limit: DefaultHeadBytes})
		if got.end == "EOF" {
			clean++
		}
	}
	if clean != 5 { // at the start, and behind each message and the empty line
		t.Errorf("%d clean ends, want 5", clean)
	}
}

// Each Read ends with a message at the latest: what follows is looked at when somebody wants it.
func TestReadStopsBehindMessage(t *testing.T) {
	c := NewConn(&script{in: []byte(get() + get("X : bad")), piece: whole}, Limits{})
	p := make([]byte, 4096)
	n, err := c.Read(p)
	if err != nil || string(p[:n]) != get() || c.requests != 1 {
		t.Fatalf("%q, %v after %d requests", p[:n], err, c.requests)
	}
	if n, err = c.Read(p[:1]); n != 1 || err != nil || c.Refusal(1) != nil || c.Refusal(2) == nil {
		t.Errorf("%d, %v, %v, %v; want the refusal of request 2", n, err, c.Refusal(1), c.Refusal(2))
	}
	if n, err = c.Read(nil); n != 0 || err != nil {
		t.Errorf("empty slice: %d, %v", n, err)
	}
}
