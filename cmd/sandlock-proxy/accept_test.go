package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// The tests in accept_*_test.go see HTTP rules as users, attackers and servers do: real sandboxes, real clients in them, and
// servers in the test process. Their names carry the numbers of the acceptance lists: network_6_5_N is behaviour, escape_NN
// is an attack that must fail.

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == goClientArg {
		os.Exit(goClient(os.Args[2:]))
	}
	exectest.Main(m)
}

// authority certifies the servers of this test process.
var authority = sync.OnceValues(func() (*issuer, error) { return newIssuer("test authority") })

// issuer makes certificates.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

func newIssuer(name string) (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return &issuer{cert: cert, key: key, pem: text, leaves: map[string]*tls.Certificate{}}, nil
}

// keyPEM is the issuer's private key.
func (i *issuer) keyPEM(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// leaf is a certificate for whatever name a client asks for.
func (i *issuer) leaf(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := hello.ServerName
	i.mu.Lock()
	defer i.mu.Unlock()
	if c, ok := i.leaves[name]; ok {
		return c, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(i.leaves) + 2)), Subject: pkix.Name{CommonName: "server"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if name == "" {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, &key.PublicKey, i.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	i.leaves[name] = c
	return c, nil
}

// seen is a request as the server got it.
type seen struct {
	Proto, Method, URI, Host, SNI, Body string
	Header, Trailer                     http.Header
}

// upstream is a server outside, in clear and with TLS.
type upstream struct {
	plain, secure string // ports
	mu            sync.Mutex
	requests      []seen
	connections   int
}

// serve starts an upstream. Without a handler it answers "ok".
func serve(t *testing.T, handler http.HandlerFunc) *upstream {
	t.Helper()
	return serveAt(t, "127.0.0.1", handler)
}

func serveAt(t *testing.T, host string, handler http.HandlerFunc) *upstream {
	t.Helper()
	u := &upstream{}
	ca, err := authority()
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	server := &http.Server{
		Protocols: &protocols, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{GetCertificate: ca.leaf, NextProtos: []string{"h2", "http/1.1"}},
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				u.mu.Lock()
				u.connections++
				u.mu.Unlock()
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			one := seen{Proto: r.Proto, Method: r.Method, URI: r.RequestURI, Host: r.Host, Header: r.Header.Clone()}
			if r.TLS != nil {
				one.SNI = r.TLS.ServerName
			}
			if handler == nil {
				b, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
				one.Body, one.Trailer = string(b), r.Trailer.Clone()
			}
			u.mu.Lock()
			u.requests = append(u.requests, one)
			u.mu.Unlock()
			if handler == nil {
				_, _ = io.WriteString(w, "ok")
				return
			}
			handler(w, r)
		}),
	}
	plain, secure := listen(t, host), listen(t, host)
	u.plain, u.secure = port(plain), port(secure)
	go func() { _ = server.Serve(plain) }()
	go func() { _ = server.ServeTLS(secure, "", "") }()
	t.Cleanup(func() { server.Close() })
	return u
}

func listen(t *testing.T, host string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func port(l net.Listener) string {
	_, p, _ := net.SplitHostPort(l.Addr().String())
	return p
}

// serveRaw answers each connection by a function.
func serveRaw(t *testing.T, serve func(net.Conn)) (at string) {
	t.Helper()
	l := listen(t, "127.0.0.1")
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return port(l)
}

// take returns the requests since the last call.
func (u *upstream) take() []seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := u.requests
	u.requests = nil
	return list
}

// uris returns what the server was asked for since the last call, sorted.
func (u *upstream) uris() []string {
	var list []string
	for _, r := range u.take() {
		list = append(list, r.Method+" "+r.URI)
	}
	slices.Sort(list)
	return list
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.requests)
}

// place is the setting of a test.
type place struct {
	*exectest.Box
	t        *testing.T
	upstream string   // file of the authority of the servers
	out      string   // where ca_out goes
	reads    []string // what policies grant besides
}

func newPlace(t *testing.T, u exectest.User) *place {
	t.Helper()
	exectest.Helper(t)
	ca, err := authority()
	if err != nil {
		t.Fatal(err)
	}
	b := exectest.NewBox(t, u)
	p := &place{Box: b, t: t, out: b.Dir("given") + "/ca.pem"}
	p.upstream = b.File(b.Dir("settings")+"/servers.pem", ca.pem)
	return p
}

// asUsers runs a test as root and as an ordinary user, beside others.
func asUsers(t *testing.T, test func(t *testing.T, p *place)) {
	t.Helper()
	t.Parallel()
	exectest.AsUsers(t, func(t *testing.T, u exectest.User) {
		t.Parallel()
		test(t, newPlace(t, u))
	})
}

// asOne runs a test as an ordinary user, beside others: where privileges do not matter.
func asOne(t *testing.T, test func(t *testing.T, p *place)) {
	t.Helper()
	t.Parallel()
	test(t, newPlace(t, exectest.Ordinary()))
}

const bundleFile = "/etc/ssl/certs/ca-certificates.crt"

// policy compiles a policy: http is what stands in it, "$TLS" in it for an authority that the sandbox trusts, and network,
// where not empty, likewise.
func (p *place) policy(network, rules string, more ...string) string {
	p.t.Helper()
	rules = strings.ReplaceAll(rules, "$TLS", fmt.Sprintf("inject_ca: [%q]\nca_out: %q\nupstream_ca: %q", bundleFile, p.out, p.upstream))
	text := fmt.Sprintf("filesystem: proc: \"host\"\nhttp: {\n%s\n}\n%s\n", rules, strings.Join(more, "\n"))
	if network != "" {
		text += "network: {\n" + network + "\n}\n"
	}
	return p.Policy(p.Base(exectest.Grants{Read: append(p.reads, filepath.Dir(p.out), "/proc"), Write: []string{"/dev/null"}, More: text}))
}

// python runs a script in the sandbox, with the words of the prelude, and returns what it prints.
func (p *place) python(policy, script string, args ...string) string {
	p.t.Helper()
	r := p.start(policy, script, args...).Wait(p.t)
	if r.Code != 0 {
		p.t.Errorf("the script: exit %d\nstdout: %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

func (p *place) opts(policy, script string, args ...string) exectest.Opts {
	p.t.Helper()
	return p.Opts(policy, append([]string{python(p.t), "-c", prelude + script}, args...)...)
}

func (p *place) start(policy, script string, args ...string) *exectest.Process {
	p.t.Helper()
	return exectest.Start(p.t, p.opts(policy, script, args...))
}

// python needs the system's Python: a version manager's lies outside policy B.
func python(t *testing.T) string {
	t.Helper()
	return exectest.Program(t, "/usr/bin/python3")
}

// prelude are the words that scripts are written in.
const prelude = `
import errno, http.client, io, json, os, re, socket, ssl, struct, sys, threading, time
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
class Kept(io.BufferedReader):
    def close(self): pass
class Over:
    def __init__(self, f): self.f = f
    def makefile(self, *a): return self.f
def reader(s): return Kept(s.makefile("rb", buffering=0))
def one(f, method="GET"):
    r = http.client.HTTPResponse(Over(f), method=method)
    r.begin()
    if r.status == 101: return r, b""
    return r, r.read()
def context(alpn=None, strict=False):
    c = ssl.create_default_context(cafile=BUNDLE)
    if alpn: c.set_alpn_protocols(alpn)
    if strict: c.verify_flags |= ssl.VERIFY_X509_STRICT
    return c
def reach(port, host="127.0.0.1", tls=None, alpn=None, timeout=20):
    s = socket.create_connection((host, int(port)), timeout=timeout)
    return context(alpn).wrap_socket(s, server_hostname=tls) if tls else s
def raw(data, port, host="127.0.0.1", tls=None):
    "sends bytes and returns the statuses and bodies until the end"
    got = []
    with reach(port, host, tls) as s:
        try: s.sendall(data.encode("latin-1"))
        except OSError: pass
        f = reader(s)
        try:
            while True:
                r, body = one(f, data.split(" ", 1)[0])
                got.append([r.status, dict(r.getheaders()), body.decode("latin-1")])
        except (http.client.HTTPException, OSError, ValueError): pass
    return got
def get(target, host, port, tls=None, method="GET", headers=(), to="127.0.0.1"):
    text = "%s %s HTTP/1.1\r\nHost: %s\r\n%sConnection: close\r\n\r\n" % (method, target, host, "".join(h + "\r\n" for h in headers))
    got = raw(text, port, to, tls)
    return got[0] if got else [0, {}, ""]
def attempt(what, f):
    try: print(what, f(), flush=True)
    except ssl.SSLError as e: print(what, e.reason, flush=True)
    except OSError as e: print(what, errno.errorcode.get(e.errno, e) if e.errno else type(e).__name__, flush=True)
`

// wire is what a client sends, and what becomes of it.
type wire struct {
	Name   string `json:"name"`
	Send   string `json:"send"`
	Port   string `json:"port"`
	Host   string `json:"host,omitempty"` // address
	TLS    string `json:"tls,omitempty"`  // name of the server
	want   []int  // statuses of all answers
	passes bool   // the first request comes to the server
}

// answer is what the client gets.
type answer struct {
	Status int
	Header map[string]string
	Body   string
}

func (a *answer) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&a.Status, &a.Header, &a.Body})
}

// send has all of a table sent from one sandbox, several connections at a time, and returns the answers.
func (p *place) send(policy string, table []wire) [][]answer {
	p.t.Helper()
	for i := range table {
		table[i].Send = strings.ReplaceAll(table[i].Send, "$CASE", fmt.Sprintf("X-Case: %d", i))
	}
	in, err := json.Marshal(latin1(table))
	if err != nil {
		p.t.Fatal(err)
	}
	o := p.opts(policy, `
from concurrent.futures import ThreadPoolExecutor
def case(c):
    try: return raw(c["send"], c["port"], c.get("host", "127.0.0.1"), c.get("tls"))
    except OSError as e: return [[0, {}, errno.errorcode.get(e.errno, str(e))]]
with ThreadPoolExecutor(8) as pool: json.dump(list(pool.map(case, json.load(sys.stdin))), sys.stdout)
`)
	o.Stdin = string(in)
	r := exectest.Run(p.t, o)
	var out [][]answer
	if err := json.Unmarshal([]byte(r.Stdout), &out); err != nil || r.Code != 0 || len(out) != len(table) {
		p.t.Fatalf("exit %d: %v\nstdout: %s\nstderr: %s", r.Code, err, r.Stdout, r.Stderr)
	}
	return out
}

// check sends a table, and compares statuses, and what came to the server: each case is told by its header X-Case, which
// "$CASE" stands for, and none of them by anything that asks for /smuggled.
func (p *place) check(policy string, up *upstream, table []wire) {
	p.t.Helper()
	up.take()
	out := p.send(policy, table)
	came := map[string]int{}
	for _, r := range up.take() {
		came[r.Header.Get("X-Case")]++
		if strings.Contains(r.URI, "smuggled") || strings.Contains(r.Body, "GET /smuggled") {
			p.t.Errorf("to the server came %s %s, body %q", r.Method, r.URI, r.Body)
		}
	}
	for i, c := range table {
		if got := statuses(out[i]); !slices.Equal(got, c.want) {
			p.t.Errorf("%s: statuses %v, want %v\n%+v", c.Name, got, c.want, out[i])
		}
		if strings.Contains(c.Send, "X-Case") && (came[fmt.Sprint(i)] > 0) != c.passes {
			p.t.Errorf("%s: came to the server: %t, want %t", c.Name, !c.passes, c.passes)
		}
	}
}

func statuses(list []answer) []int {
	var all []int
	for _, a := range list {
		all = append(all, a.Status)
	}
	return all
}

// request is one request of HTTP/1.1, the last of its connection.
func request(line, host string, fields ...string) string {
	return line + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(append(fields, "$CASE", "Connection: close"), "\r\n") + "\r\n\r\n"
}

// wantOutput compares lines.
func wantOutput(t *testing.T, got, want string) {
	t.Helper()
	if g, w := strings.TrimSpace(got), strings.TrimSpace(want); g != w {
		t.Errorf("got:\n%s\nwant:\n%s", g, w)
	}
}

// in is the same place for a subtest.
func (p *place) in(t *testing.T) *place {
	sub := *p
	sub.Box, sub.t = p.In(t), t
	return &sub
}

// latin1 has each byte of what is sent stand as a character of its own.
func latin1(table []wire) []wire {
	list := slices.Clone(table)
	for i := range list {
		var text strings.Builder
		for _, b := range []byte(list[i].Send) {
			text.WriteRune(rune(b))
		}
		list[i].Send = text.String()
	}
	return list
}
