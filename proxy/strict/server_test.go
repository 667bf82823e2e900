package strict

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

type key struct{}

// observed is a connection as a handler sees it: it counts, and asks for the refusal before anything else.
type observed struct {
	*Conn
	mu   sync.Mutex
	n    int
	seen []string // "METHOD target body", "STATUS reason", or the error of a body
	once sync.Once
	done chan struct{}
}

func (o *observed) Close() error {
	defer o.once.Do(func() { close(o.done) })
	return o.Conn.Close()
}

func (o *observed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.n++
	if refusal := o.Refusal(o.n); refusal != nil {
		o.seen = append(o.seen, fmt.Sprint(refusal.Status, " ", refusal.Reason))
		http.Error(w, refusal.Reason, refusal.Status)
		return
	}
	if r.Host == RefusedHost {
		o.seen = append(o.seen, "a refused request without refusal")
	}
	if r.URL.Path == "/upgrade" {
		o.upgrade(w)
		return
	}
	o.NotUpgraded()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		o.seen = append(o.seen, fmt.Sprint("error: ", err))
		http.Error(w, err.Error(), 400)
		return
	}
	o.seen = append(o.seen, fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, body))
	fmt.Fprintf(w, "ok\n")
}

// upgrade echoes what comes.
func (o *observed) upgrade(w http.ResponseWriter) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		o.seen = append(o.seen, fmt.Sprint("hijack: ", err))
		return
	}
	defer conn.Close()
	o.seen = append(o.seen, "upgrade")
	o.Upgraded()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
	_, _ = io.Copy(conn, rw)
}

type listener struct {
	net.Listener
	limits Limits
	conns  chan *observed
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	o := &observed{Conn: NewConn(c, l.limits), done: make(chan struct{})}
	l.conns <- o
	return o, nil
}

// serve starts a server of net/http; dial connects to it, and gives what its handler sees.
func serve(t testing.TB) (dial func() (*net.TCPConn, *observed)) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{tcp, Limits{}, make(chan *observed, 1)}
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Context().Value(key{}).(*observed).ServeHTTP(w, r)
		}),
		ConnContext:                  func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, key{}, c) },
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(io.Discard, "", 0),
		IdleTimeout:                  time.Minute,
		ReadHeaderTimeout:            time.Minute,
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return func() (*net.TCPConn, *observed) {
		c, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return c.(*net.TCPConn), <-l.conns
	}
}

// Behind a server of net/http, the handler sees the good requests, at most one refused one, and never what hides in them.
func TestServer(t *testing.T) {
	dial := serve(t)
	for _, tc := range cases() {
		t.Run(tc.name, func(t *testing.T) {
			c, o := dial()
			if _, err := io.WriteString(c, tc.in); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			answers, err := io.ReadAll(c)
			if err != nil {
				t.Fatalf("read the answers: %v, after %q", err, answers)
			}
			<-o.done
			good := o.seen
			if tc.status != 0 {
				want := fmt.Sprint(tc.status, " ", tc.reason)
				if len(good) == 0 || good[len(good)-1] != want {
					t.Fatalf("seen %q, want %q at last", good, want)
				}
				if !bytes.Contains(answers, fmt.Appendf(nil, "HTTP/1.1 %d ", tc.status)) || !bytes.HasSuffix(answers, []byte(tc.reason+"\n")) {
					t.Errorf("answers %q, want %s", answers, want)
				}
				good = good[:len(good)-1]
			}
			if len(good) != tc.good || slices.ContainsFunc(good, func(s string) bool { return strings.HasPrefix(s, "GET /smuggled") || strings.HasPrefix(s, "a") }) {
				t.Errorf("seen %q, want %d good requests", o.seen, tc.good)
			}
			if broken := o.Broken(); tc.status == 0 && tc.reason != "" &&
				(!strings.HasPrefix(good[len(good)-1], "error: ") || fmt.Sprint(broken) != ErrBody.Error()+": "+tc.reason) {
				t.Errorf("seen %q, %v, want the error %q", o.seen, broken, tc.reason)
			}
		})
	}
}

// A large head that is refused in its middle: the answer arrives although much of the head is never read.
func TestRefusalArrives(t *testing.T) {
	dial := serve(t)
	for range 20 {
		c, _ := dial()
		go io.WriteString(c, "GET / HTTP/1.1\r\nX: "+strings.Repeat("x", 200<<10)+"\r\n\r\n")
		answer, err := io.ReadAll(c)
		if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 431 ")) {
			t.Fatalf("%q, %v", answer, err)
		}
	}
}

// stuck is a connection that never ends by itself.
type stuck struct {
	script
	closed chan struct{}
}

func (s *stuck) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		<-s.closed
	}
	return s.script.Read(p)
}

func (s *stuck) CloseWrite() error               { return nil }
func (s *stuck) SetReadDeadline(time.Time) error { return nil }
func (s *stuck) Close() error                    { close(s.closed); return nil }

// Whoever closes a connection while another one waits for its client need not wait.
func TestCloseWhileCloseWaits(t *testing.T) {
	s := &stuck{script{in: []byte("\r\n"), piece: whole}, make(chan struct{})}
	c := NewConn(s, Limits{})
	if _, err := c.Read(make([]byte, 1)); err != nil || c.Refusal(1) == nil {
		t.Fatal(err, c.Refusal(1))
	}
	c.mu.Lock()
	c.closed = true // the first one has come as far as to wait
	c.mu.Unlock()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestUpgrade(t *testing.T) {
	const ask = "Connection: upgrade\r\nUpgrade: echo"
	dial := serve(t)
	t.Run("granted", func(t *testing.T) {
		c, o := dial()
		r := bufio.NewReader(c)
		io.WriteString(c, req("GET /upgrade HTTP/1.1", "Host: a.test", ask))
		response, err := http.ReadResponse(r, nil)
		if err != nil || response.StatusCode != 101 {
			t.Fatal(response, err)
		}
		for range 3 {
			const raw = "\x00\n\r\n GET X \xff" + smuggled
			io.WriteString(c, raw)
			echo := make([]byte, len(raw))
			if _, err := io.ReadFull(r, echo); err != nil || string(echo) != raw {
				t.Fatalf("echo %q, %v", echo, err)
			}
		}
		c.Close()
		<-o.done
		if len(o.seen) != 1 || o.Refusal(1) != nil {
			t.Errorf("seen %q", o.seen)
		}
	})
	t.Run("not granted", func(t *testing.T) {
		c, o := dial()
		r := bufio.NewReader(c)
		for i := range 3 {
			io.WriteString(c, req(fmt.Sprintf("POST /%d HTTP/1.1", i), "Host: a.test", ask, "Content-Length: 3")+"abc")
			response, err := http.ReadResponse(r, nil)
			if err != nil || response.StatusCode != 200 {
				t.Fatal(response, err)
			}
			io.Copy(io.Discard, response.Body)
		}
		c.Close()
		<-o.done
		if len(o.seen) != 3 {
			t.Errorf("seen %q", o.seen)
		}
	})
	t.Run("not waited for", func(t *testing.T) {
		got := drain(t, &script{in: []byte(get(ask) + smuggled), piece: whole}, Limits{}, 4096, askedUpgrade)
		if got.err != ErrEarly || got.requests != 1 || string(got.out) != get(ask) {
			t.Errorf("%d requests, %v, %q", got.requests, got.err, got.out)
		}
	})
	t.Run("not asked for", func(t *testing.T) {
		got := drain(t, &script{in: []byte(get("Connection: upgrade") + "\x00\r\n"), piece: whole}, Limits{}, 4096, gotUpgrade)
		if got.refusal == nil || got.requests != 2 {
			t.Errorf("%d requests, %v, %q", got.requests, got.err, got.out)
		}
	})
	t.Run("end while waiting", func(t *testing.T) {
		got := drain(t, &script{in: []byte(get(ask)), piece: whole}, Limits{}, 4096, askedUpgrade)
		if got.err != io.EOF {
			t.Error(got.err)
		}
	})
}

// The answer comes while Read waits for what follows.
func TestAnswerWhileReadWaits(t *testing.T) {
	ask := get("Connection: upgrade", "Upgrade: echo")
	for _, tc := range []struct {
		answer func(*Conn)
		then   string
	}{
		{(*Conn).Upgraded, "\x00\xff"},
		{(*Conn).NotUpgraded, get()},
	} {
		client, server := net.Pipe()
		c := NewConn(server, Limits{})
		go io.WriteString(client, ask)
		p := make([]byte, 4096)
		if n, err := c.Read(p); err != nil || string(p[:n]) != ask {
			t.Fatalf("%q, %v", p[:n], err)
		}
		// As net/http does: a read in the background, which it ends by a deadline.
		for range 2 {
			timeout := make(chan error)
			go func() {
				_, err := c.Read(p[:1])
				timeout <- err
			}()
			time.Sleep(time.Millisecond)
			if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			err := <-timeout
			if netErr, ok := err.(net.Error); !ok || !netErr.Timeout() {
				t.Fatalf("%v, want a timeout", err)
			}
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		read := make(chan string)
		go func() {
			n, err := c.Read(p)
			read <- fmt.Sprint(string(p[:n]), err)
		}()
		time.Sleep(time.Millisecond)
		tc.answer(c)
		io.WriteString(client, tc.then)
		if got := <-read; got != tc.then+"<nil>" {
			t.Errorf("%q, want %q", got, tc.then)
		}
		client.Close()
		c.Close()
	}
}
