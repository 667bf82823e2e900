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
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

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
