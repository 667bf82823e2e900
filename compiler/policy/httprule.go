package policy

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
)

// HTTPRule is one rule "METHOD host/path".
type HTTPRule struct {
	Method string // upper case; "*" any
	Host   string // lower case name or address, IPv6 without brackets; "*" any
	Path   string // percent-decoded, lexically clean, begins with "/"
	Prefix bool   // written with a final "*", which is not part of Path: matches everything that begins with Path
}

const httpHint = `write "METHOD host/path", such as "GET api.example.com/v1/*" or "* */admin/*"`

// ParseHTTPRule parses a rule of the http section. A missing path means every path. Only a final "*" of the path is
// special. A rule holds no port (http.ports says which are intercepted) and no query: it would never match.
func ParseHTTPRule(s string) (HTTPRule, error) {
	if err := CheckText(s); err != nil {
		return HTTPRule{}, err
	}
	fields := strings.Fields(s)
	if len(fields) != 2 {
		return HTTPRule{}, grammarErrorf("http-rule", httpHint, "%q is not an HTTP rule", s)
	}
	method := strings.ToUpper(fields[0])
	if !ir.IsToken(method) || method != "*" && strings.Contains(method, "*") {
		return HTTPRule{}, grammarErrorf("http-rule", httpHint, "%q is not an HTTP method", fields[0])
	}
	host, rest, hasPath := strings.Cut(fields[1], "/")
	rule := HTTPRule{Method: method, Path: "/", Prefix: true}
	var err error
	if rule.Host, err = parseHTTPHost(host); err != nil {
		return HTTPRule{}, err
	}
	if hasPath {
		rule.Path, rule.Prefix, err = parseHTTPPath("/" + rest)
	}
	if err != nil {
		return HTTPRule{}, err
	}
	return rule, nil
}

func parseHTTPHost(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	if host, err := query.CanonicalHost(s); err == nil {
		if _, err := netip.ParseAddr(host); err == nil {
			return host, nil
		}
	}
	if strings.Contains(s, ":") {
		return "", grammarErrorf("http-rule", "http.ports says which ports are intercepted", "%q: the host of an HTTP rule has no port", s)
	}
	if strings.HasPrefix(s, "*.") {
		return "", grammarErrorf("http-rule", "", `%q: an HTTP rule takes a whole host name or "*"`, s)
	}
	return checkHost(s)
}

func parseHTTPPath(s string) (clean string, prefix bool, err error) {
	if strings.ContainsAny(s, "?#") {
		return "", false, grammarErrorf("http-rule", "", "path %q: queries and fragments are not matched", s)
	}
	if strings.Contains(strings.TrimSuffix(s, "*"), "*") {
		return "", false, grammarErrorf("http-rule", "", "path %q: only a final * is special", s)
	}
	if len(s) > ir.MaxPath {
		return "", false, grammarErrorf("http-rule", "", "path of %d bytes, at most %d are allowed", len(s), ir.MaxPath)
	}
	parsed, err := query.ParsePath(s)
	if err != nil {
		return "", false, grammarErrorf("http-rule", "", "path %q: no request has it: %v", s, err)
	}
	if !lexicallyClean(strings.TrimSuffix(s, "*")) {
		return "", false, grammarErrorf("http-rule", "write "+parsed.Forward, "path %q is not in normal form, so no request would match it", s)
	}
	clean, prefix = parsed.Text(), strings.HasSuffix(s, "*")
	if prefix {
		clean = strings.TrimSuffix(clean, "*")
	}
	if strings.Contains(clean, "*") {
		return "", false, grammarErrorf("http-rule", "", `path %q: an escaped "*" cannot be matched`, s)
	}
	return clean, prefix, nil
}

// lexicallyClean reports whether a path has no segment that means another path.
func lexicallyClean(p string) bool {
	segments := strings.Split(p, "/")[1:]
	for i, segment := range segments {
		decoded, err := url.PathUnescape(segment)
		if err != nil || decoded == "." || decoded == ".." || decoded == "" && i < len(segments)-1 {
			return false
		}
	}
	return true
}

// NamesHost reports whether the rule is about a host by its name.
func (r *HTTPRule) NamesHost() bool {
	_, err := netip.ParseAddr(r.Host)
	return r.Host != "*" && err != nil
}

// String returns the rule as policies write it; parsing it gives the same rule.
func (r HTTPRule) String() string {
	rule := ir.HTTPRule{Method: r.Method, Host: r.Host, Path: r.Path, Prefix: r.Prefix}
	return rule.Describe()
}
