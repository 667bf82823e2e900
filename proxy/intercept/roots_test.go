package intercept

import (
	"crypto/x509"
	"os"
	"testing"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

func TestRoots(t *testing.T) {
	own, _ := ownAuthority(t)
	if _, err := (&configuration{secrets: map[string][]byte{protocol.SecretUpstreamCA: []byte("no certificate")}}).roots(); err == nil {
		t.Error("a file without certificates was taken")
	}
	secret := []byte(own)
	roots, err := (&configuration{secrets: map[string][]byte{protocol.SecretUpstreamCA: secret}}).roots()
	if err != nil {
		t.Fatal(err)
	}
	clear(secret) // as the secrets' file is, before anybody asks for the pool
	want := x509.NewCertPool()
	if b, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt"); err == nil {
		want.AppendCertsFromPEM(b)
	} else {
		t.Log("no bundle of Debian's here: looking for the policy's certificates alone")
		for _, pem := range hostRoots() {
			want.AppendCertsFromPEM(pem)
		}
	}
	want.AppendCertsFromPEM([]byte(own))
	if !roots().Equal(want) {
		t.Error("the pool is another one")
	}
}
