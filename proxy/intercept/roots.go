package intercept

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// Where systems keep the certificates that they trust, as crypto/x509 looks for them. That package reads the directories
// even where there is a bundle, and all of it at once, which takes ten times as long as the rest of the start.
var (
	bundles = []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL 6
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/pki/tls/cacert.pem",                           // OpenELEC
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL 7
		"/etc/ssl/cert.pem",                                 // Alpine
	}
	directories = []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}
)

// roots returns who certifies servers: read now, parsed when it is asked for. Where a host trusts nobody, no server can be
// trusted, which its requests will say.
func (c *configuration) roots() (func() *x509.CertPool, error) {
	own := string(c.secrets[protocol.SecretUpstreamCA])
	if own != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(own)) {
		return nil, errors.New("http.upstream_ca: no certificate in it")
	}
	files := hostRoots()
	return sync.OnceValue(func() *x509.CertPool {
		pool := x509.NewCertPool()
		for _, pem := range files {
			pool.AppendCertsFromPEM(pem)
		}
		pool.AppendCertsFromPEM([]byte(own))
		files = nil
		return pool
	}), nil
}

func hostRoots() (files [][]byte) {
	for _, name := range bundles {
		if b, err := os.ReadFile(name); err == nil {
			return [][]byte{b}
		}
	}
	for _, dir := range directories {
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil {
				files = append(files, b)
			}
		}
	}
	return files
}
