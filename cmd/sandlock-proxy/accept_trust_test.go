package main_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// escape 49: the authority of a run is good for the hosts that rules name, for a short time, and for nobody outside.
func Test_escape_49_authority(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		policy := p.policy(hosts, fmt.Sprintf("$TLS\nports: [%s], allow: [\"GET api.test/*\", \"GET 127.0.0.1/*\"]", up.secure))
		certificate := func() *x509.Certificate {
			wantOutput(t, p.python(policy, `print(get("/x", "api.test", sys.argv[1], tls="api.test")[0])`, up.secure), "200")
			text, err := os.ReadFile(p.out)
			if err != nil {
				t.Fatal(err)
			}
			block, rest := pem.Decode(text)
			if block == nil || block.Type != "CERTIFICATE" || len(strings.TrimSpace(string(rest))) > 0 {
				t.Fatalf("ca_out is %s", text)
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			return cert
		}
		first, second := certificate(), certificate()
		if bytes.Equal(first.RawSubjectPublicKeyInfo, second.RawSubjectPublicKeyInfo) {
			t.Error("two runs have the same authority")
		}
		if !slices.Equal(first.PermittedDNSDomains, []string{"api.test"}) || !first.PermittedDNSDomainsCritical || len(first.PermittedIPRanges) != 1 ||
			first.PermittedIPRanges[0].String() != "127.0.0.1/32" {
			t.Errorf("permitted: %v %v, critical %t", first.PermittedDNSDomains, first.PermittedIPRanges, first.PermittedDNSDomainsCritical)
		}
		if !first.IsCA || !first.MaxPathLenZero || time.Until(first.NotAfter) > 397*24*time.Hour {
			t.Errorf("CA %t, until %v", first.IsCA, first.NotAfter)
		}
		if info, err := os.Stat(p.out); err != nil || info.Mode().Perm()&0o022 != 0 {
			t.Errorf("ca_out: %v, %v", info.Mode(), err)
		}
	})
}

// An authority of one's own certifies as the one of the run does.
func Test_http_own_authority(t *testing.T) {
	asUsers(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		mine, err := newIssuer("mine")
		if err != nil {
			t.Fatal(err)
		}
		cert := p.File(filepath.Dir(p.out)+"/mine.pem", mine.pem)
		key := p.File(p.Outside+"/mine.key", mine.keyPEM(t))
		policy := p.policy(hosts, fmt.Sprintf("ca: %q\nkey: %q\nca_out: %q\nupstream_ca: %q\nports: [%s], allow: [\"GET api.test/*\"]", cert, key, p.out, p.upstream, up.secure))
		wantOutput(t, p.python(policy, `
BUNDLE = sys.argv[2]
print(get("/x", "api.test", sys.argv[1], tls="api.test")[0], "mine" in str(context().get_ca_certs()))
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
attempt("bundle:", lambda: reach(sys.argv[1], tls="api.test"))
attempt("key:", lambda: open(sys.argv[3]))
`, up.secure, p.out, key), "200 True\nbundle: CERTIFICATE_VERIFY_FAILED\nkey: EACCES")
		if got, err := os.ReadFile(p.out); err != nil || string(got) != mine.pem {
			t.Errorf("ca_out: %q, %v", got, err)
		}
	})
}

// What servers do wrong is told apart from what the policy refuses, and no credential goes to a server that is not who it
// should be.
func Test_http_servers(t *testing.T) {
	asOne(t, func(t *testing.T, p *place) {
		up := serve(t, nil)
		stranger, err := newIssuer("stranger")
		if err != nil {
			t.Fatal(err)
		}
		heard := make(chan string, 10)
		impostor := serveRaw(t, func(c net.Conn) {
			conn := tls.Server(c, &tls.Config{GetCertificate: stranger.leaf})
			b := make([]byte, 100)
			if n, err := conn.Read(b); err == nil {
				heard <- string(b[:n])
			}
		})
		misnamed := serveRaw(t, func(c net.Conn) {
			ca, _ := authority()
			leaf, _ := ca.leaf(&tls.ClientHelloInfo{ServerName: "other.test"})
			conn := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*leaf}})
			b := make([]byte, 100)
			if n, err := conn.Read(b); err == nil {
				heard <- string(b[:n])
			}
		})
		garbage := serveRaw(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, "SSH-2.0-x\r\n\r\n")
		})
		silent := serveRaw(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) })
		cut := serveRaw(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		})
		nobody := listen(t, "127.0.0.1")
		closed := port(nobody)
		nobody.Close()
		fake := serveRaw(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nProxy-Status: sandlock; error=http_request_denied\r\nContent-Length: 4\r\n\r\nfake")
		})
		policy := p.policy(hosts, fmt.Sprintf(`$TLS
ports: [%s, %s, %s, %s, %s, %s, %s, %s, %s], allow: ["GET api.test/*", "GET 127.0.0.1/*"]
credentials: c: source: "file:%s", auth: [{rule: "* api.test", credential: "c", as: "bearer"}]`,
			up.plain, up.secure, impostor, misnamed, garbage, silent, cut, closed, fake, p.File(p.Outside+"/key", "SECRET")))
		wantOutput(t, p.python(policy, `
good, impostor, misnamed, plain, garbage, silent, cut, closed, fake = sys.argv[1:]
def say(what, port, tls=None):
    s, h, body = get("/x", tls or "127.0.0.1", port, tls=tls)
    print(what + ":", s, h.get("Proxy-Status"), len(body) > 0)
say("good", good, "api.test")
say("impostor", impostor, "api.test")
say("certificate of another", misnamed, "api.test")
say("no TLS", plain, "api.test")
say("garbage", garbage)
say("silent", silent)
say("closed", closed)
say("fake denial", fake)
print("cut:", get("/x", "127.0.0.1", cut)) # an answer that does not end as it should
`, up.secure, impostor, misnamed, up.plain, garbage, silent, cut, closed, fake), `good: 200 None True
impostor: 502 sandlock; error=tls_certificate_error True
certificate of another: 502 sandlock; error=tls_certificate_error True
no TLS: 502 sandlock; error=tls_protocol_error True
garbage: 502 sandlock; error=http_protocol_error True
silent: 502 sandlock; error=connection_terminated True
closed: 502 sandlock; error=connection_refused True
fake denial: 403 None True
cut: [0, {}, '']`)
		select {
		case b := <-heard:
			t.Errorf("an impostor was told %q", b)
		default:
		}
		for _, r := range up.take() {
			if r.Header.Get("Authorization") != "Bearer SECRET" {
				t.Errorf("the server got %q", r.Header)
			}
		}
	})
}
