package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
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

func newKey(t testing.TB, kind string) (key crypto.Signer) {
	t.Helper()
	var err error
	switch kind {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func template(cn string, change func(*x509.Certificate)) *x509.Certificate {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	if change != nil {
		change(c)
	}
	return c
}

func sign(t testing.TB, c, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func selfSigned(t testing.TB, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	c := template("our authority", change)
	return sign(t, c, c, key.Public(), key)
}

func certPEM(certs ...*x509.Certificate) (b []byte) {
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

func pkcs8(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestLoad(t *testing.T) {
	openssl, python := program(t, "/usr/bin/openssl"), program(t, "/usr/bin/python3")
	for _, kind := range []string{"rsa", "ecdsa", "ed25519"} {
		key := newKey(t, kind)
		forms := map[string][]byte{"PKCS#8": pkcs8(t, key)}
		switch key := key.(type) {
		case *rsa.PrivateKey:
			forms["PKCS#1"] = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
		case *ecdsa.PrivateKey:
			der, err := x509.MarshalECPrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			// As openssl ecparam -genkey writes it.
			forms["SEC 1"] = append([]byte("-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n"),
				pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})...)
		}
		root := selfSigned(t, key, nil)
		for form, keyPEM := range forms {
			t.Run(kind+" "+form, func(t *testing.T) {
				a, err := Load(certPEM(root), keyPEM)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(a.PEM(), certPEM(root)) {
					t.Errorf("PEM %s", a.PEM())
				}
				for _, name := range []string{"a.example.test", "192.0.2.1"} {
					c := leaf(t, a, name)
					for who, err := range map[string]error{
						"go": byGo(a.PEM(), c, name), "openssl": byOpenSSL(t, openssl, a.PEM(), c, name), "python": byPython(t, python, a.PEM(), c, name),
					} {
						if err != nil {
							t.Errorf("%s: %s says %v", name, who, err)
						}
					}
					if c.Leaf.NotAfter.After(root.NotAfter) {
						t.Errorf("%s is valid until %v, the authority until %v", name, c.Leaf.NotAfter, root.NotAfter)
					}
				}
			})
		}
	}
}

// A certificate of the authority's own name must not look as if it had signed itself.
func TestLeafOfAuthoritysName(t *testing.T) {
	openssl, python := program(t, "/usr/bin/openssl"), program(t, "/usr/bin/python3")
	key := newKey(t, "ecdsa")
	root := selfSigned(t, key, func(c *x509.Certificate) { c.Subject.CommonName = "Proxy.test" })
	a, err := Load(certPEM(root), pkcs8(t, key))
	if err != nil {
		t.Fatal(err)
	}
	c := leaf(t, a, "proxy.test")
	if c.Leaf.Subject.CommonName != "" {
		t.Errorf("subject %v", c.Leaf.Subject)
	}
	if err := errors.Join(byGo(a.PEM(), c, "proxy.test"), byOpenSSL(t, openssl, a.PEM(), c, "proxy.test"), byPython(t, python, a.PEM(), c, "proxy.test")); err != nil {
		t.Error(err)
	}
}

func TestLoadChain(t *testing.T) {
	openssl, python := program(t, "/usr/bin/openssl"), program(t, "/usr/bin/python3")
	rootKey, middleKey, key := newKey(t, "ed25519"), newKey(t, "ecdsa"), newKey(t, "rsa")
	root := selfSigned(t, rootKey, func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"Example.test"}, true
	})
	middle := sign(t, template("middle", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Minute) }), root, middleKey.Public(), rootKey)
	issuing := sign(t, template("issuing", func(c *x509.Certificate) {
		c.ExcludedDNSDomains, c.PermittedDNSDomainsCritical = []string{".not.example.test", "no.example.test"}, true
		_, all, _ := net.ParseCIDR("10.0.0.0/8")
		c.ExcludedIPRanges = []*net.IPNet{all}
	}), middle, key.Public(), middleKey)

	a, err := Load(certPEM(issuing, middle, root), pkcs8(t, key))
	if err != nil {
		t.Fatal(err)
	}
	c := leaf(t, a, "a.example.test")
	if len(c.Certificate) != 4 {
		t.Errorf("chain of %d", len(c.Certificate))
	}
	if err := errors.Join(byGo(certPEM(root), c, "a.example.test"), byOpenSSL(t, openssl, certPEM(root), c, "a.example.test"), byPython(t, python, certPEM(root), c, "a.example.test")); err != nil {
		t.Error(err)
	}
	if c.Leaf.NotAfter.After(middle.NotAfter) {
		t.Errorf("valid until %v, an authority above until %v", c.Leaf.NotAfter, middle.NotAfter)
	}
	// Permits says what Go's verifier says.
	for _, name := range []string{"example.test", "a.example.test", "evil.test", "not.example.test", "a.not.example.test", "no.example.test", "a.no.example.test", "xno.example.test", "10.1.2.3", "11.0.0.1", "::1", "::ffff:10.0.0.1"} {
		err := byGo(certPEM(root), forged(t, a, strings.TrimPrefix(name, "::ffff:")), name)
		if got := a.Permits(name); got != (err == nil) {
			t.Errorf("Permits(%s) = %t, Go says %v", name, got, err)
		}
	}
	for what, certs := range map[string][]*x509.Certificate{
		"order": {issuing, root, middle}, "gap": {issuing, root}, "twice": {issuing, issuing},
		"long": {issuing, middle, root, root, root, root, root, root, root},
	} {
		if _, err := Load(certPEM(certs...), pkcs8(t, key)); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	key, other := newKey(t, "ecdsa"), newKey(t, "ecdsa")
	good, goodKey := certPEM(selfSigned(t, key, nil)), pkcs8(t, key)
	with := func(change func(*x509.Certificate)) []byte { return certPEM(selfSigned(t, key, change)) }
	agreement, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(goodKey)
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: block.Bytes})
	cut := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: block.Bytes[:len(block.Bytes)-1]})
	for _, tc := range []struct {
		name      string
		cert, key []byte
		want      string
	}{
		{"other key", good, pkcs8(t, other), "the key is not that of the certificate"},
		{"other kind", good, pkcs8(t, newKey(t, "ed25519")), "the key is not that of the certificate"},
		{"no authority", with(func(c *x509.Certificate) { c.IsCA = false }), goodKey, "certificate: is not one of an authority (basic constraints)"},
		{"no basic constraints", with(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = false, false }), goodKey, "certificate: is not one of an authority (basic constraints)"},
		{"usage", with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), goodKey, "certificate: is not for issuing certificates (key usage)"},
		{"extended usage", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} }), goodKey, "certificate: is not for servers (extended key usage)"},
		{"expired", with(func(c *x509.Certificate) { c.NotAfter = time.Unix(1e9, 0); c.NotBefore = time.Unix(1, 0) }), goodKey, "certificate: has expired at 2001-09-09T01:46:40Z"},
		{"early", with(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(4e9, 0), time.Unix(5e9, 0) }), goodKey, "certificate: is not valid before 2096-10-02T07:06:40Z"},
		{"no certificate", goodKey, goodKey, "certificate: none in PEM"},
		{"malformed certificate", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), goodKey, "certificate 1: x509: malformed certificate"},
		{"no key", good, good, "key: none in PEM"},
		{"nothing", nil, nil, "certificate: none in PEM"},
		{"large", make([]byte, maxPEM+1), goodKey, "certificate: 262145 bytes, at most 262144 are read"},
		{"encrypted", good, encrypted, "key: is encrypted"},
		{"encrypted PKCS#8", good, bytes.ReplaceAll(goodKey, []byte("PRIVATE"), []byte("ENCRYPTED PRIVATE")), "key: is encrypted"},
		{"cut", good, cut, "key: malformed, or of a kind that is not known"},
		{"wrong form", good, bytes.ReplaceAll(goodKey, []byte("PRIVATE"), []byte("RSA PRIVATE")), "key: malformed, or of a kind that is not known"},
		{"odd form", good, bytes.ReplaceAll(goodKey, []byte("PRIVATE"), []byte("OPENSSH PRIVATE")), "key: not in the form of PKCS#8, PKCS#1 or SEC 1"},
		{"agreement", good, pkcs8(t, agreement), "key: neither RSA, nor ECDSA, nor Ed25519"},
	} {
		_, err := Load(tc.cert, tc.key)
		if err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
	// Without key usage it may sign, as with both in one file.
	both := append(with(func(c *x509.Certificate) { c.KeyUsage = 0 }), goodKey...)
	if _, err := Load(both, both); err != nil {
		t.Error(err)
	}
}

// Whatever the files hold: either an error, which has nothing of the key, or what belongs together. Nothing is issued: what
// random numbers do to coverage keeps the fuzzer busy for ever.
func FuzzRead(f *testing.F) {
	fixed := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Unix(1e9, 0), time.Unix(4e9, 0) }
	key, other := ed25519.NewKeyFromSeed(make([]byte, 32)), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	root := selfSigned(f, key, fixed)
	below := sign(f, template("below", fixed), root, other.Public(), key)
	f.Add(certPEM(root), pkcs8(f, key))
	f.Add(certPEM(below, root), pkcs8(f, other))
	f.Add(certPEM(below, root), pkcs8(f, key))
	f.Add([]byte(nil), []byte("-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----\n"))
	now := time.Unix(2e9, 0)
	f.Fuzz(func(t *testing.T, cert, keyPEM []byte) {
		certs, private, err := read(cert, keyPEM, now)
		if err != nil {
			for line := range bytes.Lines(keyPEM) {
				if line = bytes.TrimSpace(line); len(line) >= 20 && !bytes.Contains(cert, line) && strings.Contains(err.Error(), string(line)) {
					t.Errorf("the key is in %q", err)
				}
			}
			return
		}
		if len(certs) > maxChain || !private.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(certs[0].PublicKey) {
			t.Errorf("%d certificates; the key of the first is not that of %v", len(certs), certs[0].Subject)
		}
		for _, c := range certs {
			if !c.IsCA || now.Before(c.NotBefore) || !now.Before(c.NotAfter) {
				t.Errorf("%v: an authority %t, from %v to %v", c.Subject, c.IsCA, c.NotBefore, c.NotAfter)
			}
		}
	})
}
