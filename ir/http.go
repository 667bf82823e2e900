package ir

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// HTTP is what the proxy lets through of the connections to [Net.Intercepted]. Its zero value means that there is no
// proxy. Names of hosts are in lower case, addresses in canonical form and without brackets.
type HTTP struct {
	// Deny wins. With an empty Allow everything passes that Deny does not name.
	Allow []HTTPRule `cbor:"1,keyasint,omitempty"`
	Deny  []HTTPRule `cbor:"2,keyasint,omitempty"`

	Authority HTTPAuthority `cbor:"3,keyasint,omitempty"`
	CA        Template      `cbor:"4,keyasint,omitempty"` // file of the authority's certificate (PEM), for AuthorityOwn
	Key       Template      `cbor:"5,keyasint,omitempty"` // file of its private key (PEM), for AuthorityOwn
	InjectCA  []HTTPFile    `cbor:"6,keyasint,omitempty"` // to which the sandbox sees the certificate added
	CAOut     Template      `cbor:"7,keyasint,omitempty"` // file that gets the certificate; "" = none
	// UpstreamCA is a file of certificates (PEM) that servers may be certified by besides the host's; "" = none.
	UpstreamCA Template `cbor:"8,keyasint,omitempty"`

	Credentials []Credential `cbor:"9,keyasint,omitempty"` // sorted by name
	Auth        []HTTPAuth   `cbor:"10,keyasint,omitempty"`

	Limits HTTPLimits `cbor:"11,keyasint"`
	// RedactQuery leaves queries out of the access log.
	RedactQuery bool `cbor:"12,keyasint,omitempty"`

	Origin    OriginRef `cbor:"13,keyasint,omitempty"`
	CAOrigin  OriginRef `cbor:"14,keyasint,omitempty"`
	OutOrigin OriginRef `cbor:"15,keyasint,omitempty"`
}

// HTTPRule is a set of requests.
type HTTPRule struct {
	_      struct{} `cbor:",toarray"`
	Method string   // upper case; "*" any
	Host   string   // "*" any
	Path   string   // percent-decoded but for %2F, lexically clean, begins with "/"
	Prefix bool     // matches everything that begins with Path, and Path without its final slash
	Opaque bool     // TLS is passed on as it is, by its server name: only for any method and every path of a named host
	Reason string   // for whom the rule refuses; "" = none
	Origin OriginRef
}

// HTTPAuthority says who certifies the servers of intercepted TLS.
type HTTPAuthority uint8

// Kinds of authority.
const (
	AuthorityNone      HTTPAuthority = 0 // TLS is not decrypted, and so refused but for opaque rules
	AuthorityOwn       HTTPAuthority = 1 // CA and Key
	AuthorityEphemeral HTTPAuthority = 2 // made for each run, and for the hosts in rules alone
)

// HTTPFile is a file of certificates.
type HTTPFile struct {
	_      struct{} `cbor:",toarray"`
	Path   Template
	Origin OriginRef
}

// Credential is a named secret, and where it is read from when the sandbox starts.
type Credential struct {
	_      struct{} `cbor:",toarray"`
	Name   string
	Kind   CredentialKind
	Source Template // a variable's name, a path, a descriptor's number
	Origin OriginRef
}

// CredentialKind is the kind of source.
type CredentialKind uint8

// Kinds of source.
const (
	CredentialEnv  CredentialKind = 1 // the executor's own environment; the variable is taken out of the sandbox's
	CredentialFile CredentialKind = 2
	CredentialFD   CredentialKind = 3 // inherited by the executor
)

// HTTPAuth has a credential added to requests. The first that matches decides.
type HTTPAuth struct {
	_          struct{} `cbor:",toarray"`
	Rule       HTTPRule
	Credential string
	Scheme     AuthScheme
	Name       string // of the user, header or query parameter; "" for AuthBearer
	AddOnly    bool   // keeps what the request carries
	Plain      bool   // also where the request travels unencrypted
	Origin     OriginRef
}

// AuthScheme is how a credential is added.
type AuthScheme uint8

// Ways to add a credential.
const (
	AuthBearer AuthScheme = 1 // Authorization: Bearer (RFC 6750)
	AuthBasic  AuthScheme = 2 // Authorization: Basic (RFC 7617)
	AuthHeader AuthScheme = 3
	AuthQuery  AuthScheme = 4
)

// HTTPLimits bounds the proxy.
type HTTPLimits struct {
	HeaderBytes uint64 `cbor:"1,keyasint,omitempty"` // of a request's or an answer's head
	BodyBytes   uint64 `cbor:"2,keyasint,omitempty"` // of a request's body; 0 = unlimited
	Connections uint32 `cbor:"3,keyasint,omitempty"` // open at a time
	HeaderMS    uint64 `cbor:"4,keyasint,omitempty"` // for a head, or a TLS handshake, to arrive; milliseconds
	IdleMS      uint64 `cbor:"5,keyasint,omitempty"` // without a byte in either direction; milliseconds
}

// On reports whether there is a proxy.
func (h *HTTP) On() bool { return len(h.Allow) > 0 || len(h.Deny) > 0 }

// InterceptsTLS reports whether TLS is decrypted.
func (h *HTTP) InterceptsTLS() bool { return h.Authority != AuthorityNone }

// AnyHost reports whether some rule speaks of every host.
func (h *HTTP) AnyHost() bool {
	return slices.ContainsFunc(slices.Concat(h.Allow, h.Deny), func(r HTTPRule) bool { return r.Host == "*" })
}

// Hosts returns the names and addresses that rules speak of, those about credentials included, each once, in their order.
func (h *HTTP) Hosts() (names []string, addresses []netip.Addr) {
	rules := slices.Concat(h.Allow, h.Deny)
	for i := range h.Auth {
		rules = append(rules, h.Auth[i].Rule)
	}
	for _, r := range rules {
		if r.Host == "*" {
			continue
		}
		if addr, err := netip.ParseAddr(r.Host); err == nil {
			if !slices.Contains(addresses, addr) {
				addresses = append(addresses, addr)
			}
		} else if !slices.Contains(names, r.Host) {
			names = append(names, r.Host)
		}
	}
	return names, addresses
}

// Bounds on the section.
const (
	MinHeaderBytes = 1 << 10
	MaxHeaderBytes = 16 << 20
	MaxHeaderTime  = 24 * time.Hour
	MaxIdleTime    = 365 * 24 * time.Hour
	MaxHTTPRules   = 4096 // that allow, deny or add credentials
	MaxCredentials = 256  // as many files may show the certificate
)

func (p *Program) checkHTTP() error {
	h := &p.HTTP
	if !h.On() {
		if len(p.Net.Intercepted) > 0 {
			return errors.New("ports are intercepted, but there are no rules")
		}
		return p.checkNoHTTP()
	}
	if len(p.Net.Intercepted) == 0 {
		return errors.New("rules, but no ports are intercepted")
	}
	if p.Process.Start == StartInPlace {
		return errors.New("rules need a supervisor")
	}
	if len(h.Allow)+len(h.Deny)+len(h.Auth) > MaxHTTPRules {
		return tooMany(len(h.Allow)+len(h.Deny)+len(h.Auth), MaxHTTPRules)
	}
	for i := range h.Allow {
		if err := p.checkHTTPRule(&h.Allow[i]); err != nil {
			return fmt.Errorf("allow[%d]: %w", i, err)
		}
	}
	for i := range h.Deny {
		if err := p.checkHTTPRule(&h.Deny[i]); err != nil {
			return fmt.Errorf("deny[%d]: %w", i, err)
		}
		if h.Deny[i].Opaque {
			return fmt.Errorf("deny[%d]: an opaque rule only allows", i)
		}
	}
	for _, check := range []func() error{p.checkHTTPFiles, p.checkCredentials, p.checkHTTPAuth, h.Limits.check} {
		if err := check(); err != nil {
			return err
		}
	}
	return p.checkRefs(map[string]OriginRef{"origin": h.Origin, "ca": h.CAOrigin, "ca_out": h.OutOrigin})
}

func (p *Program) checkNoHTTP() error {
	h := &p.HTTP
	if len(h.InjectCA)+len(h.Auth) > 0 || h.Authority != AuthorityNone || h.CA+h.Key+h.CAOut+h.UpstreamCA != "" ||
		h.Limits != (HTTPLimits{}) || h.RedactQuery || len(h.Credentials) > 0 {
		return errors.New("settings of a proxy that is not there")
	}
	return nil
}

func (p *Program) checkHTTPRule(r *HTTPRule) error {
	if r.Method != "*" && !IsToken(r.Method) || strings.ToUpper(r.Method) != r.Method {
		return fmt.Errorf("method %q", r.Method)
	}
	if err := checkHTTPHost(r.Host); err != nil {
		return err
	}
	if !strings.HasPrefix(r.Path, "/") || len(r.Path) > MaxPath {
		return fmt.Errorf("path %q", r.Path)
	}
	if err := checkText(r.Path); err != nil {
		return fmt.Errorf("path %q: %w", r.Path, err)
	}
	if !isCleanHTTPPath(r.Path) {
		return fmt.Errorf("path %q is not clean: no request would match it", r.Path)
	}
	if r.Opaque && (r.Method != "*" || r.Host == "*" || r.Path != "/" || !r.Prefix) {
		return fmt.Errorf("%s: an opaque rule is about all of a named host", r.Describe())
	}
	if r.Reason != "" {
		if err := checkLine(r.Reason); err != nil {
			return fmt.Errorf("reason: %w", err)
		}
	}
	return p.checkOrigin(r.Origin)
}

// isCleanHTTPPath reports whether a path is as those of requests are once they are read: without segments that mean another
// path, an encoded slash in one spelling.
func isCleanHTTPPath(path string) bool {
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		if s == "." || s == ".." || s == "" && i < len(segments)-1 || strings.Contains(s, "%2f") {
			return false
		}
	}
	return true
}

func checkHTTPHost(host string) error {
	if host == "*" {
		return nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" || addr.Is4In6() || addr.String() != host {
			return fmt.Errorf("%q is not an address in canonical form", host)
		}
		return nil
	}
	return checkHostName(host)
}

func (p *Program) checkHTTPFiles() error {
	h := &p.HTTP
	if h.Authority > AuthorityEphemeral || (h.Authority == AuthorityOwn) != (h.CA != "" && h.Key != "") {
		return fmt.Errorf("authority %d with certificate %q and key %q", h.Authority, h.CA, h.Key)
	}
	if h.Authority == AuthorityNone && (len(h.InjectCA) > 0 || h.CAOut != "" || h.CA+h.Key != "") {
		return errors.New("a certificate is to be shown, but there is no authority")
	}
	for i, path := range []Template{h.CA, h.Key, h.CAOut, h.UpstreamCA} {
		if path == "" {
			continue
		}
		if err := p.checkPath(path); err != nil {
			return fmt.Errorf("%s: %w", []string{"ca", "key", "ca_out", "upstream_ca"}[i], err)
		}
	}
	if len(h.InjectCA) > MaxCredentials {
		return tooMany(len(h.InjectCA), MaxCredentials)
	}
	for i := range h.InjectCA {
		if err := p.checkPath(h.InjectCA[i].Path); err != nil {
			return fmt.Errorf("inject_ca[%d]: %w", i, err)
		}
		if err := p.checkOrigin(h.InjectCA[i].Origin); err != nil {
			return err
		}
	}
	return nil
}

func (p *Program) checkCredentials() error {
	list := p.HTTP.Credentials
	if len(list) > MaxCredentials {
		return tooMany(len(list), MaxCredentials)
	}
	for i := range list {
		c := &list[i]
		if i > 0 && c.Name <= list[i-1].Name {
			return fmt.Errorf("credentials: %q after %q: not ascending", c.Name, list[i-1].Name)
		}
		if c.Name == "" || len(c.Name) > maxName || c.Kind < CredentialEnv || c.Kind > CredentialFD || c.Source == "" {
			return fmt.Errorf("credential %q of kind %d from %q", c.Name, c.Kind, c.Source)
		}
		for _, s := range []string{c.Name, c.Source} {
			if err := checkLine(s); err != nil {
				return fmt.Errorf("credential %q: %w", c.Name, err)
			}
		}
		switch c.Kind {
		case CredentialFile:
			if err := p.checkPath(c.Source); err != nil {
				return fmt.Errorf("credential %q: %w", c.Name, err)
			}
		case CredentialFD:
			if len(c.Source) > 9 || strings.Trim(c.Source, "0123456789") != "" || c.Source == "1" || c.Source == "2" {
				return fmt.Errorf("credential %q: descriptor %q", c.Name, c.Source)
			}
		}
		if err := p.checkOrigin(c.Origin); err != nil {
			return err
		}
	}
	return nil
}

func (p *Program) checkHTTPAuth() error {
	h := &p.HTTP
	for i := range h.Auth {
		a := &h.Auth[i]
		err := p.checkHTTPRule(&a.Rule)
		switch {
		case err != nil:
		case a.Rule.Opaque:
			err = errors.New("nothing can be added to what is opaque")
		case a.Rule.Host == "*":
			err = errors.New("every host would be given the credential")
		case a.Scheme < AuthBearer || a.Scheme > AuthQuery || (a.Scheme == AuthBearer) != (a.Name == ""):
			err = fmt.Errorf("scheme %d with name %q", a.Scheme, a.Name)
		case a.Scheme == AuthHeader && !IsToken(a.Name):
			err = fmt.Errorf("header %q", a.Name)
		case a.Scheme == AuthBasic && strings.Contains(a.Name, ":"):
			err = fmt.Errorf("user %q", a.Name)
		case !slices.ContainsFunc(h.Credentials, func(c Credential) bool { return c.Name == a.Credential }):
			err = fmt.Errorf("no credential %q", a.Credential)
		case a.Name != "":
			err = checkLine(a.Name)
		}
		if err == nil {
			err = p.checkOrigin(a.Origin)
		}
		if err != nil {
			return fmt.Errorf("auth[%d]: %w", i, err)
		}
	}
	return nil
}

func (l *HTTPLimits) check() error {
	if l.HeaderBytes < MinHeaderBytes || l.HeaderBytes > MaxHeaderBytes || l.Connections == 0 || l.Connections > 1<<16 ||
		l.HeaderMS == 0 || l.HeaderMS > uint64(MaxHeaderTime.Milliseconds()) || l.IdleMS == 0 || l.IdleMS > uint64(MaxIdleTime.Milliseconds()) {
		return fmt.Errorf("limits %+v are out of bounds", *l)
	}
	return nil
}

// IsToken holds for tokens of RFC 9110 §5.6.2: methods, and names of header fields.
func IsToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
		if !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// Describe returns the rule as policies write it.
func (r *HTTPRule) Describe() string {
	host, path := r.Host, escapePath(r.Path)
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if r.Prefix {
		path += "*"
	}
	return r.Method + " " + host + path
}

// escapePath percent-encodes what a path of a request cannot hold literally (RFC 3986 §3.3).
func escapePath(path string) string {
	var b strings.Builder
	for i := range len(path) {
		c := path[i]
		alnum := '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
		// An encoded slash is kept as it is by paths, which hold no other escapes.
		if alnum || strings.HasPrefix(path[i:], "%2F") || strings.IndexByte("-._~!$&'()+,;=:@/", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// Describe returns the scheme as policies write it.
func (a *HTTPAuth) Describe() string {
	switch a.Scheme {
	case AuthBasic:
		return "basic:" + a.Name
	case AuthHeader:
		return "header:" + a.Name
	case AuthQuery:
		return "query:" + a.Name
	}
	return "bearer"
}

// Describe returns the source as policies write it.
func (c *Credential) Describe() string {
	return map[CredentialKind]string{CredentialEnv: "env:", CredentialFile: "file:", CredentialFD: "fd:"}[c.Kind] + c.Source
}
