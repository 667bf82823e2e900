package intercept

import (
	"bytes"
	"crypto/ecdh"
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
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

func decrypting(t testing.TB, allow ...string) ir.HTTP {
	return ir.HTTP{Allow: rules(t, allow...), Authority: ir.AuthorityEphemeral}
}

// Number 60: a client that trusts the authority, and requests over HTTP/1 and HTTP/2. The server gets what the client speaks.
func TestDecrypts(t *testing.T) {
	up, issuer := secureUpstream(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, " ", r.Host) })
	e := begin(t, settings{http: decrypting(t, "GET a.test/allowed", "GET 127.0.0.1/*"), secrets: map[string]string{protocol.SecretUpstreamCA: issuer}, log: true})
	for _, http2 := range []bool{true, false} {
		c := e.client(up.at, "a.test")
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = http2
		got := e.do(c, request(t, "GET", "https://a.test/allowed", nil))
		if got.StatusCode != 200 || got.text != got.Proto+" a.test" || http2 != (got.ProtoMajor == 2) {
			t.Errorf("got %d %q over %s", got.StatusCode, got.text, got.Proto)
		}
		before := up.count()
		got = e.do(c, request(t, "GET", "https://a.test/secret", nil))
		if got.StatusCode != 403 || !strings.Contains(got.text, "Blocked by sandlock HTTP ACL policy: GET a.test/secret: ") || up.count() != before {
			t.Errorf("got %d %q", got.StatusCode, got.text)
		}
		// Escapes 46: another host on the same connection, whatever it is called.
		r := request(t, "GET", "https://a.test/allowed", nil)
		r.Host = "b.test"
		if got = e.do(c, r); got.StatusCode != 421 {
			t.Errorf("other host: got %d", got.StatusCode)
		}
		r.Host = "a.test:22"
		if got = e.do(c, r); got.StatusCode != 403 {
			t.Errorf("other port: got %d", got.StatusCode)
		}
		for range 2 {
			e.record()
		}
		for _, want := range []uint16{421, 403} {
			if m := e.record(); m.Status != want || !m.Denied {
				t.Errorf("record %+v, want status %d", m, want)
			}
		}
	}
	if got := e.do(e.client(up.at), request(t, "GET", "https://"+up.at+"/", nil)); got.StatusCode != 200 {
		t.Errorf("by address: got %d %q", got.StatusCode, got.text)
	}
}

func TestHandshakesRefused(t *testing.T) {
	up, _ := secureUpstream(t, nil)
	for _, tc := range []struct {
		name, server, alert, reason string
		http                        ir.HTTP
	}{
		{"not decrypted", "a.test", "access denied", "TLS is not decrypted on this port: the policy has no http.ca or http.inject_ca and no passthrough rule for a.test",
			ir.HTTP{Allow: rules(t, "GET a.test/*")}},
		{"no rule", "denied.test", "unrecognized name", "no rule is about this host", decrypting(t, "GET a.test/*")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := begin(t, settings{http: tc.http})
			conn := tls.Client(e.open(up.at, "a.test"), &tls.Config{ServerName: tc.server, InsecureSkipVerify: true})
			if err := conn.Handshake(); err == nil || !strings.Contains(err.Error(), tc.alert) {
				t.Errorf("got %v, want %s", err, tc.alert)
			}
			if m := e.record(); m.Protocol != "tls" || !m.Denied || m.Reason != tc.reason || m.Authority != tc.server {
				t.Errorf("got %+v", m)
			}
		})
	}
	t.Run("malformed", func(t *testing.T) {
		e := begin(t, settings{http: decrypting(t, "GET a.test/*")})
		conn := e.open(up.at, "a.test")
		_, _ = conn.Write(append([]byte{0x16, 3, 1, 0, 5}, "hello"...))
		if m := e.record(); !m.Denied {
			t.Errorf("got %+v", m)
		}
	})
}

// An authority of the user's own.
func TestOwnAuthority(t *testing.T) {
	up, issuer := secureUpstream(t, nil)
	own, key := ownAuthority(t)
	h := ir.HTTP{Allow: rules(t, "GET */*"), Authority: ir.AuthorityOwn, CA: "/ca.pem", Key: "/key.pem"}
	e := begin(t, settings{http: h, secrets: map[string]string{
		protocol.SecretCA: own, protocol.SecretKey: key, protocol.SecretUpstreamCA: issuer,
	}})
	if !strings.Contains(own, strings.TrimSpace(string(e.ca))) {
		t.Error("the certificate is another one")
	}
	if got := e.do(e.client(up.at), request(t, "GET", "https://a.test/", nil)); got.StatusCode != 200 {
		t.Errorf("got %d %q", got.StatusCode, got.text)
	}
}

// TLS that is passed on is the server's own, and goes to the named host alone.
func TestOpaque(t *testing.T) {
	up, issuer := secureUpstream(t, nil)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(issuer))
	h := ir.HTTP{Allow: rules(t, "* a.test/*", "* 127.0.0.1/*")}
	h.Allow[0].Opaque, h.Allow[1].Opaque = true, true
	e := begin(t, settings{http: h, log: true})
	c := e.client(up.at, "a.test")
	c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
	got := e.do(c, request(t, "GET", "https://a.test/", nil))
	if got.StatusCode != 200 || got.text != "ok" {
		t.Errorf("got %d %q", got.StatusCode, got.text)
	}
	c.CloseIdleConnections()
	if m := e.record(); m.Protocol != "tls" || m.Denied || m.Authority != "a.test" || m.Rule != "* a.test/*" ||
		m.Upstream != netip.MustParseAddrPort(up.at) || m.Sent < 500 || m.Received < 200 {
		t.Errorf("got %+v", m)
	}
	for _, tc := range []struct {
		name, server, reason string
		leads                []string
		ech                  bool
	}{
		{"no name", "", "TLS without a server name is not passed on", []string{"a.test"}, false},
		{"other destination", "a.test", reasonElsewhere, nil, false},
		{"other name", "b.test", "TLS is not decrypted on this port: the policy has no http.ca or http.inject_ca and no passthrough rule for b.test", []string{"a.test"}, false},
		{"encrypted", "a.test", "an encrypted TLS ClientHello may hide another server's name", []string{"a.test"}, true},
	} {
		before := e.dialCount()
		conn := e.open(up.at, tc.leads...)
		config := &tls.Config{ServerName: tc.server, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
		if tc.ech {
			config.EncryptedClientHelloConfigList = echConfig(t, tc.server)
			config.ServerName = "hidden.test"
		}
		if err := tls.Client(conn, config).Handshake(); err == nil {
			t.Errorf("%s: the handshake succeeded", tc.name)
		}
		if m := e.record(); m.Reason != tc.reason || !m.Denied {
			t.Errorf("%s: got %+v", tc.name, m)
		}
		if e.dialCount() > before {
			t.Errorf("%s: the server was contacted", tc.name)
		}
	}
}

// counter is a server that says how many bytes it has had, once they have ended.
func counter(t *testing.T) (at string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		n, _ := io.Copy(io.Discard, conn)
		fmt.Fprintf(conn, "%d bytes", n)
	}()
	return l.Addr().String()
}

// Both directions of what is passed on end by themselves.
func TestOpaqueHalfClose(t *testing.T) {
	h := ir.HTTP{Allow: rules(t, "* a.test/*")}
	h.Allow[0].Opaque = true
	e := begin(t, settings{http: h, log: true})
	passesOn(t, e, e.open(counter(t), "a.test"), "a.test")
}

func passesOn(t *testing.T, e *executor, conn *net.TCPConn, name string) {
	t.Helper()
	hello := clientHello(t, name)
	_, _ = conn.Write(hello)
	_, _ = conn.Write(bytes.Repeat([]byte("x"), 1<<20))
	_ = conn.CloseWrite()
	got, err := io.ReadAll(conn)
	if want := fmt.Sprintf("%d bytes", len(hello)+1<<20); err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if m := e.record(); m.Received != uint64(len(hello)+1<<20) || m.Sent != uint64(len(got)) {
		t.Errorf("got %+v", m)
	}
}

func clientHello(t *testing.T, name string) []byte {
	t.Helper()
	here, there := net.Pipe()
	go func() {
		_ = tls.Client(here, &tls.Config{ServerName: name}).Handshake()
	}()
	defer here.Close()
	b := make([]byte, 64<<10)
	n, err := there.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// What a server cannot prove is an answer that says so.
func TestUpstreamFailures(t *testing.T) {
	up, issuer := secureUpstream(t, nil)
	plain := newUpstream(t, nil)
	for _, tc := range []struct {
		name, url, kind string
		to              string
		secrets         map[string]string
		dialed          func(netip.AddrPort) (errno unix.Errno)
		want            int
	}{
		{"unknown authority", "https://a.test/", "tls_certificate_error", up.at, nil, nil, 502},
		{"TLS to plain", "https://a.test/", "tls_protocol_error", plain.at, nil, nil, 502},
		{"refused", "http://a.test/", "connection_refused", "127.0.0.1:1", nil, nil, 502},
		{"not allowed", "http://a.test/", "destination_ip_prohibited", plain.at, nil, func(netip.AddrPort) unix.Errno { return unix.EACCES }, 502},
		{"timed out", "http://a.test/", "connection_timeout", plain.at, nil, func(netip.AddrPort) unix.Errno { return unix.ETIMEDOUT }, 504},
		{"fine", "https://a.test/", "", up.at, map[string]string{protocol.SecretUpstreamCA: issuer}, nil, 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := begin(t, settings{http: decrypting(t, "GET a.test/*"), secrets: tc.secrets, log: true})
			if tc.dialed != nil {
				e.fail(tc.dialed)
			}
			got := e.do(e.client(tc.to, "a.test"), request(t, "GET", tc.url, nil, "Accept", "*/*"))
			status := ""
			if tc.kind != "" {
				status = "sandlock; error=" + tc.kind
			}
			if got.StatusCode != tc.want || got.Header.Get("Proxy-Status") != status {
				t.Errorf("got %d %q %q", got.StatusCode, got.Header.Get("Proxy-Status"), got.text)
			}
			var a answer
			if tc.kind != "" && (json.Unmarshal([]byte(got.text), &a) != nil || a.Error != errorUpstream || a.Reason == "") {
				t.Errorf("got %q", got.text)
			}
			if m := e.record(); m.Denied || m.Status != uint16(tc.want) {
				t.Errorf("got %+v", m)
			}
		})
	}
}

// Connections to servers are kept by name and address: another address is another connection.
func TestPoolKeepsDestinationsApart(t *testing.T) {
	first, issuer := secureUpstream(t, nil)
	e := begin(t, settings{http: decrypting(t, "GET */*"), secrets: map[string]string{protocol.SecretUpstreamCA: issuer}})
	second := newUpstream(t, nil)
	c := e.client(first.at, "a.test")
	for range 3 {
		e.do(c, request(t, "GET", "https://a.test/", nil))
		c.CloseIdleConnections()
	}
	if n := e.dialCount(); n != 1 {
		t.Errorf("%d connections to one server, want 1", n)
	}
	e.do(e.client(first.at, "b.test"), request(t, "GET", "https://b.test/", nil))
	if n := e.dialCount(); n != 2 {
		t.Errorf("%d connections for two names, want 2", n)
	}
	if got := e.do(e.client(second.at, "a.test"), request(t, "GET", "https://a.test/", nil)); got.StatusCode != 502 || first.count() != 4 {
		t.Errorf("another address: got %d; the first server had %d requests", got.StatusCode, first.count())
	}
}

// 10^4 names do no harm: the certificates that are kept are bounded, and names without rules cost nothing.
func TestManyNames(t *testing.T) {
	e := begin(t, settings{http: decrypting(t, "GET a.test/*")})
	hello := clientHello(t, "n0000.test")
	for i := range 10_000 {
		name := fmt.Sprintf("n%04d.test", i%10_000)
		conn, err := e.tryOpen(netip.MustParseAddrPort("127.0.0.1:443"), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(bytes.Replace(hello, []byte("n0000.test"), []byte(name), 1))
		_, _ = conn.Read(make([]byte, 1))
		conn.Close()
	}
	e.wait("refusals", func() bool { return len(e.accesses) == 10_000 })
}

// ownAuthority makes a certificate and a key as users have them.
func ownAuthority(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "own"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// echConfig is a list with one configuration (RFC 9849 §4) for X25519, HKDF-SHA256 and AES-128-GCM.
func echConfig(t *testing.T, public string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var contents []byte
	contents = append(contents, 1, 0, 0x20) // an id, the KEM
	contents = append(append(contents, 0, 32), key.PublicKey().Bytes()...)
	contents = append(contents, 0, 4, 0, 1, 0, 1) // suites
	contents = append(append(contents, 32, byte(len(public))), public...)
	contents = append(contents, 0, 0) // extensions
	config := append([]byte{0xfe, 0x0d, 0, byte(len(contents))}, contents...)
	return append([]byte{0, byte(len(config))}, config...)
}
