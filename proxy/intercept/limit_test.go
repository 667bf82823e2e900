package intercept

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

func TestAnswersOfOurOwn(t *testing.T) {
	up := newUpstream(t, nil)
	h := ir.HTTP{Allow: rules(t, "* a.test/*"), Deny: rules(t, "* a.test/secret/*", "DELETE */*")}
	h.Deny[0].Reason = "ask the owner"
	e := begin(t, settings{http: h})
	c := e.client(up.at, "a.test")
	for accept, isJSON := range map[string]bool{
		"": false, "*/*": true, "application/json": true, "application/*;q=0.5": true, "application/problem+json, text/plain;q=0.5": true,
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": false, "text/plain": false, "image/png": false,
		"text/html, application/json": true, "application/json;q=0": false,
	} {
		r := request(t, "GET", "http://a.test/secret/x?token=1", nil)
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		got := e.do(c, r)
		want := "Blocked by sandlock HTTP ACL policy: GET a.test/secret/x: ask the owner (* a.test/secret/*)\n"
		if isJSON {
			want = `{"error":"blocked by sandlock HTTP policy","status":403,"method":"GET","host":"a.test","path":"/secret/x",` +
				`"rule":"* a.test/secret/*","reason":"ask the owner"}` + "\n"
		}
		if got.StatusCode != 403 || got.text != want || got.Header.Get("Proxy-Status") != "sandlock; error=http_request_denied" || got.Close {
			t.Errorf("Accept %q: got %d %q %v", accept, got.StatusCode, got.text, got.Header)
		}
	}
	got := e.do(c, request(t, "HEAD", "http://a.test/secret/x", nil, "Accept", "*/*"))
	if got.StatusCode != 403 || got.text != "" || got.ContentLength <= 0 {
		t.Errorf("HEAD: got %d %q", got.StatusCode, got.text)
	}
	got = e.do(c, request(t, "DELETE", "http://a.test/x", strings.NewReader("body"), "Accept", "*/*"))
	var a answer
	if err := json.Unmarshal([]byte(got.text), &a); err != nil || a.Rule != "DELETE */*" || a.Reason == "" {
		t.Errorf("got %q, %v", got.text, err)
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.accepted > 0 {
		t.Error("the server was contacted")
	}
}

func TestRecords(t *testing.T) {
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "12345")
	})
	for _, redact := range []bool{false, true} {
		e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "POST a.test/*"), RedactQuery: redact}, log: true})
		c := e.client(up.at, "a.test")
		e.do(c, request(t, "POST", "http://a.test/a//b?q=1", strings.NewReader("123")))
		path := "/a//b?q=1"
		if redact {
			path = "/a//b"
		}
		m := e.record()
		m.Micros, m.Connection = 0, 0
		if want := (protocol.Access{
			Protocol: "http/1.1", Method: "POST", Authority: "a.test", Path: path, Status: 404, Rule: "POST a.test/*", Received: 3, Sent: 5,
			Upstream: netip.MustParseAddrPort(up.at),
		}); m != want {
			t.Errorf("got %+v, want %+v", m, want)
		}
		e.do(c, request(t, "GET", "http://a.test/"+strings.Repeat("x", 5000), nil))
		if m := e.record(); !m.Denied || m.Status != 403 || len(m.Path) != protocol.MaxPath || m.Upstream.IsValid() {
			t.Errorf("got %+v", m)
		}
	}
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "POST a.test/*")}})
	c := e.client(up.at, "a.test")
	e.do(c, request(t, "POST", "http://a.test/", nil))
	e.do(c, request(t, "GET", "http://a.test/", nil))
	if m := e.record(); m.Method != "GET" {
		t.Errorf("without a log: got %+v", m)
	}
}

func TestBodyLimit(t *testing.T) {
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "POST a.test/*"), Limits: ir.HTTPLimits{BodyBytes: 1000}}})
	for _, tc := range []struct {
		size    int
		chunked bool
		want    int
	}{{1000, false, 200}, {1001, false, 413}, {1000, true, 200}, {100_000, true, 413}} {
		var body io.Reader = bytes.NewReader(make([]byte, tc.size))
		if tc.chunked {
			body = io.MultiReader(body)
		}
		r := request(t, "POST", "http://a.test/", body)
		answer, err := e.client(up.at, "a.test").Do(r)
		if err != nil {
			t.Fatalf("%+v: %v", tc, err)
		}
		if answer.StatusCode != tc.want {
			t.Errorf("%+v: got %d", tc, answer.StatusCode)
		}
		answer.Body.Close()
	}
}

func TestConnectionLimit(t *testing.T) {
	up := newUpstream(t, nil)
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "GET a.test/*"), Limits: ir.HTTPLimits{Connections: 3}}})
	var open []*net.TCPConn
	for range 3 {
		conn := e.open(up.at, "a.test")
		open = append(open, conn)
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := e.open(up.at, "a.test").Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("a fourth connection was served")
	}
	if m := e.record(); !m.Denied || !strings.Contains(m.Reason, "too many connections") {
		t.Errorf("got %+v", m)
	}
	open[0].Close()
	e.wait("end", func() bool { return e.closed[1] })
	if got := e.do(e.client(up.at, "a.test"), request(t, "GET", "http://a.test/", nil)); got.StatusCode != 200 {
		t.Errorf("after one has ended: got %d", got.StatusCode)
	}
}

// Number 63: a head that does not come, a body that does not, and a connection that does nothing end by themselves.
func TestSlowClients(t *testing.T) {
	const slowBytes = 150 // which take longer than a connection may be idle
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			for range slowBytes {
				_, _ = io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		}
		_, _ = io.Copy(w, r.Body)
	})
	h := decrypting(t, "* a.test/*")
	h.Limits = ir.HTTPLimits{HeaderMS: 1000, IdleMS: 2000}
	opaque := rule(t, "* c.test/*")
	opaque.Opaque = true
	h.Allow = append(h.Allow, opaque)
	silentServer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silentServer.Close()
	e := begin(t, settings{http: h})
	open := map[string]net.Conn{}
	for name, text := range map[string]string{
		"nothing":        "",
		"half a line":    "GET / HT",
		"half a head":    "GET / HTTP/1.1\r\nHost: a.test\r\n",
		"half a hello":   "\x16\x03\x01\x02\x00",
		"half a body":    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n12345",
		"after a answer": "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"opaque":         string(clientHello(t, "c.test")),
	} {
		to := up.at
		if name == "opaque" {
			to = silentServer.Addr().String()
		}
		conn := e.open(to, "a.test", "c.test")
		_, _ = io.WriteString(conn, text)
		open[name] = conn
	}
	for name, conn := range open {
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: the connection is still open", name)
		}
	}
	// One in which something moves is not idle.
	got := e.do(e.client(up.at, "a.test"), request(t, "GET", "http://a.test/stream", nil))
	if len(got.text) != slowBytes {
		t.Errorf("got %d bytes of a slow answer", len(got.text))
	}
}

func TestManyIdleConnections(t *testing.T) {
	up := newUpstream(t, nil)
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "GET a.test/*"), Limits: ir.HTTPLimits{Connections: 2000}}})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 1000
	for range n {
		conn := e.open(up.at, "a.test")
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		if _, err := conn.Read(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)) / n
	t.Logf("%d KiB each", each>>10)
	if each > 64<<10 {
		t.Errorf("%d bytes for each idle connection", each)
	}
	if got := e.do(e.client(up.at, "a.test"), request(t, "GET", "http://a.test/", nil)); got.StatusCode != 200 {
		t.Errorf("got %d", got.StatusCode)
	}
}

// A connection to a server may take its time; the socket that the executor gives need not be connected yet.
func TestSlowServer(t *testing.T) {
	e := begin(t, settings{http: ir.HTTP{Allow: rules(t, "GET */*")}})
	// Nobody accepts, and the queue is full: connecting takes for ever. The client goes away.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, _ := unix.Getsockname(fd)
	to := fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	for range 3 {
		if conn, err := net.DialTimeout("tcp", to, 100*time.Millisecond); err == nil {
			defer conn.Close()
		}
	}
	conn := e.open(to)
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	e.wait("dial", func() bool { return e.dials == 1 })
	conn.Close()
	e.wait("end", func() bool { return e.closed[1] })
}

// The real program, confined.
func TestProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the helper")
	}
	program := filepath.Join(t.TempDir(), "sandlock-proxy")
	build := exec.Command("go", "build", "-o", program, "github.com/sandlock-go/sandlock/cmd/sandlock-proxy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	up, issuer := secureUpstream(t, webSocket)
	plain := newUpstream(t, nil)
	h := withAuth(decrypting(t, "GET a.test/*"), ir.HTTPAuth{Rule: rule(t, "GET a.test/x"), Scheme: ir.AuthBearer, Credential: "api"})
	opaque := rule(t, "* c.test/*")
	opaque.Opaque = true
	h.Allow = append(h.Allow, opaque)
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	var pid int
	e := begin(t, settings{
		http: h, log: true, secrets: map[string]string{"api": secretText, protocol.SecretUpstreamCA: issuer},
		start: func(end *os.File, ended chan<- error) {
			cmd := exec.Command(program, protocol.JobProxy)
			cmd.ExtraFiles, cmd.Stderr = []*os.File{end}, stderr
			err := cmd.Start()
			end.Close()
			if err != nil {
				ended <- err
				return
			}
			pid = cmd.Process.Pid
			go func() { ended <- cmd.Wait() }()
		},
	})
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !strings.Contains(string(status), "Seccomp:\t2") || !strings.Contains(string(status), "NoNewPrivs:\t1") {
		t.Errorf("the program is not confined: %v %s", err, status)
	}
	for _, tc := range []struct {
		to, url string
		want    int
	}{{up.at, "https://a.test/no", 200}, {plain.at, "http://a.test/", 200}, {up.at, "https://a.test/x", 200}, {plain.at, "http://a.test/x", 403}} {
		if got := e.do(e.client(tc.to, "a.test"), request(t, "GET", tc.url, nil)); got.StatusCode != tc.want {
			t.Errorf("%s: got %d %q", tc.url, got.StatusCode, got.text)
		}
	}
	// Bytes that are passed on as they are: splice(2) and its pipes.
	for range 4 {
		e.record()
	}
	passesOn(t, e, e.open(counter(t), "c.test"), "c.test")
	socket := e.open(newUpstream(t, webSocket).at, "a.test")
	_, _ = io.WriteString(socket, "GET /chat"+askWebSocket)
	if answer, err := http.ReadResponse(bufio.NewReader(socket), nil); err != nil || answer.StatusCode != 101 {
		t.Errorf("got %v, %v", answer, err)
	}
	if b, err := os.ReadFile(stderr.Name()); err != nil || len(b) > 0 {
		t.Errorf("it said %q, %v", b, err)
	}
}
