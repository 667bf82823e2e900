// Package credential keeps secrets and adds them to requests.
//
// In: secrets by name, once, from the executor; then requests of the sandbox that the policy gives one of them, and the
// answers to those. Out: a header or a query with the secret in it, and answers without it.
//
// No secret is in an error, in what a type here prints, or in a core dump. A request and the strings made for it are
// ordinary memory until the garbage collector takes it; so is what the executor sends. It decides nothing: which request
// gets which secret, and that it goes to the right server, is the caller's (ir/query).
//
// Read next: store.go (where secrets are), apply.go (headers), query.go, redact.go (answers).
package credential

import (
	"errors"
	"fmt"
	"strings"
)

// Way is how a secret is added to a request.
type Way struct {
	Kind    Kind
	Name    string // Basic: user. Header, Query: name
	AddOnly bool   // what the request carries is kept; else it is replaced
}

// Kind is the part of a request that holds the secret.
type Kind uint8

// Kinds.
const (
	Bearer Kind = iota + 1 // Authorization: Bearer SECRET
	Basic                  // Authorization: Basic, with a user
	Header                 // a header with the secret alone
	Query                  // a parameter of the query
)

// Check reports what is wrong with a way.
func (w Way) Check() error {
	switch w.Kind {
	case Bearer:
		if w.Name != "" {
			return errors.New("bearer has no name")
		}
		return nil
	case Basic:
		return checkUser(w.Name)
	case Header:
		return CheckHeaderName(w.Name)
	case Query:
		if w.Name == "" {
			return errors.New("the parameter's name is empty")
		}
		return nil
	}
	return fmt.Errorf("no kind %d of credential", w.Kind)
}

// checkUser is for basic authentication, where the first colon ends the user and there are no control characters
// (RFC 7617 §2).
func checkUser(user string) error {
	if user == "" || strings.ContainsFunc(user, func(r rune) bool { return r == ':' || r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%.80q is not a user for basic authentication", user)
	}
	return nil
}

// reserved are headers about the connection and the message's length and route. With one of them a secret would not be sent
// on, or would make the server see other requests than we do. Those that begin with "proxy-" are as well.
var reserved = map[string]bool{
	"host": true, "content-length": true, "transfer-encoding": true, "connection": true, "upgrade": true, "te": true,
	"trailer": true, "expect": true, "keep-alive": true,
}

// CheckHeaderName reports why a header cannot hold a secret.
func CheckHeaderName(name string) error {
	if !isToken(name) {
		return fmt.Errorf("%.80q is not the name of a header", name)
	}
	if folded := strings.ToLower(name); reserved[folded] || strings.HasPrefix(folded, "proxy-") {
		return fmt.Errorf("header %.80q is the proxy's own", name)
	}
	return nil
}

// isToken is RFC 9110 §5.6.2.
func isToken(s string) bool {
	return s != "" && strings.Trim(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}
