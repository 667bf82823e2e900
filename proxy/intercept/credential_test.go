package intercept

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

const secretText = "s3cr3t-of-the-test"

func withAuth(h ir.HTTP, list ...ir.HTTPAuth) ir.HTTP {
	h.Auth = list
	h.Credentials = []ir.Credential{{Name: "api", Kind: ir.CredentialEnv, Source: "API"}}
	return h
}

// Number 56, and the other schemes.
func TestCredentials(t *testing.T) {
	var seen *http.Request
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) { seen = r })
	for _, tc := range []struct {
		name string
		auth ir.HTTPAuth
		url  string
		head []string
		want func(r *http.Request) string
		text string
	}{
		{"bearer", ir.HTTPAuth{Scheme: ir.AuthBearer}, "/", nil, header("Authorization"), "Bearer " + secretText},
		{"bearer replaces", ir.HTTPAuth{Scheme: ir.AuthBearer}, "/", []string{"Authorization", "Bearer mine"}, header("Authorization"), "Bearer " + secretText},
		{"bearer keeps", ir.HTTPAuth{Scheme: ir.AuthBearer, AddOnly: true}, "/", []string{"Authorization", "Bearer mine"}, header("Authorization"), "Bearer mine"},
		{"basic", ir.HTTPAuth{Scheme: ir.AuthBasic, Name: "me"}, "/", nil, func(r *http.Request) string { u, p, _ := r.BasicAuth(); return u + " " + p }, "me " + secretText},
		{"header", ir.HTTPAuth{Scheme: ir.AuthHeader, Name: "X-Api-Key"}, "/", []string{"X-Api-Key", "mine"}, header("X-Api-Key"), secretText},
		{"query", ir.HTTPAuth{Scheme: ir.AuthQuery, Name: "key"}, "/?a=%zz;b&key=mine&c", nil, func(r *http.Request) string { return r.URL.RawQuery }, "a=%zz;b&c&key=" + secretText},
		{"other path", ir.HTTPAuth{Scheme: ir.AuthBearer, Rule: rule(t, "GET a.test/api/*")}, "/", nil, header("Authorization"), ""},
		{"other host", ir.HTTPAuth{Scheme: ir.AuthBearer, Rule: rule(t, "GET b.test/*")}, "/", nil, header("Authorization"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.auth.Rule.Method == "" {
				tc.auth.Rule = rule(t, "GET a.test/*")
			}
			tc.auth.Plain, tc.auth.Credential = true, "api"
			e := begin(t, settings{
				http: withAuth(ir.HTTP{Allow: rules(t, "GET a.test/*")}, tc.auth), log: true, secrets: map[string]string{"api": secretText},
			})
			got := e.do(e.client(up.at, "a.test"), request(t, "GET", "http://a.test"+tc.url, nil, tc.head...))
			if got.StatusCode != 200 || tc.want(seen) != tc.text {
				t.Errorf("got %d, the server got %q, want %q", got.StatusCode, tc.want(seen), tc.text)
			}
			m := e.record()
			e.mu.Lock()
			warned := len(e.plain) == 1 && e.plain[0] == protocol.Plain{Credential: "api", Authority: "a.test"}
			e.mu.Unlock()
			if warned != (m.Credential != "") {
				t.Errorf("warned %t of a credential %q that went unencrypted", warned, m.Credential)
			}
			if strings.Contains(fmt.Sprintf("%+v", m), secretText) {
				t.Errorf("the secret is in the record: %+v", m)
			}
			if injected := m.Credential != ""; injected != strings.Contains(fmt.Sprint(seen.Header, seen.URL), secretText) && tc.name != "basic" {
				t.Errorf("got %+v", m)
			}
		})
	}
}

func header(name string) func(r *http.Request) string {
	return func(r *http.Request) string { return strings.Join(r.Header[http.CanonicalHeaderKey(name)], "|") }
}

// Escapes 49: a secret does not travel unencrypted, unless the policy says so.
func TestCredentialOverPlain(t *testing.T) {
	up := newUpstream(t, nil)
	h := withAuth(ir.HTTP{Allow: rules(t, "GET a.test/*")}, ir.HTTPAuth{Rule: rule(t, "GET a.test/*"), Scheme: ir.AuthBearer, Credential: "api"})
	e := begin(t, settings{http: h, secrets: map[string]string{"api": secretText}})
	got := e.do(e.client(up.at, "a.test"), request(t, "GET", "http://a.test/", nil))
	if got.StatusCode != 403 || !strings.Contains(got.text, "credential api is not sent unencrypted (http.auth: plain)") || e.dialCount() > 0 {
		t.Errorf("got %d %q", got.StatusCode, got.text)
	}
}

// A name that rules about every host let through leads anywhere: a secret's host has to be known to be there.
func TestCredentialForAnyHost(t *testing.T) {
	up := newUpstream(t, nil)
	h := withAuth(ir.HTTP{Allow: rules(t, "GET */*")}, ir.HTTPAuth{Rule: rule(t, "GET a.test/*"), Scheme: ir.AuthBearer, Credential: "api", Plain: true})
	e := begin(t, settings{http: h, secrets: map[string]string{"api": secretText}})
	if got := e.do(e.client(up.at), request(t, "GET", "http://a.test/", nil)); got.StatusCode != 403 || up.count() > 0 {
		t.Errorf("got %d %q", got.StatusCode, got.text)
	}
	if got := e.do(e.client(up.at, "a.test"), request(t, "GET", "http://a.test/", nil)); got.StatusCode != 200 {
		t.Errorf("known: got %d %q", got.StatusCode, got.text)
	}
}

// Escapes 49: what a server echoes does not come back, in whatever part of the head or the trailer.
func TestCredentialEcho(t *testing.T) {
	up, issuer := secureUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Echo", r.Header.Get("Authorization"))
		if r.URL.Path == "/early" {
			w.WriteHeader(http.StatusEarlyHints)
		}
		h.Set("Location", "https://evil.test/?t="+secretText)
		h.Set("Trailer", "X-Trailer")
		w.WriteHeader(http.StatusFound)
		_, _ = io.WriteString(w, "body")
		h.Set("X-Trailer", secretText)
		h.Set(http.TrailerPrefix+"X-Late", secretText)
	})
	h := withAuth(decrypting(t, "* a.test/*"), ir.HTTPAuth{Rule: rule(t, "* a.test/*"), Scheme: ir.AuthBearer, Credential: "api"})
	e := begin(t, settings{http: h, secrets: map[string]string{"api": secretText, protocol.SecretUpstreamCA: issuer}})
	for _, path := range []string{"/", "/early"} {
		got := e.do(e.client(up.at, "a.test"), request(t, "GET", "https://a.test"+path, nil))
		if all := fmt.Sprint(got.Header, got.Trailer); got.StatusCode != 302 || strings.Contains(all, secretText) || !strings.Contains(all, "X-Trailer") || !strings.Contains(all, "X-Late") {
			t.Errorf("got %d %s", got.StatusCode, all)
		}
	}
	if got := e.do(e.client(up.at, "a.test"), request(t, "TRACE", "https://a.test/", nil)); got.StatusCode != 405 {
		t.Errorf("TRACE: got %d", got.StatusCode)
	}
}

// A secret that a header cannot hold is no reason to send the request without it.
func TestCredentialThatDoesNotFit(t *testing.T) {
	up := newUpstream(t, nil)
	h := withAuth(ir.HTTP{Allow: rules(t, "GET a.test/*")}, ir.HTTPAuth{Rule: rule(t, "GET a.test/*"), Scheme: ir.AuthBearer, Credential: "api", Plain: true})
	e := begin(t, settings{http: h, secrets: map[string]string{"api": "two\r\nlines"}})
	got := e.do(e.client(up.at, "a.test"), request(t, "GET", "http://a.test/", nil))
	if got.StatusCode != 502 || up.count() > 0 || got.Header.Get("Proxy-Status") == "" || strings.Contains(got.text, "two") {
		t.Errorf("got %d %q; %d requests reached the server", got.StatusCode, got.text, up.count())
	}
}
