package intercept

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/ir/query"
	"github.com/sandlock-go/sandlock/proxy/strict"
)

// refusal is an answer of our own.
type refusal struct {
	status int
	kind   string // error type of Proxy-Status (RFC 9209 §2.3)
	reason string
	denied bool // by the policy, or for the request's form
	rule   *ir.HTTPRule
	// closest is the rule that comes closest to allowing it, for the record alone.
	closest *ir.HTTPRule
	told    string // what the record says, if it is not reason
	close   bool
}

const (
	kindDenied    = "http_request_denied"
	kindMalformed = "http_request_error"

	reasonElsewhere = "host does not lead to where the connection goes"
)

func malformed(status int, reason string) *refusal {
	return &refusal{status: status, kind: kindMalformed, reason: reason, denied: true}
}

func denied(reason string) *refusal {
	return &refusal{status: http.StatusForbidden, kind: kindDenied, reason: reason, denied: true}
}

// check decides about a request. What it finds out stands in x.
func (x *exchange) check() *refusal {
	for _, step := range []func() *refusal{x.checkForm, x.checkCrowd, x.checkAuthority, x.checkDestination, x.checkRules, x.checkBody, x.checkCredential} {
		if bad := step(); bad != nil {
			return bad
		}
	}
	return nil
}

// checkForm is about what net/http has let through, and must not be sent on.
func (x *exchange) checkForm() *refusal {
	r := x.request
	if x.s.strict != nil {
		if bad := x.s.strict.Refusal(int(x.s.requests.Add(1))); bad != nil {
			x.unknown = true
			refused := malformed(bad.Status, bad.Reason)
			refused.close = true
			return refused
		}
	}
	if length, ok := r.Header["Content-Length"]; ok && x.s.strict == nil && (len(length) != 1 || length[0] != strconv.FormatInt(r.ContentLength, 10)) {
		return malformed(http.StatusBadRequest, "Content-Length is not the length of the body") // RFC 9113 §8.1.1
	}
	switch r.Method {
	case http.MethodConnect, http.MethodTrace:
		return malformed(http.StatusMethodNotAllowed, "method is not supported")
	}
	if !strict.IsMethod(r.Method) { // "trace" with HTTP/2
		return malformed(http.StatusBadRequest, "malformed method")
	}
	x.path, x.query, _ = strings.Cut(r.RequestURI, "?")
	scheme := "http"
	if x.s.decrypted {
		scheme = "https"
	}
	switch {
	case r.URL.Opaque != "" || r.URL.User != nil:
		return malformed(http.StatusBadRequest, "malformed request target")
	case r.URL.Scheme == "":
	case x.s.strict == nil || r.URL.Scheme != scheme || r.URL.Host == "":
		return malformed(http.StatusBadRequest, "request target is for another kind of connection")
	default: // absolute form (RFC 9112 §3.2.2)
		_, rest, _ := strings.Cut(x.path, "://")
		slash := strings.IndexByte(rest, '/')
		if slash < 0 {
			x.path = "/"
			break
		}
		x.path = rest[slash:]
	}
	// A space would end the request's target, and a fragment is none of the server's business.
	for i := range len(x.query) {
		if c := x.query[i]; c <= ' ' || c == 0x7f || c == '#' {
			return malformed(http.StatusBadRequest, "byte in the query")
		}
	}
	return nil
}

// checkCrowd refuses a request while too many others are being answered: each may have something kept here.
func (x *exchange) checkCrowd() *refusal {
	p := x.s.p
	if p.requests.Load() <= requestsPerConnection*int64(p.limits.Connections) {
		return nil
	}
	return &refusal{status: http.StatusServiceUnavailable, kind: "connection_limit_reached", reason: "too many requests at a time: limits of http", denied: true}
}

// checkAuthority finds the one host that the request is for.
func (x *exchange) checkAuthority() *refusal {
	r := x.request
	host, port, err := query.ParseAuthority(r.Host)
	if err != nil {
		return malformed(http.StatusForbidden, err.Error())
	}
	for _, also := range r.Header["Host"] { // beside :authority (RFC 9113 §8.3.1)
		if h, p, err := query.ParseAuthority(also); err != nil || h != host || p != port {
			return malformed(http.StatusForbidden, "two hosts in one request")
		}
	}
	x.host, x.authority = host, host
	if strings.Contains(host, ":") {
		x.authority = "[" + host + "]"
	}
	if port != 0 {
		x.authority += ":" + strconv.Itoa(int(port))
		if port != x.s.to.Port() {
			return denied("port of the host is not where the connection goes")
		}
	}
	return nil
}

func (x *exchange) checkDestination() *refusal {
	if x.s.decrypted && x.host != x.s.server {
		bad := denied("host is not the one of the TLS connection")
		bad.status = http.StatusMisdirectedRequest
		return bad
	}
	if !x.s.leadsTo(x.host) {
		return denied(reasonElsewhere)
	}
	return nil
}

// Headers by which some servers take a request for one of another method, or another path. All punctuation is "-" to servers
// that give headers to programs as variables (RFC 3875 §4.1.18).
var (
	methodHeaders = []string{"x-http-method-override", "x-http-method", "x-method-override"}
	pathHeaders   = []string{"x-original-url", "x-rewrite-url"}
	frameHeaders  = []string{"content-length", "transfer-encoding"}
)

// isOneOf compares the name of a header as the least careful server does.
func isOneOf(name string, list []string) bool {
	for _, other := range list {
		if len(name) == len(other) && strings.EqualFold(strings.Map(dash, name), other) {
			return true
		}
	}
	return false
}

// dash makes "-" of punctuation.
func dash(r rune) rune {
	if '0' <= r && r <= '9' || 'a' <= r|0x20 && r|0x20 <= 'z' {
		return r
	}
	return '-'
}

func (x *exchange) checkRules() *refusal {
	r := x.request
	path, err := query.ParsePath(x.path)
	if err != nil {
		return malformed(http.StatusForbidden, err.Error())
	}
	x.canonical = path
	if path.Forward == "*" && r.Method != http.MethodOptions {
		return malformed(http.StatusBadRequest, "malformed request target")
	}
	if bad := x.ask(r.Method, &x.canonical); bad != nil {
		return bad
	}
	for name, values := range r.Header {
		for _, value := range values {
			if bad := x.checkOverride(name, value); bad != nil {
				bad.reason = name + ": " + bad.reason
				return bad
			}
		}
	}
	return nil
}

// checkOverride decides about what a header may turn the request into.
func (x *exchange) checkOverride(name, value string) *refusal {
	switch {
	case isOneOf(name, methodHeaders):
		for method := range strings.SplitSeq(value, ",") {
			if bad := x.ask(strings.ToUpper(strings.TrimSpace(method)), &x.canonical); bad != nil {
				return bad
			}
		}
	case isOneOf(name, pathHeaders):
		raw, _, _ := strings.Cut(value, "?")
		path, err := query.ParsePath(raw)
		if err != nil {
			return malformed(http.StatusForbidden, err.Error())
		}
		return x.ask(x.request.Method, &path)
	case strings.Map(dash, name) != name && isOneOf(name, frameHeaders):
		return malformed(http.StatusBadRequest, "header name that imitates another")
	}
	return nil
}

// ask asks the policy.
func (x *exchange) ask(method string, path *query.HTTPPath) *refusal {
	ruling := x.s.p.rules.Decide(method, x.host, path)
	if ruling.Allowed {
		if x.rule == nil {
			x.rule = ruling.Rule
		}
		return nil
	}
	bad := denied(ruling.Reason)
	bad.rule, bad.closest = ruling.Rule, ruling.Closest
	if ruling.Rule != nil {
		bad.told = ruling.Reason
		bad.reason = cmp.Or(ruling.Rule.Reason, "a rule denies it")
	}
	return bad
}

func (x *exchange) checkBody() *refusal {
	limit := x.s.p.limits.BodyBytes
	if limit > 0 && x.request.ContentLength > 0 && uint64(x.request.ContentLength) > limit {
		return tooLarge(limit)
	}
	return nil
}

func tooLarge(limit uint64) *refusal {
	bad := malformed(http.StatusRequestEntityTooLarge, "body has more than "+strconv.FormatUint(limit, 10)+" bytes: http.limits")
	bad.kind = kindDenied
	bad.close = true
	return bad
}

// checkCredential finds the credential that is added. It is checked last: only to what the rules allow.
func (x *exchange) checkCredential() *refusal {
	x.auth = x.s.p.rules.Auth(x.request.Method, x.host, &x.canonical)
	if x.auth == nil {
		return nil
	}
	if !x.s.decrypted && !x.auth.Plain {
		return denied("credential " + x.auth.Credential + " is not sent unencrypted (http.auth: plain)")
	}
	return nil
}
