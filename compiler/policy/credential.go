package policy

import (
	"strings"

	"github.com/sandlock-go/sandlock/ir"
)

// ParseCredentialSource checks where a secret is read from: "env:NAME", "file:/path" or "fd:NUMBER". Standard output
// and error are refused: they are written to.
func ParseCredentialSource(s string) (string, error) {
	if _, err := ParseLine(s); err != nil {
		return "", err
	}
	kind, rest, _ := strings.Cut(s, ":")
	switch kind {
	case "env":
		if rest != "" && strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz0123456789") == "" {
			return s, nil
		}
	case "file":
		p, err := ParsePath(rest)
		return "file:" + p, err
	case "fd":
		if rest == "1" || rest == "2" {
			return "", grammarErrorf("credential-source", "", "%q is written to, not read from", s)
		}
		if allDigits(rest) && len(rest) <= 9 && (rest == "0" || rest[0] != '0') {
			return s, nil
		}
	}
	return "", grammarErrorf("credential-source", `write "env:NAME", "file:/path" or "fd:NUMBER"`, "%q is not a source of a credential", s)
}

// ParseAuthScheme checks how a credential is added to a request: "bearer", "basic:USER", "header:NAME" or
// "query:NAME". A user name holds no ":" (RFC 7617 §2), a header name is a token (RFC 9110 §5.1).
func ParseAuthScheme(s string) (string, error) {
	if _, err := ParseLine(s); err != nil {
		return "", err
	}
	kind, name, _ := strings.Cut(s, ":")
	switch {
	case s == "bearer",
		kind == "basic" && name != "" && !strings.Contains(name, ":"),
		kind == "header" && ir.IsToken(name),
		kind == "query" && name != "":
		return s, nil
	}
	return "", grammarErrorf("http-auth", `write "bearer", "basic:USER", "header:NAME" or "query:NAME"`, "%q is not a way to add a credential", s)
}

// ParseDestination checks rules.if.host: a host name, an address or a CIDR block.
func ParseDestination(s string) (string, error) {
	if err := CheckText(s); err != nil {
		return "", err
	}
	var rule NetRule
	if err := rule.parseTarget(s); err != nil {
		return "", err
	}
	if rule.Kind == TargetAny {
		return "", grammarErrorf("host", "leave the field out to mean every host", "%q is not a host name, an address or a CIDR block", s)
	}
	rule.TCP, rule.UDP, rule.Ports.All = true, true, true
	return rule.String(), nil
}

// ParseHTTPRequest checks one request, "METHOD host/path". The path is as a client may write it: it need not be in normal
// form. The result has the host in canonical form.
func ParseHTTPRequest(s string) (string, error) {
	if err := CheckText(s); err != nil {
		return "", err
	}
	if len(s) > ir.MaxPath {
		return "", grammarErrorf("http-request", "", "request of %d bytes, at most %d are allowed", len(s), ir.MaxPath)
	}
	refuse := func() (string, error) {
		return "", grammarErrorf("http-request", `write "METHOD host/path"`, "%q is not one request", s)
	}
	method, target, ok := strings.Cut(s, " ")
	written, path, _ := strings.Cut(target, "/")
	if !ok || !ir.IsToken(method) || strings.Contains(method, "*") || strings.ContainsAny(target, " #") || written == "*" {
		return refuse()
	}
	host, err := parseHTTPHost(written)
	if err != nil {
		return "", err
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return strings.ToUpper(method) + " " + host + "/" + path, nil
}
