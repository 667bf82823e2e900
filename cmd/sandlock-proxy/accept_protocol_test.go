package main_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

func Test_http_protocols_HTTP1(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			if r.URL.Path == "/trailers" {
				w.Header().Set("Trailer", "X-Sum")
				fmt.Fprintf(w, "%s %d", body, r.ContentLength)
				w.(http.Flusher).Flush()
				w.Header().Set("X-Sum", fmt.Sprintf("%s of %s", r.Trailer.Get("X-Mine"), r.Header.Get("X-Head")))
				w.Header().Set(http.TrailerPrefix+"X-Late", "late")
				return
			}
			fmt.Fprintf(w, "%s %q %d", r.Proto, body, r.ContentLength)
		})
		policy := p.policy(hosts, fmt.Sprintf("$TLS\nports: [%s, %s]\nallow: [\"* api.test/*\"], deny: [\"* */denied\"]", up.plain, up.secure))
		wantOutput(t, p.python(policy, `
plain, secure = sys.argv[1:]
print("1.0:", [(a[0], a[2]) for a in raw("GET / HTTP/1.0\r\nHost: api.test\r\n\r\n", plain)])
print("1.0 keep-alive:", [a[0] for a in raw("GET / HTTP/1.0\r\nHost: api.test\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\nHost: api.test\r\n\r\n", plain)])
for to, tls in ((plain, None), (secure, "api.test")):
    s = reach(to, tls=tls); f = reader(s)
    def ask(text):
        s.sendall(text.encode())
        r, body = one(f)
        return r.status, body.decode()
    print("keep-alive:", [ask("GET /%d HTTP/1.1\r\nHost: api.test\r\n\r\n" % i)[0] for i in range(50)] == [200] * 50)
    s.sendall(b"GET /1 HTTP/1.1\r\nHost: api.test\r\n\r\n" * 20); print("pipelined:", [one(f)[0].status for _ in range(20)] == [200] * 20)
    print("denied, and on:", ask("POST /denied HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nhello")[0], ask("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")[0])
    print("length:", *ask("POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nhello"))
    print("chunked:", *ask("POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n \r\n00005\r\nworld\r\n0\r\n\r\n"))
    s.sendall(b"POST /trailers HTTP/1.1\r\nHost: api.test\r\nTE: trailers\r\nX-Head: head\r\nTrailer: X-Mine\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Mine: mine\r\n\r\n")
    text = b""
    while b"X-Late" not in text or not text.endswith(b"\r\n\r\n"):
        more = s.recv(4096)
        if not more: break
        text += more
    head, _, body = text.partition(b"\r\n\r\n")
    print("trailers:", b"Trailer: X-Sum" in head, sorted(body.decode().split("\r\n")))
    s.sendall(b"POST / HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    print("interim:", f.readline(), f.readline())
    print("continued:", *ask("hello"))
    s.sendall(b"POST /denied HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    print("denied at once:", one(f)[0].status)
`, up.plain, up.secure), `1.0: [(200, 'HTTP/1.1 "" 0')]
1.0 keep-alive: [200, 200]
`+strings.Repeat(protocolsOver, 2))
	})
}

// protocolsOver is what is seen in clear and over TLS: clients of HTTP/1 have servers of HTTP/1.
const protocolsOver = `keep-alive: True
pipelined: True
denied, and on: 403 200
length: 200 HTTP/1.1 "hello" 5
chunked: 200 HTTP/1.1 "hello world" -1
trailers: True ['', '', '0', '5', 'X-Late: late', 'X-Sum: mine of head', 'hi -1']
interim: b'HTTP/1.1 100 Continue\r\n' b'\r\n'
continued: 200 HTTP/1.1 "hello" 5
denied at once: 403
`

// Events arrive one by one, whatever the protocol: the server sends the next one when the client has the last.
func Test_http_protocols_events(t *testing.T) {
	asOne(t, func(t *testing.T, p *place) {
		var heard atomic.Int64
		up := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/heard" {
				heard.Add(1)
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 5 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				w.(http.Flusher).Flush()
				for end := time.Now().Add(10 * time.Second); heard.Load() <= int64(i); time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						fmt.Fprint(w, "data: nobody has heard\n\n")
						return
					}
				}
			}
		})
		policy := p.policy(hosts, fmt.Sprintf("$TLS\nports: [%s, %s]\nallow: [\"* api.test/*\"]", up.plain, up.secure))
		for _, args := range []string{"http://api.test:" + up.plain, "--http1.1 https://api.test:" + up.secure, "--http2 https://api.test:" + up.secure} {
			heard.Store(0)
			wantOutput(t, p.python(policy, `
import subprocess
with subprocess.Popen(["/usr/bin/curl", "-sSN", *(sys.argv[1] + "/events").split()], stdout=subprocess.PIPE) as c:
    for line in c.stdout:
        if line.strip():
            print(line.decode().strip(), end=" ", flush=True)
            get("/heard", "api.test", sys.argv[2])
`, args, up.plain), "data: 0 data: 1 data: 2 data: 3 data: 4")
		}
	})
}

// webSocket answers the handshake (RFC 6455 §4.2), and sends back each message, turned round if it is text.
func webSocket(w http.ResponseWriter, r *http.Request) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	defer conn.Close()
	fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	for buffered.Flush() == nil {
		opcode, payload, err := readFrame(buffered.Reader)
		if err != nil {
			return
		}
		if opcode == 1 {
			payload = []byte(turned(string(payload)))
		}
		writeFrame(buffered.Writer, opcode, payload)
		if opcode == 8 {
			_ = buffered.Flush()
			return
		}
	}
}

func readFrame(r *bufio.Reader) (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1] & 0x7f)
	switch n {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(r, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(r, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	var mask [4]byte
	if err == nil {
		_, err = io.ReadFull(r, mask[:])
	}
	if err != nil || n > 64<<20 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0] & 0xf, payload, err
}

func writeFrame(w *bufio.Writer, opcode byte, payload []byte) {
	head := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		head = append(head, byte(n))
	case n < 1<<16:
		head = binary.BigEndian.AppendUint16(append(head, 126), uint16(n))
	default:
		head = binary.BigEndian.AppendUint64(append(head, 127), uint64(n))
	}
	_, _ = w.Write(head)
	_, _ = w.Write(payload)
}

func Test_http_protocols_websocket(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/plain" {
				fmt.Fprint(w, "no")
				return
			}
			webSocket(w, r)
		})
		policy := p.policy(hosts, fmt.Sprintf("$TLS\nports: [%s, %s]\nallow: [\"GET api.test/ws\", \"GET api.test/plain\"]", up.plain, up.secure))
		got := p.python(policy, `
plain, secure = sys.argv[1:]
HAND = "GET %s HTTP/1.1\r\nHost: api.test\r\nUpgrade: %s\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
def frame(op, b):
    n = len(b)
    head = bytes([0x80 | op, 0x80 | n]) if n < 126 else bytes([0x80 | op, 0xfe]) + struct.pack(">H", n) if n < 65536 else bytes([0x80 | op, 0xff]) + struct.pack(">Q", n)
    return head + b"\0\0\0\0" + b
def message(f):
    op, n = f.read(2)
    if n == 126: n = struct.unpack(">H", f.read(2))[0]
    elif n == 127: n = struct.unpack(">Q", f.read(8))[0]
    return op & 15, f.read(n)
for to, tls in ((plain, None), (secure, "api.test")):
    s = reach(to, tls=tls); f = reader(s)
    s.sendall((HAND % ("/ws", "websocket")).encode())
    r, _ = one(f)
    print(r.status, r.getheader("Sec-WebSocket-Accept"))
    for text in (b"hello", b"GET /denied HTTP/1.1\r\n\r\n", b"x" * 300 + b"y"):
        s.sendall(frame(1, text)); print(message(f) == (1, text[::-1]))
    large = os.urandom(8 << 20)
    def write(): s.sendall(frame(2, large))
    t = threading.Thread(target=write); t.start()
    print("large:", message(f) == (2, large)); t.join()
    s.sendall(frame(8, b"\x03\xe8")); print("closed:", message(f), f.read(1))
    # Whether what follows is a request or a frame the client must wait to hear (RFC 6455 section 4.1).
    print("early:", raw((HAND % ("/ws", "websocket")) + frame(1, b"early").decode("latin-1"), to, tls=tls))
    print("denied:", raw(HAND % ("/denied", "WebSocket") + "GET /denied HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n", to, tls=tls)[0][0])
    print("another protocol:", raw(HAND % ("/plain", "tcp") + "GET /plain HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n", to, tls=tls)[0][0])
`, up.plain, up.secure)
		half := "101 s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\nTrue\nTrue\nTrue\nlarge: True\nclosed: (8, b'\\x03\\xe8') b''\nearly: []\ndenied: 403\nanother protocol: 200\n"
		wantOutput(t, got, half+half)

		node := exectest.Program(t, "/usr/bin/node")
		o := p.Opts(policy, node, "--experimental-websocket", "-e", `
const [base] = process.argv.slice(1);
const ws = new WebSocket(base + "/ws");
ws.binaryType = "arraybuffer";
ws.onopen = () => ws.send("hello");
ws.onmessage = e => {
    if (typeof e.data === "string") { console.log(e.data); ws.send(new Uint8Array(1 << 20).fill(7)); }
    else { console.log(e.data.byteLength, new Uint8Array(e.data).every(b => b === 7)); ws.close(1000); }
};
ws.onclose = e => console.log("closed", e.code);
ws.onerror = e => { console.log("error", e.message); process.exit(1); };`, "wss://api.test:"+up.secure)
		o.Env = append(o.Env, "NODE_EXTRA_CA_CERTS="+p.out)
		r := exectest.Run(t, o)
		wantOutput(t, r.Stdout, "olleh\n1048576 true\nclosed 1000")
		for _, s := range up.take() {
			if s.URI != "/ws" && s.URI != "/plain" {
				t.Errorf("to the server came %s", s.URI)
			}
		}
	})
}

// QUIC has no way past the proxy: datagrams to an intercepted port are refused, whatever else the policy allows.
func Test_http_protocols_QUIC(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		l, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		at := netip.MustParseAddrPort(l.LocalAddr().String())
		policy := p.policy(fmt.Sprintf(`allow: ["127.0.0.1:%d", "udp://127.0.0.1:%d"]`, at.Port(), at.Port()), fmt.Sprintf(`ports: [%d], allow: ["GET 127.0.0.1/*"]`, at.Port()))
		send := `
import errno, os, socket, sys
to = ("127.0.0.1", int(sys.argv[1]))
def send(f):
    with socket.socket(type=socket.SOCK_DGRAM) as s:
        try: return f(s)
        except OSError as e: return errno.errorcode[e.errno]
def connected(s):
    s.connect(to)
    return s.send(b"quic")
print(send(lambda s: s.sendto(b"quic", to)), send(connected), send(lambda s: s.sendmsg([b"quic"], [], 0, to)))
`
		wantOutput(t, p.python(policy, send, fmt.Sprint(at.Port())), "ECONNREFUSED ECONNREFUSED ECONNREFUSED")
		if err := l.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, _, err := l.ReadFrom(make([]byte, 10)); err == nil {
			t.Errorf("%d bytes have arrived", n)
		}
		// The control: the same port without interception.
		open := p.Policy(p.Base(exectest.Grants{More: fmt.Sprintf(`network: allow: ["udp://127.0.0.1:%d"]`, at.Port())}))
		wantOutput(t, p.python(open, send, fmt.Sprint(at.Port())), "4 4 4")
	})
}
