package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// program is path. Without it the test is skipped, or fails in CI, which installs it.
func program(t *testing.T, path string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("SANDLOCK_TEST_ALL") != "" {
			t.Fatalf("scripts/setup.sh should have installed: %v", err)
		}
		t.Skipf("not installed: %v", err)
	}
	return path
}

func ephemeral(t testing.TB, c Config) *Authority {
	t.Helper()
	a, err := Ephemeral(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func leaf(t testing.TB, a *Authority, name string) *tls.Certificate {
	t.Helper()
	c, err := a.Leaf(name)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return c
}

// forged is a leaf that the authority's key has signed and Leaf would refuse.
func forged(t testing.TB, a *Authority, name string) *tls.Certificate {
	t.Helper()
	c, err := a.issue(name, a.validity(a.now()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func addresses(list ...string) (all []netip.Addr) {
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

// byGo is what a client written in Go says.
func byGo(root []byte, c *tls.Certificate, name string) error {
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: name}
	options.Roots.AppendCertsFromPEM(root)
	for _, der := range c.Certificate[1:] {
		if cert, err := x509.ParseCertificate(der); err == nil {
			options.Intermediates.AddCert(cert)
		}
	}
	_, err := c.Leaf.Verify(options)
	return err
}

// byOpenSSL is what openssl verify says.
func byOpenSSL(t *testing.T, openssl string, root []byte, c *tls.Certificate, name string) error {
	t.Helper()
	dir := t.TempDir()
	var chain [][]byte
	for _, der := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	for file, b := range map[string][]byte{"root": root, "leaf": chain[0], "chain": bytes.Join(chain[1:], nil)} {
		if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flag := "-verify_hostname"
	if net.ParseIP(name) != nil {
		flag = "-verify_ip"
	}
	cmd := exec.Command(openssl, "verify", "-x509_strict", "-purpose", "sslserver", flag, name, "-no-CApath", "-no-CAstore",
		"-CAfile", "root", "-untrusted", "chain", "leaf")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.New(string(out))
	}
	return nil
}

const client = `
import socket, ssl, sys
port, name, strict = int(sys.argv[1]), sys.argv[2], ssl.VERIFY_X509_STRICT
c = ssl.create_default_context(cafile=sys.argv[3])
c.verify_flags |= strict
with socket.create_connection(("127.0.0.1", port)) as s, c.wrap_socket(s, server_hostname=name) as t:
    t.sendall(b"x")
    print(dict(t.getpeercert())["subjectAltName"])
`

// byPython is what a strict client written in Python says to a server with the certificate.
func byPython(t *testing.T, python string, root []byte, c *tls.Certificate, name string) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "root")
	if err := os.WriteFile(file, root, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*c}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 1))
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if out, err := exec.Command(python, "-c", client, port, name, file).CombinedOutput(); err != nil {
		return errors.New(string(out))
	}
	return nil
}

func TestEphemeral(t *testing.T) {
	a := ephemeral(t, Config{Names: []string{"*.example.test", "plain.test", "example.test"}})
	b := ephemeral(t, Config{Any: true})
	c := a.cert
	if string(c.RawSubject) != string(c.RawIssuer) || string(c.RawSubject) == string(b.cert.RawSubject) {
		t.Errorf("subjects %v, %v", c.Subject, b.cert.Subject)
	}
	if !strings.HasPrefix(c.Subject.CommonName, "sandlock ") || !slices.Equal(c.Subject.Organization, []string{"sandlock ephemeral authority"}) {
		t.Errorf("subject %v", c.Subject)
	}
	if !c.IsCA || c.MaxPathLen != 0 || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || len(c.SubjectKeyId) == 0 {
		t.Errorf("CA %t, path %d, usage %b, key identifier %x", c.IsCA, c.MaxPathLen, c.KeyUsage, c.SubjectKeyId)
	}
	if got := c.NotAfter.Sub(c.NotBefore); got != DefaultLifetime+backdated || time.Since(c.NotBefore) > backdated+time.Minute {
		t.Errorf("valid from %v to %v", c.NotBefore, c.NotAfter)
	}
	critical := map[string]bool{}
	for _, e := range c.Extensions {
		critical[e.Id.String()] = e.Critical
	}
	for id, want := range map[string]bool{"2.5.29.19": true, "2.5.29.15": true, "2.5.29.30": true, "2.5.29.14": false} {
		if got, ok := critical[id]; !ok || got != want {
			t.Errorf("extension %s: there %t, critical %t", id, ok, got)
		}
	}
	if want := []string{"example.test", "plain.test"}; !slices.Equal(c.PermittedDNSDomains, want) {
		t.Errorf("permitted %q, want %q", c.PermittedDNSDomains, want)
	}
	if c.SerialNumber.BitLen() > 128 || c.SerialNumber.Cmp(b.cert.SerialNumber) == 0 {
		t.Errorf("serials %x, %x", c.SerialNumber, b.cert.SerialNumber)
	}
	if c.Equal(b.cert) || a.key.(*ecdsa.PrivateKey).Equal(b.key) {
		t.Error("two authorities have one key")
	}
	block, rest := pem.Decode(a.PEM())
	if block == nil || block.Type != "CERTIFICATE" || !bytes.Equal(block.Bytes, c.Raw) || len(rest) > 0 {
		t.Errorf("PEM is %s", a.PEM())
	}
	if len(b.cert.PermittedDNSDomains)+len(b.cert.PermittedIPRanges)+len(b.cert.ExcludedIPRanges) > 0 {
		t.Error("with Any there are constraints")
	}
}

func TestEphemeralRefuses(t *testing.T) {
	for _, c := range []Config{
		{}, {Names: []string{""}}, {Names: []string{"A.test"}}, {Names: []string{"192.0.2.1"}}, {Names: []string{"a b"}}, {Names: []string{"*"}},
		{Names: []string{".test"}}, {Addresses: []netip.Addr{{}}}, {Addresses: addresses("fe80::1%lo")},
		{Any: true, Lifetime: MaxLifetime + 1}, {Any: true, Lifetime: -1}, {Any: true, Lifetime: 1},
	} {
		if _, err := Ephemeral(c); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
}

func TestLeaf(t *testing.T) {
	a := ephemeral(t, Config{Any: true})
	long := strings.Repeat("a", 60) + ".test"
	for _, tc := range []struct {
		name, host, cn string
	}{
		{"a.example.test", "a.example.test", "a.example.test"},
		{"A.Example.TEST", "a.example.test", "a.example.test"},
		{"_x.test", "_x.test", "_x.test"},
		{long, long, ""},
		{"192.0.2.1", "192.0.2.1", ""},
		{"2001:DB8::1", "2001:db8::1", ""},
		{"::ffff:192.0.2.1", "192.0.2.1", ""},
	} {
		c := leaf(t, a, tc.name)
		l := c.Leaf
		sans := slices.Clone(l.DNSNames)
		for _, ip := range l.IPAddresses {
			sans = append(sans, ip.String())
		}
		if !slices.Equal(sans, []string{tc.host}) || len(l.EmailAddresses)+len(l.URIs) > 0 || l.Subject.CommonName != tc.cn {
			t.Errorf("%s: names %q, subject %v", tc.name, sans, l.Subject)
		}
		if l.IsCA || !l.BasicConstraintsValid || l.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(l.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
			t.Errorf("%s: CA %t, usage %b, %v", tc.name, l.IsCA, l.KeyUsage, l.ExtKeyUsage)
		}
		if !bytes.Equal(l.AuthorityKeyId, a.cert.SubjectKeyId) || len(l.SubjectKeyId) == 0 || bytes.Equal(l.SubjectKeyId, l.AuthorityKeyId) {
			t.Errorf("%s: key identifiers %x, %x", tc.name, l.SubjectKeyId, l.AuthorityKeyId)
		}
		if l.NotAfter.After(a.cert.NotAfter) || time.Since(l.NotBefore) < backdated {
			t.Errorf("%s: valid from %v to %v", tc.name, l.NotBefore, l.NotAfter)
		}
		if len(c.Certificate) != 2 || !bytes.Equal(c.Certificate[0], l.Raw) || !bytes.Equal(c.Certificate[1], a.cert.Raw) {
			t.Errorf("%s: chain of %d", tc.name, len(c.Certificate))
		}
		if err := byGo(a.PEM(), c, tc.name); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	for _, name := range []string{"", ".", "a..test", "a b", "*.test", "a.test.", "a\x00.test", "\u212a.test", "fe80::1%lo", "[::1]", strings.Repeat("a", 64), "a.test:443"} {
		if c, err := a.Leaf(name); err == nil {
			t.Errorf("%q: got one for %q", name, c.Leaf.DNSNames)
		}
	}
	if a.cache.len() > 5 {
		t.Errorf("%d certificates are kept for 5 hosts", a.cache.len())
	}
}

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

// What clients of three kinds say, of what is permitted and of what somebody with the authority's key would try.
func TestConstraints(t *testing.T) {
	openssl, python := program(t, "/usr/bin/openssl"), program(t, "/usr/bin/python3")
	long := strings.Repeat("a", 60) + ".example.test"
	for _, tc := range []struct {
		name   string
		config Config
		good   []string
		bad    []string
	}{
		{"any", Config{Any: true}, []string{"a.test", "192.0.2.1", "2001:db8::1"}, nil},
		{"names", Config{Names: []string{"example.test", "*.wild.test"}},
			[]string{"example.test", "a.example.test", "x.wild.test", "wild.test", long},
			[]string{"evil.test", "xexample.test", "test", "192.0.2.1", "::1", "example.test.evil.test"}},
		{"addresses", Config{Addresses: addresses("192.0.2.1", "2001:db8::1")},
			[]string{"192.0.2.1", "2001:db8::1"}, []string{"192.0.2.2", "2001:db8::2", "example.test", "localhost"}},
		{"IPv4", Config{Addresses: addresses("192.0.2.1")}, []string{"192.0.2.1"}, []string{"2001:db8::1", "192.0.2.0"}},
		{"both", Config{Names: []string{"example.test"}, Addresses: addresses("::ffff:192.0.2.1")},
			[]string{"example.test", "192.0.2.1"}, []string{"evil.test", "192.0.2.2", "::1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := ephemeral(t, tc.config)
			for _, name := range tc.good {
				c := leaf(t, a, name)
				for who, err := range map[string]error{
					"go": byGo(a.PEM(), c, name), "openssl": byOpenSSL(t, openssl, a.PEM(), c, name), "python": byPython(t, python, a.PEM(), c, name),
				} {
					if err != nil {
						t.Errorf("%s: %s says %v", name, who, err)
					}
				}
				if !a.Permits(name) {
					t.Errorf("%s is not permitted", name)
				}
			}
			for _, name := range tc.bad {
				if _, err := a.Leaf(name); !errors.Is(err, ErrNotPermitted) || a.Permits(name) {
					t.Errorf("%s: %v, permitted %t; want %v", name, err, a.Permits(name), ErrNotPermitted)
				}
				c := forged(t, a, name)
				for who, err := range map[string]error{
					"go": byGo(a.PEM(), c, name), "openssl": byOpenSSL(t, openssl, a.PEM(), c, name), "python": byPython(t, python, a.PEM(), c, name),
				} {
					if err == nil || !strings.Contains(err.Error(), "permitted") && !strings.Contains(err.Error(), "excluded") {
						t.Errorf("forged %s: %s says %v", name, who, err)
					}
				}
			}
		})
	}
}

// An authority of its own cannot make others.
func TestPathLength(t *testing.T) {
	a := ephemeral(t, Config{Any: true})
	key := newKey(t, "ecdsa")
	below := sign(t, template("below", nil), a.cert, key.Public(), a.key)
	b, err := newAuthority(below, key, nil, time.Hour, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := byGo(a.PEM(), leaf(t, b, "a.test"), "a.test"); err == nil {
		t.Error("a leaf of an authority beneath is accepted")
	}
}

func TestRenewal(t *testing.T) {
	a := ephemeral(t, Config{Any: true, Lifetime: 10 * 24 * time.Hour})
	start := time.Now()
	at := func(d time.Duration) *tls.Certificate {
		t.Helper()
		a.now = func() time.Time { return start.Add(d) }
		return leaf(t, a, "a.test")
	}
	const day = 24 * time.Hour
	// A leaf of the authority's own length would not be longer if it was renewed.
	if at(0) != at(10*day-time.Minute) {
		t.Error("renewed without gain")
	}
	a.lifetime = 4 * day
	a.cache = newCache(10)
	first := at(0)
	if at(2*day) != first {
		t.Error("renewed early")
	}
	second := at(3*day + time.Hour)
	if second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Error("not renewed before it expires")
	}
	if last := at(9 * day); !last.Leaf.NotAfter.Equal(a.cert.NotAfter) {
		t.Errorf("valid until %v, the authority until %v", last.Leaf.NotAfter, a.cert.NotAfter)
	}
	a.now = func() time.Time { return start.Add(10*day + time.Second) }
	if _, err := a.Leaf("a.test"); !errors.Is(err, ErrExpired) {
		t.Errorf("%v, want %v", err, ErrExpired)
	}
}
