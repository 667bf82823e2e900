package query

import (
	"strings"

	"github.com/sandlock-go/sandlock/ir"
)

// HTTP is the rules about requests as tables that answer for one request. It does not change.
type HTTP struct {
	rules             *ir.HTTP
	allow, deny, auth requests
	opaque            map[string]*ir.HTTPRule // by host
}

// requests is a list of rules by their host. Both lists are in the order of the policy.
type requests struct {
	named map[string][]requestRule
	any   []requestRule // about every host
}

// requestRule is a rule made ready to be compared.
type requestRule struct {
	rule    *ir.HTTPRule
	index   int                 // in the policy's list
	paths   [allReadings]string // the rule's path, read as a server reads the request's
	decides string              // the reason if it decides
	closest string              // the reason if it is the closest that allows
}

// HTTPRuling is the answer about a request.
type HTTPRuling struct {
	Allowed bool
	Rule    *ir.HTTPRule // the rule that decided; nil if none
	Closest *ir.HTTPRule // where no rule allows: the one that comes closest, or nil
	Reason  string
}

// NewHTTP makes the tables.
func NewHTTP(h *ir.HTTP) *HTTP {
	w := &HTTP{rules: h, opaque: map[string]*ir.HTTPRule{}}
	for i := range h.Allow {
		r := requestRule{rule: &h.Allow[i], index: i}
		described := r.rule.Describe()
		r.decides, r.closest = "allowed by "+described, noneAllows+"; closest is "+described
		w.allow.add(r, r.rule.Path)
		if host := r.rule.Host; r.rule.Opaque && w.opaque[host] == nil {
			w.opaque[host] = r.rule
		}
	}
	for i := range h.Deny {
		r := requestRule{rule: &h.Deny[i], index: i, decides: "denied by " + h.Deny[i].Describe()}
		if r.rule.Reason != "" {
			r.decides += ": " + r.rule.Reason
		}
		w.deny.add(r, r.rule.Path)
		if split := slashes.of(r.rule.Path); split != r.rule.Path {
			w.deny.add(r, split) // the same to some servers
		}
		if r.rule.Method == "*" && isEveryPath(r.rule) {
			if delete(w.opaque, r.rule.Host); r.rule.Host == "*" {
				clear(w.opaque)
			}
		}
	}
	for i := range h.Auth {
		w.auth.add(requestRule{rule: &h.Auth[i].Rule, index: i}, h.Auth[i].Rule.Path)
	}
	return w
}

func (t *requests) add(r requestRule, path string) {
	for how := range r.paths {
		r.paths[how] = readAs(how).of(path)
	}
	if r.rule.Host == "*" {
		t.any = append(t.any, r)
		return
	}
	if t.named == nil {
		t.named = map[string][]requestRule{}
	}
	t.named[r.rule.Host] = append(t.named[r.rule.Host], r)
}

// first returns the first rule, in the policy's order, that is about the host and matches.
func (t *requests) first(host string, matches func(*requestRule) bool) *requestRule {
	var found *requestRule
	for _, list := range [...][]requestRule{t.named[host], t.any} {
		for i := range list {
			r := &list[i]
			if found != nil && r.index > found.index {
				break
			}
			if matches(r) {
				found = r
				break
			}
		}
	}
	return found
}

const noneAllows = "no allow rule matches"

// Decide says whether a request may be sent on, with p.Forward as its path. host is as [CanonicalHost] returns it. A
// request is denied if one reading of its path is, and allowed if all are. It allocates nothing for a path with one
// reading.
func (w *HTTP) Decide(method, host string, p *HTTPPath) HTTPRuling {
	if len(p.readings) == 0 {
		return HTTPRuling{Reason: "there is no path"}
	}
	for _, read := range p.readings {
		if r := w.deny.first(host, func(r *requestRule) bool { return r.denies(method, read.text) }); r != nil {
			return HTTPRuling{Rule: r.rule, Reason: r.decides + read.inWords(method, host)}
		}
	}
	if len(w.rules.Allow) == 0 {
		return HTTPRuling{Allowed: true, Reason: "no rule denies it"}
	}
	var decides *requestRule
	for _, read := range p.readings {
		r := w.allow.first(host, func(r *requestRule) bool { return r.allows(method, read) })
		if r == nil {
			return w.noneAllows(method, host, read)
		}
		if decides == nil {
			decides = r
		}
	}
	return HTTPRuling{Allowed: true, Rule: decides.rule, Reason: decides.decides}
}

func (w *HTTP) noneAllows(method, host string, read reading) HTTPRuling {
	list := w.allow.named[host]
	if len(list) == 0 {
		list = w.allow.any
	}
	var best *requestRule
	most := -1
	for i := range list {
		r := &list[i]
		score := 2 * common(r.paths[read.how], read.text)
		if r.path(read) {
			score = 2 * maxRequestPath // all but the method
		} else if r.method(method) {
			score++
		}
		if score > most {
			best, most = r, score
		}
	}
	if best == nil {
		return HTTPRuling{Reason: noneAllows + read.inWords(method, host)}
	}
	return HTTPRuling{Closest: best.rule, Reason: best.closest + read.inWords(method, host)}
}

// inWords is what has to be said of a reading that is not the literal one.
func (read *reading) inWords(method, host string) string {
	if read.how == 0 {
		return ""
	}
	r := ir.HTTPRule{Method: method, Host: host, Path: read.text}
	return "; to some servers the request is " + r.Describe()
}

// Opaque returns the rule by which TLS for the server of this name is passed on as it is.
func (w *HTTP) Opaque(host string) (*ir.HTTPRule, bool) {
	r, ok := w.opaque[host]
	return r, ok
}

// Speaks reports whether some rule is about a host, or about every host.
func (w *HTTP) Speaks(host string) bool {
	return len(w.allow.any)+len(w.deny.any)+len(w.allow.named[host])+len(w.deny.named[host]) > 0
}

// Auth returns what is added to a request that Decide allowed: the first entry that matches all readings of its path, as
// rules allow; nil if there is none.
func (w *HTTP) Auth(method, host string, p *HTTPPath) *ir.HTTPAuth {
	if len(p.readings) == 0 {
		return nil
	}
	r := w.auth.first(host, func(r *requestRule) bool {
		for _, read := range p.readings {
			if !r.allows(method, read) {
				return false
			}
		}
		return true
	})
	if r == nil {
		return nil
	}
	return &w.rules.Auth[r.index]
}

func (r *requestRule) allows(method string, read reading) bool {
	return r.method(method) && r.path(read)
}

func (r *requestRule) method(method string) bool {
	return r.rule.Method == "*" || r.rule.Method == method
}

func (r *requestRule) path(read reading) bool {
	if read.text == "*" {
		return isEveryPath(r.rule)
	}
	path := r.paths[read.how]
	if !r.rule.Prefix {
		return read.text == path
	}
	directory, ok := strings.CutSuffix(path, "/")
	return strings.HasPrefix(read.text, path) || ok && read.text == directory
}

// denies is wider than allows: another case, or a final slash more or less, is the same thing to some servers.
func (r *requestRule) denies(method, text string) bool {
	if r.rule.Method != "*" && !equalFold(method, r.rule.Method) {
		return false
	}
	if text == "*" {
		return isEveryPath(r.rule)
	}
	path := r.paths[0]
	directory, ok := strings.CutSuffix(path, "/")
	if !r.rule.Prefix {
		return equalFold(strings.TrimSuffix(text, "/"), directory)
	}
	return len(text) >= len(path) && equalFold(text[:len(path)], path) || ok && equalFold(text, directory)
}

func isEveryPath(r *ir.HTTPRule) bool { return r.Path == "/" && r.Prefix }

// equalFold ignores the case of ASCII letters.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

func common(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
