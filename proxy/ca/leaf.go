package ca

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

var (
	// ErrNotPermitted is a name that clients would not accept from this authority.
	ErrNotPermitted = errors.New("the authority's name constraints do not permit it")
	// ErrExpired is an authority whose time is over.
	ErrExpired = errors.New("the authority has expired")
)

// maxCommonName is what a common name may have (RFC 5280 appendix A.1), in bytes.
const maxCommonName = 64

// Leaf returns the certificate for a name or an address, without brackets, with its key. It is kept, and replaced before it
// expires; whoever asks at the same time gets the same.
func (a *Authority) Leaf(name string) (*tls.Certificate, error) {
	host, addr, err := parse(name)
	if err != nil {
		return nil, err
	}
	if addr.IsValid() {
		host = addr.String()
	}
	now := a.now()
	if !now.Before(a.notAfter) {
		return nil, ErrExpired
	}
	// Before the cache: what is refused takes no place in it.
	if !a.permits(host, addr) {
		return nil, fmt.Errorf("%s: %w", host, ErrNotPermitted)
	}
	return a.cache.get(host, now, func() (issue, time.Time) {
		v := a.validity(now)
		return func() (*tls.Certificate, error) { return a.issue(host, v) }, v.renewed
	})
}

// validity is the time of a certificate, and when it is replaced.
type validity struct{ from, to, renewed time.Time }

func (a *Authority) validity(now time.Time) validity {
	v := validity{from: now.Add(-backdated)}
	v.to = v.from.Add(MaxLifetime)
	for _, limit := range []time.Time{now.Add(a.lifetime), a.notAfter} {
		if limit.Before(v.to) {
			v.to = limit
		}
	}
	v.renewed = v.to
	if v.to.Before(a.notAfter) { // else a new one would not last longer
		v.renewed = v.to.Add(-v.to.Sub(now) / 4)
	}
	return v
}

// issue makes a certificate. It does not ask whether the authority may.
func (a *Authority) issue(host string, v validity) (*tls.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             v.from,
		NotAfter:              v.to,
		KeyUsage:              x509.KeyUsageDigitalSignature, // no RSA key, so nothing is encrypted to it
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          a.leafID,
	}
	if ip := net.ParseIP(host); ip != nil {
		// OpenSSL holds an IPv4 address in a common name against the constraints on names, so there is none.
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
		template.Subject = a.subject(host)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, a.leafKey.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, a.sent...), PrivateKey: a.leafKey, Leaf: leaf}, nil
}

// subject is that of a name's certificate, empty if the name is too long for it. With the authority's own subject the
// certificate would count as self-signed. Where the subject is empty, the alternative name is critical.
func (a *Authority) subject(host string) pkix.Name {
	if len(host) > maxCommonName || strings.EqualFold(strings.TrimSpace(a.cert.Subject.CommonName), host) {
		return pkix.Name{}
	}
	return pkix.Name{CommonName: host}
}
