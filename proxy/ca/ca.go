// Package ca is the certificate authority of a proxy that intercepts TLS.
//
// In: the names and addresses that the policy intercepts, or a certificate and a key of the user's; then the name that a
// client asks for, which is hostile. Out: the authority's certificate, and for each name a certificate with its key.
//
// It never writes a key anywhere, nor puts one into an error: the key of an authority of our own exists in this process's
// memory and ends with it. Such an authority is good for nothing but what the policy names (name constraints), so that a
// sandbox that trusts it trusts no more than it has to. It opens no files and no connections.
//
// Read next: load.go (the user's own authority), constraint.go (which names), leaf.go (a name's certificate).
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"time"
)

const (
	// DefaultLifetime is how long certificates are valid.
	DefaultLifetime = 30 * 24 * time.Hour
	// MaxLifetime is what clients accept at most: Apple's take 398 days for a server.
	MaxLifetime = 397 * 24 * time.Hour
	// DefaultCache bounds the certificates that are kept, each about 3 KiB.
	DefaultCache = 1024
	// backdated is for clients whose clock is behind ours.
	backdated = time.Hour
)

// Config says what an authority of our own is for.
type Config struct {
	Names     []string      // as rules have them (protocol.IsRule), those with a wildcard included
	Addresses []netip.Addr  // for clients that connect to an address
	Any       bool          // every name and address, whatever is above
	Lifetime  time.Duration // of its certificate and of those that it issues; 0: DefaultLifetime
	Cache     int           // certificates kept; 0: DefaultCache
}

// Authority issues certificates. It is for concurrent use.
type Authority struct {
	cert     *x509.Certificate
	key      crypto.Signer
	above    []*x509.Certificate // sent along: who issued cert, who issued that, …
	sent     [][]byte            // cert and above, as a server sends them after its own
	notAfter time.Time           // when the first of them ends
	lifetime time.Duration       // of what is issued

	leafKey *ecdsa.PrivateKey // one for all names: whoever has it has this process's memory, hence all of them
	leafID  []byte

	cache *cache
	now   func() time.Time
}

// Ephemeral makes an authority whose key nobody has but this process.
func Ephemeral(c Config) (*Authority, error) {
	if c.Lifetime == 0 {
		c.Lifetime = DefaultLifetime
	}
	if c.Lifetime < time.Second || c.Lifetime > MaxLifetime {
		return nil, fmt.Errorf("lifetime of %v: not from 1s to %v", c.Lifetime, MaxLifetime)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := random(4)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "sandlock " + hex.EncodeToString(id), Organization: []string{"sandlock ephemeral authority"}},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(c.Lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          keyID(&key.PublicKey),
	}
	if !c.Any {
		if err := constrain(template, c.Names, c.Addresses); err != nil {
			return nil, err
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return newAuthority(cert, key, nil, c.Lifetime, c.Cache)
}

func newAuthority(cert *x509.Certificate, key crypto.Signer, above []*x509.Certificate, lifetime time.Duration, cached int) (*Authority, error) {
	if cached <= 0 {
		cached = DefaultCache
	}
	a := &Authority{cert: cert, key: key, above: above, lifetime: lifetime, notAfter: cert.NotAfter, cache: newCache(cached), now: time.Now}
	for _, c := range a.chain() {
		a.sent = append(a.sent, c.Raw)
		if c.NotAfter.Before(a.notAfter) {
			a.notAfter = c.NotAfter
		}
	}
	var err error
	if a.leafKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	a.leafID = keyID(&a.leafKey.PublicKey)
	// What keeps this authority from issuing is to be known now, not when the first client connects.
	trial, err := a.issue("trial.invalid", a.validity(a.now()))
	if err != nil {
		return nil, err
	}
	if err := trial.Leaf.CheckSignatureFrom(cert); err != nil {
		return nil, fmt.Errorf("a certificate that it issued: %w", err)
	}
	return a, nil
}

func (a *Authority) chain() []*x509.Certificate {
	return append([]*x509.Certificate{a.cert}, a.above...)
}

// PEM is the authority's certificate, as bundles of trusted authorities have it.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// NotAfter is when the authority ends.
func (a *Authority) NotAfter() time.Time { return a.notAfter }

// keyID is a key's identifier (RFC 7093 §2, method 1).
func keyID(key *ecdsa.PublicKey) []byte {
	point, err := key.Bytes()
	if err != nil {
		panic(err) // the key is one that we made
	}
	sum := sha256.Sum256(point)
	return sum[:20]
}

func random(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	return b, nil
}

// newSerial is 128 random bits. RFC 5280 wants a positive number.
func newSerial() (*big.Int, error) {
	b, err := random(16)
	if err != nil {
		return nil, err
	}
	serial := new(big.Int).SetBytes(b)
	if serial.Sign() == 0 {
		return nil, errors.New("the random serial number is zero")
	}
	return serial, nil
}
