package intercept

import (
	"net/http"
	"testing"

	"github.com/sandlock-go/sandlock/ir"
)

// Numbers 48, 49, 51 to 53 and 57 of spec/network.md.
func TestRules(t *testing.T) {
	up := newUpstream(t, nil)
	for _, tc := range []struct {
		name        string
		allow, deny []string
		method      string
		path        string
		want        int
	}{
		{"48 allowed", []string{"GET 127.0.0.1/*"}, nil, "GET", "/get", 200},
		{"48 denied", []string{"GET 127.0.0.1/allowed"}, nil, "GET", "/denied", 403},
		{"49 public", []string{"* 127.0.0.1/*"}, []string{"* 127.0.0.1/secret"}, "GET", "/public", 200},
		{"49 secret", []string{"* 127.0.0.1/*"}, []string{"* 127.0.0.1/secret"}, "GET", "/secret", 403},
		{"51 GET", []string{"GET 127.0.0.1/anything"}, nil, "GET", "/anything", 200},
		{"51 POST", []string{"GET 127.0.0.1/anything"}, nil, "POST", "/anything", 403},
		{"52 GET", []string{"GET 127.0.0.1/get", "POST 127.0.0.1/post"}, nil, "GET", "/get", 200},
		{"52 POST", []string{"GET 127.0.0.1/get", "POST 127.0.0.1/post"}, nil, "POST", "/post", 200},
		{"52 other", []string{"GET 127.0.0.1/get", "POST 127.0.0.1/post"}, nil, "GET", "/anything", 403},
		{"57", []string{"* 127.0.0.1/allowed"}, nil, "GET", "/secret", 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := begin(t, settings{http: ir.HTTP{Allow: rules(t, tc.allow...), Deny: rules(t, tc.deny...)}})
			before := up.count()
			got := e.do(e.client(up.at), request(t, tc.method, "http://"+up.at+tc.path, nil))
			if got.StatusCode != tc.want {
				t.Errorf("got %d %q, want %d", got.StatusCode, got.text, tc.want)
			}
			if reached := up.count() > before; reached != (tc.want == http.StatusOK) {
				t.Errorf("the request reached the server: %t", reached)
			}
			if e.dialCount() > 0 && tc.want != http.StatusOK {
				t.Error("the server was contacted")
			}
		})
	}
}
