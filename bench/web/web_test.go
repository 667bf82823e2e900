package main

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestBothEnds(t *testing.T) {
	dir := t.TempDir()
	if err := certify(dir); err != nil {
		t.Fatal(err)
	}
	plain, secure := free(t), free(t)
	stop, err := serve(dir, plain, secure)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for _, scheme := range []string{"http", "https", "h2"} {
		t.Run(scheme, func(t *testing.T) {
			to := target{scheme: scheme, at: secure, host: name, bundle: filepath.Join(dir, "bundle.pem")}
			if scheme == "http" {
				to.at = plain
			}
			got, err := requests(to, 2, 20*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if got.rate <= 0 || got.p50 <= 0 || got.p99 < got.p50 {
				t.Errorf("requests: got %+v", got)
			}
			for _, upload := range []bool{false, true} {
				if rate, err := transfer(to, 3<<20+1, upload); err != nil || rate <= 0 {
					t.Errorf("body, upload %v: got %v, %v", upload, rate, err)
				}
			}
			done, err := idle(to, 3)
			if err != nil {
				t.Fatal(err)
			}
			done()
		})
	}
}

// free is an address that nobody serves, most likely for a moment longer.
func free(t *testing.T) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
