package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// maxChain bounds the certificates of a file, all of which are sent to every client.
	maxChain = 8
	// maxPEM bounds a file, in bytes.
	maxPEM = 256 << 10
)

// Load makes an authority of a certificate and a key that the user has (PEM). In certPEM the first certificate is the
// authority's; those that follow are sent along: each must have issued the one before it. The key may be in the form of
// PKCS#8, PKCS#1 or SEC 1, of RSA, ECDSA or Ed25519, and not encrypted. The caller clears keyPEM.
func Load(certPEM, keyPEM []byte) (*Authority, error) {
	certs, key, err := read(certPEM, keyPEM, time.Now())
	if err != nil {
		return nil, err
	}
	return newAuthority(certs[0], key, certs[1:], DefaultLifetime, DefaultCache)
}

// read returns a chain that begins with the authority's certificate, whose key key is.
func read(certPEM, keyPEM []byte, now time.Time) (certs []*x509.Certificate, key crypto.Signer, err error) {
	if certs, err = certificates(certPEM); err != nil {
		return nil, nil, err
	}
	if key, err = privateKey(keyPEM); err != nil {
		return nil, nil, err
	}
	if err := usable(certs[0], now); err != nil {
		return nil, nil, fmt.Errorf("certificate: %w", err)
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(certs[0].PublicKey) {
		return nil, nil, errors.New("the key is not that of the certificate")
	}
	for i, issuer := range certs[1:] {
		if err := usable(issuer, now); err != nil {
			return nil, nil, fmt.Errorf("certificate %d: %w", i+2, err)
		}
		if err := certs[i].CheckSignatureFrom(issuer); err != nil {
			return nil, nil, fmt.Errorf("certificate %d did not issue the one before it", i+2)
		}
	}
	return certs, key, nil
}

// usable says what keeps clients from accepting what an authority has issued. A certificate without key usage may be used
// for everything (RFC 5280 §4.2.1.3), as one without extended key usage.
func usable(c *x509.Certificate, now time.Time) error {
	servers := func(u x509.ExtKeyUsage) bool { return u == x509.ExtKeyUsageServerAuth || u == x509.ExtKeyUsageAny }
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("is not one of an authority (basic constraints)")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("is not for issuing certificates (key usage)")
	case len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0 && !slices.ContainsFunc(c.ExtKeyUsage, servers):
		return errors.New("is not for servers (extended key usage)")
	case now.Before(c.NotBefore):
		return fmt.Errorf("is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	case !now.Before(c.NotAfter):
		return fmt.Errorf("has expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// certificates returns those of a file, one at least. Other blocks are passed over: one file may hold the key as well.
func certificates(b []byte) (list []*x509.Certificate, err error) {
	if len(b) > maxPEM {
		return nil, fmt.Errorf("certificate: %d bytes, at most %d are read", len(b), maxPEM)
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if len(list) == maxChain {
			return nil, fmt.Errorf("certificate: more than %d of them", maxChain)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(list)+1, err)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("certificate: none in PEM")
	}
	return list, nil
}

// privateKey returns the first key of a file. What parsers say of it is left out of errors: that is about the key's bytes.
func privateKey(b []byte) (crypto.Signer, error) {
	if len(b) > maxPEM {
		return nil, fmt.Errorf("key: %d bytes, at most %d are read", len(b), maxPEM)
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if strings.HasPrefix(block.Type, "ENCRYPTED ") || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("key: is encrypted")
		}
		return parseKey(block)
	}
	return nil, errors.New("key: none in PEM")
}

func parseKey(block *pem.Block) (crypto.Signer, error) {
	defer clear(block.Bytes)
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, errors.New("key: not in the form of PKCS#8, PKCS#1 or SEC 1")
	}
	if err != nil {
		return nil, errors.New("key: malformed, or of a kind that is not known")
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, errors.New("key: neither RSA, nor ECDSA, nor Ed25519")
}
