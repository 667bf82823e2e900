package check

import (
	"slices"
	"strings"
	"time"

	"github.com/sandlock-go/sandlock/compiler/diag"
	"github.com/sandlock-go/sandlock/compiler/lower"
	"github.com/sandlock-go/sandlock/compiler/policy"
	"github.com/sandlock-go/sandlock/ir"
)

func checkHTTP(c *checker) {
	if !c.HTTP.On() {
		checkNoRequests(c)
		return
	}
	checkPassthrough(c)
	checkHTTPCounts(c)
	checkHTTPLimits(c)
	checkHTTPPorts(c)
	checkAuth(c)
	checkSecretsHidden(c)
	checkInject(c)
	rules := c.HTTP.Rules()
	for _, l := range [][]policy.Val[policy.HTTPRule]{rules[:len(c.HTTP.Allow.Items)], rules[len(c.HTTP.Allow.Items):]} {
		repeated(policy.List[policy.HTTPRule]{Items: l}, policy.HTTPRule.String, func(again, first policy.Val[policy.HTTPRule]) {
			d := diag.At(again.Origin, "duplicate", "%q is listed twice", again.V.String())
			c.add(d.AsWarning().WithNote(first.Origin.Place, "first at"))
		})
	}
}

// checkNoRequests refuses what is about a proxy that there will not be.
func checkNoRequests(c *checker) {
	h := &c.HTTP
	for _, f := range []struct {
		written bool
		origin  policy.Origin
	}{
		{len(h.Ports.Items) > 0, h.Ports.Origin},
		{h.CA.Set, h.CA.Origin},
		{h.Key.Set, h.Key.Origin},
		{len(h.InjectCA.Items) > 0, h.InjectCA.Origin},
		{h.CAOut.Set, h.CAOut.Origin},
		{h.UpstreamCA.Set, h.UpstreamCA.Origin},
		{len(h.Credentials.Items) > 0, h.Credentials.Origin},
		{len(h.Auth.Items) > 0, h.Auth.Origin},
		{h.RedactQuery.Set, h.RedactQuery.Origin},
		{h.Limits.HeaderBytes.Set, h.Limits.HeaderBytes.Origin},
		{h.Limits.BodyBytes.Set, h.Limits.BodyBytes.Origin},
		{h.Limits.Connections.Set, h.Limits.Connections.Origin},
		{h.Limits.HeaderTime.Set, h.Limits.HeaderTime.Origin},
		{h.Limits.Idle.Set, h.Limits.Idle.Origin},
	} {
		if f.written && f.origin.Kind != ir.OriginDefault {
			d := diag.At(f.origin, "requires", "there is no rule about requests, and so no proxy that it could be for")
			c.add(d.WithHint(`write a rule in http.allow or http.deny, or leave it out`))
		}
	}
}

// checkHTTPCounts refuses more than an artifact holds.
func checkHTTPCounts(c *checker) {
	h := &c.HTTP
	for _, l := range []struct {
		what   string
		n      int
		most   int
		origin policy.Origin
	}{
		{"rules, those of http.auth included", len(h.Rules()) + len(h.Auth.Items), ir.MaxHTTPRules, h.Origin()},
		{"credentials", len(h.Credentials.Items), ir.MaxCredentials, h.Credentials.Origin},
		{"files", len(h.InjectCA.Items), ir.MaxCredentials, h.InjectCA.Origin},
	} {
		if l.n > l.most {
			c.errorf(l.origin, "range", "%d %s, at most %d are allowed", l.n, l.what, l.most)
		}
	}
}

// checkHTTPLimits: what the proxy can do with.
func checkHTTPLimits(c *checker) {
	l := &c.HTTP.Limits
	if n := l.HeaderBytes; n.V < ir.MinHeaderBytes || n.V > ir.MaxHeaderBytes {
		c.errorf(n.Origin, "range", "%d is out of range (%d to %d bytes)", n.V, ir.MinHeaderBytes, ir.MaxHeaderBytes)
	}
	for _, t := range []struct {
		value policy.Val[time.Duration]
		most  time.Duration
	}{{l.HeaderTime, ir.MaxHeaderTime}, {l.Idle, ir.MaxIdleTime}} {
		if t.value.V > t.most {
			c.errorf(t.value.Origin, "range", "%v is out of range (at most %v)", t.value.V, t.most)
		}
	}
}

// checkPassthrough: of what is not decrypted nothing but the server's name is known, so no rule about such a host may need
// to know more.
func checkPassthrough(c *checker) {
	for _, it := range c.HTTP.Allow.Items {
		if !it.V.Opaque() {
			continue
		}
		r := &it.V.Rule.V
		if r.Method != "*" || r.Path != "/" || !r.Prefix || r.Host == "*" {
			d := diag.At(it.Origin, "http-passthrough", "%q: of TLS that is passed through, method and path are not known", r.String())
			c.add(d.WithHint(`write "* %s"`, hostOr(r.Host, "HOST")))
			continue
		}
		for i, other := range c.HTTP.Rules() {
			o, denies := &other.V, i >= len(c.HTTP.Allow.Items)
			about := o.Host == r.Host || o.Host == "*" && denies
			if whole := o.Method == "*" && o.Path == "/" && o.Prefix; whole || !about {
				continue
			}
			d := diag.At(other.Origin, "http-passthrough", "%q cannot be decided about %s, whose TLS is passed through", o.String(), r.Host)
			c.add(d.WithNote(it.Origin.Place, "passed through at"))
		}
		for _, a := range c.HTTP.Auth.Items {
			if a.V.Rule.V.Host == r.Host {
				d := diag.At(a.Origin, "http-passthrough", "nothing can be added to requests to %s, whose TLS is passed through", r.Host)
				c.add(d.WithNote(it.Origin.Place, "passed through at"))
			}
		}
	}
}

func hostOr(host, otherwise string) string {
	if host == "*" {
		return otherwise
	}
	return host
}

func checkHTTPPorts(c *checker) {
	ports := lower.HTTPPorts(c.Policy)
	if slices.Contains(ports, 443) && !lower.SeesTLS(&c.HTTP) {
		d := diag.At(c.HTTP.Ports.Origin, "no-effect", "port 443 is intercepted, but TLS is not: it will be refused there")
		c.add(d.AsWarning().WithHint(`write inject_ca: ["/etc/ssl/certs/ca-certificates.crt"] to have TLS intercepted`))
	}
	repeated(c.HTTP.Ports, func(p uint16) uint16 { return p }, func(again, first policy.Val[uint16]) {
		d := diag.At(again.Origin, "duplicate", "port %d is listed twice", again.V)
		c.add(d.AsWarning().WithNote(first.Origin.Place, "first at"))
	})
	// Who writes no scheme means TCP above all; who writes udp:// will wonder.
	for _, it := range c.Network.Allow.Items {
		r := &it.V
		if !r.UDP || r.TCP || r.Ports.All {
			continue
		}
		for _, port := range ports {
			if slices.ContainsFunc(r.Ports.Ranges, func(x policy.PortRange) bool { return x.Lo <= port && port <= x.Hi }) {
				d := diag.At(it.Origin, "no-effect", "UDP port %d stays closed: HTTP/3 would pass the rules of http by", port)
				c.add(d.AsWarning().WithNote(c.HTTP.Allow.Origin.Place, "rules about requests at"))
			}
		}
	}
}

// reservedHeaders say where a request goes and where it ends.
var reservedHeaders = []string{
	"connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
}

func checkAuth(c *checker) {
	var names []string
	used := map[string]bool{}
	for _, it := range c.HTTP.Credentials.Items {
		names = append(names, it.V.Name)
	}
	for _, it := range c.HTTP.Auth.Items {
		a := &it.V
		used[a.Credential.V] = true
		if !slices.Contains(names, a.Credential.V) {
			c.unknown(a.Credential.Origin, "credential", "credential", a.Credential.V, names)
		}
		if a.Rule.V.Host == "*" {
			d := diag.At(a.Rule.Origin, "auth-host", "%q would give the credential to every host", a.Rule.V.String())
			c.add(d.WithHint("name the host that is to have it"))
		}
		kind, name, _ := strings.Cut(a.As.V, ":")
		name = strings.ToLower(name)
		if kind == "header" && (slices.Contains(reservedHeaders, name) || strings.HasPrefix(name, "proxy-")) {
			c.errorf(a.As.Origin, "http-auth", "header %q says how a request travels: a credential cannot be in it", name)
		}
		if !a.Plain.V && !c.HTTP.CA.Set && len(c.HTTP.InjectCA.Items) == 0 {
			d := diag.At(it.Origin, "no-effect", "TLS is not intercepted, and unencrypted the credential is not sent: such requests will be refused")
			c.add(d.AsWarning().WithHint("write plain: true to send it unencrypted, or http.inject_ca to have TLS intercepted"))
		}
	}
	for _, it := range c.HTTP.Credentials.Items {
		if !used[it.V.Name] {
			d := diag.At(it.Origin, "no-effect", "no rule of http.auth uses credential %q", it.V.Name)
			c.add(d.AsWarning())
		}
	}
}

// checkSecretsHidden warns of files that the sandbox is not to know, and may read.
func checkSecretsHidden(c *checker) {
	secret := func(v policy.Val[string], path, what string) {
		if path == "" {
			return
		}
		for _, l := range []policy.List[policy.PathRule]{c.Filesystem.Read, c.Filesystem.Write} {
			for _, it := range l.Items {
				if grant := it.V.Path.V; beneath(path, grant) {
					d := diag.At(v.Origin, "secret-readable", "%s %s can be read by the sandbox: it lies beneath %s", what, path, grant)
					c.add(d.AsWarning().WithNote(place(it.Origin, l.Origin).Place, "granted at").WithHint("keep it outside of what the policy grants"))
					return
				}
			}
		}
	}
	for _, it := range c.HTTP.Credentials.Items {
		if path, ok := strings.CutPrefix(it.V.Source.V, "file:"); ok {
			secret(it.V.Source, path, "the credential in")
		}
	}
	secret(c.HTTP.Key, c.HTTP.Key.V, "the authority's key")
}

// checkInject warns of files that no program of the sandbox can open.
func checkInject(c *checker) {
	fs := &c.Filesystem
	for _, it := range c.HTTP.InjectCA.Items {
		readable := strings.Contains(it.V, "${")
		for _, l := range []policy.List[policy.PathRule]{fs.Read, fs.Write} {
			readable = readable || slices.ContainsFunc(l.Items, func(p policy.Val[policy.PathRule]) bool { return beneath(it.V, p.V.Path.V) })
		}
		for _, r := range fs.Rules.Items {
			readable = readable || beneath(it.V, r.V.Path.V) && slices.Contains(r.V.Access.Values(), "read_file")
		}
		if !readable {
			d := diag.At(it.Origin, "no-effect", "programs will not find the certificate: %s cannot be read", it.V)
			c.add(d.AsWarning().WithHint("write filesystem: read: [%q]", it.V))
		}
	}
}
